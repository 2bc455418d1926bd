"""One patient's anatomy: where the organs lie, and the textures that stay the same from exam to exam.

Anatomical space is RAS+ like patient space, mm, its origin in the middle of the body. Organs hang from the diaphragm and
move with the breath; body wall, spine and great vessels do not.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from HCCNetLib.preprocessing.geometry import scaling, translation
from HCCNetLib.synthetic.shapes import Capsule, Ellipsoid, Points, Shape, Texture, Tube, Vector, Volume, smooth_minimum

_TEXTURE_STEP = 4.0  # mm
_TEXTURE_SIZE = (56, 56, 56)
_TEXTURE_CENTRE = (20.0, 0.0, 5.0)
_BOWEL_STEP = 10.0
_BOWEL_SIZE = (32, 24, 28)
_LIVER_CREASE = 25.0  # mm over which the lobes run into each other
_WALL_GAP = 3.0  # mm between organs and the body wall


@dataclass(frozen=True)
class Liver:
    """Two lobes in one piece, hollow below, inside the body wall: a ``Shape``, smooth; nodules come with the texture."""

    right: Ellipsoid
    left: Ellipsoid
    hollow: Ellipsoid
    cavity: Tube

    def distance(self, at: Points) -> Volume:
        """Signed distance, mm (good near the surface)."""
        lobes = smooth_minimum(self.right.distance(at), self.left.distance(at), _LIVER_CREASE)
        inside = np.maximum(lobes, -self.hollow.distance(at))
        distance: Volume = np.maximum(inside, self.cavity.distance(at) + np.float32(_WALL_GAP))
        return distance

    def bounds(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The box around both lobes."""
        corners = [*self.right.bounds(), *self.left.bounds()]
        return np.min(corners, axis=0), np.max(corners, axis=0)


