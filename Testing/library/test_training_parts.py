"""What training is made of: schedules, augmentation, prepared exams, keyed dropout, splits, settings, visits."""

from __future__ import annotations

import errno
import itertools
import json
import os
import pickle
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import DWI, centred_affine, make_exam, make_patient, rotation, write_patient
from scipy.special import expit
from test_preprocessing import GRIDS, grid_of
from torch.nn import functional
from training_helpers import (
    SETTINGS,
    changed_image,
    example,
    examples_of,
    labels_at,
    open_cache,
    tiny_config,
    write_yaml,
)

from HCCNetLib.bundles import BundleDescription, Calibration
from HCCNetLib.evaluation.calibration import fit_recalibration
from HCCNetLib.evaluation.follow_up import CENSORED, COMPETING, DIAGNOSED
from HCCNetLib.inference.cache import Preparation, PreparedCache
from HCCNetLib.inference.predictor import calibrate
from HCCNetLib.models import HCCNet, ModelConfig, keyed
from HCCNetLib.models.keyed import Dropout, DropPath, give_keys, keyed_uniform
from HCCNetLib.models.pooling import POOLINGS, GeneralisedMeanPooling, MeanPooling, make_pooling
from HCCNetLib.preprocessing import PreprocessingConfig, prepare_exam
from HCCNetLib.preprocessing.augmentation import Turn, draw_change, draw_turn, unchanged
from HCCNetLib.readers import read_input
from HCCNetLib.records import Box, Outcome, Refusal
from HCCNetLib.training import ensemble
from HCCNetLib.training.configuration import config_text, read_config
from HCCNetLib.training.distributed import Workers
from HCCNetLib.training.examples import count_examples, gather_examples, read_cohort, read_targets
from HCCNetLib.training.finetune import FinetuneTask
from HCCNetLib.training.recipe import read_recipe
from HCCNetLib.training.schedules import cosine_schedule
from HCCNetLib.training.settings import FinetuneConfig
from HCCNetLib.training.splits import Splits, draw_splits, find_splits
from HCCNetLib.training.visits import VisitPlan, plain_visit, sequence_times, trained_landmarks

SMALL = PreprocessingConfig(spacing_mm=4.5, crop_voxels=24, liver_min_voxels=27)


def refusal(work, *given, **named) -> Refusal:
    """Does something that is refused; its sentence ends like one."""
    with pytest.raises(Refusal) as caught:
        work(*given, **named)
    assert caught.value.message.endswith(".")
    return caught.value


# ---------------------------------------------------------------- schedules


def test_schedules_are_those_of_the_published_code(test_data):
    golden = json.loads((test_data / "golden" / "schedules.json").read_text())
    assert len(golden) == 2
    for call, values in golden.items():
        base, final, steps, warmup = (float(v) for v in call.split("(")[1].rstrip(")").split(","))
        ours = cosine_schedule(base, final, int(steps), int(warmup))
        np.testing.assert_allclose(ours, values, rtol=0, atol=1e-12, err_msg=call)


# ---------------------------------------------------------------- augmentation


@pytest.mark.parametrize("flips", list(itertools.product([False, True], repeat=3)))
def test_a_turn_s_affine_leads_each_voxel_back_to_where_it_came_from(flips):
    edge = 5
    index = np.stack(np.meshgrid(*[np.arange(edge)] * 3, indexing="ij"))  # each voxel holds its own index
    for plane, quarters in itertools.product([(0, 1), (0, 2), (1, 2)], range(4)):
        turn = Turn(flips, plane, quarters)
        turned, affine = turn.apply(index), turn.affine(edge)
        expected = np.einsum("ij,jxyz->ixyz", affine[:3, :3], index) + affine[:3, 3, None, None, None]
        np.testing.assert_array_equal(turned, np.round(expected).astype(int), err_msg=str(turn))
        np.testing.assert_allclose(expected, np.round(expected), atol=1e-12)


@pytest.mark.parametrize("name", GRIDS)
@pytest.mark.parametrize("liver", [None, Box((-20.0, -45.0, 10.0), (60.0, 15.0, 70.0))], ids=["no liver", "liver box"])
def test_the_middle_crop_in_training_is_what_prediction_reads(name, liver):
    shape, affine = grid_of(name)
    shape = tuple(n - n % 2 + 1 for n in shape)
    exam = replace(make_exam("2020-01-01", shape, affine, DWI[:2]), liver_box=liver)
    for config, margin in ((SMALL, 3), (replace(SMALL, liver_size=(0.2, 0.2, 0.2), liver_min_voxels=9), 5)):
        alone = prepare_exam(exam, DWI[:2], config)
        wide = prepare_exam(exam, DWI[:2], config, margin=margin)
        assert wide.data.shape == (2, *[24 + 2 * margin] * 3)
        crop = unchanged(2, margin).crop(wide.data, 24)
        np.testing.assert_array_equal(crop != 0, alone.data != 0)
        # Splines are fitted to a larger part of the image where there is a margin: rounding may differ, no more.
        np.testing.assert_allclose(crop, alone.data, rtol=0, atol=5e-7)
        # The margin's grid is the same grid, begun earlier.
        begin = wide.window.grid.affine @ [margin, margin, margin, 1]
        np.testing.assert_allclose(begin, alone.window.grid.affine[:, 3], atol=1e-9)
    assert liver is not None or (alone.data == 0).any()  # the smaller liver box leaves padding


def test_a_body_smaller_than_the_cube_is_padded_alike_in_training_and_prediction():
    affine = centred_affine((21, 17, 19), (5.0, 5.0, 5.0), rotation(5, 3, 2))
    exam = make_exam("2020-01-01", (21, 17, 19), affine, DWI[:2])
    alone = prepare_exam(exam, DWI[:2], SMALL)
    wide = prepare_exam(exam, DWI[:2], SMALL, margin=4)
    assert alone.window.filled_fraction < 0.9
    crop = unchanged(2, 4).crop(wide.data, 24)
    np.testing.assert_array_equal(crop != 0, alone.data != 0)
    np.testing.assert_allclose(crop, alone.data, rtol=0, atol=5e-7)


