"""Preprocessing against the step-by-step order, and its geometry on every kind of grid."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers import BODY_CENTRE, DWI, centred_affine, make_exam, positions, rotation
from step_by_step import prepare_step_by_step

from HCCNetLib.preprocessing import PreparedExam, PreprocessingConfig, map_to_exam, prepare_exam
from HCCNetLib.preprocessing.field import fraction_box
from HCCNetLib.preprocessing.geometry import Reorientation
from HCCNetLib.preprocessing.intensity import ChannelStatistics, soft_clip, yeo_johnson
from HCCNetLib.readers import read_input
from HCCNetLib.readers.nifti import NiftiImage
from HCCNetLib.records import ArrayImage, Box, Exam, Grid, Patient, Refusal

CONFIG = PreprocessingConfig()
LIVER_LABEL = 5

PLAIN = np.diag([-1.0, -1.0, 1.0])
# Directions of the voxel axes, spacing and shape: flipped, permuted, oblique, anisotropic.
GRIDS = {
    "LPS": (PLAIN, (4.0, 4.0, 4.5), (90, 72, 62)),
    "RAS": (np.eye(3), (4.0, 4.0, 4.5), (90, 72, 62)),
    "left-handed": (np.diag([1.0, -1.0, 1.0]), (4.0, 4.0, 4.5), (90, 72, 62)),
    "coronal": (PLAIN[:, [0, 2, 1]], (3.5, 4.5, 4.0), (100, 62, 72)),
    "sagittal": (PLAIN[:, [1, 2, 0]] * [1, -1, 1], (3.0, 3.2, 6.0), (92, 84, 58)),
    "oblique": (rotation(9, -7, 14) @ PLAIN, (4.0, 4.0, 4.5), (92, 74, 64)),
    "oblique and permuted": (rotation(-12, 8, 6) @ np.eye(3)[:, [2, 0, 1]], (5.0, 4.0, 3.5), (56, 92, 84)),
    "thick slices": (rotation(4, 0, -8) @ PLAIN, (1.9, 1.9, 7.0), (190, 150, 40)),
}


def grid_of(name: str) -> tuple[tuple[int, int, int], np.ndarray]:
    directions, spacing, shape = GRIDS[name]
    return shape, centred_affine(shape, spacing, directions)


# ---------------------------------------------------------------- intensities


def test_yeo_johnson_by_hand() -> None:
    x = np.array([-3.0, 0.0, 8.0], dtype=np.float32)
    # negative: -((1+3)^1.5 - 1)/1.5 = -7/1.5; positive: (9^0.5 - 1)/0.5 = 4
    assert yeo_johnson(x, 0.5) == pytest.approx([-14 / 3, 0.0, 4.0])
    assert yeo_johnson(np.abs(x), 0.5) == pytest.approx([2.0, 0.0, 4.0])


def test_soft_clip_is_odd_bounded_and_nearly_the_identity_in_the_middle() -> None:
    x = np.linspace(-20, 20, 401, dtype=np.float32)
    y = soft_clip(x, -2, 2)
    assert np.all(np.diff(y) >= -1e-6)
    assert y == pytest.approx(-y[::-1], abs=1e-5)
    assert y[-1] == pytest.approx(2, abs=1e-3)
    # k = ln 2/(1 - tanh 1)/2; at the upper bound that side takes ln 2/k away, and the other adds a little
    k = np.log(2) / (1 - np.tanh(1)) / 2
    assert y[x == 2] == pytest.approx(2 - np.log(2) / k + np.log1p(np.exp(-4 * k)) / k, abs=1e-5)
    slope_at_0 = (y[201] - y[199]) / (x[201] - x[199])
    assert slope_at_0 == pytest.approx(1 - 2 / (1 + np.exp(2 * k)), abs=1e-3)  # 0.9: nearly the identity


def test_statistics_are_the_body_s_and_survive_outliers() -> None:
    rng = np.random.default_rng(0)
    body = rng.normal(10, 2, 20_001).astype(np.float32)
    statistics = ChannelStatistics.of(body, clip_mads=3.5)
    spoiled = ChannelStatistics.of(np.append(body, np.full(50, 1e6, dtype=np.float32)), clip_mads=3.5)
    scaled = statistics.apply(body)
    assert (scaled.mean(), scaled.std()) == pytest.approx((0, 1), abs=1e-4)
    assert (statistics.lower, statistics.upper) == pytest.approx((3, 17), abs=0.3)
    assert spoiled.mean == pytest.approx(statistics.mean, abs=0.05)
    assert spoiled.sd == pytest.approx(statistics.sd, abs=0.05)


def test_without_spread_around_the_median_nothing_is_clipped() -> None:
    body = np.array([5.0] * 60 + [6.0, 9.0] * 10, dtype=np.float32)
    statistics = ChannelStatistics.of(body, clip_mads=3.5)
    assert np.isinf(statistics.upper)
    assert np.isfinite(statistics.apply(body)).all()


# ---------------------------------------------------------------- against the published order


def assert_close_inside_the_body(
    prepared: PreparedExam, exam: Exam, channels: tuple[str, ...], config: PreprocessingConfig
) -> None:
    reference = prepare_step_by_step(exam, channels, config)
    inside = reference.body > 0.5
    assert inside.sum() > 10_000
    difference = np.abs(prepared.data - reference.data)[:, inside]
    # The contract asks for a median of at most 0.05 SD. On one grid the two orders are the same arithmetic.
    assert np.median(difference) <= 0.001
    assert difference.max() <= 0.05
    # Both sides must really be pictures, and agree on where the padding is.
    assert prepared.data[:, inside].std() > 0.4
    assert np.array_equal(prepared.data[0] == 0, reference.data[0] == 0)


@pytest.mark.parametrize("statistics", ["body_mask", "body_box"])
def test_one_interpolation_equals_the_published_steps_on_the_sample_patient(
    sample_patient: Patient, statistics: str
) -> None:
    config = replace(CONFIG, statistics=statistics)
    for exam in sample_patient.exams:
        assert_close_inside_the_body(prepare_exam(exam, DWI, config), exam, DWI, config)


def test_one_interpolation_equals_the_published_steps_on_abdominal_mr(test_data: Path) -> None:
    image = NiftiImage(test_data / "abdominal-mr" / "example_mr_sm.nii.gz", "example_mr_sm.nii.gz")
    exam = replace(make_exam("2020-01-01", (4, 4, 4), np.eye(4), ("DWI_b0",)), images={"DWI_b0": image})
    assert_close_inside_the_body(prepare_exam(exam, ("DWI_b0",), CONFIG), exam, ("DWI_b0",), CONFIG)


def test_one_interpolation_equals_the_published_steps_on_all_shared_series(shared_data: Path) -> None:
    channels = ("T1_native", "T1_venous", "T1_delayed")
    for patient in read_input(shared_data / "series").patients:
        for exam in patient.exams:
            assert_close_inside_the_body(prepare_exam(exam, channels, CONFIG), exam, channels, CONFIG)


def test_channels_on_other_grids_are_brought_onto_the_first_one_s() -> None:
    shape, affine = grid_of("LPS")
    exam = make_exam("2020-01-01", shape, affine, ("T1_native", "T1_venous"))
    other_shape, other_affine = grid_of("oblique and permuted")
    other = make_exam("2020-01-01", other_shape, other_affine, ("T1_native", "T1_venous"))
    mixed = replace(exam, images={"T1_native": exam.images["T1_native"], "T1_venous": other.images["T1_venous"]})
    channels = ("T1_native", "T1_venous")
    together, apart = prepare_exam(exam, channels, CONFIG), prepare_exam(mixed, channels, CONFIG)
    reference = prepare_step_by_step(mixed, channels, CONFIG)
    inside = reference.body > 0.5
    assert np.median(np.abs(apart.data - reference.data)[:, inside]) <= 0.05
    assert np.median(np.abs(apart.data - together.data)[:, inside]) <= 0.05


# ---------------------------------------------------------------- geometry


@pytest.mark.parametrize(
    ("order", "signs"), list(itertools.product(itertools.permutations(range(3)), itertools.product((1, -1), repeat=3)))
)
def test_reorientation_keeps_every_voxel_at_its_place(order: tuple[int, ...], signs: tuple[int, ...]) -> None:
    directions = (rotation(5, -4, 11) @ np.diag(signs))[:, order]
    shape = (5, 6, 7)
    affine = centred_affine(shape, (1.0, 2.0, 3.0), directions)
    reorientation = Reorientation.towards("PLI", Grid(shape, affine))
    place = positions(shape, affine)
    moved = np.stack([reorientation.apply(place[..., i].astype(np.float32)) for i in range(3)], axis=-1)
    assert moved.shape[:3] == reorientation.target.shape
    assert moved == pytest.approx(positions(reorientation.target.shape, reorientation.target.affine), abs=1e-4)
    towards_pli = reorientation.target.affine[:3, :3] / np.linalg.norm(reorientation.target.affine[:3, :3], axis=0)
    # P, L, I are −y, −x, −z of patient space
    assert [-towards_pli[1, 0] > 0.9, -towards_pli[0, 1] > 0.9, -towards_pli[2, 2] > 0.9] == [True] * 3


@pytest.mark.parametrize("name", list(GRIDS))
def test_what_the_network_sees_lies_where_the_affine_says(name: str) -> None:
    """Channels that hold their own patient coordinates come out as the coordinates of the network's grid."""
    shape, affine = grid_of(name)
    place = positions(shape, affine)
    coordinates = {c: ArrayImage(place[..., i].astype(np.float32) + 1000, affine, c) for i, c in enumerate(DWI[1:])}
    exam = make_exam("2020-01-01", shape, affine, DWI[:1])
    exam = replace(exam, images={**exam.images, **coordinates})
    # Without power transform and clipping only a scale and an offset remain between a value and its coordinate.
    linear = replace(CONFIG, yeo_johnson_lambda=1.0, clip_mads=1e5)
    prepared = prepare_exam(exam, DWI, linear)
    read = prepared.window.read
    seen = prepared.data[(slice(1, 4), *read)].reshape(3, -1)
    expected = positions(prepared.window.grid.shape, prepared.window.grid.affine)[read].reshape(-1, 3)
    design = np.column_stack([expected, np.ones(len(expected))])
    slopes, *_ = np.linalg.lstsq(design, seen.T, rcond=None)
    scale = np.diag(slopes[:3])
    assert (scale > 0).all()
    assert slopes[:3] / scale == pytest.approx(np.eye(3), abs=1e-3)
    # In millimetres; the last voxels of a box may repeat its edge, by at most half a voxel of the network.
    residual = np.abs(seen - (design @ slopes).T) / scale[:, None]
    assert np.median(residual) < 0.02
    assert residual.max() <= CONFIG.spacing_mm / 2


