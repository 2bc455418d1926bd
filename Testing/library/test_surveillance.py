"""The disease model of surveillance: a stationary process, its true risk and its oracle, and what a cohort of it holds."""

from __future__ import annotations

import csv
import itertools
import json
import shutil

import nibabel as nib
import numpy as np
import pytest
from scipy.stats import kstest

from HCCNetLib.commands.main import main
from HCCNetLib.evaluation.discrimination import auroc
from HCCNetLib.evaluation.follow_up import COMPETING, cumulative_incidence, follow_up_of
from HCCNetLib.readers import read_input
from HCCNetLib.readers.clinical import read_clinical
from HCCNetLib.records import Refusal, months_between
from HCCNetLib.synthetic import cohort as writing
from HCCNetLib.synthetic.acquisition import AcquisitionModel
from HCCNetLib.synthetic.cohort import CohortPlan, synthesize
from HCCNetLib.synthetic.disease import draw_courses
from HCCNetLib.synthetic.phantom import PhantomModel
from HCCNetLib.synthetic.surveillance import (
    SurveillanceModel,
    diameter_of,
    doublings,
    triangle_wave,
)
from HCCNetLib.synthetic.surveillance_oracle import VIEWS, features, tabulate_landmarks
from HCCNetLib.synthetic.true_risk import SEEN_MM, Measured, TrueRisk, measure
from HCCNetLib.synthetic.truth import find_truth

MODEL = SurveillanceModel()
MAIN = MODEL.horizons.index(MODEL.horizon)


@pytest.fixture(scope="module")
def courses():
    return draw_courses(MODEL, 0, range(4000))


@pytest.fixture(scope="module")
def follow_up(courses):
    return follow_up_of((course.dates, course.outcome) for course in courses)


@pytest.fixture(scope="module")
def table(courses):
    return tabulate_landmarks(MODEL, courses[:500], 0, lambda *_: None)


# ---------------------------------------------------------------- the process


def test_the_risk_is_the_same_at_every_landmark_number(follow_up):
    """By construction 1 − exp(−rate · h), a little later for the delay, a little less for deaths."""
    for number in range(1, 6):
        rows = follow_up.of(follow_up.numbers == number)
        observed = cumulative_incidence(rows, np.array([12.0, 36.0]), np.ones((1, len(rows))))[0]
        error = 3.5 * np.sqrt(observed * (1 - observed) / len(rows))
        assert abs(observed[0] - 0.131) < error[0]
        assert abs(observed[1] - 0.345) < error[1]


def test_neither_the_number_of_exams_nor_the_last_gap_tells_what_comes(courses):
    for exam in (1, 2, 3):
        rows = [c for c in courses if len(c.dates) > exam and c.label(exam, 12) is not None]
        labels = np.array([c.label(exam, 12) for c in rows])
        for months in ([months_between(c.dates[exam - 1], c.dates[exam]) for c in rows],
                       [months_between(c.dates[0], c.dates[exam]) for c in rows]):  # fmt: skip
            assert abs(auroc(labels, np.array(months)) - 0.5) < 0.04


def test_gaps_and_events_have_the_distributions_that_the_model_states(courses):
    gaps = np.array([months_between(a, b) for c in courses for a, b in itertools.pairwise(c.dates)])
    assert gaps.min() > 0.9
    assert gaps.max() < 24.1
    assert np.median(gaps) < np.sqrt(24)  # the end of the follow-up cuts long gaps more often
    drawn = MODEL.draw_gaps(np.random.default_rng(0), 5000)
    assert kstest(np.log(drawn) / np.log(24), "uniform").pvalue > 1e-3
    competing = [c for c in courses if c.outcome.competing_date]
    waits = [months_between(c.dates[0], c.outcome.competing_date) for c in competing]
    total = 1 / (MODEL.onset_rate + MODEL.death_rate + MODEL.loss_rate + 1 / MODEL.study)
    assert kstest(waits, "expon", args=(0, total)).pvalue > 1e-3
    assert max(len(c.dates) for c in courses) == MODEL.most_exams


def test_a_tumour_doubles_in_its_time_and_is_diagnosed_after_the_threshold(courses):
    for course in courses[:600]:
        for nodule in (n for n in course.nodules if n.kind == "tumour"):
            assert max(nodule.diameters) < course.threshold  # nobody is undiagnosed above it at an exam
            there = [k for k, size in enumerate(nodule.diameters) if size]
            for a, b in itertools.pairwise(there):
                months = months_between(course.dates[a], course.dates[b])
                grown = doublings(nodule.diameters[b]) - doublings(nodule.diameters[a])
                assert grown == pytest.approx(months * nodule.doublings_per_month, abs=0.02)
            assert all(4 - 1e-9 <= nodule.diameters[k] <= 40 for k in there)
    rates = np.array([n.doublings_per_month for c in courses for n in c.nodules if n.kind == "tumour"])
    # Slow tumours are there for longer: the median among those seen is above that of those that begin.
    assert 5.0 < np.median(1 / rates) < 6.5


