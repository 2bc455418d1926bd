"""The window's logic on a real scene: widgets by the names of the real .ui file, Qt and the worker faked."""

from __future__ import annotations

import datetime
import hashlib
import importlib
import itertools
import json
import re
import sys
import types
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import qt_fakes
import slicer
import slicer.util
import vtk
from mrml_helpers import add_patient, add_study, add_volume, hierarchy
from qt_fakes import FileDialog, make_widget, tick
from result_helpers import Written, save, write_result
from slicer_fakes import Application, modules

from HCCNetLib.explanation import DEFAULT_METHOD, METHODS
from HCCNetSlicer import side_by_side
from HCCNetSlicer.bundle_card import DEMONSTRATION
from HCCNetSlicer.exam_problems import Cell
from HCCNetSlicer.prediction import Settings, Shown, as_shown
from HCCNetSlicer.results import Result, show_result
from HCCNetSlicer.worker_client import Failure, Notice, Progress, WorkerError

ROOT = Path(__file__).resolve().parents[2]
UI = ROOT / "HCCNet" / "Resources" / "UI" / "HCCNet.ui"
DWI = ("DWI_b0", "DWI_b150", "DWI_b400", "DWI_b800")
AFFINE = np.array([[-4.0, 0, 0, 80], [0, -4.0, 0, 70], [0, 0, 8.0, -40], [0, 0, 0, 1]])
DATES = ("2021-03-04", "2021-09-07")
USE, DATE, STATE, FIRST = 0, 1, 2, 3
NO_RESULT = "No result yet."


class FakePredictions:
    """In the place of the worker: the test says what happens."""

    def __init__(self, scene: Any, folder: Path) -> None:
        self.scene, self.folder = scene, folder
        self.begun: list[tuple[Any, Settings]] = []
        self.is_running = False
        self.is_complete = True
        self.closed = 0
        self.events: list[Any] = []
        self.client = types.SimpleNamespace(versions={"torch": "2.13"})

    def begin(self, exams: Any, settings: Settings) -> None:
        self.begun.append((exams, settings))
        self.is_running = True

    def poll(self) -> list[Any]:
        events, self.events = self.events, []
        return events

    def cancel(self) -> None:
        self.is_running = False

    def close(self) -> None:
        self.is_running = False
        self.closed += 1

    def fail(self, message: str, details: str = "") -> None:
        self.is_running = False
        self.events.append(Failure(WorkerError("crash", message, details)))

    def finish(self, **written: Any) -> None:
        exams, settings = self.begun[-1]
        folder = write_result(
            self.folder / str(len(self.begun)),
            Written(dates=[exam.exam_id for exam in exams], affine=AFFINE, shape=(40, 36, 12), **written),
        )
        of_these(folder / "prediction.json")
        shown = show_result(self.scene, folder, as_shown(exams), settings.plain(exams))
        self.is_running = False
        self.events.append(Shown(shown))


def of_these(path: Path) -> None:
    """A written result, made to be of the window's exams and the demonstration bundle."""
    content = json.loads(path.read_text(encoding="utf-8"))
    for exam in content["exams"]:
        exam["exam_id"] = exam["date"]
    content["bundle"]["sha256"] = hashlib.sha256((DEMONSTRATION / "bundle.json").read_bytes()).hexdigest()
    path.write_text(json.dumps(content), encoding="utf-8")


