from __future__ import annotations

import datetime
import itertools
import json
from xml.etree import ElementTree

import numpy as np
import pytest
from scipy.special import expit, logit
from sklearn import metrics

from HCCNetLib.evaluation import (
    COMPARED,
    Scores,
    at_thresholds,
    auroc,
    average_precision,
    bootstrap,
    brier,
    calibration_bins,
    calibration_intercept,
    calibration_slope,
    choose_thresholds,
    evaluate,
    find_landmarks,
    fit_recalibration,
    paired_difference,
    pr_points,
    recalibrate,
    roc_points,
    wilson,
)
from HCCNetLib.evaluation.bootstrap import draw_weights
from HCCNetLib.evaluation.calibration import intercept_resampled, slope_resampled
from HCCNetLib.evaluation.selection import select_latest_labelled
from HCCNetLib.records import Cohort, Exam, Outcome, Patient, Refusal
from HCCNetLib.reporting.curves import calibration_chart, class_chart, pr_chart, roc_chart

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
    assert (landmarks.dropped, landmarks.unlabelled, landmarks.labelled) == (2, 0, (0, 1, 2))


def test_an_exam_followed_for_less_than_the_horizon_has_no_label():
    patient = patient_of("2019-01-01", "2020-01-01", "2020-06-01")
    landmarks = find_landmarks(patient, outcome_of(None, "2020-12-31"), 12)
    assert landmarks.labels == (False, None, None)  # 365 days are less than 12 months of 30.4375 days
    assert (landmarks.dropped, landmarks.unlabelled, landmarks.labelled) == (0, 2, (0,))
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


def scores_of(labels, risks, members=None, ids=None):
    labels, risks = np.array(labels, dtype=bool), np.array(risks, dtype=float)
    ids = tuple(f"P{n}" for n in range(len(labels))) if ids is None else tuple(ids)
    return Scores(ids, labels, risks, risks, None if members is None else np.array(members, dtype=float))


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
    assert brier(np.array([True, False]), np.array([0.7, 0.2])) == pytest.approx((0.09 + 0.04) / 2)


def test_slope_and_intercept_of_two_groups_are_their_closed_form():
    # 10 patients at a risk of 0.2, of whom 3 fall ill, and 10 at 0.6, of whom 5 do: the line goes through both log odds.
    risks = np.repeat([0.2, 0.6], 10)
    labels = np.array([True] * 3 + [False] * 7 + [True] * 5 + [False] * 5)
    slope = (logit(0.5) - logit(0.3)) / (logit(0.6) - logit(0.2))
    assert calibration_slope(labels, risks) == pytest.approx(slope, abs=1e-8)
    assert fit_recalibration(risks, labels) == pytest.approx((slope, logit(0.3) - slope * logit(0.2)), abs=1e-8)
    # All at one risk: the shift that turns it into the share.
    assert calibration_intercept(labels[:10], risks[:10]) == pytest.approx(logit(0.3) - logit(0.2), abs=1e-8)
    shift = calibration_intercept(labels, risks)
    assert expit(logit(risks) + shift).sum() == pytest.approx(8)


def test_recalibration_recovers_a_known_distortion_and_makes_risks_calibrated():
    labels, risks = simulated(60_000, 2, slope=0.5, intercept=-1.2)
    slope, intercept = fit_recalibration(risks, labels)
    assert (slope, intercept) == (pytest.approx(0.5, abs=0.02), pytest.approx(-1.2, abs=0.03))
    better = recalibrate(risks, slope, intercept)
    assert calibration_slope(labels, better) == pytest.approx(1, abs=1e-6)
    assert calibration_intercept(labels, better) == pytest.approx(0, abs=1e-6)
    assert auroc(labels, better) == auroc(labels, risks)


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
    assert calibration_slope(labels, np.array(risks)) == np.inf


@pytest.mark.parametrize("risks", [[0.9, 0.2, 0.3, 0.1], [0.8, 0.9, 0.1, 0.2], [0.5, 0.5, 0.5, 0.5]])
def test_a_higher_output_that_does_not_mean_a_higher_risk_is_refused(risks):
    with pytest.raises(Refusal, match="does not mean a higher risk"):
        fit_recalibration(np.array(risks), np.array([False, False, True, True]))