def test_draws_stay_within_their_bounds_and_reach_them():
    rng = np.random.default_rng(0)
    changes = [draw_change(rng, 3, 2, 0.1, 0.2) for _ in range(300)]
    assert {s for c in changes for s in c.start} == {0, 1, 2, 3, 4}
    scales, shifts = np.array([c.scale for c in changes]), np.array([c.shift for c in changes])
    assert 0.9 <= scales.min() < 0.91
    assert 1.09 < scales.max() <= 1.1
    assert -0.2 <= shifts.min() < -0.19
    assert 0.19 < shifts.max() <= 0.2
    turns = [draw_turn(rng, 0.5, 0.5) for _ in range(400)]
    assert 150 < sum(t.quarters > 0 for t in turns) < 250
    assert {t.plane for t in turns if t.quarters} == {(0, 1), (0, 2), (1, 2)}
    still = [draw_turn(rng, 0.0, 0.0) for _ in range(20)]
    assert all(t.flips == (False, False, False) and t.quarters == 0 for t in still)


# ---------------------------------------------------------------- prepared exams on disk


@pytest.fixture
def exam():
    shape, affine = grid_of("oblique")
    return make_exam("2020-01-01", shape, affine, DWI[:2])


NORMALISED = replace(SMALL, channel_mean=(0.4, 0.6), channel_sd=(0.5, 0.7))
PREPARATION = Preparation(DWI[:2], NORMALISED)


def test_an_entry_s_key_follows_what_decides_the_result_and_nothing_else(exam):
    image = exam.images[DWI[0]]
    brighter = image.data.copy()
    brighter[3, 4, 5] += 1
    shifted = image.affine.copy()
    shifted[0, 3] += 0.5

    def with_first(changed):
        return replace(exam, images={**exam.images, DWI[0]: changed})

    box = Box((-20.0, -45.0, 10.0), (60.0, 15.0, 70.0))
    keys = [
        PREPARATION.key(exam),
        PREPARATION.key(with_first(changed_image(image, data=brighter))),
        PREPARATION.key(with_first(changed_image(image, affine=shifted))),
        PREPARATION.key(replace(exam, images=dict(zip(DWI[:2], reversed(exam.images.values()), strict=True)))),
        PREPARATION.key(replace(exam, liver_box=box)),
        PREPARATION.key(replace(exam, liver_mask=changed_image(image))),
        replace(PREPARATION, channels=(DWI[1], DWI[0])).key(exam),
        replace(PREPARATION, margin=1).key(exam),
        replace(PREPARATION, half=True).key(exam),
        replace(PREPARATION, config=replace(NORMALISED, clip_mads=3.0)).key(exam),
    ]
    assert len(set(keys)) == len(keys)
    other = replace(NORMALISED, channel_mean=(0.0, 0.1), channel_sd=(1.0, 2.0))
    assert replace(PREPARATION, config=other).key(exam) == keys[0]
    assert PREPARATION.key(replace(exam, exam_id="another name")) == keys[0]


def test_what_the_cache_gives_is_what_preparation_gives(exam, tmp_path):
    exam = replace(exam, liver_box=Box((-20.0, -45.0, 10.0), (60.0, 15.0, 70.0)))
    direct = prepare_exam(exam, DWI[:2], NORMALISED)
    cache = PreparedCache(tmp_path / "deep" / "cache", PREPARATION)
    for _ in range(2):  # made, then read
        (kept,) = cache.get([exam])
        np.testing.assert_allclose(kept.data, direct.data, atol=1e-6)
        assert kept.field() == direct.field()
        assert kept.window.read == direct.window.read
        np.testing.assert_array_equal(kept.window.grid.affine, direct.window.grid.affine)
        np.testing.assert_array_equal(kept.source_grid.affine, direct.source_grid.affine)
        assert kept.problems == direct.problems
        assert (kept.exam_id, kept.liver_fraction) == (direct.exam_id, direct.liver_fraction)
    assert len(list(cache.folder.rglob("*.safetensors"))) == 1


def test_problems_are_kept_and_bear_the_name_of_whoever_asks(tmp_path):
    affine = centred_affine((21, 17, 19), (9.0, 5.0, 5.0), np.eye(3))
    exam = make_exam("2020-01-01", (21, 17, 19), affine, DWI[:2])
    cache = PreparedCache(tmp_path, PREPARATION)
    (first,) = cache.get([exam])
    assert "coarse_spacing" in {p.code for p in first.problems}
    (again,) = cache.get([replace(exam, exam_id="2021")])
    assert again.exam_id == "2021"
    assert {p.exam_id for p in again.problems} == {"2021"}


def test_half_precision_errs_by_less_than_it_says(exam, tmp_path):
    exact = prepare_exam(exam, DWI[:2], SMALL).data
    half = PreparedCache(tmp_path, Preparation(DWI[:2], SMALL, half=True))
    half.get([exam])
    kept = half.get([exam])[0].data
    assert kept.dtype == np.float32
    within = np.abs(exact) <= 4
    error = np.abs(kept - exact)[within].max()
    assert 0 < error <= 0.002


def test_a_damaged_entry_is_made_again(exam, tmp_path):
    cache = PreparedCache(tmp_path, PREPARATION)
    wanted = cache.get([exam])[0].data
    (file,) = tmp_path.rglob("*.safetensors")
    for content in (b"", file.read_bytes()[:-7], b"\x08\0\0\0\0\0\0\0{}      "):
        file.write_bytes(content)
        assert list(cache.fill([[exam]])) == [file.stem]
        np.testing.assert_array_equal(cache.get([exam])[0].data, wanted)
        file.write_bytes(content)
        np.testing.assert_array_equal(cache.get([exam])[0].data, wanted)
    file.unlink()
    said = refusal(cache.data, file.stem)
    assert "is gone or damaged. Give the same command again." in said.message


def test_an_entry_that_is_there_is_not_prepared_again(exam, tmp_path, monkeypatch):
    cache = PreparedCache(tmp_path, PREPARATION)
    wanted = cache.get([exam])[0].data
    monkeypatch.setattr(Preparation, "prepare", lambda *_: pytest.fail("prepared again"))
    np.testing.assert_array_equal(cache.get([exam])[0].data, wanted)
    assert len(list(cache.fill([[exam], [exam]]))) == 2


