"""The result in the window: its sentence, its exams, what the views show, and out to files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import qt
import slicer
from slicer.i18n import tr as _

from HCCNetSlicer.export import write_maps, write_report, write_table
from HCCNetSlicer.results import Result, ResultError, remove_all
from HCCNetWindow import views
from HCCNetWindow.helpers import choose, timer

_STALE_MS = 500
_Panel = TypeVar("_Panel", bound="ResultPanel")
_Rest = ParamSpec("_Rest")


def _told(
    act: Callable[Concatenate[_Panel, _Rest], None],
) -> Callable[Concatenate[_Panel, _Rest], None]:
    """A slot whose ResultError, of a result that was removed or damaged, becomes a sentence."""

    @wraps(act)
    def slot(self: _Panel, *arguments: _Rest.args, **named: _Rest.kwargs) -> None:
        try:
            act(self, *arguments, **named)
        except ResultError as error:
            self.tell(str(error))
            self.forget()

    return slot


KINDS = ("towards", "against", "more", "less")


class ResultPanel:
    """Shows the scene's result.

    Args:
        ui: the window's widgets by name.
        scene: that holds it.
        stale: reasons why a result is no longer that of what is chosen now.
        tell: shows a sentence as an error; an empty one takes an earlier error away.
        say: shows where things stand.
    """

    def __init__(
        self,
        ui: Any,
        scene: Any,
        stale: Callable[[Result], Sequence[str]],
        tell: Callable[[str], None],
        say: Callable[[str], None],
    ) -> None:
        self.result: Result | None = None
        self._ui, self._scene, self._stale, self.tell = ui, scene, stale, tell
        self._say = say
        self._stale_later = timer(_STALE_MS, self.look_whether_stale, once=True)
        self._find_later = timer(0, self.find, once=True)
        self._filling = False
        self._stamps = views.Stamps()
        ui.resultTable.connect("itemSelectionChanged()", self._selected)
        ui.kindComboBox.connect("activated(int)", self._kind_chosen)
        ui.thresholdSlider.connect("valueChanged(double)", self.set_threshold)
        ui.opacitySlider.connect("valueChanged(double)", self.set_opacity)
        ui.fieldCheckBox.connect("toggled(bool)", self.show_field)
        ui.plotButton.connect("clicked()", self.show_timeline)
        ui.removeResultButton.connect("clicked()", self.remove)
        ui.exportReportButton.connect("clicked()", self.export_report)
        ui.exportTableButton.connect("clicked()", self.export_table)
        ui.exportMapsButton.connect("clicked()", self.export_maps)
        self.forget()

    # ------------------------------------------------------------ which result

    @_told
    def find(self) -> None:
        """Takes the scene's result, as it is after a prediction or in a scene that was opened; shows one that is new."""
        found = Result.find(self._scene)
        if found is not None and self.result is not None and found.record.node is self.result.record.node:
            self.request_stale_check()
            return
        self.forget()
        self.result = found
        if self.result is None:
            return
        self._fill(self.result)
        self.result.observe(self._stale_later.start)
        self._enable(True)
        views.link()
        self.show(self.result.shown_index)
        self.look_whether_stale()

    def forget(self) -> None:
        """Shows no result; the scene keeps it, and the views what they show."""
        if self.result is not None:
            self.result.unobserve()
        self.result = None
        self._stale_later.stop()
        self._enable(False)
        self._ui.resultLabel.setText(_("No result yet. Research software, not a medical device."))
        self._ui.staleLabel.setVisible(False)
        self._ui.resultTable.setRowCount(0)
        self._stamps.clear()

    def remove(self) -> None:
        """Removes everything that shows the result from the scene; the exams stay."""
        self.forget()
        remove_all(self._scene)

    @_told
    def restore(self) -> None:
        """Mends what charts lose when a scene is opened."""
        if self.result is not None:
            self.result.restore()

    def request_find(self) -> None:
        """Looks soon whether the scene holds another result: a script, or another window, may have made or removed one."""
        self._find_later.start()

    def stop(self) -> None:
        """Shows nothing any more; another window may show the same result on."""
        self._find_later.stop()
        self._stale_later.stop()
        if self.result is not None:
            self.result.unobserve()
        self._stamps.leave()
        self.result = None

    def request_stale_check(self) -> None:
        """Looks soon whether the result is still that of what is chosen."""
        if self.result is not None:
            self._stale_later.start()

    @_told
    def look_whether_stale(self) -> None:
        """Says why the result is no longer that of what is in the scene and chosen now."""
        if self.result is None:
            return
        if not self.result.is_in_scene:  # removed by a script, by another window, or replaced
            self.find()
            return
        reasons = self._stale(self.result)
        self._ui.staleLabel.setVisible(bool(reasons))
        self._ui.staleLabel.setText(
            " ".join([_("This result is out of date:"), *reasons, _("Predict again.")]) if reasons else ""
        )

    # ------------------------------------------------------------ what the views show

    @_told
    def show(self, index: int) -> None:
        """Shows an exam with its map, at the map's peak."""
        if self.result is None:
            return
        kind = KINDS[max(self._ui.kindComboBox.currentIndex, 0)]
        result = self.result
        missing = result.show_exam(index, kind=kind)
        exam = result.record.exams[index]
        self._stamps.show(result.view_text(index), result.volume(index, exam["shown"]))
        peak = result.prediction["exams"][index]["peak"]
        if peak is not None and kind == KINDS[0]:
            views.jump_to(peak["mm"])
        self.tell(" ".join(missing))

    @_told
    def set_threshold(self, value: float) -> None:
        """Draws nothing below this share."""
        if self.result is not None and value != self.result.threshold:
            self.result.set_threshold(value)

    @_told
    def set_opacity(self, value: float) -> None:
        """Draws the maps with this opacity."""
        if self.result is not None and value != self.result.opacity:
            self.result.set_opacity(value)

    @_told
    def show_field(self, visible: bool) -> None:
        """Outlines what was read of the shown exam."""
        if self.result is not None and visible != self.result.field_is_shown:
            self.result.show_field(visible)

    @_told
    def show_timeline(self) -> None:
        """Shows the risk over time beside the slice views."""
        chart = None if self.result is None else self.result.node("chart.risk")
        if chart is None:
            self.tell(_("The timeline was deleted from the scene. Predict again to have it back."))
        else:
            views.show_chart(chart)

    def _selected(self) -> None:
        index = self._ui.resultTable.currentRow()
        if not self._filling and index >= 0:
            self.show(index)

    def _kind_chosen(self, index: int) -> None:
        if self.result is not None:
            self.show(self.result.shown_index)

    # ------------------------------------------------------------ out to files

    def export_report(self) -> None:
        """Saves the HTML report."""
        self._export(_("Save the report"), "report.html", "HTML (*.html)", write_report)

    def export_table(self) -> None:
        """Saves the table of exams."""
        self._export(_("Save the table"), "exams.csv", "CSV (*.csv)", write_table)

    def export_maps(self) -> None:
        """Saves every map as NIfTI, in the scene's space, into a folder of its own."""
        folder = qt.QFileDialog.getExistingDirectory(slicer.util.mainWindow(), _("Folder for the maps"))
        if folder:
            self._write(write_maps, Path(folder))

    def _export(self, title: str, name: str, pattern: str, write: Callable[[Result, Path], Sequence[Path]]) -> None:
        chosen = qt.QFileDialog.getSaveFileName(slicer.util.mainWindow(), title, name, pattern)
        if chosen:
            path = Path(chosen)
            self._write(write, path if path.suffix else path.with_suffix(Path(name).suffix))

    def _write(self, write: Callable[[Result, Path], Sequence[Path]], path: Path) -> None:
        if self.result is None:
            return
        self.tell("")
        try:
            count = len(write(self.result, path))
        except OSError as error:
            # The path may name the patient, and errors go into logs.
            self.tell(_("Nothing could be saved there: {reason}.").format(reason=error.strerror))
        except ResultError as error:
            self.tell(str(error))
        else:
            self._say(_("Saved: {count} file(s).").format(count=count) if count else _("The result has no maps."))

    # ------------------------------------------------------------ filling

    def _enable(self, enabled: bool) -> None:
        for widget in (
            *(self._ui.resultTable, self._ui.kindComboBox, self._ui.thresholdSlider, self._ui.opacitySlider),
            *(self._ui.fieldCheckBox, self._ui.plotButton),
            *(self._ui.exportReportButton, self._ui.exportTableButton, self._ui.exportMapsButton),
        ):
            widget.setEnabled(enabled)

    def _fill(self, result: Result) -> None:
        self._filling = True
        try:
            lines = [result.sentence(), *result.notices]
            if result.others:
                lines.append(_("The scene holds {count} results; this is one of them.").format(count=result.others + 1))
            self._ui.resultLabel.setText("\n".join(lines))
            choose(self._ui.kindComboBox, kind_words(), KINDS.index(result.shown_kind))
            # What the user last chose holds for a new result too.
            self.set_threshold(self._ui.thresholdSlider.value)
            self.set_opacity(self._ui.opacitySlider.value)
            self.show_field(self._ui.fieldCheckBox.checked)
            self._fill_table(result.prediction["exams"])
            self._ui.resultTable.selectRow(result.shown_index)
        finally:
            self._filling = False

    def _fill_table(self, exams: Sequence[Mapping[str, Any]]) -> None:
        table = self._ui.resultTable
        header = [_("Date"), _("Months before"), _("Attention"), _("Peak of the map")]
        table.setColumnCount(len(header))
        table.setHorizontalHeaderLabels(header)
        table.setRowCount(len(exams))
        for number, exam in enumerate(exams):
            for column, text in enumerate(exam_words(exam)):
                table.setItem(number, column, qt.QTableWidgetItem(text))


def exam_words(exam: Mapping[str, Any]) -> list[str]:
    """An exam's line in the table of the result."""
    attention = exam["attention"]
    peak = exam["peak"]
    return [
        exam["date"],
        f"{exam['months_before_landmark']:.1f}",
        "–" if attention is None else f"{attention:.2f}",
        "–" if peak is None else f"{peak['value']:.2f}",
    ]


def kind_words() -> list[str]:
    """What the kinds of maps are called, in the order of ``KINDS``."""
    return [
        _("What raises the output"),
        _("What lowers the output"),
        _("What raised it since the exam before"),
        _("What lowered it since the exam before"),
    ]