@pytest.mark.parametrize("name", list(GRIDS))
@pytest.mark.parametrize("corner", [(0.25, 0.3, 0.35), (0.7, 0.2, 0.6), (0.5, 0.8, 0.5)])
def test_a_peak_in_the_network_s_grid_is_found_in_patient_space(name: str, corner: tuple[float, ...]) -> None:
    shape, affine = grid_of(name)
    prepared = prepare_exam(make_exam("2020-01-01", shape, affine, DWI[:1]), DWI[:1], CONFIG)
    read = prepared.window.read
    at = np.array([s.start + f * (s.stop - 1 - s.start) for s, f in zip(read, corner, strict=True)]).round()
    index = np.stack(np.meshgrid(*[np.arange(n) for n in prepared.window.grid.shape], indexing="ij"), axis=-1)
    spike = np.exp(-((index - at) ** 2).sum(axis=-1) / (2 * 3.0**2)).astype(np.float32)
    planted = prepared.window.grid.affine[:3, :3] @ at + prepared.window.grid.affine[:3, 3]

    found = map_to_exam(spike, prepared.window.grid.affine, prepared)
    assert found.shape == shape
    voxel = np.array(np.unravel_index(found.argmax(), found.shape))
    expected = np.linalg.inv(affine)[:3, :3] @ (planted - affine[:3, 3])
    assert np.abs(voxel - expected).max() <= 1


