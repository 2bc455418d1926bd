"""The way back: a map on the network's side of things, brought onto an exam's own grid."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from HCCNetLib.preprocessing.geometry import crop_for, resample
from HCCNetLib.preprocessing.pipeline import PreparedExam
from HCCNetLib.records import Affine, Grid


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


def peak_voxel(values: NDArray[np.float32]) -> tuple[int, int, int]:
    """The voxel of the greatest value; of several that share it, the one nearest to their middle."""
    peaks = np.argwhere(values == values.max())
    i, j, k = peaks[np.argmin(((peaks - peaks.mean(axis=0)) ** 2).sum(axis=1))]
    return int(i), int(j), int(k)


def _in_field(grid: Grid, prepared: PreparedExam) -> NDArray[np.bool_]:
    """Which voxel centres of a grid lie in the field that was read."""
    index = np.argwhere(np.ones(grid.shape, dtype=bool)).astype(np.float64)
    step = np.linalg.inv(prepared.window.grid.affine) @ grid.affine
    return prepared.window.holds(index @ step[:3, :3].T + step[:3, 3]).reshape(grid.shape)
