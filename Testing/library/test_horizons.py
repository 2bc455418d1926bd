from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from scipy.special import expit, logit
from scipy.stats import t as student

from HCCNetLib.evaluation.calibration import smoothed_resampled
from HCCNetLib.evaluation.concordance import concordance_resampled
from HCCNetLib.evaluation.follow_up import Censoring, FollowUp, cumulative_incidence, weights_at
from HCCNetLib.evaluation.horizons import compare, curves, figures_resampled, judge
from HCCNetLib.evaluation.lead_time import lead_time
from HCCNetLib.evaluation.replicates import MOST_GROUPS, bootstrap_weights, jackknife_interval, jackknife_weights
from HCCNetLib.evaluation.risks import Risks
from HCCNetLib.evaluation.usefulness import net_benefit_resampled

REFERENCE = json.loads((Path(__file__).parents[1] / "data" / "horizon_reference.json").read_text())
HORIZONS = tuple(REFERENCE["horizons"])
UNDETERMINED = {"value": None, "low": None, "high": None}


def follow_up_of(months, status, patients=None):
    """Each row a patient, or as said; the earliest landmark has the longest way to its end."""
    months, status = np.array(months, dtype=float), np.array(status)
    patients = np.arange(len(months)) if patients is None else np.array(patients)
    numbers = np.array([1 + ((patients == p) & (months > m)).sum() for p, m in zip(patients, months, strict=True)], int)
    return FollowUp(patients, numbers, months, status)


def simulated(patients, seed=0, horizons=HORIZONS, whole=False):
    """Times in whole months (with ties), up to five landmarks, risks that are about right and rounded (with ties)."""
    rng = np.random.default_rng(seed)
    burden = rng.normal(size=patients)
    ends = np.stack(
        [rng.uniform(3, 70, patients), rng.exponential(60 * np.exp(-burden)), rng.exponential(90, patients)]
    )
    ends = np.ceil(ends) if whole else ends
    count = np.clip(np.ceil(ends.min(axis=0) / 6), 1, 5).astype(int)
    patient = np.repeat(np.arange(patients), count)
    number = np.arange(len(patient)) - np.repeat(np.cumsum(count) - count, count)
    follow_up = FollowUp(patient, number + 1, ends.min(axis=0)[patient] - 6 * number, ends.argmin(axis=0)[patient])
    hazard = 0.014 * np.exp(0.8 * burden[patient] + rng.normal(0, 0.5, len(patient)))
    return follow_up, Risks({horizon: (1 - np.exp(-hazard * horizon)).round(2) for horizon in horizons})


def reference(kind):
    follow_up = follow_up_of(**REFERENCE[kind])
    return follow_up, Risks({horizon: np.array(REFERENCE["risks"][f"{horizon:g}"]) for horizon in HORIZONS})


# Published software


def test_without_competing_events_every_figure_is_that_of_published_software():
    follow_up, risks = reference("without_competing")
    values, once = REFERENCE["values"], np.ones((1, len(follow_up)))
    censoring = Censoring(follow_up, once)
    assert censoring.uncensored_before(np.array(HORIZONS))[0] == pytest.approx(values["uncensored"], abs=1e-12)
    found = figures_resampled(follow_up, risks, HORIZONS, once)
    for n, horizon in enumerate(HORIZONS):
        at = {place[2:]: float(value[0]) for place, value in found.items() if place[1:2] == (f"{horizon:g}",)}
        assert at["ipcw", "auroc"] == pytest.approx(values["auroc"][n], abs=1e-12)
        assert at["brier",] == pytest.approx(values["brier"][n], abs=1e-12)
        assert at["calibration_slope",] == pytest.approx(values["calibration"][n]["slope"], abs=1e-7)
        assert at["calibration_intercept",] == pytest.approx(values["calibration"][n]["intercept"], abs=1e-7)
        # One risk for all times: Uno's.
        one = Risks({horizon: risks.by_horizon[horizon]})
        concordance = concordance_resampled(follow_up, one, HORIZONS[-1], once, censoring)[0]
        assert concordance == pytest.approx(values["concordance_of_one_risk"][f"{horizon:g}"], abs=1e-6)
    assert found["integrated_brier",][0] == pytest.approx(values["integrated_brier"], abs=1e-12)