@dataclass(frozen=True)
class Within:
    """The part of a body inside the abdominal cavity: a ``Shape``."""

    body: Ellipsoid
    cavity: Tube

    def resized(self, factor: float) -> Within:
        """The same with a body of another size."""
        a, b, c = (axis * factor for axis in self.body.semi_axes)
        return replace(self, body=replace(self.body, semi_axes=(a, b, c)))

    def distance(self, at: Points) -> Volume:
        """The larger of both distances."""
        distance: Volume = np.maximum(self.body.distance(at), self.cavity.distance(at) + np.float32(_WALL_GAP))
        return distance

    def bounds(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Those of the body."""
        return self.body.bounds()


@dataclass(frozen=True)
class Anatomy:
    """Everything of a patient but the nodules.

    Args:
        skin, wall, cavity: outer surface, outer surface of the muscles, inner surface of the body wall.
        liver: its smooth surface.
        organs: name → shape; they move with the breath, in the order in which they are painted.
        liver_vessels: portal and hepatic veins.
        still: name → shape; great vessels, spine.
        texture: cirrhotic nodules, SD 1.
        bowel: of what fills the cavity, SD 1.
    """

    skin: Tube
    wall: Tube
    cavity: Tube
    liver: Liver
    organs: dict[str, Shape]
    liver_vessels: tuple[Capsule, ...]
    still: dict[str, Shape]
    texture: Texture
    bowel: Texture


def draw_anatomy(rng: np.random.Generator) -> Anatomy:
    """Draws a patient: size and proportions vary by a few per cent, vessels and textures freely."""
    size = rng.uniform(0.95, 1.03)
    wall = Tube((0.0, 0.0), (143 * size, 106 * size), 0.6)
    fat = rng.uniform(8, 20)
    skin = Tube((0.0, 1.0), (wall.semi_axes[0] + fat, wall.semi_axes[1] + 0.8 * fat), 0.6)
    cavity = Tube((0.0, 10 * size), (wall.semi_axes[0] - 13, wall.semi_axes[1] - 22), 0.55)

    def draw(centre: Vector, semi_axes: Vector, variation: float = 0.06) -> Ellipsoid:
        where = np.array(centre) * size + rng.normal(0, 2.5, 3)
        axes = np.array(semi_axes) * size * rng.uniform(1 - variation, 1 + variation, 3)
        return Ellipsoid(_vector(where), _vector(axes))

    liver = Liver(
        right=draw((58, 2, 6), (82, 84, 80), 0.04),
        left=draw((-18, 42, 34), (72, 38, 38)),
        hollow=draw((-44, -8, -62), (76, 70, 66)),
        cavity=cavity,
    )
    organs: dict[str, Shape] = {
        "right lung": Within(draw((74, -8, 122), (64, 74, 60)), cavity),
        "left lung": Within(draw((-76, -12, 116), (62, 74, 62)), cavity),
        "heart": Within(draw((-22, 34, 104), (58, 46, 42)), cavity),
        "stomach": Within(draw((-66, 36, 22), (38, 36, 52)), cavity),
        "liver": liver,
        "spleen": Within(draw((-98, -20, 26), (30, 42, 52)), cavity),
        "right kidney": Within(draw((60, -34, -66), (27, 25, 50)), cavity),
        "left kidney": Within(draw((-62, -32, -50), (27, 25, 50)), cavity),
        "gallbladder": Within(draw((38, 48, -42), (13, 15, 24)), cavity),
    }
    still: dict[str, Shape] = {
        "vena cava": Tube((21 * size, -30 * size), (11, 9)),
        "aorta": Tube((-13 * size, -37 * size), (10, 10)),
        "vertebrae": Tube((0.0, -63 * size), (22 * size, 17 * size)),
        "spinal canal": Tube((0.0, -88 * size), (10, 7)),
    }
    return Anatomy(
        skin=skin,
        wall=wall,
        cavity=cavity,
        liver=liver,
        organs=organs,
        liver_vessels=_draw_vessels(rng, liver, size),
        still=still,
        texture=_draw_nodules(rng),
        bowel=_draw_bowel(rng),
    )


def _vector(values: NDArray[np.float64]) -> Vector:
    return float(values[0]), float(values[1]), float(values[2])


def _draw_vessels(rng: np.random.Generator, liver: Liver, size: float) -> tuple[Capsule, ...]:
    """Portal branches from the hilum, hepatic veins from the vena cava below the diaphragm."""
    hilum, outflow = np.array([24.0, 8.0, -8.0]) * size, np.array([22.0, -26.0, 52.0]) * size
    right, left = np.array(liver.right.centre), np.array(liver.left.centre)
    vessels: list[Capsule] = []

    def branch(start: NDArray[np.float64], end: NDArray[np.float64], radius: float, depth: int) -> None:
        end = end + rng.normal(0, 7, 3)
        vessels.append(Capsule(_vector(start), _vector(end), radius, 0.7 * radius))
        if depth:
            length = float(np.linalg.norm(end - start))
            for _ in range(2):
                direction = (end - start) / length + rng.normal(0, 0.65, 3)
                branch(end, end + 0.6 * length * direction, 0.65 * radius, depth - 1)

    branch(hilum + np.array([-30.0, -18, -22]), hilum, 7.0, 0)
    branch(hilum, right + np.array([12.0, 0, -12]), 5.5, 2)
    branch(hilum, left + np.array([0.0, 0, -5]), 4.5, 1)
    for target in (right + np.array([30.0, -10, 15]), right + np.array([5.0, 30, 25]), left + np.array([15.0, 0, 8])):
        branch(outflow, target, 4.5, 1)
    return tuple(vessels)


def _draw_nodules(rng: np.random.Generator) -> Texture:
    """Band-passed noise whose grains are about a centimetre wide, as regenerative nodules are."""
    noise = rng.standard_normal(_TEXTURE_SIZE, dtype=np.float32)
    fine, coarse = (ndimage.gaussian_filter(noise, sigma, mode="wrap", truncate=3) for sigma in (0.75, 1.6))
    return _texture(fine - coarse, _TEXTURE_STEP, _TEXTURE_CENTRE)


def _draw_bowel(rng: np.random.Generator) -> Texture:
    noise = rng.standard_normal(_BOWEL_SIZE, dtype=np.float32)
    return _texture(ndimage.gaussian_filter(noise, 0.9, mode="wrap"), _BOWEL_STEP, (0.0, 10.0, 0.0))


def _texture(values: Volume, step: float, centre: Vector) -> Texture:
    middle = (np.array(values.shape) - 1) / 2
    affine = translation(centre) @ scaling([step] * 3) @ translation(-middle)
    return Texture((values / values.std()).astype(np.float32), affine)
