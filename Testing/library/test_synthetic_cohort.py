from __future__ import annotations

import argparse
import json
import shutil

import nibabel as nib
import numpy as np
import pytest
from random_bundle import write_random_bundle

from HCCNetLib.commands import synthesize as command
from HCCNetLib.inference import Predictor
from HCCNetLib.preprocessing.geometry import apply_affine
from HCCNetLib.readers import read_input, require_channels
from HCCNetLib.records import Refusal, landmark_label
from HCCNetLib.synthetic import cohort as writing
from HCCNetLib.synthetic.acquisition import AcquisitionModel
from HCCNetLib.synthetic.cohort import CohortPlan, synthesize
from HCCNetLib.synthetic.growth import GrowthModel
from HCCNetLib.synthetic.phantom import DEFAULT_CHANNELS, PhantomModel

COARSE = PhantomModel(disease=GrowthModel(), acquisition=AcquisitionModel(spacing=6.0))
PLAN = CohortPlan(5, 3, COARSE)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    """A small cohort on a coarse grid, and its card."""
    folder = tmp_path_factory.mktemp("phantom") / "cohort"
    return folder, synthesize(folder, PLAN)


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def truth_of(folder, patient_id):
    return json.loads((folder / "truth" / patient_id / "truth.json").read_text())


def parse(*words):
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return parser.parse_args([str(word) for word in words])


def test_two_runs_with_one_seed_are_byte_identical_whatever_the_number_of_processes(cohort, tmp_path):
    synthesize(tmp_path / "again", PLAN, processes=2)
    before, again = contents(cohort[0]), contents(tmp_path / "again")
    assert before.keys() == again.keys()
    assert [name for name in before if before[name] != again[name]] == []


def test_another_seed_gives_other_patients(cohort, tmp_path):
    synthesize(tmp_path / "other", CohortPlan(1, 4, COARSE))
    assert truth_of(tmp_path / "other", "PH00001") != truth_of(cohort[0], "PH00001")


def test_the_reader_takes_the_cohort_and_names_the_truth_as_passed_over(cohort):
    read = read_input(cohort[0])
    assert read.form == "cohort folder"
    assert [p.patient_id for p in read.patients] == [f"PH{n:05d}" for n in range(1, 6)]
    assert read.refused == {}
    assert [p.message for p in read.problems] == [
        "The folder truth was passed over: it holds no folder named by a date. It does hold images: if they are a patient's, "
        "give it as an INPUT of its own."
    ]
    for patient in read.patients:
        require_channels(patient, DEFAULT_CHANNELS)
        assert not any(exam.problems for exam in patient.exams)


def test_prediction_takes_the_cohort_without_a_warning_about_it(cohort, tmp_path):
    bundle = write_random_bundle(tmp_path / "bundle")
    patient = read_input(cohort[0]).patients[0]
    prediction = Predictor(bundle, "cpu").predict(patient)
    assert 0 <= prediction.risk <= 1
    assert {warning.code for warning in prediction.warnings} == {"demonstration"}


def test_outcomes_give_the_labels_that_truth_and_card_state(cohort):
    folder, card = cohort
    read = read_input(folder)
    latest, every = [], []
    for patient in read.patients:
        truth = truth_of(folder, patient.patient_id)
        labels = [landmark_label(read.outcomes[patient.patient_id], exam.date, 12) for exam in patient.exams]
        assert [exam["label"] for exam in truth["exams"]] == labels
        assert truth["label"] == labels[-1]
        latest.append(labels[-1])
        every += labels
    counts = card["counts"]
    assert counts["patients"] == len(latest) == 5
    assert counts["exams"] == len(every)
    for name, labels in (("latest_landmarks", latest), ("all_landmarks", every)):
        expected = {"positive": labels.count(True), "negative": labels.count(False), "unlabelled": labels.count(None)}
        assert counts[name] == expected
    assert counts["censored"] == latest.count(None)


def test_the_card_says_how_the_cohort_was_made(cohort):
    folder, card = cohort
    assert json.loads((folder / "cohort.json").read_text()) == json.loads(json.dumps(card))
    assert (card["seed"], card["patients"], card["complete"]) == (3, 5, True)
    assert card["parameters"]["acquisition"]["spacing"] == 6.0
    assert card["parameters"]["disease"]["malignant_doubling"] == (3.0, 6.0)
    assert card["licence"] == "CC0-1.0"
    assert "CC0 1.0" in (folder / "README.md").read_text()


