from __future__ import annotations

import dataclasses
import datetime
from itertools import pairwise

import numpy as np
import pytest
from nodule_visibility import VISIBLE, visibility

from HCCNetLib.preprocessing import PreprocessingConfig
from HCCNetLib.preprocessing.geometry import apply_affine
from HCCNetLib.synthetic.acquisition import SCANNERS, AcquisitionModel, draw_acquisition, draw_deformed, draw_scanners
from HCCNetLib.synthetic.brightness import VIEWS, ask_about_brightness, measure_brightness, prepare
from HCCNetLib.synthetic.disease import sphere_ml
from HCCNetLib.synthetic.looks import LooksModel, NoduleLooks, draw_looks, draw_nodule
from HCCNetLib.synthetic.phantom import DEFAULT_CHANNELS, PhantomModel, draw_phantom
from HCCNetLib.synthetic.placement import expected_window
from HCCNetLib.synthetic.rendering import ORGAN_LABELS, render_exam
from HCCNetLib.synthetic.shapes import Raster, at_points
from HCCNetLib.synthetic.surveillance import SurveillanceModel
from HCCNetLib.synthetic.tissues import TISSUES
from HCCNetLib.synthetic.warp import WarpModel, draw_warp

COARSE = PhantomModel(acquisition=AcquisitionModel(spacing=5.0))
PATIENTS = 20
DATES = [datetime.date(2015 + year, 1, 1) for year in range(8)]


@pytest.fixture(scope="module")
def phantoms():
    return [draw_phantom(COARSE, 0, index) for index in range(PATIENTS)]


@pytest.fixture(scope="module")
def exams(phantoms):
    """(phantom, number of its last exam, rendered exam)."""
    last = [(phantom, len(phantom.acquisitions) - 1) for phantom in phantoms]
    return [(phantom, number, render_exam(COARSE, phantom, number)) for phantom, number in last]


def solid(phantom):
    return [nodule for nodule in phantom.nodules if nodule.is_solid]


