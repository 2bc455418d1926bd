"""The command as its users run it: results, sentences, exit statuses, nothing half-written."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import jsonschema
import nibabel as nib
import numpy as np
import pytest
import torch
from helpers import DWI, body, centred_affine, positions, rotation, write_nifti, write_patient
from random_bundle import write_random_bundle

from HCCNetLib.bundles import Bundle, Calibration, write_bundle
from HCCNetLib.commands import doctor, outputs
from HCCNetLib.commands import main as commands_main
from HCCNetLib.commands.doctor import find_notes, find_problems
from HCCNetLib.commands.main import COMMANDS, main
from HCCNetLib.commands.outputs import folder_name
from HCCNetLib.inference import NOTICE, prediction_schema
from HCCNetLib.records import Refusal

# A folder that is written aside carries no patient's name, and none may be left.
LEFT_ASIDE = re.compile(r"\.hccnet-|\.bundle-")


def run(*arguments: object) -> int:
    return main([str(a) for a in arguments])


def leftovers(folder: Path) -> list[Path]:
    return [p for p in folder.rglob("*") if LEFT_ASIDE.search(p.name)]


# ---------------------------------------------------------------- predict


@pytest.fixture(scope="module")
def one_member(demonstration: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One small network of random weights."""
    states = [(demonstration.member(0).state_dict(), 0)]
    description = replace(demonstration.description, name="one", demonstration=False)
    return write_bundle(tmp_path_factory.mktemp("one") / "bundle", description, states, "card").path