def test_a_full_disk_or_a_folder_that_is_a_file_gives_a_sentence(exam, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    said = refusal(PreparedCache(tmp_path / "file", PREPARATION).get, [exam])
    assert "Prepared exams can't be kept in" in said.message
    assert "Make room or choose another place." in said.message

    def full(self, content):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    cache = PreparedCache(tmp_path / "cache", PREPARATION)
    monkeypatch.setattr(Path, "write_bytes", full)
    for work in (lambda: cache.get([exam]), lambda: list(cache.fill([[exam]]))):
        said = refusal(work)
        assert "No space left on device" in said.message
    assert not [p for p in cache.folder.rglob("*") if p.is_file()]


def test_the_cache_names_no_patient(tiny_phantom, tiny_cache):
    names = [p.patient_id.encode() for p in read_input(tiny_phantom).patients]
    files = [p for p in tiny_cache.rglob("*") if p.is_file()]
    assert len(files) > 20
    for file in files:
        content = file.read_bytes()
        assert not any(name in content or name.decode() in str(file.relative_to(tiny_cache)) for name in names)


def test_two_processes_fill_as_one_does_and_refusals_come_in_order(tmp_path):
    good = list(make_patient(("2020-01-05", "2021-03-14"), DWI[:2]).exams)
    flat = changed_image(good[0].images[DWI[0]], data=np.ones_like(good[0].images[DWI[0]].data), source="flat.nii")
    bad = replace(good[0], exam_id="bad", images={**good[0].images, DWI[0]: flat})
    short = replace(good[1], exam_id="short", images={DWI[0]: good[1].images[DWI[0]]})
    patients = [[good[0], bad], [good[1], short]]
    results = [
        list(PreparedCache(tmp_path / str(count), PREPARATION).fill(patients, processes=count)) for count in (1, 2)
    ]
    for found in results:
        assert [type(f) is str for f in found] == [True, False, True, False]
        assert found[1].code == "constant_image"
        assert "flat.nii" in found[1].message
        assert (found[3].code, found[3].exam_id) == ("missing_channel", "short")
    one, two = ([f if isinstance(f, str) else (f.code, f.message, f.exam_id) for f in found] for found in results)
    assert one == two
    entries = [
        {p.name: p.read_bytes() for p in (tmp_path / name).rglob("*.safetensors")} for name in ("1", "2")
    ]  # fmt: skip
    assert entries[0] == entries[1]


def test_a_refusal_survives_the_way_from_process_to_process():
    sent = pickle.loads(pickle.dumps(Refusal("code", "A sentence.", "2020")))  # noqa: S301 - our own
    assert (sent.code, sent.message, sent.exam_id, str(sent)) == ("code", "A sentence.", "2020", "A sentence.")


# ---------------------------------------------------------------- dropout by keys


def test_a_mask_follows_from_its_key_alone():
    keys = torch.tensor([5, -7, 2**62, 5])
    layer = Dropout(0.3).train()
    x = torch.ones(4, 6, 8)

    def masks(rows):
        give_keys(layer, keys[rows])
        return layer(x[: len(rows)])

    whole = masks([0, 1, 2, 3])
    assert torch.equal(whole[0], whole[3])
    assert not torch.equal(whole[0], whole[1])
    assert torch.equal(masks([2, 0]), whole[[2, 0]])
    give_keys(layer, keys)
    layer(x)
    assert not torch.equal(layer(x), whole)  # a second call of one pass has a mask of its own
    # Longer padding changes nothing of what stands before it.
    give_keys(layer, keys)
    assert torch.equal(layer(torch.ones(4, 9, 8))[:, :6], whole)


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.8])
def test_as_much_is_dropped_as_asked_for_and_the_mean_stays(rate):
    layer = Dropout(rate).train()
    give_keys(layer, torch.arange(50))
    y = layer(torch.ones(50, 4000))
    assert float((y == 0).float().mean()) == pytest.approx(rate, abs=0.005)
    assert float(y.mean()) == pytest.approx(1, abs=0.02)
    assert ((y == 0).float().mean(dim=1) - rate).abs().max() < 0.05
    path = DropPath(rate).train()
    give_keys(path, torch.arange(20000))
    kept = path(torch.ones(20000, 2, 3))
    assert torch.equal(kept[:, 0, 0] == 0, kept[:, 1, 2] == 0)
    assert float((kept[:, 0, 0] == 0).float().mean()) == pytest.approx(rate, abs=0.02)


def test_streams_and_neighbouring_keys_are_independent_and_uniform():
    drawn = torch.stack([keyed_uniform(torch.arange(4), stream, 20000) for stream in range(3)]).flatten(0, 1)
    correlation = torch.corrcoef(drawn)
    assert (correlation - torch.eye(12)).abs().max() < 0.04
    counts = torch.histc(drawn, 10, 0, 1) / drawn.numel()
    assert (counts - 0.1).abs().max() < 0.005
    assert drawn.min() >= 0
    assert drawn.max() < 1


def test_no_two_layers_of_a_network_share_a_mask_in_training(tiny_phantom, tiny_cache):
    config = tiny_config()
    examples = examples_of(tiny_phantom, tiny_cache, config)
    model = ensemble.first_model(config, 0).train()
    task = FinetuneTask(config, VisitPlan(config, 0, examples), (), open_cache(tiny_cache, config), model)
    (batch,) = task.load(0, Workers(0, 1, torch.device("cpu")))
    used, uniform = [], keyed.keyed_uniform

    def note(keys, stream, count):
        used.append((tuple(keys.tolist()), stream))
        return uniform(keys, stream, count)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keyed, "keyed_uniform", note)
        task.losses(batch, 0)
    assert len(used) > 10
    assert len(set(used)) == len(used)


def test_without_keys_torch_s_generator_decides_again():
    layer = Dropout(0.5).train()
    give_keys(layer, torch.arange(2))
    layer(torch.ones(2, 100))
    give_keys(layer, None)
    torch.manual_seed(3)
    one = layer(torch.ones(2, 100))
    torch.manual_seed(3)
    assert torch.equal(one, functional.dropout(torch.ones(2, 100), 0.5))
    assert torch.equal(layer.eval()(torch.ones(2, 100)), torch.ones(2, 100))


# ---------------------------------------------------------------- pooling


@pytest.mark.parametrize("kind", [kind for kind in POOLINGS if kind != "cells"])
def test_a_pooling_gives_one_vector_and_does_not_care_where_things_lie(kind):
    torch.manual_seed(0)
    pooling, x = make_pooling(kind, 8), torch.randn(3, 8, 2, 3, 4)
    y = pooling(x)
    assert y.shape == (3, 8)
    torch.testing.assert_close(pooling(x.flip(2, 4)), y)
    config = replace(ModelConfig.variant("mini", 2), pooling=kind)
    logit = HCCNet(config).eval()(torch.randn(1, 2, 2, 24, 24, 24), torch.tensor([[6.0, 0.0]]), torch.tensor([2]))
    assert logit.shape == (1, 1)
    logit.sum().backward()


