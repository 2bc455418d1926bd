"""The way back: a map on the network's side of things, brought onto an exam's own grid."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from HCCNetLib.preprocessing.geometry import apply_affine, crop_for, resample
from HCCNetLib.preprocessing.pipeline import PreparedExam
from HCCNetLib.records import Affine, Grid

_SAME_PLACE_MM = 0.05


def map_to_exam(values: NDArray[np.float32], affine: Affine, prepared: PreparedExam) -> NDArray[np.float32]:
    """Interpolates a map linearly onto the exam's own grid; 0 outside the field that was read.

    Args:
        values: (X, Y, Z), any grid, e.g. a feature map's.
        affine: of ``values`` to patient space.
        prepared: the exam.

    Returns:
        (X', Y', Z') of ``prepared.source_grid``.
    """
    target = prepared.source_grid
    result = np.zeros(target.shape, dtype=np.float32)
    # Only the voxels of the exam that can lie in the field are worth interpolating.
    part, part_affine = crop_for(result, target.affine, prepared.window.read_grid, margin=1)
    grid = Grid((part.shape[0], part.shape[1], part.shape[2]), part_affine)
    part[...] = resample(values, affine, grid, order=1) * _in_field(grid, prepared)
    return result


def peak_voxel(values: NDArray[np.float32], affine: Affine) -> tuple[int, int, int]:
    """The voxel of the greatest value; the same place in the patient however the voxels are stored.

    Of several that share the value it is the one nearest to their middle, and of several as near the leftmost, then the
    hindmost, then the lowest. What is not finite counts as 0.
    """
    values = np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
    peaks = np.argwhere(values == values.max())
    points = apply_affine(affine, peaks.astype(np.float64))
    distance = np.linalg.norm(points - points.mean(axis=0), axis=1)
    near = np.flatnonzero(distance <= distance.min() + _SAME_PLACE_MM)
    x, y, z = np.floor(points[near] / _SAME_PLACE_MM + 0.1234).T  # grids are seldom at such odd places
    i, j, k = peaks[near[np.lexsort((z, y, x))[0]]]
    return int(i), int(j), int(k)


def _in_field(grid: Grid, prepared: PreparedExam) -> NDArray[np.bool_]:
    """Which voxel centres of a grid lie in the field that was read."""
    index = np.argwhere(np.ones(grid.shape, dtype=bool)).astype(np.float64)
    step = np.linalg.inv(prepared.window.grid.affine) @ grid.affine
    return prepared.window.holds(index @ step[:3, :3].T + step[:3, 3]).reshape(grid.shape)