def test_truth_lies_on_the_grid_of_its_exam_and_says_where_and_how_large_the_lesion_is(cohort):
    folder, card = cohort
    for patient in read_input(folder).patients:
        truth = truth_of(folder, patient.patient_id)
        rates = np.diff([exam["lesion_log_ml"] for exam in truth["exams"]])
        limits = {3.0, 46.0}
        for exam, said in zip(patient.exams, truth["exams"], strict=True):
            lesion, organs = (
                nib.load(folder / "truth" / patient.patient_id / exam.exam_id / f"{name}.nii.gz")
                for name in ("lesion", "organs")
            )
            np.testing.assert_array_equal(lesion.affine, exam.images["DWI_b0"].grid.affine)
            np.testing.assert_array_equal(organs.affine, lesion.affine)
            mask = np.asarray(lesion.dataobj)
            assert set(np.unique(np.asarray(organs.dataobj))) <= {0, *card["organ_labels"].values()}
            assert said["nodule_mask_ml"][0] == pytest.approx(
                mask.sum() * np.prod(lesion.header.get_zooms()) / 1000, rel=1e-6, abs=1e-6
            )
            assert mask.any()
            assert np.exp(said["lesion_log_ml"]) == pytest.approx(said["lesion_ml"], rel=1e-4)
            if said["lesion_diameter_mm"] > 20:
                centre = apply_affine(lesion.affine, np.argwhere(mask).astype(float)).mean(axis=0)
                assert np.linalg.norm(centre - said["nodule_centres_mm"][0]) < 2
        if not limits & {exam["lesion_diameter_mm"] for exam in truth["exams"]}:
            months = -np.diff([exam["months_before_landmark"] for exam in truth["exams"]])
            np.testing.assert_allclose(rates / np.log(2) / months, truth["doublings_per_month"], atol=1e-3)


def test_files_are_whole_numbers_with_both_orientations_set_and_no_time_stamp(cohort):
    files = sorted(cohort[0].glob("PH*/*/*.nii.gz"))
    assert len(files) == 4 * cohort[1]["counts"]["exams"]
    for file in files:
        header = nib.load(file).header
        assert header.get_data_dtype() == np.int16
        assert int(header["sform_code"]) == int(header["qform_code"]) == 1
        np.testing.assert_allclose(header.get_qform(), header.get_sform(), atol=1e-3)
        assert file.read_bytes()[4:8] == bytes(4)


@pytest.mark.parametrize("processes", [1, 2])
def test_an_interrupted_run_leaves_nothing_half_written_and_goes_on_with_the_same_command(processes, cohort, tmp_path):
    def stop_at_two(stage, done, total):
        if done == 2:
            raise KeyboardInterrupt

    folder = tmp_path / "cohort"
    with pytest.raises(KeyboardInterrupt):
        synthesize(folder, PLAN, processes=processes, progress=stop_at_two)
    there = contents(folder)
    assert json.loads(there.pop("cohort.json"))["complete"] is False
    finished = {name.split("/")[0] for name in there} - {"truth"}
    assert len(finished) >= 2
    expected = {name: data for name, data in contents(cohort[0]).items() if finished & set(name.split("/"))}
    assert there == expected
    assert {p.name for p in folder.iterdir()} == finished | {"cohort.json", "truth"}
    told = []
    synthesize(folder, PLAN, progress=lambda *event: told.append(event))
    assert told[0] == ("writing patients", len(finished), 5)
    assert contents(folder) == contents(cohort[0])


def test_a_run_that_was_killed_between_truth_and_exams_is_repaired(cohort, tmp_path):
    folder = tmp_path / "cohort"
    shutil.copytree(cohort[0], folder)
    shutil.rmtree(folder / "PH00004")
    (folder / "truth" / "PH00004" / "truth.json").write_text("half")
    (folder / ".unfinished" / "PH00005").mkdir(parents=True)
    synthesize(folder, PLAN)
    assert contents(folder) == contents(cohort[0])
    assert not (folder / ".unfinished").exists()


def test_files_that_were_taken_away_come_back(cohort, tmp_path):
    folder = shutil.copytree(cohort[0], tmp_path / "cohort")
    exams = sorted((folder / "PH00002").iterdir())
    shutil.rmtree(exams[0])
    shutil.rmtree(folder / "truth" / "PH00004")
    synthesize(folder, PLAN)
    assert contents(folder) == contents(cohort[0])


