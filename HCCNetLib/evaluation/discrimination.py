"""How well risks tell those who fall ill from those who don't.

Measures ``…_resampled`` take weights (R, N), how much each patient or landmark counts in each of R resamples (IPCW included,
``follow_up``), and return (R,); the plain ones take everyone once.
"""

from __future__ import annotations

import numpy as np

from HCCNetLib.evaluation.follow_up import Integers
from HCCNetLib.evaluation.intervals import Interval
from HCCNetLib.evaluation.replicates import jackknife_interval, jackknife_weights
from HCCNetLib.evaluation.scores import Floats, Labels


def auroc(labels: Labels, risks: Floats) -> float:
    """The share of pairs of a positive and a negative in which the positive has the higher risk, ties half."""
    return float(auroc_resampled(labels, risks, np.ones((1, len(labels))))[0])


def auroc_interval(labels: Labels, risks: Floats, patients: Integers) -> Interval:
    """AUROC with its 95% interval, of rows that belong to patients (N,); not determined with one class."""
    replicates = jackknife_weights(patients, np.ones(len(labels)))
    return jackknife_interval(auroc_resampled(labels, risks, replicates), "logit")


def auroc_resampled(labels: Labels, risks: Floats, weights: Floats) -> Floats:
    """AUROC of each resample: Mann–Whitney's U over the distinct risks; NaN where a resample has one class only."""
    return areas_resampled(labels, risks, weights)[0]


def areas_resampled(labels: Labels, risks: Floats, weights: Floats) -> tuple[Floats, Floats]:
    """AUROC and average precision of each resample, at the cost of one.

    Average precision is the area under the precision–recall curve as the step-wise sum Σ (Rₙ − Rₙ₋₁) Pₙ, tied risks taken
    together. Chance is the prevalence, with which it must be reported.
    """
    if not len(labels):
        return np.full(len(weights), np.nan), np.full(len(weights), np.nan)
    positive, negative = _by_risk(labels, -risks, weights)
    true, false = np.cumsum(positive, axis=1), np.cumsum(negative, axis=1)
    positives, negatives = true[:, -1], false[:, -1]
    # Of the negatives, those below and half of the tied: all but those called already and the other half.
    ordered = negatives * positives - np.einsum("rk,rk->r", positive, false - negative / 2)
    called = true + false
    precision = np.divide(true, called, out=np.zeros_like(true), where=called > 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return ordered / (positives * negatives), np.einsum("rk,rk->r", positive, precision) / positives


def roc_points(labels: Labels, risks: Floats, weights: Floats | None = None) -> Floats:
    """(K, 2): false and true positive rate from nobody called positive to everybody, a point per distinct risk."""
    positive, negative = _by_risk(labels, -risks, _row(labels, weights))
    rates = [np.concatenate([[0.0], np.cumsum(kind[0]) / kind.sum()]) for kind in (negative, positive)]
    return np.stack(rates, axis=1)


def pr_points(labels: Labels, risks: Floats, weights: Floats | None = None) -> Floats:
    """(K, 2): recall and precision, highest risks first, a point per distinct risk."""
    positive, negative = _by_risk(labels, -risks, _row(labels, weights))
    true, called = np.cumsum(positive[0]), np.cumsum(positive[0] + negative[0])
    return np.stack([true / positive.sum(), true / called], axis=1)


def _row(labels: Labels, weights: Floats | None) -> Floats:
    return np.ones((1, len(labels))) if weights is None else weights[None]


def _by_risk(labels: Labels, risks: Floats, weights: Floats) -> tuple[Floats, Floats]:
    """Weights of the positives and of the negatives at each distinct risk, ascending: (R, K) each."""
    order = np.argsort(risks, kind="stable")
    starts = np.flatnonzero(np.concatenate([[True], np.diff(risks[order]) > 0]))
    ordered = weights[:, order]
    positive: Floats = np.add.reduceat(ordered * labels[order], starts, axis=1)
    negative: Floats = np.add.reduceat(ordered * ~labels[order], starts, axis=1)
    return positive, negative
