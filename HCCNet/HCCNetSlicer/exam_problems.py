"""What is wrong with a table of exams, in words that say what, where and what to do."""

from __future__ import annotations

import datetime
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from HCCNetLib.readers.assignment import SeriesProblem
from HCCNetLib.readers.exams import describe_grid, look_at_date
from HCCNetLib.readers.nifti import check_affine
from HCCNetLib.records import Grid, Refusal
from HCCNetSlicer.hierarchy import Hierarchy, date_in_names
from HCCNetSlicer.liver import looks_unlike_liver
from HCCNetSlicer.volumes import grid_of, has_voxels


@dataclass(frozen=True)
class Cell:
    """The volume of one channel of one exam.

    Args:
        node: the volume, or None.
        how: what it was recognised by: ``name``, ``b-value``, ``description``; ``chosen`` by the user; empty without volume.
    """

    node: Any = None
    how: str = ""


@dataclass(frozen=True)
class Row:
    """One exam.

    Args:
        key: names the row as long as the table lives, and in a saved scene.
        date: day of the exam, or None where nobody knows it yet.
        cells: channel → cell, every channel of the table.
        included: whether the exam takes part in the prediction.
        liver: a segmentation, label map or ROI of the liver, or None.
        date_found: by what the date is known: ``study``, ``name`` (or folder), ``corrected``; empty where it is not.
        notes: what was noticed when channels were assigned.
        gone: channels whose chosen volume is no longer in the scene; another is never taken in its stead.
        liver_gone: the same of the liver.
    """

    key: str
    date: datetime.date | None
    cells: Mapping[str, Cell]
    included: bool = True
    liver: Any = None
    date_found: str = ""
    notes: tuple[SeriesProblem, ...] = ()
    gone: tuple[str, ...] = ()
    liver_gone: bool = False

    @property
    def name(self) -> str:
        """What messages call the exam."""
        return f"exam {self.date.isoformat()}" if self.date else "the exam without a date"


@dataclass(frozen=True)
class TableProblem:
    """Something wrong with the table.

    Args:
        code: machine-readable.
        message: what is wrong, where, what to do; names no patient.
        row: key of the row, or None.
        channel: or None.
        blocks: whether a prediction must wait for it.
    """

    code: str
    message: str
    row: str | None = None
    channel: str | None = None
    blocks: bool = True


