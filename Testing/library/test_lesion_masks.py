"""Lesion masks as a target: where they come to lie, what is learned from them, and what a run makes of them."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import centred_affine, make_exam, positions, rotation, write_nifti
from safetensors.torch import load_file
from training_helpers import CHANNELS, SETTINGS, example, interrupted, log_of, open_cache, tiny_config, write_yaml

from HCCNetLib.bundles import Bundle
from HCCNetLib.commands.main import main
from HCCNetLib.inference import Predictor
from HCCNetLib.models import HCCNet
from HCCNetLib.preprocessing.augmentation import Turn, draw_change, draw_turn, unchanged
from HCCNetLib.preprocessing.geometry import apply_affine
from HCCNetLib.readers import read_input
from HCCNetLib.records import Refusal
from HCCNetLib.training import ensemble
from HCCNetLib.training.distributed import Workers
from HCCNetLib.training.examples import Examples
from HCCNetLib.training.finetune import FinetuneTask
from HCCNetLib.training.images import read_images
from HCCNetLib.training.lesions import LEAST_ML, keep_masks, log_amounts, read_lesions, scales_of
from HCCNetLib.training.visits import VisitPlan

pytestmark = pytest.mark.usefixtures("calibration")

ALONE = Workers(0, 1, torch.device("cpu"))
PATTERN = "truth/{patient_id}/{exam_id}/lesion.nii.gz"
MASKS = {"target_masks": PATTERN, "target_weight": 1.0}
FIRST = {**MASKS, "exam_steps": 3, "exam_batch": 2}
EXAM = "2020-01-01"
VOXEL_MM = 4.5


def silent(*_):
    return


# ---------------------------------------------------------------- where a mask comes to lie


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A cache, the key of an exam in it, and a point in the exam's cube, mm, at which the exam has a bright ball."""
    config = tiny_config(jitter=2)
    cache = open_cache(tmp_path_factory.mktemp("place"), config)
    shape = (80, 64, 60)
    affine = centred_affine(shape, (4.0, 4.0, 4.5), np.diag([-1.0, -1.0, 1.0]))
    (key,) = cache.fill([[make_exam(EXAM, shape, affine, CHANNELS)]])
    point = apply_affine(cache.field(key)[0].grid.affine, np.array([[10.3, 17.6, 15.2]]))[0]
    (key,) = cache.fill([[make_exam(EXAM, shape, affine, CHANNELS, blob=point)]])
    return cache, key, point


def examples_kept(tmp_path, place, mask=None, affine=None, patient_id="P"):
    """A patient of one exam after its mask was read; without a mask there is no file."""
    cache, key = place[:2]
    if mask is not None:
        write_nifti(tmp_path / PATTERN.format(patient_id=patient_id, exam_id=EXAM), mask, affine, np.uint8)
    one = replace(example([False], patient_id), exams=(key,), exam_ids=(EXAM,))
    config = tiny_config(**MASKS, cohort=str(tmp_path))
    return keep_masks(Examples((one,), {"Q": "no outcome"}), config, cache, silent)


def kept(tmp_path, place, mask=None, affine=None):
    """The name under which an exam's mask is kept."""
    examples = examples_kept(tmp_path, place, mask, affine)
    assert examples.left_out == {"Q": "no outcome"}
    ((name,),) = (e.masks for e in examples.all)
    return name


def ball(shape, affine, centre, radius):
    return np.linalg.norm(positions(shape, affine) - centre, axis=-1) < radius


GRIDS = {
    "the exam's own": ((80, 64, 60), (4.0, 4.0, 4.5), np.diag([-1.0, -1.0, 1.0])),
    "flipped": ((120, 100, 90), (3.0, 3.0, 3.0), np.diag([1.0, -1.0, -1.0])),
    "permuted": ((90, 110, 100), (3.0, 3.0, 3.0), np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])),
    "oblique": ((110, 100, 100), (3.0, 3.0, 3.0), rotation(20, -15, 30)),
    "thick slices": ((200, 170, 40), (1.5, 1.5, 8.0), np.diag([-1.0, 1.0, 1.0])),
    "fine": ((160, 130, 150), (1.8, 1.8, 1.8), np.eye(3)),
}


