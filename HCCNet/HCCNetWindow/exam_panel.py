"""The table of exams in the window: a row an exam, a cell a channel that opens to choose its volume."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import qt
import slicer
import vtk
from slicer.i18n import tr as _

from HCCNetLib.records import Refusal
from HCCNetSlicer.dependencies import DependencyError
from HCCNetSlicer.exam_problems import Cell, Row, TableProblem
from HCCNetSlicer.exam_table import ExamTable
from HCCNetSlicer.hierarchy import Hierarchy, all_inputs
from HCCNetSlicer.layers import show_volume
from HCCNetWindow.helpers import WheelFilter, set_header, timer

_NONE = "–"
_SURE = ("name", "b-value")  # what a volume was recognised by and needs no look
_USE, _DATE, _STATE, _FIRST_CHANNEL = 0, 1, 2, 3
_NO_DATE = datetime.date(1900, 1, 1)  # a date edit is never empty: its earliest date stands for none


class ExamPanel:
    """Shows an ``ExamTable`` and takes the user's corrections.

    The table is the truth and the widgets show it. They answer to the user's choice alone (``triggered``, ``clicked``): when
    a volume is deleted, none picks another in its stead.

    Args:
        ui: the window's widgets by name.
        table: of exams.
        load: loads a patient's folder into the scene and the table; returns what a reader should know.
        changed: called after every change of the table.
        tell: shows a sentence as an error; an empty one takes an earlier error away.
    """

    def __init__(
        self,
        ui: Any,
        table: ExamTable,
        load: Callable[[ExamTable, Path], Sequence[str]],
        changed: Callable[[], None],
        tell: Callable[[str], None],
    ) -> None:
        self.table = table
        self.problems: Sequence[TableProblem] = ()  # of the table as it is shown
        self._ui, self._load, self._changed, self._tell = ui, load, changed, tell
        self._keys: list[str] = []
        self._columns: tuple[str, ...] = ()
        self._dates: dict[str, str] = {}  # as last put into the edits: what still stands there is nobody's correction
        # Later, because a widget must not be removed from within its own signal.
        self._later = timer(0, self.update, once=True)
        self._drops = DropFilter(self.take_folders, self.take_items)
        self._wheel = WheelFilter()
        ui.examTable.viewport().installEventFilter(self._drops)
        ui.patientSelector.setLevelFilter([slicer.vtkMRMLSubjectHierarchyConstants.GetDICOMLevelPatient()])
        ui.fillButton.connect("clicked()", self.fill)
        ui.addFolderButton.connect("clicked()", self.ask_for_folder)
        ui.addExamButton.connect("clicked()", self.add_exam)
        ui.removeExamButton.connect("clicked()", self.remove_exam)
        ui.refreshButton.connect("clicked()", self.request_update)
        ui.oneSpaceCheckBox.connect("clicked(bool)", self.set_one_space)
        ui.examTable.connect("itemSelectionChanged()", self.show_liver)
        # Not currentNodeChanged: a node selector picks another node by itself when the chosen one is deleted.
        ui.liverSelector.connect("nodeActivated(vtkMRMLNode*)", self.set_liver)

    # ------------------------------------------------------------ what the buttons do

    def fill(self) -> None:
        """Fills the table from the patient that is selected, else from the scene's only one."""
        item = self._ui.patientSelector.currentItem()
        is_patient = item in Hierarchy(self.table.scene).patients()
        self.attempt(lambda: self.table.fill_from_patient(item) if is_patient else self.table.fill_from_scene())

    def ask_for_folder(self) -> None:
        """Lets the user choose a patient's folder and loads it."""
        title = _("A patient's folder: one folder per exam, named by its date; or DICOM files")
        path = qt.QFileDialog.getExistingDirectory(slicer.util.mainWindow(), title)
        if path:
            self.take_folders([path])

    def take_folders(self, paths: list[str]) -> None:
        """Loads a patient's folder that was chosen or dropped."""
        if len(paths) != 1:
            self._tell(_("Drop one folder: that of one patient, with a dated folder per exam, or with DICOM files."))
            return
        self.attempt(lambda: self._load(self.table, Path(paths[0])))

    def take_items(self, items: list[int]) -> None:
        """Adds what was dragged from the subject hierarchy: a patient, or studies and volumes."""
        hierarchy = Hierarchy(self.table.scene)
        patients = [item for item in items if item in hierarchy.patients()]
        if patients and len(items) > 1:
            self._tell(_("Drag one patient, or volumes of one patient."))
        elif patients:
            self.attempt(lambda: self.table.fill_from_patient(patients[0]))
        else:
            nodes = [node for item in items for node in hierarchy.volumes_at(item)]
            self.attempt(lambda: self.table.add_volumes(nodes))

    def add_exam(self) -> None:
        """Adds an empty exam."""
        self.attempt(self.table.add_row)

    def remove_exam(self) -> None:
        """Removes the selected exam from the table."""
        key = self.selected_key()
        if key is None:
            self._tell(_("Select an exam in the table first."))
            return
        self.attempt(lambda: self.table.remove_row(key))

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
        row = self._row(self.selected_key())
        if row is None:
            return
        self.attempt(lambda: self.table.set_liver(row.key, node))
        shown = next((cell.node for cell in row.cells.values() if cell.node is not None), None)
        if node is not None and shown is not None:  # so that its outline can be seen
            show_volume(self.table.scene, shown)

    def show_liver(self) -> None:
        """Shows the selected exam's liver in the selector."""
        row = self._row(self.selected_key())
        self._ui.liverSelector.setEnabled(row is not None)
        self._ui.liverSelector.setCurrentNode(None if row is None else row.liver)

    def commit(self) -> None:
        """Takes what the user has typed and not yet left: a button that is clicked need not take the focus."""
        for number, key in enumerate(self._keys):
            edit = self._ui.examTable.cellWidget(number, _DATE)
            edit.interpretText()
            self._take_date(key, edit)
        self.table.refresh()

    def _row(self, key: str | None) -> Row | None:
        """The row of a key; None where the table has it no more: a widget may answer after its row has gone."""
        return next((row for row in self.table.rows if row.key == key), None)

    def attempt(self, act: Callable[[], object]) -> None:
        """Does what the user asked for; an error becomes a sentence, and an earlier one goes."""
        self._tell("")
        try:
            act()
        except (Refusal, DependencyError) as error:
            self._tell(str(error))
        except OSError as error:
            # Without the path, which may name the patient.
            self._tell(_("That can't be read: {reason}.").format(reason=error.strerror or type(error).__name__))
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
        self.problems = problems = self.table.problems()
        statuses = self.table.statuses(problems)
        for number, row in enumerate(self.table.rows):
            told = [problem for problem in problems if problem.row == row.key]
            self._fill(number, row, told)
            item = self._ui.examTable.item(number, _STATE)
            item.setText(state_words()[statuses[row.key]])
            item.setToolTip("\n".join(problem.message for problem in told))
        self._ui.oneSpaceCheckBox.setChecked(self.table.state.one_space)
        self._ui.problemsLabel.setText("\n".join(f"• {problem.message}" for problem in problems))
        self._ui.problemsLabel.setVisible(bool(problems))
        self.show_liver()
        self._changed()

    def _build(self, keys: list[str]) -> None:
        """Makes the rows' widgets anew, and keeps the selection."""
        selected = self.selected_key()
        widget = self._ui.examTable
        for number in range(widget.rowCount):
            widget.cellWidget(number, _DATE).blockSignals(True)  # one that has the focus speaks up when it goes
        self._keys, self._columns = keys, self.table.channels
        widget.setRowCount(0)
        set_header(widget, exam_columns(self._columns))
        widget.setRowCount(len(keys))
        before = widget
        for number, key in enumerate(keys):
            cells = {_USE: self._use_box(key), _DATE: self._date_edit(key)}
            cells |= {_FIRST_CHANNEL + n: self._cell(key, channel) for n, channel in enumerate(self._columns)}
            for column, cell in cells.items():
                widget.setCellWidget(number, column, cell)
                qt.QWidget.setTabOrder(before, cell)  # else Tab reaches it after all else
                before = cell
            widget.setItem(number, _STATE, qt.QTableWidgetItem())
        if selected in keys:
            widget.selectRow(keys.index(selected))

    def _use_box(self, key: str) -> Any:
        box = qt.QCheckBox()
        box.setToolTip(_("Whether this exam takes part in the prediction."))

        def clicked(included: bool) -> None:
            if self._row(key) is not None:
                self.attempt(lambda: self.table.set_included(key, included))

        box.connect("clicked(bool)", clicked)
        return box

    def _date_edit(self, key: str) -> Any:
        edit = qt.QDateEdit()
        edit.setDisplayFormat("yyyy-MM-dd")
        edit.setMinimumDate(_qt_date(_NO_DATE))
        edit.setSpecialValueText(_("no date"))
        edit.setCalendarPopup(True)
        edit.setKeyboardTracking(False)  # a date that is half typed is none
        edit.setToolTip(_("The day of the visit; time decides the prediction."))

        def changed(date: Any) -> None:
            self._take_date(key, edit)

        edit.connect("dateChanged(QDate)", changed)
        edit.installEventFilter(self._wheel)
        return edit

    def _take_date(self, key: str, edit: Any) -> None:
        text = edit.date.toString("yyyy-MM-dd")
        if text == self._dates.get(key):
            return
        self._dates[key] = text
        shown = datetime.date.fromisoformat(text)
        date, row = None if shown == _NO_DATE else shown, self._row(key)
        if row is not None and row.date != date:
            self.attempt(lambda: self.table.set_date(key, date))

    def _cell(self, key: str, channel: str) -> Any:
        """A button that opens a list of volumes, filled when it opens: the scene may be another one by then."""
        button = qt.QToolButton()
        button.setPopupMode(qt.QToolButton.InstantPopup)
        button.setAutoRaise(True)
        menu = qt.QMenu(button)
        button.setMenu(menu)
        menu.connect("aboutToShow()", lambda: self._offer(menu, key, channel))
        return button

    def _offer(self, menu: Any, key: str, channel: str) -> None:
        menu.clear()
        row = self._row(key)
        if row is None:
            return
        chosen, nodes = row.cells[channel].node, self._choices()
        if (
            chosen is not None and chosen not in nodes
        ):  # what is chosen is offered even where it belongs to somebody else
            nodes.append(chosen)
        for node in (None, *nodes):
            action = menu.addAction(_NONE if node is None else node.GetName())
            action.setCheckable(True)
            action.setChecked(node is chosen)
            action.connect("triggered()", partial(self._pick, key, channel, None if node is None else node.GetID()))

    def _pick(self, key: str, channel: str, node_id: str | None) -> None:
        if self._row(key) is not None:
            self.attempt(lambda: self._choose(key, channel, node_id))

    def _choose(self, key: str, channel: str, node_id: str | None) -> None:
        node = None if node_id is None else self.table.scene.GetNodeByID(node_id)
        if node_id is not None and node is None:
            raise Refusal("volume_removed", _("That volume is no longer in the scene. Choose another."))
        self.table.set_cell(key, channel, node)

    def _fill(self, number: int, row: Row, told: Sequence[TableProblem]) -> None:
        widget = self._ui.examTable
        widget.cellWidget(number, _USE).setChecked(row.included)
        edit = widget.cellWidget(number, _DATE)
        is_typed_in = edit.hasFocus() and edit.text not in (self._dates.get(row.key), edit.specialValueText)
        if not is_typed_in:
            self._dates[row.key] = (row.date or _NO_DATE).isoformat()
            was_blocked = edit.blockSignals(True)
            edit.setDate(_qt_date(row.date or _NO_DATE))
            edit.blockSignals(was_blocked)
        for column, channel in enumerate(self._columns, start=_FIRST_CHANNEL):
            cell, button = row.cells[channel], widget.cellWidget(number, column)
            of_cell = [problem for problem in told if problem.channel == channel]
            text = _("blocked") if any(problem.blocks for problem in of_cell) else cell_word(cell)
            button.setText(_NONE if cell.node is None else text)
            name = [] if cell.node is None else [cell.node.GetName()]
            button.setToolTip("\n".join([*name, how_words(cell), *(problem.message for problem in of_cell)]))
            button.setAccessibleName(f"{channel} {(row.date or _NO_DATE).isoformat()} {button.text}")

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
        self._dropped: tuple[list[str], list[int]] = ([], [])
        # Later: as long as a drop is being dealt with, the program that it comes from stands still.
        self._later = timer(0, self._take, once=True)

    def eventFilter(self, watched: Any, event: Any) -> bool:  # noqa: N802 - Qt's name
        """Whether the event has been dealt with."""
        kind = event.type()
        if kind not in (qt.QEvent.DragEnter, qt.QEvent.DragMove, qt.QEvent.Drop):
            return False
        folders, items = dropped(event.mimeData())
        if not folders and not items:
            return False
        event.acceptProposedAction()
        if kind == qt.QEvent.Drop:
            if items:
                event.setDropAction(qt.Qt.IgnoreAction)  # the tree would take what was moved away
            self._dropped = folders, items
            self._later.start()
        return True

    def _take(self) -> None:
        folders, items = self._dropped
        if items:
            self._take_items(items)
        else:
            self._take_folders(folders)


