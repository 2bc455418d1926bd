"""Simple bodies as signed distances, and textures, painted onto an exam's grid block by block.

A distance is in mm, negative inside. It is exact for capsules and spheres and good near the surface of ellipsoids.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from HCCNetLib.preprocessing.geometry import box_corners, scaling, translation, world_to_index
from HCCNetLib.records import Affine

Volume = NDArray[np.float32]
Points = tuple[Volume, Volume, Volume]
Slices = tuple[slice, slice, slice]
Vector = tuple[float, float, float]

# No exam reaches further from the origin of anatomical space, mm; endless bodies end there.
_REACH = 250.0


class Shape(Protocol):
    """A body in anatomical space (RAS+, mm)."""

    def distance(self, at: Points) -> Volume:
        """Signed distance, mm, at points given by their x, y and z (arrays of one shape)."""
        ...

    def bounds(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Low and high corners (3,) of a box around the body."""
        ...


@dataclass(frozen=True)
class Ellipsoid:
    """An ellipsoid: centre, semi-axes (mm), and a rotation whose columns are the directions of the semi-axes."""

    centre: Vector
    semi_axes: Vector
    rotation: NDArray[np.float64] | None = None

    def distance(self, at: Points) -> Volume:
        """k0 (k0 − 1) / k1 with k0 = |p / r|, k1 = |p / r²|."""
        x, y, z = (a - np.float32(c) for a, c in zip(at, self.centre, strict=True))
        if self.rotation is not None:
            r = self.rotation.astype(np.float32)
            x, y, z = (r[0, i] * x + r[1, i] * y + r[2, i] * z for i in range(3))
        squares = [np.square(p / np.float32(axis)) for p, axis in zip((x, y, z), self.semi_axes, strict=True)]
        first = squares[0] + squares[1] + squares[2]
        a, b, c = (s / np.float32(axis * axis) for s, axis in zip(squares, self.semi_axes, strict=True))
        second = a + b + c
        k0 = np.sqrt(first)
        distance: Volume = k0 * (k0 - 1) / np.sqrt(second + np.float32(1e-12))
        return distance

    def bounds(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The box around the rotated ellipsoid."""
        rotation = np.eye(3) if self.rotation is None else self.rotation
        reach = np.sqrt(((rotation * np.array(self.semi_axes)) ** 2).sum(axis=1))
        return np.array(self.centre) - reach, np.array(self.centre) + reach


@dataclass(frozen=True)
class Capsule:
    """A rod with round ends whose radius changes evenly from one end to the other: a piece of a vessel."""

    start: Vector
    end: Vector
    start_radius: float
    end_radius: float

    def distance(self, at: Points) -> Volume:
        """Distance to the nearest point of the axis, less the radius there."""
        axis = np.subtract(self.end, self.start)
        direction = (axis / (axis @ axis)).astype(np.float32)
        x, y, z = (a - np.float32(s) for a, s in zip(at, self.start, strict=True))
        along = np.clip(x * direction[0] + y * direction[1] + z * direction[2], 0, 1)
        ax, ay, az = axis.astype(np.float32)
        away = np.sqrt(np.square(x - along * ax) + np.square(y - along * ay) + np.square(z - along * az))
        distance: Volume = away - (
            np.float32(self.start_radius) + along * np.float32(self.end_radius - self.start_radius)
        )
        return distance

    def bounds(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The box around both ends."""
        reach = max(self.start_radius, self.end_radius)
        ends = np.array([self.start, self.end])
        return ends.min(axis=0) - reach, ends.max(axis=0) + reach


@dataclass(frozen=True)
class Tube:
    """An upright cylinder without ends, of squarish elliptic section (x² + y² − s² x² y² = 1 at its surface).

    Args:
        centre: x and y.
        semi_axes: along x and y, mm.
        squareness: s, 0 for an ellipse; below 1.
    """

    centre: tuple[float, float]
    semi_axes: tuple[float, float]
    squareness: float = 0.0

    def distance(self, at: Points) -> Volume:
        """Relative distance from the axis, scaled by the mean semi-axis."""
        x2 = np.square((at[0] - np.float32(self.centre[0])) / np.float32(self.semi_axes[0]))
        y2 = np.square((at[1] - np.float32(self.centre[1])) / np.float32(self.semi_axes[1]))
        level = x2 + y2
        if self.squareness:
            # Far outside the product would win and let the section open again.
            level -= np.float32(self.squareness**2) * np.minimum(x2, 1) * np.minimum(y2, 1)
        distance: Volume = (np.sqrt(level) - 1) * np.float32(np.mean(self.semi_axes))
        return distance

    def bounds(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """A box without ends along z."""
        reach = np.array([*self.semi_axes, np.inf])
        return np.array([*self.centre, 0.0]) - reach, np.array([*self.centre, 0.0]) + reach

    def outline(self, count: int = 72) -> NDArray[np.float64]:
        """Points (count, 2) of the section's outline."""
        angle = np.linspace(0, 2 * np.pi, count, endpoint=False)
        u, v = np.cos(angle) ** 2, np.sin(angle) ** 2
        # Along a ray at radius² q: q − s² u v q² = 1; the smaller root is the section's.
        product = self.squareness**2 * u * v
        q = np.where(product > 1e-9, (1 - np.sqrt(1 - 4 * product)) / np.maximum(2 * product, 1e-9), 1.0)
        ray = np.stack([np.cos(angle), np.sin(angle)], axis=1) * np.sqrt(q)[:, None]
        outline: NDArray[np.float64] = ray * np.array(self.semi_axes) + np.array(self.centre)
        return outline


@dataclass(frozen=True)
class Texture:
    """Noise of SD 1 fixed in the patient.

    Args:
        values: (X, Y, Z) on a coarse grid.
        affine: of ``values`` to anatomical space.
    """

    values: Volume
    affine: Affine


@dataclass(frozen=True)
class Raster:
    """A grid seen from anatomical space: voxel index → anatomical point.

    Args:
        shape: (X, Y, Z) of the grid.
        to_anatomy: affine from voxel indices to anatomical space.
    """

    shape: tuple[int, int, int]
    to_anatomy: Affine

    def block(self, shape: Shape, margin: float) -> Slices | None:
        """The voxels that may lie within ``margin`` mm of a body; None where there are none."""
        low, high = shape.bounds()
        low, high = np.maximum(low - margin, -_REACH), np.minimum(high + margin, _REACH)
        index = world_to_index(self.to_anatomy, box_corners(low, high))
        start = np.maximum(np.floor(index.min(axis=0)).astype(int), 0)
        stop = np.minimum(np.ceil(index.max(axis=0)).astype(int) + 1, self.shape)
        if (stop <= start).any():
            return None
        i, j, k = (slice(int(a), int(b)) for a, b in zip(start, stop, strict=True))
        return i, j, k

    def points(self, block: Slices) -> Points:
        """Anatomical x, y and z (float32) of a block's voxel centres."""
        matrix = self.to_anatomy
        i, j, k = np.ogrid[block]
        rows = []
        for row in matrix[:3]:
            flat = (row[0] * i + row[3]).astype(np.float32), (row[1] * j).astype(np.float32)
            rows.append((flat[0] + flat[1]) + (row[2] * k).astype(np.float32))
        return rows[0], rows[1], rows[2]

    def sample(self, texture: Texture, block: Slices) -> Volume:
        """A texture on a block, interpolated linearly."""
        start = translation(np.array([s.start for s in block], dtype=np.float64))
        step: Affine = np.linalg.inv(texture.affine) @ self.to_anatomy @ start
        shape = tuple(s.stop - s.start for s in block)
        sampled: Volume = ndimage.affine_transform(
            texture.values, step[:3, :3], step[:3, 3], output_shape=shape, output=np.float32, order=1, mode="grid-wrap"
        )
        return sampled

    def sample_coarsely(self, texture: Texture, block: Slices) -> Volume:
        """A texture without fine grains: taken at every second voxel along each axis, and between them interpolated."""
        first = translation(np.array([s.start for s in block], dtype=np.float64))
        half = tuple((s.stop - s.start) // 2 + 1 for s in block)
        coarse = Raster((half[0], half[1], half[2]), self.to_anatomy @ first @ scaling([2.0] * 3))
        values = coarse.sample(texture, (slice(0, half[0]), slice(0, half[1]), slice(0, half[2])))
        for axis, part in enumerate(block):
            values = _doubled(values, axis)[(slice(None),) * axis + (slice(0, part.stop - part.start),)]
        return values


@dataclass(frozen=True)
class BentRaster:
    """A grid seen from anatomical space through a deformation.

    Args:
        plain: the grid without it.
        at: anatomical x, y and z of all voxel centres.
        reach: no point is deformed further, mm.
    """

    plain: Raster
    at: Points
    reach: float

    def block(self, shape: Shape, margin: float) -> Slices | None:
        """As of a plain grid."""
        return self.plain.block(shape, margin + self.reach)

    def points(self, block: Slices) -> Points:
        """As of a plain grid; views."""
        return self.at[0][block], self.at[1][block], self.at[2][block]

    def sample(self, texture: Texture, block: Slices) -> Volume:
        """As of a plain grid."""
        step = np.linalg.inv(texture.affine)
        index = [
            np.float32(s) * a + np.float32(o)
            for s, a, o in zip(step.diagonal(), self.points(block), step[:3, 3], strict=False)
        ]
        sampled: Volume = ndimage.map_coordinates(texture.values, index, output=np.float32, order=1, mode="grid-wrap")
        return sampled


AnyRaster = Raster | BentRaster


def _doubled(values: Volume, axis: int) -> Volume:
    """Twice as many values less one along an axis, the new ones half-way."""
    values = np.moveaxis(values, axis, 0)
    doubled = np.empty((2 * len(values) - 1, *values.shape[1:]), dtype=np.float32)
    doubled[::2] = values
    doubled[1::2] = (values[:-1] + values[1:]) / 2
    return np.moveaxis(doubled, 0, axis)


def at_points(points: NDArray[np.float64]) -> Points:
    """Points (..., 3) as the x, y, z that ``Shape.distance`` takes."""
    x, y, z = np.moveaxis(points.astype(np.float32), -1, 0)
    return x, y, z


def smooth_minimum(a: Volume, b: Volume, radius: float) -> Volume:
    """The smaller of two distances, rounded over ``radius`` mm where they are close: a union without a crease."""
    h = np.maximum(np.float32(radius) - np.abs(a - b), 0) / np.float32(radius)
    return np.asarray(np.minimum(a, b) - h * h * np.float32(radius / 4), dtype=np.float32)
