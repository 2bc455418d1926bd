"""All images of a patient at a glance: a row per exam, a column per channel, in each cell an axial and a coronal slice.

The images of an exam are cut at one point of the patient and drawn around it on one scale, so that a row shows one
anatomy side by side whatever grids its channels have. As in the report, slices are the volume's own voxel planes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from HCCNetLib.inference import NOTICE
from HCCNetLib.preprocessing.field import locate_liver
from HCCNetLib.records import Exam, FoundImage, Grid, Image, Patient, Refusal, months_between
from HCCNetLib.reporting import colours, lettering
from HCCNetLib.reporting.inspection import details_text, found_channels, in_order, name_apart
from HCCNetLib.reporting.slices import AXIAL, CORONAL, PatientOrder, Plane, to_voxels

Pixels = NDArray[np.uint8]

_WIDEST, _TALLEST = 288, 520  # pixels of a cell's pictures: an axial slice and, below it, a coronal one
_GAP, _SIZE = 12, 2  # pixels between things, and of a letter's dot
_LINE = (lettering.HEIGHT + 2) * _SIZE
_LABEL_LINES = 3  # a date, and how long before the latest exam
_LABELS = lettering.width_of("before latest", _SIZE) + _GAP
_PAGE, _INK, _FAINT = 40, 235, 150  # gray levels of the page, of words and of words beside others
_NOTHING_MM = np.full(3, 150.0)  # the room of a row without any image
_ELSEWHERE = "cut at its own centre"


@dataclass(frozen=True)
class _Cut:
    """Where an image is cut.

    Args:
        order: of the image's axes.
        point: (3,) the voxel, real-valued and in that order, through which both slices go.
        is_shared: whether that is the exam's point; it is the image's own centre where the exam's lies outside.
    """

    order: PatientOrder
    point: NDArray[np.float64]
    is_shared: bool

    @property
    def ahead(self) -> NDArray[np.float64]:
        """How far the image reaches from the point to the right, anterior, superior, mm."""
        return (np.array(self.order.grid.shape) - 0.5 - self.point) * self.order.grid.spacing

    @property
    def behind(self) -> NDArray[np.float64]:
        """How far it reaches to the left, posterior, inferior, mm."""
        return (self.point + 0.5) * self.order.grid.spacing


@dataclass(frozen=True)
class _Frame:
    """What every cell of a row shows.

    Args:
        ahead: mm from the point of the cut to the right, anterior, superior.
        behind: mm from it to the left, posterior, inferior.
        scale: pixels per mm, the same for all rows.
        column: pixels across that a cell has on the sheet.
    """

    ahead: NDArray[np.float64]
    behind: NDArray[np.float64]
    scale: float = 1.0
    column: int = _WIDEST

    @classmethod
    def around(cls, cuts: Sequence[_Cut]) -> _Frame:
        """Room for all images of a row; where there is none, for a word."""
        if not cuts:
            return cls(_NOTHING_MM / 2, _NOTHING_MM / 2)
        return cls(np.max([cut.ahead for cut in cuts], axis=0), np.max([cut.behind for cut in cuts], axis=0))

    @property
    def fitting_scale(self) -> float:
        """Pixels per mm at which the row's cells are as large as they may be."""
        across, *down = self.ahead + self.behind
        return float(min(_WIDEST / across, _TALLEST / sum(down)))

    def size(self, axis: int) -> int:
        """Pixels along a patient axis."""
        return max(round(float(self.ahead[axis] + self.behind[axis]) * self.scale), 1)

    def along(self, axis: int) -> NDArray[np.float64]:
        """Of each pixel from the axis's positive end on: how far it lies ahead of the point, mm."""
        return self.ahead[axis] - (np.arange(self.size(axis)) + 0.5) / self.scale

    @property
    def cell(self) -> tuple[int, int]:
        """Height and width of a cell's pictures, pixels."""
        return self.size(AXIAL.upward) + _GAP // 2 + self.size(CORONAL.upward), self.size(AXIAL.leftward)


