"""Runs of the self-supervised stages, from a cohort without labels to weights that a fine-tuning takes over."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from random_bundle import write_random_bundle
from safetensors.torch import load_file, save_file
from test_pretraining_parts import SHARED
from training_helpers import CHANNELS, SETTINGS, examples_of, log_of, tiny_config, write_yaml

from HCCNetLib.bundles import Bundle
from HCCNetLib.commands.main import main
from HCCNetLib.evaluation.intervals import Interval
from HCCNetLib.models import HCCNet
from HCCNetLib.training import loop, stages
from HCCNetLib.training.dino import DinoTask, Watch, first_model
from HCCNetLib.training.embeddings import Embeddings
from HCCNetLib.training.pretraining import read_pretrained, repeat_stem
from HCCNetLib.training.recipe import read_pretraining
from HCCNetLib.training.settings import BackboneConfig

FAULTS = Path(__file__).resolve().parents[1] / "faults" / "kill_training.py"
TINY: dict[str, Any] = {**SHARED, "jitter": 2, "batch": 4, "drop_path": 0.2, "checkpoint_every": 3, "validate_every": 4}
OF_STAGE: dict[str, dict[str, Any]] = {
    "backbone": {"local_voxels": 24, "outputs": 32, "teacher_momentum": 0.9},
    "encoder": {"draws": 1, "dropout": 0.2, "exam_dropout": 0.2},
}


@pytest.fixture
def words(tiny_phantom, tiny_cache, tmp_path):
    """Writes a stage's configuration; returns the words of its command."""

    def write(stage: str, name: str | None = None, **changes: Any) -> list[str]:
        where = {"cohort": str(tiny_phantom), "cache": str(tiny_cache), "out": str(tmp_path / (name or stage))}
        file = write_yaml(tmp_path / f"{name or stage}.yaml", {**TINY, **OF_STAGE[stage], **where, **changes})
        return [f"pretrain-{stage}", "--config", str(file)]

    return write


@pytest.fixture(scope="module")
def finished(tiny_phantom, tiny_cache, tmp_path_factory) -> Path:
    """Both stages, undisturbed."""
    folder = tmp_path_factory.mktemp("pretrained")
    for stage, changes in (("backbone", {}), ("encoder", {"backbone_from": str(folder / "backbone")})):
        where = {"cohort": str(tiny_phantom), "cache": str(tiny_cache), "out": str(folder / stage)}
        file = write_yaml(folder / f"{stage}.yaml", {**TINY, **OF_STAGE[stage], **where, **changes})
        assert main([f"pretrain-{stage}", "--config", str(file)]) == 0
    return folder


def assert_same_weights(one: Path, other: Path) -> None:
    weights = [load_file(folder / "weights.safetensors") for folder in (one, other)]
    assert weights[0].keys() == weights[1].keys()
    for name, value in weights[0].items():
        assert torch.equal(value, weights[1][name]), name


def refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(words) == 1
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith("hccnet: ")
    assert said.endswith(".")
    return said


# ---------------------------------------------------------------- what a run leaves


def test_a_backbone_run_hands_on_the_teacher_of_one_channel_and_says_what_it_is(finished):
    handed = read_pretrained(finished / "backbone")
    checkpoint = load_file(finished / "backbone" / "checkpoint.safetensors")
    for name, value in handed.backbone.items():
        assert torch.equal(value, checkpoint[f"model.teacher.backbone.{name}"])
    student = checkpoint["model.student.backbone.norm.weight"]
    assert not torch.equal(handed.backbone["norm.weight"], student)
    assert handed.input_channels == 1
    about = json.loads((finished / "backbone" / "report.json").read_text())
    assert about == handed.about
    assert about["trained_on"]["phantom"] is True
    assert "10 generated patients (phantom)" in about["trained_on"]["summary"]
    assert "no labels" in about["trained_on"]["summary"]
    assert about["steps"] == 8
    assert about["precision"] == "float32"
    log = log_of(finished / "backbone")
    assert [line["step"] for line in log] == list(range(1, 9))
    assert {"loss", "teacher_entropy", "data_wait", "seconds"} <= log[0].keys()
    assert {"exams_told_apart", "feature_sd"} <= log[-1].keys()