@pytest.mark.parametrize("grid", GRIDS)
def test_a_mask_on_any_grid_keeps_its_volume_and_its_place(place, tmp_path, grid):
    cache, key, point = place
    shape, spacing, directions = GRIDS[grid]
    affine = centred_affine(shape, spacing, directions)
    mask = ball(shape, affine, point, 14)
    share = cache.data(kept(tmp_path, place, mask, affine))[0] / 255
    assert share.shape == cache.data(key).shape[1:]
    assert share.sum() * VOXEL_MM**3 == pytest.approx(mask.sum() * np.prod(spacing), rel=0.1)
    where = np.argwhere(share > 0)
    middle = np.average(where, axis=0, weights=share[tuple(where.T)])
    found = apply_affine(cache.field(key)[0].grid.affine, middle[None])[0]
    assert np.linalg.norm(found - positions(shape, affine)[mask].mean(axis=0)) < VOXEL_MM


def test_a_mask_ends_where_its_image_ends(place, tmp_path):
    """Cut out tightly around its lesion, as some programs export masks; or a lesion in the last slice of the image."""
    cache, _, point = place
    affine = np.diag([3.0, 3.0, 3.0, 1.0])
    affine[:3, 3] = point - 13.5
    lesion = np.ones((10, 10, 10))
    share = cache.data(kept(tmp_path, place, lesion, affine))[0] / 255
    assert share.sum() * VOXEL_MM**3 == pytest.approx(30**3, rel=0.1)


def test_a_mask_counts_where_the_exam_was_read_and_not_in_the_padding(tmp_path):
    """A wide cube, which has padding inside the images: a lesion in it, and one half in it."""
    config = tiny_config(jitter=8)
    cache = open_cache(tmp_path / "cache", config)
    shape, spacing, directions = GRIDS["the exam's own"]
    affine = centred_affine(shape, spacing, directions)
    (key,) = cache.fill([[make_exam(EXAM, shape, affine, CHANNELS)]])
    window, _ = cache.field(key)
    start, edge = window.read[0].start, 13.5  # mm, 3 voxels
    assert start >= 4
    fine = np.diag([1.5, 1.5, 1.5, 1.0])
    for name, at, part in (("beside", start - 4, 0), ("half", start - 0.5, 0.5), ("inside", start + 6, 1)):
        middle = apply_affine(window.grid.affine, np.array([[at, 20.0, 20.0]]))[0]
        fine[:3, 3] = middle - edge + 0.75
        found = cache.data(kept(tmp_path / name, (cache, key), np.ones((18,) * 3), fine))[0] / 255
        assert found.shape == window.grid.shape
        assert not found[~window.read_mask].any()
        assert found.sum() * VOXEL_MM**3 == pytest.approx(part * (2 * edge) ** 3, rel=0.1)


def test_the_values_of_a_mask_do_not_matter_but_for_0(place, tmp_path):
    cache, _, point = place
    shape, spacing, directions = GRIDS["flipped"]
    affine = centred_affine(shape, spacing, directions)
    mask = ball(shape, affine, point, 14)
    one, other = (kept(tmp_path / str(value), place, mask * value, affine) for value in (1, 7))
    assert one != other
    np.testing.assert_array_equal(cache.data(one), cache.data(other))


def test_a_mask_stays_with_its_image_however_they_are_cropped_and_turned(place, tmp_path):
    cache, key, point = place
    shape, spacing, directions = GRIDS["oblique"]
    affine = centred_affine(shape, spacing, directions)
    name = kept(tmp_path, place, ball(shape, affine, point, 12), affine)
    rng, places = np.random.default_rng(4), []
    for _ in range(40):
        turn, change = draw_turn(rng, 0.5, 0.8), draw_change(rng, 2, 2, 0.1, 0.1)
        (image,) = read_images(cache, [key], turn, [change])
        lesion = read_lesions(cache, name, turn, change)
        assert lesion.shape == image.shape[1:] == (24, 24, 24)
        bright = np.argwhere(image[0] > image[0].min() + 0.97 * np.ptp(image[0]))
        middle = np.average(np.argwhere(lesion), axis=0, weights=lesion[lesion > 0])
        assert np.abs(bright.mean(axis=0) - middle).max() < 1
        places.append(tuple(middle.round(1)))
    assert len(set(places)) > 30


def test_what_is_read_is_in_ml(place, tmp_path):
    cache, _, point = place
    shape, spacing, directions = GRIDS["fine"]
    affine = centred_affine(shape, spacing, directions)
    mask = ball(shape, affine, point, 12)
    lesion = read_lesions(cache, kept(tmp_path, place, mask, affine), Turn(), unchanged(2, 2))
    assert lesion.dtype == np.float32
    assert lesion.sum() == pytest.approx(mask.sum() * 1.8**3 / 1000, rel=0.05)
    assert lesion.max() == pytest.approx(VOXEL_MM**3 / 1000)  # a voxel that is all lesion


