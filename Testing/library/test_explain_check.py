"""Whether maps can be believed: the measures on planted maps, and ``hccnet explain-check`` as its users run it."""

from __future__ import annotations

import csv
import itertools
import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
import torch
from helpers import rotation, write_nifti
from random_bundle import SEEDS
from scipy.spatial.distance import cdist
from scipy.stats import spearmanr
from training_helpers import CHANNELS, PREPROCESSING

from HCCNetLib.bundles import Bundle, BundleDescription, write_bundle
from HCCNetLib.bundles.bundle import PLACEHOLDER_MEMBER
from HCCNetLib.commands import checking, explain_check
from HCCNetLib.commands.checking import fresh_network
from HCCNetLib.commands.main import main
from HCCNetLib.evaluation import faithfulness as figures
from HCCNetLib.evaluation.faithfulness import Burden, MapFigures, mean_interval
from HCCNetLib.evaluation.selection import select
from HCCNetLib.explanation import ALL, Evidence, ExamMaps, Peak, exam_maps
from HCCNetLib.explanation.check import CHECK_FILE, beside, find_check
from HCCNetLib.explanation.evidence import _cell_voxels
from HCCNetLib.explanation.faithfulness import (
    WITHIN_MM,
    LandmarkCells,
    LesionPlace,
    compare,
    landmark_cells,
    localise,
    spearman,
)
from HCCNetLib.explanation.perturbation import (
    FRACTIONS,
    NOISE_SD,
    Perturbation,
    area,
    cells_to_voxels,
    removal_order,
    with_noise,
)
from HCCNetLib.explanation.randomisation import RandomisedBundle
from HCCNetLib.explanation.reference import without_detail
from HCCNetLib.inference import NOTICE, EncodedSequence, Reading
from HCCNetLib.models import ModelConfig
from HCCNetLib.preprocessing import PreparedExam, PreprocessingConfig
from HCCNetLib.preprocessing.field import Window
from HCCNetLib.readers import read_input
from HCCNetLib.records import Grid, Refusal
from HCCNetLib.synthetic.truth import find_truth

FILES = {"explain_check.json", "explain_check.csv", "explain_check.html"}
CONFIG = PreprocessingConfig(**{k: tuple(v) if isinstance(v, list) else v for k, v in PREPROCESSING.items()})

SHAPE = (14, 12, 10)
DIRECTIONS = {
    "straight": np.eye(3),
    "flipped": np.diag([-1.0, 1.0, -1.0]),
    "permuted": np.eye(3)[[2, 0, 1]],
    "oblique": rotation(20, -35, 50),
}
SPACINGS = {"isotropic": (5.0, 5.0, 5.0), "anisotropic": (3.0, 4.5, 8.0)}
GRIDS = [
    pytest.param(directions, spacing, id=f"{name}, {kind}")
    for (name, directions), (kind, spacing) in itertools.product(DIRECTIONS.items(), SPACINGS.items())
]


def exam_on(directions, spacing, read=(slice(0, 24),) * 3):
    """A prepared exam on a grid of its own; the network's cube of 24³ voxels of 6 mm lies around its middle."""
    affine = np.eye(4)
    affine[:3, :3] = directions * np.asarray(spacing)
    affine[:3, 3] = (30.0, -12.0, 7.0)
    middle = affine[:3, :3] @ ((np.array(SHAPE) - 1) / 2) + affine[:3, 3]
    network = np.diag([6.0, 6.0, 6.0, 1.0])
    network[:3, 3] = middle - 6.0 * 11.5 + (0.7, 0.4, -0.9)  # no cell's centre half-way between voxels
    data = np.zeros((2, 24, 24, 24), dtype=np.float32)
    return PreparedExam("E", data, Window(Grid((24,) * 3, network), read), Grid(SHAPE, affine), None, ())


def mm(exam, voxel):
    affine = exam.source_grid.affine
    return affine[:3, :3] @ np.asarray(voxel, dtype=float) + affine[:3, 3]


def blob(voxels):
    mask = np.zeros(SHAPE, dtype=bool)
    for voxel in voxels:
        mask[voxel] = True
    return mask


def planted(exam, voxel):
    """A map that is above 0 in one voxel of the exam."""
    values = np.zeros(SHAPE, dtype=np.float32)
    values[voxel] = 0.5
    return ExamMaps({ALL: values}, {ALL: np.zeros_like(values)}, Peak(tuple(mm(exam, voxel)), 0.5, 1), 1.0)


LESION = [(4, 5, 4), (4, 6, 4), (5, 5, 4)]


@pytest.mark.parametrize(("directions", "spacing"), GRIDS)
def test_a_map_planted_in_the_lesion_is_inside_and_has_all_its_energy_there(directions, spacing):
    exam = exam_on(directions, spacing)
    place = LesionPlace.find(blob(LESION), blob(LESION), exam)
    found = localise(planted(exam, LESION[1]), place)
    assert (found.distance_mm, found.hit, found.inside, found.energy) == (0.0, True, True, 1.0)


@pytest.mark.parametrize(("directions", "spacing"), GRIDS)
def test_a_map_planted_elsewhere_has_its_distance_in_mm_on_every_grid(directions, spacing):
    exam = exam_on(directions, spacing)
    place = LesionPlace.find(blob(LESION), blob(LESION), exam)
    for voxel in [(4, 5, 5), (11, 2, 8), (6, 5, 4), (0, 0, 0)]:
        steps = (np.array(LESION) - np.array(voxel)) * np.array(spacing)  # right-angled axes: Pythagoras
        distance = np.sqrt((steps**2).sum(axis=1)).min()
        found = localise(planted(exam, voxel), place)
        assert found.distance_mm == pytest.approx(distance, abs=1e-9)
        assert found.hit == (distance <= WITHIN_MM)
        assert (found.inside, found.energy) == (False, 0.0)


