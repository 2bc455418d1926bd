"""The module's window inside a running Slicer: what is seen, at which size, and by which keys. Run by run_in_slicer.py."""

from __future__ import annotations

import tempfile
import time
import unittest
from pathlib import Path
from typing import Any

import looks
import qt
import slicer
import slicer.util
from in_slicer import DATES, InSlicer, let_slicer_work, messages_since, module, slice_widgets

WIDGETS = (
    *("researchLabel", "fillButton", "addFolderButton", "examTable", "bundleComboBox", "predictButton", "cancelButton"),
    *("progressBar", "figureLabel", "resultLabel", "resultTable", "thresholdSlider", "opacitySlider", "layoutButton"),
    *("removeResultButton", "dicomTree", "dicomLoadButton"),
)
WIDTH = 390  # of the panel in a window of 1,700 pixels
TOP_CENTRE = 7


class Window(InSlicer):
    """The module's panel, with its buttons."""

    def setUp(self) -> None:
        super().setUp()
        self.addCleanup(slicer.app.layoutManager().setLayout, slicer.app.layoutManager().layout)
        slicer.util.selectModule("HCCNet")
        let_slicer_work()
        self.widget = slicer.modules.hccnet.widgetRepresentation().self()

    def part(self, name: str, window: Any = None) -> Any:
        """A widget of a window by its name in the .ui file."""
        return getattr((window or self.widget).ui, name)

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

    def predict_in_window(self) -> Any:
        """A result of the sample patient, by the buttons."""
        self.fill()
        self.assertTrue(self.part("predictButton").enabled, self.part("predictButton").toolTip)
        self.part("predictButton").click()
        self.assertTrue(self.part("cancelButton").enabled, self.part("errorLabel").text)
        self.wait_for(lambda: not self.part("cancelButton").enabled)
        let_slicer_work(0.5)
        result = self.widget.logic.result()
        self.assertIsNotNone(result, self.part("errorLabel").text)
        return result