def dropped(data: Any) -> tuple[list[str], list[int]]:
    """Paths of folders, and items of the subject hierarchy, which come with addresses too."""
    ids = vtk.vtkIdList()
    slicer.qMRMLUtils().mimeDataToSubjectHierarchyItemIDs(data, ids)
    items = [ids.GetId(n) for n in range(ids.GetNumberOfIds())]
    if items or not data.hasUrls():
        return [], items
    paths = [url.toLocalFile() for url in data.urls()]
    return [path for path in paths if path and Path(path).is_dir()], []


def _qt_date(date: datetime.date) -> Any:
    return qt.QDate(date.year, date.month, date.day)


def state_words() -> dict[str, str]:
    """What the states of an exam are called."""
    return {
        "ready": _("ready"),
        "look": _("check"),
        "blocked": _("blocked"),
        "left out": _("left out"),
    }


def exam_columns(channels: Sequence[str]) -> dict[str, str]:
    """The columns of the table, each with what it means; channels without what all of them begin with (``DWI_``)."""
    starts = {channel.split("_")[0] for channel in channels}
    short = [channel.partition("_")[2] or channel if len(starts) == 1 else channel for channel in channels]
    return {
        _("Use"): _("Whether the exam takes part in the prediction."),
        _("Date"): _("The day of the visit; time decides the prediction."),
        _("State"): _("Whether the exam can be used; its tooltip says why not."),
        **{
            name: _("The volume of {channel}. Open a cell to choose another.").format(channel=channel)
            for name, channel in zip(short, channels, strict=True)
        },
    }


def cell_word(cell: Cell) -> str:
    """How sure the volume of a cell is, in a word."""
    return _("set") if cell.how == "chosen" else _("ok") if cell.how in _SURE else _("check")


def how_words(cell: Cell) -> str:
    """How a volume came into its cell."""
    return {
        "": _("No volume. Choose the one of this channel."),
        "chosen": _("Chosen by you."),
        "name": _("Recognised by its name."),
        "b-value": _("Recognised by its b-value."),
        "description": _("Recognised by the series description: look whether it is right."),
        "image type": _("Recognised by its image type: look whether it is right."),
        "echo time": _("Recognised by its echo time: look whether it is right."),
        "time after contrast": _("Recognised by its time after the contrast agent: look whether it is right."),
    }[cell.how]