@pytest.mark.parametrize(("label", "kind"), [(False, "positive"), (True, "negative")])
def test_one_class_only_is_refused_with_numbers(label, kind):
    with pytest.raises(Refusal, match=rf"no {kind} among 3 patient\(s\) within the horizon of 12 months"):
        scores_of([label] * 3, [0.1, 0.2, 0.3])
    with pytest.raises(Refusal, match=rf"no {kind} among 3"):
        fit_recalibration(np.array([0.1, 0.2, 0.3]), np.full(3, label))


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"risks": [0.1, 1.2]}, "within 0 and 1"),
        ({"risks": [0.1, np.nan]}, "within 0 and 1"),
        ({"risks": [0.1]}, "must be 2 numbers"),
        ({"ids": ["P1", "P1"]}, "twice"),
        ({"members": [[0.1], [2.0]]}, "members must be within"),
        ({"members": [0.1, 0.2]}, r"members must be \(2, M\)"),
    ],
)
def test_scores_that_are_no_risks_are_a_mistake_of_the_caller(changed, words):
    with pytest.raises(ValueError, match=words):
        scores_of(**{"labels": [True, False], "risks": [0.1, 0.2], **changed})


def test_calibration_bins_hold_everybody_once_and_equal_risks_together():
    labels, risks = simulated(400, 4)
    bins = calibration_bins(labels, risks)
    assert [b.count for b in bins] == [40] * 10
    assert sum(b.positives for b in bins) == labels.sum()
    assert all(b.low <= b.mean <= b.high < after.low for b, after in itertools.pairwise(bins))
    tied = np.array([0.2] * 30 + [0.4] * 5)
    assert [(b.count, b.mean) for b in calibration_bins(np.arange(35) % 2 == 0, tied)] == [
        (30, pytest.approx(0.2)),
        (5, 0.4),
    ]
    assert [b.count for b in calibration_bins(np.array([True, False, False]), np.array([0.1, 0.2, 0.3]))] == [1, 2]


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
    judged = at_thresholds(scores_of(labels, risks), list(chosen.values()))
    for given, found in zip(chosen.values(), judged, strict=True):
        assert found["sensitivity"]["value"] == given["sensitivity"]
        assert found["specificity"]["value"] == given["specificity"]


def test_a_threshold_is_judged_by_its_four_counts():
    judged = at_thresholds(
        scores_of([1, 1, 1, 0, 0, 0, 0], [0.9, 0.5, 0.1, 0.5, 0.4, 0.2, 0.1]), [{"name": "half", "threshold": 0.5}]
    )[0]
    assert [judged[f"{c}_{k}"] for k in ("positives", "negatives") for c in ("true", "false")] == [2, 1, 3, 1]
    shares = {name: judged[name]["value"] for name in ("sensitivity", "specificity", "ppv", "npv")}
    assert shares == {"sensitivity": 2 / 3, "specificity": 3 / 4, "ppv": 2 / 3, "npv": 3 / 4}
    nobody = at_thresholds(scores_of([1, 0], [0.2, 0.1]), [{"name": "high", "threshold": 0.9}])[0]
    assert nobody["ppv"] == {"value": None, "low": None, "high": None}


def test_where_the_highest_risks_are_tied_a_high_specificity_calls_nobody():
    for top in (0.6, 1.0):
        chosen = {
            t["name"]: t for t in choose_thresholds(np.array([top] * 3 + [0.1]), np.array([1, 0, 0, 0], dtype=bool))
        }
        assert (chosen["specificity_90"]["sensitivity"], chosen["specificity_90"]["specificity"]) == (0, 1)
        assert chosen["specificity_90"]["threshold"] > top
        at_thresholds(scores_of([1, 0], [0.2, 0.1]), list(chosen.values()))


@pytest.mark.parametrize("entry", [{}, {"name": "x"}, {"name": "x", "threshold": "0.1"}, {"name": "x", "threshold": 1.5},
                                   {"name": 3, "threshold": 0.5}, {"name": "x", "threshold": True}])  # fmt: skip
def test_a_bundles_threshold_that_is_none_is_refused(entry):
    with pytest.raises(Refusal, match="operating threshold of the bundle"):
        at_thresholds(scores_of([1, 0], [0.2, 0.1]), [entry])


# Intervals


