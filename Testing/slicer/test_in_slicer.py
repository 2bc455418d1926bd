"""The module inside a running Slicer: what no test without Slicer can tell. Run by run_in_slicer.py."""

from __future__ import annotations

import sys
import tempfile
import time
import unittest
from pathlib import Path
from typing import Any

import slicer
import slicer.util

CHANNELS = ("DWI_b0", "DWI_b150", "DWI_b400", "DWI_b800")
DATES = ["2021-03-04", "2021-09-07", "2022-04-20", "2023-01-11"]
WIDGETS = (
    *("researchLabel", "fillButton", "addFolderButton", "examTable", "bundleComboBox", "predictButton", "cancelButton"),
    *("progressBar", "resultLabel", "resultTable", "thresholdSlider", "opacitySlider", "removeResultButton"),
)


def module() -> Any:
    """The module's main script as it is loaded now: a reload makes another."""
    return sys.modules["HCCNet"]


def sample_patient() -> Path:
    import HCCNetLib

    return Path(HCCNetLib.__file__).resolve().parent / "samples" / "RA01"


def let_slicer_work(seconds: float = 0.2) -> None:
    """What waits for the event loop happens."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        slicer.app.processEvents()
        time.sleep(0.01)


def slice_logics() -> list[Any]:
    """Of the slice views that can be seen."""
    layout = slicer.app.layoutManager()
    return [layout.sliceWidget(name).sliceLogic() for name in layout.sliceViewNames()]


class InSlicer(unittest.TestCase):
    """Each test begins and ends with an empty scene."""

    def setUp(self) -> None:
        slicer.mrmlScene.Clear()
        self.addCleanup(slicer.mrmlScene.Clear)
        self.logic = module().HCCNetLogic()
        self.addCleanup(self.logic.close)

    def load(self) -> Any:
        """The sample patient's table; a package that is missing is a failure in words, not an error with a traceback."""
        return self.in_words(lambda: self.logic.load_folder(sample_patient()))

    def predict(self, table: Any) -> Any:
        return self.in_words(lambda: self.logic.predict(table))

    def in_words(self, do: Any) -> Any:
        from HCCNetSlicer.dependencies import DependencyError

        try:
            return do()
        except DependencyError as error:
            raise self.failureException(f"This Slicer lacks what prediction needs. {error}") from None

    def nodes(self) -> list[str]:
        """What lies in the scene, without what Slicer itself may add at any time."""
        collection = slicer.mrmlScene.GetNodes()
        every = [collection.GetItemAsObject(n) for n in range(collection.GetNumberOfItems())]
        return sorted(node.GetID() for node in every if not node.GetHideFromEditors())

    def assert_shown(self, result: Any, index: int) -> None:
        """Every slice view shows the exam and its own map."""
        exam = result.record.exams[index]
        image, overlay = result.volume(index, exam["shown"]), result.map_node(index)
        self.assertIsNotNone(image)
        self.assertIsNotNone(overlay)
        let_slicer_work()
        logics = slice_logics()
        self.assertGreater(len(logics), 0)
        for logic in logics:
            composite = logic.GetSliceCompositeNode()
            self.assertEqual(composite.GetBackgroundVolumeID(), image.GetID())
            self.assertEqual(composite.GetForegroundVolumeID(), overlay.GetID())
            # What is drawn, not only what is asked for.
            self.assertEqual(logic.GetBackgroundLayer().GetVolumeNode().GetID(), image.GetID())
            self.assertEqual(logic.GetForegroundLayer().GetVolumeNode().GetID(), overlay.GetID())