@pytest.mark.parametrize("name", list(GRIDS))
def test_a_map_of_the_whole_field_covers_exactly_the_field(name: str) -> None:
    shape, affine = grid_of(name)
    prepared = prepare_exam(make_exam("2020-01-01", shape, affine, DWI[:1]), DWI[:1], CONFIG)
    ones = np.ones(prepared.window.grid.shape, dtype=np.float32)
    covered = map_to_exam(ones, prepared.window.grid.affine, prepared)
    assert set(np.unique(covered.round(5))) == {0.0, 1.0}
    volume = covered.sum() * np.prod(prepared.source_grid.spacing)
    box = np.prod(prepared.field()["box"]["size_mm"])
    assert volume == pytest.approx(box, rel=0.12)
    # Every covered voxel lies between the field's corners, and the corners are those of the box that is reported.
    corners = prepared.window.read_corners
    inside = positions(shape, affine)[covered > 0.5]
    assert prepared.window.fraction_inside(inside) == 1.0
    low, high = corners.min(axis=0), corners.max(axis=0)
    assert (inside >= low - 1e-6).all()
    assert (inside <= high + 1e-6).all()
    described = prepared.field()["box"]
    rebuilt = np.array(described["origin_mm"]) + np.array(described["size_mm"]) @ np.array(described["axes"])
    assert rebuilt == pytest.approx(corners[7], abs=0.05)
    assert np.array(described["centre_mm"]) == pytest.approx(corners.mean(axis=0), abs=0.01)