def test_every_resample_keeps_the_number_of_each_class_and_the_first_row_is_everybody_once():
    labels = np.arange(50) < 7
    weights = np.concatenate(list(draw_weights(labels, 600, 1)))
    assert weights.shape == (601, 50)
    assert (weights[0] == 1).all()
    assert set(weights[:, labels].sum(axis=1)) == {7}
    assert set(weights[:, ~labels].sum(axis=1)) == {43}
    assert len(np.unique(weights, axis=0)) > 590
    # Everybody is drawn equally often; the standard error of a mean is about 0.04.
    assert weights[1:].mean(axis=0) == pytest.approx(np.ones(50), abs=0.2)


def test_a_resample_is_figured_as_if_its_patients_were_written_out():
    labels, risks = simulated(60, 5)
    risks = risks.round(2)
    for row in np.concatenate(list(draw_weights(labels, 5, 2))):
        drawn = np.repeat(np.arange(60), row.astype(int))
        once = labels[drawn], risks[drawn]
        weights = row[None]
        assert bootstrap.auroc_resampled(labels, risks, weights)[0] == pytest.approx(auroc(*once))
        assert bootstrap.average_precision_resampled(labels, risks, weights)[0] == pytest.approx(
            average_precision(*once)
        )
        assert bootstrap.brier_resampled(labels, risks, weights)[0] == pytest.approx(brier(*once))
        assert slope_resampled(labels, risks, weights)[0] == pytest.approx(calibration_slope(*once), abs=1e-6)
        assert intercept_resampled(labels, risks, weights)[0] == pytest.approx(calibration_intercept(*once), abs=1e-6)


def test_the_interval_of_the_auroc_has_the_width_that_theory_gives():
    labels, risks = simulated(800, 6)
    found = evaluate(scores_of(labels, risks), resamples=1000).auroc
    a, m, n = found.value, labels.sum(), (~labels).sum()
    # Hanley and McNeil, Radiology 1982;143:29.
    spread = a * (1 - a) + (m - 1) * (a / (2 - a) - a**2) + (n - 1) * (2 * a**2 / (1 + a) - a**2)
    assert found.high - found.low == pytest.approx(2 * 1.96 * np.sqrt(spread / (m * n)), rel=0.15)
    assert found.low < a < found.high


def test_the_seed_decides_the_intervals():
    labels, risks = simulated(80, 7)
    first, again, other = (evaluate(scores_of(labels, risks), (), 200, seed).to_dict() for seed in (3, 3, 4))
    assert first == again
    assert first["auroc"]["value"] == other["auroc"]["value"]
    assert first["auroc"] != other["auroc"]


@pytest.mark.parametrize("name", list(COMPARED))
def test_a_bundle_differs_from_itself_by_exactly_nothing_also_in_another_order(name):
    labels, risks = simulated(80, 8)
    scores = scores_of(labels, risks)
    order = np.random.default_rng(0).permutation(80)
    shuffled = scores.of([scores.patient_ids[n] for n in order])
    difference = paired_difference(scores, shuffled, COMPARED[name], 200)
    assert (difference.value, difference.low, difference.high) == (0, 0, 0)


def test_a_paired_difference_is_narrower_than_the_two_apart_and_has_a_sign():
    labels, risks = simulated(500, 9)
    worse = expit(logit(risks) + np.random.default_rng(1).normal(0, 0.7, 500))
    scores, other = scores_of(labels, risks), scores_of(labels, worse)
    found = paired_difference(scores, other, COMPARED["auroc"], 500)
    assert found.value == pytest.approx(auroc(labels, risks) - auroc(labels, worse))
    assert found.value > 0
    alone = evaluate(scores, resamples=500).auroc
    assert found.high - found.low < alone.high - alone.low


def test_other_patients_or_labels_can_not_be_compared():
    scores = scores_of([1, 0, 0], [0.3, 0.2, 0.1])
    with pytest.raises(Refusal, match="2 patient"):
        paired_difference(scores, scores_of([1, 0, 0], [0.3, 0.2, 0.1], ids=["P0", "P1", "Q"]), COMPARED["auroc"])
    with pytest.raises(Refusal, match=r"2 patient.*another label") as refusal:
        paired_difference(scores, scores_of([0, 1, 0], [0.3, 0.2, 0.1]), COMPARED["auroc"])
    assert "P0" not in refusal.value.message


# All together


