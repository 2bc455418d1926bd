"""Nodules in the liver: solid ones inside what the network reads at every exam, all others anywhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from HCCNetLib.preprocessing import PreprocessingConfig
from HCCNetLib.preprocessing.field import Body, Window, fraction_box, place_window
from HCCNetLib.preprocessing.geometry import Reorientation, apply_affine, world_to_index
from HCCNetLib.synthetic.acquisition import Acquisition
from HCCNetLib.synthetic.anatomy import Anatomy
from HCCNetLib.synthetic.shapes import Ellipsoid, Shape, Tube, Vector, at_points
from HCCNetLib.synthetic.tissues import TISSUES, Tissue

_CANDIDATES = 400
_LIVER_MARGIN = 3.0  # mm of liver around a nodule
_NODULE_GAP = 4.0  # mm between two nodules
# The body found in an image differs from the one drawn by a few voxels (threshold, noise, shading), and the window by
# a part of that.
_FIELD_MARGIN = 6.0
# For solid nodules, along P, L and I: where the field begins along the body does not depend on the body found.
_SOLID_MARGINS = np.array([6.0, 6.0, 2.0])
_MANY_CANDIDATES, _AT_ONCE = 3000, 24
_KEEP_CLEAR = ("right kidney", "gallbladder", "vena cava", "aorta", "vertebrae")

NoduleKind = Literal["lesion", "tumour", "benign", "cyst", "nodule"]
SOLID: tuple[NoduleKind, ...] = ("lesion", "tumour", "benign")


@dataclass(frozen=True)
class Form:
    """An ellipsoid's form: semi-axes relative to the radius of the sphere of its volume, and their directions."""

    ratios: Vector
    rotation: NDArray[np.float64]

    def ellipsoid(self, centre: Vector, diameter: float) -> Ellipsoid:
        """The ellipsoid with the volume of a sphere of ``diameter`` mm."""
        a, b, c = (ratio * diameter / 2 for ratio in self.ratios)
        return Ellipsoid(centre, (a, b, c), self.rotation)


@dataclass(frozen=True)
class Nodule:
    """One nodule of a patient.

    Args:
        kind: growth has one "lesion", which decides, and static "cyst" and "nodule"; surveillance has "tumour", "benign"
            (solid, and looks like a tumour) and "cyst".
        centre: in anatomical space, before breath and deformation, mm.
        form: its form.
        diameters: at each exam, mm, of the sphere of its volume; 0 where it is not there.
        tissues: its look at each exam.
    """

    kind: NoduleKind
    centre: Vector
    form: Form
    diameters: tuple[float, ...]
    tissues: tuple[Tissue, ...]

    @property
    def is_solid(self) -> bool:
        """Whether it has a number in the lesion mask."""
        return self.kind in SOLID

    def shape(self, exam: int) -> Ellipsoid:
        """Its body at an exam, in anatomical space before breath and deformation."""
        return self.form.ellipsoid(self.centre, self.diameters[exam])

    def shape_in(self, acquisition: Acquisition, exam: int) -> Ellipsoid:
        """Its body in anatomical space before the breath alone: the deformation moves a nodule as a whole."""
        x, y, z = acquisition.deformed(np.array([self.centre]))[0]
        return self.form.ellipsoid((float(x), float(y), float(z)), self.diameters[exam])


@dataclass(frozen=True)
class NoduleModel:
    """Form of the nodules and, in growth, how many distractors there are; diameters in mm.

    Args:
        elongation: largest logarithm of a semi-axis's ratio to the mean.
        cysts: fewest and most.
        cyst_diameter: drawn uniformly.
        nodules: fewest and most static nodules.
        nodule_diameter: drawn uniformly.
    """

    elongation: float = 0.12
    cysts: tuple[int, int] = (0, 3)
    cyst_diameter: tuple[float, float] = (6.0, 18.0)
    nodules: tuple[int, int] = (0, 4)
    nodule_diameter: tuple[float, float] = (6.0, 14.0)


def draw_form(model: NoduleModel, rng: np.random.Generator) -> Form:
    """Draws an ellipsoid's form."""
    logs = rng.uniform(-model.elongation, model.elongation, 3)
    a, b, c = np.exp(logs - logs.mean())
    rotation = np.asarray(Rotation.from_quat(rng.standard_normal(4)).as_matrix(), dtype=np.float64)
    return Form((float(a), float(b), float(c)), rotation)