class PredictionTest(InSlicer):
    """From a folder to what the views show, and back."""

    def test_the_slice_views_show_each_exam_with_its_own_map(self) -> None:
        result = self.predict(self.load())
        self.assertEqual([date.isoformat() for date in result.exam_dates], DATES)
        self.assertIn("no meaning for this patient", result.sentence())
        self.assert_shown(result, 3)
        for index in (0, 2, 1):
            self.assertEqual(result.show_exam(index), [])
            self.assert_shown(result, index)

    def test_a_result_that_is_removed_leaves_the_exams_and_nothing_else(self) -> None:
        table = self.load()
        let_slicer_work()
        before = self.nodes()
        result = self.predict(table)
        self.assertGreater(len(self.nodes()), len(before))
        maps = {result.map_node(index).GetID() for index in range(len(DATES))}
        self.logic.remove_result()
        let_slicer_work()
        self.assertIsNone(self.logic.result())
        self.assertEqual(self.nodes(), before)
        for logic in slice_logics():
            self.assertNotIn(logic.GetSliceCompositeNode().GetForegroundVolumeID(), maps)

    def test_a_cancelled_prediction_leaves_nothing_and_the_next_one_works(self) -> None:
        table = self.load()
        before = self.nodes()
        self.in_words(lambda: self.logic.begin(table))
        predictions = self.logic.predictions
        self.assertTrue(predictions.is_running)
        end = time.monotonic() + 2
        while time.monotonic() < end and predictions.is_running:
            predictions.poll()
            let_slicer_work(0.05)
        predictions.cancel()
        self.assertFalse(predictions.is_running)
        let_slicer_work()
        self.assertIsNone(self.logic.result())
        self.assertEqual(self.nodes(), before)
        self.assertEqual(len(self.predict(table).prediction["exams"]), 4)

    def test_closing_the_scene_cancels_a_prediction(self) -> None:
        table = self.load()
        self.in_words(lambda: self.logic.begin(table))
        slicer.mrmlScene.Clear()
        self.assertFalse(self.logic.predictions.is_running)
        self.assertIsNone(self.logic.result())

    def test_a_scene_that_is_saved_and_opened_again_shows_the_same_result(self) -> None:
        result = self.predict(self.load())
        result.show_exam(1)
        result.set_threshold(0.35)
        told, prediction = result.sentence(), result.prediction
        with tempfile.TemporaryDirectory() as folder:
            file = str(Path(folder) / "patient.mrb")
            self.assertTrue(slicer.util.saveScene(file))
            slicer.mrmlScene.Clear()
            self.assertIsNone(self.logic.result())
            slicer.util.loadScene(file)
        reopened = self.logic.result()
        self.assertIsNotNone(reopened)
        self.assertEqual(reopened.restore(), [])
        self.assertEqual(reopened.sentence(), told)
        self.assertEqual(reopened.prediction, prediction)
        self.assertEqual(reopened.shown_index, 1)
        self.assertEqual(reopened.threshold, 0.35)
        self.assertEqual(reopened.stale_reasons(), [])
        self.assert_shown(reopened, 1)
        display = reopened.map_node(1).GetDisplayNode()
        self.assertAlmostEqual(display.GetLowerThreshold(), 0.35)
        self.assertEqual(display.GetColorNode().GetNumberOfColors(), 256)


class ReloadTest(InSlicer):
    """What developers do all the time."""

    def test_a_reloaded_module_finds_the_result_of_the_one_before(self) -> None:
        self.predict(self.load())
        before = module()
        slicer.util.selectModule("HCCNet")
        slicer.util.reloadScriptedModule("HCCNet")
        self.assertIsNot(module(), before)
        logic = module().HCCNetLogic()
        self.addCleanup(logic.close)
        self.assertEqual(len(logic.result().prediction["exams"]), 4)
        logic.remove_result()
        self.assertIsNone(self.logic.result())

    def test_a_reloaded_module_predicts(self) -> None:
        slicer.util.selectModule("HCCNet")
        slicer.util.reloadScriptedModule("HCCNet")
        self.logic = module().HCCNetLogic()
        self.addCleanup(self.logic.close)
        self.assertEqual(len(self.predict(self.load()).prediction["exams"]), 4)