def test_no_exam_is_dated_on_or_after_the_event(courses):
    assert all(c.dates[-1] < c.outcome.followed_until for c in courses)
    assert all(c.outcome.event_date is None or c.outcome.event_date == c.outcome.last_seen_date for c in courses)


def test_benign_nodules_are_stationary_and_some_shrink(courses):
    long = [c for c in courses if len(c.dates) >= 5]
    first, last = ([n.diameters[k] for c in long for n in c.nodules if n.kind == "benign"] for k in (0, 4))
    assert np.mean(first) == pytest.approx(np.mean(last), rel=0.02)
    rates = np.array([n.doublings_per_month for c in courses for n in c.nodules if n.kind == "benign"])
    assert 0.05 < (rates == 0).mean() < 0.15
    assert 0.2 < (rates < 0).mean() < 0.45


def test_a_triangle_wave_rises_and_falls_between_its_bounds():
    times = np.linspace(0, 200, 2001)
    wave = triangle_wave(times, 0.3, 0.1, 0.2, 5.0, 9.0)
    assert wave.min() == pytest.approx(5, abs=0.01)
    assert wave.max() == pytest.approx(9, abs=0.01)
    steps = np.diff(wave) / 0.1
    assert np.isclose(steps, 0.1, atol=1e-6).mean() == pytest.approx(2 / 3, abs=0.05)  # twice as long upward


def test_volume_and_diameter_are_inverse():
    np.testing.assert_allclose(diameter_of(doublings(np.array([4.0, 20.0]))), [4.0, 20.0])
    assert 2 ** float(doublings(20.0)) == pytest.approx(np.pi / 6 * 8000)


def test_a_patient_does_not_depend_on_who_else_is_drawn(courses):
    assert MODEL.draw(0, 1234) == courses[1234]
    assert MODEL.draw(1, 1234) != courses[1234]


def test_a_rate_that_no_process_has_is_refused_by_name():
    with pytest.raises(Refusal, match="onset_rate must be above 0; it is 0"):
        SurveillanceModel(onset_rate=0)


def test_a_competing_event_and_a_diagnosis_are_told_apart(courses, follow_up):
    competing = {c.index for c in courses if c.outcome.competing_date}
    assert set(follow_up.patients[follow_up.status == COMPETING]) == competing
    assert all(c.outcome.diagnosis_date is None for c in courses if c.index in competing)


# ---------------------------------------------------------------- its true risk


def test_the_true_risks_are_calibrated_at_every_horizon(courses, follow_up, table):
    rows = np.isin(follow_up.patients, np.arange(500))
    chosen = follow_up.of(rows)
    assert len(chosen) == len(table.patients)
    for view in ("state", "images"):
        observed = cumulative_incidence(chosen, np.array(MODEL.horizons), np.ones((1, len(chosen))))[0]
        np.testing.assert_allclose(table.risks[view].mean(axis=0), observed, atol=0.035)
    # Within groups of similar risk too.
    risk = table.risks["images"][:, MAIN]
    for low, high in ((0, 0.05), (0.05, 0.2), (0.2, 0.5), (0.5, 1)):
        group = (risk >= low) & (risk < high)
        among = chosen.of(group)
        observed = cumulative_incidence(among, np.array([12.0]), np.ones((1, len(among))))[0, 0]
        assert abs(observed - risk[group].mean()) < 0.02 + 3.5 * np.sqrt(observed * (1 - observed) / group.sum())


def test_knowing_the_state_is_worth_more_than_images_and_both_more_than_chance(table):
    known, labels = table.known[:, MAIN], table.labels[:, MAIN]
    areas = {view: auroc(labels[known], risks[known, MAIN]) for view, risks in table.risks.items()}
    assert areas["state"] > 0.98
    assert 0.83 < areas["images"] < 0.92


def test_a_tumour_that_crosses_for_certain_soon_has_a_high_risk_and_nobody_without_one_has():
    true = TrueRisk(MODEL)
    months = np.array([12.0, 6.0, 0.0])
    nothing = true.from_images(Measured(months, np.empty((0, 3))))
    assert (np.diff(nothing) > 0).all()
    assert nothing[MAIN] < 0.002
    fast = true.from_images(Measured(months, doublings(np.array([[8.0, 16.0, 32.0]]))))
    slow = true.from_images(Measured(months, doublings(np.array([[27.0, 29.0, 31.0]]))))
    shrinking = true.from_images(Measured(months, doublings(np.array([[34.0, 32.0, 30.0]]))))
    assert fast[0] > 0.75
    assert slow[MAIN] < 0.1
    assert shrinking[MAIN] < 0.02


