"""One exam's voxels: tissues painted over each other, then texture, coil shading, noise; and the masks that go with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from HCCNetLib.preprocessing.geometry import scaling, translation
from HCCNetLib.records import Affine, Grid
from HCCNetLib.synthetic.acquisition import Acquisition
from HCCNetLib.synthetic.anatomy import Anatomy, Texture
from HCCNetLib.synthetic.phantom import Phantom, PhantomModel
from HCCNetLib.synthetic.randomness import Stream, generator
from HCCNetLib.synthetic.shapes import Raster, Shape, Slices, Tube, Volume
from HCCNetLib.synthetic.tissues import TISSUES, Signal

Mask = NDArray[np.uint8]

# The first six as in TotalSegmentator. What lies in the liver has codes of its own; the target lesion has a mask of its own
# and is liver here.
ORGAN_LABELS: Mapping[str, int] = {
    "spleen": 1,
    "right kidney": 2,
    "left kidney": 3,
    "gallbladder": 4,
    "liver": 5,
    "stomach": 6,
    "right lung": 11,
    "left lung": 12,
    "heart": 13,
    "vena cava": 21,
    "aorta": 22,
    "vertebrae": 23,
    "spinal canal": 24,
    "liver vessel": 31,
    "cyst": 32,
    "nodule": 33,
}

_ORGAN_TISSUES = {
    "spleen": "spleen",
    "right kidney": "kidney",
    "left kidney": "kidney",
    "gallbladder": "bile",
    "stomach": "stomach",
    "right lung": "lung",
    "left lung": "lung",
    "heart": "heart",
    "vena cava": "blood",
    "aorta": "aorta",
    "vertebrae": "marrow",
    "spinal canal": "fluid",
}

_BOWEL_CONTRAST = 0.3
_DISC_PERIOD, _DISC_HEIGHT = 34.0, 8.0  # mm
# Sub-voxels along each axis for the target lesion, whose volume must be right: a twelfth of its diameter or finer.
_FEWEST_FINE, _MOST_FINE, _FINE_PER_DIAMETER = 3, 16, 12


@dataclass(frozen=True)
class RenderedExam:
    """One exam's voxels.

    Args:
        grid: of everything here.
        images: channel → int16 (X, Y, Z).
        lesion: 1 where at least half of the voxel is target lesion; of one smaller than that, the voxel that holds most.
        organs: ``ORGAN_LABELS``, 0 elsewhere.
    """

    grid: Grid
    images: Mapping[str, NDArray[np.int16]]
    lesion: Mask
    organs: Mask


def render_exam(model: PhantomModel, phantom: Phantom, exam: int) -> RenderedExam:
    """Renders one exam of a patient (``exam`` from 0, in the order of the dates)."""
    acquisition = phantom.acquisitions[exam]
    painter = _Painter(acquisition, model.channels)
    _paint_body(painter, phantom.anatomy)
    _paint_organs(painter, phantom.anatomy, model)
    for distractor in phantom.distractors:
        painter.paint(distractor.shape, painter.organs, distractor.kind, distractor.kind)
    lesion = _paint_lesion(painter, phantom, exam)
    rng = generator(phantom.seed, phantom.course.index, Stream.NOISE, exam)
    painter.image *= _shading(acquisition)
    images = {
        channel: _acquire(signal, acquisition, rng)
        for channel, signal in zip(model.channels, painter.image, strict=True)
    }
    return RenderedExam(acquisition.grid, images, lesion, painter.labels)


class _Painter:
    """An exam's noise-free image (C, X, Y, Z) and its labels; what is painted later covers what was there."""

    def __init__(self, acquisition: Acquisition, channels: Sequence[str]) -> None:
        shape = acquisition.grid.shape
        self.body = Raster(shape, acquisition.index_to_body())
        self.organs = Raster(shape, acquisition.index_to_organs())
        self.signals = {name: tissue.signal(channels) for name, tissue in TISSUES.items()}
        self.channels = channels
        self.image = np.zeros((len(channels), *shape), dtype=np.float32)
        self.labels = np.zeros(shape, dtype=np.uint8)
        self.edge = float(np.mean(acquisition.grid.spacing))

    def coverage(self, distance: Volume) -> Volume:
        """Part of each voxel inside, from the distance of its centre to the surface."""
        part: Volume = np.clip(np.float32(0.5) - distance / np.float32(self.edge), 0, 1)
        return part

    def paint(self, shape: Shape, raster: Raster, tissue: str, label: str | None = None) -> None:
        """Paints a body of one tissue."""
        block = raster.block(shape, self.edge)
        if block is not None:
            self.cover(block, self.coverage(shape.distance(raster.points(block))), self.signals[tissue], label)

    def cover(
        self, block: Slices, part: Volume, signal: Signal, label: str | None, texture: Volume | None = None
    ) -> None:
        """Mixes ``signal`` · ``texture`` into a block by the part (0–1) of each voxel that it fills."""
        for image, value in zip(self.image, signal, strict=True):
            voxels = image[block]
            voxels += part * ((value if texture is None else value * texture) - voxels)
        if label is not None:
            self.labels[block][part >= 0.5] = ORGAN_LABELS[label]


def _paint_body(painter: _Painter, anatomy: Anatomy) -> None:
    painter.paint(anatomy.skin, painter.body, "fat")
    painter.paint(anatomy.wall, painter.body, "muscle")
    block = painter.body.block(anatomy.cavity, painter.edge)
    if block is not None:
        bowel = 1 + np.float32(_BOWEL_CONTRAST) * _sample(anatomy.bowel, painter.organs, block)
        inside = painter.coverage(anatomy.cavity.distance(painter.body.points(block)))
        painter.cover(block, inside, painter.signals["mesentery"], None, np.maximum(bowel, 0))


