"""How well risks tell those who fall ill from those who don't.

Measures ``…_resampled`` take weights (R, N), how often each patient was drawn in each of R resamples, and return (R,);
the plain ones take everyone once.
"""

from __future__ import annotations

import numpy as np

from HCCNetLib.evaluation.scores import Floats, Labels


def auroc(labels: Labels, risks: Floats) -> float:
    """The share of pairs of a positive and a negative in which the positive has the higher risk, ties half."""
    return float(auroc_resampled(labels, risks, np.ones((1, len(labels))))[0])


def average_precision(labels: Labels, risks: Floats) -> float:
    """Area under the precision–recall curve as the step-wise sum Σ (Rₙ − Rₙ₋₁) Pₙ, tied risks taken together.

    Chance level is the prevalence, with which it must be reported.
    """
    return float(average_precision_resampled(labels, risks, np.ones((1, len(labels))))[0])


def auroc_resampled(labels: Labels, risks: Floats, weights: Floats) -> Floats:
    """AUROC of each resample: Mann–Whitney's U over the distinct risks; NaN where a resample has one class only."""
    positive, negative = _by_risk(labels, risks, weights)
    below = np.cumsum(negative, axis=1) - negative
    pairs = positive.sum(axis=1) * negative.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        result: Floats = (positive * (below + negative / 2)).sum(axis=1) / pairs
    return result


def average_precision_resampled(labels: Labels, risks: Floats, weights: Floats) -> Floats:
    """Average precision of each resample; NaN where it has no positive."""
    positive, negative = _by_risk(labels, -risks, weights)
    true, called = np.cumsum(positive, axis=1), np.cumsum(positive + negative, axis=1)
    precision = np.divide(true, called, out=np.zeros_like(true), where=called > 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        result: Floats = (positive * precision).sum(axis=1) / positive.sum(axis=1)
    return result


def roc_points(labels: Labels, risks: Floats) -> Floats:
    """(K, 2): false and true positive rate from nobody called positive to everybody, a point per distinct risk."""
    positive, negative = _by_risk(labels, -risks, np.ones((1, len(labels))))
    rates = [np.concatenate([[0.0], np.cumsum(kind[0]) / kind.sum()]) for kind in (negative, positive)]
    return np.stack(rates, axis=1)


def pr_points(labels: Labels, risks: Floats) -> Floats:
    """(K, 2): recall and precision, highest risks first, a point per distinct risk."""
    positive, negative = _by_risk(labels, -risks, np.ones((1, len(labels))))
    true, called = np.cumsum(positive[0]), np.cumsum(positive[0] + negative[0])
    return np.stack([true / positive.sum(), true / called], axis=1)


def _by_risk(labels: Labels, risks: Floats, weights: Floats) -> tuple[Floats, Floats]:
    """Weights of the positives and of the negatives at each distinct risk, ascending: (R, K) each."""
    order = np.argsort(risks, kind="stable")
    starts = np.flatnonzero(np.concatenate([[True], np.diff(risks[order]) > 0]))
    ordered = weights[:, order]
    positive: Floats = np.add.reduceat(ordered * labels[order], starts, axis=1)
    negative: Floats = np.add.reduceat(ordered * ~labels[order], starts, axis=1)
    return positive, negative