# ---------------------------------------------------------------- exams without a mask, masks without a lesion


def test_no_file_is_no_target_and_an_empty_mask_says_that_there_is_no_lesion(place, tmp_path):
    cache = place[0]
    assert kept(tmp_path / "none", place) is None
    shape, spacing, directions = GRIDS["flipped"]
    name = kept(tmp_path, place, np.zeros(shape), centred_affine(shape, spacing, directions))
    assert name is not None
    assert not read_lesions(cache, name, Turn(), unchanged(2, 2)).any()


def test_a_patient_with_a_mask_that_cannot_be_used_is_left_out_without_its_name(place, tmp_path):
    shape, spacing, directions = GRIDS["flipped"]
    affine = centred_affine(shape, spacing, directions)
    mask = ball(shape, affine, place[2], 14)
    affine[:3, 3] += [0, 0, 400]
    found = examples_kept(tmp_path, place, mask, affine, "SMITH")
    assert found.all == ()
    assert found.left_out == {
        "Q": "no outcome",
        "SMITH": (
            f"can't be used: truth/…/{EXAM}/lesion.nii.gz marks lesions outside the images of its exam. Check that it belongs "
            "to this exam."
        ),
    }
    (tmp_path / PATTERN.format(patient_id="SMITH", exam_id=EXAM)).write_bytes(b"no image")
    found = examples_kept(tmp_path, place, patient_id="SMITH")
    assert found.all == ()
    assert found.left_out["SMITH"].startswith(f"can't be used: truth/…/{EXAM}/lesion.nii.gz")
    assert "SMITH" not in found.left_out["SMITH"]


def test_masks_that_cannot_be_kept_stop_the_run(place, tmp_path, monkeypatch):
    """A full disk is no matter of one patient."""

    def full(*_):
        raise Refusal("cannot_write", "The disk is full.")

    shape, spacing, directions = GRIDS["flipped"]
    affine = centred_affine(shape, spacing, directions)
    monkeypatch.setattr(type(place[0]), "put", full)
    with pytest.raises(Refusal, match=r"The disk is full\."):
        examples_kept(tmp_path, place, 2 * ball(shape, affine, place[2], 13), affine)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({**MASKS, "target_file": "exams.csv", "target_column": "x"}, "target_file and target_masks are two targets"),
        ({**MASKS, "target_masks": "truth/{exam_id}.nii.gz"}, "target_masks must hold {patient_id} and {exam_id}"),
        ({**MASKS, "target_masks": "truth/{patient_id}.nii.gz"}, "target_masks must hold {patient_id} and {exam_id}"),
        ({**MASKS, "target_masks": "{patient_id}/{exam_id}/{channel}.nii.gz"}, "once each, and no other braces"),
        ({**MASKS, "target_masks": "{patient_id}/{exam_id}}.nii.gz"}, "once each, and no other braces"),
        ({**MASKS, "frozen": True, "exam_steps": 0}, "a frozen backbone learns a target in the first phase only"),
        ({"target_weight": 1.0}, "target_weight is above 0: give target_masks, or target_file and target_column"),
        ({"target_masks": PATTERN, "exam_steps": 3}, "there is no exam-level target"),
    ],
)
def test_settings_of_which_no_target_can_be_made_are_refused(given, sentence):
    with pytest.raises(ValueError, match=sentence):
        tiny_config(**given)


# ---------------------------------------------------------------- amounts


def test_the_amount_of_a_cell_is_the_sum_of_its_voxels():
    rng = np.random.default_rng(0)
    lesions = (rng.random((3, 24, 24, 24)) * (rng.random((3, 24, 24, 24)) < 0.02)).astype(np.float32) * 0.09
    for cells in (8, 4, 2, 1):
        edge = 24 // cells
        sums = lesions.reshape(3, cells, edge, cells, edge, cells, edge).sum(axis=(2, 4, 6))
        found = log_amounts(torch.from_numpy(lesions), edge).numpy()
        assert found.shape == (3, cells, cells, cells)
        np.testing.assert_allclose(found, np.log(np.maximum(sums, LEAST_ML)), atol=1e-4)
        if cells == 8:  # of 27 voxels, some without a lesion
            assert found.min() == pytest.approx(np.log(LEAST_ML))


