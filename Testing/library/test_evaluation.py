from __future__ import annotations

import datetime

import numpy as np
import pytest
from scipy.special import expit, logit
from sklearn import metrics

from HCCNetLib.bundles import Calibration
from HCCNetLib.evaluation.calibration import (
    brier_resampled,
    fit_recalibration,
    intercept_resampled,
    slope_resampled,
)
from HCCNetLib.evaluation.discrimination import areas_resampled, auroc, pr_points, roc_points
from HCCNetLib.evaluation.follow_up import FollowUp
from HCCNetLib.evaluation.intervals import wilson
from HCCNetLib.evaluation.landmarks import find_landmarks
from HCCNetLib.evaluation.scores import check_classes
from HCCNetLib.evaluation.selection import select
from HCCNetLib.evaluation.thresholds import at_thresholds, choose_thresholds
from HCCNetLib.inference.predictor import calibrate
from HCCNetLib.records import Cohort, Exam, Outcome, Patient, Refusal

# Landmarks


def patient_of(*dates):
    return Patient("P1", tuple(Exam(date, datetime.date.fromisoformat(date), {}) for date in dates))


def outcome_of(diagnosis, last_seen):
    day = datetime.date.fromisoformat
    return Outcome("P1", day(diagnosis) if diagnosis else None, day(last_seen))


def test_exams_on_or_after_the_diagnosis_are_dropped_and_counted_and_the_others_labelled():
    patient = patient_of("2019-01-01", "2020-06-01", "2020-12-31", "2021-01-01", "2021-02-01")
    landmarks = find_landmarks(patient, outcome_of("2021-01-01", "2021-03-01"), 12)
    assert [exam.exam_id for exam in landmarks.patient.exams] == ["2019-01-01", "2020-06-01", "2020-12-31"]
    assert landmarks.labels == (False, True, True)
    assert (landmarks.dropped, landmarks.labelled) == (2, (0, 1, 2))


def test_an_exam_followed_for_less_than_the_horizon_has_no_label():
    patient = patient_of("2019-01-01", "2020-01-01", "2020-06-01")
    landmarks = find_landmarks(patient, outcome_of(None, "2020-12-31"), 12)
    assert landmarks.labels == (False, None, None)  # 365 days are less than 12 months of 30.4375 days
    assert (landmarks.dropped, landmarks.labelled) == (0, (0,))
    assert find_landmarks(patient, outcome_of(None, "2021-01-01"), 12).labels == (False, False, None)
    assert find_landmarks(patient, outcome_of(None, "2020-12-31"), 6).labels == (False, False, False)


def test_a_patient_whose_every_exam_follows_the_diagnosis_has_no_landmark():
    landmarks = find_landmarks(patient_of("2020-01-01", "2020-02-01"), outcome_of("2020-01-01", "2020-05-01"), 12)
    assert (landmarks.patient, landmarks.labels, landmarks.dropped, landmarks.labelled) == (None, (), 2, ())


def test_who_was_last_seen_before_an_exam_is_refused_with_both_dates():
    with pytest.raises(Refusal, match=r"last seen on 2020-01-31, before exam 2020-02-01") as refusal:
        find_landmarks(patient_of("2019-01-01", "2020-02-01"), outcome_of(None, "2020-01-31"), 12)
    assert (refusal.value.code, refusal.value.exam_id) == ("seen_before_exam", "2020-02-01")
    assert "P1" not in refusal.value.message
    find_landmarks(patient_of("2020-02-01"), outcome_of(None, "2020-02-01"), 12)


def test_the_outcome_of_another_patient_is_a_mistake_of_the_caller():
    with pytest.raises(ValueError, match="another patient"):
        find_landmarks(patient_of("2020-02-01"), Outcome("P2", None, datetime.date(2021, 1, 1)), 12)


# Measures


def once(measure, labels, risks):
    """A measure with everybody counted once."""
    return float(measure(labels, risks, np.ones((1, len(labels))))[0])


