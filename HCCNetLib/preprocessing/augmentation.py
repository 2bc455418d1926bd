"""Random changes of prepared exams in training. Drawing is apart from applying, and each spatial draw is an affine.

Flips and rotations are drawn once per patient: between exams of one patient only growth may change. The crop's place
and the intensities are drawn per exam, as the patient's position and the scanner vary between visits too.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from HCCNetLib.records import Affine

_PLANES = ((0, 1), (0, 2), (1, 2))


@dataclass(frozen=True)
class Turn:
    """Flips, then a rotation by quarter turns in one plane.

    Args:
        flips: per axis X, Y, Z.
        plane: the two axes that the rotation turns into each other.
        quarters: 90° turns from the first of them towards the second, 0–3.
    """

    flips: tuple[bool, bool, bool] = (False, False, False)
    plane: tuple[int, int] = (0, 1)
    quarters: int = 0

    def apply(self, volume: NDArray[Any]) -> NDArray[Any]:
        """(C, X, Y, Z), a cube → the same shape, a view."""
        flipped = np.flip(volume, tuple(axis + 1 for axis, flip in enumerate(self.flips) if flip))
        return np.rot90(flipped, self.quarters, (self.plane[0] + 1, self.plane[1] + 1))

    def affine(self, edge: int) -> Affine:
        """From voxel indices after the turn to those before it, for a cube of ``edge`` voxels."""
        flip = np.diag([-1.0 if f else 1.0 for f in self.flips])
        quarter = np.eye(3)
        a, b = self.plane
        quarter[[a, b]] = 0
        quarter[a, b], quarter[b, a] = 1, -1
        linear = flip @ np.linalg.matrix_power(quarter, self.quarters)
        middle = np.full(3, (edge - 1) / 2)
        affine = np.eye(4)
        affine[:3, :3], affine[:3, 3] = linear, middle - linear @ middle
        return affine


@dataclass(frozen=True)
class ExamChange:
    """What is drawn per exam.

    Args:
        start: first voxel of the crop along each axis.
        scale: (C,) of the intensities.
        shift: (C,) of the intensities, SD.
        dropped: channels that are left out.
    """

    start: tuple[int, int, int]
    scale: NDArray[np.float32]
    shift: NDArray[np.float32]
    dropped: tuple[int, ...] = ()

    def crop(self, volume: NDArray[Any], edge: int) -> NDArray[np.float32]:
        """(C, X, Y, Z) with its margin → (C, edge, edge, edge), single precision; zeros where a channel is left out."""
        x, y, z = (slice(s, s + edge) for s in self.start)
        cropped = volume[:, x, y, z].astype(np.float32)
        if self.dropped:
            present = set(np.flatnonzero(has_image(cropped)))
            if not present <= set(self.dropped):  # the last one stays
                cropped[list(self.dropped)] = 0
        return cropped

    def recolour(self, crop: NDArray[np.float32], present: NDArray[np.bool_]) -> NDArray[np.float32]:
        """Scales and shifts the intensities of (C, X, Y, Z) where a channel is present (C,)."""
        changed = crop * np.where(present, self.scale, 1)[:, None, None, None]
        changed += np.where(present, self.shift, 0)[:, None, None, None]
        return changed


def has_image(crop: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Which channels (C,) of (C, X, Y, Z) are there: one that is missing or left out is 0 all over."""
    return np.array([channel.any() for channel in crop])


def draw_turn(rng: np.random.Generator, flip: float, rotate: float) -> Turn:
    """Flips each axis with one probability and rotates in a random plane with another."""
    flips = rng.random(3) < flip
    plane = _PLANES[rng.integers(3)]
    quarters = int(rng.integers(1, 4)) if rng.random() < rotate else 0
    return Turn((bool(flips[0]), bool(flips[1]), bool(flips[2])), plane, quarters)


def draw_change(rng: np.random.Generator, channels: int, jitter: int, scale: float, shift: float) -> ExamChange:
    """A crop moved by up to ``jitter`` voxels, and scales and shifts drawn uniformly per channel."""
    start = rng.integers(0, 2 * jitter + 1, 3)
    scales = rng.uniform(1 - scale, 1 + scale, channels).astype(np.float32)
    shifts = rng.uniform(-shift, shift, channels).astype(np.float32)
    return ExamChange((int(start[0]), int(start[1]), int(start[2])), scales, shifts)


def drop_channels(rng: np.random.Generator, change: ExamChange, chance: float) -> ExamChange:
    """Leaves out each channel with a chance, all but one at most; what is left out looks as a missing channel does."""
    order = rng.permutation(len(change.scale))
    dropped = order[1:][rng.random(len(order) - 1) < chance * len(order) / max(len(order) - 1, 1)]
    return replace(change, dropped=tuple(sorted(dropped.tolist())))


def unchanged(channels: int, jitter: int) -> ExamChange:
    """The middle crop as it is: what prediction reads."""
    return ExamChange((jitter, jitter, jitter), np.ones(channels, np.float32), np.zeros(channels, np.float32))
