"""Three orthogonal slices of an exam: where to cut, what lies where, and the drawing of each.

A volume is never resampled for a picture. Its axes are put into the order and direction of the closest patient axes by
transposing and flipping, and the slices are the volume's own voxel planes. A picture's units are millimetres.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from HCCNetLib.preprocessing.inverse import peak_voxel
from HCCNetLib.records import Affine, Grid
from HCCNetLib.reporting import colours, png

# The two ends of each patient axis, the positive one first.
LETTERS = (("R", "L"), ("A", "P"), ("S", "I"))
_OUTSIDE = 1e-9  # voxels: how near to a plane a corner counts as lying in it
_PAGE, _MARGIN = 1120, 20  # pixels: a page of usual width, and the room around an image
_SCALE_BARS_MM = (50, 20, 10, 5, 2, 1)


@dataclass(frozen=True)
class ExamPicture:
    """What the report shows of one exam.

    Args:
        exam_id: the exam, as in the result.
        channel: the channel shown, e.g. ``DWI_b800``.
        image: (X, Y, Z) the exam's own voxels.
        saliency: (X, Y, Z) on the same grid, 0-1 on one scale for the patient, or None where no map was made. With
            ``kind`` change: what raised the output compared with the previous exam, as a share of the patient's
            largest change.
        affine: (4, 4) voxel to patient space, mm; any orientation.
        field_corners: (8, 3) corners in patient space, mm, of the box that the model read, ordered as
            ``itertools.product((0, 1), repeat=3)`` over the box's own axes.
        against: (X, Y, Z) evidence that lowers the risk, on the scale of ``saliency``, or None. With ``kind`` change:
            what lowered the output.
        kind: whether the maps are of the exam's evidence or of its change since the previous exam.
    """

    exam_id: str
    channel: str
    image: NDArray[np.float32]
    saliency: NDArray[np.float32] | None
    affine: Affine
    field_corners: NDArray[np.float64]
    against: NDArray[np.float32] | None = None
    kind: Literal["evidence", "change"] = "evidence"

    def __post_init__(self) -> None:
        if self.image.ndim != 3 or not self.image.size:
            raise ValueError(f"expected an image (X, Y, Z), got {self.image.shape}")
        for name, values in (("saliency", self.saliency), ("against", self.against)):
            if values is not None and values.shape != self.image.shape:
                raise ValueError(f"{name} {values.shape} is not on the image's grid {self.image.shape}")
        if self.against is not None and self.saliency is None:
            raise ValueError("the map of what lowers the output needs the one of what raises it")
        if self.kind == "change" and self.against is None:
            raise ValueError("a picture of change needs both maps: what raised and what lowered the output")
        if self.affine.shape != (4, 4) or self.field_corners.shape != (8, 3):
            raise ValueError("expected an affine (4, 4) and field corners (8, 3)")

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel size along each axis, mm."""
        x, y, z = self.image.shape
        return Grid((x, y, z), self.affine).spacing


@dataclass(frozen=True)
class Plane:
    """A plane of the body as radiologists view it, in terms of patient axes (0 right, 1 anterior, 2 superior).

    Args:
        name: ``axial``, ``coronal`` or ``sagittal``.
        normal: the axis through the plane.
        leftward: the axis that runs towards the picture's left.
        upward: the axis that runs towards the picture's top.
    """

    name: str
    normal: int
    leftward: int
    upward: int

    @property
    def letters(self) -> tuple[str, str, str, str]:
        """What lies at the picture's left, right, top and bottom."""
        return *LETTERS[self.leftward], *LETTERS[self.upward]


AXIAL, CORONAL, SAGITTAL = Plane("axial", 2, 0, 1), Plane("coronal", 1, 0, 2), Plane("sagittal", 0, 1, 2)
PLANES = (AXIAL, CORONAL, SAGITTAL)


