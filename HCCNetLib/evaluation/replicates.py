"""Intervals from replicates of a set of landmarks, in which patients are left out or drawn again with all their landmarks.

The jackknife serves every figure that is a smooth function of the landmarks' weights. It leaves out one patient at a time; of
more than 100, one of 100 random groups, which bounds the cost (Kott, J Off Stat 2001;17:521). The interval is the estimate
± t standard errors on a scale on which figures of its kind are about normal, with Satterthwaite's degrees of freedom: where
few patients decide the figure, the standard error itself is uncertain.

The bootstrap with percentiles (``intervals``) serves those that are not smooth: quantiles, and what depends on them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from scipy.special import expit, logit, stdtrit

from HCCNetLib.evaluation.follow_up import Integers
from HCCNetLib.evaluation.intervals import Interval, wilson
from HCCNetLib.evaluation.scores import Floats

MOST_GROUPS = 100

_UPPER = 0.975
_LEAST_FREEDOM = 4.0  # below, where one patient decides, the interval would be all of the scale
_ROUNDING = 1e-12
_PIECE = 1_000_000  # weights at once

Place = tuple[str, ...]  # of a figure in nested data
Figures = dict[Place, Floats]


def _identity(values: Floats) -> Floats:
    return values


_Transform = Callable[[Floats], Floats]
SCALES: Mapping[str, tuple[_Transform, _Transform]] = {
    "identity": (_identity, _identity),
    "logit": (logit, expit),
    "log": (np.log, np.exp),
}


def jackknife_weights(patients: Integers, weights: Floats, seed: int = 0) -> Floats:
    """(1 + G, N): first the weights of all rows, then without each of G groups of patients.

    Args:
        patients: (N,) whose row it is.
        weights: (N,).
        seed: of the grouping, where there are more than ``MOST_GROUPS`` patients.
    """
    names, place = np.unique(patients, return_inverse=True)
    groups = min(len(names), MOST_GROUPS)
    group = np.random.default_rng(seed).permutation(len(names)) % groups
    left_out = group[place] == np.arange(-1, groups)[:, None]
    result: Floats = np.where(left_out, 0.0, weights)
    return result


def bootstrap_weights(patients: Integers, weights: Floats, resamples: int, seed: int = 0) -> Floats:
    """(1 + resamples, N): first the weights of all rows, then times how often each patient is drawn."""
    names, place = np.unique(patients, return_inverse=True)
    count = max(len(names), 1)
    drawn = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), resamples)
    result: Floats = np.concatenate([np.ones((1, count)), drawn])[:, place] * weights
    return result


def jackknife_interval(values: Floats, scale: str) -> Interval:
    """95% interval of a figure.

    Args:
        values: (1 + G,) with everybody, then without each group.
        scale: key of ``SCALES``.

    Returns:
        Without bounds where a value is not finite on that scale, or where one or two patients decide the figure.
    """
    estimate = float(values[0]) if math.isfinite(values[0]) else None
    transform, back = SCALES[scale]
    with np.errstate(divide="ignore", invalid="ignore"):
        transformed = transform(values)
    if not np.isfinite(transformed).all() or len(values) < 3:
        return Interval(estimate, None, None)
    centre, replicates = transformed[0], transformed[1:]
    groups = len(replicates)
    squares = (replicates - replicates.mean()) ** 2
    total = squares.sum()
    if total == 0:
        return Interval(estimate, estimate, estimate)
    freedom = 2 / max(np.square(squares / total - 1 / groups).sum(), 2 / (groups - 1))
    freedom = max(freedom, _LEAST_FREEDOM)
    half = stdtrit(freedom, _UPPER) * math.sqrt((groups - 1) / groups * total)
    low, high = back(np.array([centre - half, centre + half]))
    return Interval(estimate, float(low), float(high))


def share_interval(values: Floats, patients: int) -> Interval:
    """As ``jackknife_interval`` of a share.

    Where that has no bounds because the share is 0 or 1, in all or without some patients, Wilson's interval for so many
    patients. None where it is not determined without some of them.
    """
    interval = jackknife_interval(values, "logit")
    if not np.isfinite(values).all():
        return interval
    value = float(values[0])
    extreme = min(value, 1 - value) < _ROUNDING
    if interval.low is not None and not extreme:
        return interval
    return wilson((round(value) if extreme else value) * patients, patients)


def in_pieces(figures: Callable[[Floats], Figures], weights: Floats) -> Figures:
    """``figures`` of some replicates of ``weights`` (R, N) after others, which bounds the memory and keeps it near."""
    parts = [figures(piece) for piece in np.array_split(weights, min(len(weights), weights.size // _PIECE + 1))]
    return {place: np.concatenate([part[place] for part in parts]) for place in parts[0]}


def put(data: dict[str, Any], place: Place, value: Any) -> None:
    """Sets a value in nested data."""
    for name in place[:-1]:
        data = data.setdefault(name, {})
    data[place[-1]] = value