def test_the_generalised_mean_lies_between_mean_and_largest():
    torch.manual_seed(0)
    x, pooling = torch.randn(2, 8, 3, 3, 3) * 3, GeneralisedMeanPooling(8)
    positive = functional.softplus(x).flatten(2)
    for exponent in (1.0, 3.0, 30.0):
        pooling.exponent.data.fill_(exponent)
        y = pooling(x)
        assert (y >= positive.mean(-1) - 1e-4).all()
        assert (y <= positive.amax(-1) + 1e-4).all()
        if exponent == 1:
            torch.testing.assert_close(y, positive.mean(-1), atol=1e-4, rtol=1e-4)
        if exponent == 30:
            assert ((positive.amax(-1) - y) / positive.amax(-1)).max() < 0.15


def test_bundles_from_before_pooling_and_history_open_as_they_were(demonstration):
    content = demonstration.description.to_dict()
    assert content["model"]["pooling"] == "mean"
    assert content["history"] == "all"
    del content["model"]["pooling"], content["history"]
    assert BundleDescription.from_dict(content) == demonstration.description
    assert isinstance(HCCNet(demonstration.description.model).backbone.pooling, MeanPooling)
    for part, name in (("model", "pooling"), (None, "history")):
        wrong = json.loads(json.dumps(content))
        (wrong[part] if part else wrong)[name] = "median"
        assert "median" in refusal(BundleDescription.from_dict, wrong).message


# ---------------------------------------------------------------- splits

LABELS = {f"P{i:03d}": i % 3 == 0 for i in range(67)}


@pytest.mark.parametrize("folds", [2, 5])
def test_a_split_is_complete_disjoint_and_has_like_shares_of_events(folds):
    splits = draw_splits(LABELS, folds, 0.2, seed=1)
    parts = [*splits.folds, splits.test]
    assert sorted(name for part in parts for name in part) == sorted(LABELS)
    for label in (True, False):
        counts = [sum(LABELS[n] == label for n in fold) for fold in splits.folds]
        assert max(counts) - min(counts) <= 1
        total = sum(v == label for v in LABELS.values())
        assert abs(sum(LABELS[n] == label for n in splits.test) - 0.2 * total) <= 0.5
    sizes = [len(fold) for fold in splits.folds]
    assert max(sizes) - min(sizes) <= 1
    for fold in range(folds):
        assert not set(splits.training(fold)) & (set(splits.folds[fold]) | set(splits.test))
    assert draw_splits(dict(reversed(LABELS.items())), folds, 0.2, seed=1) == splits
    assert draw_splits(LABELS, folds, 0.2, seed=2) != splits


def test_a_split_on_file_is_taken_as_it_is(tmp_path):
    drawn = find_splits(tmp_path, LABELS, (5, 0.2), seed=1)
    assert Splits.read(tmp_path / "splits.json") == drawn
    assert find_splits(tmp_path, LABELS, (5, 0.2), seed=9) == drawn


def test_splits_that_do_not_fit_are_refused(tmp_path):
    drawn = find_splits(tmp_path, LABELS, (5, 0.0), seed=1)
    assert "has 5 folds, not 3. Say --folds 5" in refusal(find_splits, tmp_path, LABELS, (3, 0.0), 1).message
    fewer = {k: v for k, v in LABELS.items() if k != "P001"}
    said = refusal(find_splits, tmp_path, {**fewer, "New1": True, "New2": False}, (5, 0.0), 1).message
    assert "1 of its patients can't be used, 2 patients are in no part" in said
    assert "P001" not in said
    file = tmp_path / "splits.json"
    content = drawn.to_dict()
    content["parts"]["test"] = content["parts"]["fold 0"][:2]
    file.write_text(json.dumps(content))
    assert "names 2 patient(s) more than once" in refusal(find_splits, tmp_path, LABELS, (5, 0.0), 1).message
    file.write_text(json.dumps({"parts": {"train": ["P001"], "test": ["P002"]}}))
    assert "must have the parts fold 0, fold 1" in refusal(find_splits, tmp_path, LABELS, (5, 0.0), 1).message
    file.write_text("{")
    assert "is not JSON" in refusal(find_splits, tmp_path, LABELS, (5, 0.0), 1).message


def test_cohorts_too_small_to_be_split_are_refused():
    few = {f"P{i}": i < 7 for i in range(40)}
    said = refusal(draw_splits, few, 4, 0.0, 0).message
    assert "has 1 positive patient(s); it needs 2. Take fewer folds" in said
    assert (
        "All patients that can be used are positive"
        in refusal(draw_splits, dict.fromkeys("abc", True), 2, 0, 0).message
    )


# ---------------------------------------------------------------- configuration


