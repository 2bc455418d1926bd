"""Nodules in the liver: the target lesion inside what the network reads at every exam, distractors anywhere else."""

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

_CANDIDATES = 400
_LIVER_MARGIN = 3.0  # mm of liver around a nodule
_NODULE_GAP = 4.0  # mm between two nodules
# The body found in an image differs from the one drawn by a few voxels (threshold, noise, shading), and the window by
# a part of that.
_FIELD_MARGIN = 6.0
_KEEP_CLEAR = ("right kidney", "gallbladder", "vena cava", "aorta", "vertebrae")

DistractorKind = Literal["cyst", "nodule"]


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
class Distractor:
    """A cyst or a nodule that stays as it is from exam to exam."""

    kind: DistractorKind
    centre: Vector
    diameter: float
    form: Form

    @property
    def shape(self) -> Ellipsoid:
        """Its body in anatomical space."""
        return self.form.ellipsoid(self.centre, self.diameter)


@dataclass(frozen=True)
class NoduleModel:
    """Form of the nodules, and how many distractors there are; diameters in mm.

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
    """A place for the target lesion: in the liver, clear of its neighbours, and wholly in what is read at every exam.

    Args:
        anatomy: the patient's.
        acquisitions: all exams.
        radius: the largest semi-axis that the lesion ever has, mm.
        rng: draws the candidates.

    Returns:
        The centre in anatomical space before the breath, or None where no candidate fits.
    """
    config = PreprocessingConfig()
    centres = _candidates(anatomy, radius, rng)
    fits = np.ones(len(centres), dtype=bool)
    for acquisition in acquisitions:
        window = expected_window(acquisition, anatomy.wall, config)
        at = world_to_index(window.grid.affine, apply_affine(acquisition.organs, centres))
        reach = (radius + _FIELD_MARGIN) / config.spacing_mm
        for axis, part in enumerate(window.read):
            fits &= (at[:, axis] - reach >= part.start) & (at[:, axis] + reach <= part.stop - 1)
    return _first(centres[fits])


def place_distractors(
    model: NoduleModel, anatomy: Anatomy, target: Ellipsoid, rng: np.random.Generator
) -> tuple[Distractor, ...]:
    """Cysts and static nodules in the liver, apart from each other and from the target lesion at its largest."""
    taken = [(np.array(target.centre), max(target.semi_axes))]
    distractors = []
    kinds: tuple[tuple[DistractorKind, tuple[int, int], tuple[float, float]], ...] = (
        ("cyst", model.cysts, model.cyst_diameter),
        ("nodule", model.nodules, model.nodule_diameter),
    )
    for kind, counts, diameters in kinds:
        for _ in range(int(rng.integers(counts[0], counts[1] + 1))):
            diameter, form = float(rng.uniform(*diameters)), draw_form(model, rng)
            radius = max(form.ratios) * diameter / 2
            centres = _candidates(anatomy, radius, rng)
            for other, reach in taken:
                centres = centres[np.linalg.norm(centres - other, axis=1) > radius + reach + _NODULE_GAP]
            centre = _first(centres)
            if centre is not None:
                distractors.append(Distractor(kind, centre, diameter, form))
                taken.append((np.array(centre), radius))
    return tuple(distractors)


def _candidates(anatomy: Anatomy, radius: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Centres (N, 3) of balls that lie in the liver with a margin and clear of its neighbours."""
    low, high = anatomy.liver.bounds()
    centres = rng.uniform(low, high, (_CANDIDATES, 3))
    centres = centres[anatomy.liver.distance(at_points(centres)) < -_LIVER_MARGIN]
    surface = centres[:, None] + (radius + _LIVER_MARGIN) * _DIRECTIONS
    inside = anatomy.liver.distance(at_points(surface)).max(axis=1) < 0
    neighbours: list[Shape] = [(anatomy.organs | anatomy.still)[name] for name in _KEEP_CLEAR]
    for neighbour in neighbours:
        inside &= neighbour.distance(at_points(surface)).min(axis=1) > 0
    clear: NDArray[np.float64] = centres[inside]
    return clear


def _first(centres: NDArray[np.float64]) -> Vector | None:
    if not len(centres):
        return None
    x, y, z = centres[0]
    return float(x), float(y), float(z)


def _sphere_directions(count: int) -> NDArray[np.float64]:
    """Unit vectors (count, 3) spread evenly (Fibonacci's spiral)."""
    n = np.arange(count)
    z = 1 - (2 * n + 1) / count
    angle = n * np.pi * (3 - np.sqrt(5))
    ring = np.sqrt(1 - z**2)
    return np.column_stack([ring * np.cos(angle), ring * np.sin(angle), z])


_DIRECTIONS = _sphere_directions(48)