def test_the_observed_risk_under_competing_events_is_that_of_published_software():
    follow_up, risks = reference("with_competing")
    once = np.ones((1, len(follow_up)))
    incidence = REFERENCE["values"]["incidence"]
    assert cumulative_incidence(follow_up, np.array(HORIZONS), once)[0] == pytest.approx(incidence, abs=1e-12)
    judged = judge(follow_up, risks, HORIZONS)["horizons"]
    assert [judged[f"{h:g}"]["observed"]["value"] for h in HORIZONS] == pytest.approx(incidence, abs=1e-12)


# Plain loops


def uncensored_by_loop(follow_up, time, weights):
    """G(t−)."""
    product = 1.0
    for at in sorted(set(follow_up.months[follow_up.status == 0])):
        if at < time:
            censored = sum(
                w for w, m, s in zip(weights, follow_up.months, follow_up.status, strict=True) if (m, s) == (at, 0)
            )
            after = sum(w for w, m in zip(weights, follow_up.months, strict=True) if m > at)
            product *= after / (after + censored)
    return product


def weights_by_loop(follow_up, horizon, weights):
    result = []
    for weight, months, status in zip(weights, follow_up.months, follow_up.status, strict=True):
        known = status > 0 or months >= horizon
        result.append(weight / uncensored_by_loop(follow_up, min(months, horizon), weights) if known else 0.0)
    return np.array(result)


def concordance_by_loop(follow_up, risks, longest, weights):
    concordant = pairs = 0.0
    months, status = follow_up.months, follow_up.status
    for i in np.flatnonzero((status == 1) & (months <= longest)):
        risk = risks.ranking(months[i])
        at = weights_by_loop(follow_up, months[i], weights)  # of those whose outcome at that time is known
        rivals = [j for j in range(len(months)) if not (status[j] == 1 and months[j] <= months[i])]
        for j in rivals:
            pair = at[i] * at[j]
            concordant += pair * ((risk[j] < risk[i]) + (risk[j] == risk[i]) / 2)
            pairs += pair
    return concordant / pairs


def test_under_competing_events_ties_and_weights_every_figure_is_that_of_plain_loops():
    follow_up, risks = simulated(25, 3, whole=True)
    weights = np.random.default_rng(0).uniform(0.2, 3, len(follow_up))
    found = figures_resampled(follow_up, risks, HORIZONS, weights[None])
    assert len(set(follow_up.months)) < len(follow_up)
    for horizon in HORIZONS:
        ipcw = weights_by_loop(follow_up, horizon, weights)
        case = np.array([s == 1 and m <= horizon for m, s in zip(follow_up.months, follow_up.status, strict=True)])
        risk, name = risks.by_horizon[horizon], f"{horizon:g}"
        for kind, weight in (("ipcw", ipcw), ("excluded", weights * (ipcw > 0))):
            pairs = weight[case][:, None] * weight[~case]
            above = risk[case][:, None] - risk[~case]
            auroc = (pairs * ((above > 0) + (above == 0) / 2)).sum() / pairs.sum()
            assert found["horizons", name, kind, "auroc"][0] == pytest.approx(auroc)
            precision = [(weight * case)[risk >= r].sum() / weight[risk >= r].sum() for r in risk[case]]
            auprc = np.average(precision, weights=weight[case])
            assert found["horizons", name, kind, "auprc"][0] == pytest.approx(auprc)
        assert found["horizons", name, "brier"][0] == pytest.approx((ipcw * (risk - case) ** 2).sum() / weights.sum())
        assert found["horizons", name, "mean_risk"][0] == pytest.approx(np.average(risk, weights=weights))
    concordance = concordance_by_loop(follow_up, risks, HORIZONS[-1], weights)
    assert found["concordance",][0] == pytest.approx(concordance, abs=1e-6)