def test_an_evaluation_is_plain_data_and_holds_what_was_asked_for():
    labels, risks = simulated(250, 10)
    members = np.clip(risks[:, None] + np.random.default_rng(2).normal(0, 0.1, (250, 4)), 0, 1)
    found = evaluate(scores_of(labels, risks, members), choose_thresholds(risks, labels), 200).to_dict()
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert (found["patients"], found["positive"], found["negative"]) == (250, labels.sum(), (~labels).sum())
    assert found["prevalence"] == labels.mean()
    assert found["brier_of_prevalence"] == pytest.approx(brier(labels, np.full(250, labels.mean())))
    each = [auroc(labels, member) for member in members.T]
    assert [m["value"] for m in found["members"]["auroc"]] == pytest.approx(each)
    assert found["members"]["mean_auroc"]["value"] == pytest.approx(np.mean(each))
    assert found["members"]["ensemble_above_mean"]["value"] == pytest.approx(auroc(labels, risks) - np.mean(each))
    assert [t["name"] for t in found["thresholds"]] == ["sensitivity_90", "specificity_90", "youden"]
    assert sum(found["curves"]["histogram"]["positive"]) == labels.sum()
    assert [w["code"] for w in found["warnings"]] == ["few_patients"]


def test_very_few_or_separated_patients_are_figured_and_warned_of():
    found = evaluate(scores_of([1, 1, 0, 0, 0, 0], [0.9, 0.8, 0.3, 0.2, 0.2, 0.1]), (), 200).to_dict()
    assert {w["code"] for w in found["warnings"]} == {"very_few_patients", "separated", "slope_not_determined"}
    assert "only 2 positive" in found["warnings"][0]["message"]
    assert found["calibration_slope"] == {"value": None, "low": None, "high": None}
    assert found["auroc"] == {"value": 1, "low": 1, "high": 1}
    json.dumps(found, allow_nan=False)


def test_a_slope_whose_resamples_are_often_separated_has_no_upper_bound():
    found = evaluate(scores_of([1, 1, 1, 0, 0, 0, 0], [0.9, 0.8, 0.25, 0.3, 0.2, 0.2, 0.1]), (), 400).calibration_slope
    assert found.value > 0
    assert found.low is not None
    assert found.high is None


def test_a_page_of_two_positives_or_of_equal_risks_still_draws():
    for risks in ([0.9, 0.8, 0.3, 0.2, 0.2, 0.1], [0.5] * 6, [0.0] * 5 + [1.0]):
        found = evaluate(scores_of([1, 1, 0, 0, 0, 0], risks), (), 200).to_dict()
        curves = found["curves"]
        drawn = roc_chart(curves["roc"], 1.0) + calibration_chart(curves["calibration"], curves["histogram"])
        drawn += pr_chart(curves["pr"], found["prevalence"], None) + class_chart(
            curves["calibration"], curves["histogram"]
        )
        ElementTree.fromstring(f"<page>{drawn}</page>")
        assert "nan" not in drawn
        assert "2 positive" in drawn


def test_a_choice_needs_no_bundle_and_its_numbers_add_up():
    day = datetime.date.fromisoformat
    patients = [
        Patient(name, tuple(Exam(date, day(date), {}) for date in dates))
        for name, dates in {
            "early": ("2019-01-01", "2019-06-01", "2020-06-01"),
            "healthy": ("2018-01-01", "2019-01-01", "2020-12-01"),
            "late": ("2020-02-01",),
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
        "contradiction": Outcome("contradiction", None, day("2020-01-01")),
    }
    cohort = Cohort(tuple(patients), {"broken": Refusal("x", "broken")}, outcomes)
    part = frozenset({p.patient_id for p in patients} - {"elsewhere"}) | {"broken"}
    found = select_latest_labelled(cohort, 12, part)
    assert [(c.patient.patient_id, c.patient.landmark.exam_id, c.label) for c in found.chosen] == [
        ("early", "2019-06-01", True),
        ("healthy", "2019-01-01", False),
    ]
    assert found.left_out == {
        "not_in_part": ("elsewhere",),
        "without_outcome": ("unknown",),
        "diagnosed_before": ("late",),
        "without_label": ("lost",),
    }
    assert list(found.refused) == ["broken", "contradiction"]
    assert found.exams == {"used": 4, "after_landmark": 1, "from_diagnosis_on": 2}