@pytest.mark.parametrize(("directions", "spacing"), GRIDS)
def test_evidence_in_a_cell_of_the_network_finds_the_lesion_that_lies_there(directions, spacing):
    exam, cells = exam_on(directions, spacing), np.zeros((1, 1, 8, 8, 8), dtype=np.float32)
    cells[0, 0, 4, 3, 4] = 2.0
    cells[0, 0, 1, 1, 1] = -5.0
    evidence = Evidence(cells, 3, (cells[:, 0] > 0).astype(np.int16), 1, None)
    centre = exam.window.grid.affine[:3, :3] @ (np.array([4, 3, 4]) * 3 + 1) + exam.window.grid.affine[:3, 3]
    index = np.linalg.solve(exam.source_grid.affine[:3, :3], centre - exam.source_grid.affine[:3, 3])
    voxel = tuple(np.rint(index).astype(int))
    assert all(0 <= i < n for i, n in zip(voxel, SHAPE, strict=True))
    place = LesionPlace.find(blob([voxel]), blob([voxel]), exam)
    (maps,) = exam_maps(evidence, [exam])
    # The peak is the voxel nearest to the cell's centre.
    assert localise(maps, place).distance_mm == 0
    assert landmark_cells(evidence, exam).peak_mm == pytest.approx(tuple(mm(exam, voxel)))


def test_a_map_without_a_peak_misses():
    exam = exam_on(np.eye(3), (5.0,) * 3)
    place = LesionPlace.find(blob(LESION), blob(LESION), exam)
    zeros = np.zeros(SHAPE, dtype=np.float32)
    found = localise(ExamMaps({ALL: zeros}, {ALL: zeros}, None, 1.0), place)
    assert (found.distance_mm, found.hit, found.inside, found.energy) == (None, False, False, None)


@pytest.mark.parametrize(("directions", "spacing"), GRIDS)
def test_the_chance_of_a_random_point_is_what_counting_every_voxel_gives(directions, spacing):
    read = (slice(8, 16), slice(9, 17), slice(8, 15))
    exam, rng = exam_on(directions, spacing, read), np.random.default_rng(1)
    lesion, liver = blob([(7, 6, 5), (8, 6, 5), (0, 0, 0)]), rng.random(SHAPE) < 0.6
    place = LesionPlace.find(lesion, liver, exam)
    voxels = np.argwhere(np.ones(SHAPE, dtype=bool))
    points = np.array([mm(exam, voxel) for voxel in voxels])
    window = exam.window.grid.affine
    at = (points - window[:3, 3]) @ np.linalg.inv(window[:3, :3]).T
    in_field = np.all([(at[:, a] >= s.start - 0.5) & (at[:, a] <= s.stop - 0.5) for a, s in enumerate(read)], axis=0)
    near = cdist(points, points[lesion.ravel()]).min(axis=1) <= WITHIN_MM
    in_liver = in_field & (liver | lesion).ravel()
    assert 0 < near[in_liver].mean() < 1
    assert place.random_hit == pytest.approx(near[in_liver].mean())
    assert place.random_hit_in_field == pytest.approx(near[in_field].mean())
    assert place.share_of_field == pytest.approx((in_field & lesion.ravel()).sum() / in_field.sum())


def test_a_point_at_exactly_ten_mm_is_a_hit_for_the_map_and_for_chance():
    exam = exam_on(np.eye(3), (5.0,) * 3)
    lesion = blob([(4, 5, 4)])
    place = LesionPlace.find(lesion, blob([(6, 5, 4), (7, 5, 4)]), exam)
    assert localise(planted(exam, (6, 5, 4)), place).hit
    assert not localise(planted(exam, (7, 5, 4)), place).hit
    assert place.random_hit == pytest.approx(2 / 3)  # of lesion, 10 mm, 15 mm


def test_a_lesion_outside_the_field_has_no_place():
    exam = exam_on(np.eye(3), (5.0,) * 3, (slice(18, 24),) * 3)
    assert LesionPlace.find(blob([(0, 0, 0)]), blob(LESION), exam) is None


def test_spearman_is_scipys_also_with_ties_and_none_where_nothing_varies():
    rng = np.random.default_rng(0)
    for levels in (3, 5, 10000):
        a, b = rng.integers(0, levels, (2, 200)).astype(np.float32)
        assert spearman(a, b) == pytest.approx(spearmanr(a, b).statistic, abs=1e-12)
    assert spearman([1, 2, 3], [10, 100, 1000]) == pytest.approx(1)
    assert spearman([1, 2, 3], [3, 2, -5]) == pytest.approx(-1)
    assert spearman([1, 2, 3], [7, 7, 7]) is None
    assert spearman([1, 2], [1, 2]) is None


def cells_of(values, in_field=None):
    values = np.asarray(values, dtype=np.float32)
    return LandmarkCells(values, 1, np.ones(values.shape, dtype=bool) if in_field is None else in_field, None)


