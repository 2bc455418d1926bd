"""The table of exams in the window: a row an exam, a selector of volumes a channel."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from pathlib import Path
from typing import Any

import qt
import slicer
import vtk
from slicer.i18n import tr as _

from HCCNetLib.records import Refusal
from HCCNetSlicer.exam_problems import Cell, Row
from HCCNetSlicer.exam_table import ExamTable
from HCCNetSlicer.folders import fill_from_folder
from HCCNetSlicer.hierarchy import Hierarchy, all_inputs
from HCCNetWindow.helpers import WheelFilter, choose, timer, wait_cursor

_NONE = "–"
_USE, _DATE, _STATE, _FIRST_CHANNEL = 0, 1, 2, 3
_NO_DATE = datetime.date(1900, 1, 1)  # a date edit is never empty: its earliest date stands for none


class ExamPanel:
    """Shows an ``ExamTable`` and takes the user's corrections.

    The table is the truth and the widgets show it. Selectors answer to the user's choice alone (``activated``,
    ``clicked``): when a volume is deleted no selector picks another in its stead.

    Args:
        ui: the window's widgets by name.
        table: of exams.
        changed: called after every change of the table.
        tell: shows a sentence as an error.
    """

    def __init__(self, ui: Any, table: ExamTable, changed: Callable[[], None], tell: Callable[[str], None]) -> None:
        self.table = table
        self._ui, self._changed, self._tell = ui, changed, tell
        self._keys: list[str] = []
        self._columns: tuple[str, ...] = ()
        # Later, because a widget must not be removed from within its own signal.
        self._later = timer(0, self.update, once=True)
        self._drops = DropFilter(self.take_folders, self.take_items)
        self._wheel = WheelFilter()
        ui.examTable.viewport().installEventFilter(self._drops)
        ui.patientSelector.setLevelFilter(slicer.vtkMRMLSubjectHierarchyConstants.GetDICOMLevelPatient())
        ui.fillButton.connect("clicked()", self.fill)
        ui.addFolderButton.connect("clicked()", self.ask_for_folder)
        ui.addExamButton.connect("clicked()", self.add_exam)
        ui.removeExamButton.connect("clicked()", self.remove_exam)
        ui.refreshButton.connect("clicked()", self.request_update)
        ui.oneSpaceCheckBox.connect("clicked(bool)", self.set_one_space)
        ui.examTable.connect("itemSelectionChanged()", self.show_liver)
        ui.liverSelector.connect("currentNodeChanged(vtkMRMLNode*)", self.set_liver)
        self._shows_liver = False

    # ------------------------------------------------------------ what the buttons do

    def fill(self) -> None:
        """Fills the table from the patient that is selected, else from the scene's only one."""
        item = self._ui.patientSelector.currentItem()
        is_patient = item in Hierarchy(self.table.scene).patients()
        self._try(lambda: self.table.fill_from_patient(item) if is_patient else self.table.fill_from_scene())

    def ask_for_folder(self) -> None:
        """Lets the user choose a patient's folder and loads it."""
        title = _("A patient's folder: one folder per exam, named by its date")
        path = qt.QFileDialog.getExistingDirectory(slicer.util.mainWindow(), title)
        if path:
            self.take_folders([path])

    def take_folders(self, paths: list[str]) -> None:
        """Loads a patient's folder that was chosen or dropped."""
        if len(paths) != 1:
            self._tell(_("Drop one folder: that of one patient, with a dated folder per exam."))
            return
        self._try(lambda: self._load(Path(paths[0])))

    def _load(self, path: Path) -> None:
        with wait_cursor():
            problems = fill_from_folder(self.table, path)
        if problems:
            self._tell(" ".join(problems))

    def take_items(self, items: list[int]) -> None:
        """Adds what was dragged from the subject hierarchy: a patient, or studies and volumes."""
        hierarchy = Hierarchy(self.table.scene)
        patients = [item for item in items if item in hierarchy.patients()]
        if patients and len(items) > 1:
            self._tell(_("Drag one patient, or volumes of one patient."))
        elif patients:
            self._try(lambda: self.table.fill_from_patient(patients[0]))
        else:
            nodes = [node for item in items for node in hierarchy.volumes_at(item)]
            self._try(lambda: self.table.add_volumes(nodes))

    def add_exam(self) -> None:
        """Adds an empty exam."""
        self.table.add_row()
        self.request_update()

    def remove_exam(self) -> None:
        """Removes the selected exam from the table."""
        key = self.selected_key()
        if key is None:
            self._tell(_("Select an exam in the table first."))
            return
        self.table.remove_row(key)
        self.request_update()

    def set_one_space(self, one_space: bool) -> None:
        """Takes the user's word that channels on different grids share one patient space."""
        self.table.set_one_space(one_space)
        self.request_update()

    def selected_key(self) -> str | None:
        """Of the selected exam."""
        row = self._ui.examTable.currentRow()
        return self._keys[row] if 0 <= row < len(self._keys) else None

    def set_liver(self, node: Any) -> None:
        """Says where the liver is in the selected exam."""
        key = self.selected_key()
        if self._shows_liver or key is None or self.table.row(key).liver is node:
            return
        self._try(lambda: self.table.set_liver(key, node))

    def show_liver(self) -> None:
        """Shows the selected exam's liver in the selector."""
        key = self.selected_key()
        self._shows_liver = True  # it is not the user who changes the selector now
        try:
            self._ui.liverSelector.setEnabled(key is not None)
            self._ui.liverSelector.setCurrentNode(None if key is None else self.table.row(key).liver)
        finally:
            self._shows_liver = False

    def _try(self, act: Callable[[], None]) -> None:
        try:
            act()
        except Refusal as refusal:
            self._tell(refusal.message)
        self.request_update()

    # ------------------------------------------------------------ what is shown

    def request_update(self) -> None:
        """Shows the table as it is, soon: however often it is asked for in between, once."""
        self._later.start()

    def stop(self) -> None:
        """Shows nothing any more."""
        self._later.stop()
        self._ui.examTable.viewport().removeEventFilter(self._drops)

    def update(self) -> None:
        """Reads the scene and shows the table."""
        self.table.refresh()
        keys = [row.key for row in self.table.rows]
        if (keys, self.table.channels) != (self._keys, self._columns):
            self._build(keys)
        problems = self.table.problems()
        choices = self._choices()
        statuses = self.table.statuses(problems)
        for number, row in enumerate(self.table.rows):
            self._fill(number, row, choices)
            told = [problem.message for problem in problems if problem.row == row.key]
            item = self._ui.examTable.item(number, _STATE)
            item.setText(state_words()[statuses[row.key]])
            item.setToolTip("\n".join(told))
        self._ui.oneSpaceCheckBox.setChecked(self.table.state.one_space)
        self._ui.problemsLabel.setText("\n".join(f"• {problem.message}" for problem in problems))
        self._ui.problemsLabel.setVisible(bool(problems))
        self.show_liver()
        self._changed()

    def _build(self, keys: list[str]) -> None:
        """Makes the rows' widgets anew, and keeps the selection."""
        selected = self.selected_key()
        self._keys, self._columns = keys, self.table.channels
        widget = self._ui.examTable
        widget.setRowCount(0)
        widget.setColumnCount(_FIRST_CHANNEL + len(self._columns))
        widget.setHorizontalHeaderLabels([_("Use"), _("Date"), _("State"), *self._columns])
        widget.setRowCount(len(keys))
        for number, key in enumerate(keys):
            widget.setCellWidget(number, _USE, self._use_box(key))
            widget.setCellWidget(number, _DATE, self._date_edit(number, key))
            for column, channel in enumerate(self._columns, start=_FIRST_CHANNEL):
                widget.setCellWidget(number, column, self._selector(number, column, key, channel))
            widget.setItem(number, _STATE, qt.QTableWidgetItem())
        if selected in keys:
            widget.selectRow(keys.index(selected))

    def _use_box(self, key: str) -> Any:
        box = qt.QCheckBox()
        box.setToolTip(_("Whether this exam takes part in the prediction."))

        def clicked(included: bool) -> None:
            self.table.set_included(key, included)
            self.request_update()

        box.connect("clicked(bool)", clicked)
        return box

    def _date_edit(self, number: int, key: str) -> Any:
        edit = qt.QDateEdit()
        edit.setDisplayFormat("yyyy-MM-dd")
        edit.setMinimumDate(_qt_date(_NO_DATE))
        edit.setSpecialValueText(_("no date"))
        edit.setCalendarPopup(True)
        edit.setToolTip(_("The day of the visit; time decides the prediction."))

        def finished() -> None:
            shown = datetime.date.fromisoformat(edit.date.toString("yyyy-MM-dd"))
            date = None if shown == _NO_DATE else shown
            if date != self.table.row(key).date:
                self.table.set_date(key, date)
                self.request_update()

        edit.connect("editingFinished()", finished)
        edit.installEventFilter(self._wheel)
        return edit

    def _selector(self, number: int, column: int, key: str, channel: str) -> Any:
        combo = qt.QComboBox()

        def activated(index: int) -> None:
            nodes = self._nodes_of(self.table.row(key).cells[channel])
            self._try(lambda: self.table.set_cell(key, channel, None if index == 0 else nodes[index - 1]))

        combo.connect("activated(int)", activated)
        combo.installEventFilter(self._wheel)
        return combo

    def _fill(self, number: int, row: Row, choices: list[Any]) -> None:
        widget = self._ui.examTable
        widget.cellWidget(number, _USE).setChecked(row.included)
        edit = widget.cellWidget(number, _DATE)
        if not edit.hasFocus():  # somebody is typing there
            edit.setDate(_qt_date(row.date or _NO_DATE))
        for column, channel in enumerate(self._columns, start=_FIRST_CHANNEL):
            cell, combo = row.cells[channel], widget.cellWidget(number, column)
            nodes = self._nodes_of(cell, choices)
            index = 0 if cell.node is None else 1 + nodes.index(cell.node)
            choose(combo, [_NONE, *(node.GetName() for node in nodes)], index)
            combo.setToolTip(how_words(cell))

    def _nodes_of(self, cell: Cell, choices: list[Any] | None = None) -> list[Any]:
        """What a selector offers; what is chosen is among it even where it belongs to somebody else."""
        nodes = self._choices() if choices is None else choices
        return nodes if cell.node is None or cell.node in nodes else [*nodes, cell.node]

    def _choices(self) -> list[Any]:
        """The patient's volumes, and those that belong to nobody."""
        hierarchy = Hierarchy(self.table.scene)
        mine = {
            hierarchy.patient_of(cell.node)
            for row in self.table.rows
            for cell in row.cells.values()
            if cell.node is not None
        } - {None}
        volumes = all_inputs(self.table.scene)
        return [node for node in volumes if not mine or hierarchy.patient_of(node) in {*mine, None}]


