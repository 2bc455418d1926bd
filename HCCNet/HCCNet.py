"""The Slicer module HCCNet: the risk of future hepatocellular carcinoma from a time series of liver MRI exams.

Research software, not a medical device. The networks run in a process of their own; nothing here needs torch.
"""

from __future__ import annotations

import datetime
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import slicer
import vtk
from slicer.i18n import tr as _
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)


def _library_root() -> Path:
    """The folder that holds ``HCCNetLib``: this file's where installed, the one above in a source tree."""
    here = Path(__file__).resolve().parent
    for folder in (here, here.parent):
        if (folder / "HCCNetLib" / "records.py").is_file():
            return folder
    raise ImportError("The library HCCNetLib is not where the module HCCNet is. Install the extension again.")


if str(_library_root()) not in sys.path:
    sys.path.insert(0, str(_library_root()))

from HCCNetLib.records import Refusal  # noqa: E402
from HCCNetSlicer import side_by_side  # noqa: E402
from HCCNetSlicer.bundle_card import BundleCard, read_card  # noqa: E402
from HCCNetSlicer.dependencies import ensure  # noqa: E402
from HCCNetSlicer.exam_problems import Row  # noqa: E402
from HCCNetSlicer.exam_table import ExamTable, TableExam, TableState, fill_by_date  # noqa: E402
from HCCNetSlicer.folders import fill_from_files, fill_from_folder  # noqa: E402
from HCCNetSlicer.hierarchy import RESULT_ATTRIBUTE  # noqa: E402
from HCCNetSlicer.observing import Observers  # noqa: E402
from HCCNetSlicer.prediction import Predictions, Settings, as_shown  # noqa: E402
from HCCNetSlicer.results import Result, remove_all  # noqa: E402
from HCCNetSlicer.sample_data import register_sample_data  # noqa: E402
from HCCNetSlicer.table_storage import is_stored, restore_table, store_table  # noqa: E402
from HCCNetSlicer.worker_client import WorkerClient, default_command  # noqa: E402

Exams = ExamTable | Sequence[TableExam] | Mapping[datetime.date | str, Mapping[str, Any]]


class HCCNet(ScriptedLoadableModule):
    """What Slicer shows of the module."""

    def __init__(self, parent: Any) -> None:
        ScriptedLoadableModule.__init__(self, parent)
        parent.title = "HCCNet"
        parent.categories = ["Quantification"]
        parent.dependencies = []
        parent.contributors = ["The HCCNet developers"]
        parent.helpText = _(
            "Risk of future hepatocellular carcinoma from a patient's time series of liver MRI exams. Research software, not "
            "a medical device; not for clinical use."
        )
        parent.acknowledgementText = _(
            "After the method of Nolte et al., A CNN-Transformer for Classification of Longitudinal 3D MRI Images, "
            "arXiv 2501.10733. The demonstration networks have learned from generated images and know nothing of patients."
        )
        slicer.app.connect("startupCompleted()", _register)


def _register() -> None:
    """Makes samples and layouts known to Slicer: a saved scene may have been saved in one of the layouts."""
    register_sample_data(Path(__file__).resolve().parent / "Resources" / "Icons" / "HCCNet.png")
    manager = slicer.app.layoutManager()
    if manager is not None:
        side_by_side.register(manager.layoutLogic().GetLayoutNode())