@pytest.fixture
def application(scene: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Application]:
    """Slicer around the scene, and Qt."""
    application = Application(scene, str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(slicer, "app", application, raising=False)
    for name, fake in {**modules(), "qt": qt_fakes.module()}.items():
        monkeypatch.setitem(sys.modules, name, fake)
    monkeypatch.setattr(slicer.util, "mainWindow", lambda: None)
    monkeypatch.setattr(slicer, "qMRMLUtils", Utilities, raising=False)
    monkeypatch.setattr(slicer.util, "loadUI", lambda path: types.SimpleNamespace(setMRMLScene=lambda scene: None))
    monkeypatch.setattr(slicer.util, "childWidgetVariables", lambda window: widgets())
    qt_fakes.Settings.kept.clear()
    qt_fakes.Timer.made.clear()
    FileDialog.answer = ""
    yield application
    application.manager.logic.SetMRMLScene(None)


class Utilities:
    """slicer.qMRMLUtils: its functions want an object."""

    def mimeDataToSubjectHierarchyItemIDs(self, data: Any, ids: Any) -> None:  # noqa: N802
        for item in data.items:
            ids.InsertNextId(item)


def widgets() -> Any:
    """A fake for every widget of the real file, by its class."""
    found = {w.get("name"): make_widget(w.get("class") or "") for w in ET.parse(UI).getroot().iter("widget")}
    found["thresholdSlider"].value, found["opacitySlider"].value = 0.15, 0.6
    return types.SimpleNamespace(**found)


@pytest.fixture
def make_window(scene: Any, application: Application, tmp_path: Path) -> Iterator[Callable[[], Any]]:
    """Makes windows as Slicer does; their worker is faked."""
    for name in [name for name in sys.modules if name == "HCCNet" or name.startswith("HCCNetWindow")]:
        del sys.modules[name]
    module = importlib.import_module("HCCNet")
    made = []

    def make() -> Any:
        window = module.HCCNetWidget()
        window.setup()
        window.logic._predictions = FakePredictions(scene, tmp_path / f"results-{len(made)}")
        window.enter()
        tick()
        made.append(window)
        return window

    yield make
    for window in made:
        window.cleanup()
    for name in [name for name in sys.modules if name == "HCCNet" or name.startswith("HCCNetWindow")]:
        del sys.modules[name]


@pytest.fixture
def window(make_window: Callable[[], Any]) -> Any:
    return make_window()


@pytest.fixture
def patient(scene: Any) -> int:
    return add_exams(scene, add_patient(scene))


def add_exams(scene: Any, patient: int, dates: tuple[str, ...] = DATES) -> int:
    for number, date in enumerate(dates):
        data = np.random.default_rng(number).integers(0, 500, (40, 36, 12)).astype(np.int16)
        volumes = [add_volume(scene, f"{channel} {date}", data + n, AFFINE) for n, channel in enumerate(DWI)]
        add_study(scene, patient, date.replace("-", ""), volumes)
    return patient


def to_pixel(view: Any, point: Any) -> list[float]:
    """Column, row and distance from the slice of a point, RAS mm."""
    inverse = vtk.vtkMatrix4x4()
    vtk.vtkMatrix4x4.Invert(view.GetXYToRAS(), inverse)
    return list(inverse.MultiplyPoint((*point, 1.0))[:3])


def count_nodes(scene: Any) -> int:
    """How many nodes there are, without the views, which Slicer keeps once a layout has made them."""
    views = ("vtkMRMLAbstractViewNode", "vtkMRMLSliceCompositeNode")
    return len([node for node in scene.GetNodes() if not any(map(node.IsA, views))])


def fill(window: Any) -> None:
    window.ui.fillButton.click()
    tick()


def predict(window: Any, **written: Any) -> None:
    window.ui.predictButton.click()
    window.logic.predictions.finish(**written)
    tick()


def cell(window: Any, row: int, column: int) -> Any:
    return window.ui.examTable.cellWidget(row, column)


def state(window: Any, row: int) -> str:
    return window.ui.examTable.item(row, STATE).shown


def test_slicer_is_told_what_the_module_is(make_window: Callable[[], Any], application: Application) -> None:
    make_window()
    parent = types.SimpleNamespace()
    sys.modules["HCCNet"].HCCNet(parent)
    assert parent.title == "HCCNet"
    assert "not a medical device" in parent.helpText
    assert "2501.10733" in parent.acknowledgementText


def test_a_computer_without_pythonslicer_is_told_in_words(
    window: Any, patient: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(window)
    window.logic._predictions = None
    monkeypatch.setattr("HCCNetSlicer.worker_client.shutil.which", lambda name: None)
    monkeypatch.setattr(sys, "executable", "/opt/Slicer/bin/SlicerApp-real")
    told = "PythonSlicer, which runs the prediction, was not found beside Slicer. Install Slicer again."
    window.ui.predictButton.click()
    assert window.ui.errorLabel.text == told
    window.run.clear_error()
    window.ui.verifyBundleButton.click()
    assert window.ui.errorLabel.text == told
    window.ui.setupButton.click()
    assert window.ui.setupText.plainText.endswith(told)


# ---------------------------------------------------------------- the table of exams


def test_an_empty_window_says_what_is_missing(window: Any) -> None:
    assert not window.ui.predictButton.enabled
    assert window.ui.predictButton.toolTip == (
        "There is no exam. Fill the table from the scene or add a folder, and include at least one exam."
    )
    assert not window.ui.errorLabel.visible
    assert not window.ui.progressBar.visible
    assert window.ui.resultLabel.text == NO_RESULT
    assert not window.ui.figureLabel.visible
    assert not window.ui.exportReportButton.enabled


def test_filling_shows_rows_with_volumes_and_lets_predict(window: Any, patient: int) -> None:
    fill(window)
    assert window.ui.examTable.rowCount == 2
    assert window.ui.examTable.horizontalHeaderLabels == ["Use", "Date", "State", "b0", "b150", "b400", "b800"]
    assert cell(window, 0, DATE).date.toString("yyyy-MM-dd") == "2021-03-04"
    button = cell(window, 1, FIRST + 2)
    assert button.picked == "DWI_b400 2021-09-07"
    assert (button.text, button.toolTip) == ("ok", "DWI_b400 2021-09-07\nRecognised by its name.")
    assert button.accessibleName == "DWI_b400 2021-09-07 ok"
    assert [state(window, n) for n in (0, 1)] == ["ready", "ready"]
    assert window.ui.predictButton.enabled
    assert window.ui.predictButton.toolTip == "Predict the risk from the exams above, as of the latest."


def test_what_the_user_corrects_reaches_the_prediction(window: Any, patient: int, scene: Any) -> None:
    fill(window)
    cell(window, 0, FIRST).pick("–")
    tick()
    assert state(window, 0) == "blocked"
    assert not window.ui.predictButton.enabled
    assert "Exam 2021-03-04 lacks DWI_b0." in window.ui.problemsLabel.text
    cell(window, 0, FIRST).pick("DWI_b0 2021-03-04")
    tick()
    assert cell(window, 0, FIRST).text == "set"
    assert cell(window, 0, FIRST).toolTip == "DWI_b0 2021-03-04\nChosen by you."
    cell(window, 1, DATE).pick("2020-01-02")
    tick()
    assert [row.date.isoformat() for row in window.exams.table.rows] == ["2020-01-02", "2021-03-04"]
    cell(window, 1, USE).emit("clicked(bool)", False)
    tick()
    assert state(window, 1) == "left out"
    window.ui.predictButton.click()
    (exams, settings), *_ = window.logic.predictions.begun
    assert [exam.exam_id for exam in exams] == ["2020-01-02"]
    assert settings == Settings(explain="saliency", method="integrated-activation", device="auto")


def test_a_deleted_volume_leaves_its_selector_empty(window: Any, patient: int, scene: Any) -> None:
    """Slicer's own selectors pick another one silently, which would be a wrong exam."""
    fill(window)
    cell(window, 0, FIRST).pick("DWI_b0 2021-03-04")
    tick()
    scene.RemoveNode(window.exams.table.rows[0].cells["DWI_b0"].node)
    tick()
    assert (cell(window, 0, FIRST).text, cell(window, 0, FIRST).picked) == ("–", "–")
    assert "the volume chosen for DWI_b0 is no longer in the scene" in window.ui.problemsLabel.text
    assert not window.ui.predictButton.enabled


def test_another_patient_s_volumes_are_not_offered(window: Any, patient: int, scene: Any) -> None:
    fill(window)
    add_exams(scene, add_patient(scene, "Roe^Richard", "ID-2"), ("2019-01-01",))
    add_volume(scene, "nobody's", np.ones((4, 4, 4), np.int16), AFFINE)
    tick()
    texts = cell(window, 0, FIRST).texts
    assert "nobody's" in texts
    assert not any("2019-01-01" in text for text in texts)


def test_of_several_patients_the_selected_one_is_taken(window: Any, patient: int, scene: Any) -> None:
    other = add_exams(scene, add_patient(scene, "Roe^Richard", "ID-2"), ("2019-01-01",))
    fill(window)
    assert window.ui.errorLabel.text == (
        "The scene holds 2 patients. Choose one; exams of different patients can't be mixed."
    )
    window.ui.patientSelector.item = other
    fill(window)
    assert [row.date.isoformat() for row in window.exams.table.rows] == ["2019-01-01"]


def test_a_date_that_nobody_knows_is_shown_as_none(window: Any, scene: Any) -> None:
    volumes = [add_volume(scene, c, np.ones((4, 4, 4), np.int16), AFFINE) for c in DWI]
    add_study(scene, add_patient(scene), "", volumes)
    fill(window)
    edit = cell(window, 0, DATE)
    assert (edit.date.toString("yyyy-MM-dd"), edit.specialValueText) == ("1900-01-01", "no date")
    edit.pick("2021-03-04")
    tick()
    assert window.exams.table.rows[0].date is not None


def test_a_folder_can_be_chosen_or_dropped(window: Any, application: Application) -> None:
    FileDialog.answer = str(ROOT / "HCCNetLib" / "samples" / "RA01")
    window.ui.addFolderButton.click()
    tick()
    assert window.ui.examTable.rowCount == 4
    assert application.cursors == []
    window.exams.table.clear()
    window.exams.request_update()
    tick()
    event = drop(urls=[FileDialog.answer])
    assert window.ui.examTable.viewport().watcher.eventFilter(None, event)
    assert window.ui.examTable.rowCount == 0  # later: the file manager waits as long as the drop is dealt with
    tick()
    tick()
    assert window.ui.examTable.rowCount == 4
    window.exams.take_folders(["a", "b"])
    assert (
        window.ui.errorLabel.text
        == "Drop one folder: that of one patient, with a dated folder per exam, or with DICOM files."
    )
    assert not window.ui.examTable.viewport().watcher.eventFilter(None, drop(urls=["/no/such/folder"]))


def drop(urls: list[str] = [], items: list[int] = []) -> Any:  # noqa: B006
    """A drop as Qt gives it; items of the subject hierarchy come with addresses too."""
    addresses = [types.SimpleNamespace(toLocalFile=lambda path=path: path) for path in urls]
    addresses += [types.SimpleNamespace(toLocalFile=lambda: "") for _ in items]
    data = types.SimpleNamespace(hasUrls=lambda: bool(addresses), urls=lambda: addresses, items=items)
    event = types.SimpleNamespace(type=lambda: 63, mimeData=lambda: data, accepted=False, action=2)
    event.acceptProposedAction = lambda: setattr(event, "accepted", True)
    event.setDropAction = lambda action: setattr(event, "action", action)
    return event


def test_a_patient_can_be_dragged_from_the_data_tree_and_stays_there(window: Any, patient: int) -> None:
    event = drop(items=[patient])
    assert window.ui.examTable.viewport().watcher.eventFilter(None, event)
    tick()
    tick()
    assert window.ui.examTable.rowCount == 2
    assert event.accepted
    assert event.action == 0  # a move would take the patient out of the tree


def test_a_volume_that_went_is_never_taken_for_the_one_that_moved_up(window: Any, patient: int, scene: Any) -> None:
    """A menu that is open offers what it was filled with."""
    fill(window)
    button = cell(window, 0, FIRST)
    wanted = "DWI_b400 2021-03-04"
    pick_moved, pick_removed = button.pick_later(wanted), button.pick_later("DWI_b0 2021-03-04")
    scene.StartState(scene.BatchProcessState)
    scene.RemoveNode(scene.GetFirstNodeByName("DWI_b0 2021-03-04"))
    pick_moved()
    assert window.exams.table.rows[0].cells["DWI_b0"].node.GetName() == wanted
    pick_removed()
    assert window.ui.errorLabel.text == "That volume is no longer in the scene. Choose another."
    scene.EndState(scene.BatchProcessState)
    tick()
    assert "DWI_b0 2021-03-04" not in cell(window, 0, FIRST).texts


def test_a_date_that_is_still_being_typed_counts_when_predict_is_pressed(window: Any, patient: int) -> None:
    fill(window)
    cell(window, 1, DATE).type("2022-02-02")
    window.ui.predictButton.click()
    assert [exam.exam_id for exam in window.logic.predictions.begun[-1][0]] == ["2021-03-04", "2022-02-02"]


def test_widgets_of_a_row_that_has_gone_do_nothing(window: Any, patient: int, scene: Any) -> None:
    fill(window)
    box, edit, button = (cell(window, 0, column) for column in (USE, DATE, FIRST))
    pick = button.pick_later("–")
    scene.Clear(False)
    tick()
    box.emit("clicked(bool)", False)
    edit.pick("2001-01-01")
    pick()
    assert button.texts == []
    window.ui.liverSelector.emit("nodeActivated(vtkMRMLNode*)", None)
    assert window.exams.table.rows == ()


def test_a_folder_that_can_not_be_read_is_told_in_its_words(window: Any, tmp_path: Path, application: Any) -> None:
    (tmp_path / "empty").mkdir()
    FileDialog.answer = str(tmp_path / "empty")
    window.ui.addFolderButton.click()
    assert window.ui.errorLabel.text.startswith("The folder empty is empty. Expected a patient folder")
    assert application.cursors == []


def test_the_liver_of_the_selected_exam_is_chosen_and_shown(window: Any, patient: int, scene: Any) -> None:
    fill(window)
    roi = scene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "liver")
    window.ui.examTable.selectRow(1)
    window.ui.liverSelector.pick(roi)
    tick()
    assert [row.liver for row in window.exams.table.rows] == [None, roi]
    window.ui.examTable.selectRow(0)
    assert window.ui.liverSelector.node is None
    assert window.exams.table.rows[1].liver is roi


def test_a_deleted_liver_is_replaced_by_no_other(window: Any, patient: int, scene: Any) -> None:
    """Slicer's selector picks another node by itself, and says so."""
    fill(window)
    liver, other = (scene.AddNewNodeByClass("vtkMRMLMarkupsROINode", name) for name in ("liver", "other"))
    window.ui.examTable.selectRow(1)
    window.ui.liverSelector.pick(liver)
    scene.RemoveNode(liver)
    window.ui.liverSelector.setCurrentNode(other)
    tick()
    assert window.exams.table.rows[1].liver is None
    assert "what was chosen as its liver is no longer in the scene" in window.ui.problemsLabel.text
    assert window.ui.liverSelector.node is None


def test_a_folder_without_permission_is_told_without_its_path(
    window: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise PermissionError(13, "Permission denied", str(tmp_path / "Doe^Jane"))

    monkeypatch.setattr(window.exams, "_load", refuse)
    window.exams.take_folders([str(tmp_path)])
    assert window.ui.errorLabel.text == "That can't be read: Permission denied."


def test_an_error_goes_with_the_next_thing_that_works(window: Any, patient: int) -> None:
    window.ui.removeExamButton.click()
    assert window.ui.errorLabel.text == "Select an exam in the table first."
    fill(window)
    assert not window.ui.errorLabel.visible


def test_exams_can_be_added_and_removed_by_hand(window: Any, patient: int) -> None:
    fill(window)
    window.ui.addExamButton.click()
    tick()
    assert window.ui.examTable.rowCount == 3
    window.ui.examTable.selectRow(2)
    window.ui.removeExamButton.click()
    tick()
    assert window.ui.examTable.rowCount == 2


# ---------------------------------------------------------------- predict, progress, errors


def test_progress_is_shown_and_the_result_appears(window: Any, patient: int, application: Application) -> None:
    fill(window)
    window.ui.predictButton.click()
    assert application.cursors == []
    assert window.ui.progressBar.visible
    assert window.ui.cancelButton.enabled
    assert not window.ui.predictButton.enabled
    window.logic.predictions.events.append(Progress("explaining", None, 3, 0.42))
    tick()
    assert window.ui.progressBar.value == 42
    assert window.ui.statusLabel.text == "Explaining, network 3"
    window.logic.predictions.events.append(Notice("The GPU's memory does not suffice."))
    tick()
    assert window.ui.statusLabel.text == "The GPU's memory does not suffice."
    window.logic.predictions.finish()
    tick()
    assert not window.ui.progressBar.visible
    assert window.ui.predictButton.enabled
    assert window.ui.figureLabel.text == "12.3%"
    assert window.ui.spreadLabel.visible
    assert window.ui.scrollArea.seen is window.ui.figureLabel
    assert window.ui.resultLabel.text == (
        "Estimated risk of HCC within 12 months after 2021-09-07 (2 networks: 8.0% to 16.6%)."
    )
    assert window.ui.horizonsLabel.visible
    for words in (
        "6 months",
        "6.0%",
        "4.0% to 9.0%",
        "5.0%",
        "<b>12 months, main</b>",
        "<b>12.3%</b>",
        "24 months",
        "18.0%",
    ):
        assert f">{words}<" in window.ui.horizonsLabel.text
    assert window.ui.horizonsLabel.toolTip.startswith("Members: smallest to largest of 2. Cohort: the observed risk")
    assert [line[0] for line in window.ui.resultTable.texts()] == list(DATES)
    assert window.ui.resultTable.currentRow() == 1


@pytest.mark.parametrize("horizons", [None, (12.0,)])
def test_a_result_of_one_horizon_has_no_table_of_horizons(
    window: Any, patient: int, horizons: tuple[float, ...] | None
) -> None:
    fill(window)
    predict(window, horizons=horizons)
    assert window.ui.figureLabel.text == "12.3%"
    assert not window.ui.horizonsLabel.visible


def test_cancel_stops_and_lets_predict_again(window: Any, patient: int) -> None:
    fill(window)
    window.ui.predictButton.click()
    window.ui.cancelButton.click()
    assert not window.logic.predictions.is_running
    assert window.ui.statusLabel.text == "Cancelled."
    assert window.ui.predictButton.enabled
    assert not window.ui.cancelButton.enabled


def test_a_failure_is_one_sentence_with_details_to_unfold(window: Any, patient: int) -> None:
    fill(window)
    window.ui.predictButton.click()
    window.logic.predictions.fail("The worker ended unexpectedly (killed).", "last words")
    tick()
    assert window.ui.errorLabel.visible
    assert window.ui.errorLabel.text == "The worker ended unexpectedly (killed)."
    assert window.ui.errorDetailsButton.visible
    assert not window.ui.errorDetailsText.visible
    window.ui.errorDetailsButton.setChecked(True)
    assert window.ui.errorDetailsText.visible
    assert window.ui.errorDetailsText.plainText == "last words"
    window.ui.predictButton.click()
    assert not window.ui.errorLabel.visible


def test_what_can_not_begin_is_told_and_the_cursor_is_restored(
    window: Any, patient: int, application: Application, scene: Any
) -> None:
    fill(window)
    label = add_volume(scene, "L", np.zeros((4, 4, 4), np.int16), AFFINE, "vtkMRMLLabelMapVolumeNode")
    window.exams.table.set_liver(window.exams.table.rows[0].key, label)
    window.logic.predictions.begin = lambda exams, settings: settings.plain(exams)
    window.ui.predictButton.click()
    assert window.ui.errorLabel.text == (
        "Exam 2021-03-04: The liver mask marks no voxel. Draw the liver, or choose no mask."
    )
    assert application.cursors == []
    assert not window.ui.progressBar.visible


def test_a_worker_that_dies_while_nobody_waits_pops_up_nothing(window: Any, patient: int) -> None:
    fill(window)
    window.ui.predictButton.click()
    window.logic.predictions.events.append(Failure(WorkerError("crash", "idle"), of_request=False))
    tick()
    assert not window.ui.errorLabel.visible
    assert window.ui.progressBar.visible


def test_a_bug_is_told_without_what_it_says(window: Any, patient: int, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(window)

    def fail(*_: Any) -> None:
        raise RuntimeError("Doe^Jane")

    monkeypatch.setattr(window.logic.predictions, "poll", fail)
    window.ui.predictButton.click()
    tick()
    assert window.ui.errorLabel.text == (
        "The module met an error that it does not expect (RuntimeError). The details tell where."
    )
    assert "Doe" not in window.ui.errorDetailsText.plainText.replace('"Doe^Jane"', "")  # the test's own line
    assert not window.ui.progressBar.visible
    monkeypatch.setattr(window.logic.predictions, "begin", fail)
    window.ui.predictButton.click()
    assert window.ui.errorLabel.visible


def test_the_worker_is_not_ended_beneath_a_prediction(window: Any, patient: int, scene: Any) -> None:
    fill(window)
    window.ui.predictButton.click()
    assert not window.ui.endWorkerButton.enabled
    window.logic.predictions.is_running = False  # as when the scene is closed
    tick()
    assert window.ui.statusLabel.text == "Cancelled."
    assert window.ui.endWorkerButton.enabled


# ---------------------------------------------------------------- the result


def test_a_view_that_shows_something_else_carries_no_date(
    window: Any, patient: int, application: Application, scene: Any
) -> None:
    fill(window)
    predict(window)
    other = scene.GetFirstNodeByName("DWI_b0 2021-03-04")
    application.composites["Red"].SetBackgroundVolumeID(other.GetID())
    assert application.texts == ["", "2021-09-07, 2 of 2", "2021-09-07, 2 of 2"]
    window.ui.resultTable.selectRow(0)
    assert application.texts[0] == "2021-03-04, 1 of 2"


def test_a_result_that_a_script_made_or_removed_is_followed(window: Any, patient: int, scene: Any) -> None:
    fill(window)
    predict(window)
    window.logic.remove_result()
    tick()
    assert window.ui.resultLabel.text == NO_RESULT
    window.ui.thresholdSlider.setValue(0.33)
    window.ui.kindComboBox.emit("activated(int)", 1)
    window.logic.predictions.begin(window.exams.table.exams(), Settings())
    window.logic.predictions.finish()
    window.logic.predictions.events.clear()
    tick()
    assert window.ui.resultLabel.text.startswith("Estimated risk")


def test_what_remains_of_a_damaged_result_can_be_removed(window: Any, patient: int, scene: Any) -> None:
    fill(window)
    before = count_nodes(scene)
    predict(window)
    scene.RemoveNode(Result.find(scene).record.node)
    tick()
    assert window.ui.resultLabel.text == NO_RESULT
    window.ui.removeResultButton.click()
    assert count_nodes(scene) == before


def test_a_result_is_out_of_date_also_while_the_table_can_not_be_used(window: Any, patient: int, scene: Any) -> None:
    fill(window)
    predict(window)
    cell(window, 0, FIRST).pick("–")
    window.ui.methodComboBox.pick("Attention over exams only")
    tick()
    tick()
    assert window.ui.staleLabel.text == (
        "This result is out of date: Chosen differently now: the explanation. The exams that are chosen now can't be used. "
        "Predict again."
    )


def test_choosing_an_exam_shows_it_with_its_map_its_date_and_its_peak(
    window: Any, patient: int, application: Application, scene: Any
) -> None:
    fill(window)
    predict(window)
    result = Result.find(scene)
    assert result is not None
    for row in (0, 1):
        window.ui.resultTable.selectRow(row)
        for composite in application.composites.values():
            assert composite.GetForegroundVolumeID() == result.map_node(row).GetID()
            assert scene.GetNodeByID(composite.GetBackgroundVolumeID()).GetName().endswith(DATES[row])
            assert composite.GetLinkedControl()
        assert set(application.texts) == {f"{DATES[row]}, {row + 1} of 2"}
        for name in application.usual:
            view, peak = application.manager.node(name), result.prediction["exams"][row]["peak"]["mm"]
            x, y, z = to_pixel(view, peak)
            assert abs(z) < 1e-6  # the slice goes through the peak
            assert 0 < x < view.GetDimensions()[0]
            assert 0 < y < view.GetDimensions()[1]
            assert min(view.GetFieldOfView()[:2]) >= 160  # all of the exam


def test_threshold_opacity_and_outline_follow_the_window_and_stay_for_the_next_result(
    window: Any, patient: int, application: Application, scene: Any
) -> None:
    fill(window)
    predict(window)
    window.ui.thresholdSlider.setValue(0.4)
    window.ui.opacitySlider.setValue(0.9)
    window.ui.fieldCheckBox.setChecked(True)
    for _ in range(2):
        result = Result.find(scene)
        assert result is not None
        assert (result.threshold, result.opacity, result.field_is_shown) == (0.4, 0.9, True)
        assert application.composites["Red"].GetForegroundOpacity() == pytest.approx(0.9)
        predict(window)


def test_another_kind_of_map_is_shown(window: Any, patient: int, application: Application, scene: Any) -> None:
    fill(window)
    predict(window)
    window.ui.kindComboBox.pick("What lowers the output")
    result = Result.find(scene)
    assert result is not None
    assert application.composites["Red"].GetForegroundVolumeID() == result.map_node(1, "against").GetID()


def test_a_result_that_is_out_of_date_says_so_and_why(window: Any, patient: int, scene: Any) -> None:
    fill(window)
    predict(window)
    assert not window.ui.staleLabel.visible
    cell(window, 0, USE).emit("clicked(bool)", False)
    tick()
    tick()
    assert window.ui.staleLabel.visible
    assert window.ui.staleLabel.text == (
        "This result is out of date: Other exams, dates or channels are chosen now. Predict again."
    )
    cell(window, 0, USE).emit("clicked(bool)", True)
    tick()
    tick()
    assert not window.ui.staleLabel.visible
    volume = window.exams.table.rows[0].cells["DWI_b0"].node
    slicer.util.arrayFromVolume(volume)[:] += 1
    slicer.util.arrayFromVolumeModified(volume)
    tick()
    assert window.ui.staleLabel.text == (
        "This result is out of date: The voxels of DWI_b0 of 2021-03-04 have changed. Predict again."
    )


def test_removing_the_result_leaves_the_exams_and_clears_the_views(
    window: Any, patient: int, application: Application, scene: Any
) -> None:
    fill(window)
    before = count_nodes(scene)
    predict(window)
    window.ui.removeResultButton.click()
    assert count_nodes(scene) == before
    assert set(application.texts) == {""}
    assert window.ui.resultLabel.text == NO_RESULT
    assert window.ui.resultTable.rowCount == 0
    assert window.ui.examTable.rowCount == 2


def test_a_demonstration_is_told_instead_of_a_risk(window: Any, patient: int) -> None:
    fill(window)
    predict(window, demonstration=True)
    assert window.ui.figureLabel.text == "Demonstration"
    assert window.ui.resultLabel.text == (
        "No meaning for this patient, so no risk of HCC within 12 months after 2021-09-07 is given."
    )
    assert not window.ui.spreadLabel.visible
    assert not window.ui.horizonsLabel.visible
    assert "%" not in window.ui.resultLabel.text + window.ui.resultLabel.toolTip


def shown_texts(application: Application) -> dict[str, str]:
    """What is written on the views of the layout that is shown."""
    manager = application.manager
    return {
        name: manager.views[name].text for name in manager.sliceViewNames() if manager.node(name).IsMappedInLayout()
    }


def test_a_result_is_shown_side_by_side_with_its_chart_and_one_click_leads_back(
    window: Any, patient: int, application: Application, scene: Any
) -> None:
    usual = application.manager.layout
    fill(window)
    predict(window)
    assert side_by_side.is_ours(application.manager.layout)
    assert window.ui.layoutButton.text == "One e&xam at a time"
    assert shown_texts(application) == {"HCCNet1": "2021-03-04, 1 of 2", "HCCNet2": "2021-09-07, 2 of 2"}
    widget = application.manager.plotWidget(0)
    assert widget.mrmlPlotViewNode().GetPlotChartNodeID() == Result.find(scene).node("chart.risk").GetID()
    axis = widget.plotView().chart().GetAxis(1)
    labels = axis.GetTickLabels()
    assert [labels.GetValue(n) for n in range(labels.GetNumberOfValues())] == list(DATES)
    window.ui.layoutButton.click()
    assert application.manager.layout == usual
    assert set(shown_texts(application).values()) == {"2021-09-07, 2 of 2"}
    assert window.ui.layoutButton.text == "E&xams side by side"
    window.ui.layoutButton.click()
    assert side_by_side.is_ours(application.manager.layout)
    window.ui.removeResultButton.click()
    assert application.manager.layout == usual


@pytest.mark.parametrize(
    ("horizons", "chart", "labels"),
    [((6.0, 12.0, 24.0), "chart.horizons", ["6", "12", "24"]), (None, "chart.risk", [DATES[1]])],
)
def test_a_lone_exam_is_shown_with_its_risk_by_horizon(
    window: Any, patient: int, application: Application, scene: Any, horizons: Any, chart: str, labels: list[str]
) -> None:
    fill(window)
    window.ui.examTable.selectRow(0)
    window.ui.removeExamButton.click()
    tick()
    predict(window, horizons=horizons)
    widget = application.manager.plotWidget(0)
    assert widget.mrmlPlotViewNode().GetPlotChartNodeID() == Result.find(scene).node(chart).GetID()
    drawn = widget.plotView().chart().GetAxis(1).GetTickLabels()
    assert [drawn.GetValue(n) for n in range(drawn.GetNumberOfValues())] == labels


def test_what_is_told_of_a_scene_that_is_opened_stays(window: Any, patient: int, scene: Any, tmp_path: Path) -> None:
    fill(window)
    predict(window)
    window.logic.getParameterNode().SetParameter("HCCNet.Exams", "{")
    window.logic.predictions.begun.clear()
    save(scene, tmp_path / "scene")
    scene.Clear(False)
    tick()
    scene.Connect()
    tick()
    tick()
    assert window.ui.figureLabel.text == "12.3%"
    assert window.ui.errorLabel.text.startswith("The table of exams that the scene keeps can't be read")


def test_a_layout_that_is_chosen_in_slicer_is_followed(window: Any, patient: int, application: Application) -> None:
    fill(window)
    predict(window)
    ours = application.manager.layout
    application.manager.setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutOneUpRedSliceView)
    tick()
    assert window.ui.layoutButton.text == "E&xams side by side"
    assert shown_texts(application) == {"Red": "2021-09-07, 2 of 2"}
    application.manager.setLayout(ours)
    tick()
    assert window.ui.layoutButton.text == "One e&xam at a time"


def test_the_window_opens_in_a_slicer_without_a_main_window(
    make_window: Callable[[], Any], application: Application, patient: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Slicer's generic tests of a module do."""
    monkeypatch.setattr(application, "layoutManager", lambda: None)
    samples = types.SimpleNamespace(registerCustomSampleDataSource=lambda **source: None)
    monkeypatch.setitem(sys.modules, "SampleData", types.SimpleNamespace(SampleDataLogic=samples))
    sys.modules["HCCNet"].HCCNet(types.SimpleNamespace())
    application.started()
    window = make_window()
    fill(window)
    predict(window)
    assert window.ui.figureLabel.text == "12.3%"
    window.ui.layoutButton.click()
    window.cleanup()


def test_views_that_change_their_size_are_fitted_again(
    window: Any, patient: int, application: Application, scene: Any
) -> None:
    fill(window)
    predict(window)
    legend = Result.find(scene).node("legend")
    for size in ((200, 300), (400, 500)):
        for name in ("HCCNet1", "HCCNet2"):
            application.manager.node(name).SetDimensions(*size, 1)
        tick()
        assert np.array(legend.GetSize()) * size == pytest.approx((32, 110))


def test_closing_the_scene_leads_back_to_the_usual_layout_and_keeps_nothing_alive(
    window: Any, patient: int, application: Application, scene: Any
) -> None:
    usual = application.manager.layout
    fill(window)
    predict(window)
    tree, segmentation = vtk.vtkWeakReference(), scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "liver")
    window.ui.examTable.selectRow(1)
    window.ui.liverSelector.pick(segmentation)
    tick()
    tree.Set(hierarchy(scene))
    del segmentation
    window.logic.predictions.begun.clear()
    scene.Clear(False)
    tick()
    assert tree.Get() is None
    assert application.manager.layout == usual


def test_a_scene_that_is_opened_keeps_its_layout_and_a_result_of_a_script_does_too(
    window: Any, patient: int, application: Application, scene: Any, tmp_path: Path
) -> None:
    usual = application.manager.layout
    fill(window)
    window.logic.predictions.begin(window.exams.table.exams(), Settings())
    window.logic.predictions.finish()
    window.logic.predictions.events.clear()
    tick()
    assert window.ui.figureLabel.text == "12.3%"
    assert application.manager.layout == usual
    window.ui.layoutButton.click()
    window.logic.predictions.begin(window.exams.table.exams()[:1], Settings())
    window.logic.predictions.finish()
    window.logic.predictions.events.clear()
    tick()
    assert application.manager.layout == side_by_side.layout_for(1)


def test_a_liver_that_is_chosen_is_outlined_on_its_exam(
    window: Any, patient: int, application: Application, scene: Any
) -> None:
    fill(window)
    liver = scene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "liver")
    window.ui.examTable.selectRow(1)
    window.ui.liverSelector.pick(liver)
    tick()
    red = application.manager.node("Red").GetID()
    assert scene.GetNodeByID(application.composites["Red"].GetBackgroundVolumeID()).GetName().endswith(DATES[1])
    assert liver.GetDisplayNode().GetVisibility(red)
    application.composites["Red"].SetBackgroundVolumeID(scene.GetFirstNodeByName("DWI_b0 2021-03-04").GetID())
    assert not liver.GetDisplayNode().GetVisibility(red)
    window.ui.liverSelector.pick(None)
    tick()
    assert liver.GetDisplayNode().GetVisibility(red)


def test_tab_goes_through_the_table_from_row_to_row(window: Any, patient: int) -> None:
    fill(window)
    columns = (USE, DATE, *range(FIRST, FIRST + 4))
    cells = [window.ui.examTable, *(cell(window, row, column) for row in (0, 1) for column in columns)]
    order = sys.modules["qt"].QWidget.order[-len(cells) + 1 :]
    assert [tuple(map(id, pair)) for pair in order] == [tuple(map(id, pair)) for pair in itertools.pairwise(cells)]


def test_the_panel_is_never_narrower_than_its_content(window: Any) -> None:
    assert window.ui.scrollArea.minimumWidth == 375


@pytest.mark.parametrize(
    ("spread", "widths"),
    [
        ((0.08, 0.12, 0.2), ["8.0%", "4.0%", "8.0%", "80.0%"]),
        ((0.0, 0.0, 0.0), ["0.5%", "100.0%"]),
        ((0.5, 0.5, 0.5), ["50.0%", "0.5%", "50.0%"]),
        ((0.9, 0.97, 1.0), ["90.0%", "7.0%", "3.0%"]),
    ],
)
def test_the_bar_runs_from_0_to_100_percent(window: Any, spread: Any, widths: list[str]) -> None:
    bar = importlib.import_module("HCCNetWindow.result_panel").spread_bar(*spread)
    assert re.findall(r'<td width="([^"]+)"', bar) == widths


def test_close_exams_do_not_write_their_dates_over_each_other(window: Any) -> None:
    date_labels = importlib.import_module("HCCNetWindow.views").date_labels
    days = [datetime.date(2015, 1, 1), datetime.date(2021, 1, 1), datetime.date(2021, 2, 1), datetime.date(2021, 9, 1)]
    assert date_labels(days) == {2015.0: "2015-01-01", 2021 + 243 / 365: "2021-09-01"}
    assert date_labels(days[:1]) == {2015.0: "2015-01-01"}


def test_report_table_and_maps_are_saved(window: Any, patient: int, tmp_path: Path) -> None:
    fill(window)
    predict(window)
    out = tmp_path / "saved"
    out.mkdir()
    FileDialog.answer = str(out / "r.html")
    window.ui.exportReportButton.click()
    FileDialog.answer = str(out / "t.csv")
    window.ui.exportTableButton.click()
    FileDialog.answer = str(out)
    window.ui.exportMapsButton.click()
    assert "<title>Report</title>" in (out / "r.html").read_text(encoding="utf-8")
    assert (out / "t.csv").read_text().count("\n") == 3
    assert "risk_6_months,low_6_months,high_6_months" in (out / "t.csv").read_text()
    assert window.ui.statusLabel.text == "Saved: 6 file(s)."
    maps = out / "HCCNet maps 2021-09-07"
    names = sorted(path.name for path in maps.glob("*.nii.gz"))
    assert names == [
        *("2021-03-04-against.nii.gz", "2021-03-04-towards.nii.gz"),
        *(f"2021-09-07-{kind}.nii.gz" for kind in ("against", "less", "more", "towards")),
    ]
    import nibabel as nib

    image = nib.load(maps / "2021-09-07-towards.nii.gz")
    np.testing.assert_allclose(image.affine, AFFINE, atol=1e-5)
    np.testing.assert_array_equal(
        np.asarray(image.dataobj), slicer.util.arrayFromVolume(window.result.result.map_node(1)).transpose(2, 1, 0)
    )
    FileDialog.answer = str(out)
    window.ui.exportMapsButton.click()
    assert (out / "HCCNet maps 2021-09-07 (2)").is_dir()
    FileDialog.answer = str(out / "without-suffix")
    window.ui.exportTableButton.click()
    assert (out / "without-suffix.csv").is_file()
    FileDialog.answer = str(tmp_path / "nowhere" / "r.html")
    window.ui.exportReportButton.click()
    assert window.ui.errorLabel.text == "Nothing could be saved there: No such file or directory."
    assert not list(out.rglob(".hccnet-*"))


# ---------------------------------------------------------------- bundles, settings, setup


def test_a_card_tells_the_horizons_of_both_versions_of_a_bundle(window: Any, tmp_path: Path) -> None:
    content = json.loads((DEMONSTRATION / "bundle.json").read_text())
    one = {"format_version": 1, "calibration": {"slope": 1.0, "intercept": 0.0, "fitted_on": ""}}
    several = {
        "format_version": 2,
        "horizons_months": [6.0, 12.0, 18.0, 24.0, 36.5],
        "calibration": [one["calibration"]] * 5,
        "average_risk": None,
    }
    new = {"horizons_months", "average_risk"}
    old = {name: value for name, value in content.items() if name not in new} | one | {"horizon_months": 12.0}
    for name, bundle in (("one", old), ("two", old | several | {"horizons_months": [12.0]}), ("five", old | several)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "bundle.json").write_text(json.dumps(bundle))
        FileDialog.answer = str(tmp_path / name)
        window.ui.addBundleButton.click()
        words = "Horizons: 6, 12, 18, 24, 36.5 months; main: 12 months" if name == "five" else "Horizon: 12 months"
        assert words in window.ui.cardLabel.text.splitlines()


def test_a_bundle_s_card_is_shown_and_its_channels_become_columns(window: Any, tmp_path: Path, patient: int) -> None:
    assert window.ui.cardLabel.text.startswith("Demonstration: a result has no meaning for a patient.")
    text = (DEMONSTRATION / "bundle.json").read_text()
    bundle = tmp_path / "mine"
    bundle.mkdir()
    text = text.replace('"demonstration": true', '"demonstration": false').replace('"DWI_b800"', '"T1_native"')
    (bundle / "bundle.json").write_text(text)
    FileDialog.answer = str(bundle)
    window.ui.addBundleButton.click()
    fill(window)
    assert window.ui.bundleComboBox.texts == ["Demonstration (phantom)", "mine"]
    assert window.ui.cardLabel.text.startswith("phantom-demonstration 1, 10 networks\nChannels: DWI_b0, DWI_b150")
    assert window.ui.examTable.horizontalHeaderLabels[-1] == "T1_native"
    window.ui.bundleComboBox.pick("Demonstration (phantom)")
    tick()
    assert window.ui.examTable.horizontalHeaderLabels[-1] == "b800"


def test_a_folder_that_is_no_bundle_is_refused_in_words(window: Any, tmp_path: Path) -> None:
    FileDialog.answer = str(tmp_path)
    window.ui.addBundleButton.click()
    assert window.ui.errorLabel.text.endswith(
        " is no bundle: it holds no bundle.json that can be read. Choose a bundle's folder."
    )
    assert window.ui.bundleComboBox.texts == ["Demonstration (phantom)"]


def test_a_bundle_that_went_away_is_told_and_predict_waits(make_window: Any, patient: int, tmp_path: Path) -> None:
    qt_fakes.Settings.kept["HCCNet/Bundles"] = [str(tmp_path / "gone")]
    window = make_window()
    fill(window)
    window.ui.bundleComboBox.pick("gone")
    tick()
    assert window.ui.cardLabel.text == (
        "gone is no bundle: it holds no bundle.json that can be read. Choose a bundle's folder."
    )
    assert not window.ui.predictButton.enabled
    assert window.ui.predictButton.toolTip.startswith("Choose a bundle that can be read.")


def test_verifying_a_bundle_tells_whether_it_is_whole(window: Any) -> None:
    """By the library's own command in a process of its own."""
    import time

    window.ui.verifyBundleButton.click()
    assert not window.ui.verifyBundleButton.enabled
    deadline = time.monotonic() + 60
    while not window.ui.verifyBundleButton.enabled and time.monotonic() < deadline:
        tick()
        time.sleep(0.05)
    assert window.ui.cardLabel.text.endswith("Verified: every file is whole.")


def test_a_verification_says_nothing_about_another_bundle(window: Any, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(DEMONSTRATION, tmp_path / "copy")
    window.ui.verifyBundleButton.click()
    FileDialog.answer = str(tmp_path / "copy")
    window.ui.addBundleButton.click()
    assert window.ui.verifyBundleButton.enabled
    tick()
    assert "Verified" not in window.ui.cardLabel.text


def test_methods_and_devices_are_the_library_s(window: Any) -> None:
    parameters = sys.modules["HCCNetWindow.parameters"]
    assert set(parameters.METHODS) == set(METHODS)
    assert parameters.METHODS[0] == DEFAULT_METHOD
    setup = sys.modules["HCCNetWindow.setup_panel"]
    assert len(setup.method_words()) == len(setup.CHOICES)
    assert len(setup.device_words()) == len(parameters.DEVICES)
    report = sys.modules["HCCNetWindow.result_panel"]
    assert len(report.kind_words()) == len(report.KINDS)


def test_settings_are_kept_and_used(window: Any, patient: int) -> None:
    fill(window)
    window.ui.deviceComboBox.pick("Processor")
    window.ui.methodComboBox.pick("Attention over exams only")
    window.ui.predictButton.click()
    _, settings = window.logic.predictions.begun[-1]
    assert (settings.device, settings.explain) == ("cpu", "attention")
    assert window._parameters.device == "cpu"


def test_the_setup_check_shows_versions_and_what_is_missing(window: Any) -> None:
    window.ui.setupButton.click()
    text = window.ui.setupText.plainText
    assert "torch " in text
    assert "Worker: torch 2.13" in text
    assert text.endswith("All that a prediction needs is there.")


def test_what_broken_off_predictions_left_can_be_removed(window: Any, application: Application) -> None:
    import os
    import time

    old, young = (Path(application.temporaryPath) / f"HCCNet-{name}" for name in ("old", "young"))
    for folder in (old, young):
        folder.mkdir()
        (folder / "exam.nii").write_bytes(b"0" * 2_000_000)
    os.utime(old, (time.time() - 2e5,) * 2)
    window.ui.setupButton.click()
    assert window.ui.temporaryLabel.text == "2.0 MB left over"
    window.ui.clearTemporaryButton.click()
    assert not old.exists()
    assert young.exists()  # another Slicer may be predicting from it


# ---------------------------------------------------------------- scenes, reload, two windows


def test_closing_the_scene_empties_the_window(window: Any, patient: int, scene: Any, application: Application) -> None:
    fill(window)
    predict(window)
    scene.Clear(False)
    tick()
    assert window.ui.examTable.rowCount == 0
    assert window.ui.resultLabel.text == NO_RESULT
    assert set(application.texts) == {""}
    assert not window.ui.predictButton.enabled


def test_a_saved_scene_brings_table_settings_and_result_back(
    window: Any, patient: int, scene: Any, tmp_path: Path
) -> None:
    fill(window)
    cell(window, 0, DATE).pick("2021-03-05")
    tick()
    window.ui.deviceComboBox.pick("Processor")
    predict(window)
    window.ui.resultTable.selectRow(0)
    sentence = window.ui.resultLabel.text
    save(scene, tmp_path / "scene")
    window.logic.predictions.begun.clear()  # it would keep the volumes alive
    scene.Clear(False)
    tick()
    scene.Connect()
    tick()
    assert [row.date.isoformat() for row in window.exams.table.rows] == ["2021-03-05", "2021-09-07"]
    assert window.ui.resultLabel.text == sentence
    assert window.ui.deviceComboBox.texts[window.ui.deviceComboBox.currentIndex] == "Processor"
    assert window.ui.resultTable.currentRow() == 0


def test_two_windows_show_the_same_and_one_that_closes_ends_only_its_own_worker(
    make_window: Callable[[], Any], patient: int, application: Application
) -> None:
    first, second = make_window(), make_window()
    fill(first)
    predict(first)
    second.enter()
    tick()
    assert second.ui.resultLabel.text == first.ui.resultLabel.text
    assert second.ui.examTable.rowCount == 2
    first.ui.deviceComboBox.pick("Processor")
    assert second.ui.deviceComboBox.texts[second.ui.deviceComboBox.currentIndex] == "Processor"
    worker = first.logic.predictions
    first.cleanup()
    assert set(application.texts) == {"2021-09-07, 2 of 2"}
    assert worker.closed == 1
    assert second.logic.predictions.closed == 0
    tick()  # the closed window's timers tick no more
    assert second.ui.resultTable.rowCount == 2


def test_what_another_window_chose_is_what_this_one_predicts(
    make_window: Callable[[], Any], patient: int, scene: Any, tmp_path: Path
) -> None:
    first, second = make_window(), make_window()
    fill(first)
    predict(first)
    tick()
    for name in ("X", "Y"):
        add_volume(scene, name, np.ones((40, 36, 12), np.int16), AFFINE)
    tick()
    for name in ("X", "Y"):
        cell(first, 0, FIRST).pick(name)
        tick()
        tick()
        assert second.exams.table.rows[0].cells["DWI_b0"].node.GetName() == name
        assert cell(second, 0, FIRST).picked == name
    first.ui.methodComboBox.pick("Attention over exams only")
    for _ in range(3):
        tick()
    assert "the explanation" in second.ui.staleLabel.text
    qt_fakes.Settings.kept["HCCNet/Bundles"] = [str(tmp_path / "gone")]
    first.model.choose("")
    first.ui.bundleComboBox.pick("gone")
    tick()
    tick()
    assert not second.ui.predictButton.enabled


def test_what_was_corrected_last_is_kept_when_the_module_is_left(window: Any, patient: int) -> None:
    fill(window)
    cell(window, 0, USE).emit("clicked(bool)", False)
    cell(window, 1, DATE).type("2022-02-02")
    window.exit()
    tick()
    window.enter()
    tick()
    assert [state(window, n) for n in (0, 1)] == ["left out", "ready"]
    assert window.exams.table.rows[1].date.isoformat() == "2022-02-02"


def test_a_date_that_is_corrected_in_the_hierarchy_is_shown_and_goes_out(window: Any, patient: int, scene: Any) -> None:
    fill(window)
    edit = cell(window, 0, DATE)
    edit.focus = True  # the user looks at it, and types nothing
    tree = hierarchy(scene)
    study = tree.GetItemParent(tree.GetItemByDataNode(window.exams.table.rows[0].cells["DWI_b0"].node))
    tree.SetItemAttribute(study, "DICOM.StudyDate", "20210401")
    tick()
    assert edit.date.toString("yyyy-MM-dd") == "2021-04-01"
    window.ui.predictButton.click()
    assert [exam.exam_id for exam in window.logic.predictions.begun[-1][0]] == ["2021-04-01", "2021-09-07"]
    assert window.exams.table.state.corrections.dates == {}


def test_a_liver_that_is_moved_makes_the_result_out_of_date(window: Any, patient: int, scene: Any) -> None:
    fill(window)
    roi = scene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "liver")
    roi.SetSize(60.0, 60.0, 60.0)
    window.ui.examTable.selectRow(1)
    window.ui.liverSelector.pick(roi)
    tick()
    predict(window)
    tick()
    assert not window.ui.staleLabel.visible
    roi.SetCenter(5.0, 6.0, 7.0)
    tick()
    assert "the liver of an exam" in window.ui.staleLabel.text


def test_a_damaged_table_in_a_scene_with_a_result_is_told(window: Any, patient: int, scene: Any) -> None:
    fill(window)
    predict(window)
    window.logic.getParameterNode().SetParameter("HCCNet.Exams", "{")
    window.exit()
    window.logic.getParameterNode().SetParameter("HCCNet.Exams", "{")
    window.enter()
    assert window.ui.errorLabel.visible
    assert window.ui.errorLabel.text.startswith("The table of exams that the scene keeps can't be read")


def test_what_the_reader_told_stays_when_the_module_is_left(window: Any, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(ROOT / "HCCNetLib" / "samples" / "RA01", tmp_path / "P")
    (tmp_path / "P" / "notes").mkdir()
    FileDialog.answer = str(tmp_path / "P")
    window.ui.addFolderButton.click()
    tick()
    told = "The folder notes was passed over: it holds no image."
    assert told in window.ui.problemsLabel.text
    window.exit()
    window.enter()
    tick()
    assert told in window.ui.problemsLabel.text


def test_leaving_the_module_and_coming_back_loses_nothing(window: Any, patient: int) -> None:
    fill(window)
    window.exit()
    predict_finished_meanwhile = window.logic.predictions
    window.enter()
    tick()
    assert window.ui.examTable.rowCount == 2
    assert predict_finished_meanwhile.closed == 0


def test_reload_drops_the_helpers_so_that_their_changes_count(window: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    reloaded = []
    base = sys.modules["slicer.ScriptedLoadableModule"].ScriptedLoadableModuleWidget
    monkeypatch.setattr(base, "onReload", lambda self: reloaded.append(True), raising=False)
    kept = {name: module for name, module in sys.modules.items() if name.startswith(("HCCNetSlicer", "HCCNetWindow"))}
    try:
        window.onReload()
        assert reloaded == [True]
        assert not [name for name in sys.modules if name.startswith(("HCCNetSlicer", "HCCNetWindow"))]
    finally:
        sys.modules.update(kept)


def test_a_window_that_could_not_be_built_closes_quietly(
    make_window: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    make_window()
    widget = sys.modules["HCCNet"].HCCNetWidget()

    def fail(path: str) -> None:
        raise RuntimeError("no file")

    monkeypatch.setattr(slicer.util, "loadUI", fail)
    with pytest.raises(RuntimeError, match="no file"):
        widget.setup()
    widget.enter()
    widget.cleanup()


def test_the_wheel_scrolls_and_changes_no_choice(window: Any, patient: int) -> None:
    fill(window)
    ignored = []
    wheel = types.SimpleNamespace(type=lambda: sys.modules["qt"].QEvent.Wheel, ignore=lambda: ignored.append(True))
    for widget in (cell(window, 0, DATE), window.ui.bundleComboBox):
        assert widget.watcher.eventFilter(widget, wheel)
    assert len(ignored) == 2


@pytest.mark.parametrize("how", ["name", "b-value", "description", "image type", "echo time", "time after contrast"])
def test_every_way_in_which_the_library_recognises_a_series_has_words(window: Any, how: str) -> None:
    words = importlib.import_module("HCCNetWindow.exam_panel").how_words(Cell(None, how))
    assert words.startswith("Recognised by ")
    assert words.endswith((".", "look whether it is right."))
    assert ("look whether it is right" in words) == (how not in ("name", "b-value"))