def aalen_johansen_by_loop(follow_up, horizon, weights):
    surviving, incidence = 1.0, 0.0
    for at in sorted(set(follow_up.months[follow_up.status > 0])):
        if at > horizon:
            break
        at_risk = weights[follow_up.months >= at].sum()
        here = follow_up.months == at
        incidence += surviving * weights[here & (follow_up.status == 1)].sum() / at_risk
        surviving *= 1 - weights[here & (follow_up.status > 0)].sum() / at_risk
    return incidence


def test_the_share_of_cases_by_ipcw_is_exactly_the_estimate_of_aalen_and_johansen():
    follow_up, _ = simulated(80, 4, whole=True)
    weights = np.random.default_rng(1).uniform(0.2, 3, (2, len(follow_up)))
    found = cumulative_incidence(follow_up, np.array(HORIZONS), weights)
    for row, values in zip(weights, found, strict=True):
        assert values == pytest.approx([aalen_johansen_by_loop(follow_up, h, row) for h in HORIZONS])
        censoring = Censoring(follow_up, row[None])
        assert weights_at(follow_up, 12, row[None], censoring).sum() == pytest.approx(row.sum())


# Conventions


def test_a_death_within_the_horizon_is_a_control_and_a_censoring_before_it_counts_by_its_weight_only():
    #                       case, death, censored, followed, followed
    follow_up = follow_up_of([3, 4, 5, 20, 30], [1, 2, 0, 0, 1])
    assert follow_up.cases(12).tolist() == [True, False, False, False, False]
    assert follow_up.known(12).tolist() == [True, True, False, True, True]
    once = np.ones((1, 5))
    # Who is censored leaves a third of its weight to each of … the two that are still followed.
    assert weights_at(follow_up, 12, once, Censoring(follow_up, once))[0] == pytest.approx([1, 1, 0, 1.5, 1.5])


def test_a_follow_up_that_is_cut_at_the_horizon_is_known_there():
    follow_up, risks = simulated(100, 5)
    cut = FollowUp(
        follow_up.patients,
        follow_up.numbers,
        np.minimum(follow_up.months, 24.0),
        np.where(follow_up.months > 24, 0, follow_up.status),
    )
    found, expected = judge(cut, risks, HORIZONS), judge(follow_up, risks, HORIZONS)
    assert found["horizons"] == expected["horizons"]
    assert found["concordance"] == pytest.approx(expected["concordance"], abs=1e-6)


def test_where_nobody_is_followed_for_the_horizon_nothing_is_determined():
    follow_up = follow_up_of([3, 4, 5, 6], [1, 2, 0, 0])
    found = judge(follow_up, Risks({12.0: np.array([0.5, 0.2, 0.3, 0.1])}), (5.0, 12.0))
    at = found["horizons"]["12"]
    assert (at["diagnosed"], at["competing"], at["censored"]) == (1, 1, 2)
    assert at["observed"] == at["ipcw"]["auroc"] == at["brier"] == at["calibration_slope"] == UNDETERMINED
    assert at["excluded"] | {"auroc": 0, "auprc": 0} == {
        "landmarks": 2, "positive": 1, "prevalence": 0.5, "auroc": 0, "auprc": 0,
    }  # fmt: skip
    assert found["horizons"]["5"]["observed"]["value"] == 0.25