def test_an_encoder_run_hands_on_the_transformer_and_the_backbone_that_it_read(finished):
    handed, backbone = read_pretrained(finished / "encoder"), read_pretrained(finished / "backbone")
    assert handed.input_channels == 2
    stem = "stages.0.downsample.0.weight"
    torch.testing.assert_close(handed.backbone[stem], repeat_stem(backbone.backbone[stem], 2))
    assert torch.equal(handed.backbone["norm.weight"], backbone.backbone["norm.weight"])  # frozen
    network = HCCNet(tiny_config(pooling="mean", horizons_months=[12]).model)
    network.load_state_dict(dict(handed.weights), strict=True)
    assert {"value", "low", "high"} == set(handed.about["order_auroc"])
    assert not any("backbone" in name for name in load_file(finished / "encoder" / "checkpoint.safetensors"))


def test_the_same_command_again_trains_and_encodes_nothing(words, tmp_path, monkeypatch, capsys):
    for stage in OF_STAGE:
        assert main(words(stage)) == 0
    capsys.readouterr()
    before = {path: path.read_bytes() for path in tmp_path.rglob("weights.safetensors")}
    monkeypatch.setattr(loop.Loop, "_step", lambda *_: pytest.fail("it was trained again"))
    monkeypatch.setattr(Embeddings, "_encode", lambda *_: pytest.fail("it was encoded again"))
    for stage in OF_STAGE:
        assert main(words(stage)) == 0
        assert stage in capsys.readouterr().out
    assert all(path.read_bytes() == content for path, content in before.items())


@pytest.mark.parametrize("stage", OF_STAGE)
def test_a_run_is_not_continued_with_other_settings(words, stage, capsys):
    assert main(words(stage)) == 0
    capsys.readouterr()
    assert "other settings, other patients or another version" in refused(words(stage, seed=1), capsys)
    assert main(words(stage, checkpoint_every=5)) == 0  # which decides nothing


@pytest.mark.parametrize("stage", OF_STAGE)
def test_a_run_that_was_interrupted_and_goes_on_gives_the_same_weights(words, stage, tmp_path, monkeypatch):
    assert main(words(stage, "undisturbed")) == 0
    step = loop.Loop._step

    def interrupted(self, items):
        if self.state.step == 5:
            raise KeyboardInterrupt
        return step(self, items)

    monkeypatch.setattr(loop.Loop, "_step", interrupted)
    assert main(words(stage, "stopped")) == 130
    assert not (tmp_path / "stopped" / "weights.safetensors").exists()
    monkeypatch.undo()
    assert main(words(stage, "stopped")) == 0
    assert_same_weights(tmp_path / "undisturbed", tmp_path / "stopped")
    assert [line["step"] for line in log_of(tmp_path / "stopped")] == list(range(1, 9))