class HCCNetWidget(ScriptedLoadableModuleWidget):
    """The module's window: its panels, and what one of them means for the others."""

    def __init__(self, parent: Any = None) -> None:
        ScriptedLoadableModuleWidget.__init__(self, parent)
        self._of_scene, self._of_parameters, self._of_hierarchy, self._of_livers = (Observers() for _ in range(4))
        self._parameters: Any = None
        self._gui_tag: Any = None
        self.logic: HCCNetLogic | None = None
        self.run: Any = None
        self.exams: Any = None
        self.dicom: Any = None
        self.model: Any = None
        self.advanced: Any = None
        self.result: Any = None
        self._outlines: Any = None
        self._kept: TableState | None = None  # the table as this window last gave it to the scene, or took it

    def setup(self) -> None:
        """Builds the window."""
        from HCCNetWindow.dicom_panel import DicomPanel
        from HCCNetWindow.exam_panel import ExamPanel
        from HCCNetWindow.helpers import WheelFilter
        from HCCNetWindow.model_panel import ModelPanel
        from HCCNetWindow.result_panel import ResultPanel
        from HCCNetWindow.run_panel import RunPanel
        from HCCNetWindow.setup_panel import SetupPanel
        from HCCNetWindow.views import LiverOutlines

        ScriptedLoadableModuleWidget.setup(self)
        window = slicer.util.loadUI(self.resourcePath("UI/HCCNet.ui"))
        self.layout.addWidget(window)
        self.ui = slicer.util.childWidgetVariables(window)
        window.setMRMLScene(slicer.mrmlScene)
        self.logic = HCCNetLogic()
        self._wheel = WheelFilter()
        for name in ("bundleComboBox", "kindComboBox", "deviceComboBox", "methodComboBox"):
            getattr(self.ui, name).installEventFilter(self._wheel)
        self.run = RunPanel(
            self.ui, lambda: self.logic.predictions, self._begin, self._running_changed, self._show_result
        )
        self.exams = ExamPanel(
            self.ui, ExamTable(slicer.mrmlScene), self.logic.fill_from_folder, self._exams_changed, self.run.tell
        )
        self.dicom = DicomPanel(
            self.ui, lambda files: self.logic.fill_from_files(self.exams.table, files), self.exams.attempt
        )
        self.model = ModelPanel(self.ui, self._bundle_changed, self.run.tell, verification_command)
        self.advanced = SetupPanel(
            self.ui, self._settings_changed, temporary_folder(), self._worker_versions, self.logic.close
        )
        self._outlines = LiverOutlines()
        self.result = ResultPanel(self.ui, slicer.mrmlScene, self._stale_reasons, self.run.tell, self.run.say)
        scene, events = slicer.mrmlScene, slicer.vtkMRMLScene
        self._of_scene.add(scene, events.StartCloseEvent, self._scene_starts_to_close)
        for event in (events.EndCloseEvent, events.EndImportEvent):
            self._of_scene.add(scene, event, self._scene_is_another)
        for event in (events.NodeAddedEvent, events.NodeRemovedEvent, events.EndBatchProcessEvent):
            self._of_scene.add(scene, event, self._nodes_changed)
        self._take_parameters()
        self.result.request_restore()
        self._fit_width()

    def _fit_width(self) -> None:
        """What is scrolled up and down must never be cut off at its side, however large the letters are."""
        bar = self.ui.scrollArea.verticalScrollBar()
        self.ui.scrollArea.setMinimumWidth(self.ui.contents.minimumSizeHint.width() + bar.sizeHint.width())

    def cleanup(self) -> None:
        """Slicer closes, or the module is reloaded: timers tick on if nobody stops them."""
        for observers in (self._of_scene, self._of_hierarchy, self._of_livers):
            observers.clear()
        if self._outlines is not None:
            self._outlines.leave()
        if self.logic is not None:  # first: whatever happens then, no worker stays
            self.logic.close()
        self._leave_parameters()
        for panel in (self.run, self.exams, self.model, self.result):
            if panel is not None:
                panel.stop()

    def enter(self) -> None:
        """The user opens the module."""
        if self.result is not None:  # else the window could not be built, and Slicer has said why
            self._fit_width()
            self._take_parameters()

    def exit(self) -> None:
        """The user leaves the module; a prediction goes on."""
        if self._parameters is not None:
            self.exams.commit()
            self.exams.update()
        self._leave_parameters()

    def onReload(self) -> None:  # noqa: N802 - Slicer's name
        """Reloads the helpers too: Slicer reloads the main script alone."""
        for name in [name for name in sys.modules if name.split(".")[0] in ("HCCNetSlicer", "HCCNetWindow")]:
            del sys.modules[name]
        ScriptedLoadableModuleWidget.onReload(self)

    # ------------------------------------------------------------ the user's choices, which the scene keeps

    def _take_parameters(self) -> None:
        """Shows what the scene keeps, also after another scene was opened."""
        from HCCNetWindow.parameters import HCCNetParameters

        self._leave_parameters()
        node = self.logic.getParameterNode()
        self._parameters = HCCNetParameters(node)
        self._of_parameters.add(node, vtk.vtkCommand.ModifiedEvent, self._parameter_node_changed)
        self._gui_tag = self._parameters.connectGui(self.ui)
        self.model.choose(self._parameters.bundle)
        self.advanced.choose(self._parameters.device, self._parameters.explain, self._parameters.method)
        self._observe_hierarchy()
        self.result.find()
        self._restore_table()  # last: what it has to tell stays

    def _observe_hierarchy(self) -> None:
        """Dates and patients may be corrected there; the node is another one after a scene was closed."""
        self._of_hierarchy.clear()
        tree = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
        for event in (tree.SubjectHierarchyItemModifiedEvent, tree.SubjectHierarchyItemReparentedEvent):
            self._of_hierarchy.add(tree, event, self._hierarchy_changed)

    def _hierarchy_changed(self, caller: Any, event: str) -> None:
        self.exams.request_update()

    def _leave_parameters(self) -> None:
        if self._parameters is not None:
            self._parameters.disconnectGui(self._gui_tag)
            self._of_parameters.clear()
        self._parameters = self._gui_tag = None

    def _restore_table(self) -> None:
        """Shows the table that the scene keeps: a saved one, or that of another window of the module."""
        told = restore_table(self.exams.table, self.logic.getParameterNode())
        if told is not None:
            self.run.tell(told)
        self._set_channels()
        self._kept = deepcopy(self.exams.table.state)
        self.exams.request_update()

    def _parameter_node_changed(self, caller: Any, event: str) -> None:
        """Another window of the module, or a script, chose something else."""
        parameters = self._parameters
        if parameters.bundle != self.model.path:
            self.model.choose(parameters.bundle)
            self._set_channels()
        self.advanced.choose(parameters.device, parameters.explain, parameters.method)
        if not is_stored(self._kept, caller):
            self._restore_table()
        self.exams.request_update()

    def _scene_starts_to_close(self, caller: Any, event: str) -> None:
        self._leave_parameters()
        self._of_hierarchy.clear()
        self._of_livers.clear()
        self._outlines.leave()
        self.result.forget()
        self.exams.table.clear()

    def _scene_is_another(self, caller: Any, event: str) -> None:
        self._take_parameters()
        self.result.request_restore()

    def _nodes_changed(self, caller: Any, event: str) -> None:
        if not slicer.mrmlScene.IsBatchProcessing():
            self.exams.request_update()
            self.result.request_find()

    # ------------------------------------------------------------ what one panel means for the others

    def _settings(self) -> Settings:
        path = self.model.path
        return Settings(
            bundle=Path(path) if path else None,
            explain=self.advanced.explain,
            method=self.advanced.method,
            device=self.advanced.device,
            one_space=self.exams.table.state.one_space,
        )

    def _begin(self) -> None:
        """Begins a prediction of what the window shows."""
        self.exams.commit()
        self.logic.begin(self.exams.table, self.model.path or None, self._settings())

    def _exams_changed(self) -> None:
        if self._parameters is None:  # the scene is being closed, or the module was left
            return
        if self.exams.table.state != self._kept:
            self._kept = deepcopy(self.exams.table.state)
            store_table(self.exams.table, self.logic.getParameterNode())
        obstacles = [problem.message for problem in self.exams.problems if problem.blocks]
        if self.model.card is None:
            obstacles.insert(0, _("Choose a bundle that can be read."))
        self.run.set_obstacles(obstacles)
        self._observe_livers()
        self.result.request_stale_check()

    def _observe_livers(self) -> None:
        """Outlines the livers; one that is drawn on makes a result out of date: every event is a reason to look."""
        self._of_livers.clear()
        livers = {row.liver: list(_volumes(row)) for row in self.exams.table.rows if row.liver is not None}
        for node in livers:
            self._of_livers.add(node, vtk.vtkCommand.AnyEvent, self._liver_changed)
            if node.IsA("vtkMRMLSegmentationNode"):
                self._of_livers.add(node.GetSegmentation(), vtk.vtkCommand.AnyEvent, self._liver_changed)
        self._outlines.show(list(livers.items()))

    def _liver_changed(self, caller: Any, event: str) -> None:
        self.result.request_stale_check()

    def _bundle_changed(self) -> None:
        self._parameters.bundle = self.model.path
        self._set_channels()
        self.exams.request_update()

    def _set_channels(self) -> None:
        card = self.model.card
        if card is not None:
            self.exams.table.set_channels(card.channels, card.missing_channels)

    def _settings_changed(self) -> None:
        node = self.logic.getParameterNode()
        was_modifying = node.StartModify()  # all at once: whoever is told of the first shows the others as they were
        self._parameters.device = self.advanced.device
        self._parameters.explain = self.advanced.explain
        self._parameters.method = self.advanced.method
        node.EndModify(was_modifying)
        self.result.request_stale_check()

    def _running_changed(self, running: bool) -> None:
        if self.advanced is not None:
            self.advanced.set_running(running)

    def _show_result(self) -> None:
        self.result.find(side_by_side=True)
        self.exams.request_update()

    def _stale_reasons(self, result: Result) -> Sequence[str]:
        """Against what is chosen now; while the table can't be used, against the scene alone."""
        try:
            exams = self.exams.table.exams()
            return result.stale_reasons(self._settings().plain(exams), as_shown(exams), quick=True)
        except Refusal:
            settings = {**self._settings().plain(()), "livers": result.settings.get("livers", {})}
            reasons = result.stale_reasons(settings, quick=True)
            return [*reasons, _("The exams that are chosen now can't be used.")] if self.exams.table.rows else reasons

    def _worker_versions(self) -> dict[str, str]:
        return self.logic.predictions.client.versions