def average_precision(labels, risks):
    return float(areas_resampled(labels, risks, np.ones((1, len(labels))))[1][0])


def judged_at(labels, risks, thresholds):
    """Patients with one landmark each, diagnosed at once or followed for two years."""
    labels = np.array(labels, dtype=bool)
    count = len(labels)
    follow_up = FollowUp(np.arange(count), np.ones(count, int), np.where(labels, 1.0, 24.0), labels.astype(int))
    return at_thresholds(follow_up, np.array(risks, dtype=float), 12.0, thresholds)


def simulated(count, seed=0, slope=1.0, intercept=0.0):
    """Risks whose true log odds are slope · logit(risk) + intercept."""
    rng = np.random.default_rng(seed)
    log_odds = rng.normal(-1, 1.5, count)
    return rng.random(count) < expit(slope * log_odds + intercept), expit(log_odds)


def test_auroc_is_the_share_of_ordered_pairs_with_ties_half():
    labels = np.array([True, True, False, False, False])
    # Pairs of the positive at 0.8: 3 of 3; of the one at 0.4: above 0.1, tied with 0.4, below 0.6.
    assert auroc(labels, np.array([0.8, 0.4, 0.1, 0.4, 0.6])) == pytest.approx((3 + 1.5) / 6)
    assert auroc(labels, np.full(5, 0.3)) == 0.5
    assert auroc(labels, np.array([0.8, 0.7, 0.1, 0.4, 0.6])) == 1.0


def test_average_precision_steps_over_distinct_risks():
    # Highest first: positive (1/1), negative, positive (2/3): (1 + 2/3) / 2.
    assert average_precision(np.array([True, False, True]), np.array([0.9, 0.5, 0.2])) == pytest.approx(5 / 6)
    # A positive and a negative tied on top: both are called before either counts, 1/2; then 2/4.
    tied = np.array([True, False, False, True])
    assert average_precision(tied, np.array([0.9, 0.9, 0.5, 0.2])) == pytest.approx(0.5)
    assert average_precision(tied, np.full(4, 0.3)) == 0.5  # the prevalence


def test_both_areas_agree_with_scikit_learn_on_risks_with_many_ties():
    labels, risks = simulated(300)
    risks = risks.round(1)
    assert auroc(labels, risks) == pytest.approx(metrics.roc_auc_score(labels, risks), abs=1e-12)
    assert average_precision(labels, risks) == pytest.approx(metrics.average_precision_score(labels, risks), abs=1e-12)


def test_the_curves_run_from_nobody_to_everybody_and_enclose_the_areas():
    labels, risks = simulated(200, 1)
    risks = risks.round(2)
    roc, pr = roc_points(labels, risks), pr_points(labels, risks)
    assert roc[0].tolist() == [0, 0]
    assert roc[-1].tolist() == [1, 1]
    assert (np.diff(roc[:, 0]) * (roc[1:, 1] + roc[:-1, 1]) / 2).sum() == pytest.approx(auroc(labels, risks))
    assert pr[-1].tolist() == [1, pytest.approx(labels.mean())]
    assert np.diff(pr[:, 0], prepend=0) @ pr[:, 1] == pytest.approx(average_precision(labels, risks))


def test_brier_is_the_mean_squared_distance():
    assert once(brier_resampled, np.array([True, False]), np.array([0.7, 0.2])) == pytest.approx((0.09 + 0.04) / 2)


def test_slope_and_intercept_of_two_groups_are_their_closed_form():
    # 10 patients at a risk of 0.2, of whom 3 fall ill, and 10 at 0.6, of whom 5 do: the line goes through both log odds.
    risks = np.repeat([0.2, 0.6], 10)
    labels = np.array([True] * 3 + [False] * 7 + [True] * 5 + [False] * 5)
    slope = (logit(0.5) - logit(0.3)) / (logit(0.6) - logit(0.2))
    assert once(slope_resampled, labels, risks) == pytest.approx(slope, abs=1e-8)
    assert fit_recalibration(risks, labels) == pytest.approx((slope, logit(0.3) - slope * logit(0.2)), abs=1e-8)
    # All at one risk: the shift that turns it into the share.
    assert once(intercept_resampled, labels[:10], risks[:10]) == pytest.approx(logit(0.3) - logit(0.2), abs=1e-8)
    shift = once(intercept_resampled, labels, risks)
    assert expit(logit(risks) + shift).sum() == pytest.approx(8)


