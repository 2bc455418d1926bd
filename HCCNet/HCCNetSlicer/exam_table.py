"""Volumes of the scene → a patient's exams: rows of dates, columns of channels.

Rows come from the subject hierarchy (patient, study, series) or from loose volumes; channels by the library's own rules
(``HCCNetLib.readers``). What the user corrects is kept apart from what was found, so that it survives a refresh.
"""

from __future__ import annotations

import datetime
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import slicer
import vtk

from HCCNetLib.readers.assignment import channels_of_series
from HCCNetLib.readers.channels import CHANNELS, assign_channels
from HCCNetLib.readers.dates import parse_date
from HCCNetLib.readers.series import SeriesFacts, b_value_in_tags, plane_of, with_tags
from HCCNetLib.records import Refusal
from HCCNetSlicer.exam_problems import Cell, ProblemFinder, Row, TableProblem
from HCCNetSlicer.hierarchy import Hierarchy, all_inputs, date_in_names, is_input, without_date
from HCCNetSlicer.liver import LIVER_CLASSES
from HCCNetSlicer.volumes import own_affine


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
        told_by_reader: what a reader should know of the folder that the exams came from.
        corrections: by the user.
    """

    channels: tuple[str, ...]
    missing_channels: bool = False
    one_space: bool = False
    patient: str | None = None
    loose: list[str] = field(default_factory=list)
    told_by_reader: tuple[str, ...] = ()
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
        self._b_values: dict[str, frozenset[float]] = {}
        self._texts: dict[tuple[str, str], str] = {}
        self._held: dict[str, vtk.vtkWeakReference] = {}

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
        self._hierarchy.separate_copies()
        key = self._hierarchy.key(item)
        if key != self.state.patient:
            self.clear()
        self.state.patient = key
        self.state.corrections.removed.clear()
        self.refresh()

    def add_volumes(self, nodes: Iterable[Any]) -> None:
        """Adds volumes that the user dropped or picked; the date is that of their study, else the one in their name or folder."""
        for node in nodes:
            node_id = self.hold(node)
            if node_id not in self.state.loose:
                self.state.loose.append(node_id)
            self.state.corrections.removed.discard(self._row_key(node))
        self.refresh()

    def add_row(self, date: datetime.date | None = None) -> str:
        """Adds an empty exam, to be filled by hand; returns its key."""
        key = f"added-{uuid.uuid4()}"
        self.state.corrections.added.append(key)
        self.set_date(key, date)
        return key

    def remove_row(self, key: str) -> None:
        """Takes an exam out of the table until it is filled again; its volumes stay in the scene."""
        said = self.state.corrections
        if key in said.added:  # made by hand: nothing can bring it back
            said.added.remove(key)
            said.cells = {place: node_id for place, node_id in said.cells.items() if place[0] != key}
            for kept in (said.dates, said.included, said.livers):
                kept.pop(key, None)
        else:
            said.removed.add(key)
        self.refresh()

    def clear(self) -> None:
        """Forgets patient, rows and corrections; the columns stay."""
        self.state = TableState(self.state.channels, self.state.missing_channels)
        self.rows = ()
        self._b_values, self._texts, self._held = {}, {}, {}

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
        self.state.corrections.cells[key, channel] = None if node is None else self.hold(node)
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
        self.state.corrections.livers[key] = None if node is None else self.hold(node)
        self.refresh()

    # ------------------------------------------------------------ reading the scene

    def refresh(self) -> None:
        """Reads the scene again: new series appear, removed ones go, what the user corrected stays.

        Where nothing of what the table was about is left, the scene is another patient's: then all is forgotten.
        """
        if self._held and not any(map(self._node, self._held)):
            self.clear()
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
        nodes = tree.volumes(patient) if patient is not None else []
        loose = [node for node in map(self._node, self.state.loose) if node is not None and node not in nodes]
        sources: dict[str, list[Any]] = {}
        for node in (*nodes, *loose):
            self.hold(node)
            sources.setdefault(self._row_key(node), []).append(node)
        return sources

    def _row_key(self, node: Any) -> str:
        """Of the row that a volume belongs to: its study's, else its date's."""
        study, date = self._hierarchy.study_of(node), date_in_names(node)
        return self._hierarchy.key(study) if study else f"loose-{date.isoformat() if date else 'undated'}"

    def hold(self, node: Any) -> str:
        """A node's ID, with which node it is: after a scene was closed another one gets the same ID."""
        node_id = str(node.GetID())
        if self._node(node_id) is not node:
            self._held[node_id] = vtk.vtkWeakReference()
            self._held[node_id].Set(node)
        return node_id

    def _node(self, node_id: str | None) -> Any:
        """The node that was held under this ID, None where it is no longer in the scene."""
        held = self._held.get(node_id or "")
        node = None if held is None else held.Get()
        return node if node is not None and self.scene.GetNodeByID(node_id) is node else None

    def _found(self, key: str, volumes: Sequence[Any]) -> Row:
        """A row as the scene tells it."""
        of_study, in_names = self._hierarchy.study_date(volumes[0]), {date_in_names(node) for node in volumes} - {None}
        date = of_study or (in_names.pop() if len(in_names) == 1 else None)
        found = "" if date is None else "study" if of_study else "name"
        cells = dict.fromkeys(self.channels, Cell())
        assigned = channels_of_series({node.GetID(): self._facts(node) for node in volumes}, "the exam")
        for channel, (node_id, how) in assigned.channels.items():
            if channel in cells:
                cells[channel] = Cell(self._node(node_id), how)
        return Row(key, date, cells, date_found=found, notes=assigned.problems)

    def _facts(self, node: Any) -> SeriesFacts:
        description = self._hierarchy.series_attribute(node, "SeriesDescription")
        values = self._b_values_of(node)
        b_value = next(iter(values)) if len(values) == 1 else None
        facts = SeriesFacts(without_date(node.GetName() or ""), description, b_value, is_mixed=len(values) > 1)
        instances = (node.GetAttribute("DICOM.instanceUIDs") or "").split()
        if not instances:
            return facts
        through = own_affine(node)[:3, 2]  # slices of a series lie along the third axis
        return replace(with_tags(facts, partial(self._text_of, instances[0])), plane=plane_of(through.tolist()))

    def _text_of(self, uid: str, tag: str) -> str:
        """A tag's value; what a database did not know, one that is opened later may."""
        text = self._texts.get((uid, tag)) or self._tag_of(uid, tag)
        if text:
            self._texts[uid, tag] = text
        return text

    def _b_values_of(self, node: Any) -> frozenset[float]:
        """The b-values of a volume's slices; those of one image are all the same."""
        instances = (node.GetAttribute("DICOM.instanceUIDs") or "").split()
        key = " ".join(instances)
        if key in self._b_values:
            return self._b_values[key]
        # Several b-values lie one after the other or in turn; pairs of neighbours at several places tell.
        places = {min(n + k, len(instances) - 1) for n in _spread(len(instances)) for k in (0, 1)}
        found = (b_value_in_tags(partial(self._tag_of, instances[n])) for n in sorted(places))
        values = frozenset(value for value in found if value is not None)
        if values:  # a database that is opened later may know them yet
            self._b_values[key] = values
        return values

    def _corrected(self, row: Row) -> Row:
        said = self.state.corrections
        cells, chosen = dict(row.cells), {}
        for (key, channel), node_id in said.cells.items():
            if key == row.key and channel in cells:
                node = self._node(node_id)
                cells[channel] = Cell(node, "chosen" if node is not None else "")
                chosen[channel] = node_id
        liver = said.livers.get(row.key)
        return Row(
            key=row.key,
            date=said.dates.get(row.key, row.date),
            cells=cells,
            included=said.included.get(row.key, True),
            liver=self._node(liver),
            date_found="corrected" if row.key in said.dates else row.date_found,
            # What concerns a channel that nobody reads, or that the user has chosen, is no news.
            notes=tuple(note for note in row.notes if note.channel in cells and note.channel not in chosen),
            gone=tuple(channel for channel, node_id in chosen.items() if node_id and cells[channel].node is None),
            liver_gone=liver is not None and self._node(liver) is None,
        )

    # ------------------------------------------------------------ what is wrong, and what goes out

    def problems(self) -> list[TableProblem]:
        """What is wrong, row by row and then of the whole; a prediction must wait for those that block."""
        found = ProblemFinder(self._hierarchy, self.state.missing_channels, self.state.one_space).find(self.rows)
        told = [TableProblem("told_by_reader", message, blocks=False) for message in self.state.told_by_reader]
        return [*found, *self._passed_over(), *told]

    def _passed_over(self) -> list[TableProblem]:
        """Volumes that may be this patient's and are in no row: an exam that is missing changes the series."""
        if self.state.patient is None:
            return []
        left = [
            n for n in all_inputs(self.scene) if self._hierarchy.patient_of(n) is None and n.GetID() not in self._held
        ]
        if not left:
            return []
        message = (
            f"{len(left)} volume(s) of the scene belong to no patient and are in no exam. Add them to the table if they are this "
            f"patient's."
        )
        return [TableProblem("passed_over", message, blocks=False)]

    def statuses(self, problems: Sequence[TableProblem]) -> dict[str, str]:
        """Per row's key ``left out``, ``ready``, ``look`` (something to look at), or ``blocked``; of ``problems()``."""
        blocked = {problem.row for problem in problems if problem.blocks}
        odd = {problem.row for problem in problems}

        def status(row: Row) -> str:
            if not row.included:
                return "left out"
            return "blocked" if row.key in blocked else "look" if row.key in odd else "ready"

        return {row.key: status(row) for row in self.rows}

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


