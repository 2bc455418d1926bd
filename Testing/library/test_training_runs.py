"""``hccnet finetune`` and ``hccnet train`` as their users run them: to the end, stopped, continued, refused."""

from __future__ import annotations

import csv
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from training_helpers import (
    CHANNELS,
    SETTINGS,
    example,
    examples_of,
    interrupted,
    log_of,
    open_cache,
    tiny_config,
    write_yaml,
)

from HCCNetLib.bundles import Bundle
from HCCNetLib.commands.main import main
from HCCNetLib.evaluation.discrimination import auroc
from HCCNetLib.evaluation.follow_up import CENSORED, COMPETING, DIAGNOSED, FollowUp, cumulative_incidence
from HCCNetLib.explanation import DEFAULT_METHOD, ChangeEvidence, EnsembleEvidence, exam_maps, make_explainer
from HCCNetLib.inference import Predictor
from HCCNetLib.models import HCCNet
from HCCNetLib.preprocessing import prepare_exam
from HCCNetLib.readers import read_input
from HCCNetLib.records import Refusal
from HCCNetLib.training import ensemble, loop
from HCCNetLib.training.checkpoint import TrainingState
from HCCNetLib.training.configuration import read_config
from HCCNetLib.training.distributed import Workers
from HCCNetLib.training.examples import gather_examples, training_cache
from HCCNetLib.training.finetune import FinetuneTask, Normalisation
from HCCNetLib.training.loop import Losses
from HCCNetLib.training.settings import FinetuneConfig
from HCCNetLib.training.visits import VisitPlan, trained_landmarks

TARGET = {"target_file": "truth/exams.csv", "target_column": "lesion_log_ml", "target_weight": 1.0}
ALONE = Workers(0, 1, torch.device("cpu"))


@pytest.fixture(scope="module", autouse=True)
def calibration():
    """Four steps on eight patients teach nothing, so that by chance there may be nothing to calibrate with."""
    fit = ensemble.fit_recalibration

    def fit_or_not(risks, labels, weights=None):
        try:
            return fit(risks, labels, weights)
        except Refusal:
            return 1.0, 0.25

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ensemble, "fit_recalibration", fit_or_not)
        yield fit


@pytest.fixture(scope="module")
def finished(calibration, tiny_phantom, tiny_cache, tmp_path_factory):
    """An undisturbed run with everything random switched on."""
    folder = tmp_path_factory.mktemp("finished")
    where = {"cohort": str(tiny_phantom), "cache": str(tiny_cache), "out": str(folder / "run")}
    file = write_yaml(folder / "run.yaml", {**SETTINGS, **TARGET, "demonstration": True, **where})
    assert main(["finetune", "--config", str(file)]) == 0
    return folder / "run"


def config_of(run):
    return read_config(FinetuneConfig, run / "config.yaml", {})


def weights(run, member=0):
    return load_file(Path(run) / "members" / f"{member:02d}" / "weights.safetensors")


def assert_same_weights(run, other, members=1):
    for member in range(members):
        one, two = weights(run, member), weights(other, member)
        assert one.keys() == two.keys()
        assert all(torch.equal(one[name], two[name]) for name in one)


def refused(words, capsys):
    """Runs a command that is refused; returns its sentence."""
    capsys.readouterr()
    assert main(words) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("hccnet: ")
    assert said.endswith(".")
    assert "Traceback" not in said
    assert "PH0" not in said
    return said


# ---------------------------------------------------------------- from cohort to bundle


def test_a_run_ends_in_a_bundle_that_opens_and_predicts(finished, tiny_phantom):
    bundle = Bundle.open(finished / "bundle")
    description = bundle.description
    assert len(description.members) == 2
    assert description.demonstration
    assert description.training_data["exam_level_target"]["column"] == "lesion_log_ml"
    assert description.training_data["exam_level_target"]["exams_with_a_value"] > 10
    assert (description.horizons, description.horizon_months) == ((6.0, 12.0, 24.0), 12.0)
    assert len(description.calibration) == len(description.average_risk) == 3
    landmarks = len(json.loads((finished / "development.json").read_text())["predictions"])
    for one in description.calibration:
        assert (
            f"{landmarks} exams of 10 development patients, each predicted by the 1 member(s) that had not seen the patient"
            in str(one.fitted_on)
        )
    assert not description.missing_channels
    assert description.operating_thresholds
    assert "truth" not in json.dumps(description.model.to_dict())
    card = (finished / "bundle" / "MODEL_CARD.md").read_text()
    assert "lesion_log_ml" in card
    assert "not for clinical use" in card.lower()
    assert "PH0" not in card + (finished / "bundle" / "bundle.json").read_text()
    prediction = Predictor(bundle, "cpu").predict(read_input(tiny_phantom).patients[0])
    assert 0 < prediction.risk < 1
    assert [at["months"] for at in prediction.risk_by_horizon] == [6, 12, 24]
    assert [at["average"] for at in prediction.risk_by_horizon] == list(description.average_risk)
    risks = [at["risk"] for at in prediction.risk_by_horizon]
    assert risks == sorted(risks)
    assert "demonstration" in {w.code for w in prediction.warnings}