def test_five_strikes_on_all_stages_leave_the_same_weights():
    """Each stage is killed, has no room, is terminated, interrupted, killed again; a hundred of each: see the script."""
    done = subprocess.run(
        [sys.executable, str(FAULTS), "--points", "5", "--seed", "1"],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("the same bit for bit") == 3


@pytest.mark.parametrize("stage", OF_STAGE)
def test_two_processes_do_the_work_of_one(words, stage, tmp_path):
    """The centre is that of both; a batch of one leaves the second without an exam."""
    batch = {"backbone": 1, "encoder": 5}[stage]
    assert main(words(stage, "alone", batch=batch)) == 0
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-addr", "127.0.0.1"]
    launcher += ["--master-port", str(20000 + (os.getpid() + 7 * len(stage)) % 20000), "-m", "HCCNetLib"]
    launcher += words(stage, "both", batch=batch)
    done = subprocess.run(launcher, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    one, two = (load_file(tmp_path / name / "checkpoint.safetensors") for name in ("alone", "both"))
    for name, value in one.items():
        if name.startswith("model."):
            torch.testing.assert_close(two[name], value, atol=2e-4, rtol=0, msg=name)
    logs = [log_of(tmp_path / name) for name in ("alone", "both")]
    for alone, both in zip(*logs, strict=True):
        assert both["loss"] == pytest.approx(alone["loss"], abs=2e-4)


# ---------------------------------------------------------------- fine-tuning from them


def finetune_words(folder: Path, cohort: Path, cache: Path, name: str = "run", **changes: Any) -> list[str]:
    where = {"cohort": str(cohort), "cache": str(cache), "out": str(folder / name)}
    file = write_yaml(folder / f"{name}.yaml", {**SETTINGS, "steps": 1, "warmup": 0, **where, **changes})
    return ["finetune", "--config", str(file), "--member", "0"]


def test_fine_tuning_takes_over_both_parts_and_tells_each_tensor_s_origin(
    finished, tiny_phantom, tiny_cache, tmp_path, capsys
):
    begun = {"backbone_from": str(finished / "backbone"), "encoder_from": str(finished / "encoder")}
    command = finetune_words(tmp_path, tiny_phantom, tiny_cache, **begun, final_learning_rate=0.0, learning_rate=1e-12)
    assert main(command) == 0
    said = capsys.readouterr().out
    assert "first weights: backbone: 1 tensor(s) repeated over 2 channels, divided by 2, from" in said
    assert "first weights: head: 2 tensor(s) drawn" in said
    told = json.loads((tmp_path / "run" / "members" / "00" / "start.json").read_text())
    weights = load_file(tmp_path / "run" / "members" / "00" / "weights.safetensors")
    handed = read_pretrained(finished / "encoder").weights  # its backbone is the other run's with a repeated stem
    assert [row["tensor"] for row in told] == list(HCCNet(tiny_config().model).state_dict())
    for row in told:
        name, part = row["tensor"], row["tensor"].split(".")[0]
        taken = part in ("backbone", "cls_token", "encoder", "pooler")
        assert (row["how"] != "drawn") == taken, name
        if taken:  # a step of a rate of nothing changes nothing
            torch.testing.assert_close(weights[name], handed[name], atol=1e-6, rtol=0)
            assert row["source"] == begun["backbone_from" if part == "backbone" else "encoder_from"]
    assert {row["how"] for row in told if row["tensor"].startswith("head")} == {"drawn"}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"encoder_from": "encoder"}, "another backbone than the one that is taken over"),
        ({"encoder_from": "backbone", "backbone_from": "backbone"}, "it has no transformer"),
        ({"backbone_from": "nowhere"}, "holds no finished self-supervised run"),
        ({"backbone_from": "backbone", "pooling": "generalised_mean"}, "these settings differ: pooling"),
        ({"backbone_from": "backbone", "block": "v2"}, "these settings differ: version"),
        ({"backbone_from": "encoder", "channels": ["DWI_b800", "DWI_b0"]}, "these settings differ: channels"),
        (
            {
                "backbone_from": "backbone",
                "preprocessing": {"spacing_mm": 4.0, "crop_voxels": 24, "liver_min_voxels": 27},
            },
            "these settings differ: spacing_mm",
        ),
        (
            {"backbone_from": "encoder", "encoder_from": "encoder", "time": "exams"},
            "learned with time in months, not exams",
        ),
    ],
)
def test_weights_that_do_not_belong_are_refused_before_anything_is_trained(
    finished, tiny_phantom, tiny_cache, tmp_path, capsys, changes, sentence
):
    named = {k: str(finished / v) if k.endswith("_from") else v for k, v in changes.items()}
    command = finetune_words(tmp_path, tiny_phantom, tiny_cache, **named)
    assert sentence in refused(command, capsys)
    assert not (tmp_path / "run" / "members").exists()


