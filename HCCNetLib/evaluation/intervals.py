"""A figure and its 95% interval."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_Z = 1.959963984540054  # of a two-sided 95% interval
_TAILS = (2.5, 97.5)


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95% interval; None is what the data do not determine."""

    value: float | None
    low: float | None
    high: float | None

    def to_dict(self) -> dict[str, float | None]:
        """As plain data."""
        return {"value": self.value, "low": self.low, "high": self.high}


def percentile_interval(values: NDArray[np.float64]) -> Interval:
    """The first value is the estimate, the others are its resamples: their 2.5th and 97.5th percentiles.

    A resample may be infinite (the classes are separated in it) or NaN (it determines nothing). A bound that falls among
    infinite ones is None, and so are both where more than a fortieth of the resamples determine nothing.
    """
    estimate, resamples = values[0], values[1:]
    determined = resamples[~np.isnan(resamples)]
    if not len(determined) or len(resamples) - len(determined) > len(resamples) / 40:
        return Interval(_finite(estimate), None, None)
    if np.isfinite(determined).all():
        low, high = np.percentile(determined, _TAILS)
    else:  # no interpolation between infinite ones
        low, high = np.percentile(determined, _TAILS, method="nearest")
    return Interval(_finite(estimate), _finite(low), _finite(high))


def wilson(successes: float, count: int) -> Interval:
    """A proportion with Wilson's score interval (J Am Stat Assoc 1927;22:209); None where there is nobody."""
    if not count:
        return Interval(None, None, None)
    share, z = successes / count, _Z
    middle = share + z**2 / (2 * count)
    half = z * math.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    scale = 1 + z**2 / count
    # The bounds at no and at every success are exactly 0 and 1; rounding would leave 1e-17 of them.
    low = 0.0 if successes == 0 else (middle - half) / scale
    high = 1.0 if successes == count else (middle + half) / scale
    return Interval(share, low, high)


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
