"""Spatial steps, each of them an affine, so that each has its inverse."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from HCCNetLib.records import Affine, Grid

SPLINE_MARGIN = 12  # voxels beyond a crop after which a cubic spline no longer feels the cut


def translation(offset: Sequence[float] | NDArray[np.float64]) -> Affine:
    """The affine of ``index + offset``."""
    matrix = np.eye(4)
    matrix[:3, 3] = offset
    return matrix


def scaling(factors: Sequence[float] | NDArray[np.float64]) -> Affine:
    """The affine of ``index * factors``."""
    return np.diag([*factors, 1.0])


@dataclass(frozen=True)
class Reorientation:
    """Axes permuted and flipped, voxel by voxel, so that they run towards given patient directions.

    Args:
        source: the grid as stored.
        target: the same voxels, reordered.
    """

    source: Grid
    target: Grid
    _orientation: NDArray[np.float64]

    @classmethod
    def towards(cls, axis_codes: str, source: Grid) -> Reorientation:
        """The reordering whose axes run closest to ``axis_codes``, e.g. ``PLI``."""
        current = nib.io_orientation(source.affine)
        wanted = nib.orientations.axcodes2ornt(tuple(axis_codes))
        orientation = nib.orientations.ornt_transform(current, wanted)
        affine = source.affine @ nib.orientations.inv_ornt_aff(orientation, source.shape)
        shape = [0, 0, 0]
        for axis, (position, _) in enumerate(orientation):
            shape[int(position)] = source.shape[axis]
        return cls(source, Grid((shape[0], shape[1], shape[2]), affine), orientation)

    def apply(self, data: NDArray[np.float32]) -> NDArray[np.float32]:
        """Reorders (X, Y, Z) voxels of the source grid; a view, nothing is interpolated."""
        return nib.orientations.apply_orientation(data, self._orientation)


def world_to_index(affine: Affine, points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Patient-space points (N, 3), mm → voxel coordinates (N, 3)."""
    return apply_affine(np.asarray(np.linalg.inv(affine), dtype=np.float64), points)


def apply_affine(affine: Affine, points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Maps points (N, 3) by an affine (4, 4)."""
    result: NDArray[np.float64] = points @ affine[:3, :3].T + affine[:3, 3]
    return result


def box_corners(low: NDArray[np.float64], high: NDArray[np.float64]) -> NDArray[np.float64]:
    """The eight corners (8, 3) of an index box, in the order of itertools.product((low, high), repeat=3)."""
    pick = np.array(np.meshgrid([0, 1], [0, 1], [0, 1], indexing="ij")).reshape(3, -1).T
    return np.where(pick == 1, high, low).astype(np.float64)


def crop_for(
    data: NDArray[np.float32], affine: Affine, target: Grid, margin: int = SPLINE_MARGIN
) -> tuple[NDArray[np.float32], Affine]:
    """The part of an image that interpolation onto ``target`` touches, with its affine; at least one voxel."""
    last = np.array(target.shape, dtype=np.float64) - 1
    corners = apply_affine(np.linalg.inv(affine) @ target.affine, box_corners(np.zeros(3), last))
    shape = np.array(data.shape)
    low = np.clip(np.floor(corners.min(axis=0)).astype(int) - margin, 0, shape - 1)
    high = np.clip(np.ceil(corners.max(axis=0)).astype(int) + margin + 1, low + 1, shape)
    part = data[low[0] : high[0], low[1] : high[1], low[2] : high[2]]
    return part, affine @ translation(low.astype(np.float64))


def resample(data: NDArray[np.float32], affine: Affine, target: Grid, order: int) -> NDArray[np.float32]:
    """Interpolates an image onto a grid with splines of the given order; beyond the image, the nearest voxel.

    Args:
        data: (X, Y, Z).
        affine: of ``data``.
        target: the grid of the result.
        order: 0 nearest, 1 linear, 3 cubic.

    Returns:
        (X', Y', Z') of ``target.shape``.
    """
    step = np.linalg.inv(affine) @ target.affine
    matrix, offset = step[:3, :3], step[:3, 3]
    diagonal = np.diag(matrix)
    # Parallel axes are the rule (all channels of an exam on one grid); SciPy then interpolates axis by axis.
    parallel = np.abs(matrix - np.diag(diagonal)).max() < 1e-9 and diagonal.min() > 0
    result: NDArray[np.float32] = ndimage.affine_transform(
        data.astype(np.float32, copy=False),
        diagonal if parallel else matrix,
        offset,
        output_shape=target.shape,
        output=np.float32,
        order=order,
        mode="nearest",
    )
    return result
