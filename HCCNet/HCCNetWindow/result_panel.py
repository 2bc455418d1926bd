"""The result in the window: its figure, its exams, what the views show, and out to files."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import qt
import slicer
from slicer.i18n import tr as _

from HCCNetSlicer.export import write_maps, write_report, write_table
from HCCNetSlicer.results import Result, ResultError, remove_all
from HCCNetSlicer.side_by_side import MOST
from HCCNetWindow import views
from HCCNetWindow.helpers import choose, set_header, timer

_STALE_MS = 500
_FIGURE_SIZE = 2.2  # times the size of other letters
_BAR_STEPS = 200
_BAR_COLOURS = (
    "#8C8C8C",
    "#004D99",
    "#5AA0E6",
    "#8C8C8C",
)  # told apart on light and dark, also by colour-blind readers
_TABLE_STYLE = (
    "<style>th, td { text-align: left; font-weight: normal; padding-right: 8px; white-space: nowrap } "
    "thead th { font-weight: bold }</style>"
)
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
        self._fit_later = timer(0, self.fit_views, once=True)
        self._restore_later = timer(0, self.restore, once=True)
        self._scroll_later = timer(0, self._scroll, once=True)
        self._filling = False
        self._stamps = views.Stamps(self._fit_later.start)
        self._around_later = timer(0, self.show_around, once=True)
        self._layouts = views.Layouts(self._around_later.start)
        larger = ui.figureLabel.font
        if larger.pointSizeF() > 0:  # else the size is given in pixels
            larger.setPointSizeF(_FIGURE_SIZE * larger.pointSizeF())
        larger.setBold(True)
        ui.figureLabel.setFont(larger)
        ui.resultTable.connect("itemSelectionChanged()", self._selected)
        ui.kindComboBox.connect("activated(int)", self._kind_chosen)
        ui.thresholdSlider.connect("valueChanged(double)", self.set_threshold)
        ui.opacitySlider.connect("valueChanged(double)", self.set_opacity)
        ui.fieldCheckBox.connect("toggled(bool)", self.show_field)
        ui.layoutButton.connect("clicked()", self.change_layout)
        ui.removeResultButton.connect("clicked()", self.remove)
        ui.exportReportButton.connect("clicked()", self.export_report)
        ui.exportTableButton.connect("clicked()", self.export_table)
        ui.exportMapsButton.connect("clicked()", self.export_maps)
        self.forget()

    # ------------------------------------------------------------ which result

    @_told
    def find(self, side_by_side: bool = False) -> None:
        """Takes the scene's result, as it is after a prediction or in a scene that was opened; shows one that is new.

        Args:
            side_by_side: shows a new one in the exams' own layout; else layout and zoom stay, as they were saved.
        """
        found = Result.find(self._scene)
        if found is not None and self.result is not None and found.record.node is self.result.record.node:
            self.request_stale_check()
            return
        self.forget()
        self.result = found
        if self.result is None:
            return
        self._enable(True)
        self._fill(self.result)
        self.result.observe(self._stale_later.start)
        views.link()
        self._show_layout(side_by_side or self._layouts.is_side_by_side)
        self.show(self.result.shown_index, fit=side_by_side)
        self.look_whether_stale()
        self._scroll_later.start()

    def _scroll(self) -> None:
        """Brings the result into view, its figure above all."""
        for widget in (self._ui.resultTable, self._ui.figureLabel):
            self._ui.scrollArea.ensureWidgetVisible(widget)

    def forget(self) -> None:
        """Shows no result; the scene keeps it, and the views what they show."""
        if self.result is not None:
            self.result.unobserve()
        self.result = None
        self._stale_later.stop()
        self._enable(False)
        self._ui.resultLabel.setText(_("No result yet."))
        self._ui.staleLabel.setVisible(False)
        self._ui.resultTable.setRowCount(0)
        self._stamps.clear()

    def remove(self) -> None:
        """Removes everything that shows the result from the scene; the exams and the usual layout stay."""
        self.forget()
        self._show_layout(False)
        remove_all(self._scene)

    def request_restore(self) -> None:
        """Mends soon what a scene loses when it is opened: only once it is whole."""
        self._restore_later.start()

    @_told
    def restore(self) -> None:
        """Mends what charts lose when a scene is opened, and shows again what was shown; without a result, the usual layout."""
        if self._scene.IsBatchProcessing():
            self._restore_later.start()
        elif self.result is None:
            self._show_layout(False)
        else:
            self.result.restore()
            self.show_around()

    def request_find(self) -> None:
        """Looks soon whether the scene holds another result: a script, or another window, may have made or removed one."""
        self._find_later.start()

    def stop(self) -> None:
        """Shows nothing any more; another window may show the same result on."""
        for later in (
            *(self._find_later, self._stale_later, self._fit_later, self._restore_later),
            *(self._around_later, self._scroll_later),
        ):
            later.stop()
        self._layouts.leave()
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
    def show(self, index: int, fit: bool = False) -> None:
        """Shows an exam with its map, at the map's peak, and all exams at that place where they are side by side.

        Args:
            index: of the exam.
            fit: zooms the views to the whole exam first; else they keep their zoom.
        """
        if self.result is None:
            return
        result = self.result
        missing = result.show_exam(index, kind=KINDS[max(self._ui.kindComboBox.currentIndex, 0)])
        if fit:
            views.fit()
        result.jump_to_peak()
        self._ui.mapLabel.setText(result.map_words())
        self.show_around()
        self.tell(" ".join(missing))

    @_told
    def show_around(self) -> None:
        """Shows what depends on the layout: the exams side by side, the chart, the dates on the views, the legend."""
        is_side_by_side = self._layouts.is_side_by_side
        self._ui.layoutButton.setText(_("One e&xam at a time") if is_side_by_side else _("E&xams side by side"))
        if self.result is None or not self.result.is_in_scene:
            return
        if is_side_by_side:
            self.result.show_side_by_side()
            views.show_chart(*self._chart(self.result))
        self._stamps.show(self.result.view_texts())
        self.fit_views()

    def _chart(self, result: Result) -> tuple[Any, Mapping[float, str]]:
        """The chart beside the exams with the labels of its x axis: of a lone exam the risk by horizon, if there is one."""
        by_horizon = result.node("chart.horizons") if len(result.exam_dates) == 1 else None
        if by_horizon is None:
            return result.node("chart.risk"), views.date_labels(result.exam_dates)
        return by_horizon, {months: f"{months:g}" for months in result.horizons_months}

    @_told
    def fit_views(self) -> None:
        """Fits what the views show into them, after they have changed their size."""
        if self.result is not None and self.result.is_in_scene:
            self.result.fit_views()

    @_told
    def set_threshold(self, value: float) -> None:
        """Draws nothing below this share."""
        if self.result is not None and value != self.result.threshold:
            self.result.set_threshold(value)
            self._ui.mapLabel.setText(self.result.map_words())

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
    def change_layout(self) -> None:
        """Shows all exams side by side and the risk over time, or the layout that the user had before."""
        if self.result is not None:
            self._show_layout(not self._layouts.is_side_by_side)
            self.show(self.result.shown_index)

    def _show_layout(self, side_by_side: bool) -> None:
        if side_by_side and self.result is not None:
            self._layouts.show_side_by_side(len(self.result.exam_dates))
        else:
            self._layouts.show_usual()

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
            *(self._ui.fieldCheckBox, self._ui.layoutButton),
            *(self._ui.exportReportButton, self._ui.exportTableButton, self._ui.exportMapsButton),
        ):
            widget.setEnabled(enabled)
        for widget in (
            *(self._ui.figureLabel, self._ui.spreadLabel, self._ui.horizonsLabel),
            *(self._ui.mapLabel, self._ui.resultTable),
        ):
            widget.setVisible(enabled)

    def _fill(self, result: Result) -> None:
        self._filling = True
        try:
            headline = result.headline()
            lines = [headline.line, *result.notices]
            if result.others:
                lines.append(_("The scene holds {count} results; this is one of them.").format(count=result.others + 1))
            count = len(result.exam_dates)
            if count > MOST:
                lines.append(_("Side by side: the latest {most} of {count} exams.").format(most=MOST, count=count))
            self._ui.figureLabel.setText(headline.figure)
            self._ui.resultLabel.setText("\n".join(lines))
            self._ui.resultLabel.setToolTip(result.sentence())
            self._ui.spreadLabel.setText("" if headline.spread is None else spread_bar(*headline.spread))
            self._ui.spreadLabel.setVisible(headline.spread is not None)
            self._ui.horizonsLabel.setText(_TABLE_STYLE + headline.horizons)
            self._ui.horizonsLabel.setToolTip(headline.horizon_note)
            self._ui.horizonsLabel.setVisible(bool(headline.horizons))
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
        set_header(table, result_columns())
        table.setRowCount(len(exams))
        for number, exam in enumerate(exams):
            for column, text in enumerate(exam_words(exam)):
                table.setItem(number, column, qt.QTableWidgetItem(text))


def result_columns() -> dict[str, str]:
    """The columns of the result's table, each with what it means."""
    return {
        _("Date"): _("The day of the exam. Select a row to show the exam."),
        _("Months"): _("Months before the latest exam."),
        _("Attention"): _("How much of the networks' attention goes to the exam; all together 1."),
        _("Peak"): _("The highest value of the exam's map, as a share of the patient's strongest evidence."),
    }


def spread_bar(low: float, risk: float, high: float) -> str:
    """A bar from 0 to 100% as rich text: dark from the smallest member to the risk, light from there to the largest one.

    Args:
        low: smallest member, 0-1.
        risk: where dark and light meet.
        high: largest member.
    """
    steps = [0, *(min(max(round(_BAR_STEPS * share), 0), _BAR_STEPS) for share in (low, risk, high)), _BAR_STEPS]
    widths = [end - start for start, end in itertools.pairwise(steps)]
    if widths[1] + widths[2] == 0:  # members that agree are seen too
        widths[1] = 1
    cells = "".join(
        f'<td width="{100 * width / _BAR_STEPS:.1f}%" bgcolor="{colour}"></td>'
        for width, colour in zip(widths, _BAR_COLOURS, strict=True)
        if width
    )
    return (
        f'<table width="100%" cellspacing="0" cellpadding="3"><tr>{cells}</tr></table>'
        f'<table width="100%" cellspacing="0"><tr><td>0%</td><td align="right">100%</td></tr></table>'
    )


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