def test_recalibration_recovers_a_known_distortion_and_makes_risks_calibrated():
    labels, risks = simulated(60_000, 2, slope=0.5, intercept=-1.2)
    slope, intercept = fit_recalibration(risks, labels)
    assert (slope, intercept) == (pytest.approx(0.5, abs=0.02), pytest.approx(-1.2, abs=0.03))
    better = calibrate(risks[:, None], (Calibration(slope, intercept),))[:, 0]
    assert once(slope_resampled, labels, better) == pytest.approx(1, abs=1e-6)
    assert once(intercept_resampled, labels, better) == pytest.approx(0, abs=1e-6)
    assert auroc(labels, better) == auroc(labels, risks)


def test_a_weight_in_the_fit_counts_as_so_many_landmarks():
    labels, risks = simulated(400, 6, slope=0.7, intercept=0.3)
    weights = 1.0 + (np.arange(400) % 3)
    rows = np.repeat(np.arange(400), weights.astype(int))
    written_out = fit_recalibration(risks[rows], labels[rows])
    assert fit_recalibration(risks, labels, weights) == pytest.approx(written_out, abs=1e-6)
    assert fit_recalibration(risks, labels, weights / 7) == pytest.approx(written_out, abs=1e-6)
    assert fit_recalibration(risks, labels) != pytest.approx(written_out, abs=1e-3)
    assert fit_recalibration(risks, labels, np.ones(400)) == fit_recalibration(risks, labels)


def test_certain_risks_have_a_finite_logit():
    labels, risks = simulated(200, 3)
    risks[labels.argmax()], risks[(~labels).argmax()] = 0.0, 1.0
    slope, intercept = fit_recalibration(risks, labels)
    assert np.isfinite([slope, intercept]).all()
    assert 0 < slope < 1


@pytest.mark.parametrize("risks", [[0.1, 0.2, 0.7, 0.9], [0.1, 0.5, 0.5, 0.9]])
def test_separated_classes_are_refused_not_fitted(risks):
    labels = np.array([False, False, True, True])
    with pytest.raises(Refusal, match="no finite slope") as refusal:
        fit_recalibration(np.array(risks), labels)
    assert refusal.value.code == "separated"
    assert once(slope_resampled, labels, np.array(risks)) == np.inf


@pytest.mark.parametrize("risks", [[0.9, 0.2, 0.3, 0.1], [0.8, 0.9, 0.1, 0.2], [0.5, 0.5, 0.5, 0.5]])
def test_a_higher_output_that_does_not_mean_a_higher_risk_is_refused(risks):
    with pytest.raises(Refusal, match="does not mean a higher risk"):
        fit_recalibration(np.array(risks), np.array([False, False, True, True]))


@pytest.mark.parametrize(("label", "kind"), [(False, "None"), (True, "All")])
def test_one_class_only_is_refused_with_numbers(label, kind):
    with pytest.raises(
        Refusal, match=rf"{kind} of 3 exam\(s\) with a known outcome have a diagnosis within the horizon of 12 months"
    ):
        check_classes(np.full(3, label), 12)
    with pytest.raises(Refusal, match=rf"{kind} of 3 exam\(s\) with a known outcome have a diagnosis: both"):
        fit_recalibration(np.array([0.1, 0.2, 0.3]), np.full(3, label))


def test_wilsons_interval_is_the_published_one():
    # Newcombe, Stat Med 1998;17:857, table I: 81 of 263, 15 of 148, 0 of 20, 1 of 29.
    for successes, count, low, high in (
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ):
        interval = wilson(successes, count)
        assert (interval.low, interval.high) == (pytest.approx(low, abs=5e-5), pytest.approx(high, abs=5e-5))
    assert wilson(20, 20).high == 1.0
    assert wilson(0, 0).value is None