def draw_contact_sheet(patient: Patient) -> Pixels:
    """Gray pixels (H, W) of a patient's contact sheet: the earliest exam on top, channels in the order of the contract.

    One image is in memory at a time. A channel that an exam lacks and an image that can't be read have a cell that
    says so.
    """
    channels = in_order(list({channel for exam in patient.exams for channel in exam.images}))
    cuts = [_cuts(exam) for exam in patient.exams]
    frames = _frames([list(of_exam.values()) for of_exam in cuts])
    rows = [
        _row(exam, patient, _cells(exam, channels, of_exam, frame))
        for exam, of_exam, frame in zip(patient.exams, cuts, frames, strict=True)
    ]
    head = _beside([_blank(_LINE, _LABELS), *(_words([channel], frames[0].column) for channel in channels)])
    width = max(head.shape[1], lettering.width_of(NOTICE, _SIZE))
    parts = [_words([patient.patient_id], width), head, *rows, _words([NOTICE], width)]
    wide = [np.pad(part, ((0, _GAP), (_GAP, _GAP + width - part.shape[1])), constant_values=_PAGE) for part in parts]
    return np.vstack([_blank(_GAP, width + 2 * _GAP), *wide])


# ---------------------------------------------------------------- where to cut


def _cuts(exam: Exam) -> dict[str, _Cut]:
    """Channel → where it is cut; channels whose header can't be used are left out."""
    orders: dict[str, PatientOrder] = {}
    for channel in in_order(list(exam.images)):
        try:
            orders[channel] = PatientOrder.of(exam.images[channel].grid)
        except Refusal:
            continue
    shared = _liver_centre(exam)
    if shared is None and orders:
        first = next(iter(orders.values())).grid
        shared = first.affine[:3] @ np.append(_middle(first), 1.0)
    return {} if shared is None else {channel: _cut(order, shared) for channel, order in orders.items()}


def _liver_centre(exam: Exam) -> NDArray[np.float64] | None:
    try:
        liver = locate_liver(exam.liver_mask, exam.liver_box)
    except Refusal:
        return None
    return None if liver is None else liver.centre


def _cut(order: PatientOrder, shared: NDArray[np.float64]) -> _Cut:
    point = to_voxels(order.grid.affine, shared[None])[0]
    inside = bool(((point >= -0.5) & (point <= np.array(order.grid.shape) - 0.5)).all())
    return _Cut(order, point if inside else _middle(order.grid), inside)


def _middle(grid: Grid) -> NDArray[np.float64]:
    return (np.array(grid.shape) - 1) / 2


# ---------------------------------------------------------------- drawing


def _frames(cuts: Sequence[Sequence[_Cut]]) -> list[_Frame]:
    """The frame of each row, all on one scale and in columns of one width."""
    frames = [_Frame.around(of_exam) for of_exam in cuts]
    scale = min(frame.fitting_scale for frame in frames)
    scaled = [replace(frame, scale=scale) for frame in frames]
    column = max(frame.cell[1] for frame in scaled)
    return [replace(frame, column=column) for frame in scaled]


def _row(exam: Exam, patient: Patient, cells: Iterable[Pixels]) -> Pixels:
    """An exam's date, and a cell per channel."""
    before = months_between(exam.date, patient.landmark.date)
    when = ["latest exam"] if exam is patient.landmark else [f"{before:.1f} months", "before latest"]
    row = _beside([_words([exam.date.isoformat(), *when], _LABELS, _LABEL_LINES * _LINE), *cells])
    return np.vstack([_blank(_GAP, row.shape[1]), row])


def _cells(exam: Exam, channels: Sequence[str], cuts: Mapping[str, _Cut], frame: _Frame) -> Iterator[Pixels]:
    found = found_channels(exam)
    for channel in channels:
        image = exam.images.get(channel)
        pictures = _said("missing", frame) if image is None else _pictures(image, cuts.get(channel), frame)
        caption = _caption(found.get(channel), cuts.get(channel))
        right = frame.column - pictures.shape[1]
        filled = np.pad(pictures, ((0, 0), (0, right)), constant_values=_PAGE)
        yield np.vstack([_words(caption, frame.column, 2 * _LINE, _FAINT), filled])


def _caption(found: FoundImage | None, cut: _Cut | None) -> list[str]:
    """What a channel was found as, and what sets it apart."""
    if found is None:
        return []
    details = details_text(found.details)
    name = name_apart(found.name, details)
    apart = "" if details in name else details
    return [name, apart] if cut is None or cut.is_shared else [found.name, _ELSEWHERE]