def test_z_scores_are_over_all_cells_and_there_may_be_no_lesion_at_all():
    lesions = np.zeros((2, 24, 24, 24), np.float32)
    for several in (lesions, lesions[:1]):
        assert scales_of(several, [3, 24]) == [(pytest.approx(np.log(LEAST_ML)), 1.0)] * 2
    lesions[0, :12] = 0.001
    ((mean, sd),) = scales_of(lesions, [12])
    cells = np.log([12**3 * 0.001] * 4 + [LEAST_ML] * 12)
    assert (mean, sd) == (pytest.approx(cells.mean(), abs=1e-4), pytest.approx(cells.std(), abs=1e-4))


# ---------------------------------------------------------------- the cohort's masks


@pytest.fixture
def cohort(tiny_phantom, tmp_path):
    """A copy that a test may change; a file is removed before it is written anew."""
    return shutil.copytree(tiny_phantom, tmp_path / "cohort", copy_function=os.link)


@pytest.fixture(scope="module")
def finished(calibration, tiny_phantom, tiny_cache, tmp_path_factory):
    """A run of both phases with masks, to its bundle."""
    run = tmp_path_factory.mktemp("masks") / "run"
    where = {"cohort": str(tiny_phantom), "cache": str(tiny_cache), "out": str(run)}
    file = write_yaml(run.parent / "run.yaml", {**SETTINGS, **FIRST, **where})
    assert main(["finetune", "--config", str(file)]) == 0
    return run


def weights(run, member=0):
    return load_file(Path(run) / "members" / f"{member:02d}" / "weights.safetensors")


def refused(words, capsys):
    """Runs a command that is refused; returns its sentence."""
    capsys.readouterr()
    assert main(words) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("hccnet: ")
    assert "PH0" not in said
    return said


def test_a_cohort_without_a_mask_is_refused_and_what_the_sentence_says_works(settings, capsys):
    words = settings(**{**MASKS, "target_masks": "nowhere/{patient_id}/{exam_id}.nii.gz"})
    said = refused(words, capsys)
    assert "No exam of the cohort has a lesion mask at nowhere/{patient_id}/{exam_id}.nii.gz." in said
    assert said.endswith("Check the path, or say --target_weight 0.")
    assert main([*words, "--target_weight", "0", "--member", "0"]) == 0


def misplace(cohort, patient):
    """Moves the mask of a patient's first exam a metre away; returns the exam's name."""
    exam = patient.exams[0]
    mask = cohort / PATTERN.format(patient_id=patient.patient_id, exam_id=exam.exam_id)
    affine = exam.images[CHANNELS[0]].grid.affine.copy()
    affine[:3, 3] += 1000
    mask.unlink()
    write_nifti(mask, np.ones((5, 5, 5)), affine, np.uint8)
    return exam.exam_id


def test_a_patient_with_a_misplaced_mask_is_left_out_and_the_others_train(settings, cohort, tmp_path):
    whole = read_input(cohort)
    one = next(p for p in whole.patients if whole.outcomes[p.patient_id].event_date is None)
    exam_id = misplace(cohort, one)
    assert main([*settings(**FIRST, cohort=str(cohort)), "--member", "0"]) == 0
    left_out = json.loads((tmp_path / "run" / ensemble.LEFT_OUT_FILE).read_text(encoding="utf-8"))
    assert left_out[one.patient_id].startswith(
        f"can't be used: truth/…/{exam_id}/lesion.nii.gz marks lesions outside the images of its exam."
    )
    where = {"cohort": str(cohort), "cache": str(tmp_path / "cache"), "out": str(tmp_path / "again")}
    run = ensemble.read_data(tiny_config(**FIRST, **where), silent)
    names = {e.patient_id for e in run.examples.all}
    assert names == {p.patient_id for p in whole.patients} - set(left_out)
    assert sum("lesion.nii.gz" in reason for reason in left_out.values()) == 1
    assert {e.patient_id for part in run.parts(0) for e in part} <= names
    assert [line["step"] for line in log_of(tmp_path / "run" / "members" / "00")] == [1, 2, 3, 4]


