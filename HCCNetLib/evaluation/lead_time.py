"""How long before the diagnosis a patient's risk first reaches a threshold: an alarm."""

from __future__ import annotations

from typing import Any

import numpy as np

from HCCNetLib.evaluation.follow_up import DIAGNOSED, Censoring, FollowUp, weights_at
from HCCNetLib.evaluation.intervals import Interval, percentile_interval, wilson
from HCCNetLib.evaluation.replicates import (
    Figures,
    bootstrap_weights,
    in_pieces,
    jackknife_interval,
    jackknife_weights,
    put,
    share_interval,
)
from HCCNetLib.evaluation.scores import Floats
from HCCNetLib.evaluation.thresholds import TARGET

AHEAD = (3.0, 6.0, 12.0)  # months

RESAMPLES = 1000


def lead_time(
    follow_up: FollowUp,
    risks: Floats,
    horizon: float,
    threshold: float | None = None,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> dict[str, Any]:
    """Lead times of the diagnosed patients, each counted once.

    Args:
        follow_up: N landmarks, of each patient as many as there are.
        risks: (N,).
        horizon: months at which controls are controls.
        threshold: a risk of at least this is an alarm; chosen on other data. None for the lowest with a specificity of 0.90
            among the controls, by IPCW; it is found again in each replicate.
        seed: of the replicates.
        resamples: of the bootstrap.

    Returns:
        ``threshold`` and its ``specificity``; ``diagnosed``: how many patients, whenever that was; ``alarmed``: the share
        of them with an alarm; ``ahead``: months → the share with one at least so long before the diagnosis; ``mean`` and
        ``median``: months from the first alarm to the diagnosis of those alarmed; ``mean_of_all``: with 0 for the others.
        No lead is longer than the patient was examined before: compare within a cohort only.
    """
    once, diagnosed = np.ones(len(follow_up)), np.unique(follow_up.patients[follow_up.status == DIAGNOSED])

    def figures(weights: Floats) -> Figures:
        return lead_times_resampled(follow_up, risks, horizon, threshold, weights)

    left_out = in_pieces(figures, jackknife_weights(follow_up.patients, once, seed))
    drawn = in_pieces(figures, bootstrap_weights(follow_up.patients, once, resamples, seed))
    result: dict[str, Any] = {"diagnosed": len(diagnosed)}
    for place, values in left_out.items():
        name = place[0]
        if name in ("threshold", "specificity"):
            put(result, place, float(values[0]) if np.isfinite(values[0]) else None)
        elif threshold is None or name == "median":  # quantiles are not smooth: no jackknife
            put(result, place, _drawn_interval(name, drawn[place], len(diagnosed)).to_dict())
        elif name in ("alarmed", "ahead"):
            put(result, place, share_interval(values, len(diagnosed)).to_dict())
        else:
            put(result, place, jackknife_interval(values, "log").to_dict())
    return result


def _drawn_interval(name: str, values: Floats, patients: int) -> Interval:
    """Percentiles; for a share of 0 or 1, in which no draw varies, Wilson's interval."""
    if name in ("alarmed", "ahead") and values[0] in (0.0, 1.0):
        return wilson(float(values[0]) * patients, patients)
    return percentile_interval(values)


def lead_times_resampled(
    follow_up: FollowUp, risks: Floats, horizon: float, threshold: float | None, weights: Floats
) -> Figures:
    """The figures of ``lead_time`` in each of R replicates; weights (R, N): how often each patient is in it."""
    controls = np.flatnonzero(follow_up.known(horizon) & ~follow_up.cases(horizon))
    ipcw = weights_at(follow_up.of(controls), horizon, weights[:, controls], Censoring(follow_up, weights))
    thresholds = _specificity_point(risks[controls], ipcw)
    if threshold is not None:
        thresholds = np.full(len(weights), threshold)
    with np.errstate(invalid="ignore"):
        specificity = (ipcw * (risks[controls] < thresholds[:, None])).sum(axis=1) / ipcw.sum(axis=1)
    leads, times = _leads(follow_up, risks, thresholds, weights)
    return {("threshold",): thresholds, ("specificity",): specificity, **_summaries(leads, times)}


def _specificity_point(risks: Floats, weights: Floats) -> Floats:
    """(R,): the lowest of the controls' risks, or just above the highest, below which the target's share of them lies."""
    if not len(risks):
        return np.full(len(weights), np.nan)
    values, place = np.unique(risks, return_inverse=True)
    order = np.argsort(place, kind="stable")
    starts = np.searchsorted(place[order], np.arange(len(values)))
    up_to = np.cumsum(np.add.reduceat(weights[:, order], starts, axis=1), axis=1)
    enough = up_to >= TARGET * up_to[:, -1:] * (1 - 1e-12)
    above = np.append(values, np.nextafter(values[-1], 2))[1:]
    return np.where(np.isnan(up_to[:, -1]), np.nan, above[enough.argmax(axis=1)])


def _leads(follow_up: FollowUp, risks: Floats, thresholds: Floats, weights: Floats) -> tuple[Floats, Floats]:
    """Months from the first alarm to the diagnosis of each diagnosed patient, −1 without one, and how often it counts: (R, P)."""
    rows = np.flatnonzero(follow_up.status == DIAGNOSED)
    rows = rows[np.argsort(follow_up.patients[rows], kind="stable")]
    if not len(rows):
        return np.empty((len(weights), 0)), np.empty((len(weights), 0))
    _, starts = np.unique(follow_up.patients[rows], return_index=True)
    months = np.where(risks[rows] >= thresholds[:, None], follow_up.months[rows], -1.0)
    leads: Floats = np.maximum.reduceat(months, starts, axis=1)
    return np.where(np.isnan(thresholds)[:, None], np.nan, leads), weights[:, rows[starts]]


def _summaries(leads: Floats, times: Floats) -> Figures:
    alarmed = times * (leads >= 0)
    total = np.where(np.isnan(leads).any(axis=1), np.nan, times.sum(axis=1))
    with np.errstate(invalid="ignore", divide="ignore"):
        months = (alarmed * leads).sum(axis=1)
        found: Figures = {
            ("alarmed",): alarmed.sum(axis=1) / total,
            ("mean",): months / alarmed.sum(axis=1),
            ("median",): _medians(leads, alarmed),
            ("mean_of_all",): months / total,
        }
        for least in AHEAD:
            found["ahead", f"{least:g}"] = (times * (leads >= least)).sum(axis=1) / total
    return found


def _medians(leads: Floats, times: Floats) -> Floats:
    """(R,): weighted medians; halfway where half of the weight is on either side."""
    if not leads.shape[1]:
        return np.full(len(leads), np.nan)
    order = np.argsort(leads, axis=1)
    leads, times = np.take_along_axis(leads, order, axis=1), np.take_along_axis(times, order, axis=1)
    half, sums = times.sum(axis=1, keepdims=True) / 2, np.cumsum(times, axis=1)
    lower, upper = ((reached.argmax(axis=1)) for reached in (sums >= half - 1e-9, sums > half + 1e-9))
    rows = np.arange(len(leads))
    middle = (leads[rows, lower] + leads[rows, upper]) / 2
    return np.where(half[:, 0] > 0, middle, np.nan)