def _pictures(image: Image, cut: _Cut | None, frame: _Frame) -> Pixels:
    """The axial slice and, below it, the coronal one."""
    try:
        values = None if cut is None else cut.order.apply(image.read())
    except Refusal:
        values = None
    if cut is None or values is None:
        return _said("can't be read", frame)
    window = colours.window(values)
    axial, coronal = (_picture(values, plane, cut, frame, window) for plane in (AXIAL, CORONAL))
    return np.vstack([axial, _blank(_GAP // 2, frame.cell[1]), coronal])


def _picture(
    values: NDArray[np.float32], plane: Plane, cut: _Cut, frame: _Frame, window: tuple[float, float]
) -> Pixels:
    """One slice, interpolated between its voxels, with its orientation letters; beyond the image lies the page."""
    index = np.clip(np.rint(cut.point[plane.normal]), 0, values.shape[plane.normal] - 1)
    drawn = np.take(values, int(index), axis=plane.normal)  # the axes left are leftward, upward, in that order
    across, down = (
        cut.point[axis] + frame.along(axis) / cut.order.grid.spacing[axis] for axis in (plane.leftward, plane.upward)
    )
    places = np.stack(np.meshgrid(across, down))
    smooth = ndimage.map_coordinates(drawn, places, order=1, mode="nearest")
    last = np.array(drawn.shape)[:, None, None] - 0.5
    inside = ((places >= -0.5) & (places <= last)).all(axis=0)
    picture = np.where(inside, colours.gray(smooth, *window), np.uint8(_PAGE))
    _letter_edges(picture, plane)
    return picture


def _letter_edges(picture: Pixels, plane: Plane) -> None:
    """Writes what lies at the left, right, top and bottom into the middle of the picture's edges."""
    height, width = picture.shape
    tall, wide = 7 * _SIZE, lettering.WIDTH * _SIZE  # capitals do not reach below the line
    left, right, top, bottom = plane.letters
    middle, centre, edge = (height - tall) // 2, (width - wide) // 2, 2 * _SIZE
    for letter, (row, column) in (
        (left, (middle, edge)),
        (right, (middle, width - wide - edge)),
        (top, (edge, centre)),
        (bottom, (height - tall - edge, centre)),
    ):
        _write(picture, letter, row, column)


def _write(picture: Pixels, text: str, row: int, column: int, level: int = _INK) -> None:
    """Writes a line with a dark rim, which any tissue leaves legible; what does not fit is cut off."""
    ink = np.pad(lettering.line(text, _SIZE), _SIZE)
    rim = ndimage.binary_dilation(ink, iterations=_SIZE)
    top, left = max(row - _SIZE, 0), max(column - _SIZE, 0)
    place = picture[top : top + ink.shape[0], left : left + ink.shape[1]]
    height, width = place.shape
    place[rim[:height, :width]] = 0
    place[ink[:height, :width]] = level


def _said(text: str, frame: _Frame) -> Pixels:
    """A cell with a word in place of pictures."""
    cell = np.pad(_blank(*(max(side - 2, 1) for side in frame.cell)), 1, constant_values=_FAINT)
    height, width = frame.cell
    words = lettering.shortened(text, width, _SIZE)
    _write(cell, words, (height - _LINE) // 2, (width - lettering.width_of(words, _SIZE)) // 2, _FAINT)
    return cell


def _words(lines: Sequence[str], width: int, height: int = _LINE, level: int = _INK) -> Pixels:
    """Lines of text on the page, each cut to the width."""
    page = _blank(height, width)
    for number, text in enumerate(lines):
        ink = lettering.line(lettering.shortened(text, width, _SIZE), _SIZE)
        place = page[number * _LINE : number * _LINE + ink.shape[0], : ink.shape[1]]
        place[ink[: place.shape[0]]] = level
    return page


def _beside(parts: Sequence[Pixels]) -> Pixels:
    """Pictures side by side, a gap between, filled up with page to the height of the tallest."""
    tallest = max(part.shape[0] for part in parts)
    filled = [np.pad(part, ((0, tallest - part.shape[0]), (0, _GAP)), constant_values=_PAGE) for part in parts]
    return np.hstack(filled)[:, :-_GAP]


def _blank(height: int, width: int) -> Pixels:
    return np.full((height, width), _PAGE, dtype=np.uint8)
