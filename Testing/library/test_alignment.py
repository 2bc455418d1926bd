"""Later exams brought onto the first one: how far they lie apart, what is read then, and where it is kept."""

from __future__ import annotations

import datetime
import itertools
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers import BODY_CENTRE, DWI, body, centred_affine, positions
from scipy import ndimage
from test_preprocessing import GRIDS, stored_differently

from HCCNetLib.inference.cache import Preparation, PreparedCache
from HCCNetLib.preprocessing import PreparedExam, PreprocessingConfig, map_to_exam, prepare_exam, prepare_patient
from HCCNetLib.preprocessing.alignment import Field, find_shift
from HCCNetLib.preprocessing.augmentation import unchanged
from HCCNetLib.preprocessing.field import Window
from HCCNetLib.preprocessing.geometry import apply_affine, translation, world_to_index
from HCCNetLib.preprocessing.pipeline import LEAST_CORRELATION
from HCCNetLib.records import ArrayImage, Box, Exam, Grid, Patient

MOST = 8
# 36 voxels of 3 mm are the 108 mm of the published field.
APART = PreprocessingConfig(spacing_mm=3.0, crop_voxels=36, liver_min_voxels=41)
ALIGNED = replace(APART, align_voxels=MOST)
TWO = DWI[:2]
LIVER = BODY_CENTRE + np.array([25.0, 5.0, 10.0])  # of the anatomy before it is moved
LANDMARKS = LIVER + np.array([[0.0, 0.0, 0.0], [20.0, -15.0, 10.0], [-18.0, 22.0, -24.0], [12.0, 9.0, 25.0]])
MOVED, MISPLACED = np.array([9.0, -7.0, 12.0]), np.array([-13.0, 11.0, 10.0])  # mm
# The first exam's grid, the later one's, parallel to it but for order and signs of the axes, and how that one is stored.
PAIRS = [
    ("LPS", "RAS", 0),
    ("left-handed", "coronal", 1),
    ("sagittal", "LPS", 2),
    ("oblique", "oblique", 3),
    ("oblique and permuted", "oblique and permuted", 4),
    ("thick slices", "thick slices", 5),
]
STORAGE = list(zip(itertools.permutations(range(3)), itertools.product((True, False), repeat=3), strict=False))


def texture(points: np.ndarray, person: int) -> np.ndarray:
    """What tells one person's anatomy from another's: waves of 20 to 50 mm in all directions, with an SD of 1."""
    rng = np.random.default_rng(person)
    total = np.zeros(points.shape[:-1])
    for _ in range(24):
        direction = rng.normal(size=3)
        direction *= 2 * np.pi / rng.uniform(20, 50) / np.linalg.norm(direction)
        total += np.sin(points @ direction + rng.uniform(0, 2 * np.pi))
    return total / np.sqrt(12)


def exam_of(
    grid: str,
    moved: np.ndarray | float = 0.0,
    misplaced: np.ndarray | float = 0.0,
    *,
    stretch: float = 1.0,
    person: int = 0,
    noise: float = 5.0,
    channels: Sequence[str] = TWO,
    gain: float = 1.0,
    date: str = "2020-01-01",
) -> Exam:
    """A person who lies ``moved`` mm elsewhere, and a liver box whose middle is wrong by ``misplaced`` mm."""
    directions, spacing, shape = GRIDS[grid]
    affine = centred_affine(shape, np.array(spacing) * stretch, directions)
    at = positions(shape, affine) - moved
    pattern, rng = texture(at, person), np.random.default_rng(int(date[:4]))
    images = {}
    for number, channel in enumerate(channels):
        values = body(at, number) * (1 + (0.2, -0.15, 0.1, 0.2)[number] * pattern) + rng.normal(0, noise, shape)
        images[channel] = ArrayImage((gain * values).astype(np.float32), affine, channel)
    middle, half = LIVER + moved + misplaced, np.array([60.0, 50.0, 45.0])
    box = Box(tuple(middle - half), tuple(middle + half))
    return Exam(date, datetime.date.fromisoformat(date), images, liver_box=box)


def two_exams(first: str = "LPS", later: str = "RAS", storage: int = 0) -> list[Exam]:
    """Another grid, another place of the person and of the field, another brightness."""
    order, flips = STORAGE[storage]
    there = exam_of(later, MOVED, MISPLACED, stretch=0.93, gain=2.5, date="2021-01-01")
    images = {c: stored_differently(image, order, flips) for c, image in there.images.items()}
    return [exam_of(first), replace(there, images=images)]