class SampleDataTest(InSlicer):
    """The sample patients in Slicer's module Sample Data."""

    def setUp(self) -> None:
        super().setUp()
        import SampleData

        from HCCNetSlicer.sample_data import SAMPLES, register_sample_data

        register_sample_data(Path(module().__file__).parent / "Resources" / "Icons" / "HCCNet.png")
        self.samples, self.sample_data = SAMPLES, SampleData.SampleDataLogic()

    def test_each_sample_is_offered_once_and_the_generated_patient_first(self) -> None:
        offered = self.sample_data.sampleDataSourcesByCategory("HCCNet")
        self.assertEqual([source.sampleName for source in offered], [sample.name for sample in self.samples])
        self.assertEqual([sample.is_generated for sample in self.samples], [True, False])

    def test_the_button_brings_a_patient_whose_exams_are_ready(self) -> None:
        for sample in self.samples:
            with self.subTest(sample.name):
                slicer.mrmlScene.Clear()
                source = self.sample_data.sourceForSampleName(sample.name)
                self.assert_volumes(source.customDownloader(source))
                table = self.filled_table(sample)
                self.assertEqual([problem.message for problem in table.problems()], [])
                self.assertEqual(set(table.statuses(table.problems()).values()), {"ready"})
                let_slicer_work()
                latest = table.exams()[-1].volumes["DWI_b0"].GetID()
                shown = {logic.GetSliceCompositeNode().GetBackgroundVolumeID() for logic in slice_logics()}
                self.assertEqual(shown, {latest})

    def test_slicers_functions_for_scripts_bring_volumes(self) -> None:
        for sample in self.samples:
            with self.subTest(sample.name):
                slicer.mrmlScene.Clear()
                self.assert_volumes(self.sample_data.downloadSamples(sample.name))
                self.filled_table(sample)

    def assert_volumes(self, nodes: list[Any]) -> None:
        self.assertEqual([node.GetClassName() for node in nodes], ["vtkMRMLScalarVolumeNode"] * 16)
        self.assertEqual(slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode"), 0)

    def filled_table(self, sample: Any) -> Any:
        """A table that has found the sample's exams."""
        from HCCNetSlicer.exam_table import ExamTable

        table = ExamTable(slicer.mrmlScene, CHANNELS)
        table.fill_from_scene()
        self.assertEqual([exam.exam_id for exam in table.exams()], sorted({f.parent.name for f in sample.files()}))
        for exam in table.exams():
            self.assertEqual(tuple(exam.volumes), CHANNELS)
        return table


class WindowTest(InSlicer):
    """The module's panel."""

    def setUp(self) -> None:
        super().setUp()
        slicer.util.selectModule("HCCNet")
        let_slicer_work()
        self.widget = slicer.modules.hccnet.widgetRepresentation().self()

    def part(self, name: str, window: Any = None) -> Any:
        """A widget of a window by its name in the .ui file."""
        return getattr((window or self.widget).ui, name)

    def test_the_window_opens_and_has_its_parts(self) -> None:
        self.assertEqual(slicer.util.selectedModule(), "HCCNet")
        missing = [name for name in WIDGETS if not hasattr(self.widget.ui, name)]
        self.assertEqual(missing, [])

    def test_the_result_is_said_to_be_research_before_anything_is_done(self) -> None:
        self.assertIn("research", self.part("researchLabel").text.lower())

    def test_the_logic_is_found_as_the_documentation_says(self) -> None:
        self.assertIsInstance(slicer.util.getModuleLogic("HCCNet"), module().HCCNetLogic)

    def test_the_window_outlives_a_closed_scene(self) -> None:
        slicer.mrmlScene.Clear()
        let_slicer_work()
        slicer.util.selectModule("Data")
        slicer.util.selectModule("HCCNet")
        let_slicer_work()
        self.assertTrue(self.part("fillButton").visible)

    def test_a_second_window_has_parts_of_its_own(self) -> None:
        # Slicer's module keeps it and deletes it at the end; the newest takes this name from the first.
        self.addCleanup(setattr, slicer.modules, "HCCNetWidget", slicer.modules.HCCNetWidget)
        second = slicer.util.getNewModuleWidget("HCCNet")
        let_slicer_work()
        self.assertIsNot(second, self.widget)
        self.part("fillButton", second).setProperty("whose", "second")
        self.assertIsNone(self.part("fillButton").property("whose"))

    def wait_for(self, condition: Any, seconds: float = 120) -> None:
        end = time.monotonic() + seconds
        while not condition() and time.monotonic() < end:
            let_slicer_work(0.05)
        self.assertTrue(condition(), self.part("errorLabel").text)

    def fill(self) -> None:
        """The sample patient in the scene and in the table, by the buttons."""
        self.load()
        self.part("fillButton").click()
        self.wait_for(lambda: self.part("examTable").rowCount == len(DATES))

    def test_the_first_prediction_goes_as_the_documentation_walks_through_it(self) -> None:
        self.fill()
        table = self.part("examTable")
        self.assertEqual([table.cellWidget(n, 1).date.toString("yyyy-MM-dd") for n in range(4)], DATES)
        self.assertTrue(self.part("predictButton").enabled, self.part("predictButton").toolTip)
        self.part("predictButton").click()
        self.assertTrue(self.part("cancelButton").enabled, self.part("errorLabel").text)
        self.wait_for(lambda: not self.part("cancelButton").enabled)
        self.assertIn("no meaning for this patient", self.part("resultLabel").text)
        result = self.widget.logic.result()
        for index in (0, 3):
            self.part("resultTable").selectRow(index)
            self.assert_shown(result, index)
            for name in slicer.app.layoutManager().sliceViewNames():
                view = slicer.app.layoutManager().sliceWidget(name).sliceView()
                self.assertIn(DATES[index], view.cornerAnnotation().GetText(7))
        self.part("thresholdSlider").value = 0.5
        let_slicer_work()
        self.assertAlmostEqual(result.map_node(3).GetDisplayNode().GetLowerThreshold(), 0.5)
        self.part("removeResultButton").click()
        let_slicer_work()
        self.assertIsNone(self.widget.logic.result())

    def test_cancel_in_the_window_lets_predict_again(self) -> None:
        self.fill()
        self.part("predictButton").click()
        self.wait_for(lambda: self.part("progressBar").value > 0)
        begun = time.monotonic()
        self.part("cancelButton").click()
        self.assertLess(time.monotonic() - begun, 2)
        self.assertTrue(self.part("predictButton").enabled)
        self.assertEqual(self.part("statusLabel").text, "Cancelled.")

    def test_the_table_answers_to_the_user_alone(self) -> None:
        self.fill()
        table = self.part("examTable")
        chosen = self.widget.exams.table.rows[0].cells["DWI_b0"].node
        slicer.mrmlScene.RemoveNode(chosen)
        let_slicer_work()
        self.assertIsNone(self.widget.exams.table.rows[0].cells["DWI_b0"].node)
        self.assertEqual(table.cellWidget(0, 3).currentIndex, 0)
        self.assertFalse(self.part("predictButton").enabled)
        import qt

        table.cellWidget(1, 1).setDate(qt.QDate(2021, 9, 8))
        let_slicer_work()
        self.assertEqual(self.widget.exams.table.rows[1].date.isoformat(), "2021-09-08")

    def test_a_patient_can_be_chosen_of_several(self) -> None:
        self.load()
        self.load()
        self.part("fillButton").click()
        let_slicer_work()
        self.assertIn("2 patients", self.part("errorLabel").text)
        tree = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
        item = tree.GetItemByName(sample_patient().name)
        self.part("patientSelector").setCurrentItem(item)
        let_slicer_work()
        self.assertEqual(self.part("patientSelector").currentItem(), item)
        self.part("fillButton").click()
        self.wait_for(lambda: self.part("examTable").rowCount == len(DATES))