def test_perfect_risks_are_judged_perfect_where_each_landmark_counts_once_and_not_by_weights_from_the_future():
    rng = np.random.default_rng(6)
    diagnosis, other = 0.006 * np.exp(rng.normal(size=3000)), 0.005
    ends = np.stack([rng.uniform(3, 90, 3000), rng.exponential(1 / diagnosis), rng.exponential(1 / other, 3000)])
    count = np.clip(np.ceil(ends.min(axis=0) / 6), 1, 8).astype(int)
    patient = np.repeat(np.arange(3000), count)
    number = np.arange(len(patient)) - np.repeat(np.cumsum(count) - count, count)
    follow_up = FollowUp(patient, number + 1, ends.min(axis=0)[patient] - 6 * number, ends.argmin(axis=0)[patient])
    true = diagnosis / (diagnosis + other) * (1 - np.exp(-12 * (diagnosis + other)))
    risks = Risks({12.0: true[patient]})
    for rows in (None, follow_up.numbers == 1, follow_up.numbers == 3):
        at = judge(follow_up, risks, (12.0,), rows)["horizons"]["12"]
        assert at["observed"]["low"] < at["mean_risk"] < at["observed"]["high"]
        assert at["calibration_intercept"]["low"] < 0 < at["calibration_intercept"]["high"]
        assert at["calibration_slope"]["low"] < 1 < at["calibration_slope"]["high"]
    by_patient = judge(follow_up, risks, (12.0,), weights=follow_up.weights_by_patient())["horizons"]["12"]
    assert by_patient["calibration_intercept"]["low"] > 0.3


def test_weights_count_like_copies():
    follow_up, risks = simulated(60, 6)
    first = np.flatnonzero(follow_up.numbers == 1)
    times = np.random.default_rng(0).integers(1, 4, 60)
    copies = np.repeat(first, times)
    weights = np.zeros(len(follow_up))
    weights[first] = times
    weighted = judge(follow_up, risks, HORIZONS, first, weights)
    copied = judge(follow_up, risks, HORIZONS, copies)
    assert (weighted["landmarks"], copied["landmarks"]) == (60, len(copies))
    for name in ("brier", "calibration_slope", "observed"):
        assert copied["horizons"]["12"][name] == pytest.approx(weighted["horizons"]["12"][name])
    assert copied["concordance"] == pytest.approx(weighted["concordance"], abs=1e-6)


def test_a_risk_for_one_horizon_ranks_at_all_and_is_judged_as_a_risk_at_its_own():
    follow_up, risks = simulated(150, 7)
    one = judge(follow_up, Risks({12.0: risks.by_horizon[12.0]}), HORIZONS)
    assert one["integrated_brier"] is None
    for name in ("brier", "scaled_brier", "calibration_slope", "calibration_intercept", "mean_risk"):
        assert one["horizons"]["24"][name] is None
        assert one["horizons"]["12"][name] is not None
    assert one["horizons"]["24"]["ipcw"]["auroc"]["low"] > 0.5
    several = judge(follow_up, risks, HORIZONS)
    assert one["horizons"]["12"] == several["horizons"]["12"]
    assert several["integrated_brier"]["value"] < several["integrated_brier_of_incidence"]


def test_the_concordance_compares_risks_as_they_are_at_the_time_of_the_diagnosis():
    follow_up = follow_up_of([3, 10, 20], [1, 1, 0])
    early, late = np.array([0.9, 0.1, 0.2]), np.array([0.1, 0.9, 0.2])
    once = np.ones((1, 3))
    censoring = Censoring(follow_up, once)
    for risks, expected in (({6.0: early, 12.0: late}, 1.0), ({6.0: late, 12.0: early}, 0.0), ({12.0: early}, 2 / 3)):
        assert concordance_resampled(follow_up, Risks(risks), 12, once, censoring)[0] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"months": np.array([-1.0, 2.0])}, "at least 0"),
        ({"months": np.array([np.nan, 2.0])}, "at least 0"),
        ({"status": np.array([0, 3])}, "status must be"),
        ({"numbers": np.array([1])}, "one per landmark"),
    ],
)
def test_a_follow_up_that_is_none_is_a_mistake_of_the_caller(changed, words):
    rows = {"patients": np.arange(2), "numbers": np.ones(2, int), "months": np.ones(2), "status": np.zeros(2, int)}
    with pytest.raises(ValueError, match=words):
        FollowUp(**{**rows, **changed})


@pytest.mark.parametrize(
    "by_horizon", [{}, {6.0: np.array([0.1, 1.2])}, {6.0: np.array([0.1]), 12.0: np.array([0.1, 0.2])}]
)
def test_risks_that_are_none_are_a_mistake_of_the_caller(by_horizon):
    with pytest.raises(ValueError, match="risks must be"):
        Risks(by_horizon)