# Thresholds


def test_thresholds_reach_their_target_and_no_further_than_needed():
    risks = np.concatenate([np.arange(1, 11) / 20 + 0.3, np.arange(1, 21) / 40])
    labels = np.arange(30) < 10
    chosen = {t["name"]: t for t in choose_thresholds(risks, labels)}
    assert chosen["sensitivity_90"]["sensitivity"] == 0.9
    assert chosen["specificity_90"]["specificity"] == 0.9
    # The second lowest positive, 0.40, is still called; the second highest negative, 0.475, too, the third, 0.45, is not.
    assert 0.35 < chosen["sensitivity_90"]["threshold"] <= 0.4
    assert 0.45 < chosen["specificity_90"]["threshold"] <= 0.475
    best = max((risks[labels] >= t).mean() + (risks[~labels] < t).mean() for t in risks)
    assert chosen["youden"]["sensitivity"] + chosen["youden"]["specificity"] == pytest.approx(best)
    judged = judged_at(labels, risks, list(chosen.values()))
    for given, found in zip(chosen.values(), judged, strict=True):
        assert found["sensitivity"]["value"] == pytest.approx(given["sensitivity"])
        assert found["specificity"]["value"] == pytest.approx(given["specificity"])


def test_a_weight_in_the_choice_of_thresholds_counts_as_so_many_landmarks():
    labels, risks = simulated(200, 7)
    risks = risks.round(2)
    weights = 1.0 + 3 * (np.arange(200) % 2)
    rows = np.repeat(np.arange(200), weights.astype(int))
    chosen, written_out = choose_thresholds(risks, labels, weights), choose_thresholds(risks[rows], labels[rows])
    for one, other in zip(chosen, written_out, strict=True):
        assert one == {**other, **{name: pytest.approx(other[name]) for name in ("sensitivity", "specificity")}}
    assert chosen != choose_thresholds(risks, labels)
    for one in chosen:  # the shares are those of the weight, at the threshold as it is written
        positive = risks[labels] >= one["threshold"]
        assert one["sensitivity"] == pytest.approx(weights[labels][positive].sum() / weights[labels].sum())
        negative = risks[~labels] < one["threshold"]
        assert one["specificity"] == pytest.approx(weights[~labels][negative].sum() / weights[~labels].sum())


def test_follow_up_joined_keeps_every_row_in_its_order():
    one = FollowUp(np.zeros(2, int), np.array([1, 2]), np.array([12.0, 6.0]), np.array([1, 1]))
    other = FollowUp(np.ones(1, int), np.array([1]), np.array([30.0]), np.array([0]))
    joined = FollowUp.joined([one, other])
    assert joined.patients.tolist() == [0, 0, 1]
    assert joined.numbers.tolist() == [1, 2, 1]
    assert joined.months.tolist() == [12.0, 6.0, 30.0]
    assert joined.status.tolist() == [1, 1, 0]


def test_a_threshold_is_judged_by_its_four_counts():
    judged = judged_at(
        [1, 1, 1, 0, 0, 0, 0], [0.9, 0.5, 0.1, 0.5, 0.4, 0.2, 0.1], [{"name": "half", "threshold": 0.5}]
    )[0]
    assert [judged[f"{c}_{k}"] for k in ("positives", "negatives") for c in ("true", "false")] == [2, 1, 3, 1]
    for name, share in {"sensitivity": 2 / 3, "specificity": 3 / 4, "ppv": 2 / 3, "npv": 3 / 4}.items():
        assert judged[name]["value"] == pytest.approx(share)
        assert 0 < judged[name]["low"] < share < judged[name]["high"] < 1
    nobody = judged_at([1, 0], [0.2, 0.1], [{"name": "high", "threshold": 0.9}])[0]
    assert nobody["ppv"] == {"value": None, "low": None, "high": None}