class PanelTest(Window):
    """The panel before a prediction."""

    def test_the_window_opens_and_has_its_parts(self) -> None:
        self.assertEqual(slicer.util.selectedModule(), "HCCNet")
        missing = [name for name in WIDGETS if not hasattr(self.widget.ui, name)]
        self.assertEqual(missing, [])

    def test_the_notice_that_this_is_research_is_never_scrolled_away(self) -> None:
        self.assertIn("research", self.part("researchLabel").text.lower())
        bar = self.part("scrollArea").verticalScrollBar()
        for value in (0, bar.maximum):
            bar.setValue(value)
            let_slicer_work()
            self.assertFalse(self.part("researchLabel").visibleRegion().isEmpty(), f"scrolled to {value}")

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

    def test_the_panel_fits_into_its_usual_width_and_its_tables_need_no_scrolling(self) -> None:
        self.fill()
        self.assertLessEqual(self.part("contents").minimumSizeHint.width(), WIDTH)
        table = self.part("examTable")
        columns = sum(table.columnWidth(n) for n in range(table.columnCount))
        self.assertLessEqual(columns, WIDTH - 30, [table.columnWidth(n) for n in range(table.columnCount)])
        for row in range(len(DATES)):
            for column in range(3, table.columnCount):
                button = table.cellWidget(row, column)
                self.assertLessEqual(button.sizeHint.width(), table.columnWidth(column))

    def test_every_control_can_be_reached_by_tab(self) -> None:
        self.fill()
        start = widget = self.part("patientSelector")
        reached = []
        while True:
            widget = widget.nextInFocusChain()
            if widget is None or widget == start or len(reached) > 2000:
                break
            reached.append(widget)
        table = self.part("examTable")
        cells = [table.cellWidget(row, column) for row in range(len(DATES)) for column in (0, 1, 3, 4, 5, 6)]
        places = [reached.index(widget) for widget in (table, *cells, self.part("predictButton"))]
        self.assertEqual(places, sorted(places), "Tab does not go through the table from row to row and on to Predict")

    def test_a_cell_opens_by_the_keyboard_and_offers_the_patient_s_volumes(self) -> None:
        self.fill()
        button = self.part("examTable").cellWidget(0, 3)
        self.assertNotEqual(button.focusPolicy & qt.Qt.TabFocus, 0)
        menu = button.menu()
        menu.popup(qt.QPoint(0, 0))  # as Space or Down does
        let_slicer_work()
        texts = [action.text for action in menu.actions()]
        menu.close()
        self.assertEqual(len(texts), 17, texts)
        self.assertIn(f"DWI_b0 {DATES[0]}", texts)

    def test_the_table_answers_to_the_user_alone(self) -> None:
        self.fill()
        table = self.part("examTable")
        chosen = self.widget.exams.table.rows[0].cells["DWI_b0"].node
        slicer.mrmlScene.RemoveNode(chosen)
        let_slicer_work()
        self.assertIsNone(self.widget.exams.table.rows[0].cells["DWI_b0"].node)
        self.assertEqual(table.cellWidget(0, 3).text, "–")
        self.assertFalse(self.part("predictButton").enabled)
        table.cellWidget(1, 1).setDate(qt.QDate(2021, 9, 8))
        let_slicer_work()
        self.assertEqual(self.widget.exams.table.rows[1].date.isoformat(), "2021-09-08")

    def test_a_patient_can_be_chosen_of_several(self) -> None:
        from HCCNetSlicer.hierarchy import Hierarchy

        self.load()
        self.load()
        self.part("fillButton").click()
        let_slicer_work()
        self.assertIn("2 patients", self.part("errorLabel").text)
        item = Hierarchy(slicer.mrmlScene).patients()[0]
        self.part("patientSelector").setCurrentItem(item)
        let_slicer_work()
        self.assertEqual(self.part("patientSelector").currentItem(), item)
        self.part("fillButton").click()
        self.wait_for(lambda: self.part("examTable").rowCount == len(DATES))

    def test_a_liver_is_outlined_in_the_views_of_its_exam(self) -> None:
        self.fill()
        liver = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "liver")
        liver.SetSize(120, 120, 120)
        self.part("examTable").selectRow(1)
        self.widget.exams.set_liver(liver)
        let_slicer_work()
        for widget in slice_widgets():
            shown = slicer.mrmlScene.GetNodeByID(widget.mrmlSliceCompositeNode().GetBackgroundVolumeID())
            self.assertIn(DATES[1], shown.GetName())
            self.assertTrue(liver.GetDisplayNode().GetVisibility(widget.mrmlSliceNode().GetID()))