class DropFilter(qt.QObject):
    """Takes what is dropped onto the table: folders from outside, items of the subject hierarchy.

    Args:
        take_folders: is given paths.
        take_items: is given subject hierarchy items.
    """

    def __init__(self, take_folders: Callable[[list[str]], None], take_items: Callable[[list[int]], None]) -> None:
        qt.QObject.__init__(self)
        self._take_folders, self._take_items = take_folders, take_items

    def eventFilter(self, watched: Any, event: Any) -> bool:  # noqa: N802 - Qt's name
        """Whether the event has been dealt with."""
        kind = event.type()
        if kind not in (qt.QEvent.DragEnter, qt.QEvent.DragMove, qt.QEvent.Drop):
            return False
        folders, items = _dropped(event.mimeData())
        if not folders and not items:
            return False
        event.acceptProposedAction()
        if kind == qt.QEvent.Drop:
            if folders:
                self._take_folders(folders)
            else:
                self._take_items(items)
        return True


def _dropped(data: Any) -> tuple[list[str], list[int]]:
    """Paths of folders, and items of the subject hierarchy."""
    if data.hasUrls():
        paths = [url.toLocalFile() for url in data.urls()]
        return [path for path in paths if path and Path(path).is_dir()], []
    ids = vtk.vtkIdList()
    slicer.qMRMLUtils.mimeDataToSubjectHierarchyItemIDs(data, ids)
    return [], [ids.GetId(n) for n in range(ids.GetNumberOfIds())]


def _qt_date(date: datetime.date) -> Any:
    return qt.QDate(date.year, date.month, date.day)


def state_words() -> dict[str, str]:
    """What the states of an exam are called."""
    return {
        "ready": _("ready"),
        "look": _("look at it"),
        "blocked": _("can't be used"),
        "left out": _("left out"),
    }


def how_words(cell: Cell) -> str:
    """How a volume came into its cell."""
    return {
        "": _("No volume. Choose the one of this channel."),
        "chosen": _("Chosen by you."),
        "name": _("Recognised by its name."),
        "b-value": _("Recognised by its b-value."),
        "description": _("Recognised by the series description: look whether it is right."),
    }[cell.how]