def test_a_mask_that_has_changed_makes_another_entry_and_another_run(settings, cohort, tmp_path, capsys):
    words = settings(**FIRST, cohort=str(cohort))
    config = tiny_config(**FIRST, cohort=str(cohort), cache=str(tmp_path / "cache"), out=str(tmp_path / "other"))
    before, again = (ensemble.open_run(config, silent) for _ in range(2))
    one = before.parts(0)[0][0]
    assert main([*words, "--member", "0"]) == 0
    mask = cohort / PATTERN.format(patient_id=one.patient_id, exam_id=one.exam_ids[0])
    exam = next(p for p in read_input(cohort).patients if p.patient_id == one.patient_id).exams[0]
    grid = exam.images[CHANNELS[0]].grid
    mask.unlink()
    write_nifti(mask, np.zeros(grid.shape), grid.affine, np.uint8)
    after = ensemble.open_run(config, silent)
    masks = [{e.patient_id: e.masks for e in run.examples.all} for run in (before, again, after)]
    assert masks[0] == masks[1]
    assert masks[0][one.patient_id][0] != masks[2][one.patient_id][0]
    assert masks[0][one.patient_id][1:] == masks[2][one.patient_id][1:]
    assert [e.exams for e in before.examples.all] == [e.exams for e in after.examples.all]
    for first_phase in (False, True):
        found = [ensemble._identity(run, 0, first_phase) for run in (before, again, after)]
        assert found[0] == found[1] != found[2]
    assert "was trained with other settings, other patients" in refused([*words, "--member", "0"], capsys)


# ---------------------------------------------------------------- the loss


@pytest.fixture(scope="module")
def tiny_run(tiny_phantom, tiny_cache, tmp_path_factory):
    """The phantom as a run with masks reads it."""
    where = {"cohort": str(tiny_phantom), "cache": str(tiny_cache), "out": str(tmp_path_factory.mktemp("tiny") / "run")}
    return ensemble.read_data(tiny_config(**FIRST, **where), silent)


def task_of(run, examples=None, **changes):
    config = replace(run.config, **changes)
    examples = run.parts(0)[0] if examples is None else examples
    model = ensemble.first_model(config, 0).train()
    return FinetuneTask(config, VisitPlan(config, 0, examples), (), run.cache, model, exams_only=True)


def target_loss(task, step=1):
    found = [task.losses(item, step).logged for item in task.load(step, ALONE)]
    return tuple(sum(one[name] for one in found) for name in ("target_loss", "stage_target_loss"))