@dataclass(frozen=True)
class ProblemFinder:
    """Finds what is wrong.

    Args:
        hierarchy: of the scene.
        missing_channels: whether the bundle was trained with channels missing.
        one_space: whether the user says that different grids share one patient space.
    """

    hierarchy: Hierarchy
    missing_channels: bool
    one_space: bool

    def find(self, rows: Sequence[Row]) -> list[TableProblem]:
        """Of the rows that take part: row by row, then of the whole."""
        rows = [row for row in rows if row.included]
        if not rows:
            message = "There is no exam. Fill the table from the scene or add a folder, and include at least one exam."
            return [TableProblem("no_exams", message)]
        found = [problem for row in rows for problem in self._of_row(row)]
        return [*found, *_same_day(rows), *_same_volume(rows), *self._patients_mixed(rows)]

    def _of_row(self, row: Row) -> Iterator[TableProblem]:
        yield from _date(row)
        yield from _gone(row)
        yield from self._missing(row)
        for note in row.notes:
            message = f"{note.channel} of {row.name}: {note.says}"
            yield TableProblem(note.code, message, row.key, note.channel, blocks=False)
        pictures = {}
        for channel, cell in row.cells.items():
            if cell.node is None:
                continue
            problem = self._volume(row, channel, cell.node)
            if problem is None:
                pictures[channel] = cell.node
            else:
                yield problem
        yield from self._days_differ(row, pictures)
        yield from self._frames_differ(row, pictures)
        yield from self._grids_differ(row, pictures)
        yield from self._liver(row, pictures)

    def _missing(self, row: Row) -> Iterator[TableProblem]:
        missing = [channel for channel, cell in row.cells.items() if cell.node is None and channel not in row.gone]
        if not missing:
            return
        names = ", ".join(missing)
        if self.missing_channels and len(missing) < len(row.cells):
            message = f"{row.name} lacks {names}; the networks were trained for that and read zeros instead."
            yield TableProblem("missing_channel", _sentence(message), row.key, missing[0], blocks=False)
        else:
            message = f"{row.name} lacks {names}. Choose the volume{'s' * (len(missing) > 1)}, or leave the exam out."
            yield TableProblem("missing_channel", _sentence(message), row.key, missing[0])

    def _volume(self, row: Row, channel: str, node: Any) -> TableProblem | None:
        modality = self.hierarchy.series_attribute(node, "Modality")
        if modality not in ("", "MR"):
            message = f"{channel} of {row.name} is not MR but {modality}. Choose the MR series."
            return TableProblem("not_mr", message, row.key, channel)
        if not has_voxels(node) or min(node.GetImageData().GetDimensions()) < 2:
            message = f"{channel} of {row.name} is not a 3D volume. Load the whole series, not one slice of it."
            return TableProblem("not_3d", message, row.key, channel)
        try:
            check_affine(grid_of(node).affine, f"{channel} of {row.name}")
        except Refusal as refusal:
            return TableProblem(refusal.code, refusal.message, row.key, channel)
        return None

    def _days_differ(self, row: Row, pictures: Mapping[str, Any]) -> Iterator[TableProblem]:
        """A date that the user corrected differs from the volumes' on purpose; two volumes' days never do."""
        dates = {channel: self.hierarchy.study_date(node) or date_in_names(node) for channel, node in pictures.items()}
        if len({date for date in dates.values() if date}) < 2:
            return
        told = ", ".join(f"{channel} {date.isoformat()}" for channel, date in dates.items() if date)
        message = f"{row.name} holds volumes of different days ({told}). Choose the volumes of one visit."
        yield TableProblem("days_differ", _sentence(message), row.key)

    def _liver(self, row: Row, pictures: Mapping[str, Any]) -> Iterator[TableProblem]:
        if row.liver is None:
            return
        owner = self.hierarchy.patient_of(row.liver)
        owners = {self.hierarchy.patient_of(node) for node in pictures.values()} - {None}
        if owner is not None and owners and owner not in owners:
            message = f"{row.name}: what was chosen as its liver belongs to another patient. Choose again, or none."
            yield TableProblem("liver_of_another", _sentence(message), row.key)
        if looks_unlike_liver(row.liver):
            message = f"{row.name}: the segment that is taken as the liver is not named liver. Look whether it is."
            yield TableProblem("liver_unnamed", _sentence(message), row.key, blocks=False)

    def _frames_differ(self, row: Row, pictures: Mapping[str, Any]) -> Iterator[TableProblem]:
        frames = {c: self.hierarchy.series_attribute(node, "FrameOfReferenceUID") for c, node in pictures.items()}
        first, *others = [channel for channel, frame in frames.items() if frame] or [""]
        differing = [channel for channel in others if frames[channel] != frames[first]]
        if not differing:
            return
        message = (
            f"{row.name}: {', '.join(differing)} and {first} differ in their frame of reference: the patient may have been moved "
            f"between them. Look whether they lie on each other; if they do, say that they share one patient space."
        )
        yield TableProblem("frames_differ", _sentence(message), row.key, differing[0], blocks=not self.one_space)

    def _grids_differ(self, row: Row, pictures: Mapping[str, Any]) -> Iterator[TableProblem]:
        grids = {channel: grid_of(node) for channel, node in pictures.items()}
        first, *others = list(grids) or [""]
        differing = [channel for channel in others if not grids[channel].matches(grids[first])]
        if not differing:
            return
        told = "; ".join(f"{channel}: {_describe(grids[channel])}" for channel in (first, *differing))
        message = (
            f"{row.name}: the channels do not lie on one grid ({told}). Check that they are one visit; if they share one patient "
            f"space, say so, and they are brought onto the first channel's grid."
        )
        yield TableProblem("grids_differ", _sentence(message), row.key, differing[0], blocks=not self.one_space)

    def _patients_mixed(self, rows: Sequence[Row]) -> Iterator[TableProblem]:
        """No patient is named, since messages go into logs."""
        owners = [
            (row, channel, self.hierarchy.patient_of(cell.node))
            for row in rows
            for channel, cell in row.cells.items()
            if cell.node is not None
        ]
        known = [owner for *_, owner in owners if owner is not None]
        for row, channel, owner in owners:
            if owner not in (None, *known[:1]):
                message = (
                    f"{channel} of {row.name} belongs to another patient than the first exam. Exams of different patients can't be "
                    f"mixed: choose again, or leave the exam out."
                )
                yield TableProblem("patients_mixed", message, row.key, channel)
        unknown = [f"{channel} of {row.name}" for row, channel, owner in owners if owner is None]
        if known and unknown:
            message = f"Nothing says whose {', '.join(unknown)} is. Check that it is this patient's."
            yield TableProblem("patient_unknown", message, blocks=False)


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:]