def test_held_out_risks_are_what_prediction_computes_from_the_same_weights(finished, tiny_phantom):
    content = json.loads((finished / "members" / "01" / "held_out.json").read_text())
    bundle = Bundle.open(finished / "bundle")
    cohort = read_input(tiny_phantom)
    patients = {p.patient_id: p for p in cohort.patients}
    network = HCCNet(bundle.description.model).eval()
    network.load_state_dict(weights(finished, 1))
    for row in content["patients"]:
        patient = patients[row["patient_id"]]
        event = cohort.outcomes[patient.patient_id].event_date
        kept = tuple(exam for exam in patient.exams if event is None or exam.date < event)
        patient = type(patient)(patient.patient_id, kept)
        predictor = Predictor(bundle, "cpu")
        from_bundle = predictor.predict(patient)
        predictor._kept = {0: network, 1: network}
        exact = predictor.risks_at_every_exam(patient, predictor.prepare(patient))[0]
        assert np.shape(row["risks"]) == (len(kept), 3)
        # Exams for training lie in half precision, those for prediction do not.
        np.testing.assert_allclose(row["risks"], exact, rtol=0, atol=2e-4)
        raw = [at["risk_uncalibrated"] for at in predictor.predict(patient).risk_by_horizon]
        assert raw == pytest.approx(row["risks"][-1], abs=2e-4)
        assert from_bundle.risk_uncalibrated != raw[1]
    assert len(content["patients"]) >= 3


def test_no_patient_trains_a_member_that_predicts_them_for_the_calibration(finished):
    splits = json.loads((finished / "splits.json").read_text())["parts"]
    for member in range(2):
        content = json.loads((finished / "members" / f"{member:02d}" / "held_out.json").read_text())
        assert sorted(r["patient_id"] for r in content["patients"]) == sorted(splits[f"fold {member}"])
    development = json.loads((finished / "development.json").read_text())
    assert development["members_per_patient"] == 1
    assert {row["patient_id"] for row in development["predictions"]} == {n for names in splits.values() for n in names}


def test_calibration_thresholds_and_average_risk_rest_on_every_landmark_before_an_event(finished, tiny_phantom):
    development = json.loads((finished / "development.json").read_text())
    examples = {e.patient_id: e for e in ensemble.open_run(config_of(finished), lambda *_: None).examples.all}
    rows = development["predictions"]
    assert [(r["patient_id"], r["number"]) for r in rows] == [
        (name, n + 1) for name in sorted(examples) for n in range(len(examples[name].exams))
    ]
    held_out = {
        row["patient_id"]: row["risks"]
        for member in range(2)
        for row in json.loads((finished / "members" / f"{member:02d}" / "held_out.json").read_text())["patients"]
    }
    assert [r["raw"] for r in rows] == [held_out[r["patient_id"]][r["number"] - 1] for r in rows]
    raw, risk = (np.array([r[name] for r in rows]) for name in ("raw", "risk"))
    slope, intercept = (
        np.array([one[name] for one in development["calibration_of_held_out"]]) for name in ("slope", "intercept")
    )
    fitted = 1 / (1 + np.exp(-(slope * np.log(raw / (1 - raw)) + intercept)))
    np.testing.assert_allclose(risk, np.maximum.accumulate(fitted, axis=1), rtol=0, atol=1e-9)
    # By hand, after Aalen and Johansen: one patient dies.
    months = np.concatenate([examples[name].follow_up().months for name in sorted(examples)])
    status = np.concatenate([examples[name].follow_up().status for name in sorted(examples)])
    assert set(status) == {CENSORED, DIAGNOSED, COMPETING}
    for horizon, average in zip((6, 12, 24), development["average_risk"], strict=True):
        diagnosed, free = 0.0, 1.0
        for day in np.unique(months[(status != CENSORED) & (months <= horizon)]):
            now, at_risk = months == day, (months >= day).sum()
            diagnosed += free * (now & (status == DIAGNOSED)).sum() / at_risk
            free *= 1 - (now & (status != CENSORED)).sum() / at_risk
        assert average == pytest.approx(diagnosed)
    known = (status != CENSORED) | (months >= 12)
    labels = (status == DIAGNOSED) & (months <= 12)
    assert (development["landmarks"], development["positive"]) == (len(rows), int(labels.sum()))
    assert development["auroc"] == pytest.approx(auroc(labels[known], raw[known, 1]))
    by_number = development["by_landmark_number"]
    assert list(by_number) == ["1", "2", "3", "4 or more"]
    assert {months for at in by_number.values() for months in at} == {"6", "12", "24"}
    first = np.array([r["number"] == 1 for r in rows])
    assert by_number["1"]["12"]["mean_risk"] == pytest.approx(risk[first, 1].mean())


