"""Intervals by drawing patients again, within each class: the numbers of positives and of negatives are kept.

The intervals therefore tell how the figures vary between cohorts with the same share of positives.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np

from HCCNetLib.evaluation.calibration import brier_resampled
from HCCNetLib.evaluation.discrimination import auroc_resampled, average_precision_resampled
from HCCNetLib.evaluation.intervals import Interval, percentile_interval
from HCCNetLib.evaluation.scores import Floats, Labels, Scores
from HCCNetLib.records import Refusal

RESAMPLES = 2000

_CHUNK = 250  # resamples in memory at once

# Labels (N,), risks (N,) and weights (R, N) → (R,).
Metric = Callable[[Labels, Floats, Floats], Floats]

COMPARED: Mapping[str, Metric] = {
    "auroc": auroc_resampled,
    "auprc": average_precision_resampled,
    "brier": brier_resampled,
}


def draw_weights(labels: Labels, resamples: int, seed: int) -> Iterator[Floats]:
    """How often each patient is drawn, in pieces (R, N): first everybody once, then ``resamples`` rows."""
    rng = np.random.default_rng(seed)
    kinds = [np.flatnonzero(labels), np.flatnonzero(~labels)]
    yield np.ones((1, len(labels)))
    for start in range(0, resamples, _CHUNK):
        rows = min(_CHUNK, resamples - start)
        weights = np.zeros((rows, len(labels)))
        for kind in kinds:
            size = len(kind)
            drawn = rng.integers(0, max(size, 1), (rows, size)) + size * np.arange(rows)[:, None]
            weights[:, kind] = np.bincount(drawn.ravel(), minlength=rows * size).reshape(rows, size)
        yield weights


def resample(labels: Labels, statistic: Callable[[Floats], Floats], resamples: int, seed: int) -> Floats:
    """(1 + resamples, K): the K figures of ``statistic`` (weights (R, N) → (R, K)) with everybody once, then resampled."""
    return np.concatenate([statistic(weights) for weights in draw_weights(labels, resamples, seed)])


def paired_difference(
    scores: Scores, other: Scores, metric: Metric, resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """``metric`` of ``scores`` minus that of ``other``, both on the same patients in every resample.

    Raises:
        Refusal: ``other_patients``: the patients or their labels differ.
    """
    if set(scores.patient_ids) != set(other.patient_ids):
        count = len(set(scores.patient_ids) ^ set(other.patient_ids))
        message = (
            f"The two can't be compared: {count} patient(s) have a result in one of them only. Use the same patients."
        )
        raise Refusal("other_patients", message)
    other = other.of(scores.patient_ids)
    wrong = int((scores.labels != other.labels).sum())
    if wrong:
        message = f"The two can't be compared: {wrong} patient(s) have another label in each. Use the same outcomes."
        raise Refusal("other_patients", message)

    def difference(weights: Floats) -> Floats:
        first, second = (metric(s.labels, s.risks, weights) for s in (scores, other))
        return (first - second)[:, None]

    return percentile_interval(resample(scores.labels, difference, resamples, seed)[:, 0])