def _date(row: Row) -> Iterator[TableProblem]:
    if row.date is None:
        there = ", ".join(channel for channel, cell in row.cells.items() if cell.node is not None)
        message = (
            f"The exam with {there or 'no volume'} has no date. Give the day of the visit: time decides the prediction."
        )
        yield TableProblem("missing_date", message, row.key)
        return
    if row.date_found == "name":
        message = f"{row.name}: its date was found in the name of a volume or folder. Look whether it is the day of the visit."
        yield TableProblem("date_from_name", _sentence(message), row.key, blocks=False)
    try:
        for problem in look_at_date(row.date):
            yield TableProblem(problem.code, problem.message, row.key, blocks=False)
    except Refusal as refusal:
        yield TableProblem(refusal.code, refusal.message, row.key)


def _gone(row: Row) -> Iterator[TableProblem]:
    for channel in row.gone:
        message = f"{row.name}: the volume chosen for {channel} is no longer in the scene. Choose another."
        yield TableProblem("volume_removed", _sentence(message), row.key, channel)
    if row.liver_gone:
        message = f"{row.name}: what was chosen as its liver is no longer in the scene. Choose again, or none."
        yield TableProblem("liver_removed", _sentence(message), row.key)


def _same_day(rows: Sequence[Row]) -> Iterator[TableProblem]:
    for before, row in itertools.pairwise(rows):
        if row.date is not None and before.date == row.date:
            message = (
                f"Two exams are of {row.date.isoformat()}. If they are one visit, put their volumes into one row and leave the "
                f"other out; else correct a date."
            )
            yield TableProblem("two_exams_one_day", message, row.key)


def _same_volume(rows: Sequence[Row]) -> Iterator[TableProblem]:
    places: dict[str, list[tuple[Row, str]]] = {}
    for row in rows:
        for channel, cell in row.cells.items():
            if cell.node is not None:
                places.setdefault(cell.node.GetID(), []).append((row, channel))
    for found in places.values():
        if len(found) > 1:
            told = " and ".join(f"{channel} of {row.name}" for row, channel in found)
            row, channel = found[-1]
            yield TableProblem("same_volume", f"{told} are the same volume. Choose the right ones.", row.key, channel)


def _describe(grid: Grid) -> str:
    try:
        return describe_grid(grid)
    except ImportError:  # the letters of the orientation need nibabel, which comes with the first prediction
        shape, spacing = "×".join(map(str, grid.shape)), "×".join(f"{s:.3g}" for s in grid.spacing)
        return f"{shape} voxels of {spacing} mm"