@pytest.fixture(scope="module")
def predicted(samples: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("predicted")
    assert run("predict", samples, "--out", out) == 0
    return out


def test_the_sample_patient_is_predicted_with_maps_and_a_report(predicted: Path, samples: Path) -> None:
    result = json.loads((predicted / "RA01" / "prediction.json").read_text())
    jsonschema.validate(result, prediction_schema())
    assert result["bundle"]["demonstration"]
    assert result["landmark"] == "2023-01-11"
    assert result["notice"] == NOTICE
    assert len(result["members"]) == 10
    for exam in result["exams"]:
        saliency = nib.load(predicted / "RA01" / exam["saliency"]["all"])
        image = nib.load(samples / "RA01" / exam["exam_id"] / "DWI_b0.nii.gz")
        assert saliency.shape == image.shape
        assert np.allclose(saliency.affine, image.affine, atol=1e-4)
        assert int(saliency.header["sform_code"]) == 1
        assert b"demonstration weights: no meaning" in saliency.header["descrip"].tobytes()
        assert int(saliency.header["qform_code"]) == 1
        data = saliency.get_fdata()
        assert 0 <= data.min() <= data.max() <= 1
    assert leftovers(predicted) == []


def test_every_map_that_the_result_names_lies_on_its_exam_and_says_what_it_is(predicted: Path, samples: Path) -> None:
    result = json.loads((predicted / "RA01" / "prediction.json").read_text())
    words = {
        "saliency": "raises output",
        "saliency_against": "lowers output",
        "more": "raised since last",
        "less": "lowered since last",
    }
    greatest = []
    for number, exam in enumerate(result["exams"]):
        image = nib.load(samples / "RA01" / exam["exam_id"] / "DWI_b0.nii.gz")
        change = exam["saliency_change"] or {}
        assert set(change) == ({"more", "less"} if number else set())
        maps = {"saliency": exam["saliency"]["all"], "saliency_against": exam["saliency_against"]["all"], **change}
        assert len(set(maps.values())) == len(maps)
        for kind, path in maps.items():
            saved = nib.load(predicted / "RA01" / path)
            assert saved.shape == image.shape
            assert np.allclose(saved.affine, image.affine, atol=1e-4)
            said = saved.header["descrip"].tobytes().decode()
            assert words[kind] in said
            assert "demonstration weights: no meaning" in said
            assert "not clinical" in said
        towards, against = (nib.load(predicted / "RA01" / maps[kind]).get_fdata() for kind in list(maps)[:2])
        assert not (towards * against).any()
        greatest.append(max(towards.max(), against.max()))
        where = np.array([*exam["peak"]["mm"], 1]) @ np.linalg.inv(image.affine).T
        assert towards[tuple(np.rint(where[:3]).astype(int))] == pytest.approx(exam["peak"]["value"], abs=1e-5)
    assert max(greatest) == pytest.approx(1)
    written = {str(p.relative_to(predicted / "RA01")) for p in (predicted / "RA01").rglob("*.nii.gz")}
    assert len(written) == 4 * 2 + 3 * 2


def test_a_method_that_tells_channels_apart_writes_a_map_for_each(tmp_path: Path, one_member: Path) -> None:
    patient, out = write_patient(tmp_path / "P1"), tmp_path / "out"
    assert run("predict", patient, "--out", out, "--bundle", one_member, "--method", "integrated-gradients") == 0
    result = json.loads((out / "P1" / "prediction.json").read_text())
    jsonschema.validate(result, prediction_schema())
    assert result["explanation"]["key"] == "integrated-gradients"
    for exam in result["exams"]:
        for signed in (exam["saliency"], exam["saliency_against"]):
            assert set(signed) == {"all", *DWI}
        parts = sum(
            nib.load(out / "P1" / exam[side][channel]).get_fdata() * sign
            for channel in DWI
            for side, sign in (("saliency", 1), ("saliency_against", -1))
        )
        whole = [nib.load(out / "P1" / exam[s]["all"]).get_fdata() for s in ("saliency", "saliency_against")]
        assert np.abs(parts - (whole[0] - whole[1])).max() < 1e-4


def test_tables_are_written_where_they_are_asked_for(samples: Path, tmp_path: Path, predicted: Path) -> None:
    assert run("predict", samples, "--out", tmp_path, "--explain", "attention", "--csv") == 0
    with (tmp_path / "patients.csv").open(newline="") as file:
        (patient,) = csv.DictReader(file)
    assert patient["patient_id"] == "RA01"
    assert "no meaning for this patient" in patient["notice"]
    result = json.loads((tmp_path / "RA01" / "prediction.json").read_text())
    with (tmp_path / "RA01" / "exams.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["date"] for row in rows] == [exam["date"] for exam in result["exams"]]
    assert [float(row["attention"]) for row in rows] == [exam["attention"] for exam in result["exams"]]
    assert [row["saliency"] for row in rows] == [""] * 4
    assert not list(predicted.rglob("*.csv"))
    assert leftovers(tmp_path) == []


def test_a_table_of_an_earlier_run_does_not_pass_for_this_runs(samples: Path, tmp_path: Path) -> None:
    (tmp_path / "patients.csv").write_text("of an earlier run")
    assert run("predict", samples, "--out", tmp_path, "--explain", "none") == 0
    assert not (tmp_path / "patients.csv").exists()
    assert (tmp_path / "patients (earlier).csv").read_text() == "of an earlier run"


@pytest.mark.parametrize("option", [("--method", "occlusion"), ("--check", "x.json")])
def test_how_maps_are_made_is_not_asked_where_none_are(
    option: tuple[str, str], samples: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        run("predict", samples / "RA01", "--out", tmp_path, "--explain", "attention", *option)
    assert stopped.value.code == 2
    assert "--method and --check go with --explain saliency" in capsys.readouterr().err


def test_the_report_quotes_the_check_of_its_bundle_and_method_and_no_other(
    tmp_path: Path, one_member: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    patient, key = write_patient(tmp_path / "P1"), "class-activation-3"
    found = {"patients": 20, "hits": 17, "inside": 9, "within_mm": 10.0, "random": 0.06}
    content = {
        "format_version": 1,
        "bundle": {"sha256": Bundle.open(one_member).sha256},
        "cohort": {"name": "a phantom", "phantom": True},
        "methods": {key: {"localisation": found}},
    }
    check = tmp_path / "check.json"
    check.write_text(json.dumps(content))
    predict = ("predict", patient, "--out", tmp_path / "out", "--bundle", one_member, "--check", check)

    assert run(*predict, "--method", key) == 0
    result = json.loads((tmp_path / "out" / "P1" / "prediction.json").read_text())
    jsonschema.validate(result, prediction_schema())
    assert result["explanation"]["check"] == {**found, "cohort": "a phantom", "phantom": True}
    report = (tmp_path / "out" / "P1" / "report.html").read_text()
    assert "17 of 20" in report
    assert "inside it in 9" in report
    assert run(*predict, "--method", "class-activation-2") == 1
    assert "check.json does not say how often the peak of class-activation-2 lay at a lesion" in capsys.readouterr().err
    assert run(*predict[:-2], "--method", key) == 0
    report = (tmp_path / "out" / "P1" / "report.html").read_text()
    assert "has not been tested for this bundle" in report
    assert "17 of 20" not in report

    check.write_text(json.dumps({**content, "bundle": {"sha256": "0" * 64}}))
    capsys.readouterr()
    assert run(*predict, "--method", key) == 1
    assert "check.json is the check of another bundle" in capsys.readouterr().err


def test_every_output_of_demonstration_weights_says_so(
    predicted: Path, samples: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("predict", samples / "RA01", "--out", tmp_path) == 0
    assert "RA01: demonstration weights, no meaning for this patient" in capsys.readouterr().out
    report = (predicted / "RA01" / "report.html").read_text()
    assert "no meaning for this patient" in report
    assert "not a medical device" in report
    summary = json.loads((predicted / "summary.json").read_text())
    assert summary["bundle"]["demonstration"]
    assert [p["patient_id"] for p in summary["predicted"]] == ["RA01"]
    assert not (tmp_path / "summary.json").exists()


def test_a_cohort_with_a_refused_patient_ends_with_3_and_names_exam_and_channels(
    shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("predict", shared_data / "series", "--out", tmp_path, "--explain", "attention") == 3
    said = capsys.readouterr().out
    assert "RA03: refused. Exam 2021-06-20 lacks DWI_b400" in said
    assert "2 of 3 patients predicted" in said
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert [p["patient_id"] for p in summary["predicted"]] == ["RA01", "RA02"]
    (refused,) = summary["refused"]
    assert (refused["patient_id"], refused["code"], refused["exam_id"]) == ("RA03", "missing_channel", "2021-06-20")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["RA01", "RA02", "summary.json"]
    result = json.loads((tmp_path / "RA02" / "prediction.json").read_text())
    assert all(exam["saliency"] is None and exam["attention"] > 0 for exam in result["exams"])
    assert not (tmp_path / "RA02" / "saliency").exists()


def test_without_explanation_there_is_neither_attention_nor_map(samples: Path, tmp_path: Path) -> None:
    assert run("predict", samples / "RA01", "--out", tmp_path, "--explain", "none") == 0
    result = json.loads((tmp_path / "RA01" / "prediction.json").read_text())
    jsonschema.validate(result, prediction_schema())
    assert all(exam["saliency"] is None and exam["attention"] is None for exam in result["exams"])
    assert (tmp_path / "RA01" / "report.html").is_file()


def test_json_on_standard_output_is_json_alone(
    samples: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("predict", samples / "RA01", "--out", tmp_path, "--json", "--explain", "none") == 0
    jsonschema.validate(json.loads(capsys.readouterr().out), prediction_schema())
    assert run("predict", samples, "--out", tmp_path, "--json", "--explain", "none") == 0
    several = json.loads(capsys.readouterr().out)
    jsonschema.validate(several["predictions"][0], prediction_schema())


def test_a_second_run_replaces_the_first_and_nothing_else(
    samples: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("predict", samples / "RA01", "--out", tmp_path) == 0
    assert run("predict", samples / "RA01", "--out", tmp_path, "--explain", "none") == 0
    assert sorted(p.name for p in (tmp_path / "RA01").iterdir()) == ["prediction.json", "report.html"]
    shutil.rmtree(tmp_path / "RA01")
    (tmp_path / "RA01").mkdir()
    (tmp_path / "RA01" / "thesis.docx").write_text("mine")
    assert run("predict", samples / "RA01", "--out", tmp_path, "--explain", "none") == 1
    assert "holds no earlier prediction" in capsys.readouterr().err
    assert (tmp_path / "RA01" / "thesis.docx").read_text() == "mine"
    assert leftovers(tmp_path) == []


def test_a_table_is_predicted_like_the_folder(samples: Path, predicted: Path, tmp_path: Path) -> None:
    rows = ["patient_id,exam_id,exam_date," + ",".join(DWI)]
    for folder in sorted((samples / "RA01").iterdir()):
        rows.append(f"../evil,{folder.name},{folder.name}," + ",".join(str(folder / f"{c}.nii.gz") for c in DWI))
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "cohort.csv").write_text("\n".join(rows))
    assert run("predict", tmp_path / "t" / "cohort.csv", "--out", tmp_path / "out") == 0
    (folder,) = [p for p in (tmp_path / "out").iterdir() if p.is_dir()]
    assert folder.name == "%2E.%2Fevil"
    result = json.loads((folder / "prediction.json").read_text())
    assert result["patient_id"] == "../evil"
    assert result["risk"] == pytest.approx(
        json.loads((predicted / "RA01" / "prediction.json").read_text())["risk"], abs=1e-6
    )


def test_folder_names_are_safe_and_different_for_different_patients() -> None:
    names = ["a/b", "a%2Fb", "a b", "..", ".", "Ä", "a~b", "p\\q", "c:d"]
    folders = [folder_name(n) for n in names]
    assert len(set(folders)) == len(names)
    assert all(not re.search(r'[/\\:<>"|?*]', f) and not f.startswith(".") for f in folders)


def test_a_disk_that_fills_up_leaves_the_earlier_result_and_nothing_half_written(
    samples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("predict", samples / "RA01", "--out", tmp_path) == 0
    before = (tmp_path / "RA01" / "prediction.json").read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(outputs, "write_report", full)
    assert run("predict", samples / "RA01", "--out", tmp_path) == 1
    said = capsys.readouterr().err
    assert "Nothing could be written" in said
    assert "No space left on device" in said
    assert (tmp_path / "RA01" / "prediction.json").read_bytes() == before
    assert leftovers(tmp_path) == []


def test_ctrl_c_leaves_nothing_half_written(samples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(outputs, "write_report", interrupted)
    assert run("predict", samples / "RA01", "--out", tmp_path) == 130
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize("which", [signal.SIGINT, signal.SIGTERM])
def test_a_real_signal_ends_the_command_without_a_traceback(
    samples: Path, tmp_path: Path, which: signal.Signals
) -> None:
    command = [sys.executable, "-m", "HCCNetLib", "predict", str(samples), "--out", str(tmp_path)]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A suite that runs in the background of a shell hands down that Ctrl-C is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stderr is not None
    line = process.stderr.readline()
    assert "reading exams" in line
    time.sleep(0.3)
    process.send_signal(which)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in error
    assert leftovers(tmp_path) == []


def test_json_and_file_say_the_same(samples: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("predict", samples / "RA01", "--out", tmp_path, "--json") == 0
    assert json.loads(capsys.readouterr().out) == json.loads((tmp_path / "RA01" / "prediction.json").read_text())


def test_a_refused_patient_keeps_no_result_that_passes_for_today_s(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_patient(tmp_path / "cohort" / "P1").parent
    out = tmp_path / "out"
    assert run("predict", folder, "--out", out) == 0
    (folder / "P1" / "2021-03-14" / "DWI_b0.nii.gz").unlink()
    assert run("predict", folder, "--out", out) == 3
    assert "an earlier result was moved" in capsys.readouterr().err
    assert sorted(p.name for p in out.iterdir()) == ["P1 (earlier)", "summary.json"]
    # A refusal of the input alone, and again: nothing is ever deleted.
    (folder / "P1" / "2021-03-14").rename(folder / "P1" / "2020-01-05_again")
    (out / "P1").mkdir()
    (out / "P1" / "prediction.json").write_text("{}")
    assert run("predict", folder / "P1", "--out", out) == 1
    assert sorted(p.name for p in out.iterdir()) == ["P1 (earlier 2)", "P1 (earlier)", "summary.json"]


def test_a_mistyped_path_says_nothing_against_an_earlier_result(tmp_path: Path) -> None:
    (tmp_path / "out" / "P1").mkdir(parents=True)
    (tmp_path / "out" / "P1" / "prediction.json").write_text("{}")
    assert run("predict", tmp_path / "not-mounted" / "P1", "--out", tmp_path / "out") == 1
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["P1"]


def test_long_and_foreign_names_become_folders(samples: Path, tmp_path: Path) -> None:
    cohort = tmp_path / "cohort"
    names = ["Б" * 60, "Б" * 61, "患者 一"]
    for name in names:
        shutil.copytree(samples / "RA01" / "2023-01-11", cohort / name / ("2023-01-11_" + "x" * 200))
    assert run("predict", cohort, "--out", tmp_path / "out", "--explain", "saliency") == 0
    results = [json.loads(p.read_text()) for p in (tmp_path / "out").glob("*/prediction.json")]
    assert sorted(r["patient_id"] for r in results) == sorted(names)
    assert all(len(p.name.encode()) <= 170 for p in (tmp_path / "out").rglob("*"))


@pytest.mark.skipif(sys.platform != "linux", reason="other systems allow no such names")
def test_names_that_are_no_text_are_refused_in_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_patient(tmp_path / "P1")
    (tmp_path / "P1").rename(os.fsdecode(os.fsencode(tmp_path) + b"/M\xfcller"))
    assert run("predict", tmp_path, "--out", tmp_path / "out") == 1
    assert "The name M?ller holds characters that can't be read. Rename it." in capsys.readouterr().err


def test_output_goes_through_a_pipe_that_has_no_such_letters(samples: Path) -> None:
    command = [sys.executable, "-m", "HCCNetLib", "inspect", str(samples)]
    done = subprocess.run(command, capture_output=True, env={**os.environ, "PYTHONIOENCODING": "ascii"}, timeout=120)
    assert done.returncode == 0
    assert b"117?91?20" in done.stdout


# ---------------------------------------------------------------- bad input, read as a person would


SHAPE = (48, 40, 40)
# The grid on which write_patient stores the second exam.
AFFINE = centred_affine(SHAPE, (7.0, 7.0, 7.0), np.diag([-1.0, -1.0, 1.0]) @ rotation(0, 0, 3.0))
LATE = "2021-03-14"


def replace_image(folder: Path, channel: str, image: nib.Nifti1Image) -> None:
    nib.save(image, folder / LATE / f"{channel}.nii.gz")


def with_value(value: float) -> nib.Nifti1Image:
    data = body(positions(SHAPE, AFFINE), 1)
    data[5, 5, 5] = value
    return nib.Nifti1Image(data, AFFINE)


def constant(value: float = 3.0) -> nib.Nifti1Image:
    return nib.Nifti1Image(np.full(SHAPE, value, dtype=np.float32), AFFINE)


def truncate(folder: Path) -> None:
    file = folder / LATE / "DWI_b400.nii.gz"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def colour() -> nib.Nifti1Image:
    return nib.Nifti1Image(np.zeros(SHAPE, dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")]), AFFINE)


def moved() -> nib.Nifti1Image:
    affine = AFFINE.copy()
    affine[:3, 3] += 20
    return nib.Nifti1Image(body(positions(SHAPE, affine), 1), affine)


def four_d() -> nib.Nifti1Image:
    return nib.Nifti1Image(np.random.default_rng(0).random((*SHAPE, 3), dtype=np.float32), AFFINE)


def flat() -> nib.Nifti1Image:
    return nib.Nifti1Image(np.random.default_rng(0).random((48, 40), dtype=np.float32), AFFINE)


BAD_INPUT: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing channel": (
        lambda p: (p / LATE / "DWI_b400.nii.gz").unlink(),
        "Exam 2021-03-14 lacks DWI_b400 (it has DWI_b0, DWI_b150, DWI_b800). The model needs DWI_b0, DWI_b150, DWI_b400, "
        "DWI_b800 in every exam.",
    ),
    "wrong channel name": (
        lambda p: (p / LATE / "DWI_b400.nii.gz").rename(p / LATE / "b400.nii.gz"),
        "not understood: b400 (did you mean DWI_b400?)",
    ),
    "undated folder": (
        lambda p: (p / LATE).rename(p / "second"),
        "The folder second holds images but its name is no date.",
    ),
    "impossible date": (
        lambda p: (p / LATE).rename(p / "2021-02-31"),
        "The folder 2021-02-31 holds images but its name is no date.",
    ),
    "two folders on one day": (
        lambda p: shutil.copytree(p / LATE, p / "20210314_again"),
        "2021-03-14 and 20210314_again are of one day (2021-03-14). If they are one exam, say --merge-same-day",
    ),
    "unreadable file": (
        lambda p: (p / LATE / "DWI_b150.nii.gz").write_bytes(b"\x00" * 5000),
        "2021-03-14/DWI_b150.nii.gz is not a readable NIfTI file",
    ),
    "empty file": (
        lambda p: (p / LATE / "DWI_b150.nii.gz").write_bytes(b""),
        "2021-03-14/DWI_b150.nii.gz is not a readable NIfTI file",
    ),
    "truncated file": (truncate, "2021-03-14/DWI_b400.nii.gz is damaged or incomplete: its voxels can't be read."),
    "NaN": (
        lambda p: replace_image(p, "DWI_b150", with_value(np.nan)),
        "DWI_b150.nii.gz has 1 voxels that are not numbers",
    ),
    "infinite": (
        lambda p: replace_image(p, "DWI_b150", with_value(-np.inf)),
        "DWI_b150.nii.gz has 1 voxels that are not numbers",
    ),
    "constant": (
        lambda p: replace_image(p, "DWI_b800", constant()),
        "DWI_b800.nii.gz has the same value in every voxel",
    ),
    "2D": (lambda p: replace_image(p, "DWI_b150", flat()), "DWI_b150.nii.gz is not a 3D volume (48 × 40 voxels)"),
    "4D": (
        lambda p: replace_image(p, "DWI_b150", four_d()),
        "DWI_b150.nii.gz has 3 volumes (4D) and nothing says which channel each is",
    ),
    "colour": (lambda p: replace_image(p, "DWI_b150", colour()), "DWI_b150.nii.gz is a colour image"),
    "mismatching grids": (
        lambda p: replace_image(p, "DWI_b150", moved()),
        "exam 2021-03-14: the channels do not lie on one grid",
    ),
    "absurd values": (
        lambda p: replace_image(p, "DWI_b150", with_value(-1e26)),
        "DWI_b150.nii.gz has values beyond ±1e+09, which no scanner makes",
    ),
    "several labels in the liver mask": (
        lambda p: write_nifti(p / LATE / "liver_mask.nii.gz", np.arange(8).reshape(2, 2, 2), np.eye(4)),
        "Exam 2021-03-14: 2021-03-14/liver_mask.nii.gz holds several labels; which of them is the liver?"[17:],
    ),
    "empty liver mask": (
        lambda p: write_nifti(p / LATE / "liver_mask.nii.gz", np.zeros((4, 4, 4)), np.eye(4)),
        "2021-03-14/liver_mask.nii.gz marks no voxel as liver",
    ),
    "liver box elsewhere": (
        lambda p: (p / LATE / "liver_box.json").write_text('{"low_mm": [190, 0, 0], "high_mm": [290, 100, 100]}'),
        "Exam 2021-03-14: the given liver mask or box does not lie in the images.",
    ),
    "empty exam folder": (
        lambda p: shutil.rmtree(p / LATE) or (p / LATE).mkdir(),
        "Exam 2021-03-14 lacks DWI_b0, DWI_b150, DWI_b400, DWI_b800 (it has no known channel)",
    ),
    "empty folder": (lambda p: shutil.rmtree(p) or p.mkdir(), "is empty. Expected a patient folder"),
    "no such folder": (lambda p: shutil.rmtree(p), "does not exist. Check the path."),
}


@pytest.mark.parametrize("mistake", list(BAD_INPUT))
def test_a_mistake_is_answered_by_a_sentence_and_nothing_is_written(
    mistake: str, tmp_path: Path, demonstration: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil, sentence = BAD_INPUT[mistake]
    folder = write_patient(tmp_path / "Jane Doe")
    spoil(folder)
    out = tmp_path / "out"
    assert run("predict", folder, "--out", out) == 1
    said = capsys.readouterr()
    assert sentence in said.err
    last = said.err.strip().splitlines()[-1]
    assert last.startswith("hccnet: ")
    assert last.endswith(".")
    assert "Traceback" not in said.err
    if mistake not in ("no such folder", "empty folder"):  # there the path is all that can be named
        assert "Jane" not in said.err
    assert said.out == ""
    assert not out.exists() or list(out.iterdir()) == []
    if (folder / LATE).exists() or mistake in ("undated folder", "impossible date"):
        assert run("inspect", folder, "--bundle", demonstration.path) == 1


def test_a_good_patient_passes_where_the_bad_ones_fail(
    tmp_path: Path, demonstration: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_patient(tmp_path / "Jane Doe")
    assert run("predict", folder, "--out", tmp_path / "out") == 0
    said = capsys.readouterr()
    assert said.out.startswith("Jane Doe: ")
    assert "Jane" not in said.err
    assert run("inspect", folder, "--bundle", demonstration.path) == 0
    assert "every patient can be predicted" in capsys.readouterr().out


def test_an_output_that_cannot_be_written_is_refused_before_the_work(
    tmp_path: Path, samples: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("x")
    assert run("predict", samples, "--out", tmp_path / "file" / "out") == 1
    assert "Nothing could be written into" in capsys.readouterr().err


@pytest.fixture
def ordinary_user() -> Iterator[Path]:
    """A folder, and a user who may not do everything: root is somebody else for the time of the test."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o777)
    is_root = os.geteuid() == 0
    try:
        if is_root:
            os.seteuid(65534)
        yield folder
    finally:
        if is_root:
            os.seteuid(0)
        for path in (folder, *folder.rglob("*")):
            path.chmod(0o777)
        shutil.rmtree(folder)


def test_files_without_permission_are_named(ordinary_user: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_patient(ordinary_user / "P1")
    (folder / LATE / "DWI_b0.nii.gz").chmod(0)
    assert run("predict", folder, "--out", ordinary_user / "out") == 1
    assert "DWI_b0.nii.gz can't be opened: no permission" in capsys.readouterr().err
    (folder / LATE).chmod(0)
    assert run("predict", folder, "--out", ordinary_user / "out") == 1
    assert "Exam 2021-03-14 can't be opened: no permission" in capsys.readouterr().err


def test_a_folder_without_permission_to_write_is_refused(
    ordinary_user: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_patient(ordinary_user / "P1")
    (ordinary_user / "out").mkdir()
    (ordinary_user / "out").chmod(0o555)
    assert run("predict", folder, "--out", ordinary_user / "out") == 1
    assert "Permission denied. Check its permissions and the free space." in capsys.readouterr().err
    assert list((ordinary_user / "out").iterdir()) == []


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (
            lambda b: (b / "members" / "03.safetensors").write_bytes(b"x"),
            "members/03.safetensors of the bundle was altered",
        ),
        (lambda b: (b / "members" / "evil.pkl").write_bytes(b"x"), "files that do not belong to it: members/evil.pkl"),
        (lambda b: (b / "MODEL_CARD.md").unlink(), "The bundle lacks MODEL_CARD.md"),
        (
            lambda b: (b / "bundle.json").write_text(
                (b / "bundle.json").read_text().replace('"format_version": 2', '"format_version": 9')
            ),
            "bundle.json has format version 9; this software reads versions 1 and 2.",
        ),
        (shutil.rmtree, "does not exist or is not a folder"),
    ],
)
def test_a_bundle_that_cannot_be_trusted_stops_every_command(
    spoil: Callable[[Path], object],
    sentence: str,
    demonstration: Bundle,
    samples: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    bundle = Path(shutil.copytree(demonstration.path, tmp_path / "bundle"))
    spoil(bundle)
    for command in (
        ["predict", samples, "--out", tmp_path / "out", "--bundle", bundle],
        ["inspect", samples, "--bundle", bundle],
        ["bundle", "verify", bundle],
        ["bundle", "show", bundle],
    ):
        assert run(*command) == 1
        assert sentence in capsys.readouterr().err
    assert not (tmp_path / "out").exists() or list((tmp_path / "out").iterdir()) == []


# ---------------------------------------------------------------- the other commands


def test_inspect_shows_what_would_be_read(
    samples: Path, demonstration: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("inspect", samples, "--bundle", demonstration.path) == 0
    said = capsys.readouterr().out
    assert "cohort folder, 1 readable patient(s), 0 refused" in said
    assert "\n  2023-01-11, latest exam\n" in said
    second, third = (
        said.index("\n  2021-09-07, 16.1 months before the latest\n"),
        said.index("\n  2022-04-20, 8.7 months"),
    )
    rows = [line.split() for line in said[second:third].splitlines() if line]
    for channel in DWI:
        (row,) = (cells for cells in rows if cells[0] == channel)
        assert row[1].startswith(channel)
        assert row[2:5] == ["146×114×15", "2.4×2.4×4", "LPS"]


def test_inspect_tells_outcomes_problems_and_what_a_bundle_would_refuse(
    tmp_path: Path, demonstration: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    write_patient(tmp_path / "c" / "A")
    write_patient(tmp_path / "c" / "B", channels=DWI[:2])
    write_patient(tmp_path / "c" / "C")
    truncate(tmp_path / "c" / "C")
    (tmp_path / "c" / "outcomes.csv").write_text(
        "patient_id,diagnosis_date,last_seen_date\nA,2021-09-01,2021-09-01\nB,,2022-01-01\n"
    )
    assert run("inspect", tmp_path / "c", "--bundle", demonstration.path) == 1
    said = capsys.readouterr().out
    assert "A  (diagnosis 2021-09-01)" in said
    assert "B  (no diagnosis until 2022-01-01)" in said
    assert "would be refused: Exam 2020-01-05 lacks DWI_b400, DWI_b800" in said
    assert (
        "would be refused: Exam 2021-03-14: 2021-03-14/DWI_b400.nii.gz is damaged" in said
        or "DWI_b400.nii.gz is damaged" in said
    )


def test_bundle_verify_and_show(demonstration: Bundle, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("bundle", "verify", demonstration.path) == 0
    said = capsys.readouterr().out
    assert "10 members, every file as described" in said
    assert demonstration.sha256 in said
    assert run("bundle", "show", demonstration.path) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["channels"] == list(DWI)
    assert shown["model"]["variant"] == "mini"
    assert shown["time"] == {"unit": "months", "origin": "landmark", "direction": "before"}


def test_bundle_convert_makes_a_bundle_that_predicts(
    test_data: Path, samples: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from test_bundles import published_checkpoint

    checkpoint = published_checkpoint(test_data, "mednet_v1_small", tmp_path / "weights.pth")
    bundle = tmp_path / "bundle"
    convert = ["bundle", "convert", checkpoint, "--out", bundle, "--time-unit", "months"]
    assert run(*convert, "--channels", "DWI_b0", "DWI_b150", "DWI_b400", "DWI_b90") == 1
    assert "DWI_b90 is no channel." in capsys.readouterr().err
    assert not bundle.exists()
    settings = tmp_path / "settings.json"
    settings.write_text(json.dumps({"channel_mean": [0.5, 0.5, 0.5, 0.5], "channel_sd": [0.8, 0.8, 0.8, 0.7]}))
    assert run(*convert, "--channels", *DWI, "--preprocessing", settings) == 0
    assert Bundle.open(bundle).description.preprocessing.channel_sd == (0.8, 0.8, 0.8, 0.7)
    assert run("predict", samples / "RA01", "--out", tmp_path / "out", "--bundle", bundle) == 0
    result = json.loads((tmp_path / "out" / "RA01" / "prediction.json").read_text())
    assert not result["bundle"]["demonstration"]
    assert "demonstration" not in {w["code"] for w in result["warnings"]}
    assert "RA01: uncalibrated output " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("calibrated", "demonstration"), [(True, False), (False, False), (False, True)], ids=["risk", "raw", "no meaning"]
)
def test_the_risk_by_horizon_is_printed_where_it_means_something(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], calibrated: bool, demonstration: bool
) -> None:
    several = write_random_bundle(tmp_path / "random", horizons=(6.0, 12.0, 24.0))
    calibration = (Calibration(1.0, -3.0), Calibration(1.0, -2.0), Calibration(1.0, -1.0)) if calibrated else ()
    described = replace(several.description, calibration=calibration, demonstration=demonstration)
    bundle = write_bundle(tmp_path / "b", described, [(several.member(0).state_dict(), 0)], "card").path
    patient = write_patient(tmp_path / "P1")
    assert run("predict", patient, "--out", tmp_path / "out", "--bundle", bundle, "--explain", "none") == 0
    said = capsys.readouterr().out
    result = json.loads((tmp_path / "out" / "P1" / "prediction.json").read_text())
    each = ", ".join(f"{at['months']:g} months {at['risk']:.1%}" for at in result["risk_by_horizon"])
    lines = [line for line in said.splitlines() if " within " in line and "after" not in line]
    what = "risk" if calibrated else "uncalibrated output"
    assert lines == ([] if demonstration else [f"  {what} within {each}"])
    assert [at["months"] for at in result["risk_by_horizon"]] == [6, 12, 24]
    assert ("P1: demonstration weights, no meaning for this patient" in said) == demonstration


def test_doctor_prints_versions_and_ends_well(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("doctor") == 0
    said = capsys.readouterr().out
    assert f"torch {torch.__version__.split('+')[0]}" in said
    assert "memory " in said


def test_doctor_tells_what_reads_and_decodes_dicom_and_nrrd(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("doctor") == 0
    said = capsys.readouterr().out
    for package in ("pydicom", "pylibjpeg-openjpeg", "python-gdcm", "pynrrd"):
        assert f"\n{package} " in said
    old = {"pydicom": "2.4.4", "torch": "2.8"}
    assert find_notes(old.get) == ['Reading DICOM needs pydicom 3; 2.4.4 is installed: pip install "pydicom>=3".']


def test_doctor_knows_bad_combinations() -> None:
    old = {"torch": "2.2.2", "numpy": "2.4.6", "monai": "1.6.1"}
    problems = find_problems(old.get, works=lambda: False)
    assert len(problems) == 1
    assert "torch 2.2.2 was built for numpy 1 and can't exchange arrays with numpy 2.4.6" in problems[0]
    notes = find_notes(old.get)
    assert any("Prediction does not need MONAI" in note for note in notes)
    assert find_problems({"torch": "2.13.0+cpu", "numpy": "2.4.6"}.get, works=lambda: True) == []
    assert find_notes({"torch": "2.13.0+cpu", "numpy": "2.4.6", "monai": "1.6.1"}.get) == []


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_that_says_it_is_research_software(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        run(command, "--help")
    assert ended.value.code == 0
    assert "not a medical device" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    "arguments", [[], ["foresee"], ["predict"], ["predict", "x"], ["predict", "x", "--out", "y", "--explain", "all"]]
)
def test_wrong_usage_ends_with_2(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run(*arguments)
    assert ended.value.code == 2


def test_channels_on_two_grids_are_predicted_when_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_patient(tmp_path / "P1")
    affine = AFFINE.copy()
    affine[:3, :3] *= 0.9
    affine[:3, 3] += 12
    write_nifti(folder / LATE / "DWI_b800.nii.gz", body(positions(SHAPE, affine), 3), affine)
    assert run("predict", folder, "--out", tmp_path / "out") == 1
    assert "share one patient space, --resample-channels" in capsys.readouterr().err
    assert run("predict", folder, "--out", tmp_path / "out", "--resample-channels") == 0
    result = json.loads((tmp_path / "out" / "P1" / "prediction.json").read_text())
    assert [w["exam_id"] for w in result["warnings"] if w["code"] == "channels_resampled"] == [LATE]
    # Where the other channel hardly reaches, there is nothing to bring over.
    affine[:3, 3] += [250, 0, 0]
    write_nifti(folder / LATE / "DWI_b800.nii.gz", body(positions(SHAPE, affine), 3), affine)
    assert run("predict", folder, "--out", tmp_path / "out", "--resample-channels") == 1
    assert re.search(r"Exam 2021-03-14: DWI_b800 covers only \d+% of the field", capsys.readouterr().err)


def test_a_refusal_that_a_stop_surfaced_as_is_told_as_a_stop(monkeypatch, capsys):
    """A library that is interrupted may raise an error of its own, after which a whole file seems damaged."""

    def interrupted(*_):
        with contextlib.suppress(KeyboardInterrupt):
            commands_main._stop.request(15, None)
        raise Refusal("bad_pretrained", "weights.safetensors is no readable file.")

    monkeypatch.setattr(commands_main._stop, "requested", False)
    monkeypatch.setattr(doctor, "run", interrupted)
    assert main(["doctor"]) == 130
    assert capsys.readouterr().err == "hccnet: stopped; nothing half-written was left.\n"
    monkeypatch.setattr(commands_main._stop, "requested", False)