# Replicates and intervals


def test_a_replicate_is_figured_as_if_the_patients_it_leaves_out_were_not_there():
    follow_up, risks = simulated(30, 8, whole=True)
    weights = follow_up.weights_by_patient()
    assert np.bincount(follow_up.patients, weights) == pytest.approx(np.ones(30))
    replicates = jackknife_weights(follow_up.patients, weights)
    found = figures_resampled(follow_up, risks, HORIZONS, replicates)
    assert replicates.shape == (31, len(follow_up))
    assert (replicates[0] == weights).all()
    for n in (1, 12, 30):
        kept = replicates[n] > 0
        assert len(np.unique(follow_up.patients[~kept])) == 1
        alone = figures_resampled(follow_up.of(kept), risks.of(kept), HORIZONS, replicates[n : n + 1, kept])
        for place, values in found.items():
            assert values[n] == pytest.approx(alone[place][0], abs=1e-6, nan_ok=True), place


def test_many_patients_are_left_out_in_groups_of_equal_size_each_of_them_once():
    patients = np.repeat(np.arange(1000), 3)
    weights = jackknife_weights(patients, np.ones(3000), seed=1)
    assert weights.shape == (1 + MOST_GROUPS, 3000)
    assert ((weights[1:] == 0).sum(axis=0) == 1).all()
    assert set((weights[1:] == 0).sum(axis=1)) == {3000 // MOST_GROUPS}
    assert (jackknife_weights(patients, np.ones(3000), seed=2) != weights).any()


def test_patients_are_drawn_again_with_all_their_landmarks():
    patients = np.repeat(np.arange(40), 2)
    weights = bootstrap_weights(patients, np.full(80, 0.5), 300)
    assert (weights[0] == 0.5).all()
    assert (weights[:, ::2] == weights[:, 1::2]).all()
    assert weights.sum(axis=1) == pytest.approx(np.full(301, 40))


def test_the_interval_of_a_mean_is_the_textbooks():
    values = np.tile([1.0, 3.0], 10)
    weights = jackknife_weights(np.arange(20), np.ones(20))
    found = jackknife_interval(weights @ values / weights.sum(axis=1), "identity")
    half = student.ppf(0.975, 19) * values.std(ddof=1) / np.sqrt(20)
    assert (found.value, found.low, found.high) == pytest.approx((2, 2 - half, 2 + half))


def test_an_interval_is_the_wider_the_fewer_patients_decide_it_and_stays_within_its_scale():
    def width(positives):
        values = np.where(np.arange(100) < positives, 1.0, 0.0)
        weights = jackknife_weights(np.arange(100), np.ones(100))
        found = jackknife_interval(weights @ values / weights.sum(axis=1), "logit")
        assert 0 < found.low < positives / 100 < found.high < 1
        return logit(found.high) - logit(found.low)

    # Of two events Satterthwaite's degrees of freedom are about four: more than the normal's 2 × 1.96 / √2.
    assert width(2) > 1.3 * 2 * 1.96 / np.sqrt(2 * 0.98)
    assert width(2) > width(5) > width(20)


@pytest.mark.parametrize("values", [[0.5, np.nan, 0.4, 0.6], [0.5, 1.0, 0.4, 0.6], [0.5, 0.5]])
def test_where_leaving_one_out_leaves_nothing_determined_there_is_a_value_without_bounds(values):
    assert vars(jackknife_interval(np.array(values), "logit")) == {"value": 0.5, "low": None, "high": None}


def test_risks_differ_from_themselves_by_exactly_nothing_and_from_worse_ones_less_vaguely_than_both_apart():
    follow_up, risks = simulated(200, 9)
    rng = np.random.default_rng(0)
    worse = Risks(
        {h: expit(logit(r.clip(0.01, 0.99)) + rng.normal(0, 0.5, len(r))) for h, r in risks.by_horizon.items()}
    )
    same = compare(follow_up, risks, risks, HORIZONS)
    assert same["concordance"] == same["horizons"]["12"]["ipcw"]["auprc"] == {"value": 0, "low": 0, "high": 0}
    found, alone = compare(follow_up, risks, worse, HORIZONS), judge(follow_up, risks, HORIZONS)
    for difference, one in (
        (found["horizons"]["12"]["ipcw"]["auroc"], alone["horizons"]["12"]["ipcw"]["auroc"]),
        (found["concordance"], alone["concordance"]),
    ):
        assert difference["value"] > 0
        assert difference["high"] - difference["low"] < one["high"] - one["low"]
    assert "observed" not in found["horizons"]["12"]


def test_without_a_diagnosis_the_observed_risk_still_has_an_upper_bound():
    follow_up = follow_up_of(np.full(20, 30.0), np.zeros(20, int))
    at = judge(follow_up, Risks({12.0: np.linspace(0.1, 0.5, 20)}), (12.0,))["horizons"]["12"]
    assert at["observed"] == pytest.approx({"value": 0, "low": 0, "high": 0.1611}, abs=1e-4)
    assert at["ipcw"]["auroc"] == at["calibration_intercept"] == UNDETERMINED
    assert at["brier"]["high"] is not None


@pytest.mark.parametrize("patients", [0, 1, 2, 3, 6, 40])
def test_all_is_plain_data_for_json_however_few_there_are(patients):
    follow_up, risks = simulated(max(patients, 1), 10)
    rows = follow_up.patients < patients
    for some in (risks, Risks({12.0: risks.by_horizon[12.0]})):
        found = [
            judge(follow_up, some, HORIZONS, rows),
            compare(follow_up, some, risks, HORIZONS, rows),
            *(curves(follow_up, some, horizon, rows) for horizon in HORIZONS),
            lead_time(follow_up.of(rows), some.by_horizon[12.0][rows], 12),
        ]
        assert json.loads(json.dumps(found, allow_nan=False)) == found


# Curves


def test_the_curves_enclose_the_areas_that_are_told():
    follow_up, risks = simulated(60, 11)
    drawn, told = curves(follow_up, risks, 12.0), judge(follow_up, risks, (12.0,))["horizons"]["12"]
    roc, pr = np.array(drawn["roc"]), np.array(drawn["pr"])
    assert (roc[0].tolist(), roc[-1].tolist()) == ([0, 0], pytest.approx([1, 1]))
    area = (np.diff(roc[:, 0]) * (roc[1:, 1] + roc[:-1, 1]) / 2).sum()
    assert area == pytest.approx(told["ipcw"]["auroc"]["value"], abs=1e-6)
    assert np.diff(pr[:, 0], prepend=0) @ pr[:, 1] == pytest.approx(told["ipcw"]["auprc"]["value"], abs=1e-6)
    assert pr[-1].tolist() == pytest.approx([1, told["observed"]["value"]])
    counts = {kind: sum(drawn["histogram"][kind]) for kind in ("positive", "negative")}
    assert counts == {"positive": told["diagnosed"], "negative": told["excluded"]["landmarks"] - told["diagnosed"]}
    groups = drawn["calibration"]["groups"]
    assert sum(group["count"] for group in groups) == len(follow_up)
    assert all(earlier["mean"] < later["mean"] for earlier, later in itertools.pairwise(groups))


def test_a_curve_of_many_points_is_thinned_without_losing_its_area():
    rng = np.random.default_rng(0)
    follow_up = follow_up_of(np.full(3000, 20.0) - 15 * (rng.random(3000) < 0.3), rng.permutation(3000) % 2)
    risks = Risks({12.0: rng.random(3000)})
    roc = np.array(curves(follow_up, risks, 12.0)["roc"])
    assert len(roc) <= 202
    area = (np.diff(roc[:, 0]) * (roc[1:, 1] + roc[:-1, 1]) / 2).sum()
    assert area == pytest.approx(judge(follow_up, risks, (12.0,))["horizons"]["12"]["ipcw"]["auroc"]["value"], abs=2e-3)


def test_the_smoothed_curve_follows_a_known_distortion():
    rng = np.random.default_rng(1)
    risks = expit(rng.normal(-1.5, 1, 20_000))
    cases = rng.random(20_000) < expit(0.6 * logit(risks) - 0.3)
    grid = np.array([0.05, 0.2, 0.5])
    weights = jackknife_weights(np.arange(20_000), np.ones(20_000))[:41]
    smoothed = smoothed_resampled(cases, risks, weights, grid)
    assert smoothed[0] == pytest.approx(expit(0.6 * logit(grid) - 0.3), abs=0.02)
    # A step from the whole is where a fit without the left out arrives.
    refitted = np.concatenate([smoothed_resampled(cases, risks, weights[[n]], grid) for n in (1, 40)])
    assert smoothed[[1, 40]] == pytest.approx(refitted, abs=1e-5)


def test_net_benefit_is_the_published_formula():
    labels, risks = np.array([1, 1, 0, 0, 0], dtype=bool), np.array([0.8, 0.1, 0.4, 0.3, 0.05])
    found = net_benefit_resampled(labels, risks, np.array([0.05, 0.3, 0.5]), np.ones((1, 5)))[0]
    assert found == pytest.approx([(2 - 3 * 0.05 / 0.95) / 5, (1 - 2 * 0.3 / 0.7) / 5, 1 / 5])
    follow_up = follow_up_of([5, 9, 20, 20, 20], [1, 1, 0, 2, 0])
    threshold, model, everybody = curves(follow_up, Risks({12.0: risks}), 12.0)["net_benefit"][29]
    assert (threshold, model) == (0.3, pytest.approx((1 - 2 * 0.3 / 0.7) / 5))
    assert everybody == pytest.approx(0.4 - 0.6 * 0.3 / 0.7)


# Lead time


def test_lead_times_are_counted_from_the_first_alarm_before_each_diagnosis():
    # Patient 0: alarms 14 and 2 months ahead; 1: 4 months; 2: none; 3: never diagnosed.
    patients = [0, 0, 0, 1, 1, 2, 3, 3]
    months = [20, 14, 2, 10, 4, 7, 40, 30]
    follow_up = follow_up_of(months, [1, 1, 1, 1, 1, 1, 0, 0], patients)
    risks = np.array([0.1, 0.6, 0.7, 0.2, 0.5, 0.3, 0.1, 0.4])
    shuffled = np.random.default_rng(0).permutation(8)
    found = lead_time(follow_up.of(shuffled), risks[shuffled], 12, threshold=0.5)
    assert (found["threshold"], found["diagnosed"]) == (0.5, 3)
    assert found["alarmed"]["value"] == pytest.approx(2 / 3)
    assert {months: share["value"] for months, share in found["ahead"].items()} == pytest.approx(
        {"3": 2 / 3, "6": 1 / 3, "12": 1 / 3}
    )
    assert [found[name]["value"] for name in ("mean", "median", "mean_of_all")] == pytest.approx([9, 9, 6])


def test_without_a_threshold_nine_tenths_of_the_controls_have_no_alarm():
    follow_up, risks = simulated(300, 12)
    found = lead_time(follow_up, risks.by_horizon[12.0], 12)
    assert 0.9 <= found["specificity"] < 0.92  # risks are tied
    lower = lead_time(follow_up, risks.by_horizon[12.0], 12, threshold=found["threshold"] - 0.005)
    assert lower["specificity"] == pytest.approx(found["specificity"])
    assert lead_time(follow_up, risks.by_horizon[12.0], 12, found["threshold"] - 0.015)["specificity"] < 0.9
    assert found["alarmed"]["low"] < found["alarmed"]["value"] < found["alarmed"]["high"]
    given = lead_time(follow_up, risks.by_horizon[12.0], 12, threshold=found["threshold"])
    assert given["alarmed"]["value"] == found["alarmed"]["value"]