@dataclass(frozen=True)
class PatientOrder:
    """How a stored grid's axes are transposed and flipped to run right, anterior, superior at best.

    Args:
        stored: for each patient axis, the stored axis that follows it.
        flipped: patient axes against which the stored ones run.
        grid: of the same voxels at the same places in the new order.
    """

    stored: tuple[int, int, int]
    flipped: tuple[int, ...]
    grid: Grid

    @classmethod
    def of(cls, grid: Grid) -> PatientOrder:
        """The order of a grid of any orientation."""
        directions = grid.affine[:3, :3] / grid.spacing
        x, y, z = (int(axis) for axis in linear_sum_assignment(-np.abs(directions))[1])
        stored = (x, y, z)
        flipped = tuple(axis for axis in range(3) if directions[axis, stored[axis]] < 0)

        from_new = np.zeros((4, 4))  # voxel indices of the new order to those of the stored one
        from_new[3, 3] = 1.0
        for axis in range(3):
            from_new[stored[axis], axis] = -1.0 if axis in flipped else 1.0
            from_new[stored[axis], 3] = grid.shape[stored[axis]] - 1 if axis in flipped else 0.0
        shape = (grid.shape[x], grid.shape[y], grid.shape[z])
        return cls(stored, flipped, Grid(shape, grid.affine @ from_new))

    def apply(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """The values (X, Y, Z) of the stored grid in the new order; a view."""
        return np.flip(values.transpose(self.stored), self.flipped)


def in_patient_order(picture: ExamPicture) -> ExamPicture:
    """The same voxels at the same places, axes transposed and flipped to run right, anterior, superior at best."""
    x, y, z = picture.image.shape
    order = PatientOrder.of(Grid((x, y, z), picture.affine))
    return replace(
        picture,
        image=order.apply(picture.image),
        saliency=None if picture.saliency is None else order.apply(picture.saliency),
        against=None if picture.against is None else order.apply(picture.against),
        affine=order.grid.affine,
    )


def greatest(values: NDArray[np.float32] | None) -> float:
    """The greatest value of a map; 0 without one, and where nothing is above 0."""
    return 0.0 if values is None else max(float(np.nan_to_num(values).max()), 0.0)


def decisive(picture: ExamPicture) -> NDArray[np.float32] | None:
    """The map (X, Y, Z) that says where to cut: evidence for a higher risk, or change of either sign."""
    if picture.kind == "evidence" or picture.saliency is None or picture.against is None:
        return picture.saliency
    return np.fmax(picture.saliency, picture.against)


def cut_voxel(picture: ExamPicture) -> tuple[int, int, int]:
    """The voxel through which all slices go: the map's peak, or the field's centre where there is no evidence.

    A field whose centre is outside the image is cut at the image's nearest voxel.
    """
    values = decisive(picture)
    if values is not None and greatest(values) > 0:
        return peak_voxel(values, picture.affine)
    centre = np.rint(to_voxels(picture.affine, picture.field_corners.mean(axis=0)[None])[0])
    i, j, k = np.clip(centre, 0, np.array(picture.image.shape) - 1).astype(int)
    return int(i), int(j), int(k)


def to_voxels(affine: Affine, points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Voxel indices (N, 3), real-valued, of points (N, 3) in patient space."""
    return (points - affine[:3, 3]) @ np.linalg.inv(affine[:3, :3]).T


def to_patient(affine: Affine, voxel: tuple[int, int, int]) -> NDArray[np.float64]:
    """Centre (3,) of a voxel in patient space, mm."""
    return affine[:3, :3] @ np.array(voxel, dtype=np.float64) + affine[:3, 3]


def place(axis: int, mm: float) -> str:
    """A coordinate as radiologists write it, e.g. ``L 34.1 mm``."""
    mm = round(float(mm), 1)
    return f"{LETTERS[axis][0 if mm >= 0 else 1]} {abs(mm):.1f} mm"


def place_words(point: Sequence[float] | NDArray[np.float64]) -> str:
    """A point (3,) in patient space as radiologists write it, e.g. ``L 34.1 mm, A 2.0 mm, S 5.5 mm``."""
    return ", ".join(place(axis, point[axis]) for axis in range(3))


def section(corners: NDArray[np.float64], normal: int, index: float) -> NDArray[np.float64]:
    """Polygon (N, 3), in order around it, in which a box is cut by the plane where axis ``normal`` equals ``index``.

    ``corners`` (8, 3) are ordered as ``itertools.product((0, 1), repeat=3)``; any parallelepiped will do. (0, 3) where
    the plane misses the box.
    """
    height = corners[:, normal] - index
    points = [corners[c] for c in range(8) if abs(height[c]) <= _OUTSIDE]
    for first in range(8):
        for second in (first | bit for bit in (1, 2, 4) if not first & bit):
            low, high = height[first], height[second]
            if min(low, high) < -_OUTSIDE and max(low, high) > _OUTSIDE:
                points.append(corners[first] + low / (low - high) * (corners[second] - corners[first]))
    if len(points) < 3:
        return np.zeros((0, 3))
    polygon = np.array(points)
    across, along = (axis for axis in range(3) if axis != normal)
    spokes = polygon - polygon.mean(axis=0)
    return polygon[np.argsort(np.arctan2(spokes[:, along], spokes[:, across]))]


def tilt(affine: Affine, plane: Plane) -> float:
    """Degrees between a voxel plane's normal and the patient axis that it is named after."""
    normal = np.cross(affine[:3, plane.leftward], affine[:3, plane.upward])
    return float(np.degrees(np.arccos(np.clip(abs(normal[plane.normal]) / np.linalg.norm(normal), 0, 1))))


def draw_slices(picture: ExamPicture, date: str, previous: str = "") -> str:
    """HTML of the three slices of an exam, all on one scale of millimetres.

    ``date`` is the exam's, ``previous`` that of the exam with which a picture of change compares it.
    """
    ordered = in_patient_order(picture)
    frames = {plane: _Frame(ordered, plane) for plane in PLANES}
    # Thin stacks of slices: the two low pictures fit beside the axial one, and all three grow.
    low = 2 * frames[CORONAL].height <= frames[AXIAL].height
    columns = ((AXIAL,), (CORONAL, SAGITTAL)) if low else ((AXIAL,), (CORONAL,), (SAGITTAL,))
    widths = [max(frames[plane].width for plane in column) for column in columns]
    pixel = sum(widths) / (_PAGE - 2 * _MARGIN * len(columns))
    look = _Look(
        voxel=cut_voxel(ordered),
        window=colours.window(ordered.image),
        pixel=pixel,
        bar=next((mm for mm in _SCALE_BARS_MM if mm <= min(f.width for f in frames.values()) / 4), _SCALE_BARS_MM[-1]),
        date=date,
        previous=previous,
    )
    margins = 2 * look.margin
    drawn = "".join(
        "<div>"
        + "".join(
            f'<figure style="width:{100 * (frames[plane].width + margins) / (width + margins):.2f}%">'
            f"{_figure(ordered, plane, look)}</figure>"
            for plane in column
        )
        + "</div>"
        for column, width in zip(columns, widths, strict=True)
    )
    tracks = " ".join(f"{width + margins:.2f}fr" for width in widths)
    return f'<div class="slices" style="grid-template-columns:{tracks}">{drawn}</div>'


@dataclass(frozen=True)
class _Look:
    """What the pictures of an exam share: where to cut, gray window, mm of a page's pixel, scale bar in mm, dates."""

    voxel: tuple[int, int, int]
    window: tuple[float, float]
    pixel: float
    bar: int
    date: str
    previous: str

    @property
    def margin(self) -> float:
        """Room around an image for letters and the scale bar, mm."""
        return _MARGIN * self.pixel


class _Frame:
    """A slice's extent in mm, and where voxel indices fall in it: both picture axes run against the patient's."""

    def __init__(self, picture: ExamPicture, plane: Plane) -> None:
        self._axes = (plane.leftward, plane.upward)
        self._count = tuple(picture.image.shape[axis] for axis in self._axes)
        self._step = tuple(picture.spacing[axis] for axis in self._axes)
        self.width, self.height = (n * mm for n, mm in zip(self._count, self._step, strict=True))

    def xy(self, voxels: NDArray[np.float64]) -> NDArray[np.float64]:
        """Places (N, 2) in the picture, mm from its left and top edge, of voxel indices (N, 3)."""
        return (np.array(self._count) - 0.5 - voxels[:, list(self._axes)]) * self._step


def _figure(picture: ExamPicture, plane: Plane, look: _Look) -> str:
    """One slice and its caption."""
    frame, margin, index = _Frame(picture, plane), look.margin, look.voxel[plane.normal]
    position = place(plane.normal, to_patient(picture.affine, look.voxel)[plane.normal])
    outline = frame.xy(section(to_voxels(picture.affine, picture.field_corners), plane.normal, index))
    label = html.escape(
        f"Exam {picture.exam_id} of {look.date}, {picture.channel}, {plane.name} slice at {position}"
        f"{_on_top(picture, look)}"
    )
    left, right = -margin, frame.width + 2 * margin
    outer = f"{left:.2f} {left:.2f} {right:.2f} {frame.height + 2 * margin:.2f}"
    inner = f'width="{frame.width:.3f}" height="{frame.height:.3f}"'
    return (
        f'<svg class="slice {plane.name}" role="img" aria-label="{label}" viewBox="{outer}">'
        f'<rect class="backdrop" x="{left:.2f}" y="{left:.2f}" width="100%" height="100%"/>'
        f'<svg {inner} viewBox="0 0 {frame.width:.3f} {frame.height:.3f}">'
        f"{_images(picture, plane, look, inner)}{_polygon(outline)}{_cross(frame, look)}</svg>"
        f"{_letters(plane, frame, look)}{_scale_bar(frame, look)}</svg>"
        f"<figcaption>{_caption(picture, plane, position, outline, frame)}</figcaption>"
    )


def _on_top(picture: ExamPicture, look: _Look) -> str:
    """What colours are on top of the image, for those who can't see them."""
    if picture.kind == "change":
        return f", with what raised and what lowered the output compared with the exam of {look.previous} on top"
    if picture.saliency is None:
        return ""
    if picture.against is None:
        return ", with the map of evidence on top"
    return ", with the map of evidence for a higher risk on top; that for a lower risk can be switched on"


def _images(picture: ExamPicture, plane: Plane, look: _Look, size: str) -> str:
    """The slice in gray and, where there are maps, their colours."""
    base = png.data_uri(colours.gray(pixels(picture.image, plane, look.voxel), *look.window))
    drawn = f'<image class="base" {size} preserveAspectRatio="none" href="{base}"/>'
    layers = (("overlay", picture.saliency, colours.HIGHER), ("against", picture.against, colours.LOWER))
    for name, values, scale in layers:
        if values is not None:
            colour = png.data_uri(colours.overlay(pixels(values, plane, look.voxel), scale))
            drawn += f'<image class="{name}" {size} preserveAspectRatio="none" href="{colour}"/>'
    return drawn


def pixels(volume: NDArray[np.float32], plane: Plane, voxel: tuple[int, int, int]) -> NDArray[np.float32]:
    """Rows from the top (H, W) of a volume in patient order, cut at ``voxel``."""
    cut = np.take(volume, voxel[plane.normal], axis=plane.normal)  # the axes left are leftward, upward, in that order
    return np.ascontiguousarray(cut[::-1, ::-1].T)


def _polygon(outline: NDArray[np.float64]) -> str:
    """The field's outline; a dark line under the light one keeps it visible on any tissue."""
    if not len(outline):
        return ""
    points = " ".join(f"{x:.2f},{y:.2f}" for x, y in outline)
    return f'<g class="field"><polygon class="under" points="{points}"/><polygon points="{points}"/></g>'


def _cross(frame: _Frame, look: _Look) -> str:
    """Four ticks that point at the voxel of the cut and leave it free."""
    x, y = frame.xy(np.array([look.voxel], dtype=np.float64))[0]
    near, far = 14 * look.pixel, 21 * look.pixel
    arms = "".join(
        f"M{x + near * a:.2f} {y + near * b:.2f}L{x + far * a:.2f} {y + far * b:.2f}"
        for a, b in ((1, 0), (-1, 0), (0, 1), (0, -1))
    )
    return f'<g class="cross"><path class="under" d="{arms}"/><path d="{arms}"/></g>'


def _letters(plane: Plane, frame: _Frame, look: _Look) -> str:
    """Orientation letters in the middle of the four sides, outside the image."""
    across, down, off = frame.width / 2, frame.height / 2, look.margin / 2
    places = ((-off, down), (frame.width + off, down), (across, -off), (across, frame.height + off))
    return "".join(
        f'<text class="letter" x="{x:.2f}" y="{y:.2f}" font-size="{14 * look.pixel:.2f}">{letter}</text>'
        for letter, (x, y) in zip(plane.letters, places, strict=True)
    )


def _scale_bar(frame: _Frame, look: _Look) -> str:
    """A bar with its length in mm, below the image's left corner."""
    bar, y, end = look.bar, frame.height + look.margin / 2, 3 * look.pixel
    return (
        f'<path class="bar" d="M0 {y - end:.2f}V{y + end:.2f}M0 {y:.2f}H{bar}M{bar} {y - end:.2f}V{y + end:.2f}"/>'
        f'<text class="bar" x="{bar + 5 * look.pixel:.2f}" y="{y:.2f}" '
        f'font-size="{11 * look.pixel:.2f}">{bar} mm</text>'
    )


def _caption(picture: ExamPicture, plane: Plane, position: str, outline: NDArray[np.float64], frame: _Frame) -> str:
    """Plane, position, tilt, and what can't be seen of the field."""
    text = f"<b>{plane.name.capitalize()}</b>, {position}"
    angle = tilt(picture.affine, plane)
    if angle >= 1:
        text += f", tilted by {angle:.0f}°"
    if not len(outline):
        text += "; outside the field read"
    elif _covers(outline, frame):
        text += "; all of it in the field read"
    return text


def _covers(outline: NDArray[np.float64], frame: _Frame) -> bool:
    """Whether the outline lies wholly around the image, so that no line of it is seen."""
    rim = np.array([(0, 0), (frame.width, 0), (frame.width, frame.height), (0, frame.height)])
    edges = np.roll(outline, -1, axis=0) - outline
    to_rim = rim[None] - outline[:, None]
    side = edges[:, None, 0] * to_rim[..., 1] - edges[:, None, 1] * to_rim[..., 0]
    return bool((side >= 0).all() or (side <= 0).all())
