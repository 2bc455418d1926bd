"""Intensities: power transform, and clipping and scaling by the body's own statistics."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MAD_TO_SD = 1.4826  # of a normal distribution


def yeo_johnson(x: NDArray[np.float32], power: float) -> NDArray[np.float32]:
    """The Yeo-Johnson transform for 0 < ``power`` < 2 (Biometrika 2000, 87:954), negative values included.

    x ≥ 0: ((x+1)^λ − 1)/λ; x < 0: −((1−x)^(2−λ) − 1)/(2−λ).
    """
    magnitude = np.abs(x)
    positive = (np.power(magnitude + 1, power) - 1) / power
    if x.min() >= 0:
        return positive.astype(np.float32, copy=False)
    negative = -(np.power(magnitude + 1, 2 - power) - 1) / (2 - power)
    return np.where(x >= 0, positive, negative).astype(np.float32, copy=False)


def _softplus(x: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.log1p(np.exp(-np.abs(x))) + np.maximum(x, 0)


def soft_clip(x: NDArray[np.float32], lower: float, upper: float) -> NDArray[np.float32]:
    """Clips smoothly to (``lower``, ``upper``), nearly the identity between (the published code's function).

    x − softminus(k(x − lower))/k − softplus(k(x − upper))/k with k = ln 2 / (1 − tanh 1) / ((upper − lower)/2).
    """
    k = float(np.log(2) / (1 - np.tanh(1)) / ((upper - lower) / 2))
    clipped = x + _softplus(-k * (x - lower)) / k - _softplus(k * (x - upper)) / k
    return clipped.astype(np.float32, copy=False)


@dataclass(frozen=True)
class ChannelStatistics:
    """One channel's statistics over the body, in transformed units.

    Args:
        lower: of the soft clipping; −inf where the MAD is 0 and nothing can be called an outlier.
        upper: likewise.
        mean: after clipping.
        sd: after clipping.
    """

    lower: float
    upper: float
    mean: float
    sd: float

    @classmethod
    def of(cls, body: NDArray[np.float32], clip_mads: float) -> ChannelStatistics:
        """Statistics of the body's voxels (N,): median ± ``clip_mads`` · 1.4826 · MAD, then mean and SD of the clipped."""
        median = float(np.median(body))
        mad = float(np.median(np.abs(body - median))) * MAD_TO_SD
        lower, upper = (median - clip_mads * mad, median + clip_mads * mad) if mad > 0 else (-np.inf, np.inf)
        clipped = soft_clip(body, lower, upper) if mad > 0 else body
        return cls(lower, upper, float(clipped.mean(dtype=np.float64)), float(clipped.std(dtype=np.float64)))

    def apply(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """Clips and scales to mean 0, SD 1 over the body."""
        clipped = soft_clip(x, self.lower, self.upper) if np.isfinite(self.lower) else x
        return ((clipped - np.float32(self.mean)) / np.float32(self.sd)).astype(np.float32, copy=False)
