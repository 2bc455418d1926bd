"""Channels left out in training: what is dropped, how often, and that it looks as a missing channel does in prediction."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import DWI, make_exam
from test_preprocessing import grid_of
from training_helpers import example, tiny_config

from HCCNetLib.inference.cache import PreparedCache
from HCCNetLib.preprocessing import prepare_exam
from HCCNetLib.preprocessing.augmentation import ExamChange, Turn, draw_change, drop_channels, unchanged
from HCCNetLib.training.ensemble import first_model
from HCCNetLib.training.examples import training_cache
from HCCNetLib.training.finetune import FinetuneTask
from HCCNetLib.training.images import read_images
from HCCNetLib.training.visits import Visit, VisitPlan

THREE = {
    "channels": list(DWI[:3]),
    "preprocessing": {
        "spacing_mm": 4.5,
        "crop_voxels": 24,
        "liver_min_voxels": 27,
        "channel_mean": [0.4, 0.6, -0.3],
        "channel_sd": [0.5, 0.7, 1.3],
    },
}


def drawn(channels: int, chance: float, count: int = 20000) -> list[ExamChange]:
    rng = np.random.default_rng(0)
    change = ExamChange((0, 0, 0), np.full(channels, 1.1, np.float32), np.full(channels, 0.2, np.float32))
    return [drop_channels(rng, change, chance) for _ in range(count)]


@pytest.mark.parametrize(("channels", "chance"), [(2, 0.2), (4, 0.1), (4, 0.5), (3, 0.6)])
def test_each_channel_is_left_out_as_often_as_asked_for_and_one_always_stays(channels: int, chance: float) -> None:
    changes = drawn(channels, chance)
    dropped = [change.dropped for change in changes]
    counts = Counter(channel for one in dropped for channel in one)
    for channel in range(channels):  # of 20000 draws a share has an SD of at most 0.0036
        assert counts[channel] / len(dropped) == pytest.approx(chance, abs=0.015)
    assert max(map(len, dropped)) == channels - 1
    assert all(one == tuple(sorted(set(one))) for one in dropped)
    for change in changes[:200]:  # nothing else is changed: what is absent is left alone when the image is read
        assert change.scale.tolist() == [np.float32(1.1)] * channels
        assert change.shift.tolist() == [np.float32(0.2)] * channels


def test_a_single_channel_is_never_left_out() -> None:
    assert {change.dropped for change in drawn(1, 0.9, 200)} == {()}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> PreparedCache:
    return training_cache(tiny_config(**THREE, channel_dropout=0.3, cache=str(tmp_path_factory.mktemp("cache"))))


@pytest.mark.parametrize("lost", [(1,), (2,), (1, 2)])
def test_a_channel_left_out_in_training_is_what_prediction_reads_where_it_is_missing(
    cache: PreparedCache, lost: tuple[int, ...]
) -> None:
    shape, affine = grid_of("oblique")
    exam = make_exam("2020-01-01", shape, affine, DWI[:3])
    lacking = replace(exam, images={c: i for n, (c, i) in enumerate(exam.images.items()) if n not in lost})
    config = tiny_config(**THREE).preparation
    predicted = prepare_exam(lacking, DWI[:3], config, allow_missing=True).data
    (key,) = cache.fill([[exam]])
    assert isinstance(key, str)
    as_it_is = unchanged(3, 2)

    def trained(change: ExamChange, turn: Turn | None = None) -> np.ndarray:
        return next(iter(read_images(cache, [key], turn or Turn(), [change])))

    without = trained(replace(as_it_is, dropped=lost))
    np.testing.assert_array_equal(without[list(lost)], predicted[list(lost)])
    assert len({float(without[channel].min()) for channel in lost}) == len(lost)  # each channel's own mean
    # The other channels stay as they are, and are what prediction reads but for half precision.
    kept = [channel for channel in range(3) if channel not in lost]
    np.testing.assert_array_equal(without[kept], trained(as_it_is)[kept])
    small = np.abs(predicted[kept]) <= 4
    assert np.abs(without[kept] - predicted[kept])[small].max() <= 0.005
    # So it is wherever the crop lies, whatever is drawn beside and however the exam is turned.
    rng = np.random.default_rng(1)
    turn = Turn((True, False, True), (0, 2), 3)
    for _ in range(5):
        change = draw_change(rng, 3, 2, 0.3, 0.3)
        while not set(lost) <= set((other := drop_channels(rng, change, 0.5)).dropped):
            pass
        np.testing.assert_array_equal(trained(other, turn)[list(lost)], predicted[list(lost)])


def test_an_exam_that_lacks_channels_reads_in_training_what_prediction_reads_there(cache: PreparedCache) -> None:
    shape, affine = grid_of("oblique")
    exam = make_exam("2020-01-01", shape, affine, DWI[:3])
    lacking = replace(exam, images={DWI[0]: exam.images[DWI[0]]})
    predicted = prepare_exam(lacking, DWI[:3], tiny_config(**THREE).preparation, allow_missing=True).data
    (key,) = cache.fill([[lacking]])
    assert isinstance(key, str)

    def read(change: ExamChange) -> np.ndarray:
        return next(iter(read_images(cache, [key], Turn(), [change])))

    assert len({float(grey) for grey in predicted[1:].reshape(2, -1).min(axis=1)}) == 2  # each channel's own mean
    assert predicted[1:].max(axis=(1, 2, 3)).tolist() == predicted[1:].min(axis=(1, 2, 3)).tolist()
    rng = np.random.default_rng(2)
    for dropped in ((), (0,), (1,), (0, 2)):
        change = draw_change(rng, 3, 2, 0.3, 0.3)
        plain = read(ExamChange(change.start, np.ones(3, np.float32), np.zeros(3, np.float32)))
        image = read(replace(change, dropped=dropped))
        np.testing.assert_array_equal(image[1:], predicted[1:])
        # The last channel that there is stays, and is changed as if nothing had been dropped.
        assert abs(change.shift[0]) > 0.01
        np.testing.assert_allclose(image[0], plain[0] * change.scale[0] + change.shift[0], rtol=0, atol=1e-6)


def test_the_last_channel_that_there_is_stays_and_keeps_its_change() -> None:
    volume = np.zeros((3, 4, 4, 4), np.float32)
    volume[1:] = 0.5
    change = ExamChange((0, 0, 0), np.full(3, 1.5, np.float32), np.full(3, 0.25, np.float32))
    for dropped, kept in (((0, 1), [2]), ((1,), [2]), ((2,), [1]), ((1, 2), [1, 2])):
        crop = replace(change, dropped=dropped).crop(volume, 4)
        present = crop.any(axis=(1, 2, 3))
        assert np.flatnonzero(present).tolist() == kept
        recoloured = change.recolour(crop, present)
        assert [float(grey) for grey in recoloured[:, 0, 0, 0]] == [1.0 if c in kept else 0.0 for c in range(3)]
    assert (volume[1:] == 0.5).all()  # what the cache gave is left as it is


def visit_of(**changes: Any) -> Visit:
    patient = example([False] * 4 + [True], "P", 3)
    return VisitPlan(tiny_config(**changes), 1, [patient]).draw(patient, 2)


def test_without_it_all_draws_are_those_of_the_version_before() -> None:
    """The values are those of d3b1fc5, which knew no channel dropout: a run of old settings draws what it drew."""
    for visit in (visit_of(), visit_of(channel_dropout=0.0)):
        assert visit.turn == Turn((False, True, False), (0, 2), 0)
        assert [c.start for c in visit.changes] == [(1, 1, 2), (4, 0, 4), (2, 4, 3), (1, 0, 2), (2, 0, 0)]
        assert visit.changes[0].scale.tolist() == pytest.approx([0.9584375619888306, 0.9059545993804932], abs=1e-7)
        assert visit.exam_keys[:2].tolist() == [-6941266460893112731, -1038948525900991736]
        assert visit.sequences[6:] == ((1, 2, 3), (0, 1, 3), (1, 3, 4), (2, 3, 4))
        assert visit.sequence_keys[[0, 1, -1]].tolist() == [
            -1236898947742847843,
            6497447999126300504,
            -8239557263233445181,
        ]
        assert {c.dropped for c in visit.changes} == {()}


def test_with_it_the_rest_of_the_images_is_drawn_as_without() -> None:
    plain, visit = visit_of(), visit_of(channel_dropout=0.4)
    assert any(change.dropped for change in visit.changes)
    assert visit.turn == plain.turn
    assert visit.exam_keys.tolist() == plain.exam_keys.tolist()
    for one, other in zip(plain.changes, visit.changes, strict=True):
        assert one.start == other.start
        assert (one.scale.tolist(), one.shift.tolist()) == (other.scale.tolist(), other.shift.tolist())
    assert visit_of(channel_dropout=0.4).changes[0].dropped == visit.changes[0].dropped  # as keyed as all other draws


class Grey:
    """In place of a cache: every voxel of a channel has one value, that of a missing one being 0."""

    def __init__(self, config: Any, *values: float) -> None:
        self.preparation, self.values = training_cache(config).preparation, values

    def data(self, key: str) -> np.ndarray:
        return np.stack([np.full((28, 28, 28), value, np.float16) for value in self.values])


def read_for_training(folder: Path, *values: float) -> list[tuple[ExamChange, list[bool]]]:
    """What is drawn for many exams of two channels, and whether each channel is missing in what the network gets."""
    config = tiny_config(channel_dropout=0.4, intensity_scale=0.0, intensity_shift=0.0, cache=str(folder))
    examples = [example([False] * 4 + [True], f"P{i}", i) for i in range(8)]
    cache = Grey(config, *values)
    task = FinetuneTask(config, VisitPlan(config, 0, examples), (), cache, first_model(config, 0))  # type: ignore[arg-type]
    found = []
    for visit in (task.plan.draw(e, epoch) for e in examples for epoch in range(10)):
        for image, change in zip(task.read(visit), visit.changes, strict=True):
            grey = image.reshape(2, -1)
            assert (grey == grey[:, :1]).all()
            found.append((change, [bool(one < 0) for one in grey[:, 0]]))  # (0 − mean) / SD lies below what 0.7 becomes
    return found


def test_what_is_drawn_reaches_the_network(tmp_path: Path) -> None:
    found = read_for_training(tmp_path, 0.7, 0.7)
    for change, missing in found:
        assert missing == [channel in change.dropped for channel in range(2)]
    assert {change.dropped for change, _ in found} == {(), (0,), (1,)}


def test_an_exam_that_lacks_a_channel_does_not_lose_the_last_one(tmp_path: Path) -> None:
    """Without any image the network would learn the outcome from nothing, and prediction refuses such an exam."""
    found = read_for_training(tmp_path, 0.0, 0.7)
    assert {tuple(missing) for _, missing in found} == {(True, False)}