def test_all_storage_orders_of_one_exam_give_the_same_tensor() -> None:
    shape, affine = grid_of("oblique")
    exam = make_exam("2020-01-01", shape, affine, DWI[:2])
    base = prepare_exam(exam, DWI[:2], CONFIG)
    for order in itertools.permutations(range(3)):
        for flips in itertools.product((False, True), repeat=3):
            stored = replace(exam, images={c: stored_differently(i, order, flips) for c, i in exam.images.items()})
            prepared = prepare_exam(stored, DWI[:2], CONFIG)
            assert np.abs(prepared.data - base.data).max() < 1e-4
            assert prepared.window.grid.affine == pytest.approx(base.window.grid.affine, abs=1e-6)


def stored_differently(image: ArrayImage, order: tuple[int, ...], flips: tuple[bool, ...]) -> ArrayImage:
    """The same picture with its voxel axes permuted and flipped."""
    data, affine = image.data.transpose(order), image.affine.copy()
    affine[:, :3] = affine[:, :3][:, order]
    for axis, flip in enumerate(flips):
        if flip:
            data = np.flip(data, axis)
            affine[:3, 3] += affine[:3, axis] * (data.shape[axis] - 1)
            affine[:3, axis] *= -1
    return ArrayImage(np.ascontiguousarray(data), affine, image.source)


# ---------------------------------------------------------------- the field


def test_fraction_box_rounds_as_published() -> None:
    # 77 of 91, 93 of 117, 19 of 20; the first is lengthened to 82 at its far end, the last to what there is
    box = fraction_box((91, 117, 20), (0.5, 0.5, 0.5), (0.85, 0.80, 0.99), 82)
    assert box == (slice(6, 88), slice(11, 104), slice(0, 20))


def test_without_a_liver_the_field_of_the_sample_patient_is_the_published_box(sample_patient: Patient) -> None:
    prepared = prepare_exam(sample_patient.exams[0], DWI, CONFIG)
    assert prepared.liver_fraction is None
    assert [s.stop - s.start for s in prepared.window.read] == [72, 72, 36]
    # The box lies on the patient's right; its middle is right of the body's middle, and above it.
    assert prepared.field()["box"]["centre_mm"] == pytest.approx([53.85, 29.1, 55.2], abs=0.1)


def test_a_liver_mask_centres_the_field_and_its_fraction_is_measured(
    sample_patient: Patient, shared_data: Path
) -> None:
    exam = sample_patient.exams[-1]
    organs = NiftiImage(shared_data / "series" / "truth" / "RA01" / exam.exam_id / "organs.nii.gz", "organs.nii.gz")
    liver = (organs.read() == LIVER_LABEL).astype(np.float32)
    mask = ArrayImage(liver, organs.grid.affine, "liver_mask")
    published = prepare_exam(exam, DWI, CONFIG)
    centred = prepare_exam(replace(exam, liver_mask=mask), DWI, CONFIG)
    centroid = organs.grid.affine[:3, :3] @ np.argwhere(liver > 0).mean(axis=0) + organs.grid.affine[:3, 3]
    middle = centred.window.grid.affine @ [35.5, 35.5, 35.5, 1]
    assert np.abs(middle[:3] - centroid).max() < 2
    liver_points = positions(liver.shape, organs.grid.affine)[liver > 0]
    assert centred.liver_fraction == pytest.approx(centred.window.fraction_inside(liver_points))
    assert centred.liver_fraction > published.window.fraction_inside(liver_points) + 0.1


@pytest.mark.parametrize("name", list(GRIDS))
def test_a_box_centres_the_field_on_every_grid(name: str) -> None:
    shape, affine = grid_of(name)
    centre = BODY_CENTRE + np.array([30.0, 10.0, 25.0])
    half = np.array([60.0, 50.0, 40.0])
    box = Box(tuple(centre - half), tuple(centre + half))
    exam = replace(make_exam("2020-01-01", shape, affine, DWI[:1]), liver_box=box)
    prepared = prepare_exam(exam, DWI[:1], CONFIG)
    middle = prepared.window.grid.affine @ [35.5, 35.5, 35.5, 1]
    assert np.abs(middle[:3] - centre).max() < CONFIG.spacing_mm
    assert prepared.liver_fraction is None


