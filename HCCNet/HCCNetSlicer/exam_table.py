"""Volumes of the scene → a patient's exams: rows of dates, columns of channels.

Rows come from the subject hierarchy (patient, study, series) or from loose volumes; channels by the library's own rules
(``HCCNetLib.readers``). What the user corrects is kept apart from what was found, so that it survives a refresh.
"""

from __future__ import annotations

import csv
import datetime
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import slicer

from HCCNetLib.readers.channels import CHANNELS
from HCCNetLib.readers.exams import in_exam
from HCCNetLib.readers.series import SeriesFacts, b_value_in_tags, channels_of_series
from HCCNetLib.records import Refusal
from HCCNetSlicer.exam_problems import Cell, ProblemFinder, Row, TableProblem
from HCCNetSlicer.hierarchy import Hierarchy, all_inputs, date_in_names, is_input, without_date
from HCCNetSlicer.liver import LIVER_CLASSES, write_liver
from HCCNetSlicer.volumes import write_volume

TABLE_FILE = "exams.csv"
PATIENT = "patient"  # whom the worker is told of: it need not know who it is


@dataclass(frozen=True)
class TableExam:
    """One exam as it goes into a prediction: volumes by channel, in the bundle's order."""

    exam_id: str
    date: datetime.date
    volumes: Mapping[str, Any]
    liver: Any = None


@dataclass
class Corrections:
    """What the user said, by the rows' keys; nodes by their IDs, None for an emptied cell."""

    dates: dict[str, datetime.date | None] = field(default_factory=dict)
    cells: dict[tuple[str, str], str | None] = field(default_factory=dict)
    included: dict[str, bool] = field(default_factory=dict)
    livers: dict[str, str | None] = field(default_factory=dict)
    removed: set[str] = field(default_factory=set)
    added: list[str] = field(default_factory=list)


@dataclass
class TableState:
    """All that a table is besides the scene: what it shows, where its rows come from, what the user corrected.

    Args:
        channels: that the bundle reads, in its order.
        missing_channels: whether the bundle was trained with channels missing.
        one_space: the user says that channels on different grids, or of different frames of reference, share one space.
        patient: key of the patient whose studies are rows, or None.
        loose: IDs of volumes that were added one by one.
        corrections: by the user.
    """

    channels: tuple[str, ...]
    missing_channels: bool = False
    one_space: bool = False
    patient: str | None = None
    loose: list[str] = field(default_factory=list)
    corrections: Corrections = field(default_factory=Corrections)


def tag_in_database(instance_uid: str, tag: str) -> str:
    """A tag of an instance from Slicer's DICOM database; empty where there is none."""
    database = getattr(slicer, "dicomDatabase", None)
    return str(database.instanceValue(instance_uid, tag)) if database is not None else ""