def config_of(tmp_path, text, **overrides):
    (tmp_path / "c.yaml").write_text(text)
    return read_config(FinetuneConfig, tmp_path / "c.yaml", overrides)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("steps: 10\n  batch: [", "c.yaml, line 2: this is not YAML."),
        ("- 1\n- 2\n", "is no list of settings (name: value)."),
        ("", "is no list of settings (name: value)."),
        ("stepz: 10", "unknown settings: stepz."),
        ("steps: many", "steps must be a whole number; it is 'many'."),
        ("steps: 10.5", "steps must be a whole number; it is 10.5."),
        ("steps: true", "steps must be a whole number; it is True."),
        ("demonstration: 1", "demonstration must be true or false; it is 1."),
        ("learning_rate: fast", "learning_rate must be a number; it is 'fast'."),
        ("weight_decay: .nan", "weight_decay must be a finite number; it is nan."),
        ("learning_rate: .inf", "learning_rate must be a finite number; it is inf."),
        ("loss: hinge", "loss must be one of balanced, focal, plain; it is 'hinge'."),
        ("channels: DWI_b0", "channels must be a list."),
        ("channels: [DWI_b0, DWI_b0]", "channels names one twice."),
        ("preprocessing: 3", "preprocessing must be a mapping."),
        ("preprocessing: {crop: 3}", "unknown preprocessing settings: crop."),
        ("preprocessing: {channel_mean: [1.0], channel_sd: [1.0]}", "channel_mean has 1 values for 4 channels."),
        ("variant: huge", "unknown variant 'huge': choose one of"),
        ("folds: 1", "folds must be at least 2; it is 1."),
        ("dropout: 1.0", "dropout must be at least 0 and below 1; it is 1."),
        ("horizons_months: [0, 12]", "horizons must be above 0 months, ascending, each once."),
        ("horizons_months: [12, 6]", "horizons must be above 0 months, ascending, each once."),
        ("horizons_months: [6, 6, 12]", "horizons must be above 0 months, ascending, each once."),
        ("horizons_months: []", "horizons must be above 0 months, ascending, each once."),
        ("horizons_months: [12, .inf]", "must be a finite number"),
        ("horizon_months: 0", "the main horizon (0 months) must be one of 6, 12, 18, 24, 36."),
        ("horizon_months: 9", "the main horizon (9 months) must be one of 6, 12, 18, 24, 36."),
        ("loss: balanced", "loss balanced is for one horizon: give horizons_months [12], or loss plain."),
        ("loss: focal", "loss focal is for one horizon: give horizons_months [12], or loss plain."),
        ("landmark_weight: patient", "landmark_weight must be one of number, equal; it is 'patient'."),
        ("channel_dropout: 1.0", "channel_dropout must be at least 0 and below 1; it is 1."),
        ("channel_dropout: 0.75", "channel_dropout must be below 0.75: one of the 4 channels always stays."),
        ("change: true\ntime: exams", "change needs time in months: it divides by the time between exams."),
        (
            "channels: [DWI_b0]\nchannel_dropout: 0.1",
            "channel_dropout is above 0, but there is one channel: none can be left out.",
        ),
        ("device: tpu", "device must be auto, cpu or cuda; it is 'tpu'."),
        ("steps: 10", "warmup (40) must be shorter than the run (10 steps)."),
        ("target_weight: 1", "target_weight is above 0: give target_masks, or target_file and target_column."),
        ("exam_steps: 5", "exam_steps is above 0, but there is no exam-level target"),
    ],
)
def test_a_configuration_that_no_run_can_be_made_with_is_refused_in_words(tmp_path, text, sentence):
    said = refusal(config_of, tmp_path, text).message
    assert "c.yaml" in said
    assert sentence in said


def test_numbers_as_people_write_them_are_read_and_the_command_line_wins(tmp_path):
    config = config_of(
        tmp_path, "learning_rate: 4e-4\nsteps: 100\nname: a\n", steps="200", dropout="0", name="2021", out="no"
    )
    assert config.learning_rate == 4e-4
    assert config.steps == 200
    assert config.dropout == 0.0
    assert (config.name, config.out) == ("2021", "no")  # text stays text
    assert config_of(tmp_path, "{}", channels="[T1_native, T1_venous]").channels == ("T1_native", "T1_venous")
    assert "--steps" in refusal(config_of, tmp_path, "{}", steps="[1").message


def test_a_saved_configuration_is_read_as_it_was(tmp_path):
    config = tiny_config(learning_rate=1.5e-5, pooling="attention", target_stages="all")
    (tmp_path / "saved.yaml").write_text(config_text(config), encoding="utf-8")
    assert read_config(FinetuneConfig, tmp_path / "saved.yaml", {}) == config
    default = FinetuneConfig()
    (tmp_path / "saved.yaml").write_text(config_text(default), encoding="utf-8")
    assert read_config(FinetuneConfig, tmp_path / "saved.yaml", {}) == default


def test_every_recipe_that_is_shipped_can_be_read():
    files = sorted((Path(__file__).resolve().parents[2] / "Training").glob("*.yaml"))
    assert files
    for file in files:
        content = file.read_text()
        if "\nfinetune:" in content:
            assert read_recipe(file, {}).finetune.members > 0
        else:
            assert read_config(FinetuneConfig, file, {}).members > 0


# ---------------------------------------------------------------- recipes


def recipe_of(tmp_path, overrides=None, **sections):
    return read_recipe(write_yaml(tmp_path / "r.yaml", sections), overrides or {})


def test_an_arm_differs_in_what_it_says_and_shares_the_prepared_exams(tmp_path):
    finetune = {**SETTINGS, "out": "runs/x", "cohort": "data"}
    overrides, arms = {"finetune.steps": "9", "test.cohort": "judge"}, {"b": {"time": "exams"}}
    recipe = recipe_of(tmp_path, overrides, finetune=finetune, arms=arms, test=None)
    arm = recipe.arms["b"]
    assert (arm.out, arm.name, arm.time, arm.steps) == ("runs/x-b", "tiny-b", "exams", 9)
    assert arm.cache_folder == recipe.finetune.cache_folder
    differing = {k for k, v in asdict(arm).items() if v != asdict(recipe.finetune)[k]}
    assert differing == {"out", "name", "time", "cache"}
    assert recipe.test is not None
    assert recipe.test.cohort == "judge"


def test_recipes_that_make_no_sense_are_refused(tmp_path):
    good = {**SETTINGS, "cohort": "data"}
    phantom = {**good, "phantom_patients": 10, "phantom_seed": 4}
    cases = [
        ({"finetune": good, "tests": {}}, "unknown section(s) tests"),
        ({"test": {"cohort": "x"}}, "the section finetune is missing"),
        ({"finetune": {**good, "stepz": 1}}, "finetune: unknown settings: stepz."),
        ({"finetune": [1]}, "finetune is no list of settings"),
        ({"finetune": good, "arms": {"b": {"history": "none"}}}, "arms.b: history must be one of all, latest"),
        ({"finetune": good, "arms": {"b": 3}}, "arms.b is no list of settings"),
        ({"finetune": good, "test": {"phantom_seed": 3}}, "test: missing settings: cohort."),
        ({"finetune": good, "test": {"cohort": "./data"}}, "the test cohort is the cohort that is trained on"),
        (
            {"finetune": good, "arms": {"b": {"cohort": "t"}}, "test": {"cohort": "t"}},
            "the test cohort is the cohort that is trained on",
        ),
        (
            {"finetune": phantom, "test": {"cohort": "t", "phantom_patients": 5, "phantom_seed": 4}},
            "they would be the same patients",
        ),
    ]
    for sections, sentence in cases:
        assert sentence in refusal(recipe_of, tmp_path, **sections).message
    assert (
        "write SECTION.NAME=VALUE, SECTION one of shared"
        in refusal(recipe_of, tmp_path, {"steps": "1"}, finetune=good).message
    )
    assert "is no list of settings" in refusal(recipe_of, tmp_path, {"finetune.steps": "1"}, finetune="x").message