def test_the_target_is_the_log_of_what_each_cell_holds_as_a_z_score(tiny_run):
    task = task_of(tiny_run, drop_path=0.0)
    (batch,) = task.load(1, ALONE)
    assert batch.targets.shape == (len(batch.images), 24, 24, 24)
    assert batch.has_target.all()
    _, guesses = task.model.encode(batch.images)
    assert [guess.shape[1:] for guess in guesses] == [(edge,) * 3 for edge in (1, 2, 4, 8)]
    by_hand = []
    for guess, (mean, sd) in zip(guesses, task.normalisation.lesions[::-1], strict=True):
        edge = guess.shape[-1]
        sums = batch.targets.reshape(-1, edge, 24 // edge, edge, 24 // edge, edge, 24 // edge).sum((2, 4, 6))
        scores = (sums.clamp_min(LEAST_ML).log() - mean) / sd
        by_hand.append(float(((guess - scores) ** 2).detach().mean()))
    found = target_loss(task)
    assert found == (pytest.approx(by_hand[0], rel=1e-4), pytest.approx(np.mean(by_hand[1:]), rel=1e-4))


def test_a_batch_in_several_passes_has_the_same_loss(tiny_run):
    assert target_loss(task_of(tiny_run, per_pass=1)) == pytest.approx(target_loss(task_of(tiny_run)), abs=1e-4)


def test_an_exam_without_a_mask_adds_nothing_to_the_loss(tiny_run):
    training = tiny_run.parts(0)[0]
    some = [replace(e, masks=(None, *e.masks[1:])) for e in training]
    task = task_of(tiny_run, some)
    (batch,) = task.load(1, ALONE)
    assert 0 < batch.has_target.sum() < len(batch.has_target)
    batch.images.requires_grad_()
    losses = task.losses(batch, 1)
    losses.total.backward()
    reached = batch.images.grad.abs().amax(dim=(1, 2, 3, 4)) > 0
    assert reached.tolist() == batch.has_target.tolist()
    alone = replace(batch, images=batch.images.detach(), target_scale=1.0)
    each = [
        task.losses(replace(alone, has_target=torch.arange(len(batch.images)) == i), 1).logged["target_loss"]
        for i in torch.nonzero(batch.has_target).flatten()
    ]
    assert losses.logged["target_loss"] == pytest.approx(np.mean(each), rel=1e-4)


def test_a_member_whose_patients_have_no_mask_trains_all_the_same(tiny_run):
    none = [replace(e, masks=(None,) * len(e.masks)) for e in tiny_run.parts(0)[0]]
    assert target_loss(task_of(tiny_run, none)) == (0.0, 0.0)


def test_the_network_learns_where_lesions_are(tiny_run):
    task = task_of(tiny_run, drop_path=0.0)
    (batch,) = task.load(0, ALONE)
    optimiser = torch.optim.AdamW(task.model.parameters(), lr=3e-3)
    course = []
    for _ in range(25):
        optimiser.zero_grad()
        losses = task.losses(batch, 0)
        losses.total.backward()
        optimiser.step()
        course.append((losses.logged["target_loss"], losses.logged["stage_target_loss"]))
    first, last = course[0], course[-1]
    assert last[0] < 0.5 * first[0]
    assert last[1] < 0.8 * first[1]


# ---------------------------------------------------------------- from cohort to bundle


def test_a_run_with_masks_ends_in_a_bundle_that_predicts(finished, tiny_phantom):
    bundle = Bundle.open(finished / "bundle")
    for member in range(2):
        found = weights(finished, member)
        assert found.keys() == HCCNet(bundle.description.model).state_dict().keys()
        assert {name.split(".")[0] for name in found if "head" in name} == {"head", "head_norm"}
    assert 0 < Predictor(bundle, "cpu").predict(read_input(tiny_phantom).patients[0]).risk < 1


def test_bundle_and_card_say_that_masks_were_used_and_not_where_they_lie(finished, tiny_run):
    target = Bundle.open(finished / "bundle").description.training_data["exam_level_target"]
    exams = sum(len(e.exams) for e in tiny_run.examples.all)
    assert (target["column"], target["stages"], target["exams_with_a_value"]) == ("lesion masks", "all", exams)
    card = (finished / "bundle" / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert f"the networks learned, from the lesion masks of {exams} exams, how much lesion" in card
    assert "Prediction does not need masks." in card
    for text in (card, (finished / "bundle" / "bundle.json").read_text(encoding="utf-8")):
        assert "truth/" not in text
        assert "PH0" not in text


def test_the_first_phase_trains_backbone_and_lesion_heads(finished):
    folder = finished / "members" / "00" / "exams"
    found, first = load_file(folder / "weights.safetensors"), ensemble.first_model(tiny_config(**FIRST), 0).state_dict()
    assert {name.split(".")[0] for name in found} == {"network", "stage_heads"}
    assert {name.split(".")[1] for name in found if name.startswith("stage_heads.")} == {"0", "1", "2", "3"}
    assert not any(torch.equal(found[name], first[name]) for name in found if first[name].ndim > 1)
    logged = log_of(folder)
    assert [line["step"] for line in logged] == [1, 2, 3]
    assert all(line["target_loss"] > 0 and line["stage_target_loss"] > 0 for line in logged)
    assert all("label_loss" in line and line["target_loss"] > 0 for line in log_of(folder.parent))


@pytest.mark.parametrize("stop", [1, 2, 5], ids=["before a checkpoint", "first phase", "second phase"])
def test_a_run_that_was_interrupted_and_goes_on_gives_the_same_weights(settings, finished, tmp_path, stop):
    words = [*settings(**FIRST), "--member", "0"]
    assert interrupted(words, stop) == 130
    assert main(words) == 0
    one, two = weights(tmp_path / "run"), weights(finished)
    assert all(torch.equal(one[name], two[name]) for name in two)
    assert [line["step"] for line in log_of(tmp_path / "run" / "members" / "00")] == [1, 2, 3, 4]


def test_a_cohort_of_which_no_mask_can_be_used_is_refused_with_the_reason(cohort, tiny_cache, tmp_path):
    for mask in cohort.glob("truth/*/*/lesion.nii.gz"):
        mask.unlink()  # a link
        mask.write_bytes(b"no image")
    config = tiny_config(**FIRST, cohort=str(cohort), cache=str(tiny_cache), out=str(tmp_path / "run"))
    with pytest.raises(Refusal, match=r"No patient of the cohort can be used\. The last one can't be used: truth/…/"):
        ensemble.read_data(config, silent)