def test_a_liver_outside_the_images_is_refused() -> None:
    shape, affine = grid_of("LPS")
    far = Box((900.0, 900.0, 900.0), (950.0, 950.0, 950.0))
    exam = replace(make_exam("2020-01-01", shape, affine, DWI[:1]), liver_box=far)
    with pytest.raises(Refusal, match=r"Exam 2020-01-01: the given liver mask or box does not lie in the images"):
        prepare_exam(exam, DWI[:1], CONFIG)


def test_a_liver_given_as_probability_is_cut_at_one_half() -> None:
    shape, affine = grid_of("LPS")
    place = positions(shape, affine)
    share = np.exp(-((place - (BODY_CENTRE + np.array([40.0, 10.0, 20.0]))) ** 2).sum(axis=-1) / (2 * 40.0**2)).astype(
        np.float32
    )
    exam = make_exam("2020-01-01", shape, affine, DWI[:1])
    soft = prepare_exam(replace(exam, liver_mask=ArrayImage(share, affine, "p")), DWI[:1], CONFIG)
    hard = prepare_exam(replace(exam, liver_mask=ArrayImage((share > 0.5) * 255.0, affine, "m")), DWI[:1], CONFIG)
    assert np.array_equal(soft.data, hard.data)
    assert soft.liver_fraction == hard.liver_fraction


def test_an_empty_liver_mask_is_refused() -> None:
    shape, affine = grid_of("LPS")
    empty = ArrayImage(np.zeros(shape, dtype=np.float32), affine, "liver_mask.nii.gz")
    exam = replace(make_exam("2020-01-01", shape, affine, DWI[:1]), liver_mask=empty)
    with pytest.raises(Refusal, match=r"liver_mask\.nii\.gz marks no voxel as liver"):
        prepare_exam(exam, DWI[:1], CONFIG)


def test_a_ct_is_pointed_out(test_data: Path) -> None:
    image = NiftiImage(test_data / "abdominal-mr" / "example_ct_sm.nii.gz", "example_ct_sm.nii.gz")
    exam = replace(make_exam("2020-01-01", (4, 4, 4), np.eye(4), ("DWI_b0",)), images={"DWI_b0": image})
    problems = prepare_exam(exam, ("DWI_b0",), CONFIG).problems
    assert "looks_like_ct" in {p.code for p in problems}
    assert {p.exam_id for p in problems} == {"2020-01-01"}


# ---------------------------------------------------------------- configuration


def test_the_cohort_s_mean_and_sd_are_applied_last() -> None:
    shape, affine = grid_of("LPS")
    exam = make_exam("2020-01-01", shape, affine, DWI[:2])
    plain = prepare_exam(exam, DWI[:2], CONFIG)
    shifted = prepare_exam(exam, DWI[:2], replace(CONFIG, channel_mean=(0.5, -1.0), channel_sd=(2.0, 4.0)))
    assert shifted.data[0] == pytest.approx((plain.data[0] - 0.5) / 2, abs=1e-6)
    assert shifted.data[1] == pytest.approx((plain.data[1] + 1) / 4, abs=1e-6)


def test_a_missing_channel_is_zeros_only_where_the_networks_know_it() -> None:
    shape, affine = grid_of("LPS")
    exam = make_exam("2020-01-01", shape, affine, ("DWI_b150",))
    prepared = prepare_exam(exam, ("DWI_b0", "DWI_b150"), CONFIG, allow_missing=True)
    assert not prepared.data[0].any()
    assert prepared.data[1].std() > 0.5
    with pytest.raises(Refusal, match="DWI_b0 is missing"):
        prepare_exam(exam, ("DWI_b0", "DWI_b150"), CONFIG)


def test_configuration_survives_a_bundle_and_rejects_what_it_does_not_know() -> None:
    config = replace(CONFIG, spacing_mm=2.0, channel_mean=(1.0,), channel_sd=(2.0,))
    assert PreprocessingConfig.from_dict(config.to_dict()) == config
    with pytest.raises(ValueError, match="unknown preprocessing settings: colour"):
        PreprocessingConfig.from_dict({"colour": "red"})
    for wrong in ({"orientation": "PLX"}, {"spacing_mm": 0}, {"crop_voxels": 10}, {"channel_sd": [1.0]}):
        with pytest.raises(ValueError, match=r"must|not three|go together"):
            PreprocessingConfig.from_dict(wrong)