# ---------------------------------------------------------------- cohort and targets


def test_exam_level_targets_are_read_and_what_is_wrong_names_the_row(tmp_path):
    table = tmp_path / "t.csv"

    def targets(text):
        table.write_text("patient_id,exam_id,size\n" + text)
        return read_targets(table, "size")

    assert targets("A,1,2.5\nA,2,\nB,1,-3\n") == {("A", "1"): 2.5, ("B", "1"): -3.0}
    assert "t.csv, row 3: size must be a finite number" in refusal(targets, "A,1,2\nA,2,big\n").message
    assert "t.csv, row 2: size must be a finite number" in refusal(targets, "A,1,nan\n").message
    assert "t.csv, row 3: this exam stands there already" in refusal(targets, "Anna,1,2\nAnna,1,3\n").message
    assert "lacks the column(s) volume" in refusal(read_targets, table, "volume").message
    assert "does not exist. Check target_file." in refusal(read_targets, tmp_path / "none.csv", "size").message


def test_every_patient_is_used_or_counted_with_the_reason(tiny_phantom, tiny_cache):
    cohort, config = read_input(tiny_phantom), tiny_config()
    patients = {p.patient_id: p for p in cohort.patients}
    names, outcomes = sorted(patients), dict(cohort.outcomes)
    first, second, third, fourth = names[:4]
    days = {n: [e.date for e in patients[n].exams] for n in names}
    del outcomes[first]
    outcomes[second] = Outcome(second, days[second][0], days[second][-1])  # diagnosed at the first exam
    outcomes[third] = Outcome(third, None, days[third][-1].replace(year=1999))  # seen before the exams
    outcomes[fourth] = Outcome(fourth, days[fourth][-1], days[fourth][-1])  # at the last one
    cache = open_cache(tiny_cache, config)
    cohort = replace(cohort, outcomes=outcomes, refused={"X": Refusal("no_exams", "There is none.")})
    examples = gather_examples(
        cohort, config, cache, {(names[-1], days[names[-1]][0].isoformat()): 2.5}, lambda *_: None
    )
    left_out = examples.left_out
    assert left_out[first] == "no outcome"
    assert left_out[second] == "no exam before the diagnosis"
    assert left_out[third].startswith("can't be used: The outcomes say that the patient was last seen on 1999-")
    assert left_out["X"] == "can't be read: There is none."
    assert examples.reasons()["can't be used"] == 1
    assert len(examples.all) + len(left_out) == len(names) + 1
    assert examples.counts["exams on or after the diagnosis"] == len(days[second]) + 1
    assert count_examples(examples.all)["exams"] == sum(len(e.exams) for e in examples.all)
    assert examples.phantom
    (cut,) = (e for e in examples.all if e.patient_id == fourth)
    assert len(cut.exams) == len(days[fourth]) - 1
    assert cut.months[-1] == 0
    assert cut.months == tuple(sorted(cut.months, reverse=True))
    # Exams whose outcome at the main horizon is not known are kept: they say what happened until then.
    for found in examples.all:
        outcome, dates = outcomes[found.patient_id], days[found.patient_id][: len(found.exams)]
        end = outcome.diagnosis_date or outcome.competing_date or outcome.last_seen_date
        without_diagnosis = COMPETING if outcome.competing_date else CENSORED
        assert found.status == (DIAGNOSED if outcome.diagnosis_date else without_diagnosis)
        assert found.followed == pytest.approx((end - dates[-1]).days / 30.4375)
        follow_up = found.follow_up()
        assert follow_up.months == pytest.approx([(end - date).days / 30.4375 for date in dates])
        assert follow_up.numbers.tolist() == list(range(1, len(dates) + 1))
        assert list(found.labels) == labels_at(12, follow_up.months, found.status)
    not_known = [e for e in examples.all if e.labels[-1] is None]
    assert not_known
    assert {e.label for e in examples.all if not e.labelled} == {False}
    short = sum(int((e.follow_up().months < 6).sum()) for e in examples.all if e.status == CENSORED)
    assert examples.counts["exams censored before the first horizon"] == short > 0
    counted = count_examples(examples.all)
    assert {e.status for e in examples.all} == {CENSORED, DIAGNOSED, COMPETING}
    assert counted["patients with a competing event"] == 1
    assert counted["diagnosed patients"] == sum(e.status == DIAGNOSED for e in examples.all)
    assert counted["positive landmarks"] == sum(e.labels.count(True) for e in examples.all) > 0
    latest = gather_examples(cohort, tiny_config(landmarks="latest"), cache, {}, lambda *_: None)
    without = {e.patient_id for e in examples.all if not e.labelled}
    assert (
        without
        == {n for n, reason in latest.left_out.items() if reason == "not followed for the main horizon"}
        != set()
    )
    assert examples.all[-1].targets[0] == 2.5
    assert examples.all[-1].targets[1:] == (None,) * (len(examples.all[-1].exams) - 1)
    nobody = replace(cohort, outcomes={second: outcomes[second]})
    said = refusal(gather_examples, nobody, config, cache, {}, lambda *_: None).message
    assert "No patient of the cohort can be used: can't be read (1); no outcome (9);" in said
    assert said.endswith("The first because: There is none.")


# ---------------------------------------------------------------- visits


def plan_of(member=0, patients=7, exams=9, **changes):
    examples = [example([False] * (exams - 1) + [i % 2 == 0], f"P{i}", i) for i in range(patients)]
    assert all(len(trained_landmarks(e, tiny_config())) == exams for e in examples)
    return VisitPlan(tiny_config(**changes), member, examples)


def same(one, two):
    values = []
    for v in (one, two):
        keys, changes = (
            [v.exam_keys.tolist(), v.sequence_keys.tolist()],
            [(c.start, c.scale.tolist(), c.dropped) for c in v.changes],
        )
        values.append([v.exams, v.sequences, v.weights, v.turn, keys, changes])
    return values[0] == values[1]


