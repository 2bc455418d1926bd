"""Gray levels of an image and colours of the evidence on top of it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

THRESHOLD = 0.3  # evidence below this share is not drawn
_FAINTEST, _STRONGEST = 0.35, 0.7  # opacity at the threshold and at 1; below 1 so that anatomy shows through

# Inferno: lightness rises evenly with the value, also for colour-blind readers and on a gray print.
HIGHER = np.array(
    [
        (0x00, 0x00, 0x04),
        (0x1B, 0x0C, 0x41),
        (0x4A, 0x0C, 0x6B),
        (0x78, 0x1C, 0x6D),
        (0xA5, 0x2C, 0x60),
        (0xCF, 0x44, 0x46),
        (0xED, 0x69, 0x25),
        (0xFB, 0x9B, 0x06),
        (0xF7, 0xD1, 0x3D),
        (0xFC, 0xFF, 0xA4),
    ],
    dtype=np.float64,
)
# CIE lightness 40 to 85 in equal steps, each with the most colour that a screen has at a hue between indigo and sky blue.
# It starts light: a dark blue would pass for inferno's purple, above all with protanopia.
LOWER = np.array(
    [
        (0x33, 0x51, 0xD1),
        (0x32, 0x61, 0xDF),
        (0x30, 0x70, 0xED),
        (0x2C, 0x80, 0xFB),
        (0x36, 0x91, 0xFF),
        (0x4B, 0xA1, 0xFD),
        (0x5F, 0xB0, 0xFE),
        (0x75, 0xBF, 0xFF),
        (0x90, 0xCD, 0xFD),
        (0xA9, 0xDB, 0xFE),
    ],
    dtype=np.float64,
)


def window(image: NDArray[np.float32]) -> tuple[float, float]:
    """The values shown black and white: 1st and 99.5th percentile of the finite voxels; (0, 1) if there are none."""
    finite = image[np.isfinite(image)]
    if not finite.size:
        return 0.0, 1.0
    low, high = np.percentile(finite, (1.0, 99.5))
    return float(low), float(high)


def gray(values: NDArray[np.float32], low: float, high: float) -> NDArray[np.uint8]:
    """Gray levels of ``values``, ``low`` black and ``high`` white; what is not finite is black, a flat image too."""
    width = high - low if high > low else 1.0
    share = (np.nan_to_num(values.astype(np.float64), nan=low, posinf=high, neginf=low) - low) / width
    return np.rint(255 * np.clip(share, 0, 1)).astype(np.uint8)


def overlay(evidence: NDArray[np.float32], scale: NDArray[np.float64] = HIGHER) -> NDArray[np.uint8]:
    """RGBA (..., 4) of evidence 0-1 on a fixed scale: transparent below the threshold, then ever less so.

    ``scale`` is (N, 3) colours 0-255 at even steps from 0 to 1: ``HIGHER`` or ``LOWER``.
    """
    share = np.clip(np.nan_to_num(evidence.astype(np.float64), nan=0.0), 0, 1)
    places = np.linspace(0, 1, len(scale))
    colour = np.stack([np.interp(share, places, scale[:, c]) for c in range(3)], axis=-1)
    rise = (share - THRESHOLD) / (1 - THRESHOLD)
    alpha = np.where(share >= THRESHOLD, _FAINTEST + (_STRONGEST - _FAINTEST) * rise, 0.0)
    return np.rint(np.concatenate([colour, 255 * alpha[..., None]], axis=-1)).astype(np.uint8)