def test_maps_of_chance_are_alike_by_chance_and_a_map_is_like_itself():
    rng = np.random.default_rng(0)
    same = cells_of(rng.standard_normal((12, 12, 12)))
    assert compare(same, same, rng) == compare(same, cells_of(same.cells * 3), rng)
    assert (compare(same, same, rng).correlation, compare(same, same, rng).overlap) == (pytest.approx(1), 1)
    pairs = [compare(same, cells_of(rng.standard_normal((12, 12, 12))), rng) for _ in range(60)]
    assert np.mean([pair.correlation for pair in pairs]) == pytest.approx(0, abs=0.01)
    assert np.mean([pair.overlap for pair in pairs]) == pytest.approx(0.05, abs=0.01)
    # A pattern that is the same but for its sign is noticed by its size.
    turned = compare(same, cells_of(-same.cells), rng)
    assert (turned.correlation, turned.magnitude) == (pytest.approx(-1), pytest.approx(1))
    assert np.mean([pair.magnitude for pair in pairs]) == pytest.approx(0, abs=0.01)
    # So are maps in which most cells are equal: ties must not be broken alike in both.
    flat = [cells_of(rng.random((12, 12, 12)) < 0.01) for _ in range(60)]
    overlaps = [compare(a, b, rng).overlap for a, b in itertools.pairwise(flat)]
    assert np.mean(overlaps) == pytest.approx(0.05, abs=0.015)


def test_only_cells_in_both_fields_are_compared():
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 6, 6, 6))
    b[1:3] = a[1:3]  # alike there and nowhere else
    first, last = np.zeros((2, 6, 6, 6), dtype=bool)
    first[:3], last[1:] = True, True
    assert compare(cells_of(a, first), cells_of(b, last), rng).correlation == pytest.approx(1)
    for fields in ((first, None), (None, last), (None, None)):
        one, other = (cells_of(values, field) for values, field in zip((a, b), fields, strict=True))
        assert compare(one, other, rng).correlation < 0.9


def test_cells_of_the_field_are_those_with_a_voxel_that_was_read():
    exam = exam_on(np.eye(3), (5.0,) * 3, (slice(2, 10), slice(0, 24), slice(3, 24)))
    evidence = Evidence(np.ones((1, 1, 8, 8, 8), dtype=np.float32), 3, np.ones((1, 8, 8, 8), dtype=np.int16), 1, None)
    expected = np.zeros((8, 8, 8), dtype=bool)
    expected[:4, :, 1:] = True
    np.testing.assert_array_equal(landmark_cells(evidence, exam).in_field, expected)


@pytest.mark.parametrize(("crop", "cells", "edge"), [(72, 72, 1), (72, 24, 3), (50, 16, 3), (50, 2, 24), (71, 5, 12)])
def test_a_cell_has_its_stages_stride_also_where_the_cube_is_no_multiple_of_it(crop, cells, edge):
    assert _cell_voxels(crop, cells) == edge


