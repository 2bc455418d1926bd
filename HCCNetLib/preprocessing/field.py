"""Which part of an exam the network reads: the body, the liver box in it, the cube around the liver box.

All of it is arithmetic on the first channel's grid, before any voxel is interpolated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from HCCNetLib.preprocessing.configuration import PreprocessingConfig
from HCCNetLib.preprocessing.geometry import (
    apply_affine,
    box_corners,
    scaling,
    translation,
    world_to_index,
)
from HCCNetLib.records import Affine, Box, Grid, Image, Refusal

Slices = tuple[slice, slice, slice]

_HALF = 0.5 + 1e-6  # voxels


@dataclass(frozen=True)
class Body:
    """Where the body lies on the first channel's reoriented grid.

    Args:
        region: its bounding box.
        mask: (X, Y, Z) of ``region``: True inside.
    """

    region: Slices
    mask: NDArray[np.bool_]


@dataclass(frozen=True)
class LiverPlace:
    """A liver given by the user: points of it in patient space, mm (N, 3), their centre, and whether a mask gave them."""

    points: NDArray[np.float64]
    centre: NDArray[np.float64]
    is_mask: bool


@dataclass(frozen=True)
class Window:
    """The network's grid and the part of it that holds the patient; the rest is padding.

    Args:
        grid: (crop_voxels,)³ and its affine.
        read: the slices of ``grid`` that are read from the images.
    """

    grid: Grid
    read: Slices

    @property
    def read_corners(self) -> NDArray[np.float64]:
        """Corners (8, 3) of the part that is read, patient space, mm, voxel edges included."""
        low = np.array([s.start - 0.5 for s in self.read])
        high = np.array([s.stop - 0.5 for s in self.read])
        return apply_affine(self.grid.affine, box_corners(low, high))

    @property
    def read_grid(self) -> Grid:
        """The grid of the part that is read."""
        x, y, z = (s.stop - s.start for s in self.read)
        return Grid((x, y, z), self.grid.affine @ translation([float(s.start) for s in self.read]))

    @property
    def read_mask(self) -> NDArray[np.bool_]:
        """(X, Y, Z) of ``grid``: True where something was read."""
        mask = np.zeros(self.grid.shape, dtype=bool)
        mask[self.read] = True
        return mask

    def moved(self, voxels: Sequence[int], image: Grid) -> Window:
        """The same field at another place, without what lies outside ``image``, whose axes are those of ``grid``."""
        grid = Grid(self.grid.shape, self.grid.affine @ translation([float(v) for v in voxels]))
        ends = apply_affine(image.affine, box_corners(np.zeros(3), np.array(image.shape, dtype=np.float64) - 1))
        index = world_to_index(grid.affine, ends)
        # As in ``place_window``, whose last voxel's centre may lie half a voxel further.
        low, high = np.ceil(index.min(axis=0) - _HALF), np.floor(index.max(axis=0) + _HALF) + 1
        x, y, z = (
            slice(max(s.start, int(a)), max(s.start, int(a), min(s.stop, int(b))))
            for s, a, b in zip(self.read, low, high, strict=True)
        )
        return Window(grid, (x, y, z))

    @property
    def filled_fraction(self) -> float:
        """The part of the network's cube that is read from the images, 0–1; the rest is padding."""
        return float(np.prod([s.stop - s.start for s in self.read]) / np.prod(self.grid.shape))

    def holds(self, index: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Which voxel coordinates (N, 3) of ``grid`` lie in what is read, the edges of its voxels included."""
        inside = np.ones(len(index), dtype=bool)
        for axis, part in enumerate(self.read):
            inside &= (index[:, axis] >= part.start - 0.5) & (index[:, axis] <= part.stop - 0.5)
        return inside

    def fraction_inside(self, points: NDArray[np.float64]) -> float:
        """The part of patient-space points (N, 3) that lies in what is read, 0–1."""
        return float(self.holds(world_to_index(self.grid.affine, points)).mean())


def fraction_box(shape: Sequence[int], centre: Sequence[float], size: Sequence[float], min_voxels: int) -> Slices:
    """A box at fractions of an axis's length, as the published code rounds it, clipped to the axis.

    A box below ``min_voxels`` is lengthened at its far end only (the published rule).
    """
    slices = []
    for n, c, s in zip(shape, centre, size, strict=True):
        half = int(s * n) / 2
        start, stop = int(int(c * n) - half), int(int(c * n) + half)
        stop = max(stop, start + min_voxels)
        slices.append(slice(max(start, 0), min(stop, n)))
    return slices[0], slices[1], slices[2]


def find_body(first_channel: NDArray[np.float32], config: PreprocessingConfig) -> Body:
    """The body: voxels above the mean of the central region, largest face-connected component, its bounding box.

    Args:
        first_channel: (X, Y, Z) reoriented, after the power transform.
        config: ``central_fraction``, ``central_min_voxels``.

    Raises:
        Refusal: the central region is constant.
    """
    centre = (0.5, 0.5, 0.5)
    region = fraction_box(first_channel.shape, centre, config.central_fraction, config.central_min_voxels)
    central = first_channel[region]
    above = central > central.mean(dtype=np.float64)
    labels, count = ndimage.label(above)
    if count == 0:
        raise Refusal("no_body", "no body was found: the middle of the first channel is constant.")
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    label = int(sizes.argmax())
    box = ndimage.find_objects(labels)[label - 1]
    x, y, z = (slice(r.start + b.start, r.start + b.stop) for r, b in zip(region, box, strict=True))
    return Body((x, y, z), labels[box] == label)


def place_window(
    reoriented: Grid, body: Body, config: PreprocessingConfig, liver: LiverPlace | None = None, margin: int = 0
) -> Window:
    """The cube that the network reads, and ``margin`` voxels more on every side of it, for crops drawn in training.

    Without ``liver``: the liver box at fixed fractions of the body box, then the cube around its centre; voxels of the
    cube outside the liver box are padding, as in the published code. With ``liver``: the cube around its centre;
    padding is what lies outside both the body box and the liver's extent.
    """
    spacing = np.array(reoriented.spacing)
    step = config.spacing_mm / spacing
    start = np.array([s.start for s in body.region], dtype=np.float64)
    count = np.array([s.stop - s.start for s in body.region])
    # The first voxel centre stays where it is, the last one moves by up to half a voxel.
    body_shape = np.round((count - 1) / step).astype(int) + 1
    body_affine = reoriented.affine @ translation(start) @ scaling(step)
    if liver is None:
        box = fraction_box(body_shape.tolist(), config.liver_centre, config.liver_size, config.liver_min_voxels)
        low, high = np.array([s.start for s in box]), np.array([s.stop for s in box])
        origin = _cube_start(low, high, config.crop_voxels)
    else:
        low, high = _extent(reoriented, body_affine, body_shape, liver)
        _refuse_centre_outside(reoriented, liver)
        centre = world_to_index(body_affine, liver.centre[None])[0]
        origin = np.round(centre - (config.crop_voxels - 1) / 2).astype(int)
    origin, edge = origin - margin, config.crop_voxels + 2 * margin
    shape = (edge,) * 3
    read = [
        slice(int(a), int(b))
        for a, b in zip(np.clip(low - origin, 0, edge), np.clip(high - origin, 0, edge), strict=True)
    ]
    return Window(Grid(shape, body_affine @ translation(origin.astype(np.float64))), (read[0], read[1], read[2]))


def _refuse_centre_outside(grid: Grid, liver: LiverPlace) -> None:
    index = world_to_index(grid.affine, liver.centre[None])[0]
    if (index < -0.5).any() or (index > np.array(grid.shape) - 0.5).any():
        message = "the given liver mask or box does not lie in the images. Check that it belongs to this exam."
        raise Refusal("liver_outside", message)


def _cube_start(low: NDArray[np.int_], high: NDArray[np.int_], crop: int) -> NDArray[np.int_]:
    """Pads a box to the cube symmetrically, or takes its middle: the first index of the cube."""
    size = high - low
    return np.where(size < crop, low - (crop - size) // 2, low + size // 2 - crop // 2)


def _extent(
    reoriented: Grid, body_affine: Affine, body_shape: NDArray[np.int_], liver: LiverPlace
) -> tuple[NDArray[np.int_], NDArray[np.int_]]:
    """Body box and liver together, clipped to the image, as indices of the resampled body grid."""
    points = world_to_index(body_affine, liver.points)
    last = np.array(reoriented.shape, dtype=np.float64) - 1
    image = world_to_index(body_affine, apply_affine(reoriented.affine, box_corners(np.zeros(3), last)))
    low = np.maximum(np.minimum(0, np.floor(points.min(axis=0))), np.ceil(image.min(axis=0)))
    high = np.minimum(np.maximum(body_shape - 1, np.ceil(points.max(axis=0))), np.floor(image.max(axis=0)))
    return low.astype(int), high.astype(int) + 1


def locate_liver(mask: Image | None, box: Box | None) -> LiverPlace | None:
    """The liver as the user gave it; a mask wins over a box. Of values between 0 and 1, those above 0.5 are liver.

    Raises:
        Refusal: an empty mask.
    """
    if mask is not None:
        values = mask.read()
        is_share = values.min() >= 0 and values.max() <= 1  # a probability, or a mask that was interpolated
        inside = values > (0.5 if is_share else 0)
        index = np.argwhere(inside).astype(np.float64)
        if not len(index):
            raise Refusal("empty_liver_mask", f"{mask.source} marks no voxel as liver.")
        if not is_share and values.max() != values[inside].min():
            message = f"{mask.source} holds several labels; which of them is the liver? Give a mask of the liver alone."
            raise Refusal("several_labels", message)
        points = apply_affine(mask.grid.affine, index)
        return LiverPlace(points, points.mean(axis=0), is_mask=True)
    if box is None:
        return None
    points = box_corners(np.array(box.low, dtype=np.float64), np.array(box.high, dtype=np.float64))
    return LiverPlace(points, points.mean(axis=0), is_mask=False)
