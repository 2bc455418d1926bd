"""One exam's voxels: tissues painted over each other, then texture, coil shading, noise; and the masks that go with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from HCCNetLib.preprocessing.geometry import scaling, translation
from HCCNetLib.records import Grid
from HCCNetLib.synthetic.acquisition import Acquisition
from HCCNetLib.synthetic.anatomy import Anatomy, Within
from HCCNetLib.synthetic.looks import ExamLooks
from HCCNetLib.synthetic.phantom import Phantom, PhantomModel
from HCCNetLib.synthetic.placement import Nodule
from HCCNetLib.synthetic.randomness import Stream, generator
from HCCNetLib.synthetic.shapes import AnyRaster, BentRaster, Capsule, Ellipsoid, Raster, Shape, Slices, Tube, Volume
from HCCNetLib.synthetic.tissues import Signal
from HCCNetLib.synthetic.warp import Warp

Mask = NDArray[np.uint8]

# The first six as in TotalSegmentator. What lies in the liver has codes of its own; solid nodules have a mask of their own
# and are liver here.
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

_DISC_PERIOD, _DISC_HEIGHT = 34.0, 8.0  # mm
# Sub-voxels along each axis for solid nodules, whose volumes must be right: a twelfth of the diameter or finer.
_FEWEST_FINE, _MOST_FINE, _FINE_PER_DIAMETER = 3, 16, 12


@dataclass(frozen=True)
class RenderedExam:
    """One exam's voxels.

    Args:
        grid: of everything here.
        images: channel → int16 (X, Y, Z).
        lesion: the solid nodule that fills at least half of the voxel, by its place in ``Phantom.nodules`` from 1; of a
            nodule that fills no voxel by half, the voxel that holds most. 0 elsewhere.
        organs: ``ORGAN_LABELS``, 0 elsewhere.
    """

    grid: Grid
    images: Mapping[str, NDArray[np.int16]]
    lesion: Mask
    organs: Mask


def render_exam(model: PhantomModel, phantom: Phantom, exam: int) -> RenderedExam:
    """Renders one exam of a patient (``exam`` from 0, in the order of the dates)."""
    acquisition, looks = phantom.acquisitions[exam], phantom.looks[exam]
    painter = _Painter(acquisition, looks, model.channels)
    _paint_body(painter, phantom.anatomy, looks)
    _paint_organs(painter, phantom.anatomy, looks, model.liver_surface)
    lesion = _paint_nodules(painter, phantom.nodules, exam)
    rng = generator(phantom.seed, phantom.course.index, Stream.NOISE, exam)
    painter.image *= _shading(acquisition)
    # The imaginary part hardly matters but in air. Growth, whose files stay as they are, draws it for each channel.
    imaginary = None if painter.is_growth else rng.standard_normal(acquisition.grid.shape, dtype=np.float32)
    images = {
        channel: _acquire(signal, acquisition, rng, imaginary)
        for channel, signal in zip(model.channels, painter.image, strict=True)
    }
    return RenderedExam(acquisition.grid, images, lesion, painter.labels)


class _Painter:
    """An exam's noise-free image (C, X, Y, Z) and its labels; what is painted later covers what was there."""

    def __init__(self, acquisition: Acquisition, looks: ExamLooks, channels: Sequence[str]) -> None:
        shape = acquisition.grid.shape
        self.acquisition = acquisition
        self.is_growth = acquisition.warp is None
        self.body = Raster(shape, acquisition.index_to_body())
        # What moves with the breath: as a whole, or deformed besides.
        self.moved = Raster(shape, acquisition.index_to_organs())
        self.organs = self.moved if acquisition.warp is None else _bent(self.moved, acquisition.warp)
        self.signals = {name: tissue.signal(channels) for name, tissue in looks.tissues.items()}
        self.channels = channels
        self.image = np.zeros((len(channels), *shape), dtype=np.float32)
        self.labels = np.zeros(shape, dtype=np.uint8)
        self.edge = float(np.mean(acquisition.grid.spacing))

    def coverage(self, distance: Volume) -> Volume:
        """Part of each voxel inside, from the distance of its centre to the surface."""
        part: Volume = np.clip(np.float32(0.5) - distance / np.float32(self.edge), 0, 1)
        return part

    def paint(self, shape: Shape, raster: AnyRaster, signal: Signal, label: str | None = None) -> None:
        """Paints a body of one signal."""
        block = raster.block(shape, self.edge)
        if block is not None:
            self.cover(block, self.coverage(shape.distance(raster.points(block))), signal, label)

    def cover(
        self, block: Slices, part: Volume, signal: Signal, label: str | None, texture: Volume | None = None
    ) -> None:
        """Mixes ``signal`` · ``texture`` into a block by the part (0–1) of each voxel that it fills."""
        for image, value in zip(self.image, signal, strict=True):
            voxels = image[block]
            voxels += part * ((value if texture is None else value * texture) - voxels)
        if label is not None:
            self.labels[block][part >= 0.5] = ORGAN_LABELS[label]


def _bent(raster: Raster, warp: Warp) -> BentRaster:
    i, j, k = raster.shape
    at = raster.points((slice(0, i), slice(0, j), slice(0, k)))
    warp.bend(at, raster.to_anatomy)
    return BentRaster(raster, at, warp.reach)