def _spread(count: int) -> set[int]:
    """The first, the last but one, and places between."""
    return {n * max(count - 2, 0) // 3 for n in range(4)} if count else set()


def _present(row: Row) -> dict[str, Any]:
    return {channel: cell.node for channel, cell in row.cells.items() if cell.node is not None}


def fill_by_date(table: ExamTable, exams: Mapping[datetime.date | str, Mapping[str, Any]]) -> None:
    """Fills a table by hand: date (``2021-03-14``) → channel → volume node.

    Raises:
        Refusal: a date that is none, a channel that nobody knows or that the bundle does not read.
    """
    for day, volumes in exams.items():
        date = day if isinstance(day, datetime.date) else parse_date(day)
        if date is None:
            raise Refusal("bad_date", f"{day} is not a date; write it as 2021-03-14.")
        assigned, unknown, problems = assign_channels(volumes, f"exam {date.isoformat()}")
        strange = [*unknown, *(name for name, channel in assigned.items() if channel not in table.channels)]
        if strange:
            message = (
                f"Exam {date.isoformat()}: the bundle reads {', '.join(table.channels)}, not {', '.join(strange)}."
            )
            raise Refusal("unknown_channel", message)
        table.state.told_by_reader += tuple(problem.message for problem in problems)
        key = table.add_row(date)
        for name, channel in assigned.items():
            table.set_cell(key, channel, volumes[name])
