"""A second phase on embeddings that a frozen backbone has left: what stays, what learns, and what is predicted."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from training_helpers import PREPROCESSING, SETTINGS, interrupted, log_of, tiny_config, write_yaml

from HCCNetLib.bundles import Bundle
from HCCNetLib.commands.main import main
from HCCNetLib.inference import Predictor
from HCCNetLib.models import HCCNet
from HCCNetLib.readers import read_input
from HCCNetLib.training import ensemble
from HCCNetLib.training.configuration import read_config
from HCCNetLib.training.distributed import Workers
from HCCNetLib.training.embeddings import Embeddings, draw_reading, fill_together
from HCCNetLib.training.finetune import FinetuneTask
from HCCNetLib.training.images import read_images
from HCCNetLib.training.settings import FinetuneConfig
from HCCNetLib.training.visits import VisitPlan

pytestmark = pytest.mark.usefixtures("calibration")

ALONE = Workers(0, 1, torch.device("cpu"))
FIRST = {
    "target_masks": "truth/{patient_id}/{exam_id}/lesion.nii.gz",
    "target_weight": 1.0,
    "exam_steps": 3,
    "exam_batch": 2,
}
FROZEN = {**FIRST, "frozen": True, "draws": 2, "average": 0.5}
BACKBONE = "network.backbone."


def silent(*_):
    return


@pytest.fixture
def settings(settings):
    """The words of the command for member 0."""
    return lambda *name, **changes: [*settings(*name, **changes), "--member", "0"]


@pytest.fixture(scope="module")
def finished(calibration, tiny_phantom, tiny_cache, tmp_path_factory):
    """A run with a frozen second phase, to its bundle, with everything random switched on."""
    run = tmp_path_factory.mktemp("frozen") / "run"
    where = {"cohort": str(tiny_phantom), "cache": str(tiny_cache), "out": str(run)}
    file = write_yaml(run.parent / "run.yaml", {**SETTINGS, **FROZEN, **where})
    assert main(["finetune", "--config", str(file)]) == 0
    return run


@pytest.fixture(scope="module")
def run_of(finished):
    """The finished run as the commands open it."""
    return ensemble.open_run(read_config(FinetuneConfig, finished / "config.yaml", {}), silent)


def folder_of(run, member=0):
    return run / "members" / f"{member:02d}"


def weights(run, member=0):
    return load_file(folder_of(run, member) / "weights.safetensors")


def first_phase(run, member=0):
    """The backbone that the first phase has left."""
    found = load_file(folder_of(run, member) / "exams" / "weights.safetensors")
    return {name.removeprefix("network."): value for name, value in found.items() if name.startswith(BACKBONE)}


def assert_same_weights(run, other):
    one, two = weights(run), weights(other)
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)


def assert_the_backbone_stays_and_the_rest_learns(run, config):
    found, backbone, start = weights(run), first_phase(run), ensemble.first_model(config, 0).network.state_dict()
    assert {name for name in found if name.startswith("backbone.")} == backbone.keys()
    for name, value in found.items():
        if name in backbone:
            assert torch.equal(value, backbone[name]), name
        elif value.ndim > 1:
            assert not torch.equal(value, start[name]), name
    moved = [name for name in backbone if not torch.equal(backbone[name], start[name])]
    assert len(moved) > 0.9 * len(backbone)  # by the first phase


# ---------------------------------------------------------------- what stays and what learns


def test_the_backbone_stays_as_the_first_phase_left_it_and_the_rest_learns(finished):
    assert_the_backbone_stays_and_the_rest_learns(finished, tiny_config(**FROZEN))
    bundle = Bundle.open(finished / "bundle")
    for member in range(2):
        kept = bundle.member(member).state_dict()
        for name, value in first_phase(finished, member).items():
            assert torch.equal(kept[name], value.half().float()), name  # bundles are in half precision


def test_cells_are_read_as_places_on_a_frozen_backbone_too(settings, tmp_path):
    large = {"preprocessing": {**PREPROCESSING, "crop_voxels": 48}, "cache": str(tmp_path / "cache")}
    changes = {**FROZEN, **large, "pooling": "cells", "change": True, "exam_dropout": 0.5, "draws": 1}
    assert main(settings(**changes)) == 0
    assert_the_backbone_stays_and_the_rest_learns(tmp_path / "run", tiny_config(**changes))
    kept = load_file(next((folder_of(tmp_path / "run") / "embeddings").rglob("*.safetensors")))["embeddings"]
    assert (kept.shape[0], kept.shape[2]) == (2, 8 * 128)


def test_the_second_phase_learns_from_labels_alone(finished):
    logged = log_of(folder_of(finished))
    assert [line["step"] for line in logged] == [1, 2, 3, 4]
    assert all("label_loss" in line and "target_loss" not in line for line in logged)
    assert "validation_auroc" in logged[1]


def test_what_is_frozen_needs_no_gradient_and_the_optimiser_gets_all_the_rest(run_of, tmp_path):
    run = replace(run_of, config=replace(run_of.config, out=str(tmp_path)))
    model = ensemble.first_model(run.config, 0)
    ensemble._embed(run, 0, run.parts(0)[0][:1], model, ALONE, silent)
    learned = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert learned == {n for n, _ in model.named_parameters() if not n.startswith((BACKBONE, "stage_heads."))}
    assert any(name.startswith("network.head.") for name in learned)
    groups = ensemble._groups(model, run.config)
    assert sum(len(group["params"]) for group in groups) == len(learned)


def test_several_processes_encode_each_its_share(run_of, tmp_path, monkeypatch):
    """One after the other here, so that none waits for the others."""
    monkeypatch.setattr(Workers, "wait", lambda _: None)
    training, model = run_of.parts(0)[0], ensemble.first_model(run_of.config, 0).eval()
    alone, shared = (Embeddings(tmp_path / n, run_of.config, model.network.backbone, run_of.cache) for n in "ab")
    fill_together(alone, training, ALONE, silent)
    done = []
    for rank in range(2):
        workers = Workers(rank, 2, torch.device("cpu"))
        fill_together(shared, training, workers, lambda stage, *counts: done.append((stage, *counts)))
    totals = [(len(training) + 1) // 2, len(training) // 2]
    assert done == [("encoding patients", n, total) for total in totals for n in range(total + 1)]
    for one in training:
        torch.testing.assert_close(shared.get(one), alone.get(one))


# ---------------------------------------------------------------- what is kept and read


@torch.no_grad()
def encoded(model, run, one, draw):
    reading = draw_reading(one, draw, run.config)
    images = np.stack(list(read_images(run.cache, one.exams, reading.turn, reading.changes)))
    return model.network.backbone(torch.from_numpy(images))


def test_each_visit_reads_one_draw_of_what_the_backbone_makes_of_its_exams(run_of, tmp_path):
    config = run_of.config
    training = run_of.parts(0)[0][:3]
    model = ensemble.first_model(config, 0).train()
    embeddings = Embeddings(tmp_path, config, model.network.backbone, run_of.cache)
    for one in training:
        embeddings.fill(one)
    plan = VisitPlan(replace(config, batch=3), 0, training)
    task = FinetuneTask(config, plan, (), run_of.cache, model, embeddings=embeddings)
    model.eval()
    made = [[encoded(model, run_of, one, draw) for draw in range(3)] for one in training]
    drawn = set()
    for step in range(12):
        (batch,), first = task.load(step, ALONE), 0
        assert not batch.has_target.any()
        for visit in plan.batch(step):
            rows = batch.images[first : first + len(visit.exams)]
            number = training.index(visit.example)
            same = [torch.allclose(rows, one[list(visit.exams)], atol=1e-4) for one in made[number]]
            assert sum(same) == 1
            drawn.add((number, same.index(True)))
            first += len(visit.exams)
        assert first == len(batch.images)
    assert drawn == {(number, draw) for number in range(3) for draw in range(3)}


def test_channels_are_left_out_of_what_is_kept_where_they_are_in_training(run_of):
    one = max(run_of.examples.all, key=lambda e: len(e.exams))
    config = replace(run_of.config, channel_dropout=0.4)
    readings = [draw_reading(one, draw, config) for draw in range(20)]
    assert not any(change.dropped for change in readings[0].changes)  # as prediction reads
    dropped = {change.dropped for reading in readings[1:] for change in reading.changes}
    assert dropped == {(), (0,), (1,)}
    without = draw_reading(one, 1, run_of.config)
    assert not any(change.dropped for change in without.changes)
    assert readings[1].turn == without.turn


def test_passes_of_a_patient_have_the_gradient_of_the_whole_and_none_reaches_the_backbone(run_of, tmp_path):
    training = run_of.parts(0)[0]
    found = []
    for per_pass in (0, 1):
        config = replace(run_of.config, per_pass=per_pass)
        model = ensemble.first_model(config, 0)
        embeddings = Embeddings(tmp_path, config, model.network.backbone, run_of.cache)
        for one in training:
            embeddings.fill(one)
        task = FinetuneTask(
            config, VisitPlan(config, 0, training), (), run_of.cache, model.train(), embeddings=embeddings
        )
        losses = [task.losses(item, 1) for item in task.load(1, ALONE)]
        total = sum(one.total for one in losses)
        total.backward()
        found.append((total.item(), {n: p.grad for n, p in model.named_parameters() if p.grad is not None}))
    (whole, gradients), (parts, others) = found
    assert parts == pytest.approx(whole, abs=1e-5)
    assert gradients.keys() == others.keys()
    assert not any(name.startswith((BACKBONE, "stage_heads.")) for name in gradients)
    for name, gradient in gradients.items():
        torch.testing.assert_close(others[name], gradient, atol=1e-5, rtol=1e-4)


# ---------------------------------------------------------------- again, stopped, continued


def test_a_second_run_gives_the_same_weights(settings, finished, tmp_path):
    assert main(settings(**FROZEN)) == 0
    assert_same_weights(tmp_path / "run", finished)


@pytest.mark.parametrize(
    ("stop", "lost"),
    [(2, False), (3, False), (6, False), (6, True)],
    ids=["first phase", "before the second", "second phase", "embeddings lost"],
)
def test_a_run_that_was_interrupted_and_goes_on_gives_the_same_weights(settings, finished, tmp_path, stop, lost):
    words = settings(**FROZEN)
    assert interrupted(words, stop) == 130
    embeddings = folder_of(tmp_path / "run") / "embeddings"
    assert embeddings.is_dir() == (stop >= 3)
    if lost:
        shutil.rmtree(embeddings)
    assert main(words) == 0
    assert_same_weights(tmp_path / "run", finished)


# ---------------------------------------------------------------- the first phase


def test_the_first_phase_has_a_batch_of_its_own(settings, finished, tmp_path, monkeypatch):
    patients, load = set(), FinetuneTask.load

    def count(self, step, workers):
        items = load(self, step, workers)
        patients.add((self.exams_only, len(self.plan.batch(step))))
        return items

    monkeypatch.setattr(FinetuneTask, "load", count)
    assert main(settings(**FROZEN, exam_learning_rate=1e-2)) == 0
    assert patients == {(True, 2), (False, 4)}
    rates = [line["learning_rate"] for line in log_of(folder_of(tmp_path / "run") / "exams")]
    assert max(rates) == pytest.approx(1e-2 * 2 / 128)  # scaled by its own batch
    patients.clear()
    assert main(settings("same", **{**FROZEN, "exam_batch": 0})) == 0
    assert patients == {(True, 4), (False, 4)}


@pytest.mark.parametrize(
    "arm", [{"frozen": False}, {"draws": 3}, {"batch": 3}, {"average": 0.0}], ids=lambda arm: next(iter(arm))
)
def test_an_arm_of_another_second_phase_takes_the_first_phase_over(settings, finished, tmp_path, arm):
    assert main(settings(**{**FROZEN, "exams_from": str(finished), **arm})) == 0
    assert not (folder_of(tmp_path / "run") / "exams").exists()
    one, two, backbone = weights(tmp_path / "run"), weights(finished), first_phase(finished)
    assert all(torch.equal(one[name], backbone[name]) for name in backbone) == ("frozen" not in arm)
    assert not torch.equal(one["head.weight"], two["head.weight"])


@pytest.mark.parametrize("other", [{"exam_batch": 3}, {"exam_steps": 2}])
def test_a_first_phase_of_other_settings_is_not_taken_over(settings, finished, capsys, other):
    assert main(settings(**{**FROZEN, "exams_from": str(finished), **other})) == 1
    assert "is the first phase of other settings or patients." in capsys.readouterr().err


@pytest.mark.parametrize("other", [["--frozen", "false"], ["--draws", "3"]])
def test_a_run_is_not_continued_with_another_second_phase(settings, capsys, other):
    words = settings(**FROZEN)
    assert main(words) == 0
    assert main([*words, *other]) == 1
    assert "was trained with other settings" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"draws": 0}, "draws must be at least 1; it is 0"),
        ({"exam_batch": -1}, "exam_batch must be at least 0; it is -1"),
    ],
)
def test_settings_that_no_run_can_be_made_with_are_refused(given, sentence):
    with pytest.raises(ValueError, match=sentence):
        tiny_config(**{**FROZEN, **given})


# ---------------------------------------------------------------- prediction


def test_held_out_risks_are_what_prediction_computes_from_the_same_weights(finished, tiny_phantom):
    content = json.loads((folder_of(finished, 1) / "held_out.json").read_text())
    bundle, cohort = Bundle.open(finished / "bundle"), read_input(tiny_phantom)
    patients = {p.patient_id: p for p in cohort.patients}
    network = HCCNet(bundle.description.model).eval()
    network.load_state_dict(weights(finished, 1))
    predictor = Predictor(bundle, "cpu")
    predictor._kept = {0: network, 1: network}
    spread = []
    for row in content["patients"]:
        patient, event = patients[row["patient_id"]], cohort.outcomes[row["patient_id"]].event_date
        exams = tuple(exam for exam in patient.exams if event is None or exam.date < event)
        patient = type(patient)(patient.patient_id, exams)
        exact = predictor.risks_at_every_exam(patient, predictor.prepare(patient))[0]
        assert np.shape(row["risks"]) == (len(exams), 3)
        np.testing.assert_allclose(row["risks"], exact, rtol=0, atol=2e-4)  # exams in training lie in half precision
        spread += [risks[-1] for risks in row["risks"]]
    assert len(content["patients"]) >= 3
    assert np.ptp(spread) > 1e-3