def expected_window(acquisition: Acquisition, wall: Tube, config: PreprocessingConfig) -> Window:
    """The cube that preprocessing will read of an exam, from the geometry that was drawn instead of from voxels.

    The body that preprocessing finds is what is brighter than the mean of the first channel: all within the muscles'
    outer surface, since fat is dark.
    """
    grid = Reorientation.towards(config.orientation, acquisition.grid).target
    search = fraction_box(grid.shape, (0.5, 0.5, 0.5), config.central_fraction, config.central_min_voxels)
    outline = wall.outline()
    heights = np.linspace(-150, 150, 31)
    points = np.concatenate([np.column_stack([outline, np.full(len(outline), z)]) for z in heights])
    index = world_to_index(grid.affine, apply_affine(acquisition.body, points))
    inside = index[(index[:, 2] >= 0) & (index[:, 2] <= grid.shape[2] - 1)]
    region = [
        slice(max(s.start, int(np.ceil(low))), min(s.stop, int(np.floor(high)) + 1))
        for s, low, high in zip(search, inside.min(axis=0), inside.max(axis=0), strict=True)
    ]
    body = Body((region[0], region[1], search[2]), np.ones((1, 1, 1), dtype=np.bool_))
    return place_window(grid, body, config)


def place_target(
    anatomy: Anatomy, acquisitions: Sequence[Acquisition], radius: float, rng: np.random.Generator
) -> Vector | None:
    """A place for growth's lesion: in the liver, clear of its neighbours, and wholly in what is read at every exam.

    Args:
        anatomy: the patient's.
        acquisitions: all exams.
        radius: the largest semi-axis that the lesion ever has, mm.
        rng: draws the candidates.

    Returns:
        The centre in anatomical space before the breath, or None where no candidate fits.
    """
    centres = _candidates(anatomy, radius, rng)
    return _first(centres[_read_at_every_exam(centres, radius, acquisitions, _windows(anatomy, acquisitions))])


def place_distractors(
    model: NoduleModel, anatomy: Anatomy, target: Ellipsoid, exams: int, rng: np.random.Generator
) -> tuple[Nodule, ...]:
    """Growth's cysts and static nodules in the liver, apart from each other and from the lesion at its largest."""
    taken = [Ball.around(target)]
    distractors = []
    kinds: tuple[tuple[NoduleKind, tuple[int, int], tuple[float, float]], ...] = (
        ("cyst", model.cysts, model.cyst_diameter),
        ("nodule", model.nodules, model.nodule_diameter),
    )
    for kind, counts, diameters in kinds:
        for _ in range(int(rng.integers(counts[0], counts[1] + 1))):
            diameter, form = float(rng.uniform(*diameters)), draw_form(model, rng)
            radius = max(form.ratios) * diameter / 2
            centre = place_apart(anatomy, radius, taken, rng)
            if centre is not None:
                distractors.append(Nodule(kind, centre, form, (diameter,) * exams, (TISSUES[kind],) * exams))
                taken.append(Ball(centre, radius))
    return tuple(distractors)


@dataclass(frozen=True)
class Ball:
    """A place that is taken."""

    centre: Vector
    radius: float

    @classmethod
    def around(cls, body: Ellipsoid) -> Ball:
        """The ball that an ellipsoid touches from within."""
        return cls(body.centre, max(body.semi_axes))


def place_apart(anatomy: Anatomy, radius: float, taken: Sequence[Ball], rng: np.random.Generator) -> Vector | None:
    """A place for a ball anywhere in the liver, apart from what is taken; None where no candidate fits."""
    return _first(_apart(_candidates(anatomy, radius, rng), radius, taken, _NODULE_GAP))


def place_solid(
    anatomy: Anatomy,
    acquisitions: Sequence[Acquisition],
    radii: NDArray[np.float64],
    room: float,
    gap: float,
    rng: np.random.Generator,
) -> list[Vector] | None:
    """Places for all solid nodules of a patient: in the liver, apart, and wholly in what is read at every exam.

    The largest comes first. Whatever their kind and size, nodules keep away from the edges of the liver and of what is read
    as if their radius were at least ``room``, so that the place tells less of how large a nodule will be.

    Args:
        anatomy: the patient's.
        acquisitions: all exams.
        radii: the largest semi-axis of each nodule at each exam (nodules, exams), mm.
        room: mm.
        gap: between two nodules at every exam, mm.
        rng: draws the candidates.

    Returns:
        The centres in the order of ``radii``, or None where one found no place.
    """
    points = _liver_points(anatomy, rng, _MANY_CANDIDATES)
    moved = np.stack([acquisition.to_patient(points) for acquisition in acquisitions])
    clearance = _clearance(moved, _windows(anatomy, acquisitions))
    placed: dict[int, int] = {}
    for number in np.argsort(-radii.max(axis=1), kind="stable").tolist():
        reach = max(float(radii[number].max()), room)
        fits = clearance > reach
        for other, place in placed.items():
            distances = np.linalg.norm(moved - moved[:, place, None], axis=2)
            fits &= (distances > (radii[number] + radii[other] + gap)[:, None]).all(axis=0)
        found = _first_in_liver(points, np.flatnonzero(fits), anatomy, reach)
        if found is None:
            return None
        placed[number] = found
    return [_vector(points[placed[number]]) for number in range(len(radii))]