def test_a_damaged_or_foreign_file_of_weights_is_refused_by_name(words, finished, tmp_path, capsys):
    for content in (b"", b"nonsense", (finished / "encoder" / "weights.safetensors").read_bytes()[:1000]):
        folder = tmp_path / "foreign"
        folder.mkdir(exist_ok=True)
        (folder / "weights.safetensors").write_bytes(content)
        said = refused(words("encoder", backbone_from=str(folder)), capsys)
        assert "foreign/weights.safetensors is no readable file of a self-supervised run" in said


def test_other_pre_trained_weights_are_another_run(finished, words, tiny_phantom, tiny_cache, tmp_path, capsys):
    assert main(words("backbone", "other", seed=5)) == 0
    command = finetune_words(tmp_path, tiny_phantom, tiny_cache, backbone_from=str(finished / "backbone"))
    assert main(command) == 0
    capsys.readouterr()
    command = finetune_words(tmp_path, tiny_phantom, tiny_cache, backbone_from=str(tmp_path / "other"))
    assert "trained with other settings" in refused(command, capsys)


@pytest.fixture(scope="module")
def tiny_bundle(tmp_path_factory) -> Path:
    """A bundle of the tiny network, as fine-tuning writes one."""
    config = tiny_config(pooling="mean")
    bundle = write_random_bundle(
        tmp_path_factory.mktemp("bundle") / "b", model=config.model, channels=CHANNELS, preprocessing=config.preparation
    )
    return bundle.path


def test_order_can_be_learned_on_a_bundle_s_backbone_from_which_no_fine_tuning_begins(
    words, tiny_bundle, tiny_phantom, tiny_cache, tmp_path, capsys
):
    assert main(words("encoder", backbone_from=str(tiny_bundle))) == 0
    handed = read_pretrained(tmp_path / "encoder")
    kept = Bundle.open(tiny_bundle).member(0).backbone.state_dict()
    assert all(torch.equal(handed.backbone[name], value) for name, value in kept.items())
    assert handed.about["knows_labels"] is True
    capsys.readouterr()
    for source in (tiny_bundle, tmp_path / "encoder"):
        command = finetune_words(tmp_path, tiny_phantom, tiny_cache, backbone_from=str(source))
        assert "was trained with labels" in refused(command, capsys)


# ---------------------------------------------------------------- who has no order, who is not read


def test_a_cohort_without_two_exams_has_no_order(words, tiny_phantom, tmp_path, capsys):
    cohort = tmp_path / "single"
    for patient in sorted(p for p in tiny_phantom.iterdir() if p.name.startswith("PH"))[:3]:
        (cohort / patient.name).mkdir(parents=True)
        exam = sorted(patient.iterdir())[0]
        (cohort / patient.name / exam.name).symlink_to(exam)
    said = refused(words("encoder", cohort=str(cohort)), capsys)
    assert "needs patients with at least two exams" in said
    assert "0 of 3 patients have two" in said


def test_a_loss_that_is_not_a_number_names_the_exams(words, tmp_path, monkeypatch, capsys):
    losses = DinoTask.losses

    def broken(self, item, step):
        found = losses(self, item, step)
        return loop.Losses(found.total * float("nan"), found.logged) if step == 4 else found

    monkeypatch.setattr(DinoTask, "losses", broken)
    assert "stopped at step 5 of 8: the loss is not a number" in refused(words("backbone"), capsys)
    listed = json.loads((tmp_path / "backbone" / "bad_batch.json").read_text())
    assert len(listed["exams"]) == 4
    assert all(row["patient_id"].startswith("PH") for row in listed["exams"])


TARGET = {"target_file": "truth/exams.csv", "target_column": "lesion_log_ml"}


