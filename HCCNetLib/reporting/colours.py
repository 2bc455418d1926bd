"""Gray levels of an image and colours of the evidence on top of it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# Evidence below this share is not drawn. One scale serves all exams and both signs, so an exam whose strongest place has a
# fifth of the patient's strongest evidence is no rarity, and should not look empty.
THRESHOLD = 0.15
_FAINTEST, _STRONGEST = 0.35, 0.7  # opacity at the threshold and at 1; below 1 so that anatomy shows through

# Inferno from three tenths on, from the threshold to 1: lightness rises evenly with the value, also for colour-blind readers
# and on a gray print, and the darkest purple, which dark tissue would swallow, is left out.
HIGHER = np.array(
    [
        (0x6A, 0x17, 0x6C),
        (0x93, 0x26, 0x65),
        (0xBA, 0x38, 0x53),
        (0xDB, 0x53, 0x39),
        (0xF1, 0x78, 0x1C),
        (0xFA, 0xA6, 0x11),
        (0xF8, 0xD6, 0x47),
        (0xFC, 0xFF, 0xA4),
    ],
    dtype=np.float64,
)
# CIE lightness 53 to 85 in equal steps, each with the most colour that a screen has at a hue between blue and sky blue. It
# starts light: a dark blue would pass for inferno's purple, above all with protanopia.
LOWER = np.array(
    [
        (0x2D, 0x7B, 0xF7),
        (0x32, 0x8A, 0xFD),
        (0x40, 0x99, 0xFE),
        (0x53, 0xA7, 0xFD),
        (0x66, 0xB4, 0xFE),
        (0x7A, 0xC2, 0xFF),
        (0x92, 0xCE, 0xFD),
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

    ``scale`` is (N, 3) colours 0-255 at even steps from the threshold to 1: ``HIGHER`` or ``LOWER``.
    """
    share = np.clip(np.nan_to_num(evidence.astype(np.float64), nan=0.0), 0, 1)
    places = np.linspace(THRESHOLD, 1, len(scale))
    colour = np.stack([np.interp(share, places, scale[:, c]) for c in range(3)], axis=-1)
    rise = (share - THRESHOLD) / (1 - THRESHOLD)
    alpha = np.where(share >= THRESHOLD, _FAINTEST + (_STRONGEST - _FAINTEST) * rise, 0.0)
    return np.rint(np.concatenate([colour, 255 * alpha[..., None]], axis=-1)).astype(np.uint8)
