"""Breathing deforms the organs a little: shear waves in anatomical space, with their inverse."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from HCCNetLib.records import Affine
from HCCNetLib.synthetic.shapes import Points, Volume

Range = tuple[float, float]
Floats = NDArray[np.float64]

_MOST_STEPS, _CLOSE = 60, 1e-6  # mm


@dataclass(frozen=True)
class WarpModel:
    """The range of deformations.

    Args:
        waves: how many are added.
        amplitude: of each, mm, drawn uniformly.
        length: of each, mm, drawn uniformly.
        sideways: horizontal part of the movement, relative to the part along the body.
    """

    waves: int = 2
    amplitude: Range = (0.5, 4.0)
    length: Range = (150.0, 300.0)
    sideways: float = 0.4


@dataclass(frozen=True)
class Warp:
    """Where an organ point lies in a deformed body: p = q + Σ a cos(k · q + φ), p before and q after.

    Each a is at right angles to its k, so that every wave alone leaves volumes as they are.

    Args:
        amplitudes: a (W, 3), mm.
        waves: k (W, 3), radians per mm.
        phases: φ (W,).
    """

    amplitudes: Floats
    waves: Floats
    phases: Floats

    @property
    def reach(self) -> float:
        """No point moves further, mm."""
        return float(np.linalg.norm(self.amplitudes, axis=1).sum())

    def before(self, points: Floats) -> Floats:
        """Points (N, 3) of the deformed body → where they were."""
        return points + np.cos(points @ self.waves.T + self.phases) @ self.amplitudes

    def after(self, points: Floats) -> Floats:
        """The inverse of ``before``, by fixed-point iteration (the waves are so flat that it contracts)."""
        moved = points
        for _ in range(_MOST_STEPS):
            step = points - self.before(moved)
            moved = moved + step
            if np.abs(step).max(initial=0.0) < _CLOSE:
                break
        return moved

    def bend(self, at: Points, to_anatomy: Affine) -> None:
        """``before``, in place, for all voxels (X, Y, Z) of a grid."""
        for amplitude, wave, phase in zip(self.amplitudes, self.waves, self.phases, strict=True):
            cosine = _plane_wave(at[0].shape, wave @ to_anatomy[:3, :3], float(wave @ to_anatomy[:3, 3] + phase))
            for part, size in zip(at, amplitude, strict=True):
                part += np.float32(size) * cosine


def draw_warp(model: WarpModel, rng: np.random.Generator) -> Warp:
    """Draws a deformation."""
    direction = rng.standard_normal((model.waves, 3)) * (model.sideways, model.sideways, 1.0)
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    across = np.cross(direction, rng.standard_normal((model.waves, 3)))
    across /= np.linalg.norm(across, axis=1, keepdims=True)
    amplitude = rng.uniform(*model.amplitude, (model.waves, 1))
    length = rng.uniform(*model.length, (model.waves, 1))
    return Warp(amplitude * direction, 2 * np.pi / length * across, rng.uniform(0, 2 * np.pi, model.waves))


def _plane_wave(shape: tuple[int, ...], per_voxel: Floats, phase: float) -> Volume:
    """cos(s · index + φ) over a grid: of one plane and one axis, then cos(u + v) = cos u cos v − sin u sin v."""
    i, j, k = (np.arange(count) * step for count, step in zip(shape, per_voxel, strict=True))
    plane = i[:, None] + j + phase
    cosine: Volume = np.cos(plane).astype(np.float32)[..., None] * np.cos(k).astype(np.float32)
    cosine -= np.sin(plane).astype(np.float32)[..., None] * np.sin(k).astype(np.float32)
    return cosine