class ResultTest(Window):
    """The window and the views after a prediction."""

    def test_the_first_prediction_goes_as_the_documentation_walks_through_it(self) -> None:
        result = self.predict_in_window()
        table = self.part("examTable")
        self.assertEqual([table.cellWidget(n, 1).date.toString("yyyy-MM-dd") for n in range(4)], DATES)
        self.assertEqual(self.part("figureLabel").text, "Demonstration")
        self.assertIn("No meaning for this patient", self.part("resultLabel").text)
        for index in (0, 3):
            self.part("resultTable").selectRow(index)
            self.assert_shown(result, index)
            for widget in slice_widgets():
                self.assertIn(DATES[index], widget.sliceView().cornerAnnotation().GetText(TOP_CENTRE))
        self.part("thresholdSlider").value = 0.5
        let_slicer_work()
        self.assertAlmostEqual(result.map_node(3).GetDisplayNode().GetLowerThreshold(), 0.5)
        self.part("removeResultButton").click()
        let_slicer_work()
        self.assertIsNone(self.widget.logic.result())

    def test_the_exams_stand_side_by_side_in_time_and_one_click_leads_back(self) -> None:
        usual = slicer.app.layoutManager().layout
        result = self.predict_in_window()
        self.assertEqual(self.part("layoutButton").text, "One e&xam at a time")
        widgets = [w for w in slice_widgets(side_by_side=True) if w.mrmlSliceNode().IsMappedInLayout()]
        self.assertEqual(len(widgets), len(DATES))
        for index, widget in enumerate(widgets):
            shown = slicer.mrmlScene.GetNodeByID(widget.mrmlSliceCompositeNode().GetBackgroundVolumeID())
            self.assertIn(DATES[index], shown.GetName())
            self.assertEqual(widget.mrmlSliceCompositeNode().GetForegroundVolumeID(), result.map_node(index).GetID())
            self.assertIn(DATES[index], widget.sliceView().cornerAnnotation().GetText(TOP_CENTRE))
        views = [widget.mrmlSliceNode() for widget in widgets]
        scales = [view.GetFieldOfView()[n] / view.GetDimensions()[n] for view in views for n in (0, 1)]
        self.assertLess(max(scales) / min(scales), 1.01, f"mm per pixel: {scales}")
        self.part("layoutButton").click()
        let_slicer_work()
        self.assertEqual(slicer.app.layoutManager().layout, usual)

    def test_nothing_covers_the_date_the_figure_or_the_peak(self) -> None:
        """In the exams' own layout, in the usual one, and after the window has changed its size."""
        result = self.predict_in_window()
        window = slicer.util.mainWindow()
        size = window.size
        self.addCleanup(window.resize, size)
        for side_by_side in (True, False):
            if not side_by_side:
                self.part("layoutButton").click()
            for width, height in ((1700, 1000), (1300, 850)):
                window.resize(width, height)
                let_slicer_work(1)
                self.assertEqual(looks.problems_of_views(result), [], f"{width}×{height}, side by side: {side_by_side}")
                self.assertEqual(looks.problems_of_panel(self.widget.ui), [])

    def test_the_chart_tells_dates_from_0_to_1_and_covers_nothing(self) -> None:
        result = self.predict_in_window()
        chart = result.node("chart.risk")
        self.assertEqual(chart.GetNumberOfPlotSeriesNodes(), 2)
        self.assertFalse(chart.GetLegendVisibility())
        drawn = self.drawn_chart()
        self.assertEqual(drawn.GetNumberOfPlots(), 2)
        left, bottom = drawn.GetAxis(0), drawn.GetAxis(1)
        self.assertLess(left.GetMinimum(), 0)
        self.assertGreater(left.GetMaximum(), 1)
        labels = bottom.GetTickLabels()
        self.assertEqual([labels.GetValue(n) for n in range(labels.GetNumberOfValues())], DATES)

    def drawn_chart(self) -> Any:
        """The chart that the exams' layout draws."""
        from HCCNetSlicer.side_by_side import CHART_VIEW

        manager = slicer.app.layoutManager()
        widgets = [manager.plotWidget(n) for n in range(manager.plotViewCount)]
        return next(w for w in widgets if w.mrmlPlotViewNode().GetLayoutName() == CHART_VIEW).plotView().chart()

    def test_a_scene_that_was_saved_and_opened_again_draws_the_whole_chart(self) -> None:
        """The line was lost: only the diamonds remained."""
        told = self.predict_in_window().sentence()
        with tempfile.TemporaryDirectory() as folder:
            file = str(Path(folder) / "patient.mrb")
            self.assertTrue(slicer.util.saveScene(file))
            slicer.mrmlScene.Clear()
            let_slicer_work(0.5)
            slicer.util.loadScene(file)
            let_slicer_work(1)
        result = self.widget.logic.result()
        self.assertEqual(result.sentence(), told)
        chart = result.node("chart.risk")
        names = [chart.GetNthPlotSeriesNode(n).GetName() for n in range(chart.GetNumberOfPlotSeriesNodes())]
        self.assertEqual(names, ["Risk as of each exam", "Risk without the exam"])
        drawn = self.drawn_chart()
        self.assertEqual([drawn.GetPlot(n).GetLabel() for n in range(drawn.GetNumberOfPlots())], names)
        self.assertEqual(len(result.record.maps()), 14, "maps that were left for later were not saved")

    def test_all_columns_of_the_result_can_be_read_at_the_usual_width(self) -> None:
        self.predict_in_window()
        table = self.part("resultTable")
        self.assertEqual(table.horizontalScrollBar().maximum, 0)
        self.assertLessEqual(self.part("resultLabel").height, 4 * self.part("resultLabel").fontMetrics().height())

    def test_cancel_in_the_window_lets_predict_again(self) -> None:
        self.fill()
        self.part("predictButton").click()
        self.wait_for(lambda: self.part("progressBar").value > 0)
        begun = time.monotonic()
        self.part("cancelButton").click()
        self.assertLess(time.monotonic() - begun, 2)
        self.assertTrue(self.part("predictButton").enabled)
        self.assertEqual(self.part("statusLabel").text, "Cancelled.")

    def test_predicting_and_reopening_writes_no_complaint_into_the_log(self) -> None:
        """Items of a closed scene's hierarchy were found for new nodes, and one patient twice was a warning."""
        slicer.mrmlScene.Clear()
        let_slicer_work()
        before = slicer.app.errorLogModel().logEntryCount()
        for _ in range(2):
            self.predict_in_window()
            slicer.mrmlScene.Clear()
            let_slicer_work(0.5)
        self.load()
        self.load()
        let_slicer_work(0.5)
        known = ("DataNodeCache", "Multiple subject hierarchy item found", "Invalid MRML scene")
        self.assertEqual([m for m in messages_since(before) if any(words in m for words in known)], [])

    def test_the_window_with_larger_letters_cuts_nothing_off(self) -> None:
        self.predict_in_window()
        font = slicer.app.font()
        self.addCleanup(slicer.app.setFont, font)
        for scale in (1.5, 2.0):
            larger = qt.QFont(font)
            larger.setPointSizeF(scale * font.pointSizeF())
            slicer.app.setFont(larger)
            let_slicer_work(0.5)
            self.widget.enter()
            let_slicer_work(0.5)
            area, contents = self.part("scrollArea"), self.part("contents")
            self.assertLessEqual(contents.minimumSizeHint.width(), area.viewport().width, f"at {scale} times the size")