def test_voxels_have_their_cells_value_and_those_behind_the_last_cell_none():
    values = cells_to_voxels(np.arange(8, dtype=np.float32).reshape(2, 2, 2) + 1, 3, 7)
    assert values.shape == (7, 7, 7)
    for index in np.ndindex(7, 7, 7):
        inside = max(index) < 6
        assert values[index] == (1 + np.ravel_multi_index([i // 3 for i in index], (2, 2, 2)) if inside else 0)


def test_the_order_is_that_of_positive_evidence_and_equal_voxels_come_block_by_block():
    rng, field = np.random.default_rng(0), np.zeros((12, 12, 12), dtype=bool)
    field[:, :, :9] = True
    values = rng.standard_normal(field.shape).astype(np.float32)
    order = removal_order(values, field, 3, rng)
    assert (order[~field] == field.sum()).all()
    np.testing.assert_array_equal(np.sort(order[field]), np.arange(field.sum()))
    positive = field & (values > 0)
    np.testing.assert_array_equal(np.sort(order[positive]), np.arange(positive.sum()))
    assert (np.diff(values[field][np.argsort(order[field])][: positive.sum()]) <= 0).all()
    flat = removal_order(np.zeros_like(values), field, 3, rng)
    blocks = flat.reshape(4, 3, 4, 3, 4, 3).transpose(0, 2, 4, 1, 3, 5).reshape(64, 27)
    read = blocks[blocks.max(axis=1) < field.sum()]
    assert len(read) == 48
    assert (read.max(axis=1) - read.min(axis=1) == 26).all()  # consecutive places
    assert not np.array_equal(flat, removal_order(np.zeros_like(values), field, 3, rng))


class LinearModel:
    """A network whose logit is a weighted sum of the landmark's voxels."""

    def __init__(self, weights):
        self.weights = weights

    def backbone(self, images):
        return (images * self.weights).sum(dim=(1, 2, 3, 4))[:, None]

    def classify(self, embeddings, times, lengths):
        return embeddings[:, -1], None


def linear_case():
    """Two exams of one channel, a field, and a model."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn((2, 1, 12, 12, 12), generator=generator)
    field = torch.zeros((2, 12, 12, 12), dtype=torch.bool)
    field[:, 1:11, :, 2:] = True
    model = LinearModel(torch.randn((1, 12, 12, 12), generator=generator))
    reading = Reading((0, 1), torch.zeros(2))
    sequence = EncodedSequence(images, field, (), model.backbone(images), (reading,), 6.0)
    return model, sequence


def test_deletion_of_a_linear_model_follows_its_contributions_exactly_and_falls_fastest_in_their_order():
    model, sequence = linear_case()
    image, field, rng = sequence.images[1], sequence.field[1].numpy(), np.random.default_rng(0)
    bare = without_detail(image[None], sequence.field[1][None], 6.0)[0]
    contributions = ((image - bare) * model.weights)[0].numpy()
    assert not contributions[~field].any()
    best, worst = (removal_order(np.exp(sign * contributions), field, 1, rng) for sign in (1, -1))
    random = [removal_order(np.zeros_like(contributions), field, 1, rng) for _ in range(5)]
    perturbation = Perturbation([best, worst, *random])
    perturbation.observe(model, sequence)
    perturbation.observe(model, sequence)  # two members that are alike
    curves = perturbation.curves()
    whole, ranked = float((image * model.weights).sum()), np.sort(contributions[field].astype(float))[::-1]
    removed = [ranked[: round(fraction * field.sum())].sum() for fraction in FRACTIONS]
    np.testing.assert_allclose(curves[0, 0], whole - np.array(removed), atol=1e-3)
    np.testing.assert_allclose(curves[0, 1], whole - ranked.sum() + np.array(removed), atol=1e-3)
    deletion, insertion = area(curves).T
    assert deletion[0] < deletion[2:].min() <= deletion[2:].max() < deletion[1]
    assert insertion[0] > insertion[2:].max() >= insertion[2:].min() > insertion[1]


def test_the_area_of_a_curve_is_its_mean_height():
    assert area(np.array([[0.0, 1.0, 2.0], [3.0, 3.0, 3.0], [0.0, 0.0, 4.0]])).tolist() == [1.0, 3.0, 1.0]


def test_noise_is_a_twentieth_of_the_bodys_sd_and_stays_in_the_field():
    exam = exam_on(np.eye(3), (5.0,) * 3, (slice(0, 20), slice(4, 24), slice(0, 24)))
    rng = np.random.default_rng(0)
    exam.data[0] = rng.random(exam.data.shape[1:])
    noisy = with_noise(exam, CONFIG, rng).data
    assert np.array_equal(noisy[1:], exam.data[1:])  # channels that are missing
    added = (noisy - exam.data)[:1]
    inside = np.broadcast_to(exam.window.read_mask, added.shape)
    assert not added[~inside].any()
    # The last step of the pipeline has divided by channel_sd, 0.5 here.
    assert added[inside].std() == pytest.approx(NOISE_SD / 0.5, rel=0.03)
    plain = (with_noise(exam, PreprocessingConfig(), rng).data - exam.data)[:1]
    assert plain[inside].std() == pytest.approx(NOISE_SD, rel=0.03)


def test_how_far_the_output_moves_is_told_whatever_the_direction(monkeypatch):
    """A network whose output rises without detail: the right order moves it at once, a random one at the end."""
    steps = len(FRACTIONS)
    at_once, at_the_end = [0.0] + [2.0] * (steps - 1), [0.0] * (steps - 1) + [2.0]
    curves = np.array([[at_once, at_once[::-1]], [at_the_end, at_the_end[::-1]], [at_the_end, at_the_end[::-1]]])

    class Planted:
        def __init__(self, orders):
            assert len(orders) == 1 + checking.DRAWS

        def curves(self):
            return curves

    monkeypatch.setattr(checking, "Perturbation", Planted)
    check = checking.Check(
        SimpleNamespace(predict_prepared=lambda *_: None), None, ["occlusion"], None, 0, lambda *_: None
    )
    monkeypatch.setattr(check, "_prepared", lambda _: [None])
    monkeypatch.setattr(check, "_orders", lambda *_: [None] * (1 + checking.DRAWS))
    check.subjects = [checking.Subject(None, True, rows={"occlusion": row()})]
    check.perturb(1)
    (found,) = check.subjects[0].rows.values()
    gained = 2 * (steps - 2) / (steps - 1)
    assert (found.deletion_difference, found.deletion_moved) == (pytest.approx(gained), pytest.approx(gained))
    # Insertion begins at the other end: at the first step it is still where it was, and at last it falls.
    assert (found.insertion_difference, found.insertion_moved) == (pytest.approx(gained), pytest.approx(-gained))


def row(patient="P", **values):
    return MapFigures(patient, "m", "E", True, **values)


def test_means_have_intervals_that_hold_them_and_leave_out_what_is_unknown():
    values = [0.1, None, 0.4, 0.7, None, 0.2]
    found = mean_interval(values, seed=1)
    assert found.value == pytest.approx(0.35)
    assert 0.1 <= found.low < found.value < found.high <= 0.7
    assert found == mean_interval(values, seed=1)
    assert mean_interval([None, 0.3], seed=1).to_dict() == {"value": 0.3, "low": None, "high": None}
    assert mean_interval([None], seed=1).value is None


def test_hits_are_counted_over_the_patients_with_a_lesion_to_be_found():
    common = {"random_hit": 0.1, "random_hit_in_field": 0.05, "lesion_share": 0.02}
    rows = [
        row(hit=True, inside=True, distance_mm=0.0, energy=0.5, **common),
        row(hit=True, inside=False, distance_mm=8.0, energy=0.1, **common),
        row(hit=False, inside=False, distance_mm=40.0, energy=0.0, **common),
        row(hit=False, inside=False, **common),  # a map without a peak
        row(),  # a patient without a lesion to be found
    ]
    found = figures.localisation(rows, 10.0, seed=0)
    assert (found["patients"], found["hits"], found["inside"], found["without_peak"]) == (4, 2, 1, 1)
    assert found["hit_rate"]["value"] == 0.5
    assert (found["random"], found["random_in_field"]) == (pytest.approx(0.1), pytest.approx(0.05))
    assert (found["median_distance_mm"], found["distance_mm"]["value"]) == (8.0, 16.0)
    assert found["energy_over_volume"]["value"] == pytest.approx((25 + 5 + 0) / 3)
    assert figures.localisation([row()], 10.0, seed=0) is None


def test_attention_that_follows_the_size_is_told_from_attention_that_does_not():
    sizes = [(1.0, 2.0, 5.0), (4.0, 3.0, 1.0), (1.0, 2.0, 3.0, 4.0)]
    burdens = []
    for lesion in sizes:
        attention = {"follows": lesion, "opposes": [-v for v in lesion], "silent": None}
        correlation = {k: None if v is None else spearman(v, lesion) for k, v in attention.items()}
        burdens.append(Burden(attention, lesion, correlation))
    found = figures.attention_against_burden(burdens, ("follows", "opposes", "silent"), seed=0)
    assert found["chance"] == pytest.approx((1 / 3 + 1 / 3 + 1 / 4) / 3)
    assert found["largest_is_latest"]["value"] == pytest.approx(2 / 3)
    follows, opposes, silent = found["kinds"].values()
    assert (follows["correlation"]["value"], follows["most_is_largest"]["value"]) == (pytest.approx(1), 1)
    assert (opposes["correlation"]["value"], opposes["most_is_largest"]["value"]) == (pytest.approx(-1), 0)
    assert opposes["most_is_latest"]["value"] == pytest.approx(1 / 3)
    assert (silent["correlation"]["value"], silent["most_is_largest"]["value"]) == (None, None)
    assert figures.attention_against_burden([], ("follows",), seed=0) is None


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """Two random networks that read two channels at 4.5 mm."""
    model = ModelConfig.variant("mini", len(CHANNELS))
    description = BundleDescription(
        name="tiny",
        version="1",
        licence="Apache-2.0",
        intended_use="Tests.",
        demonstration=True,
        channels=CHANNELS,
        model=model,
        preprocessing=CONFIG,
        time_unit="months",
        horizon_months=12,
        members=(PLACEHOLDER_MEMBER,),
        model_card_sha256="0" * 64,
    )
    members = []
    for seed in SEEDS[:2]:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            members.append((fresh_network(model).state_dict(), seed))
    return write_bundle(tmp_path_factory.mktemp("bundles") / "tiny", description, members, "# Card\n")


def parameters(model):
    return {name: value for name, value in model.named_parameters() if value.ndim > 1}


def test_randomised_members_have_weights_of_their_own_the_same_for_one_seed(bundle):
    def drawn(*seed, index=0, **words):
        return parameters(RandomisedBundle.of(bundle, fresh_network, seed, **words).member(index))

    trained, first = parameters(bundle.member(0)), drawn(1, 2)
    assert all(torch.equal(value, drawn(1, 2)[name]) for name, value in first.items())
    for other in (trained, drawn(1, 3), drawn(1, 2, index=1)):
        assert not any(torch.equal(value, other[name]) for name, value in first.items())
    kept = drawn(1, 2, keeps_backbone=True)
    assert all(torch.equal(value, trained[name]) == name.startswith("backbone.") for name, value in kept.items())


def test_a_randomised_network_tells_images_apart(bundle):
    model = RandomisedBundle.of(bundle, fresh_network, (0, 0)).member(0)
    images = torch.stack([torch.zeros((2, 24, 24, 24)), torch.ones((2, 24, 24, 24))])
    images[1, :, 8:16, 8:16, 8:16] = 4.0
    dark, bright = model.backbone(images)
    assert float((dark - bright).norm() / dark.norm()) > 0.05


def run(bundle, cohort, out, *words):
    return main(
        [
            *("explain-check", "--bundle", str(bundle.path), "--cohort", str(cohort), "--out", str(out)),
            *("--processes", "1", "--device", "cpu", *map(str, words)),
        ]
    )


SMALL = ("--methods", "class-activation-1", "--patients", 2, "--perturbed", 0)


@pytest.fixture
def cohort(tiny_phantom, tmp_path):
    """A copy that a test may change."""
    return shutil.copytree(tiny_phantom, tmp_path / "cohort")


@pytest.fixture(scope="module")
def checked(bundle, tiny_phantom, tmp_path_factory):
    """A whole check, its folder and its cache."""
    folder = tmp_path_factory.mktemp("checked")
    words = ("--methods", "class-activation-1", "class-activation-2", "--patients", 5, "--perturbed", 2, "--seed", 3)
    words = (*words, "--cache", folder / "cache")
    assert run(bundle, tiny_phantom, folder / "out", *words) == 0
    return SimpleNamespace(
        out=folder / "out", words=words, content=json.loads((folder / "out" / CHECK_FILE).read_text())
    )


def test_a_phantom_cohort_is_checked_and_all_figures_are_there(bundle, tiny_phantom, checked):
    content = checked.content
    assert {p.name for p in checked.out.iterdir()} == FILES
    assert content["bundle"] == {
        "name": "tiny",
        "version": "1",
        "sha256": bundle.sha256,
        "demonstration": True,
        "members": 2,
    }
    cohort = content["cohort"]
    assert cohort["patients"] == 10 == cohort["checked"] + sum(one["patients"] for one in cohort["left_out"])
    assert (cohort["converters"], cohort["phantom"], cohort["truth"], cohort["seed"]) == (4, True, True, 3)
    assert cohort["converters_with_visible_lesion"] + cohort["converters_with_lesion_outside_field"] == 4
    assert list(content["methods"]) == ["class-activation-1", "class-activation-2"]
    for method in content["methods"].values():
        found = method["localisation"]
        assert found["patients"] == cohort["converters_with_visible_lesion"] > 0
        assert 0 <= found["inside"] <= found["hits"] <= found["patients"]
        assert 0 < found["random"] < 0.5
        assert 0 <= found["energy"]["value"] <= 1
        assert method["randomised"]["head_draws"] == 3
        assert method["randomised"]["patients"] == 5
        for same, other in (
            ("magnitude_randomised", "magnitude_other_patient"),
            ("overlap_randomised", "overlap_other_patient"),
        ):
            assert method["randomised"][same] != method["randomised"][other]
        assert method["perturbation"]["patients"] == method["stability"]["patients"] == 2
        deletion, insertion = (method["perturbation"][kind]["curve"] for kind in ("deletion", "insertion"))
        assert len(deletion) == len(FRACTIONS)
        assert deletion[0] == pytest.approx(insertion[-1])
        assert deletion[-1] == pytest.approx(insertion[0])
        assert method["stability"]["correlation"]["value"] > 0.5
        assert method["cost"]["measured"] > 0
    assert set(content["attention"]["kinds"]) == {"rollout", "gradient-weighted"}
    with (checked.out / "explain_check.csv").open() as stream:
        explained = {r["patient_id"] for r in csv.DictReader(stream)}
    read = read_input(tiny_phantom)
    exams = [
        len(one.latest_labelled(12)[0].exams) for one in select(read).followed if one.patient.patient_id in explained
    ]
    assert min(exams) < 3
    assert content["attention"]["patients"] == sum(count >= 3 for count in exams)


def test_patients_with_the_diagnosis_come_first_and_each_has_a_row_per_method(tiny_phantom, checked):
    with (checked.out / "explain_check.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [r["method"] for r in rows] == ["class-activation-1", "class-activation-2"] * 5
    assert [r["label"] for r in rows] == ["1"] * 8 + ["0"] * 2
    assert {r["patient_id"] for r in rows[:8]} == {"PH00001", "PH00002", "PH00009", "PH00010"}
    truth = find_truth(tiny_phantom)
    for r in rows:
        assert float(r["lesion_ml"]) == truth.size(r["patient_id"], r["landmark"])
        assert NOTICE in r["notice"]
        assert (r["hit"] == "") == (r["label"] == "0")
        if r["distance_mm"]:
            assert (r["hit"] == "1") == (float(r["distance_mm"]) <= WITHIN_MM)
    assert sum(r["deletion_difference"] != "" for r in rows) == 4
    for key, method in checked.content["methods"].items():
        for kind in ("deletion", "insertion"):
            told = method["perturbation"][kind]
            of_rows = [float(r[f"{kind}_difference"]) for r in rows if r["method"] == key and r[f"{kind}_difference"]]
            assert told["difference"]["value"] == pytest.approx(np.mean(of_rows))
            of_curves = area(np.array(told["curve"])) - area(np.array(told["random"]))
            assert told["difference"]["value"] == pytest.approx(of_curves, abs=1e-9)
    hits = sum(r["hit"] == "1" for r in rows if r["method"] == "class-activation-2")
    assert hits == checked.content["methods"]["class-activation-2"]["localisation"]["hits"]


def without_times(content):
    return {**content, "methods": {k: {**m, "cost": None} for k, m in content["methods"].items()}}


def test_one_seed_gives_one_result_whatever_other_methods_are_chosen(bundle, tiny_phantom, checked, tmp_path):
    assert run(bundle, tiny_phantom, tmp_path / "a", *checked.words, "--methods", "class-activation-1") == 0
    again = json.loads((tmp_path / "a" / CHECK_FILE).read_text())
    first = {**checked.content, "methods": {"class-activation-1": checked.content["methods"]["class-activation-1"]}}
    assert without_times(again) == without_times(first)
    assert run(bundle, tiny_phantom, tmp_path / "b", *checked.words, *SMALL, "--perturbed", 1, "--seed", 4) == 0
    other = json.loads((tmp_path / "b" / CHECK_FILE).read_text())["methods"]["class-activation-1"]
    assert other["randomised"] != again["methods"]["class-activation-1"]["randomised"]


def test_the_page_stands_alone_names_no_patient_and_holds_every_section(checked):
    page = (checked.out / "explain_check.html").read_text()
    for heading in (
        *("Methods", "Does the map point at the lesion?", "Does the map show what was learned?"),
        *("Does the output follow the evidence?", "Does the map stand a little noise?"),
        *("Does attention follow the lesion's size?", "What this does not tell", "Who was explained", "Provenance"),
    ):
        assert f"<h2>{heading}</h2>" in page
    assert "not for clinical use" in page
    assert "default-src 'none'" in page
    assert "PH0000" not in page
    assert not re.search(r"src=|href=|<script|>nan<|None|-0\.", page)
    assert len(re.findall(r'role="img" aria-label="[^"]+"', page)) == 5  # hits, random weights, two panels, attention


def test_a_cohort_without_truth_and_outcomes_is_checked_for_the_rest(bundle, cohort, tmp_path, capsys):
    shutil.rmtree(cohort / "truth")
    (cohort / "outcomes.csv").unlink()
    assert run(bundle, cohort, tmp_path / "out", *SMALL, "--perturbed", 1, "--patients", 3) == 0
    content, said = json.loads((tmp_path / "out" / CHECK_FILE).read_text()), capsys.readouterr().out
    method = content["methods"]["class-activation-1"]
    assert (method["localisation"], content["attention"]) == (None, None)
    assert method["perturbation"]["patients"] == method["stability"]["patients"] == 1
    assert method["randomised"]["patients"] == 3
    assert (content["cohort"]["converters"], content["cohort"]["converters_with_visible_lesion"]) == (None, None)
    assert "Nobody knows where the lesions of this cohort are" in said
    assert "No outcomes were found: patients are explained at their latest exam" in said
    page = (tmp_path / "out" / "explain_check.html").read_text()
    assert page.count("It could not be measured on this cohort.") == 2
    with (tmp_path / "out" / "explain_check.csv").open() as stream:
        for r in csv.DictReader(stream):
            assert r["landmark"] == max(p.name for p in (cohort / r["patient_id"]).iterdir())
    with pytest.raises(Refusal, match="does not say how often the peak of class-activation-1 lay at a lesion"):
        find_check(bundle, "class-activation-1", tmp_path / "out" / CHECK_FILE)


def test_one_patient_has_no_other_to_be_compared_with_and_a_method_by_voxels_is_checked_alike(
    bundle, tiny_phantom, tmp_path
):
    words = ("--methods", "class-activation-1", "occlusion", "--patients", 1, "--perturbed", 0)
    assert run(bundle, tiny_phantom, tmp_path / "out", *words) == 0
    methods = json.loads((tmp_path / "out" / CHECK_FILE).read_text())["methods"]
    method = methods["class-activation-1"]
    assert methods["occlusion"]["cost"]["measured"] > 10 * method["cost"]["measured"]
    assert methods["occlusion"]["randomised"]["like_randomised"]["value"] is not None
    assert method["randomised"]["like_other_patient"]["value"] is None
    assert method["randomised"]["like_randomised"]["value"] is not None
    assert (method["perturbation"], method["stability"]) == (None, None)


def test_what_can_not_be_checked_is_refused_in_a_sentence(bundle, cohort, tmp_path, capsys):
    def refused(cohort=cohort):
        assert run(bundle, cohort, tmp_path / "out", *SMALL) == 1
        return capsys.readouterr().err

    assert "the folder of one patient" in refused(cohort / "PH00001")
    table = (cohort / "truth" / "exams.csv").read_text()
    (cohort / "truth" / "exams.csv").write_text(table.replace("lesion_ml", "volume"))
    assert "exams.csv lacks the column(s) lesion_ml" in refused()
    (cohort / "truth" / "exams.csv").write_text(re.sub(r"(PH00001,[^,]*,[^,]*),[^,]*", r"\1,much", table, count=1))
    assert "truth/exams.csv, row 2: lesion_ml is no volume" in refused()
    (cohort / "truth" / "exams.csv").unlink()
    assert "exams.csv does not exist. Check the name and the folder." in refused()
    (cohort / "outcomes.csv").write_text("patient_id,diagnosis_date,last_seen_date\nPH00001,soon,2020-01-01\n")
    assert "outcomes.csv, row 2: dates must be written 2021-03-14" in refused()
    assert not list((tmp_path / "out").glob("*"))


def test_patients_whose_truth_does_not_fit_are_refused_and_the_others_checked(bundle, cohort, tmp_path, capsys):
    masks = {p: sorted((cohort / "truth" / p).glob("*/lesion.nii.gz"))[-1] for p in ("PH00001", "PH00002", "PH00009")}
    write_nifti(masks["PH00001"], np.zeros((20, 20, 20)), np.diag([5.0, 5.0, 5.0, 1.0]))
    masks["PH00002"].write_bytes(masks["PH00002"].read_bytes()[:200])
    masks["PH00009"].unlink()
    exams = sorted(p.name for p in (cohort / "PH00009").iterdir())
    assert run(bundle, cohort, tmp_path / "out", *SMALL, "--patients", 5) == 3
    said, content = capsys.readouterr().out, json.loads((tmp_path / "out" / CHECK_FILE).read_text())
    assert "PH00001: refused. truth/…/" in said
    assert "lesion.nii.gz lies on another grid than exam" in said
    assert "PH00002: refused. truth/…/" in said
    assert f"PH00009: refused. truth/…/{exams[-1]}/lesion.nii.gz does not exist" in said
    assert {one["patient_id"] for one in content["refused"]} == {"PH00001", "PH00002", "PH00009"}
    cohort_said = content["cohort"]
    assert cohort_said["patients"] == sum(
        (cohort_said["checked"], cohort_said["refused"], *(one["patients"] for one in cohort_said["left_out"]))
    )
    assert "3 patient(s) could not be explained" in said


def test_a_check_is_written_beside_the_bundle_and_found_there(bundle, tiny_phantom, tmp_path, capsys):
    own = Bundle.open(shutil.copytree(bundle.path, tmp_path / "own"))
    assert find_check(own, "class-activation-1") is None
    assert run(own, tiny_phantom, tmp_path / "out", *SMALL, "--beside-bundle") == 0
    file = tmp_path / "own.explain-check.json"
    assert beside(own) == file
    assert str(file) in capsys.readouterr().out
    assert file.read_bytes() == (tmp_path / "out" / CHECK_FILE).read_bytes()
    Bundle.open(own.path)  # nothing was put into it
    found = json.loads(file.read_text())["methods"]["class-activation-1"]["localisation"]
    assert find_check(own, "class-activation-1") == {
        **{key: found[key] for key in ("patients", "hits", "inside", "within_mm", "random")},
        "cohort": "cohort",
        "phantom": True,
    }
    assert find_check(own, "occlusion") is None


def test_an_unwritable_place_beside_the_bundle_is_refused_before_the_work(
    bundle, tiny_phantom, tmp_path, monkeypatch, capsys
):
    def refuse(place):
        if place == bundle.path.parent:
            raise Refusal("cannot_write", f"Nothing could be written into {place}: Read-only file system.")

    monkeypatch.setattr(explain_check, "check_writable", refuse)
    assert run(bundle, tiny_phantom, tmp_path / "out", *SMALL, "--beside-bundle") == 1
    assert f"Nothing could be written into {bundle.path.parent}" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def check_of(checked_bundle, **changes):
    found = {"patients": 40, "hits": 38, "inside": 30, "within_mm": 10.0, "random": 0.05}
    content = {
        "format_version": 1,
        "bundle": {"sha256": checked_bundle.sha256},
        "cohort": {"name": "test", "phantom": True},
        "methods": {"occlusion": {"localisation": {**found, **changes.pop("found", {})}}},
    }
    return {**content, **changes}


def test_a_whole_check_is_quoted(bundle, tmp_path):
    file = tmp_path / "check.json"
    file.write_text(json.dumps(check_of(bundle)))
    assert find_check(bundle, "occlusion", file) == {
        "patients": 40,
        "hits": 38,
        "inside": 30,
        "within_mm": 10.0,
        "random": 0.05,
        "cohort": "test",
        "phantom": True,
    }
    file.write_text(json.dumps(check_of(bundle, methods={"occlusion": {"localisation": None}})))
    with pytest.raises(Refusal, match="this method was not checked"):
        find_check(bundle, "occlusion", file)


@pytest.mark.parametrize(
    "changes",
    [
        {"format_version": 2},
        {"format_version": True},
        {"bundle": {"sha256": "x"}},
        {"bundle": []},
        {"cohort": {"name": 5, "phantom": True}},
        {"cohort": {"name": "test", "phantom": 1}},
        {"methods": []},
        {"methods": {"occlusion": {}}},
        {"methods": {"occlusion": {"localisation": []}}},
        {"found": {"patients": 0}},
        {"found": {"hits": 41}},
        {"found": {"inside": 39}},
        {"found": {"inside": -1}},
        {"found": {"hits": 38.0}},
        {"found": {"hits": True}},
        {"found": {"random": 1.5}},
        {"found": {"random": float("nan")}},
        {"found": {"random": None}},
        {"found": {"within_mm": 0}},
        {"found": {"within_mm": float("inf")}},
        {"found": {"within_mm": 10**400}},
    ],
    ids=str,
)
def test_a_damaged_check_is_refused_where_it_was_named_and_passed_over_where_it_lies_there(bundle, tmp_path, changes):
    own = Bundle.open(shutil.copytree(bundle.path, tmp_path / "own"))
    beside(own).write_text(json.dumps(check_of(bundle, **changes)))
    assert find_check(own, "occlusion") is None
    with pytest.raises(Refusal, match="can't be used as a check of maps") as refusal:
        find_check(own, "occlusion", beside(own))
    assert refusal.value.code == "damaged_check"


def test_another_bundles_check_and_what_is_no_check_are_told_apart(bundle, tmp_path):
    own = Bundle.open(shutil.copytree(bundle.path, tmp_path / "own"))
    cases = {
        json.dumps(check_of(bundle, bundle={"sha256": "0" * 64})): (
            "other_bundle",
            "the check of another bundle than tiny 1",
        ),
        "{": ("damaged_check", "it is not JSON"),
        "[" * 100_000: ("damaged_check", "it is not JSON"),
        "[1]": ("damaged_check", "format_version is missing"),
    }
    for text, (code, words) in cases.items():
        beside(own).write_text(text)
        assert find_check(own, "occlusion") is None
        with pytest.raises(Refusal, match=words) as refusal:
            find_check(own, "occlusion", beside(own))
        assert refusal.value.code == code
    with pytest.raises(Refusal, match=r"nowhere\.json can't be opened"):
        find_check(own, "occlusion", Path(tmp_path / "nowhere.json"))


def test_the_truth_is_read_back_as_it_was_written(tiny_phantom):
    truth = find_truth(tiny_phantom)
    described = json.loads((tiny_phantom / "truth" / "PH00001" / "truth.json").read_text())["exams"]
    patient = next(p for p in read_input(tiny_phantom).patients if p.patient_id == "PH00001")
    for exam, words in zip(patient.exams, described, strict=True):
        grid = exam.images[CHANNELS[0]].grid
        masks = truth.exam("PH00001", exam.exam_id, grid)
        assert truth.size("PH00001", exam.exam_id) == pytest.approx(words["lesion_ml"])
        assert masks.lesion.sum() * np.prod(grid.spacing) / 1000 == pytest.approx(words["nodule_mask_ml"][0], abs=1e-4)
        organs = nib.load(tiny_phantom / "truth" / "PH00001" / exam.exam_id / "organs.nii.gz").get_fdata()
        assert {31, 32} & set(np.unique(organs).astype(int))  # vessels and cysts lie in the liver and are none
        np.testing.assert_array_equal(masks.liver, (organs == 5) | masks.lesion)
    with pytest.raises(Refusal, match=r"truth/exams\.csv has no row for exam 1999-01-01"):
        truth.size("PH00001", "1999-01-01")
    assert find_truth(tiny_phantom / "PH00001") is None