def test_a_draw_depends_on_seed_member_epoch_and_patient_only():
    plan = plan_of()
    wanted = plan.draw(plan.examples[3], 2)
    other = plan_of(patients=4, batch=2)  # other company, other batches
    other.batch(5)
    assert same(other.draw(other.examples[3], 2), wanted)
    assert not same(plan.draw(plan.examples[3], 3), wanted)
    assert not same(plan.draw(plan.examples[2], 2), wanted)
    for different in (plan_of(member=1), plan_of(seed=1)):
        assert not same(different.draw(different.examples[3], 2), wanted)


def test_each_epoch_has_every_patient_once():
    for batch in (3, 4, 20):
        plan = plan_of(batch=batch)
        drawn = [v.example.patient_id for step in range(21) for v in plan.batch(step)]
        epochs = [drawn[i : i + 7] for i in range(0, len(drawn) - 6, 7)]
        assert all(len(set(epoch)) == 7 for epoch in epochs)
        assert len({tuple(epoch) for epoch in epochs}) > 1


@pytest.mark.parametrize(
    ("landmarks", "landmark_weight"), [("all", "number"), ("all", "equal"), ("latest", "number"), ("latest", "equal")]
)
def test_neither_the_limit_of_exams_nor_exam_dropout_takes_the_landmark(landmarks, landmark_weight):
    lengths = set()
    limits = {"max_exams": 4, "exam_dropout": 0.6, "subsequences": 3}
    plan = plan_of(**limits, landmarks=landmarks, landmark_weight=landmark_weight)
    for epoch in range(40):
        visit = plan.draw(plan.examples[0], epoch)
        assert len(visit.exams) <= 4
        assert visit.exams == tuple(sorted(set(visit.exams)))
        for sequence in visit.sequences:
            assert sequence == tuple(sorted(set(sequence)))
            assert set(sequence) <= set(visit.exams)
            lengths.add(len(sequence))
        ends = Counter(s[-1] for s in visit.sequences)
        assert set(ends.values()) == {3}
        by_number = (landmarks, landmark_weight) == ("all", "number")
        for end in ends:
            # One of nine landmarks is drawn and three of the exams before it.
            chance = (1 + sum(min(3 / later, 1) for later in range(end + 1, 9))) / 9
            wanted = 1 / (end + 1) / chance if by_number else 1.0
            given = [w for s, w in zip(visit.sequences, visit.weights, strict=True) if s[-1] == end]
            assert given == pytest.approx([wanted / 3] * 3)
        if landmarks == "latest":
            assert set(ends) == {8}
            assert len(visit.exams) == 4
    assert lengths == {1, 2, 3, 4}


def test_a_landmark_s_mean_weight_is_1_by_its_number_however_long_the_series():
    """Of a long series some landmarks are drawn at a time: those that are must stand for the others."""
    epochs = 3000
    for exams in (7, 14, 20):
        patient = example([False] * exams)
        plan = VisitPlan(tiny_config(max_exams=7, exam_dropout=0.0), 0, [patient])
        drawn = np.zeros((epochs, exams))
        for epoch in range(epochs):
            visit = plan.draw(patient, epoch)
            drawn[epoch, [s[-1] for s in visit.sequences]] = visit.weights
        error = drawn.std(axis=0) / epochs**0.5
        assert (np.abs(drawn.mean(axis=0) - 1 / np.arange(1, exams + 1)) <= 4 * error + 1e-12).all()
        assert (error < 0.09 / np.arange(1, exams + 1)).all()


def cut_to(patient, count):
    """The patient as if the exams after the first ``count`` had not been made; the outcome stays."""
    gap = patient.months[count - 1]
    return replace(
        patient,
        exams=patient.exams[:count],
        exam_ids=patient.exam_ids[:count],
        months=tuple(m - gap for m in patient.months[:count]),
        labels=patient.labels[:count],
        targets=patient.targets[:count],
        followed=patient.followed + gap,
    )


@pytest.mark.parametrize("landmark_weight", ["number", "equal"])
def test_a_landmark_s_weight_depends_on_no_later_exam(landmark_weight):
    plan = plan_of(exams=6, max_exams=7, exam_dropout=0.0, landmark_weight=landmark_weight)
    patient = plan.examples[0]
    whole = plan.draw(patient, 0)
    weights = dict(zip([s[-1] for s in whole.sequences], whole.weights, strict=True))
    if landmark_weight == "number":
        assert weights == {n: 1 / (n + 1) for n in range(6)}
    else:
        assert weights == dict.fromkeys(range(6), 1.0)
    for count in range(1, 6):
        visit = plan.draw(cut_to(patient, count), 0)
        assert visit.sequences == whole.sequences[:count]
        assert visit.weights == whole.weights[:count]
        # What happened afterwards is read from the outcome, not from the exams.
        for config in (tiny_config(), tiny_config(horizons_months=[12], loss="balanced")):
            one, other = patient.intervals(config), cut_to(patient, count).intervals(config)
            np.testing.assert_array_equal(one.at_risk[:count], other.at_risk)
            np.testing.assert_array_equal(one.diagnosed[:count], other.diagnosed)


def test_no_sequence_reads_an_exam_after_its_landmark_or_ends_at_one_that_says_nothing():
    censored = example([False, False, None, None])  # followed for 21, 15, 9 and 3 months
    config = tiny_config(exam_dropout=0.0)
    visit = VisitPlan(config, 0, [censored]).draw(censored, 0)
    assert visit.exams == (0, 1, 2, 3)
    assert visit.sequences == ((0,), (0, 1), (0, 1, 2), (0, 1, 2, 3))
    same_day = replace(censored, followed=0.0)  # nothing is known of the time after the latest exam
    assert VisitPlan(config, 0, [same_day]).draw(same_day, 0).sequences == ((0,), (0, 1), (0, 1, 2))
    published = tiny_config(exam_dropout=0.0, horizons_months=[12], loss="balanced")
    assert VisitPlan(published, 0, [censored]).draw(censored, 0).sequences == ((0,), (0, 1))
    latest = tiny_config(exam_dropout=0.0, landmarks="latest")
    assert VisitPlan(latest, 0, [censored]).draw(censored, 0).sequences == ((0, 1),)
    diagnosed = example([False, False, True, True])  # after 21, 15, 9 and 3 months
    assert VisitPlan(config, 0, [diagnosed]).draw(diagnosed, 0).sequences == ((0,), (0, 1), (0, 1, 2), (0, 1, 2, 3))
    assert VisitPlan(latest, 0, [diagnosed]).draw(diagnosed, 0).sequences == ((0, 1, 2, 3),)