def _clearance(moved: NDArray[np.float64], windows: Sequence[Window]) -> NDArray[np.float64]:
    """How large a ball around each point may be, mm, to be wholly in what is read at every exam, with a margin.

    Args:
        moved: points in patient space at each exam (exams, N, 3).
        windows: of the exams.
    """
    clearance = np.full(moved.shape[1], np.inf)
    for points, window in zip(moved, windows, strict=True):
        at = world_to_index(window.grid.affine, points)
        first, last = (
            np.array(ends) for ends in zip(*((part.start, part.stop - 1) for part in window.read), strict=True)
        )
        nearest = np.minimum(at - first, last - at) * PreprocessingConfig().spacing_mm - _SOLID_MARGINS
        clearance = np.minimum(clearance, nearest.min(axis=1))
    return clearance


def _first_in_liver(
    points: NDArray[np.float64], numbers: NDArray[np.int_], anatomy: Anatomy, radius: float
) -> int | None:
    """The first of the numbered points whose ball lies in the liver; in parts, because most are found early."""
    for start in range(0, len(numbers), _AT_ONCE):
        part = numbers[start : start + _AT_ONCE]
        fits = _in_liver(points[part], anatomy, radius)
        if fits.any():
            return int(part[fits.argmax()])
    return None


def _windows(anatomy: Anatomy, acquisitions: Sequence[Acquisition]) -> list[Window]:
    config = PreprocessingConfig()
    return [expected_window(acquisition, anatomy.wall, config) for acquisition in acquisitions]


def _read_at_every_exam(
    centres: NDArray[np.float64], radius: float, acquisitions: Sequence[Acquisition], windows: Sequence[Window]
) -> NDArray[np.bool_]:
    """Which balls (N,) lie wholly in what is read, with a margin."""
    fits = np.ones(len(centres), dtype=np.bool_)
    for acquisition, window in zip(acquisitions, windows, strict=True):
        at = world_to_index(window.grid.affine, acquisition.to_patient(centres))
        reach = (radius + _FIELD_MARGIN) / PreprocessingConfig().spacing_mm
        for axis, part in enumerate(window.read):
            fits &= (at[:, axis] - reach >= part.start) & (at[:, axis] + reach <= part.stop - 1)
    return fits


def _apart(centres: NDArray[np.float64], radius: float, taken: Sequence[Ball], gap: float) -> NDArray[np.float64]:
    """Those of the balls that are clear of what is taken."""
    for ball in taken:
        centres = centres[np.linalg.norm(centres - np.array(ball.centre), axis=1) > radius + ball.radius + gap]
    return centres


def _candidates(anatomy: Anatomy, radius: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Centres (N, 3) of balls that lie in the liver with a margin and clear of its neighbours."""
    centres = _liver_points(anatomy, rng)
    return centres[_in_liver(centres, anatomy, radius)]


def _liver_points(anatomy: Anatomy, rng: np.random.Generator, count: int = _CANDIDATES) -> NDArray[np.float64]:
    """Those of ``count`` evenly drawn points (N, 3) that lie in the liver."""
    low, high = anatomy.liver.bounds()
    points = rng.uniform(low, high, (count, 3))
    inside: NDArray[np.float64] = points[anatomy.liver.distance(at_points(points)) < -_LIVER_MARGIN]
    return inside


def _in_liver(centres: NDArray[np.float64], anatomy: Anatomy, radius: float) -> NDArray[np.bool_]:
    """Which balls (N,) lie in the liver with a margin and clear of its neighbours."""
    surface = centres[:, None] + (radius + _LIVER_MARGIN) * _DIRECTIONS
    inside: NDArray[np.bool_] = anatomy.liver.distance(at_points(surface)).max(axis=1) < 0
    neighbours: list[Shape] = [(anatomy.organs | anatomy.still)[name] for name in _KEEP_CLEAR]
    for neighbour in neighbours:
        inside &= neighbour.distance(at_points(surface)).min(axis=1) > 0
    return inside


def _first(centres: NDArray[np.float64]) -> Vector | None:
    return _vector(centres[0]) if len(centres) else None


def _vector(centre: NDArray[np.float64]) -> Vector:
    x, y, z = centre
    return float(x), float(y), float(z)


def _sphere_directions(count: int) -> NDArray[np.float64]:
    """Unit vectors (count, 3) spread evenly (Fibonacci's spiral)."""
    n = np.arange(count)
    z = 1 - (2 * n + 1) / count
    angle = n * np.pi * (3 - np.sqrt(5))
    ring = np.sqrt(1 - z**2)
    return np.column_stack([ring * np.cos(angle), ring * np.sin(angle), z])


_DIRECTIONS = _sphere_directions(48)