def seen_at(prepared: PreparedExam, moved: np.ndarray | float = 0.0) -> np.ndarray:
    """Voxel coordinates of the landmarks in what the network reads."""
    return world_to_index(prepared.window.grid.affine, LANDMARKS + moved)


@pytest.fixture(scope="module")
def exams() -> list[Exam]:
    return two_exams()


@pytest.fixture(scope="module")
def aligned(exams: list[Exam]) -> list[PreparedExam]:
    return list(prepare_patient(exams, TWO, ALIGNED))


# ---------------------------------------------------------------- the translation


def volumes(shift: Sequence[int], noise: float = 0.5) -> tuple[Field, Field]:
    """Three textured channels, and the same further along each axis by ``shift``, with noise and another brightness."""
    rng, edge, pad = np.random.default_rng(4), 32, MOST
    whole = ndimage.gaussian_filter(rng.normal(size=(3, *[edge + 2 * pad] * 3)), (0, 1.5, 1.5, 1.5))
    whole /= whole.std()

    def cut(start: Sequence[int]) -> np.ndarray:
        x, y, z = (slice(pad + s, pad + s + edge) for s in start)
        return whole[:, x, y, z]

    reference, moving = cut((0, 0, 0)), cut([-s for s in shift])
    moving = np.array([3, 0.5, 1]).reshape(3, 1, 1, 1) * (moving + noise * rng.normal(size=moving.shape)) - 2
    return whole_field(reference), whole_field(moving)


def whole_field(images: np.ndarray) -> Field:
    """Images of which everything was read."""
    return images.astype(np.float32), np.ones(images.shape[1:], dtype=bool)


def part_of(field: Field, read: tuple[slice, slice, slice], padding: float = 0.0) -> Field:
    """The same with padding around the part ``read``."""
    inside = np.zeros_like(field[1])
    inside[read] = True
    return np.where(inside, field[0], np.float32(padding)), inside


@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize("voxels", [-MOST, -3, 1, MOST])
def test_a_translation_along_one_axis_is_found_with_its_sign(axis: int, voxels: int) -> None:
    wanted = [0, 0, 0]
    wanted[axis] = voxels
    found = find_shift(*volumes(wanted), 0, ALIGNED)
    assert found.voxels == tuple(wanted)
    assert found.correlation > 2 * LEAST_CORRELATION


@pytest.mark.parametrize("wanted", [(5, -4, 2), (-7, 7, -7), (0, 3, -8)])
def test_a_translation_along_all_axes_is_found_without_a_channel_that_one_exam_lacks(
    wanted: tuple[int, int, int],
) -> None:
    reference, moving = volumes(wanted)
    complete = find_shift(reference, moving, 0, ALIGNED)
    moving[0][1] = 0
    lacking = find_shift(reference, moving, 0, ALIGNED)
    assert complete.voxels == lacking.voxels == wanted
    assert (complete.channels, lacking.channels) == (3, 2)
    # What a channel has in common with zeros does not count.
    assert lacking.correlation == pytest.approx(complete.correlation, rel=0.2)


def test_the_sign_is_that_of_where_the_same_anatomy_lies() -> None:
    """A bright spot at voxel 10 of the reference and at voxel 13 of the other one lies 3 voxels further."""
    reference, moving = np.zeros((2, 1, 24, 24, 24), np.float32)
    reference[0, 10, 12, 12] = moving[0, 13, 12, 10] = 1
    config = replace(ALIGNED, align_voxels=6)
    assert find_shift(whole_field(reference), whole_field(moving), 0, config).voxels == (3, 0, -2)


def test_an_image_lies_where_it_lies_itself() -> None:
    image, _ = volumes((0, 0, 0))
    found = find_shift(image, image, 0, ALIGNED)
    assert found.voxels == (0, 0, 0)
    assert found.correlation == pytest.approx(1, abs=1e-3)


def test_images_without_a_common_channel_have_nothing_in_common() -> None:
    reference, moving = volumes((0, 0, 0))
    reference[0][1:], moving[0][0] = 0, 0
    found = find_shift(reference, moving, 0, ALIGNED)
    assert (found.correlation, found.channels) == (0, 0)