def _paint_body(painter: _Painter, anatomy: Anatomy, looks: ExamLooks) -> None:
    painter.paint(anatomy.skin, painter.body, painter.signals["fat"])
    painter.paint(anatomy.wall, painter.body, painter.signals["muscle"])
    block = painter.body.block(anatomy.cavity, painter.edge)
    if block is not None:
        sample = painter.moved.sample if painter.is_growth else painter.moved.sample_coarsely
        bowel = 1 + np.float32(looks.bowel_contrast) * sample(anatomy.bowel, block)
        inside = painter.coverage(anatomy.cavity.distance(painter.body.points(block)))
        painter.cover(block, inside, painter.signals["mesentery"], None, np.maximum(bowel, 0))
    for loop, tissue in looks.loops:
        painter.paint(Within(loop, anatomy.cavity), painter.moved, tissue.signal(painter.channels))


def _paint_organs(painter: _Painter, anatomy: Anatomy, looks: ExamLooks, liver_surface: float) -> None:
    for name, shape in anatomy.organs.items():
        if name == "liver":
            _paint_liver(painter, anatomy, looks, liver_surface)
        else:
            assert isinstance(shape, Within)
            sized = shape.resized(looks.sizes.get(name, 1.0))
            painter.paint(sized, painter.organs, painter.signals[_ORGAN_TISSUES[name]], name)
    for name, tube in anatomy.still.items():
        painter.paint(tube, painter.body, painter.signals[_ORGAN_TISSUES[name]], name)
    _paint_discs(painter, anatomy)


def _paint_liver(painter: _Painter, anatomy: Anatomy, looks: ExamLooks, surface: float) -> None:
    """The liver with its nodular texture and surface, the vessels in it and the fluid around it."""
    block = painter.organs.block(anatomy.liver, 4 * surface + max(looks.ascites, 0))
    if block is None:
        return
    nodules = painter.organs.sample(anatomy.texture, block)
    distance = anatomy.liver.distance(painter.organs.points(block))
    if looks.ascites > 0:
        painter.cover(block, painter.coverage(distance - np.float32(looks.ascites)), painter.signals["fluid"], None)
    part = painter.coverage(distance + np.float32(surface) * nodules)
    texture = 1 + np.float32(looks.texture) * nodules
    painter.cover(block, part, painter.signals["liver"], "liver", texture)
    liver = np.zeros(painter.labels.shape, dtype=np.float32)
    liver[block] = part
    for vessel in anatomy.liver_vessels:
        moved = _moved(vessel, painter.acquisition)
        around = painter.moved.block(moved, painter.edge)
        if around is not None:
            inside = painter.coverage(moved.distance(painter.moved.points(around))) * liver[around]
            painter.cover(around, inside, painter.signals["blood"], "liver vessel")


def _moved(vessel: Capsule, acquisition: Acquisition) -> Capsule:
    """A piece of a vessel whose ends follow the deformation."""
    start, end = acquisition.deformed(np.array([vessel.start, vessel.end])).tolist()
    return replace(vessel, start=tuple(start), end=tuple(end))


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


def _paint_nodules(painter: _Painter, nodules: Sequence[Nodule], exam: int) -> Mask:
    """Paints all nodules that are there, the solid ones last, and returns the mask of those."""
    mask = np.zeros(painter.labels.shape, dtype=np.uint8)
    there = [(number, nodule) for number, nodule in enumerate(nodules, 1) if nodule.diameters[exam] > 0]
    for number, nodule in sorted(there, key=lambda item: item[1].is_solid):
        shape = nodule.shape_in(painter.acquisition, exam)
        signal = nodule.tissues[exam].signal(painter.channels)
        if nodule.is_solid:
            _paint_solid(painter, shape, nodule.diameters[exam], signal, mask, number)
        else:
            painter.paint(shape, painter.moved, signal, nodule.kind)
    return mask


def _paint_solid(painter: _Painter, shape: Ellipsoid, diameter: float, signal: Signal, mask: Mask, number: int) -> None:
    block = painter.moved.block(shape, painter.edge)
    if block is None:
        return
    fine = int(np.clip(np.ceil(_FINE_PER_DIAMETER * painter.edge / diameter), _FEWEST_FINE, _MOST_FINE))
    part = _fine_coverage(shape, painter.moved, block, painter.edge, fine)
    painter.cover(block, part, signal, None)
    inside = part >= min(0.5, float(part.max()))
    mask[block][inside] = number
    painter.labels[block][inside] = ORGAN_LABELS["liver"]


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


def _shading(acquisition: Acquisition) -> Volume:
    """The coil's factor for each voxel (X, Y, Z)."""
    factors = []
    for count, (slope, curvature) in zip(acquisition.grid.shape, acquisition.shading, strict=True):
        u = np.linspace(-1, 1, count, dtype=np.float32)
        factors.append(np.exp(np.float32(slope) * u + np.float32(curvature) * (u * u - np.float32(1 / 3))))
    shading: Volume = (factors[0][:, None] * factors[1])[..., None] * factors[2]
    return shading


def _acquire(
    signal: Volume, acquisition: Acquisition, rng: np.random.Generator, imaginary: Volume | None
) -> NDArray[np.int16]:
    """What the scanner stores of a shaded signal: Rician noise, the exam's scale, whole numbers.

    Args:
        signal: (X, Y, Z).
        acquisition: noise and scale.
        rng: draws the noise.
        imaginary: its imaginary part, of SD 1; None: to be drawn.
    """
    # In place, because most of an exam's time is spent here.
    real = rng.standard_normal(signal.shape, dtype=np.float32)
    if imaginary is None:
        imaginary = rng.standard_normal(signal.shape, dtype=np.float32)
    sd = np.float32(acquisition.noise)
    real *= sd
    real += signal
    real *= real
    scaled = imaginary * sd
    scaled *= scaled
    real += scaled
    np.sqrt(real, out=real)
    real *= np.float32(acquisition.intensity_scale)
    return np.rint(real, out=real).astype(np.int16)
