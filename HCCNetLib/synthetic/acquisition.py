"""How one exam was taken: scanner, grid, pose, breath and deformation, intensity scale, coil shading, noise."""

from __future__ import annotations

import datetime
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from HCCNetLib.preprocessing.geometry import apply_affine, translation
from HCCNetLib.records import Affine, Grid, Refusal, months_between
from HCCNetLib.synthetic.warp import Warp, WarpModel, draw_warp

Range = tuple[float, float]
Triple = tuple[float, float, float]

_AXIS_ORDERS = tuple(itertools.permutations(range(3)))


@dataclass(frozen=True)
class Scanner:
    """How a scanner's exams differ from the model's numbers.

    Args:
        name: for tables.
        spacing: factor of the voxel size right-left, anterior-posterior, inferior-superior.
        gain: factor of the intensity scale.
        shading: factor of the largest coil shading.
        noise: factor of the noise.
        contrast: exponent of all signals.
    """

    name: str
    spacing: Triple = (1.0, 1.0, 1.0)
    gain: float = 1.0
    shading: float = 1.0
    noise: float = 1.0
    contrast: float = 1.0


SCANNERS = (
    Scanner("A"),
    Scanner("B", spacing=(0.86, 0.86, 1.35), gain=0.5, shading=1.5, noise=1.5, contrast=0.85),
    Scanner("C", spacing=(1.1, 1.1, 0.85), gain=2.2, shading=0.7, noise=0.75, contrast=1.15),
)


@dataclass(frozen=True)
class AcquisitionModel:
    """The range of exams; lengths in mm, angles in degrees; a single number is the largest deviation to either side.

    Growth has the first scanner only, and no deformation.

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
        scanners: a patient begins with any of them.
        scanner_change: rate per month of a change to another.
        warp: deformation of the organs by the breath.
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
    scanners: tuple[Scanner, ...] = SCANNERS
    scanner_change: float = 0.01
    warp: WarpModel = field(default_factory=WarpModel)

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
        scanner: on which it was taken.
        warp: deformation of the organs, in anatomical space before the breath; None: none.
    """

    grid: Grid
    body: Affine
    breath: float
    intensity_scale: float
    shading: tuple[tuple[float, float], ...]
    noise: float
    scanner: Scanner = SCANNERS[0]
    warp: Warp | None = None

    @property
    def organs(self) -> Affine:
        """Affine from anatomical space, before the breath, to the exam's patient space; without the deformation."""
        return self.body @ translation((0.0, 0.0, self.breath))

    def deformed(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Organ points (N, 3) in anatomical space → where the deformation moves them there, mm."""
        return points if self.warp is None else self.warp.after(points)

    def to_patient(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Organ points (N, 3) in anatomical space → the exam's patient space, mm: deformation, breath, pose."""
        return apply_affine(self.organs, self.deformed(points))

    def to_anatomy(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """The inverse of ``to_patient``."""
        at = apply_affine(np.asarray(np.linalg.inv(self.organs), dtype=np.float64), points)
        return at if self.warp is None else self.warp.before(at)

    def index_to_body(self) -> Affine:
        """Voxel indices → anatomical points of what does not move with the breath."""
        return np.asarray(np.linalg.inv(self.body) @ self.grid.affine, dtype=np.float64)

    def index_to_organs(self) -> Affine:
        """Voxel indices → anatomical points of what moves with the breath."""
        return np.asarray(np.linalg.inv(self.organs) @ self.grid.affine, dtype=np.float64)


def draw_acquisition(model: AcquisitionModel, rng: np.random.Generator, scanner: Scanner = SCANNERS[0]) -> Acquisition:
    """Draws one exam, without deformation."""
    body = np.eye(4)
    body[:3, :3] = _rotation(rng, model.rotation)
    body[:3, 3] = rng.uniform(-1, 1, 3) * model.position
    edge = model.shading * scanner.shading
    shading = tuple((float(a), float(b)) for a, b in rng.uniform(-edge, edge, (3, 2)))
    return Acquisition(
        grid=_draw_grid(model, rng, scanner),
        body=body,
        breath=float(rng.uniform(-model.breath, model.breath)),
        intensity_scale=scanner.gain * float(np.exp(rng.uniform(*np.log(model.intensity_scale)))),
        shading=shading,
        noise=scanner.noise * float(rng.uniform(*model.noise)),
        scanner=scanner,
    )


def draw_scanners(
    model: AcquisitionModel, dates: Sequence[datetime.date], rng: np.random.Generator
) -> tuple[Scanner, ...]:
    """The scanner of each exam; when it is changed depends on time alone."""
    scanner = model.scanners[int(rng.integers(len(model.scanners)))]
    mean = 1 / max(model.scanner_change, 1e-9)
    left, before, scanners = float(rng.exponential(mean)), dates[0], []
    for date in dates:
        left -= months_between(before, date)
        before = date
        while left < 0:
            others = [other for other in model.scanners if other != scanner] or [scanner]
            scanner = others[int(rng.integers(len(others)))]
            left += float(rng.exponential(mean))
        scanners.append(scanner)
    return tuple(scanners)


def draw_deformed(
    model: AcquisitionModel, scanners: Sequence[Scanner], rng: np.random.Generator
) -> tuple[Acquisition, ...]:
    """Draws the exams of a patient on the given scanners, each with its deformation."""
    return tuple(
        replace(draw_acquisition(model, rng, scanner), warp=draw_warp(model.warp, rng)) for scanner in scanners
    )


def _rotation(rng: np.random.Generator, degrees: float) -> NDArray[np.float64]:
    angles = rng.uniform(-degrees, degrees, 3)
    return np.asarray(Rotation.from_euler("xyz", angles, degrees=True).as_matrix(), dtype=np.float64)


def _draw_grid(model: AcquisitionModel, rng: np.random.Generator, scanner: Scanner) -> Grid:
    """A grid centred in the scanner, its axes in any order and direction, as scanners and converters store them."""
    variation = rng.uniform(1 - model.spacing_variation, 1 + model.spacing_variation, 3)
    spacing = model.spacing * np.array(scanner.spacing) * variation
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