def _paint_organs(painter: _Painter, anatomy: Anatomy, model: PhantomModel) -> None:
    for name, shape in anatomy.organs.items():
        if name == "liver":
            _paint_liver(painter, anatomy, model)
        else:
            painter.paint(shape, painter.organs, _ORGAN_TISSUES[name], name)
    for name, shape in anatomy.still.items():
        painter.paint(shape, painter.body, _ORGAN_TISSUES[name], name)
    _paint_discs(painter, anatomy)


def _paint_liver(painter: _Painter, anatomy: Anatomy, model: PhantomModel) -> None:
    """The liver with its nodular texture and surface, and the vessels in it."""
    block = painter.organs.block(anatomy.liver, 4 * model.liver_surface)
    if block is None:
        return
    nodules = _sample(anatomy.texture, painter.organs, block)
    distance = anatomy.liver.distance(painter.organs.points(block))
    part = painter.coverage(distance + np.float32(model.liver_surface) * nodules)
    texture = 1 + np.float32(model.liver_texture) * nodules
    painter.cover(block, part, painter.signals["liver"], "liver", texture)
    liver = np.zeros(painter.labels.shape, dtype=np.float32)
    liver[block] = part
    for vessel in anatomy.liver_vessels:
        around = painter.organs.block(vessel, painter.edge)
        if around is not None:
            inside = painter.coverage(vessel.distance(painter.organs.points(around))) * liver[around]
            painter.cover(around, inside, painter.signals["blood"], "liver vessel")


def _paint_discs(painter: _Painter, anatomy: Anatomy) -> None:
    """Every few centimetres the spine is disc instead of marrow."""
    spine = anatomy.still["vertebrae"]
    assert isinstance(spine, Tube)
    block = painter.body.block(spine, painter.edge)
    if block is None:
        return
    at = painter.body.points(block)
    from_disc = np.abs(np.mod(at[2], np.float32(_DISC_PERIOD)) - np.float32(_DISC_PERIOD / 2))
    distance = np.maximum(spine.distance(at), from_disc - np.float32(_DISC_HEIGHT / 2))
    painter.cover(block, painter.coverage(distance), painter.signals["disc"], None)


def _paint_lesion(painter: _Painter, phantom: Phantom, exam: int) -> Mask:
    diameter = phantom.course.diameters[exam]
    shape = phantom.target.shape(diameter)
    mask = np.zeros(painter.labels.shape, dtype=np.uint8)
    block = painter.organs.block(shape, painter.edge)
    if block is None:
        return mask
    fine = int(np.clip(np.ceil(_FINE_PER_DIAMETER * painter.edge / diameter), _FEWEST_FINE, _MOST_FINE))
    part = _fine_coverage(shape, painter.organs, block, painter.edge, fine)
    painter.cover(block, part, phantom.target.tissue.signal(painter.channels), None)
    inside = part >= min(0.5, float(part.max()))
    mask[block] = inside
    painter.labels[block][inside] = ORGAN_LABELS["liver"]
    return mask


def _fine_coverage(shape: Shape, raster: Raster, block: Slices, edge: float, fine: int) -> Volume:
    """Part of each voxel inside a small body, from ``fine``³ points in each."""
    size = tuple(s.stop - s.start for s in block)
    start = np.array([s.start for s in block], dtype=np.float64)
    to_voxels = translation(start - 0.5) @ scaling([1 / fine] * 3) @ translation([0.5] * 3)
    points = Raster((size[0] * fine, size[1] * fine, size[2] * fine), raster.to_anatomy @ to_voxels)
    i, j, k = points.shape
    distance = shape.distance(points.points((slice(0, i), slice(0, j), slice(0, k))))
    part = np.clip(np.float32(0.5) - distance * np.float32(fine / edge), 0, 1)
    mean: Volume = part.reshape(size[0], fine, size[1], fine, size[2], fine).mean(axis=(1, 3, 5))
    return mean


def _sample(texture: Texture, raster: Raster, block: Slices) -> Volume:
    """A texture on a block of a grid, interpolated linearly."""
    start = translation(np.array([s.start for s in block], dtype=np.float64))
    step: Affine = np.linalg.inv(texture.affine) @ raster.to_anatomy @ start
    shape = tuple(s.stop - s.start for s in block)
    sampled: Volume = ndimage.affine_transform(
        texture.values, step[:3, :3], step[:3, 3], output_shape=shape, output=np.float32, order=1, mode="grid-wrap"
    )
    return sampled


def _shading(acquisition: Acquisition) -> Volume:
    """The coil's factor for each voxel (X, Y, Z)."""
    factors = []
    for count, (slope, curvature) in zip(acquisition.grid.shape, acquisition.shading, strict=True):
        u = np.linspace(-1, 1, count, dtype=np.float32)
        factors.append(np.exp(np.float32(slope) * u + np.float32(curvature) * (u * u - np.float32(1 / 3))))
    shading: Volume = (factors[0][:, None] * factors[1])[..., None] * factors[2]
    return shading


def _acquire(signal: Volume, acquisition: Acquisition, rng: np.random.Generator) -> NDArray[np.int16]:
    """What the scanner stores of a shaded signal: Rician noise, the exam's scale, whole numbers."""
    # In place, because most of an exam's time is spent here.
    real, imaginary = rng.standard_normal((2, *signal.shape), dtype=np.float32)
    sd = np.float32(acquisition.noise)
    real *= sd
    real += signal
    imaginary *= sd
    real *= real
    imaginary *= imaginary
    real += imaginary
    np.sqrt(real, out=real)
    real *= np.float32(acquisition.intensity_scale)
    return np.rint(real, out=real).astype(np.int16)