def test_where_the_highest_risks_are_tied_a_high_specificity_calls_nobody():
    for top in (0.6, 1.0):
        chosen = {
            t["name"]: t for t in choose_thresholds(np.array([top] * 3 + [0.1]), np.array([1, 0, 0, 0], dtype=bool))
        }
        assert (chosen["specificity_90"]["sensitivity"], chosen["specificity_90"]["specificity"]) == (0, 1)
        assert chosen["specificity_90"]["threshold"] > top
        judged_at([1, 0], [0.2, 0.1], list(chosen.values()))


@pytest.mark.parametrize("entry", [{}, {"name": "x"}, {"name": "x", "threshold": "0.1"}, {"name": "x", "threshold": 1.5},
                                   {"name": 3, "threshold": 0.5}, {"name": "x", "threshold": True}])  # fmt: skip
def test_a_bundles_threshold_that_is_none_is_refused(entry):
    with pytest.raises(Refusal, match="operating threshold of the bundle"):
        judged_at([1, 0], [0.2, 0.1], [entry])


# Intervals


def test_a_resample_is_figured_as_if_its_patients_were_written_out():
    labels, risks = simulated(60, 5)
    risks = risks.round(2)
    for row in np.random.default_rng(2).multinomial(60, np.full(60, 1 / 60), 5):
        drawn = np.repeat(np.arange(60), row)
        written, weights = (labels[drawn], risks[drawn]), row[None].astype(float)
        areas = areas_resampled(labels, risks, weights)
        assert areas[0][0] == pytest.approx(auroc(*written))
        assert areas[1][0] == pytest.approx(average_precision(*written))
        for measure in (brier_resampled, slope_resampled, intercept_resampled):
            assert measure(labels, risks, weights)[0] == pytest.approx(once(measure, *written), abs=1e-6)


# All together


def test_a_choice_needs_no_bundle_and_its_numbers_add_up():
    day = datetime.date.fromisoformat
    patients = [
        Patient(name, tuple(Exam(date, day(date), {}) for date in dates))
        for name, dates in {
            "early": ("2019-01-01", "2019-06-01", "2020-06-01"),
            "healthy": ("2018-01-01", "2019-01-01", "2020-12-01"),
            "late": ("2020-02-01",),
            "transplanted": ("2019-01-01", "2020-03-01"),
            "lost": ("2020-02-01",),
            "unknown": ("2020-02-01",),
            "contradiction": ("2020-02-01",),
            "elsewhere": ("2020-02-01",),
        }.items()
    ]
    outcomes = {
        "early": Outcome("early", day("2020-01-01"), day("2020-01-01")),
        "healthy": Outcome("healthy", None, day("2021-01-01")),
        "late": Outcome("late", day("2020-01-01"), day("2020-01-01")),
        "lost": Outcome("lost", None, day("2020-03-01")),
        "transplanted": Outcome("transplanted", None, day("2021-03-01"), day("2020-02-01")),
        "contradiction": Outcome("contradiction", None, day("2020-01-01")),
    }
    cohort = Cohort(tuple(patients), {"broken": Refusal("x", "broken")}, outcomes)
    part = frozenset({p.patient_id for p in patients} - {"elsewhere"}) | {"broken"}
    found = select(cohort, part)
    assert [one.patient.patient_id for one in found.followed] == ["early", "healthy", "transplanted", "lost"]
    latest = {one.patient.patient_id: one.latest_labelled(12) for one in found.followed}
    known = {name: (chosen[0].landmark.exam_id, chosen[1]) for name, chosen in latest.items() if chosen}
    # The transplanted patient's exam after the transplant shows another liver.
    assert known == {
        "early": ("2019-06-01", True),
        "healthy": ("2019-01-01", False),
        "transplanted": ("2019-01-01", False),
    }
    assert found.left_out == {
        "not_in_part": ("elsewhere",),
        "without_outcome": ("unknown",),
        "diagnosed_before": ("late",),
    }
    assert list(found.refused) == ["broken", "contradiction"]
    assert found.dropped == 3