class DicomTest(Window):
    """Exams from Slicer's DICOM database."""

    def test_a_patient_is_loaded_from_the_database(self) -> None:
        if not hasattr(slicer.modules, "dicom"):
            raise unittest.SkipTest("this Slicer was built without DICOM")
        from DICOMLib import DICOMUtils

        files = Path(__file__).resolve().parents[1] / "data" / "dicom" / "prostatex-dwi"
        with (
            tempfile.TemporaryDirectory() as folder,
            DICOMUtils.TemporaryDICOMDatabase(str(Path(folder) / "database")) as database,
        ):
            DICOMUtils.importDicom(str(files), database)
            self.part("dicomCollapsibleButton").collapsed = False
            let_slicer_work()
            tree = self.part("dicomTree")
            self.assertEqual(tree.topLevelItemCount, 1)
            tree.topLevelItem(0).setCheckState(0, qt.Qt.Checked)
            self.part("dicomLoadButton").click()
            self.wait_for(lambda: self.part("examTable").rowCount == 1)
        cells = [self.part("examTable").cellWidget(0, column).text for column in range(3, 7)]
        self.assertNotIn("–", cells, self.part("problemsLabel").text)


class SampleTest(Window):
    """The sample that a user meets first."""

    def test_the_generated_patient_gets_a_figure_and_a_rising_risk(self) -> None:
        from HCCNetSlicer.sample_data import SAMPLES

        first = SAMPLES[0]
        self.assertTrue(first.is_generated)
        self.in_words(first.load)
        self.part("fillButton").click()
        self.wait_for(lambda: self.part("predictButton").enabled)
        self.part("predictButton").click()
        self.wait_for(lambda: not self.part("cancelButton").enabled)
        let_slicer_work(1)
        result = self.widget.logic.result()
        self.assertTrue(self.part("figureLabel").text.endswith("%"), self.part("figureLabel").text)
        self.assertIn("Generated patient", self.part("resultLabel").text)
        risks = [point["risk"] for point in result.prediction["trajectory"]]
        self.assertGreater(risks[-1], risks[0])
        self.assertTrue(self.part("spreadLabel").visible)
        self.assertEqual(self.part("horizonsLabel").visible, len(result.horizons_months) > 1)
        self.assertEqual(looks.problems_of_views(result), [])