def test_more_patients_can_be_asked_for_later(cohort, tmp_path):
    folder = tmp_path / "cohort"
    synthesize(folder, CohortPlan(2, 3, COARSE))
    synthesize(folder, PLAN)
    assert contents(folder) == contents(cohort[0])


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        (CohortPlan(5, 4, COARSE), "seed is 3, not 4"),
        (CohortPlan(5, 3, PhantomModel(disease=GrowthModel())), r"acquisition\.spacing is 6\.0, not 3\.0"),
        (CohortPlan(4, 3, COARSE), "meant for 5 patients, not 4"),
    ],
)
def test_a_folder_of_another_cohort_is_refused_and_left_alone(cohort, plan, words):
    before = contents(cohort[0])
    with pytest.raises(Refusal, match=words):
        synthesize(cohort[0], plan)
    assert contents(cohort[0]) == before


def test_a_folder_with_something_else_in_it_is_refused_and_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(Refusal, match="holds something else"):
        synthesize(tmp_path, PLAN)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("text", ["{", "[]", '"card"', '{"patients": null}'])
def test_a_damaged_card_is_refused(tmp_path, text):
    (tmp_path / "cohort.json").write_text(text)
    with pytest.raises(Refusal, match="cohort card"):
        synthesize(tmp_path, PLAN)


def test_a_place_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(Refusal, match="can't be written"):
        synthesize(tmp_path / "file" / "cohort", PLAN)


def test_the_command_writes_the_cohort_and_says_what_is_in_it(cohort, tmp_path, capsys):
    words = ("--disease", "growth", "--out", tmp_path / "c", "--patients", 5, "--seed", 3, "--spacing", 6)
    assert command.run(parse(*words, "--processes", 1)) == 0
    assert contents(tmp_path / "c") == contents(cohort[0])
    captured = capsys.readouterr()
    latest = cohort[1]["counts"]["latest_landmarks"]
    assert f"5 patients, {cohort[1]['counts']['exams']} exams" in captured.out
    assert f"{latest['positive']} positive, {latest['negative']} negative" in captured.out
    assert "writing patients 0/5" in captured.err


def test_the_command_puts_the_oracle_into_the_card_also_afterwards(cohort, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(writing._ORACLE_PATIENTS, "growth", 200)
    folder = tmp_path / "cohort"
    shutil.copytree(cohort[0], folder)
    words = ("--disease", "growth", "--out", folder, "--patients", 5, "--seed", 3, "--spacing", 6)
    assert command.run(parse(*words, "--oracle")) == 0
    oracle = json.loads((folder / "cohort.json").read_text())["oracle"]
    assert [row["size_error_doublings"] for row in oracle["results"]] == [0.0, 0.6]
    assert "full 0." in capsys.readouterr().out or oracle["results"][0]["auroc"]["full"]["value"] == 1.0
    # A later run without the flag does not lose it.
    assert command.run(parse(*words)) == 0
    assert json.loads((folder / "cohort.json").read_text())["oracle"] == oracle


def test_channels_and_share_of_malignant_lesions_can_be_chosen(tmp_path):
    words = ("--disease", "growth", "--out", tmp_path / "c", "--patients", 2, "--spacing", 6, "--processes", 1)
    words = (*words, "--malignant-fraction", 1)
    assert command.run(parse(*words, "--channels", "T1_native", "T1_venous")) == 0
    for patient in read_input(tmp_path / "c").patients:
        require_channels(patient, ("T1_native", "T1_venous"))
        assert truth_of(tmp_path / "c", patient.patient_id)["kind"] == "malignant"


@pytest.mark.parametrize(
    "words", [("--patients", 0), ("--patients", "many"), ("--patients", 1, "--seed", -1), ("--channels", "DWI_b50")]
)
def test_wrong_usage_exits_with_2(words, tmp_path, capsys):
    with pytest.raises(SystemExit) as exit_status:
        parse("--out", tmp_path, "--patients", 1, *words)
    assert exit_status.value.code == 2


def test_a_malignant_fraction_belongs_to_growth(tmp_path, capsys):
    with pytest.raises(SystemExit) as exit_status:
        command.run(parse("--out", tmp_path / "c", "--patients", 1, "--malignant-fraction", 0.5))
    assert exit_status.value.code == 2
    assert "--malignant-fraction goes with --disease growth" in capsys.readouterr().err
    assert not (tmp_path / "c").exists()