class HCCNetLogic(ScriptedLoadableModuleLogic):
    """All that the module does, for scripts and the console too.

    Example:
        >>> logic = HCCNetLogic()
        >>> table = logic.load_folder("/data/patient")  # or logic.table_from_scene()
        >>> print(logic.predict(table).told())
    """

    def __init__(self) -> None:
        ScriptedLoadableModuleLogic.__init__(self)
        self._predictions: Predictions | None = None

    @property
    def predictions(self) -> Predictions:
        """The predictions with their worker, of which there is one; it starts with the first."""
        if self._predictions is None:
            self._predictions = Predictions(slicer.mrmlScene, _make_client())
        return self._predictions

    def card(self, bundle: str | Path | None = None) -> BundleCard:
        """What a bundle says of itself; the demonstration bundle where None. Raises Refusal."""
        return read_card(None if bundle is None else Path(bundle))

    def table_from_scene(self, bundle: str | Path | None = None) -> ExamTable:
        """The exams of the scene's only patient, for a bundle's channels.

        Raises:
            Refusal: no volume, several patients, or no bundle.
        """
        table = self._table(bundle)
        table.fill_from_scene()
        return table

    def load_folder(self, folder: str | Path, bundle: str | Path | None = None) -> ExamTable:
        """Loads a patient's dated folders into the scene; the table of the exams.

        Raises:
            Refusal: it can't be read.
            DependencyError: what reads images is not installed.
        """
        table = self._table(bundle)
        self.fill_from_folder(table, Path(folder))
        return table

    def fill_from_folder(self, table: ExamTable, folder: Path) -> Sequence[str]:
        """Loads a patient's dated folders into the scene and a table; what a reader should know. Raises as ``load_folder``."""
        # It reads the images; what else is missing is asked for with the prediction.
        if find_spec("nibabel") is None:
            ensure()
        with wait_cursor():
            return fill_from_folder(table, folder)

    def fill_from_files(self, table: ExamTable, files: Sequence[Path]) -> Sequence[str]:
        """Loads a patient's DICOM files into the scene and a table; what a reader should know. Raises Refusal."""
        with wait_cursor():
            return fill_from_files(table, files)

    def predict(
        self,
        exams: Exams,
        bundle: str | Path | None = None,
        settings: Settings | None = None,
        on_event: Callable[[Any], None] | None = None,
    ) -> Result:
        """Predicts, and shows the result in the scene in place of an earlier one.

        Args:
            exams: a table, whose word on patient space holds; or date (``2021-03-14``) → channel → volume node.
            bundle: its folder; that of the settings, else the demonstration bundle, where None.
            settings: how.
            on_event: is given every event, progress for example, as it comes.

        Returns:
            The result; ``result.told()`` says it in words.

        Raises:
            Refusal: the exams can't be used.
            DependencyError: a package is missing and was not installed.
            WorkerError: the prediction failed.
        """
        self.begin(exams, bundle, settings)
        return self.predictions.wait(on_event)

    def begin(self, exams: Exams, bundle: str | Path | None = None, settings: Settings | None = None) -> None:
        """Begins what ``predict`` does, without waiting: ``predictions.poll()`` tells what becomes of it."""
        ensure()  # first: the question lets the scene change, and the exams must be those that go out
        settings = _with_bundle(settings or Settings(), bundle)
        card = self.card(settings.bundle)
        if not isinstance(exams, Sequence):
            table = exams if isinstance(exams, ExamTable) else ExamTable(slicer.mrmlScene)
            table.set_channels(card.channels, card.missing_channels)
            if isinstance(exams, Mapping):
                fill_by_date(table, exams)
                table.set_one_space(settings.one_space)
            settings = replace(settings, one_space=table.state.one_space)
            exams = table.exams()
        self.predictions.begin(exams, settings)

    def result(self) -> Result | None:
        """The result that the scene shows, also one that was saved and opened again."""
        return Result.find(slicer.mrmlScene)

    def remove_result(self) -> None:
        """Removes everything that shows a result, of several and of half-deleted ones too; the exams stay."""
        remove_all(slicer.mrmlScene)

    def close(self) -> None:
        """Ends the worker; the next prediction starts another."""
        if self._predictions is not None:
            self._predictions.close()
            self._predictions = None

    def _table(self, bundle: str | Path | None) -> ExamTable:
        card = self.card(bundle)
        table = ExamTable(slicer.mrmlScene)
        table.set_channels(card.channels, card.missing_channels)
        return table