def test_the_average_risk_is_that_of_all_exams_where_the_latest_are_the_landmarks(settings, finished, tmp_path):
    assert main(settings(landmarks="latest", horizons_months=[6, 12])) == 0
    run = ensemble.open_run(config_of(tmp_path / "run"), lambda *_: None)
    development = json.loads((run.folder / "development.json").read_text())

    def observed(landmarks):
        follow_up = FollowUp.joined([e.follow_up(landmarks(e), n) for n, e in enumerate(run.examples.all)])
        return cumulative_incidence(follow_up, np.array([6.0, 12.0]), np.ones((1, len(follow_up))))[0]

    assert development["average_risk"] == pytest.approx(observed(lambda _: None))
    assert np.abs(observed(lambda _: None) - observed(lambda e: e.labelled[-1:])).min() > 0.05
    assert list(Bundle.open(run.folder / "bundle").description.average_risk) == development["average_risk"]
    of_all, of_latest = ((folder / "bundle" / "MODEL_CARD.md").read_text() for folder in (finished, run.folder))
    assert "AUROC at 12 months, over all latest exams whose\noutcome is known: " in of_latest
    assert "AUROC at 12 months, over all exams whose\noutcome is known: " in of_all
    assert "with the calibration that was fitted on these patients" in of_all
    assert "not calibrated" not in of_all.lower()


def test_a_calibration_is_called_carried_over_where_it_was(finished):
    run = ensemble.open_run(config_of(finished), lambda *_: None)
    development = json.loads((finished / "development.json").read_text())
    assert development["calibration"] == development["calibration_of_held_out"]  # one member has not seen a patient
    carried = [{**one, "slope": 1.1 * one["slope"]} for one in development["calibration"]]
    for calibration, said in ((development["calibration"], False), (carried, True)):
        described = ensemble._describe(run, {**development, "calibration": calibration})
        for one in described.calibration:
            assert one.fitted_on.endswith(" and carried over to the mean of all members") == said
            assert ("carried over" in one.fitted_on) == said


def test_the_log_has_each_step_once_and_names_no_patient(finished):
    lines = log_of(finished / "members" / "00")
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    assert "validation_auroc" in lines[1]
    assert "PH0" not in json.dumps(lines)


def test_the_same_command_again_trains_nothing_and_keeps_the_bundle(settings, tmp_path, monkeypatch, capsys):
    words = settings()
    assert main(words) == 0
    before = (tmp_path / "run" / "bundle" / "bundle.json").read_bytes()

    def never(*_):
        raise AssertionError("trained again")

    monkeypatch.setattr(loop.Loop, "run", never)
    assert main(words) == 0
    assert (tmp_path / "run" / "bundle" / "bundle.json").read_bytes() == before
    # A bundle is never taken for the result of settings that it was not made with.
    said = refused([*words, "--name", "other"], capsys)
    assert "holds other members, or says other things" in said
    assert "Move it away" in said


# ---------------------------------------------------------------- stopped and continued


@pytest.mark.parametrize("stop", [1, 2, 3])
def test_a_run_that_was_interrupted_and_goes_on_gives_the_same_weights(settings, finished, tmp_path, stop):
    words = settings(**TARGET, demonstration=True)
    assert interrupted(words, stop) == 130
    assert not (tmp_path / "run" / "bundle").exists()
    assert main(words) == 0
    assert_same_weights(tmp_path / "run", finished, members=2)
    assert [line["step"] for line in log_of(tmp_path / "run" / "members" / "00")] == [1, 2, 3, 4]