@pytest.mark.parametrize("wanted", [(4, -3, 2), (-5, 6, -4), (0, 0, 5)])
@pytest.mark.parametrize("thick", [16, 20])
@pytest.mark.parametrize("padding", [0.0, -1.5], ids=lambda v: f"padding {v:g}")
def test_the_edge_of_the_padding_does_not_pull_towards_0(
    wanted: tuple[int, int, int], thick: int, padding: float
) -> None:
    """Thin stacks, bright as against their padding, which lies in the same place in both cubes whatever the anatomy does."""
    read = np.s_[2:30, 3:31, 16 - thick // 2 : 16 + thick // 2]
    reference, moving = volumes(wanted)
    given = [part_of((images + 6, mask), read, padding) for images, mask in (reference, moving)]
    found = find_shift(*given, 0, ALIGNED)
    assert found.voxels == wanted
    assert found.correlation > LEAST_CORRELATION
    # The edge would be found, were it taken for anatomy.
    everywhere = np.ones_like(reference[1])
    assert find_shift(*((images, everywhere) for images, _ in given), 0, ALIGNED).voxels == (0, 0, 0)


def test_what_lies_in_the_margin_does_not_matter() -> None:
    reference, moving = volumes((2, -3, 1))
    wide = []
    for number, (images, mask) in enumerate((reference, moving)):
        noise = np.random.default_rng(number).normal(0, 50, (3, *[40] * 3)).astype(np.float32)
        noise[:, 4:-4, 4:-4, 4:-4] = images
        wide.append((noise, np.pad(mask, 4, constant_values=number == 0)))
    assert find_shift(*wide, 4, ALIGNED) == find_shift(reference, moving, 0, ALIGNED)


# ---------------------------------------------------------------- a patient's exams


@pytest.mark.parametrize(("first", "later", "storage"), PAIRS)
def test_the_same_anatomy_has_the_same_place_in_all_exams(first: str, later: str, storage: int) -> None:
    given = two_exams(first, later, storage)
    apart, together = (list(prepare_patient(given, TWO, config)) for config in (APART, ALIGNED))
    assert np.abs(seen_at(apart[1], MOVED) - seen_at(apart[0])).max() > 3
    assert np.abs(seen_at(together[1], MOVED) - seen_at(together[0])).max() <= 1
    both = together[0].window.read_mask & together[1].window.read_mask
    assert both.mean() > 0.7
    for one, other in zip(*(exam.data[:, both] for exam in together), strict=True):
        assert np.corrcoef(one, other)[0, 1] > 0.85


def test_without_a_given_liver_fields_that_follow_the_cut_of_the_images_are_brought_together() -> None:
    exam = replace(exam_of("LPS"), liver_box=None)
    images = {}
    for channel, image in exam.images.items():  # 10 voxels fewer on the right, 8 fewer below
        affine = image.affine @ translation([10.0, 0.0, 8.0])
        images[channel] = ArrayImage(image.data[10:, :, 8:].copy(), affine, channel)
    given = [exam, replace(exam, images=images)]
    apart, together = (list(prepare_patient(given, TWO, config)) for config in (APART, ALIGNED))
    assert np.abs(seen_at(apart[1]) - seen_at(apart[0])).max() > 3
    assert np.abs(seen_at(together[1]) - seen_at(together[0])).max() <= 1


def test_what_is_read_at_the_other_place_is_what_a_field_given_there_reads(
    exams: list[Exam], aligned: list[PreparedExam]
) -> None:
    apart = prepare_exam(exams[1], TWO, APART)
    step = aligned[1].window.grid.affine[:3, 3] - apart.window.grid.affine[:3, 3]
    assert np.linalg.norm(step) > 3 * APART.spacing_mm
    box = exams[1].liver_box
    assert box is not None
    there = replace(exams[1], liver_box=Box(tuple(np.array(box.low) + step), tuple(np.array(box.high) + step)))
    wanted = prepare_exam(there, TWO, APART)
    np.testing.assert_allclose(aligned[1].window.grid.affine, wanted.window.grid.affine, atol=1e-6)
    both = aligned[1].window.read_mask & wanted.window.read_mask
    assert both.mean() > 0.7
    np.testing.assert_allclose(aligned[1].data[:, both], wanted.data[:, both], atol=1e-5)
    assert not aligned[1].data[:, ~aligned[1].window.read_mask].any()


def assert_same(one: PreparedExam, other: PreparedExam) -> None:
    np.testing.assert_array_equal(one.data, other.data)
    np.testing.assert_array_equal(one.window.grid.affine, other.window.grid.affine)
    assert (one.window.read, one.problems, one.exam_id) == (other.window.read, other.problems, other.exam_id)


def test_the_first_exam_stays_as_it_is(exams: list[Exam], aligned: list[PreparedExam]) -> None:
    assert_same(aligned[0], prepare_exam(exams[0], TWO, APART))


def test_with_0_voxels_every_exam_is_prepared_as_if_it_were_alone(exams: list[Exam]) -> None:
    alone = [prepare_exam(exam, TWO, APART) for exam in exams]
    for one, other in zip(prepare_patient(exams, TWO, APART), alone, strict=True):
        assert_same(one, other)
    assert_same(prepare_exam(exams[1], TWO, APART, first=alone[0]), alone[1])


def test_an_exam_that_lies_where_the_first_one_lies_is_read_as_the_first_one_is(sample_patient: Patient) -> None:
    """The published field reaches to half a voxel beyond the last slice's middle; it is not cut where nothing is moved."""
    config = PreprocessingConfig(align_voxels=4)
    for exam in sample_patient.exams[1:3]:
        first, again = prepare_patient([exam, exam], DWI[:1], config)
        assert_same(again, first)


def test_the_field_moves_with_what_is_read(exams: list[Exam], aligned: list[PreparedExam]) -> None:
    apart = prepare_exam(exams[1], TWO, APART)
    step = aligned[1].window.grid.affine[:3, 3] - apart.window.grid.affine[:3, 3]
    assert aligned[1].window.read == apart.window.read  # no border is near
    before, after = apart.field()["box"], aligned[1].field()["box"]
    for name in ("centre_mm", "origin_mm"):
        assert np.array(after[name]) - np.array(before[name]) == pytest.approx(step, abs=0.01)
    assert (after["size_mm"], after["axes"]) == (before["size_mm"], before["axes"])


def test_a_place_in_the_first_exam_is_found_in_the_moved_exam_s_own_images(
    exams: list[Exam], aligned: list[PreparedExam]
) -> None:
    """A spike where the first exam shows a landmark comes out at the landmark of the later one, in its own voxels."""
    index = np.stack(np.meshgrid(*[np.arange(ALIGNED.crop_voxels)] * 3, indexing="ij"), axis=-1)
    image = exams[1].images[TWO[0]]
    for landmark, at in zip(LANDMARKS + MOVED, seen_at(aligned[0]), strict=True):
        spike = np.exp(-((index - at) ** 2).sum(axis=-1) / (2 * 2.0**2)).astype(np.float32)
        found = map_to_exam(spike, aligned[1].window.grid.affine, aligned[1])
        assert found.shape == image.grid.shape
        voxel = np.array(np.unravel_index(found.argmax(), found.shape), dtype=float)
        place = apply_affine(image.grid.affine, voxel[None])[0]
        assert np.abs(place - landmark).max() <= ALIGNED.spacing_mm + max(image.grid.spacing) / 2


@pytest.mark.parametrize(
    ("name", "person", "noise"), [("another person", 1, 5.0), ("noise", 0, 5000.0)], ids=lambda v: str(v)
)
def test_an_exam_with_nothing_in_common_is_left_where_it_lies(
    exams: list[Exam], name: str, person: int, noise: float
) -> None:
    other = replace(exam_of("LPS", MOVED, MISPLACED, person=person, noise=noise, date="2022-01-01"), exam_id=name)
    _, prepared = prepare_patient([exams[0], other], TWO, ALIGNED)
    (problem,) = [p for p in prepared.problems if p.code == "not_aligned"]
    assert problem.exam_id == name
    assert problem.message == (
        "This exam could not be aligned with the first one and was read without alignment. Check that both are of the same "
        "patient."
    )
    apart = prepare_exam(other, TWO, APART)
    assert_same(replace(prepared, problems=apart.problems), apart)


def test_exams_without_a_common_channel_say_so_and_stay_where_they_are() -> None:
    first = exam_of("LPS", channels=TWO[:1])
    later = exam_of("LPS", MOVED, MISPLACED, channels=TWO[1:], date="2021-01-01")
    _, prepared = prepare_patient([first, later], TWO, ALIGNED, allow_missing=True)
    (problem,) = [p for p in prepared.problems if p.code == "not_aligned"]
    assert (problem.exam_id, problem.message) == (
        later.exam_id,
        "This exam could not be aligned with the first one and was read without alignment. They have no channel in common.",
    )
    apart = prepare_exam(later, TWO, APART, allow_missing=True)
    assert_same(replace(prepared, problems=apart.problems), apart)


@pytest.mark.parametrize(("mm", "voxels"), [(-27.0, 8), (21.0, 7), (27.0, 8)])
def test_an_exam_that_is_moved_as_far_as_is_allowed_says_so(mm: float, voxels: int) -> None:
    given = [exam_of("LPS"), exam_of("LPS", misplaced=np.array([0.0, 0.0, mm]), date="2021-01-01")]
    apart, prepared = (list(prepare_patient(given, TWO, config))[1] for config in (APART, ALIGNED))
    step = np.abs(prepared.window.grid.affine[:3, 3] - apart.window.grid.affine[:3, 3])
    np.testing.assert_allclose(step, [0, 0, voxels * APART.spacing_mm], atol=1e-6)
    said = [p for p in prepared.problems if p.code in ("alignment_at_limit", "not_aligned")]
    if voxels < MOST:
        assert said == []
        return
    assert [(p.code, p.exam_id) for p in said] == [("alignment_at_limit", "2021-01-01")]
    assert said[0].message == (
        "This exam was moved onto the first one by 24 mm, the most that is allowed; it may lie further away. Look at the field "
        "that was read."
    )


def test_thin_stacks_with_much_padding_are_brought_together() -> None:
    """60 mm of the 108 mm that the cube holds, at the same place of both cubes, and the person lies elsewhere."""
    given = []
    for exam in (exam_of("RAS"), exam_of("RAS", MOVED, -MOVED, date="2021-01-01")):
        images = {}
        for channel, image in exam.images.items():
            middle = round(float(world_to_index(image.affine, LIVER[None])[0, 2]))
            affine = image.affine @ translation([0.0, 0.0, middle - 7])
            images[channel] = ArrayImage(image.data[:, :, middle - 7 : middle + 7].copy(), affine, channel)
        given.append(replace(exam, images=images))
    apart, together = (list(prepare_patient(given, TWO, config)) for config in (APART, ALIGNED))
    assert max(exam.window.filled_fraction for exam in apart) < 0.6
    assert np.abs(seen_at(apart[1], MOVED) - seen_at(apart[0])).max() > 3
    assert np.abs(seen_at(together[1], MOVED) - seen_at(together[0])).max() <= 1
    assert [p.code for p in together[1].problems] == [p.code for p in apart[1].problems]


def test_exams_that_are_moved_say_nothing_of_it(aligned: list[PreparedExam]) -> None:
    assert [exam.problems for exam in aligned] == [(), ()]


def test_channels_that_an_exam_lacks_do_not_keep_it_from_being_moved() -> None:
    """They are constant after the last step, and no less missing than zeros before it."""
    channels = DWI
    first = exam_of("LPS", channels=channels, noise=130)
    later = exam_of("LPS", MOVED, MISPLACED, channels=channels[:1], noise=130, date="2021-01-01")
    last_step = replace(ALIGNED, channel_mean=(0.4, 0.6, -0.3, 0.2), channel_sd=(0.5, 0.7, 1.3, 1.0))
    for config in (ALIGNED, last_step):
        prepared = list(prepare_patient([first, later], channels, config, allow_missing=True))
        assert "not_aligned" not in {p.code for p in prepared[1].problems}
        assert np.abs(seen_at(prepared[1], MOVED) - seen_at(prepared[0])).max() <= 1


@pytest.mark.parametrize("number", range(4))
def test_real_anatomy_comes_back_to_its_place(sample_patient: Patient, number: int) -> None:
    """The same images with a part cut off, noise and another brightness: the field, placed by what is left, is moved back."""
    exam, rng = sample_patient.exams[number], np.random.default_rng(number)
    images = {}
    for channel in TWO:
        image = exam.images[channel]
        spacing = image.grid.spacing
        cut = [round(30 / spacing[0]), round(18 / spacing[1]), 0]
        data = image.read()[cut[0] :, cut[1] :]
        data = 3 * (data + rng.normal(0, 0.1 * data.std(), data.shape)) + 20
        images[channel] = ArrayImage(data.astype(np.float32), image.grid.affine @ translation(cut), channel)
    given = [exam, replace(exam, images=images)]
    config = PreprocessingConfig(align_voxels=16)

    def distance(config: PreprocessingConfig) -> float:
        first, later = prepare_patient(given, TWO, config)
        middle = apply_affine(first.window.grid.affine, np.full((1, 3), 35.5))
        return float(np.abs(world_to_index(later.window.grid.affine, middle) - 35.5).max())

    assert distance(replace(config, align_voxels=0)) > 4
    assert distance(config) <= 0.51  # of a voxel: nothing finer is asked for


# ---------------------------------------------------------------- the border of the images


@pytest.mark.parametrize("voxels", [(0, 0, 7), (0, 0, -7), (6, -5, 4), (-20, 20, 0), (30, 0, 0), (0, -60, 60)])
def test_a_moved_field_reads_what_the_images_hold_and_nothing_beside_them(voxels: tuple[int, int, int]) -> None:
    image = Grid((40, 40, 20), np.diag([2.0, 2.0, 5.0, 1.0]))
    window = Window(Grid((24, 24, 24), np.diag([3.0, 3.0, 3.0, 1.0]) @ translation([1, 1, 6])), (slice(0, 24),) * 3)
    window = replace(window, read=(slice(0, 24), slice(2, 24), slice(0, 21)))
    moved = window.moved(voxels, image)
    np.testing.assert_allclose(moved.grid.affine, window.grid.affine @ translation(voxels))
    assert moved.grid.shape == window.grid.shape
    last = np.array(image.shape) - 1.0
    at = world_to_index(image.affine, positions(moved.grid.shape, moved.grid.affine).reshape(-1, 3))
    read, before = moved.read_mask.ravel(), window.read_mask.ravel()
    inside = ((at >= 0) & (at <= last)).all(axis=1)
    half = 1.5 / np.array(image.spacing)  # the published field reaches so far beyond the last voxel's middle
    assert not (read & ~((at >= -half) & (at <= last + half)).all(axis=1)).any()
    assert not (read & ~before).any()
    assert not (before & inside & ~read).any()


def test_where_the_moved_field_reaches_beyond_the_images_there_is_padding() -> None:
    first = exam_of("LPS")
    later = exam_of("LPS", misplaced=np.array([0.0, 0.0, 18.0]), date="2021-01-01")
    images = {}
    for channel, image in later.images.items():  # ends 30 mm below the liver's middle; the field reaches 54 mm below it
        start = round(float(world_to_index(image.affine, (LIVER - [0, 0, 30])[None])[0, 2]))
        affine = image.affine @ translation([0.0, 0.0, start])
        images[channel] = ArrayImage(image.data[:, :, start:].copy(), affine, channel)
    given = [first, replace(later, images=images)]
    apart, together = (list(prepare_patient(given, TWO, config))[1] for config in (APART, ALIGNED))
    read, before = together.window.read, apart.window.read
    assert read[:2] == before[:2]
    assert before[2].stop - read[2].stop >= 5  # the last axis runs downwards
    assert not together.data[:, :, :, read[2].stop :].any()
    assert together.data[(0, *read)].all()
    points = positions(together.window.grid.shape, together.window.grid.affine)[read].reshape(-1, 3)
    index = world_to_index(images[TWO[0]].affine, points)
    assert index[:, 2].min() >= -0.5


def test_a_field_that_would_lie_beside_the_images_is_not_read(
    sample_patient: Patient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However the search errs, what is reported stays a box, and the network gets a picture: 36 slices are moved by 36."""
    config = PreprocessingConfig(align_voxels=36)
    exam = sample_patient.exams[0]
    first = prepare_exam(exam, DWI[:1], config)
    field = first.data, first.window.read_mask
    shift = find_shift(field, field, 0, replace(config, align_voxels=1))._replace(voxels=(0, 0, 36))
    monkeypatch.setattr("HCCNetLib.preprocessing.pipeline.find_shift", lambda *_: shift)
    prepared = prepare_exam(exam, DWI[:1], config, first=first)
    assert prepared.data.any()
    assert np.isfinite(prepared.field()["box"]["axes"]).all()


# ---------------------------------------------------------------- kept on disk

LAST_STEP = replace(ALIGNED, channel_mean=(0.4, 0.6), channel_sd=(0.5, 0.7))
PREPARATION = Preparation(TWO, LAST_STEP)


def test_the_key_of_a_moved_exam_follows_the_first_one(exams: list[Exam]) -> None:
    first, later = exams
    other = exam_of("RAS", person=1)
    brighter = replace(first, images={**first.images, TWO[0]: other.images[TWO[0]]})
    apart = replace(PREPARATION, config=replace(LAST_STEP, align_voxels=0))
    closer = replace(PREPARATION, config=replace(LAST_STEP, align_voxels=3))
    keys = [
        PREPARATION.key(later),
        PREPARATION.key(later, PREPARATION.key(first)),
        PREPARATION.key(later, PREPARATION.key(other)),
        PREPARATION.key(later, PREPARATION.key(brighter)),
        PREPARATION.key(later, PREPARATION.key(replace(first, liver_box=None))),
        closer.key(later, closer.key(first)),
    ]
    assert len(set(keys)) == len(keys)
    assert PREPARATION.key(later, PREPARATION.key(replace(first, exam_id="another name"))) == keys[1]
    assert apart.key(later) == apart.key(later, apart.key(first)) == apart.key(later, apart.key(other)) not in keys


def keys_of(exams: Sequence[Exam]) -> list[str]:
    """The keys of a patient's exams."""
    first = PREPARATION.key(exams[0])
    return [first, *(PREPARATION.key(exam, first) for exam in exams[1:])]


def test_what_the_cache_gives_of_a_patient_is_what_preparation_gives(exams: list[Exam], tmp_path: Path) -> None:
    direct = list(prepare_patient(exams, TWO, LAST_STEP))
    cache = PreparedCache(tmp_path, PREPARATION)
    for gone in (None, 0, 1):  # made; then the first exam's entry is gone, then the other one's
        if gone is not None:
            cache._path(keys_of(exams)[gone]).unlink()
        for _ in range(2):
            for kept, wanted in zip(cache.get(exams), direct, strict=True):
                np.testing.assert_allclose(kept.data, wanted.data, atol=1e-6)
                np.testing.assert_array_equal(kept.window.grid.affine, wanted.window.grid.affine)
                assert (kept.field(), kept.problems) == (wanted.field(), wanted.problems)
    assert len(list(tmp_path.rglob("*.safetensors"))) == 2


def test_the_middle_crop_of_a_moved_exam_in_training_is_what_prediction_reads(
    exams: list[Exam], tmp_path: Path
) -> None:
    cache = PreparedCache(tmp_path, replace(PREPARATION, margin=4, half=True))
    list(cache.fill([exams]))
    for wide, alone in zip(cache.get(exams), prepare_patient(exams, TWO, LAST_STEP), strict=True):
        begin = apply_affine(wide.window.grid.affine, np.full((1, 3), 4.0))[0]
        np.testing.assert_allclose(begin, alone.window.grid.affine[:3, 3], atol=1e-9)
        crop = unchanged(2, 4).crop(wide.data, ALIGNED.crop_voxels)
        middle = np.s_[4 : 4 + ALIGNED.crop_voxels]
        np.testing.assert_array_equal(wide.window.read_mask[middle, middle, middle], alone.window.read_mask)
        assert np.abs(crop - alone.data).max() <= 0.01  # half precision


def test_two_processes_move_exams_as_one_does(exams: list[Exam], tmp_path: Path) -> None:
    third = exam_of("RAS", misplaced=MISPLACED, date="2022-01-01")
    patients = [exams, [third, exams[1]], [exams[1], third, exams[0]]]
    found = [list(PreparedCache(tmp_path / str(n), PREPARATION).fill(patients, processes=n)) for n in (1, 2)]
    assert found[0] == found[1] == [key for patient in patients for key in keys_of(patient)]
    assert len(set(found[0])) == 7
    one, two = ({p.name: p.read_bytes() for p in (tmp_path / n).rglob("*.safetensors")} for n in ("1", "2"))
    assert one == two


# ---------------------------------------------------------------- settings


@pytest.mark.parametrize("voxels", [-1, 19, 1.5, True])
def test_a_reach_that_makes_no_sense_is_refused(voxels: float) -> None:
    with pytest.raises(
        ValueError, match=r"align_voxels (must lie between 0 and half of crop_voxels|is of a wrong kind)"
    ):
        PreprocessingConfig.from_dict({**APART.to_dict(), "align_voxels": voxels})


def test_a_bundle_of_an_earlier_version_moves_nothing() -> None:
    assert replace(APART, align_voxels=18).align_voxels == 18
    kept = json.loads(json.dumps(ALIGNED.to_dict()))
    assert PreprocessingConfig.from_dict(kept) == ALIGNED
    del kept["align_voxels"]
    assert PreprocessingConfig.from_dict(kept) == APART