def test_the_same_sizes_at_other_dates_have_another_risk():
    true = TrueRisk(MODEL)
    sizes = doublings(np.array([[12.0, 24.0]]))
    near, far = (true.from_images(Measured(np.array([months, 0.0]), sizes))[MAIN] for months in (8.0, 24.0))
    assert near > 0.6
    assert far < 0.7 * near


def test_the_state_s_risk_agrees_with_simulated_futures():
    """One patient's future, drawn from the process itself, without the grids of ``TrueRisk``."""
    course = next(c for c in draw_courses(MODEL, 5, range(400)) if 10 < c.largest("tumour")[-1] < 18)
    exam, rng, count = len(course.dates) - 1, np.random.default_rng(0), 20000
    top, onset = float(doublings(course.threshold)), float(doublings(MODEL.onset_mm))
    here = [n for n in course.nodules if n.kind == "tumour" and n.diameters[exam] > 0]
    first = min((top - float(doublings(n.diameters[exam]))) / n.doublings_per_month for n in here)
    diagnosed = np.empty(count)
    for n in range(count):
        begin = rng.uniform(0, 40, rng.poisson(MODEL.onset_rate * 40))
        way = (top - onset) * MODEL.doubling * np.exp(MODEL.doubling_sd * rng.standard_normal(len(begin)))
        crossing = min([first, *(begin + way)])
        exams = np.cumsum(MODEL.draw_gaps(rng, 80))
        found = min(crossing + rng.exponential(MODEL.delay), exams[exams > crossing][0])
        diagnosed[n] = found if rng.exponential(1 / MODEL.death_rate) > found else np.inf
    expected = [(diagnosed <= horizon).mean() for horizon in MODEL.horizons]
    np.testing.assert_allclose(TrueRisk(MODEL).from_state(course, exam), expected, atol=0.03)


# ---------------------------------------------------------------- its oracle


def test_measurements_have_errors_that_later_landmarks_share_and_hide_small_nodules(courses):
    course = next(c for c in courses if len(c.dates) == 7 and len(c.nodules) > 4)
    early, late = measure(course, 3, 0), measure(course, 6, 0)
    assert late.months[-1] == 0
    seen = {tuple(row) for row in np.nan_to_num(late.sizes[:, :4]) if row.any()}
    assert {tuple(row) for row in np.nan_to_num(early.sizes)} == seen
    assert np.nanmin(late.sizes) >= doublings(SEEN_MM)
    exact = measure(course, 6, 0, size_error=0.0)
    assert not np.array_equal(exact.sizes, late.sizes)


def test_each_view_is_blind_to_what_it_leaves_out():
    sizes = doublings(np.array([[8.0, 12.0, 20.0], [15.0, 15.0, 15.0]]))
    given = features(Measured(np.array([20.0, 5.0, 0.0]), sizes))
    dates = features(Measured(np.array([6.0, 3.0, 0.0]), sizes))
    past = features(Measured(np.array([20.0, 5.0, 0.0]), sizes[:, [1, 0, 2]]))
    size = features(Measured(np.array([20.0, 5.0, 0.0]), sizes - 1))

    def same(a, b, view):
        return np.array_equal(a[view], b[view], equal_nan=True)

    assert [same(given, dates, view) for view in VIEWS] == [False, True, True, False]
    assert [same(given, past, view) for view in VIEWS] == [False, False, True, True]
    assert [same(given, size, view) for view in VIEWS] == [False, False, False, True]


# ---------------------------------------------------------------- its cohort as files


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    folder = tmp_path_factory.mktemp("surveillance") / "cohort"
    plan = CohortPlan(6, 2, PhantomModel(channels=("DWI_b0", "DWI_b800"), acquisition=AcquisitionModel(spacing=6.0)))
    return folder, plan, synthesize(folder, plan)


def test_files_do_not_depend_on_the_number_of_processes(cohort, tmp_path):
    folder, plan, _ = cohort
    synthesize(tmp_path / "again", plan, processes=2)
    files = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    assert files == sorted(p.relative_to(tmp_path / "again") for p in (tmp_path / "again").rglob("*") if p.is_file())
    assert all((folder / f).read_bytes() == (tmp_path / "again" / f).read_bytes() for f in files)