def test_a_run_that_was_killed_goes_on_and_gives_the_same_weights(settings, tmp_path):
    changes = {"steps": 40, "checkpoint_every": 3, "validate_every": 100}
    assert main(settings("undisturbed", **changes)) == 0
    words = settings("killed", **changes)
    process = subprocess.Popen(
        [sys.executable, "-m", "HCCNetLib", *words], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    checkpoint = tmp_path / "killed" / "members" / "00" / "checkpoint.safetensors"
    deadline = time.monotonic() + 60
    while not checkpoint.is_file() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (checkpoint.parent / "weights.safetensors").exists()
    assert main(words) == 0
    assert_same_weights(tmp_path / "undisturbed", tmp_path / "killed", members=2)
    assert [line["step"] for line in log_of(checkpoint.parent)] == list(range(1, 41))


def test_members_one_by_one_make_the_same_ensemble(settings, finished, tmp_path, capsys):
    words = settings(**TARGET, demonstration=True)
    assert main([*words, "--member", "1"]) == 0
    assert "1 of 2 members are still to be trained" in capsys.readouterr().out
    assert not (tmp_path / "run" / "bundle").exists()
    assert main([*words, "--member", "0"]) == 0
    assert main(words) == 0
    assert_same_weights(tmp_path / "run", finished, members=2)
    one, two = (json.loads((run / "development.json").read_text()) for run in (tmp_path / "run", finished))
    assert one == two
    assert "members are 0 to 1" in refused([*words, "--member", "2"], capsys)


def test_a_run_is_not_continued_with_other_settings(settings, tmp_path, capsys):
    words = settings()
    assert main([*words, "--member", "0"]) == 0
    kept = (tmp_path / "run" / "config.yaml").read_text()
    said = refused([*words, "--learning_rate", "1e-3"], capsys)
    assert "was trained with other settings" in said
    assert "--out" in said
    (tmp_path / "run" / "members" / "00" / "weights.safetensors").unlink()
    assert "other settings" in refused([*words, "--dropout", "0"], capsys)  # from its checkpoint now
    # The settings on file stay those that the members were trained with.
    assert (tmp_path / "run" / "config.yaml").read_text() == kept
    assert main([*words, "--checkpoint-every", "1", "--member", "0"]) == 0  # changes no weight


def test_a_damaged_checkpoint_is_refused_by_name(settings, tmp_path, capsys):
    words = settings()
    assert main([*words, "--member", "0"]) == 0
    folder = tmp_path / "run" / "members" / "00"
    (folder / "weights.safetensors").unlink()
    content = (folder / "checkpoint.safetensors").read_bytes()
    (folder / "checkpoint.safetensors").write_bytes(content[: len(content) // 2])
    said = refused(words, capsys)
    assert "checkpoint.safetensors is no readable checkpoint. Remove it to start this member again." in said


# ---------------------------------------------------------------- the first phase, shared between runs

EXAMS_FIRST = {**TARGET, "exam_steps": 3, "target_stages": "all"}


@pytest.fixture(scope="module")
def exams_first(calibration, tiny_phantom, tiny_cache, tmp_path_factory):
    """Member 0 of a run that has a first phase."""
    run = tmp_path_factory.mktemp("first") / "run"
    where = {"cohort": str(tiny_phantom), "cache": str(tiny_cache), "out": str(run)}
    file = write_yaml(run.parent / "run.yaml", {**SETTINGS, **EXAMS_FIRST, **where})
    assert main(["finetune", "--config", str(file), "--member", "0"]) == 0
    return run


def test_the_first_phase_keeps_what_it_trains_and_nothing_else(exams_first):
    kept = load_file(exams_first / "members" / "00" / "exams" / "weights.safetensors")
    assert {name.split(".")[0] for name in kept} == {"network", "target_head", "stage_heads"}
    assert all(name.startswith("network.backbone.") for name in kept if name.startswith("network."))
    first = ensemble.first_model(tiny_config(**EXAMS_FIRST), 0).state_dict()
    assert not any(torch.equal(kept[name], first[name]) for name in kept if first[name].ndim > 1)


def test_a_member_with_another_run_s_first_phase_is_the_one_that_trains_its_own(settings, exams_first, tmp_path):
    words = settings(**EXAMS_FIRST, exams_from=str(exams_first))
    assert main([*words, "--member", "0"]) == 0
    assert_same_weights(tmp_path / "run", exams_first)
    assert not (tmp_path / "run" / "members" / "00" / "exams").exists()


@pytest.mark.parametrize(
    "arm",
    [
        {"horizons_months": [12, 24]},
        {"change": True},
        {"horizons_months": [12], "loss": "balanced", "landmark_weight": "equal", "learning_rate": 1e-2},
    ],
    ids=["horizons", "change", "published loss"],
)
def test_an_arm_of_other_hazards_takes_the_first_phase_over(settings, exams_first, tmp_path, arm):
    words = settings(**{**EXAMS_FIRST, "exams_from": str(exams_first), **arm})
    assert main([*words, "--member", "0"]) == 0
    assert not (tmp_path / "run" / "members" / "00" / "exams").exists()


@pytest.mark.parametrize("other", [{"exam_learning_rate": 1e-3}, {"exam_steps": 2}, {"seed": 3}])
def test_a_first_phase_of_other_settings_is_not_taken_over(settings, exams_first, capsys, other):
    words = settings(**{**EXAMS_FIRST, "exams_from": str(exams_first), **other})
    said = refused([*words, "--member", "0"], capsys)
    assert "is the first phase of other settings or patients. Give the same, or leave exams_from empty." in said


# ---------------------------------------------------------------- the same work, divided in another way


def loss_and_gradients(config, examples, cache, step=1):
    model = ensemble.first_model(config, 0).train()
    task = FinetuneTask(config, VisitPlan(config, 0, examples), (), cache, model)
    losses = [task.losses(item, step) for item in task.load(step, ALONE)]
    total = sum(one.total for one in losses)
    total.backward()
    return total.item(), {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


@pytest.fixture(scope="session")
def tiny_examples(tiny_phantom, tiny_cache):
    config = tiny_config()
    return examples_of(tiny_phantom, tiny_cache, config), open_cache(tiny_cache, config)


@pytest.mark.parametrize("per_pass", [1, 3])
def test_a_batch_in_several_passes_has_the_gradient_of_the_whole(tiny_examples, per_pass):
    examples, cache = tiny_examples
    whole, gradients = loss_and_gradients(tiny_config(), examples, cache)
    parts, others = loss_and_gradients(tiny_config(per_pass=per_pass), examples, cache)
    assert parts == pytest.approx(whole, abs=1e-5)
    for name, gradient in gradients.items():
        torch.testing.assert_close(others[name], gradient, atol=1e-5, rtol=1e-4)


def test_two_processes_do_the_work_of_one(settings, tmp_path, finished):
    words = settings(**TARGET, demonstration=True)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-addr", "127.0.0.1"]
    launcher += ["--master-port", str(20000 + os.getpid() % 20000), "-m", "HCCNetLib", *words, "--member", "0"]
    done = subprocess.run(launcher, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    one, two = weights(finished), weights(tmp_path / "run")
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, atol=1e-4, rtol=0)
    logs = [log_of(run / "members" / "00") for run in (finished, tmp_path / "run")]
    for alone, shared in zip(*logs, strict=True):
        assert shared["label_loss"] == pytest.approx(alone["label_loss"], abs=1e-4)
        assert shared["target_loss"] == pytest.approx(alone["target_loss"], abs=1e-4)


# ---------------------------------------------------------------- what goes wrong


def test_a_loss_that_is_not_a_number_stops_the_run_and_lists_the_batch(settings, tmp_path, monkeypatch, capsys):
    words = settings()
    losses = FinetuneTask.losses

    def broken(self, item, step):
        found = losses(self, item, step)
        return found if step < 3 else Losses(found.total * float("nan"), {**found.logged, "label_loss": float("nan")})

    monkeypatch.setattr(FinetuneTask, "losses", broken)
    said = refused(words, capsys)
    assert "Training stopped at step 4 of 4: the loss is not a number" in said
    assert "bad_batch.json" in said
    folder = tmp_path / "run" / "members" / "00"
    listed = json.loads((folder / "bad_batch.json").read_text())
    assert listed["step"] == 3
    assert len(listed["patients"]) == 4
    assert all(entry["patient_id"].startswith("PH") and entry["exams"] for entry in listed["patients"])
    monkeypatch.undo()
    assert main(words) == 0  # from the checkpoint of step 2, which was kept
    assert [line["step"] for line in log_of(folder)] == [1, 2, 3, 4]


def test_a_full_disk_leaves_the_former_checkpoint_and_gives_a_sentence(
    settings, tmp_path, finished, monkeypatch, capsys
):
    words = settings(**TARGET, demonstration=True)
    save, fsync, saved = TrainingState.save, os.fsync, []

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def second_time(self, path, identity):
        saved.append(self.step)
        if len(saved) == 2:
            monkeypatch.setattr(os, "fsync", full)
        save(self, path, identity)

    monkeypatch.setattr(TrainingState, "save", second_time)
    said = refused(words, capsys)
    assert "No space left on device" in said
    assert "it goes on from the last checkpoint" in said
    folder = tmp_path / "run" / "members" / "00"
    assert load_file(folder / "checkpoint.safetensors")
    assert not list(folder.glob(".*.part"))
    monkeypatch.setattr(os, "fsync", fsync)
    assert main(words) == 0
    assert_same_weights(tmp_path / "run", finished, members=2)


def outcomes(cohort, change):
    """A copy of a cohort's outcomes with each row changed."""
    with (cohort / "outcomes.csv").open() as stream:
        rows = [change(row) for row in csv.DictReader(stream)]
    names = ("patient_id", "diagnosis_date", "last_seen_date", "competing_event", "competing_date")
    lines = [",".join(row.get(name) or "" for name in names) for row in rows]
    (cohort / "outcomes.csv").write_text(",".join(names) + "\n" + "\n".join(lines) + "\n")


@pytest.fixture
def cohort(tiny_phantom, tmp_path):
    """A copy that a test may change."""
    return shutil.copytree(tiny_phantom, tmp_path / "cohort", copy_function=os.link)


@pytest.mark.parametrize(
    ("change", "given", "sentence"),
    [
        (lambda r: {**r, "diagnosis_date": ""}, {}, "All patients that can be used are negative"),
        (
            lambda r: r,
            {"horizon_months": 0.01, "horizons_months": [0.01]},
            "All patients that can be used are negative at their latest landmark",
        ),
        (
            lambda r: r,
            {"horizons_months": [12, 50, 60]},
            "No exam of the cohort is followed for 50 months; the longest follow-up after an exam is 45.9 months. "
            "Leave 50, 60 out of horizons_months.",
        ),
        (
            lambda r: r,
            {"horizons_months": [6, 12, 18, 24]},
            "No diagnosis falls between 18 and 24 months after an exam of the cohort",
        ),
        (
            lambda r: r,
            {"horizons_months": [6, 12], "horizon_months": 9},
            "the main horizon (9 months) must be one of 6, 12.",
        ),
        (
            lambda r: r,
            {"loss": "balanced"},
            "loss balanced is for one horizon: give horizons_months [12], or loss plain.",
        ),
        (
            lambda r: {**r, "last_seen_date": ""},
            {},
            "outcomes.csv, row 2: dates must be written 2021-03-14 (diagnosis_date and competing_date may be empty, "
            "last_seen_date may not).",
        ),
        (
            lambda r: {**r, "competing_event": "death"},
            {},
            "outcomes.csv, row 2: competing_event names an event and competing_date is empty. Fill in its date.",
        ),
        (lambda r: r, {"folds": 4}, "it needs 2. Take fewer folds, a longer horizon, or more patients."),
        (
            lambda r: {"patient_id": r["patient_id"], "last_seen_date": "1999-01-01"},
            {},
            "that the patient was last seen on 1999",
        ),
        (lambda r: {**r, "last_seen_date": "soon"}, {}, "outcomes.csv"),
        (lambda r: r, {"channels": ["DWI_b0", "T1_native"]}, "T1_native is missing."),
    ],
)
def test_outcomes_and_images_that_nothing_can_be_learned_from_are_refused(
    settings, cohort, capsys, change, given, sentence
):
    (cohort / "outcomes.csv").rename(cohort / "linked")
    shutil.copy(cohort / "linked", cohort / "outcomes.csv")
    (cohort / "linked").unlink()
    outcomes(cohort, change)
    assert sentence in refused(settings(**{"cohort": str(cohort), **given}), capsys)


def test_a_cohort_without_outcomes_is_refused(settings, cohort, capsys):
    (cohort / "outcomes.csv").unlink()
    assert "The cohort has no outcomes. Put outcomes.csv" in refused(settings(cohort=str(cohort)), capsys)


def test_a_patient_on_two_sides_of_a_given_split_is_refused(settings, finished, tmp_path, capsys):
    split = json.loads((finished / "splits.json").read_text())
    split["parts"]["fold 1"].append(split["parts"]["fold 0"][0])
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "splits.json").write_text(json.dumps(split))
    assert "splits.json names 1 patient(s) more than once" in refused(settings(), capsys)


def test_an_ensemble_that_learned_nothing_is_not_calibrated_and_says_so(
    settings, calibration, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(ensemble, "fit_recalibration", calibration)
    predict = ensemble.predict
    monkeypatch.setattr(
        ensemble,
        "predict",
        lambda m, held, t: [
            risks * 0 + 0.9 - 0.8 * (e.status == DIAGNOSED) for e, risks in zip(held, predict(m, held, t), strict=True)
        ],
    )
    assert main(settings()) == 0
    said = capsys.readouterr().out
    assert "warning: the bundle is not calibrated. At 6 months: " in said
    assert "a higher output does not mean a higher risk on these patients" in said
    bundle = Bundle.open(tmp_path / "run" / "bundle")
    assert bundle.description.calibration == ()
    card = (bundle.path / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert "Not calibrated. At 6 months: " in card
    assert "by the number of the exam, not calibrated, with 95% intervals" in card


def test_a_test_part_that_the_split_on_file_lacks_is_refused(settings, capsys):
    assert main(settings()) == 0
    capsys.readouterr()
    said = refused(settings(test_fraction=0.25), capsys)
    assert "splits.json sets no patient aside, though test_fraction is 0.25" in said


def test_a_target_that_no_exam_has_is_refused(settings, tmp_path, capsys):
    table = tmp_path / "targets.csv"
    table.write_text("patient_id,exam_id,size\nnobody,2020-01-01,3\n")
    given = {"target_file": str(table), "target_column": "size", "target_weight": 1.0}
    assert "No exam of the cohort has a value in size" in refused(settings(**given), capsys)


def test_no_traceback_where_configuration_or_cohort_is_missing(settings, tmp_path, capsys):
    assert "can't be read. Check the path." in refused(["finetune", "--config", str(tmp_path / "none.yaml")], capsys)
    refused(settings(cohort=str(tmp_path / "nowhere")), capsys)
    assert "unknown settings: stepz" in refused(settings(stepz=3), capsys)


# ---------------------------------------------------------------- losses, averages, rates


def test_the_focal_loss_by_hand(tiny_examples):
    examples, cache = tiny_examples
    config = tiny_config(loss="focal", focal_gamma=2.0, horizons_months=[12])
    model = ensemble.first_model(config, 0).eval()
    trained = [e for e in examples if e.labelled]
    task = FinetuneTask(config, VisitPlan(config, 0, trained), (), cache, model)
    (batch,) = task.load(0, ALONE)
    embeddings = model.encode(batch.images)[0]
    logits = model.network.classify(embeddings[batch.exams], batch.times, batch.lengths)[0][:, 0]
    labels = torch.tensor([bool(v.example.labels[s[-1]]) for v in task.plan.batch(0) for s in v.sequences])
    assert 0 < labels.sum() < len(labels) == len(logits)
    truth = torch.where(labels, logits.sigmoid(), 1 - logits.sigmoid())
    by_hand = -((1 - truth) ** 2) * truth.log()
    torch.testing.assert_close(task._label_errors(batch, embeddings), by_hand)


def test_balanced_classes_weigh_the_same_and_the_weights_of_a_step_sum_to_1(tiny_examples):
    examples = [example([False, False, True], "A"), example([False, None], "B"), example([False], "C")]
    balanced = {"loss": "balanced", "horizons_months": [12]}
    # Four negative landmarks and a positive one: 5 / (2·4) and 5 / (2·1).
    assert Normalisation.of(examples, tiny_config(**balanced, target_weight=0.0)).class_weights == (0.625, 2.5)
    latest = tiny_config(**balanced, landmarks="latest")
    assert Normalisation.of(examples, latest).class_weights == (3 / 4, 3 / 2)
    assert Normalisation.of(examples, tiny_config(loss="plain")).class_weights == (1.0, 1.0)
    real, cache = tiny_examples
    for settings in (balanced, {**balanced, "per_pass": 1}, {}, {"per_pass": 1}, {"landmark_weight": "equal"}):
        config = tiny_config(**settings)
        trained = [e for e in real if trained_landmarks(e, config)]
        task = FinetuneTask(config, VisitPlan(config, 0, trained), (), cache, ensemble.first_model(config, 0))
        assert sum(float(b.weights.sum()) for b in task.load(2, ALONE)) == pytest.approx(1, abs=1e-6)


def test_earlier_stages_learn_more_slowly_and_vectors_do_not_decay():
    config = tiny_config(layer_decay=0.5)
    model = ensemble.first_model(config, 0)
    scale = {id(p): (g["lr_scale"], g["decayed"]) for g in ensemble._groups(model, config) for p in g["params"]}
    assert len(scale) == len(list(model.parameters()))
    for name, parameter in model.named_parameters():
        expected = 1.0
        for stage, factor in enumerate((0.0625, 0.125, 0.25, 0.5)):
            if name.startswith(f"network.backbone.stages.{stage}."):
                expected = factor
        assert scale[id(parameter)] == (expected, parameter.ndim > 1), name


def test_the_average_of_the_weights_is_what_is_kept(settings, tmp_path, monkeypatch):
    seen, update = [], loop.Loop._update_average

    def note(self):
        seen.append(self.task.model.state_dict()["network.head.weight"].clone())
        update(self)

    monkeypatch.setattr(loop.Loop, "_update_average", note)
    assert main([*settings(average=0.5, checkpoint_every=1), "--member", "0"]) == 0
    folder = tmp_path / "run" / "members" / "00"
    kept, state = load_file(folder / "weights.safetensors"), load_file(folder / "checkpoint.safetensors")
    name = "head.weight"
    assert torch.equal(kept[name], state[f"average.network.{name}"])
    assert not torch.equal(kept[name], state[f"model.network.{name}"])
    # By hand: from the first weights on, half the way to those of each step.
    config = tiny_config(average=0.5)
    average = ensemble.first_model(config, 0).state_dict()[f"network.{name}"]
    for steps in seen:
        average = average + (steps - average) / 2
    assert len(seen) == 4
    torch.testing.assert_close(kept[name], average)


# ---------------------------------------------------------------- one horizon, channels left out


def test_with_one_horizon_and_the_published_settings_a_run_ends_in_a_bundle_of_one_output(
    settings, tiny_phantom, tmp_path
):
    published = {"horizons_months": [12], "loss": "balanced", "landmark_weight": "equal", "start": "published"}
    assert main(settings(**published)) == 0
    bundle = Bundle.open(tmp_path / "run" / "bundle")
    assert (bundle.description.horizons, bundle.description.model.outputs) == ((12.0,), 1)
    assert "(loss: balanced)" in (bundle.path / "MODEL_CARD.md").read_text(encoding="utf-8")
    prediction = Predictor(bundle, "cpu").predict(read_input(tiny_phantom).patients[0])
    (only,) = prediction.risk_by_horizon
    assert (only["months"], only["risk"]) == (12.0, prediction.risk)


def test_a_bundle_trained_with_channels_left_out_reads_an_exam_without_one(settings, finished, tiny_phantom, tmp_path):
    assert main(settings(channel_dropout=0.3)) == 0
    bundle = Bundle.open(tmp_path / "run" / "bundle")
    assert bundle.description.missing_channels
    assert "channels left out at random" in (bundle.path / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert "Every exam must have all channels." in (finished / "bundle" / "MODEL_CARD.md").read_text(encoding="utf-8")
    patient = read_input(tiny_phantom).patients[0]
    latest = patient.exams[-1]
    for lost in CHANNELS:
        lacking = replace(latest, images={c: image for c, image in latest.images.items() if c != lost})
        without = type(patient)(patient.patient_id, (*patient.exams[:-1], lacking))
        prediction = Predictor(bundle, "cpu").predict(without)
        assert [w.exam_id for w in prediction.warnings if w.code == "missing_channel"] == [latest.exam_id]
        assert prediction.risk != Predictor(bundle, "cpu").predict(patient).risk
        with pytest.raises(Refusal, match=f"Exam {latest.exam_id} lacks {lost}"):
            Predictor(Bundle.open(finished / "bundle"), "cpu").predict(without)


def test_an_exam_without_a_channel_is_trained_on_where_channels_are_left_out(tiny_phantom, tmp_path):
    cohort = read_input(tiny_phantom)
    first = cohort.patients[0]
    exam = first.exams[0]
    lacking = replace(exam, images={"DWI_b0": exam.images["DWI_b0"]})
    cohort = replace(cohort, patients=(replace(first, exams=(lacking, *first.exams[1:])), *cohort.patients[1:3]))
    for dropout, used in ((0.3, 3), (0.0, 2)):
        config = tiny_config(channel_dropout=dropout, cache=str(tmp_path / "cache"))
        examples = gather_examples(cohort, config, training_cache(config), {}, lambda *_: None)
        assert len(examples.all) == used
        if used == 2:
            assert examples.left_out == {first.patient_id: f"can't be used: Exam {exam.exam_id}: DWI_b800 is missing."}


# ---------------------------------------------------------------- what dates and history are worth


@pytest.mark.parametrize("arm", [{"time": "exams"}, {"history": "latest"}])
def test_bundles_without_dates_or_history_predict(settings, tiny_phantom, tmp_path, arm):
    assert main(settings(**arm)) == 0
    bundle = Bundle.open(tmp_path / "run" / "bundle")
    patient = max(read_input(tiny_phantom).patients, key=lambda p: len(p.exams))
    observer, change = EnsembleEvidence(make_explainer(DEFAULT_METHOD)), ChangeEvidence()
    predictor = Predictor(bundle, "cpu")
    prediction = predictor.predict(patient, [observer, change])
    attention = [exam.attention for exam in prediction.exams]
    assert sum(attention) == pytest.approx(1)
    codes = {w.code for w in prediction.warnings}
    evidence = observer.result()
    assert len(change.changes()) == len(patient.exams) - 1
    if "time" in arm:
        assert bundle.description.time_unit == "exams"
        assert min(attention) > 0
        assert "earlier_exams_unused" not in codes
    else:
        assert attention[:-1] == [0.0] * (len(attention) - 1)
        assert "earlier_exams_unused" in codes
        assert not evidence.cells[:-1].any()
        assert evidence.cells[-1].any()
        assert all(one.by_dates == 0 for one in change.changes())  # one exam is read, always at time 0
        config = bundle.description
        prepared = [prepare_exam(exam, config.channels, config.preprocessing) for exam in patient.exams]
        assert not any(m.towards["all"].any() or m.against["all"].any() for m in exam_maps(evidence, prepared)[:-1])
        # The risk is that of the latest exam alone.
        alone = predictor.predict(type(patient)(patient.patient_id, patient.exams[-1:]))
        assert alone.risk == pytest.approx(prediction.risk, abs=1e-6)


# ---------------------------------------------------------------- recipes


def test_evaluation_from_prepared_exams_gives_what_it_gives_without(finished, tiny_phantom, tmp_path):
    words = ["evaluate", "--bundle", str(finished / "bundle"), "--cohort", str(tiny_phantom), "--resamples", "100"]
    words += ["--device", "cpu"]
    kept = ["--cache", str(tmp_path / "prepared"), "--processes", "1"]
    assert main([*words, "--out", str(tmp_path / "a")]) == 0
    assert main([*words, "--out", str(tmp_path / "b"), *kept]) == 0
    assert main([*words, "--out", str(tmp_path / "c"), *kept]) == 0  # from what was kept
    tables = [(tmp_path / name / "predictions.csv").read_text() for name in "abc"]
    assert tables[0] == tables[1] == tables[2]


def test_a_recipe_goes_from_phantom_to_judged_bundle(tmp_path, capsys):
    finetune = {**SETTINGS, **TARGET, "cohort": str(tmp_path / "train"), "out": str(tmp_path / "run"), "steps": 2}
    finetune |= {"phantom_patients": 10, "phantom_seed": 20, "phantom_spacing": 6.0, "demonstration": True}
    shared = {name: finetune.pop(name) for name in ("cohort", "phantom_patients", "phantom_seed", "phantom_spacing")}
    shared |= {
        name: finetune[name]
        for name in ("channels", "preprocessing", "variant", "start", "jitter", "device", "threads")
    }
    few = {"steps": 2, "warmup": 1, "batch": 4, "processes": 1}
    recipe = {
        "shared": shared,
        "backbone": {**few, "local_voxels": 24, "outputs": 16},
        "encoder": {**few, "draws": 1},
        "finetune": finetune,
        "arms": {"latest": {"history": "latest", "pretraining": "none"}},
    }
    recipe["test"] = {"cohort": str(tmp_path / "test"), "phantom_patients": 8, "phantom_seed": 5}
    words = ["train", "--config", str(write_yaml(tmp_path / "recipe.yaml", recipe))]
    said = refused([*words, "--set", "test.phantom_seed=20"], capsys)
    assert "they would be the same patients" in said
    assert not (tmp_path / "train").exists()  # refused before the work
    assert main(words) == 0
    told = Bundle.open(tmp_path / "run" / "bundle").description.training_data["pretraining"]
    assert {name: part["stage"] for name, part in told.items()} == {"backbone": "backbone", "encoder": "encoder"}
    assert str(tmp_path) not in json.dumps(told)
    card = (tmp_path / "run" / "bundle" / "MODEL_CARD.md").read_text()
    assert "The networks began with weights of self-supervised runs: the backbone from 10 generated patients" in card
    alone = Bundle.open(tmp_path / "run-latest" / "bundle")
    assert alone.description.training_data["pretraining"] is None
    assert "The networks began with random weights." in (alone.path / "MODEL_CARD.md").read_text()
    content = json.loads((tmp_path / "run" / "evaluation" / "evaluation.json").read_text())
    (comparison,) = content["comparisons"]
    assert content["bundle"]["name"] == "tiny"
    assert comparison["patients"] == content["metrics"]["sets"][0]["patients"] > 0
    assert "tiny-latest" in json.dumps(comparison)
    assert content["metrics"]["sets"][0]["horizons"]["12"]["excluded"]["auroc"]["value"] is not None
    assert main(words) == 0  # the same command again
