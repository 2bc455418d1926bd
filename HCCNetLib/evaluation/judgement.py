"""All figures of one bundle on one cohort: sets of landmarks, horizons, curves, alarms, thresholds, members."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from HCCNetLib.evaluation.discrimination import auroc_resampled
from HCCNetLib.evaluation.follow_up import Censoring, FollowUp, weights_at
from HCCNetLib.evaluation.horizons import curves, judge
from HCCNetLib.evaluation.landmark_sets import Details, landmark_sets
from HCCNetLib.evaluation.lead_time import RESAMPLES, lead_time
from HCCNetLib.evaluation.replicates import jackknife_interval, jackknife_weights
from HCCNetLib.evaluation.risks import Risks
from HCCNetLib.evaluation.scores import Floats
from HCCNetLib.evaluation.thresholds import at_thresholds
from HCCNetLib.records import Problem

HORIZONS = (6.0, 12.0, 18.0, 24.0, 36.0)
METHOD = (
    "95%, from leaving out patients with all their landmarks (jackknife); of lead times, from drawing patients again "
    "(bootstrap)"
)

_FEW, _MANY = 10, 100


@dataclass(frozen=True)
class Landmarks:
    """What one bundle predicted at N landmarks.

    Args:
        follow_up: what became of the patients.
        risks: calibrated.
        details: what else is known.
        members: (N, M) each member's raw probability at the main horizon.
    """

    follow_up: FollowUp
    risks: Risks
    details: Details
    members: Floats


def judge_bundle(
    landmarks: Landmarks,
    horizons: Sequence[float],
    horizon: float,
    thresholds: Sequence[Mapping[str, Any]] = (),
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> dict[str, Any]:
    """Judges risks.

    Args:
        landmarks: N.
        horizons: months at which everything is judged.
        horizon: the main one, of curves, thresholds, alarms and members; one of ``horizons``.
        thresholds: chosen on other data.
        seed: of the intervals and of the random landmark.
        resamples: of the bootstrap, for lead times.

    Returns:
        Plain data: ``sets``, a figure for each set and horizon (``horizons.judge``), the headline first; ``curves`` of the
        headline at the main horizon; ``lead_time``; ``thresholds``; ``members``; ``warnings``; ``intervals``.

    Raises:
        Refusal: a threshold can't be used.
    """
    follow_up, risks = landmarks.follow_up, landmarks.risks
    ranking = risks.ranking(horizon)
    sets = judge_sets(landmarks, horizons, horizon, seed)
    return {
        "horizons": list(horizons),
        "main_horizon": horizon,
        "calibrated_horizons": [months for months in risks.horizons if months in horizons],
        "sets": sets,
        "curves": curves(follow_up, risks, horizon, seed=seed),
        "lead_time": lead_time(follow_up, ranking, horizon, None, seed, resamples),
        "thresholds": [
            {**judged, "lead_time": lead_time(follow_up, ranking, horizon, judged["threshold"], seed, resamples)}
            for judged in at_thresholds(follow_up, ranking, horizon, thresholds, seed)
        ],
        "members": _judge_members(landmarks, horizon, seed),
        "warnings": [vars(problem) for problem in _warnings(follow_up, sets[0], horizon)],
        "intervals": {"method": METHOD, "resamples": resamples, "seed": seed},
    }


def judge_sets(landmarks: Landmarks, horizons: Sequence[float], horizon: float, seed: int = 0) -> list[dict[str, Any]]:
    """The figures of each set of landmarks that is not empty, the headline first."""
    return [
        {
            "kind": one.kind,
            "name": one.name,
            "note": one.note,
            **judge(
                landmarks.follow_up,
                landmarks.risks,
                horizons if one.horizon is None else [one.horizon],
                one.rows,
                one.weights,
                seed,
                one.cases,
            ),
        }
        for one in landmark_sets(landmarks.follow_up, landmarks.details, horizon, seed)
        if len(one.rows)
    ]


def _judge_members(landmarks: Landmarks, horizon: float, seed: int) -> dict[str, Any] | None:
    """Each member's AUROC by IPCW on raw outputs; None where there is one network."""
    follow_up, members = landmarks.follow_up, landmarks.members
    if members.shape[1] < 2:
        return None
    weights = jackknife_weights(follow_up.patients, np.ones(len(follow_up)), seed)
    ipcw = weights_at(follow_up, horizon, weights, Censoring(follow_up, weights))
    cases = follow_up.cases(horizon)
    each = np.stack([auroc_resampled(cases, member, ipcw) for member in (members.mean(axis=1), *members.T)])
    mean = each[1:].mean(axis=0)
    return {
        "auroc": [jackknife_interval(member, "logit").to_dict() for member in each[1:]],
        "mean_auroc": jackknife_interval(mean, "logit").to_dict(),
        "ensemble_above_mean": jackknife_interval(each[0] - mean, "identity").to_dict(),
    }


def _warnings(follow_up: FollowUp, headline: Mapping[str, Any], horizon: float) -> list[Problem]:
    """What limits the figures, most serious first. Patients count, not their exams: these are alike."""
    at, cases = headline["horizons"][f"{horizon:g}"], follow_up.cases(horizon)
    controls = follow_up.known(horizon) & ~cases
    counts = {
        f"followed by a diagnosis within {horizon:g} months": cases,
        f"known not to be followed by one within {horizon:g} months": controls,
    }
    fewer, kind = min((len(np.unique(follow_up.patients[rows])), kind) for kind, rows in counts.items())
    who = f"{fewer} patient(s) have an exam that is {kind}"
    warnings = []
    if fewer < _FEW:
        message = (
            f"Only {who}: the intervals are wide, and from so few they are still too narrow. Draw no conclusion from these "
            f"figures."
        )
        warnings.append(Problem("very_few_cases", message))
    elif fewer < _MANY:
        message = (
            f"{who}. Calibration can be judged from about 100 patients with and 100 without a diagnosis on (Collins et al., "
            f"Stat Med 2016;35:214); below that, read it with its interval."
        )
        warnings.append(Problem("few_cases", message))
    if at["ipcw"]["auroc"]["value"] in (0.0, 1.0):
        message = (
            "The risks separate the two classes without exception: the AUROC has no interval, which does not mean that it "
            "is certain."
        )
        warnings.append(Problem("separated", message))
    if at["calibration_slope"] is None or at["calibration_slope"]["value"] is None:
        message = "The calibration slope is not determined: the risks separate the classes, or are all equal."
        warnings.append(Problem("slope_not_determined", message))
    return warnings