def _volumes(row: Row) -> Iterator[Any]:
    """An exam's volumes."""
    return (cell.node for cell in row.cells.values() if cell.node is not None)


def _with_bundle(settings: Settings, bundle: str | Path | None) -> Settings:
    """The settings with the bundle that is meant; it may be named in either place."""
    if bundle is None:
        return settings
    path = Path(bundle).absolute()
    if settings.bundle is not None and settings.bundle.absolute() != path:
        raise Refusal("two_bundles", "Two bundles are named, one of them in the settings. Name the one that is meant.")
    return replace(settings, bundle=path)


@contextmanager
def wait_cursor() -> Iterator[None]:
    """The waiting cursor, where there is a window, which goes whatever happens."""
    application = getattr(slicer, "app", None)
    if application is None:
        yield
        return
    import qt

    application.setOverrideCursor(qt.Qt.WaitCursor)
    try:
        yield
    finally:
        application.restoreOverrideCursor()


def temporary_folder() -> Path:
    """Where Slicer keeps temporary files; the system's place where there is no Slicer."""
    application = getattr(slicer, "app", None)
    return Path(tempfile.gettempdir() if application is None else application.temporaryPath)


def verification_command(bundle: Path) -> tuple[list[str], dict[str, str]]:
    """Command and environment that verify a bundle in a process of its own."""
    (python, *_worker), environment = default_command(_library_root())
    return [python, "-m", "HCCNetLib", "bundle", "verify", str(bundle)], environment