class ExamTable:
    """A patient's exams.

    Args:
        scene: that holds the volumes.
        channels: that the bundle reads, in its order.
        tag_of: (instance UID, tag ``gggg,eeee``) → value.
    """

    def __init__(
        self,
        scene: Any,
        channels: Sequence[str] = CHANNELS[:4],
        tag_of: Callable[[str, str], str] = tag_in_database,
    ) -> None:
        self.scene = scene
        self.state = TableState(tuple(channels))
        self.rows: tuple[Row, ...] = ()
        self._hierarchy = Hierarchy(scene)
        self._tag_of = tag_of
        self._b_values: dict[str, float | None] = {}

    @property
    def channels(self) -> tuple[str, ...]:
        """The columns."""
        return self.state.channels

    # ------------------------------------------------------------ where rows come from

    def fill_from_scene(self) -> None:
        """Takes the only patient of the subject hierarchy, or, where there is none, all loose volumes.

        Raises:
            Refusal: several patients, or no volume.
        """
        patients = self._hierarchy.patients()
        if len(patients) > 1:
            message = (
                f"The scene holds {len(patients)} patients. Choose one; exams of different patients can't be mixed."
            )
            raise Refusal("several_patients", message)
        if patients:
            self.fill_from_patient(patients[0])
            return
        volumes = all_inputs(self.scene)
        if not volumes:
            message = "The scene holds no volume. Load the patient's exams first, or add their folder."
            raise Refusal("no_volumes", message)
        self.clear()
        self.add_volumes(volumes)

    def fill_from_patient(self, item: int) -> None:
        """Makes a row of every study of a patient that holds a volume; corrections of another patient are dropped.

        Args:
            item: of the patient in the subject hierarchy.
        """
        key = self._hierarchy.key(item)
        if key != self.state.patient or self.state.loose:
            self.clear()
        self.state.patient = key
        self.state.corrections.removed.clear()
        self.refresh()

    def add_volumes(self, nodes: Iterable[Any]) -> None:
        """Adds volumes that the user dropped or picked; the date is that of their study, else the one in their name or folder."""
        self.state.loose += [node.GetID() for node in nodes if node.GetID() not in self.state.loose]
        self.refresh()

    def add_row(self, date: datetime.date | None = None) -> str:
        """Adds an empty exam, to be filled by hand; returns its key."""
        key = f"added-{uuid.uuid4()}"
        self.state.corrections.added.append(key)
        self.set_date(key, date)
        return key

    def remove_row(self, key: str) -> None:
        """Takes an exam out of the table until it is filled again; its volumes stay in the scene."""
        self.state.corrections.removed.add(key)
        self.refresh()

    def clear(self) -> None:
        """Forgets patient, rows and corrections; the columns stay."""
        self.state = TableState(self.state.channels, self.state.missing_channels)
        self.rows = ()
        self._b_values = {}

    # ------------------------------------------------------------ what the user corrects

    def set_channels(self, channels: Sequence[str], missing_channels: bool = False) -> None:
        """Another bundle, other columns; what the user chose for a channel is kept for when it returns."""
        self.state.channels, self.state.missing_channels = tuple(channels), missing_channels
        self.refresh()

    def set_one_space(self, one_space: bool) -> None:
        """The user says whether channels that lie on different grids share one patient space."""
        self.state.one_space = one_space

    def set_date(self, key: str, date: datetime.date | None) -> None:
        """Corrects the day of an exam."""
        self.state.corrections.dates[key] = date
        self.refresh()

    def set_cell(self, key: str, channel: str, node: Any) -> None:
        """Chooses the volume of a channel; None empties the cell.

        Raises:
            Refusal: the node is no greyscale volume, or shows a result.
        """
        if node is not None and not is_input(node):
            message = (
                f"{channel} must be a greyscale volume; a label map, colour or time series volume or a map of a result can't be "
                f"read."
            )
            raise Refusal("not_a_volume", message)
        self.state.corrections.cells[key, channel] = None if node is None else node.GetID()
        self.refresh()

    def set_included(self, key: str, included: bool) -> None:
        """Takes an exam into the prediction, or leaves it out."""
        self.state.corrections.included[key] = included
        self.refresh()

    def set_liver(self, key: str, node: Any) -> None:
        """Says where the liver is in an exam; None: nowhere said.

        Raises:
            Refusal: neither segmentation nor label map nor ROI.
        """
        if node is not None and node.GetClassName() not in LIVER_CLASSES:
            raise Refusal("bad_liver", "The liver must be given as a segmentation, a label map or an ROI.")
        self.state.corrections.livers[key] = None if node is None else node.GetID()
        self.refresh()

    # ------------------------------------------------------------ reading the scene

    def refresh(self) -> None:
        """Reads the scene again: new series appear, removed ones go, what the user corrected stays."""
        said = self.state.corrections
        found = [self._found(key, volumes) for key, volumes in self._sources().items()]
        added = [Row(key, None, dict.fromkeys(self.channels, Cell())) for key in said.added]
        rows = [self._corrected(row) for row in (*found, *added) if row.key not in said.removed]
        self.rows = tuple(sorted(rows, key=lambda row: (row.date is None, row.date or datetime.date.min, row.key)))

    def row(self, key: str) -> Row:
        """The row of a key; raises KeyError."""
        return {row.key: row for row in self.rows}[key]

    def _sources(self) -> dict[str, list[Any]]:
        """Row key → its volumes: the studies of the patient, then the loose volumes by study or date."""
        tree = self._hierarchy
        patient = next((item for item in tree.patients() if tree.key(item) == self.state.patient), None)
        nodes = [node for node in tree.volumes(patient) if tree.study_of(node)] if patient is not None else []
        loose = [
            node for node in map(self.scene.GetNodeByID, self.state.loose) if node is not None and node not in nodes
        ]
        sources: dict[str, list[Any]] = {}
        for node in (*nodes, *loose):
            study = tree.study_of(node)
            date = date_in_names(node)
            key = tree.key(study) if study else f"loose-{date.isoformat() if date else 'undated'}"
            sources.setdefault(key, []).append(node)
        return sources

    def _found(self, key: str, volumes: Sequence[Any]) -> Row:
        """A row as the scene tells it."""
        in_names = {date_in_names(node) for node in volumes} - {None}
        date = self._hierarchy.study_date(volumes[0]) or (in_names.pop() if len(in_names) == 1 else None)
        where = f"exam {date.isoformat()}" if date else "the exam without a date"
        cells = dict.fromkeys(self.channels, Cell())
        try:
            assigned = channels_of_series({node.GetID(): self._facts(node) for node in volumes}, where)
        except Refusal as refusal:
            return Row(key, date, cells, notes=((refusal.code, refusal.message),))
        for channel, (node_id, how) in assigned.channels.items():
            if channel in cells:
                cells[channel] = Cell(self.scene.GetNodeByID(node_id), how)
        return Row(key, date, cells, notes=tuple((p.code, p.message) for p in assigned.problems))

    def _facts(self, node: Any) -> SeriesFacts:
        description = self._hierarchy.series_attribute(node, "SeriesDescription")
        return SeriesFacts(without_date(node.GetName() or ""), description, self._b_value(node))

    def _b_value(self, node: Any) -> float | None:
        """The b-value of a volume, None where its slices have several: then it is no image of one channel."""
        key = node.GetID()
        if key not in self._b_values:
            instances = (node.GetAttribute("DICOM.instanceUIDs") or "").split()
            # A volume of several b-values has them one after the other or in turn; three slices tell.
            some = {instances[n] for n in (0, len(instances) // 2, -1)} if instances else set()
            values = {b_value_in_tags(partial(self._tag_of, uid)) for uid in some}
            self._b_values[key] = values.pop() if len(values) == 1 else None
        return self._b_values[key]

    def _corrected(self, row: Row) -> Row:
        said = self.state.corrections
        cells, chosen = dict(row.cells), {}
        for (key, channel), node_id in said.cells.items():
            if key == row.key and channel in cells:
                cells[channel] = Cell(self.scene.GetNodeByID(node_id), "chosen") if node_id else Cell()
                chosen[channel] = node_id
        liver = said.livers.get(row.key)
        return Row(
            key=row.key,
            date=said.dates.get(row.key, row.date),
            cells=cells,
            included=said.included.get(row.key, True),
            liver=self.scene.GetNodeByID(liver) if liver else None,
            notes=row.notes,
            gone=tuple(channel for channel, node_id in chosen.items() if node_id and cells[channel].node is None),
            liver_gone=bool(liver) and self.scene.GetNodeByID(liver) is None,
        )

    # ------------------------------------------------------------ what is wrong, and what goes out

    def problems(self) -> list[TableProblem]:
        """What is wrong, row by row and then of the whole; a prediction must wait for those that block."""
        return ProblemFinder(self._hierarchy, self.state.missing_channels, self.state.one_space).find(self.rows)

    def status(self, key: str) -> str:
        """Of a row: ``left out``, ``ready``, ``look`` (something to look at), or ``blocked``."""
        if not self.row(key).included:
            return "left out"
        mine = [problem for problem in self.problems() if problem.row == key]
        return "blocked" if any(p.blocks for p in mine) else "look" if mine else "ready"

    def exams(self) -> tuple[TableExam, ...]:
        """The exams that take part, oldest first.

        Raises:
            Refusal: something blocks; every reason in words.
        """
        blocking = [problem for problem in self.problems() if problem.blocks]
        if blocking:
            raise Refusal(blocking[0].code, " ".join(problem.message for problem in blocking))
        return tuple(
            TableExam(row.date.isoformat(), row.date, _present(row), row.liver)
            for row in self.rows
            if row.included and row.date is not None
        )


def _present(row: Row) -> dict[str, Any]:
    return {channel: cell.node for channel, cell in row.cells.items() if cell.node is not None}


def write_exams(exams: Sequence[TableExam], folder: Path) -> Path:
    """Writes exams as a cohort table with one unnamed patient; volumes and livers as they lie in the scene now.

    Args:
        exams: of one patient.
        folder: exists.

    Returns:
        The table's path.

    Raises:
        Refusal: a liver can't be used.
    """
    lines = [_write_exam(exam, folder, number) for number, exam in enumerate(exams, start=1)]
    columns = list(dict.fromkeys(name for line in lines for name in line))
    table = folder / TABLE_FILE
    with table.open("w", encoding="ascii", newline="") as file:
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        writer.writerows(lines)
    return table


def _write_exam(exam: TableExam, folder: Path, number: int) -> dict[str, str]:
    line = {"patient_id": PATIENT, "exam_id": exam.exam_id, "exam_date": exam.date.isoformat()}
    for channel, node in exam.volumes.items():
        path = folder / f"exam-{number}-{channel}.nii"
        write_volume(node, path)
        line[channel] = path.name
    if exam.liver is not None:
        try:
            column, path = write_liver(exam.liver, folder, f"exam-{number}-liver")
        except Refusal as refusal:
            raise in_exam(refusal, exam.exam_id) from refusal
        line[column] = path.name
    return line