def test_outcomes_scanner_and_truth_are_read_back(cohort):
    folder, plan, card = cohort
    read = read_input(folder)
    courses = draw_courses(plan.model.disease, 2, range(6))
    assert dict(read.outcomes) == {course.patient_id: course.outcome for course in courses}
    clinical, truth = read_clinical(folder / "clinical.csv"), find_truth(folder)
    assert truth is not None
    true = TrueRisk(plan.model.disease)
    for course in courses:
        said = json.loads((folder / "truth" / course.patient_id / "truth.json").read_text())
        for k, date in enumerate(course.dates):
            key = course.patient_id, date.isoformat()
            assert clinical.group(*key, "scanner") == said["exams"][k]["scanner"]
            assert truth.visible[key] == course.visible(k)
            assert truth.risks["state"][12][key] == pytest.approx(true.from_state(course, k)[MAIN], abs=1e-5)
            assert truth.size(*key) == pytest.approx(said["exams"][k]["lesion_ml"], abs=1e-5)
    assert card["disease"] == "surveillance"
    assert card["counts"]["tumours"] == sum(n.kind == "tumour" for c in courses for n in c.nodules)


def test_a_nodule_s_number_in_the_mask_is_its_place_in_the_truth(cohort):
    folder, plan, _ = cohort
    checked = 0
    for course in draw_courses(plan.model.disease, 2, range(6)):
        said = json.loads((folder / "truth" / course.patient_id / "truth.json").read_text())
        for k, exam in enumerate(said["exams"]):
            image = nib.load(folder / "truth" / course.patient_id / exam["exam_id"] / "lesion.nii.gz")
            mask = np.asarray(image.dataobj)
            for number, nodule in enumerate(said["nodules"], start=1):
                if nodule["kind"] == "cyst":
                    assert not (mask == number).any()
                elif nodule["diameters_mm"][k] > 15:
                    at = np.argwhere(mask == number) @ image.affine[:3, :3].T + image.affine[:3, 3]
                    assert np.linalg.norm(at.mean(axis=0) - exam["nodule_centres_mm"][number - 1]) < 3
                    checked += 1
    assert checked > 10


def test_the_lesion_that_an_explanation_should_find_is_the_tumour(cohort):
    folder, _, _ = cohort
    truth = find_truth(folder)
    by_tumour = set()
    for patient in read_input(folder).patients:
        said = json.loads((folder / "truth" / patient.patient_id / "truth.json").read_text())
        for k, exam in enumerate(patient.exams):
            found = truth.exam(patient.patient_id, exam.exam_id, exam.images["DWI_b0"].grid)
            tumour = any(n["kind"] == "tumour" and n["diameters_mm"][k] > 0 for n in said["nodules"])
            assert found.lesion.any() == tumour
            assert (found.liver | ~found.lesion).all()
            by_tumour.add(tumour)
    assert by_tumour == {True, False}


def test_a_patient_without_a_nodule_has_no_lesion_and_a_finite_logarithm(cohort):
    folder, _, _ = cohort
    with (folder / "truth" / "exams.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert all(np.isfinite(float(row["lesion_log_ml"])) for row in rows)
    assert {row["visible_tumour"] for row in rows} <= {"yes", "no"}


def test_the_command_prints_and_keeps_a_row_per_method_view_and_horizon(cohort, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(writing._ORACLE_PATIENTS, "surveillance", 250)
    auroc = {"1": {"value": 0.5, "low": 0.4, "high": 0.6}, "all": {"value": None, "low": None, "high": None}}
    row = {"method": "brightness", "view": "bright share", "horizon": 12.0, "auroc": auroc}
    monkeypatch.setattr(writing, "measure_brightness", lambda model, *_: model.acquisition.spacing)
    monkeypatch.setattr(writing, "ask_about_brightness", lambda spacing, _: {"spacing": spacing, "results": [row]})
    shutil.copytree(cohort[0], tmp_path / "c")
    words = ("--out", tmp_path / "c", "--patients", 6, "--seed", 2, "--spacing", 6, "--channels", "DWI_b0", "DWI_b800")
    assert main(["synthesize", *map(str, words), "--oracle"]) == 0
    said = capsys.readouterr().out
    assert "brightness, bright share, 12 months; landmark 1 0.500 (0.400–0.600), all – (–––)" in said
    assert "Oracle, AUROC (95% interval), true risk, images, 36 months; landmark 1 0." in said
    card = json.loads((tmp_path / "c" / "cohort.json").read_text())
    assert card["oracle"]["patients"] == 250
    assert card["oracle"]["brightness"]["spacing"] == 5.0
    rows = {(row["method"], row["view"], row["horizon"]): row["auroc"] for row in card["oracle"]["results"]}
    assert len(rows) == (2 + 4) * 5 + 4
    ceiling, full, dates = (
        rows[key]["all"]["value"]
        for key in (("true risk", "images", 12), ("classifier", "full", 12), ("classifier", "dates", 12))
    )
    assert ceiling > full > 0.7
    assert abs(dates - 0.5) < 0.12
    assert abs(rows["survival model", "full", 12]["all"]["value"] - full) < 0.08
