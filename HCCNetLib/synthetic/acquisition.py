"""How one exam was taken: grid, pose and breath, intensity scale, coil shading, noise."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from HCCNetLib.preprocessing.geometry import translation
from HCCNetLib.records import Affine, Grid, Refusal

Range = tuple[float, float]
Triple = tuple[float, float, float]

_AXIS_ORDERS = tuple(itertools.permutations(range(3)))


@dataclass(frozen=True)
class AcquisitionModel:
    """The range of exams; lengths in mm, angles in degrees; a single number is the largest deviation to either side.

    Args:
        spacing: nominal voxel size.
        spacing_variation: of each axis and exam, as a fraction.
        field_of_view: right-left, anterior-posterior, inferior-superior.
        field_of_view_variation: as a fraction.
        position: of the body in the scanner, right, anterior, superior.
        rotation: of the body in the scanner, about each axis.
        breath: of the organs along the body.
        oblique_fraction: chance of a grid that is tilted against the scanner.
        obliquity: of such a grid, about each axis.
        intensity_scale: range of the exam's scale, drawn log-uniformly.
        shading: of the coil, log intensity at the edge of the field of view.
        noise: SD of the noise in each part of the complex signal, in units of the tissue table (liver at b 0 about 200).
    """

    spacing: float = 3.0
    spacing_variation: float = 0.08
    field_of_view: Triple = (380.0, 300.0, 200.0)
    field_of_view_variation: float = 0.03
    position: Triple = (8.0, 6.0, 5.0)
    rotation: float = 3.0
    breath: float = 9.0
    oblique_fraction: float = 0.5
    obliquity: float = 6.0
    intensity_scale: Range = (0.6, 2.0)
    shading: float = 0.2
    noise: Range = (4.0, 8.0)

    def __post_init__(self) -> None:
        if not 1.0 <= self.spacing <= 8.0:
            message = f"The spacing must lie between 1 and 8 mm; it is {self.spacing:g}. Choose another."
            raise Refusal("bad_parameter", message)


@dataclass(frozen=True)
class Acquisition:
    """One exam's parameters.

    Args:
        grid: of all its channels, to the exam's patient space.
        body: affine from anatomical space to the exam's patient space (rotation and shift).
        breath: shift of the organs along the anatomical z, mm.
        intensity_scale: factor of all channels.
        shading: per axis of the grid, slope and curvature of the log intensity over the field of view's half.
        noise: SD, tissue units.
    """

    grid: Grid
    body: Affine
    breath: float
    intensity_scale: float
    shading: tuple[tuple[float, float], ...]
    noise: float

    @property
    def organs(self) -> Affine:
        """Affine from anatomical space, before the breath, to the exam's patient space."""
        return self.body @ translation((0.0, 0.0, self.breath))

    def index_to_body(self) -> Affine:
        """Voxel indices → anatomical points of what does not move with the breath."""
        return np.asarray(np.linalg.inv(self.body) @ self.grid.affine, dtype=np.float64)

    def index_to_organs(self) -> Affine:
        """Voxel indices → anatomical points of what moves with the breath."""
        return np.asarray(np.linalg.inv(self.organs) @ self.grid.affine, dtype=np.float64)


def draw_acquisition(model: AcquisitionModel, rng: np.random.Generator) -> Acquisition:
    """Draws one exam."""
    body = np.eye(4)
    body[:3, :3] = _rotation(rng, model.rotation)
    body[:3, 3] = rng.uniform(-1, 1, 3) * model.position
    shading = tuple((float(a), float(b)) for a, b in rng.uniform(-model.shading, model.shading, (3, 2)))
    return Acquisition(
        grid=_draw_grid(model, rng),
        body=body,
        breath=float(rng.uniform(-model.breath, model.breath)),
        intensity_scale=float(np.exp(rng.uniform(*np.log(model.intensity_scale)))),
        shading=shading,
        noise=float(rng.uniform(*model.noise)),
    )


def _rotation(rng: np.random.Generator, degrees: float) -> NDArray[np.float64]:
    angles = rng.uniform(-degrees, degrees, 3)
    return np.asarray(Rotation.from_euler("xyz", angles, degrees=True).as_matrix(), dtype=np.float64)


def _draw_grid(model: AcquisitionModel, rng: np.random.Generator) -> Grid:
    """A grid centred in the scanner, its axes in any order and direction, as scanners and converters store them."""
    spacing = model.spacing * rng.uniform(1 - model.spacing_variation, 1 + model.spacing_variation, 3)
    extent = np.array(model.field_of_view) * rng.uniform(
        1 - model.field_of_view_variation, 1 + model.field_of_view_variation, 3
    )
    tilt = _rotation(rng, model.obliquity)
    axes = tilt if rng.random() < model.oblique_fraction else np.eye(3)
    order = list(_AXIS_ORDERS[int(rng.integers(len(_AXIS_ORDERS)))])
    signs = rng.choice([-1.0, 1.0], 3)
    count = np.round(extent / spacing).astype(int)[order]
    affine = np.eye(4)
    affine[:3, :3] = axes[:, order] * (spacing[order] * signs)
    affine[:3, 3] = -affine[:3, :3] @ ((count - 1) / 2)
    # Stored in single precision, so that image, mask and truth agree on one grid to the last digit.
    affine = affine.astype(np.float32).astype(np.float64)
    return Grid((int(count[0]), int(count[1]), int(count[2])), affine)
