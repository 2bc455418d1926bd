"""The module inside a running Slicer: what no test without Slicer can tell. Run by run_in_slicer.py."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import slicer
import slicer.util
from in_slicer import CHANNELS, DATES, InSlicer, let_slicer_work, module, slice_widgets


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
        for widget in slice_widgets():
            self.assertNotIn(widget.mrmlSliceCompositeNode().GetForegroundVolumeID(), maps)

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
                shown = {widget.mrmlSliceCompositeNode().GetBackgroundVolumeID() for widget in slice_widgets()}
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
