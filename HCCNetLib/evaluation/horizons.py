"""Figures of one set of landmarks at each horizon, with intervals, as plain data for JSON.

Discrimination, Brier score and calibration are by IPCW (``follow_up``), discrimination also by exclusion: landmarks that are
censored before the horizon are left out and all others count alike, which prefers those with an early diagnosis.

Each landmark counts once, unless other weights are given; the intervals know whose they are. Weights of 1 / the patient's
number of landmarks, like the choice of the latest one or of a random one, look into the future: a patient who is diagnosed soon has
few landmarks. Under them even perfect risks seem far too low. A landmark may be chosen by what is known on its day: the
patient's first, the second, all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.integrate import trapezoid

from HCCNetLib.evaluation.calibration import brier_resampled, intercept_resampled, slope_resampled, smoothed_resampled
from HCCNetLib.evaluation.concordance import concordance_resampled
from HCCNetLib.evaluation.discrimination import areas_resampled, pr_points, roc_points
from HCCNetLib.evaluation.follow_up import COMPETING, Censoring, FollowUp, cumulative_incidence, weights_at
from HCCNetLib.evaluation.replicates import (
    Figures,
    in_pieces,
    jackknife_interval,
    jackknife_weights,
    put,
    share_interval,
)
from HCCNetLib.evaluation.risks import Risks
from HCCNetLib.evaluation.scores import Floats, Labels
from HCCNetLib.evaluation.usefulness import net_benefit_resampled

# On which scale a figure's interval is symmetric; the others, and all differences, on their own.
SCALES: Mapping[str, str] = dict.fromkeys(
    ("auroc", "auprc", "brier", "integrated_brier", "concordance", "observed"), "logit"
)

_POINTS = 200  # of a curve
_GRID = 41
_MOST_GROUPS, _PER_GROUP = 10, 10
_HISTOGRAM_BINS = 100
_OF_RISK = ("brier", "scaled_brier", "calibration_intercept", "calibration_slope")
_WITHOUT_INTERVAL = ("prevalence", "mean_risk", "brier_of_incidence", "integrated_brier_of_incidence")
_OF_DATA = ("observed", "prevalence", "brier_of_incidence", "integrated_brier_of_incidence")

Rows = NDArray[np.bool_] | NDArray[np.intp]


def judge(
    follow_up: FollowUp,
    risks: Risks,
    horizons: Sequence[float],
    rows: Rows | None = None,
    weights: Floats | None = None,
    seed: int = 0,
    cases: Labels | None = None,
) -> dict[str, Any]:
    """All figures of a set of landmarks.

    Args:
        follow_up: N landmarks.
        risks: of the same; at a horizon for which they are not calibrated they only rank.
        horizons: months.
        rows: the landmarks that make the set; None for all.
        weights: (N,) of the landmarks; None for each of them once.
        seed: of the groups of patients that the intervals leave out, where there are many.
        cases: (N,) the cases that are judged, None for all. The others are left out of the figures, not of the censoring weights,
            and only discrimination has a meaning.

    Returns:
        ``patients``, ``landmarks``, ``concordance`` up to the largest horizon, ``integrated_brier`` and the same ``_of_incidence``
        over the horizons with calibrated risks (None where there are fewer than two), and in ``horizons`` by months what
        became of the landmarks and the figures. A figure is its value and bounds, None where the data do not determine them.
    """
    follow_up, risks, weights = _chosen(follow_up, risks, rows, weights)
    cases = cases if cases is None or rows is None else cases[rows]
    replicates = jackknife_weights(follow_up.patients, weights, seed)
    figures = figures_resampled(follow_up, risks, horizons, replicates, cases)
    result: dict[str, Any] = {
        "patients": len(np.unique(follow_up.patients)),
        "landmarks": len(follow_up),
        "integrated_brier": None,
        "integrated_brier_of_incidence": None,
        "horizons": {_key(horizon): _counts(follow_up, horizon, cases) for horizon in horizons},
    }
    for place, values in figures.items():
        put(result, place, _judged(place[-1], values, result["patients"]))
    if cases is not None:
        _leave_discrimination(result)
    return result


def _leave_discrimination(result: dict[str, Any]) -> None:
    """Takes away what depends on how many cases there are: cases were chosen."""
    result |= dict.fromkeys(("concordance", "integrated_brier", "integrated_brier_of_incidence"))
    for at in result["horizons"].values():
        at |= dict.fromkeys(("observed", "brier_of_incidence", "mean_risk", *_OF_RISK))


def compare(
    follow_up: FollowUp,
    risks: Risks,
    other: Risks,
    horizons: Sequence[float],
    rows: Rows | None = None,
    weights: Floats | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """The figures of ``risks`` minus those of ``other``, which both have, with paired intervals; as ``judge``."""
    chosen, first, weights = _chosen(follow_up, risks, rows, weights)
    second = other if rows is None else other.of(rows)
    replicates = jackknife_weights(chosen.patients, weights, seed)
    both = [figures_resampled(chosen, one, horizons, replicates) for one in (first, second)]
    result: dict[str, Any] = {}
    for place in both[0]:
        if place in both[1] and place[-1] not in _OF_DATA:
            with np.errstate(invalid="ignore"):
                difference = both[0][place] - both[1][place]
            put(result, place, jackknife_interval(difference, "identity").to_dict())
    return result


def figures_resampled(
    follow_up: FollowUp, risks: Risks, horizons: Sequence[float], weights: Floats, cases: Labels | None = None
) -> Figures:
    """Every figure in each of R replicates: its place in the result of ``judge`` → (R,), NaN where it is not determined.

    Args:
        follow_up: N landmarks.
        risks: of the same.
        horizons: months.
        weights: (R, N).
        cases: (N,) the cases that are judged, as of ``judge``.
    """
    whole = Censoring(follow_up, weights)
    found: Figures = {("concordance",): concordance_resampled(follow_up, risks, max(horizons), weights, whole)}
    found |= in_pieces(lambda piece: _at_horizons(follow_up, risks, horizons, piece, cases), weights)
    calibrated = [horizon for horizon in sorted(horizons) if risks.at(horizon) is not None]
    if len(calibrated) > 1:
        for name in ("brier", "brier_of_incidence"):
            each = np.stack([found["horizons", _key(horizon), name] for horizon in calibrated])
            found[f"integrated_{name}",] = trapezoid(each, calibrated, axis=0) / (calibrated[-1] - calibrated[0])
    return found


def curves(
    follow_up: FollowUp,
    risks: Risks,
    horizon: float,
    rows: Rows | None = None,
    weights: Floats | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """What a page draws of a set of landmarks at one horizon, by IPCW; arguments as of ``judge``.

    Returns:
        ``roc``: false and true positive rate; ``pr``: recall and precision; ``histogram``: landmarks by class in 100 bins
        of risk. For calibrated risks, else None: ``calibration``, with ``smooth``: risk, observed, low, high, and
        ``groups`` of similar risk with their ``count`` of landmarks, ``mean`` risk and ``observed`` risk; ``net_benefit``:
        threshold, of the model, of treating all. Curves that need both classes are empty without them.
    """
    follow_up, risks, weights = _chosen(follow_up, risks, rows, weights)
    replicates = jackknife_weights(follow_up.patients, weights, seed)
    known = np.flatnonzero(follow_up.known(horizon))
    ipcw = weights_at(follow_up.of(known), horizon, replicates[:, known], Censoring(follow_up, replicates))
    cases, ranking, risk = follow_up.cases(horizon)[known], risks.ranking(horizon)[known], risks.at(horizon)
    drawable = bool(np.isfinite(ipcw[0]).all() and cases.any() and not cases.all())
    result: dict[str, Any] = {
        "roc": _thinned(roc_points(cases, ranking, ipcw[0])) if drawable else [],
        "pr": _thinned(pr_points(cases, ranking, ipcw[0])) if drawable else [],
        "histogram": _histogram(cases, ranking),
        "calibration": None,
        "net_benefit": None,
    }
    if risk is not None:
        result["calibration"] = {
            "smooth": _smooth(cases, risk[known], ipcw) if drawable else [],
            "groups": _groups(follow_up, risk, horizon, replicates),
        }
        result["net_benefit"] = _net_benefit(cases, risk[known], ipcw[:1]) if drawable else []
    return result


def _chosen(
    follow_up: FollowUp, risks: Risks, rows: Rows | None, weights: Floats | None
) -> tuple[FollowUp, Risks, Floats]:
    weights = np.ones(len(follow_up)) if weights is None else weights
    if rows is None:
        return follow_up, risks, weights
    return follow_up.of(rows), risks.of(rows), weights[rows]


def _at_horizons(
    follow_up: FollowUp, risks: Risks, horizons: Sequence[float], weights: Floats, chosen: Labels | None
) -> Figures:
    censoring = Censoring(follow_up, weights)
    found: Figures = {}
    for horizon in horizons:
        rows = np.flatnonzero(_counted(follow_up, horizon, chosen))
        known, known_weights = follow_up.of(rows), weights[:, rows]
        cases, ranking, risk = known.cases(horizon), risks.ranking(horizon)[rows], risks.at(horizon)
        ipcw = weights_at(known, horizon, known_weights, censoring)
        figures = _discrimination("ipcw", cases, ranking, ipcw)
        figures |= _discrimination("excluded", cases, ranking, known_weights)
        observed = figures["ipcw", "prevalence"]
        figures |= {("observed",): observed, ("brier_of_incidence",): observed * (1 - observed)}
        if risk is not None:
            figures["mean_risk",] = _share(weights, risk)
            figures |= _calibration(cases, risk[rows], ipcw, observed)
        found |= {("horizons", _key(horizon), *place): values for place, values in figures.items()}
    return found


def _counted(follow_up: FollowUp, horizon: float, chosen: Labels | None) -> Labels:
    """(N,): cases and controls, without cases that are not among the chosen."""
    known = follow_up.known(horizon)
    return known if chosen is None else known & (chosen | ~follow_up.cases(horizon))


def _discrimination(kind: str, cases: Labels, risks: Floats, weights: Floats) -> Figures:
    auroc, auprc = areas_resampled(cases, risks, weights)
    return {(kind, "auroc"): auroc, (kind, "auprc"): auprc, (kind, "prevalence"): _share(weights, cases)}


def _calibration(cases: Labels, risks: Floats, weights: Floats, observed: Floats) -> Figures:
    brier = brier_resampled(cases, risks, weights)
    with np.errstate(invalid="ignore", divide="ignore"):
        scaled = 1 - brier / (observed * (1 - observed))
    return {
        ("brier",): brier,
        ("scaled_brier",): scaled,
        ("calibration_intercept",): intercept_resampled(cases, risks, weights),
        ("calibration_slope",): slope_resampled(cases, risks, weights),
    }


def _share(weights: Floats, values: Floats | Labels) -> Floats:
    with np.errstate(invalid="ignore"):
        result: Floats = weights @ values / weights.sum(axis=1)
    return result


def _key(horizon: float) -> str:
    return f"{horizon:g}"


def _judged(name: str, values: Floats, patients: int) -> Any:
    if name in _WITHOUT_INTERVAL:
        return float(values[0]) if np.isfinite(values[0]) else None
    if name == "observed":
        return share_interval(values, patients).to_dict()
    return jackknife_interval(values, SCALES.get(name, "identity")).to_dict()


def _counts(follow_up: FollowUp, horizon: float, chosen: Labels | None) -> dict[str, Any]:
    known, cases = follow_up.known(horizon), follow_up.cases(horizon)
    counted = _counted(follow_up, horizon, chosen)
    competing = (follow_up.status == COMPETING) & (follow_up.months <= horizon)
    return {
        "diagnosed": int((cases & counted).sum()),
        "competing": int(competing.sum()),
        "censored": int((~known).sum()),
        "mean_risk": None,
        "excluded": {"landmarks": int(counted.sum()), "positive": int((cases & counted).sum())},
        **dict.fromkeys(_OF_RISK),
    }


def _thinned(points: Floats) -> list[list[float]]:
    """At most about 200 of the points, evenly along the way."""
    way = np.concatenate([[0.0], np.cumsum(np.abs(np.diff(points, axis=0)).sum(axis=1))])
    kept = np.unique(np.searchsorted(way, np.linspace(0, way[-1], _POINTS + 1) * (1 - 1e-12)))
    result: list[list[float]] = points[kept].tolist()
    return result


def _histogram(cases: Labels, risks: Floats) -> dict[str, list[int]]:
    edges = np.linspace(0, 1, _HISTOGRAM_BINS + 1)
    kinds = {"positive": cases, "negative": ~cases}
    return {name: np.histogram(risks[kind], edges)[0].tolist() for name, kind in kinds.items()}


def _smooth(cases: Labels, risks: Floats, weights: Floats) -> list[list[float | None]]:
    """Between the 1st and 99th percentile of the risks: further out there is too little to observe."""
    order = np.argsort(risks)
    shares = np.cumsum(weights[0, order]) / weights[0].sum()
    low, high = risks[order][np.minimum(np.searchsorted(shares, (0.01, 0.99)), len(risks) - 1)]
    grid = np.unique(np.linspace(low, high, _GRID))
    smoothed = smoothed_resampled(cases, risks, weights, grid)
    intervals = [jackknife_interval(values, "logit") for values in smoothed.T]
    return [[float(risk), one.value, one.low, one.high] for risk, one in zip(grid, intervals, strict=True)]


def _groups(follow_up: FollowUp, risks: Floats, horizon: float, weights: Floats) -> list[dict[str, Any]]:
    """Up to ten groups of about equal weight, of at least about ten patients; equal risks in one."""
    wanted = int(np.clip(len(np.unique(follow_up.patients)) // _PER_GROUP, 2, _MOST_GROUPS))
    values, place = np.unique(risks, return_inverse=True)
    each = np.bincount(place, weights[0], len(values))
    group = np.floor(wanted * (np.cumsum(each) - each / 2) / each.sum()).astype(np.intp)[place]
    return [
        _group(follow_up.of(rows), risks[rows], horizon, weights[:, rows])
        for rows in (np.flatnonzero(group == one) for one in np.unique(group))
    ]


def _group(follow_up: FollowUp, risks: Floats, horizon: float, weights: Floats) -> dict[str, Any]:
    with np.errstate(invalid="ignore"):
        observed = cumulative_incidence(follow_up, np.array([horizon]), weights)[:, 0]
    interval = share_interval(observed, len(np.unique(follow_up.patients)))
    mean = float(_share(weights[:1], risks)[0])
    return {"count": len(follow_up), "mean": mean, "observed": interval.to_dict()}


def _net_benefit(cases: Labels, risks: Floats, weights: Floats) -> list[list[float]]:
    """At each per cent up to the highest risk."""
    thresholds = np.arange(1, min(100, int(risks.max() * 100) + 2)) / 100
    model, everybody = (
        net_benefit_resampled(cases, values, thresholds, weights)[0] for values in (risks, np.ones(len(risks)))
    )
    return np.stack([thresholds, model, everybody], axis=1).tolist()