@pytest.fixture
def probed(monkeypatch) -> list[tuple[Any, ...]]:
    """A probe that can be made with ten patients, and with what it was asked."""
    seen: list[tuple[Any, ...]] = []

    def probe(embeddings, targets, patients):
        seen.append((embeddings, targets, patients))
        return Interval(0.25 * len(seen), 0.1, 0.9)

    monkeypatch.setattr(stages, "linear_probe", probe)
    monkeypatch.setattr(stages, "require_targets", lambda *_: None)
    return seen


def test_a_probe_stands_in_the_report_before_and_after(words, probed, tmp_path, capsys):
    command = words("backbone", **TARGET)
    assert main(command) == 0
    report = json.loads((tmp_path / "backbone" / "report.json").read_text())
    assert report["probe"]["before"]["r2"]["value"] == 0.25
    assert report["probe"]["after"]["r2"]["value"] == 0.5
    assert report["probe"]["after"]["exams"] == len(probed[0][1]) == len(probed[0][2]) == len(probed[0][0])
    assert "linear probe of lesion_log_ml after: R² 0.500" in capsys.readouterr().out
    # Before: the untrained backbone's; after: the teacher's, of the exam's two channels.
    config = read_pretraining(BackboneConfig, Path(command[2]), {})
    untrained = first_model(config).teacher.backbone.state_dict()
    handed = read_pretrained(tmp_path / "backbone")
    assert any(not torch.equal(untrained[name], value) for name, value in handed.backbone.items())
    assert not (probed[0][0] == probed[1][0]).all()
    assert handed.about == report


def test_a_finished_run_is_probed_when_a_target_is_given_later_and_not_trained_again(
    words, probed, tmp_path, monkeypatch
):
    assert main(words("backbone")) == 0
    weights = read_pretrained(tmp_path / "backbone").weights
    monkeypatch.setattr(loop.Loop, "_step", lambda *_: pytest.fail("it was trained again"))
    for _ in range(2):
        assert main(words("backbone", **TARGET)) == 0
    assert len(probed) == 2  # before and after, once
    handed = read_pretrained(tmp_path / "backbone")
    assert all(torch.equal(handed.weights[name], value) for name, value in weights.items())
    assert main(words("backbone")) == 0  # without it the run is the same


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ("PH00001,{exam},\n", "at least 25 patients with a target; there are 0"),
        ("PH00001,{exam},1.5\n", "at least 25 patients with a target; there are 1"),
    ],
)
def test_what_can_t_be_probed_for_is_refused_before_training(words, tiny_phantom, tmp_path, capsys, rows, sentence):
    exam = sorted((tiny_phantom / "PH00001").iterdir())[0].name
    table = tmp_path / "target.csv"
    table.write_text("patient_id,exam_id,value\n" + rows.format(exam=exam))
    target = {"target_file": os.path.relpath(table, tiny_phantom), "target_column": "value"}
    assert sentence in refused(words("backbone", **target), capsys)
    assert not (tmp_path / "backbone" / "checkpoint.safetensors").exists()


# ---------------------------------------------------------------- after the last step