def test_exams_of_a_patient_are_turned_alike_and_cropped_each_for_itself():
    plan = plan_of()
    visits = [plan.draw(e, epoch) for e in plan.examples for epoch in range(5)]
    assert len({(v.turn.flips, v.turn.plane, v.turn.quarters) for v in visits}) > 10
    assert all(isinstance(v.turn, Turn) and len(v.changes) == len(v.exams) for v in visits)
    assert all(len({c.start for c in v.changes}) > 1 for v in visits if len(v.exams) > 3)
    assert all(
        len(set(v.exam_keys.tolist() + v.sequence_keys.tolist())) == len(v.exams) + len(v.sequences) for v in visits
    )


def test_prediction_s_reading_has_all_exams_up_to_each_landmark_and_nothing_drawn():
    patient = example([False] * 8 + [None])
    visit = plain_visit(patient, tiny_config(max_exams=3, exam_dropout=0.5, channel_dropout=0.4))
    assert visit.exams == tuple(range(9))
    assert visit.sequences == tuple(
        tuple(range(n)) for n in range(1, 10)
    )  # the last one too: it is judged as any other
    assert visit.turn == Turn()
    assert {(c.start, c.dropped) for c in visit.changes} == {((2, 2, 2), ())}
    assert plain_visit(patient, tiny_config(history="latest")).sequences == tuple((n,) for n in range(9))
    latest = plain_visit(patient, tiny_config(landmarks="latest"))
    assert (latest.exams, latest.sequences) == (tuple(range(8)), (tuple(range(8)),))
    alone = plain_visit(patient, tiny_config(landmarks="latest", history="latest"))
    assert (alone.exams, alone.sequences) == ((7,), ((7,),))


def test_times_count_back_from_the_landmark_of_each_sequence():
    patient = example([False] * 4)  # 18, 12, 6 and 0 months before the latest
    assert sequence_times(patient, (0, 2), tiny_config()) == [12.0, 0.0]
    assert sequence_times(patient, (0, 2, 3), tiny_config()) == [18.0, 6.0, 0.0]
    assert sequence_times(patient, (0, 2, 3), tiny_config(time="exams")) == [2.0, 1.0, 0.0]
    latest = plan_of(history="latest")
    visit = latest.draw(latest.examples[0], 0)
    assert all(len(s) == 1 and sequence_times(visit.example, s, latest.config) == [0.0] for s in visit.sequences)


# ---------------------------------------------------------------- calibration of more members than have not seen a patient


def test_the_calibration_is_carried_over_to_the_mean_of_all_members():
    """Members are a common logit and errors of their own; the truth follows the common one."""
    rng = np.random.default_rng(0)
    common = rng.normal(0, 2.0, 40000)
    labels = rng.random(len(common)) < 1 / (1 + np.exp(-common))
    weights = np.ones(len(common))

    def mean_of(members):
        return (1 / (1 + np.exp(-members))).mean(axis=1)

    logits = common[:, None] + rng.normal(0, 1.0, (len(common), 10))
    two = 1 / (1 + np.exp(-logits[:, :2]))
    of_two = Calibration(*fit_recalibration(two.mean(axis=1), labels))
    wanted, _ = fit_recalibration(mean_of(logits), labels)
    found = ensemble.carry_over(of_two, two, labels, weights, 10)
    assert abs(found.slope - wanted) < abs(of_two.slope - wanted) / 2
    assert found.slope == pytest.approx(wanted, rel=0.06)
    assert ensemble.carry_over(of_two, two, labels, weights, 2) == of_two
    assert ensemble.carry_over(of_two, two[:, :1], labels, weights, 10) == of_two
    # Landmarks whose outcome is not known play no part, whatever stands in their place.
    hidden = np.arange(len(common)) % 4 == 0
    known_alone = ensemble.carry_over(of_two, two[~hidden], labels[~hidden], weights[~hidden], 10)
    spoilt = np.where(hidden, ~labels, labels)
    assert ensemble.carry_over(of_two, two, spoilt, np.where(hidden, 0.0, 1.0), 10) == known_alone
    # Two of a landmark weigh as much as one that counts twice.
    twice = np.where(labels, 2.0, 1.0)
    rows = np.repeat(np.arange(len(common)), twice.astype(int))
    once = ensemble.carry_over(of_two, two, labels, twice, 10)
    written_out = ensemble.carry_over(of_two, two[rows], labels[rows], np.ones(len(rows)), 10)
    assert (once.slope, once.intercept) == pytest.approx((written_out.slope, written_out.intercept), abs=1e-6)
    assert once.slope != pytest.approx(found.slope, abs=1e-3)


def test_a_calibration_that_is_carried_over_keeps_the_mean_of_small_risks():
    rng, count = np.random.default_rng(1), 20_000
    true = rng.normal(-3.5, 1.0, count)
    labels = rng.random(count) < expit(true)
    members = expit(true[:, None] + rng.normal(0, 1.0, (count, 10)))
    two, ten = members[:, :2], members.mean(axis=1)
    of_two = Calibration(*fit_recalibration(two.mean(axis=1), labels))
    found = ensemble.carry_over(of_two, two, labels, np.ones(count), 10)
    risks = calibrate(ten[:, None], (found,))[:, 0]
    observed = labels.mean()
    assert abs(risks.mean() - observed) < 3 * np.sqrt(observed * (1 - observed) / count)
    assert fit_recalibration(risks, labels)[0] == pytest.approx(1, abs=0.1)
    assert found.slope > 1.2 * of_two.slope
    # A line turned about a risk of one half, where none of them lies, would miss.
    turned = Calibration(found.slope, of_two.intercept * found.slope / of_two.slope)
    assert calibrate(ten[:, None], (turned,)).mean() < 2 / 3 * observed


def test_a_stage_reads_its_cohort_with_the_table_of_channels(tmp_path: Path) -> None:
    write_patient(tmp_path / "cohort" / "P1", channels=("DWI_b0", "odd_name"))
    (tmp_path / "channels.csv").write_text("image,channel\nodd_name,DWI_b150\n")
    config = FinetuneConfig(cohort=str(tmp_path / "cohort"), channel_table=str(tmp_path / "channels.csv"))
    assert list(read_cohort(config).patients[0].exams[0].images) == ["DWI_b0", "DWI_b150"]
    assert list(read_cohort(replace(config, channel_table="")).patients[0].exams[0].images) == ["DWI_b0"]