def surface(phantom, nodule, exam):
    """Points on a nodule's surface in the exam's patient space, mm."""
    directions = np.random.default_rng(0).standard_normal((100, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    acquisition = phantom.acquisitions[exam]
    shape = nodule.shape_in(acquisition, exam)
    return apply_affine(acquisition.organs, np.array(shape.centre) + directions * shape.semi_axes @ shape.rotation.T)


def test_surveillance_is_what_is_made_unless_another_disease_is_asked_for():
    assert isinstance(PhantomModel().disease, SurveillanceModel)


def test_all_solid_nodules_of_the_course_are_there_in_its_order(phantoms):
    for phantom in phantoms:
        of_course = [nodule for nodule in phantom.course.nodules if nodule.kind != "cyst"]
        assert [n.diameters for n in phantom.nodules[: len(of_course)]] == [n.diameters for n in of_course]
        assert [n.kind for n in phantom.nodules[: len(of_course)]] == [n.kind for n in of_course]
        assert not any(nodule.is_solid for nodule in phantom.nodules[len(of_course) :])


def test_solid_nodules_lie_wholly_in_what_the_network_reads_at_every_exam(phantoms):
    for phantom in phantoms:
        for exam, acquisition in enumerate(phantom.acquisitions):
            window = expected_window(acquisition, phantom.anatomy.wall, PreprocessingConfig())
            for nodule in solid(phantom):
                assert window.fraction_inside(surface(phantom, nodule, exam)) == 1.0


def test_so_preprocessing_finds_on_the_voxels(exams):
    for phantom, exam, rendered in exams:
        window = prepare(rendered, DEFAULT_CHANNELS).window
        for nodule in solid(phantom):
            assert window.fraction_inside(surface(phantom, nodule, exam)) == 1.0


@pytest.mark.slow
@pytest.mark.parametrize(("spacing", "channel"), [(3.0, "DWI_b0"), (5.0, "DWI_b0"), (3.0, "T1_native")])
def test_so_preprocessing_finds_in_many_patients(spacing, channel):
    model = PhantomModel(channels=(channel,), acquisition=AcquisitionModel(spacing=spacing))
    for index in range(100):
        phantom = draw_phantom(model, 2, index)
        for exam in range(len(phantom.acquisitions)):
            window = prepare(render_exam(model, phantom, exam), (channel,)).window
            for nodule in solid(phantom):
                assert window.fraction_inside(surface(phantom, nodule, exam)) == 1.0, (index, exam)


def test_nodules_lie_in_the_liver_and_apart_at_every_exam(phantoms):
    """Their surfaces, where breath and deformation have moved them."""
    for phantom in phantoms:
        for exam, acquisition in enumerate(phantom.acquisitions):
            there = [nodule for nodule in phantom.nodules if nodule.diameters[exam] > 0]
            for number, nodule in enumerate(there):
                points = surface(phantom, nodule, exam)
                before = acquisition.to_anatomy(points)
                assert (phantom.anatomy.liver.distance(at_points(before)) < 0).all()
                unmoved = apply_affine(np.linalg.inv(acquisition.organs), points)
                for other in there[:number]:
                    assert (other.shape_in(acquisition, exam).distance(at_points(unmoved)) > 0).all()


def test_places_tell_neither_kind_nor_size():
    """Over many patients: distance from the middle of all nodules, ranked, against kind and size."""
    found = [nodule for index in range(60) for nodule in solid(draw_phantom(COARSE, 3, index))]
    centres = np.array([nodule.centre for nodule in found])
    away = np.linalg.norm(centres - centres.mean(axis=0), axis=1)
    benign = np.array([nodule.kind == "benign" for nodule in found])
    sizes = np.array([max(nodule.diameters) for nodule in found])
    assert abs(away[benign].mean() - away[~benign].mean()) < 3.5 * away.std() / np.sqrt((~benign).sum())
    assert abs(np.corrcoef(away, sizes)[0, 1]) < 0.2


def test_a_mask_has_the_volume_that_the_truth_says(exams):
    ratios = []
    for phantom, exam, rendered in exams:
        for number, nodule in enumerate(solid(phantom), 1):
            if nodule.diameters[exam] > 22:
                volume = (rendered.lesion == number).sum() * np.prod(rendered.grid.spacing) / 1000
                ratios.append(volume / sphere_ml(nodule.diameters[exam]))
    assert len(ratios) > 8
    assert np.mean(ratios) == pytest.approx(1, abs=0.06)  # voxels are coarse
    assert min(ratios) > 0.8
    assert max(ratios) < 1.2


def test_a_mask_lies_where_the_truth_says_on_grids_that_are_tilted_and_flipped(exams):
    for phantom, exam, rendered in exams:
        for number, nodule in enumerate(phantom.nodules, 1):
            inside = np.argwhere(rendered.lesion == number).astype(float)
            assert (len(inside) > 0) == (nodule.is_solid and nodule.diameters[exam] > 0)
            if len(inside):
                expected = phantom.acquisitions[exam].to_patient(np.array([nodule.centre]))[0]
                found = apply_affine(rendered.grid.affine, inside).mean(axis=0)
                assert np.linalg.norm(found - expected) < 0.6 * np.linalg.norm(rendered.grid.spacing)
                assert (rendered.organs[rendered.lesion == number] == ORGAN_LABELS["liver"]).all()


def test_organ_points_return_from_patient_space():
    points = np.random.default_rng(0).uniform(-120, 120, (500, 3))
    for seed in range(20):
        (acquisition,) = draw_deformed(AcquisitionModel(), [SCANNERS[seed % 3]], np.random.default_rng(seed))
        np.testing.assert_allclose(acquisition.to_anatomy(acquisition.to_patient(points)), points, atol=1e-4)
        moved = np.linalg.norm(acquisition.deformed(points) - points, axis=1)
        assert 1 < moved.max() < 8.2


def test_without_deformation_organ_points_follow_the_affine_alone():
    acquisition = draw_acquisition(AcquisitionModel(), np.random.default_rng(0))
    points = np.random.default_rng(0).uniform(-120, 120, (50, 3))
    np.testing.assert_allclose(acquisition.to_patient(points), apply_affine(acquisition.organs, points))


def test_a_grid_is_bent_as_its_points_are():
    """The plane waves that are worked out axis by axis, against the formula, on tilted and flipped grids."""
    for seed in range(5):
        (acquisition,) = draw_deformed(AcquisitionModel(spacing=8.0), SCANNERS[:1], np.random.default_rng(seed))
        raster = Raster(acquisition.grid.shape, acquisition.index_to_organs())
        i, j, k = raster.shape
        at = raster.points((slice(0, i), slice(0, j), slice(0, k)))
        acquisition.warp.bend(at, raster.to_anatomy)
        bent = np.stack(at, axis=-1).reshape(-1, 3)
        index = np.argwhere(np.ones(raster.shape, dtype=bool)).astype(float)
        expected = acquisition.to_anatomy(apply_affine(acquisition.grid.affine, index))
        np.testing.assert_allclose(bent, expected, atol=2e-3)


def test_the_deformation_changes_volumes_by_a_few_per_cent_at_most():
    step = 0.01 * np.eye(3)
    points = np.random.default_rng(0).uniform(-100, 100, (300, 3))
    for seed in range(10):
        warp = draw_warp(WarpModel(), np.random.default_rng(seed))
        jacobian = np.stack([(warp.before(points + s) - warp.before(points - s)) / 0.02 for s in step], axis=-1)
        assert np.abs(np.linalg.det(jacobian) - 1).max() < 0.05


def test_a_change_of_scanner_depends_on_time_alone():
    """As many changes per month in short histories as in long ones, and about as many as the model says."""
    model = AcquisitionModel()
    rates = []
    for dates in (DATES[:2], DATES):
        histories = [draw_scanners(model, dates, np.random.default_rng(seed)) for seed in range(400)]
        changed = np.mean([a != b for history in histories for a, b in pairwise(history)])
        rates.append(changed)
    assert rates[0] == pytest.approx(rates[1], abs=0.05)
    assert 0.06 < rates[1] < 0.13  # 1% a month for 12 months, less what changes back
    assert {history[0].name for history in histories} == {"A", "B", "C"}


def test_scanners_differ_in_spacing_and_noise(phantoms):
    taken = [acquisition for phantom in phantoms for acquisition in phantom.acquisitions]
    noise = {name: np.mean([a.noise for a in taken if a.scanner.name == name]) for name in "ABC"}
    assert noise["B"] > noise["A"] > noise["C"]
    thick = {name: np.mean([max(a.grid.spacing) for a in taken if a.scanner.name == name]) for name in "ABC"}
    assert thick["B"] > 1.15 * thick["A"]


def test_tumours_and_benign_nodules_have_one_distribution_of_looks():
    """Their signal at b 800 and in the arterial phase, relative to the liver's at the same exam."""
    ratios = {"tumour": [], "benign": []}
    for index in range(60):
        phantom = draw_phantom(COARSE, 4, index)
        for nodule in solid(phantom):
            tissues = nodule.tissues[-1], phantom.looks[-1].tissues["liver"]
            one, liver = (tissue.signal(("DWI_b800", "T1_arterial")) for tissue in tissues)
            ratios[nodule.kind].append(np.log(one / liver))
    tumour, benign = (np.array(ratios[kind]) for kind in ("tumour", "benign"))
    error = np.sqrt(tumour.var(axis=0) / len(tumour) + benign.var(axis=0) / len(benign))
    assert (np.abs(tumour.mean(axis=0) - benign.mean(axis=0)) < 3.5 * error).all()
    assert tumour.std(axis=0) == pytest.approx(benign.std(axis=0), rel=0.25)


def test_looks_are_the_same_whatever_the_disease_does():
    """The same patient with faster tumours: anatomy, looks and scanners at the exams that both have stay as they were."""
    fast = dataclasses.replace(COARSE, disease=SurveillanceModel(doubling=2.5))
    for index in range(10):
        one, other = draw_phantom(COARSE, 0, index), draw_phantom(fast, 0, index)
        assert one.anatomy.skin == other.anatomy.skin
        assert one.looks[0] == other.looks[0]
        assert one.acquisitions[0].scanner == other.acquisitions[0].scanner


def test_nodules_are_bright_and_dark_and_sometimes_like_the_liver():
    rng = np.random.default_rng(0)
    liver = TISSUES["liver"]
    drawn = [tissue for _ in range(500) for tissue in draw_nodule(NoduleLooks(), [liver] * 2, rng)]
    contrasts = {}
    for channel in ("DWI_b0", "DWI_b800", "T1_native", "T1_venous"):
        contrast = np.log([float(t.signal((channel,))[0] / liver.signal((channel,))[0]) for t in drawn])
        assert (contrast > 0.15).mean() > 0.03
        assert (contrast < -0.15).mean() > 0.05
        assert (np.abs(contrast) < 0.1).mean() > 0.04
        contrasts[channel] = np.abs(contrast)
    # The true risk given what images show measures each nodule at every exam: one that is lost in all channels has no size.
    assert (np.maximum(contrasts["DWI_b0"], contrasts["DWI_b800"]) < 0.15).mean() < 0.02


def test_the_liver_changes_between_patients_and_exams():
    looks = [draw_looks(LooksModel(), DATES, [1.0] * 8, np.random.default_rng(seed)) for seed in range(100)]
    logs = np.log([[look.tissues["liver"].s0 for look in patient] for patient in looks])
    assert logs.mean(axis=1).std() > 0.15
    assert logs.std(axis=1).mean() > 0.08


def test_most_nodules_of_a_centimetre_can_be_seen():
    model = PhantomModel()
    seen = []
    for index in range(5):
        phantom = draw_phantom(model, 11, index)
        exam = len(phantom.acquisitions) - 1
        large = [n for n, nodule in enumerate(solid(phantom), 1) if nodule.diameters[exam] >= 10]
        rendered = render_exam(model, phantom, exam) if large else None
        seen += [max(visibility(phantom, exam, rendered, number).values(), default=0) > VISIBLE for number in large]
    assert len(seen) >= 8
    assert np.mean(seen) > 0.7


def test_cysts_are_labelled_and_not_in_the_lesion_mask(exams):
    found = 0
    for phantom, exam, rendered in exams:
        cysts = [n for n in phantom.nodules if n.kind == "cyst" and n.diameters[exam] > 9]
        found += len(cysts)
        assert (rendered.organs == ORGAN_LABELS["cyst"]).any() or not cysts
        assert not ((rendered.organs == ORGAN_LABELS["cyst"]) & (rendered.lesion > 0)).any()
    assert found > 2


@pytest.fixture(scope="module")
def measured():
    return measure_brightness(dataclasses.replace(COARSE, channels=("DWI_b0", "DWI_b800")), 0, range(8))


def test_the_share_of_bright_voxels_does_not_give_the_size_of_nodules(measured):
    """In growth, one lesion of the same looks at every exam, this correlation is 0.99."""
    table = ask_about_brightness(measured * 3, 12.0)
    assert all(abs(value) < 0.6 for value in table["rank_correlation_with_volume"].values())


def test_brightness_is_asked_for_by_landmark_number(measured):
    table = ask_about_brightness(measured * 3, 12.0)
    rows = {row["view"]: row["auroc"] for row in table["results"]}
    assert set(rows) == set(VIEWS)
    for row in rows.values():
        assert set(row) == {"1", "2", "3", "4 or more", "all"}
        assert 0 <= row["all"]["value"] <= 1