def _make_client() -> WorkerClient:
    command, environment = default_command(_library_root())
    return WorkerClient(command, environment, scratch_root=temporary_folder())


class HCCNetTest(ScriptedLoadableModuleTest):
    """The module in a running Slicer, on its own sample patient; run by Slicer's test runner."""

    def setUp(self) -> None:
        """Begins with an empty scene."""
        slicer.mrmlScene.Clear()

    def runTest(self) -> None:  # noqa: N802 - Slicer's name
        """Runs all tests."""
        self.setUp()
        self.test_sample_patient()

    def test_sample_patient(self) -> None:
        """Folder → table → worker → nodes → nothing left."""
        logic = HCCNetLogic()
        try:
            table = logic.load_folder(_library_root() / "HCCNetLib" / "samples" / "RA01")
            result = logic.predict(table)
            self.assertEqual(len(result.prediction["exams"]), 4)
            self.assertIn("no meaning for this patient", result.sentence())
            self.assertEqual(result.stale_reasons(), [])
            logic.remove_result()
            self.assertIsNone(logic.result())
            # Slicer itself may add nodes meanwhile; of ours none stays.
            self.assertFalse([node for node in slicer.mrmlScene.GetNodes() if node.GetAttribute(RESULT_ATTRIBUTE)])
        finally:
            logic.close()