@pytest.mark.parametrize("stage", OF_STAGE)
def test_a_run_stopped_after_its_last_step_hands_on_the_same(words, stage, tmp_path, monkeypatch):
    assert main(words(stage, "undisturbed")) == 0

    def stopped(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(stages, "hand_on", stopped)
    assert main(words(stage, "stopped")) == 130
    assert not (tmp_path / "stopped" / "weights.safetensors").exists()
    monkeypatch.undo()
    monkeypatch.setattr(loop.Loop, "_step", lambda *_: pytest.fail("a step was done again"))
    assert main(words(stage, "stopped")) == 0
    assert_same_weights(tmp_path / "undisturbed", tmp_path / "stopped")
    reports = [json.loads((tmp_path / name / "report.json").read_text()) for name in ("undisturbed", "stopped")]
    assert reports[0] == reports[1]


def test_a_collapse_is_still_told_after_a_stop_at_the_end(words, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(Watch, "verdict", lambda self: "The training has collapsed: so it was planted.")
    hand_on = stages.hand_on
    monkeypatch.setattr(stages, "hand_on", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    assert main(words("backbone")) == 130
    monkeypatch.setattr(stages, "hand_on", hand_on)
    capsys.readouterr()
    assert main(words("backbone")) == 0
    assert capsys.readouterr().out.count("The training has collapsed: so it was planted.") == 1
    assert "planted" in json.loads((tmp_path / "backbone" / "report.json").read_text())["collapsed"]


# ---------------------------------------------------------------- patients set aside as test


def test_patients_set_aside_are_not_read_and_a_backbone_that_read_them_is_refused(
    words, tiny_phantom, tiny_cache, tmp_path, capsys
):
    assert main(words("backbone", "read all")) == 0
    splits, examples = tmp_path / "run" / "splits.json", examples_of(tiny_phantom, tiny_cache, tiny_config())
    names = sorted(
        (e.patient_id for e in examples), key=lambda name: [e.label for e in examples if e.patient_id == name]
    )
    splits.parent.mkdir()
    parts = {"test": names[:1], "fold 0": names[1::2], "fold 1": names[2::2]}
    splits.write_text(json.dumps({"parts": parts}))
    given = {"test_fraction": 0.1, "folds": 2, "backbone_from": str(tmp_path / "read all")}
    said = refused(finetune_words(tmp_path, tiny_phantom, tiny_cache, **given), capsys)
    assert "read 1 of the 1 patients who are set aside as test" in said
    assert str(splits) in said
    assert main(words("backbone", "without", leave_out=str(splits))) == 0
    test = set(json.loads(splits.read_text())["parts"]["test"])
    assert not test & set(json.loads((tmp_path / "without" / "read.json").read_text()))
    assert f"{len(test)} patient(s), set aside as test" in capsys.readouterr().out
    given["backbone_from"] = str(tmp_path / "without")
    assert main(finetune_words(tmp_path, tiny_phantom, tiny_cache, **given)) == 0


def test_a_split_that_is_missing_or_another_cohort_s_is_refused(words, tmp_path, capsys):
    said = refused(words("backbone", leave_out=str(tmp_path / "splits.json")), capsys)
    assert "does not exist" in said
    assert "hccnet train does so first" in said
    (tmp_path / "splits.json").write_text(json.dumps({"parts": {"fold 0": ["a"], "fold 1": ["b"], "test": ["c", "d"]}}))
    said = refused(words("backbone", leave_out=str(tmp_path / "splits.json")), capsys)
    assert "None of the 2 test patients" in said


# ---------------------------------------------------------------- files in the way


def test_a_file_where_the_run_s_folder_should_be_is_refused_in_words(words, tmp_path, capsys):
    (tmp_path / "backbone").write_text("in the way")
    assert "Nothing could be written into" in refused(words("backbone"), capsys)
    assert (tmp_path / "backbone").read_text() == "in the way"


def test_weights_that_are_not_numbers_are_refused_by_name(words, finished, tmp_path, capsys):
    handed = read_pretrained(finished / "backbone")
    folder = tmp_path / "nan"
    folder.mkdir()
    for name, spoiled in (
        ("backbone.norm.weight", {**handed.weights, "backbone.norm.weight": torch.full((128,), torch.nan)}),
        ("stem", {k: v for k, v in handed.weights.items() if "stages.0.downsample.0.weight" not in k}),
    ):
        save_file(dict(spoiled), folder / "weights.safetensors", {"about": json.dumps(handed.about)})
        assert "lacks weights, or has some that are not a number" in refused(
            words("encoder", backbone_from=str(folder)), capsys
        ), name
    about = {k: v for k, v in handed.about.items() if k != "model"}
    save_file(dict(handed.weights), folder / "weights.safetensors", {"about": json.dumps(about)})
    assert "no readable file of a self-supervised run" in refused(words("encoder", backbone_from=str(folder)), capsys)
