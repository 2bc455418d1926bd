"""A result in the scene: shown, switched, checked for staleness, found again after reopening, and removed without a trace."""

from __future__ import annotations

import datetime
import html
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import slicer

from HCCNetSlicer import layers, placement, result_nodes, staleness
from HCCNetSlicer.building import add_maps, build, describe
from HCCNetSlicer.map_kinds import KINDS, TOWARDS
from HCCNetSlicer.record import (
    Record,
    ShownExam,
    field_role,
    map_role,
    remove_leftovers,
    with_fingerprints,
)
from HCCNetSlicer.result_files import ResultError, ResultFiles, parse_prediction, read_result

__all__ = ["Result", "ResultError", "ShownExam", "remove_all", "show_result", "with_fingerprints"]

_GONE = "This result is no longer in the scene."


@dataclass(frozen=True)
class Headline:
    """A result at a glance.

    Args:
        figure: the risk in percent, or ``Demonstration`` where it would have no meaning.
        line: what the figure is, in one sentence.
        spread: smallest member, risk and largest member, 0-1; None where there is no figure.
        horizons: table of the risk within each horizon as HTML; empty for a single one and where there is no figure.
        horizon_note: what its columns hold.
    """

    figure: str
    line: str
    spread: tuple[float, float, float] | None = None
    horizons: str = ""
    horizon_note: str = ""


def show_result(
    scene: Any, folder: Path, exams: Sequence[ShownExam], settings: Mapping[str, Any], notices: Sequence[str] = ()
) -> Result:
    """Shows a prediction in the scene, in place of any earlier one, and its latest exam in all slice views.

    Everything is read before the scene changes: where that fails, an earlier result stays.

    Args:
        scene: the vtkMRMLScene that holds the exams.
        folder: holds prediction.json, report.html and the maps; it can be deleted afterwards.
        exams: all that the prediction was made from.
        settings: what the prediction was asked for, plain data for JSON; ``bundle`` is the bundle's folder, the
            demonstration bundle where it is absent or empty.
        notices: sentences to keep with the result.

    Raises:
        ResultError: the folder can't be read, or the prediction is of other exams.
    """
    result = show_files(scene, read_result(folder), exams, settings, notices)
    result.complete()
    return result


def show_files(
    scene: Any,
    files: ResultFiles,
    exams: Sequence[ShownExam],
    settings: Mapping[str, Any],
    notices: Sequence[str] = (),
) -> Result:
    """What ``show_result`` does with a folder that was read, but for the maps that are not shown first.

    Building them takes a second in a running Slicer: ``Result.complete`` does it once the result can be seen.
    """
    ordered = _in_order(files.prediction, exams)
    taken = [with_fingerprints(exam) if exam.fingerprints is None else exam for exam in ordered]
    with at_once(scene):
        remove_all(scene)
        result = Result(Record.add(scene), files)
        try:
            describe(result.record, taken, files.prediction, settings)
            result.record.keep("notices", list(notices))
            build(result.record, taken, files)
            add_maps(result.record, files, [TOWARDS.key])
        except BaseException:
            result.remove()
            raise
    result.show_exam(result.landmark_index)
    return result


@contextmanager
def at_once(scene: Any) -> Iterator[None]:
    """Views and lists follow what is done to the scene once, at the end."""
    application = getattr(slicer, "app", None)  # there is none where the scene is used without Slicer
    if application is not None:
        application.pauseRender()
    scene.StartState(scene.BatchProcessState)
    try:
        yield
    finally:
        scene.EndState(scene.BatchProcessState)
        if application is not None:
            application.resumeRender()


def remove_all(scene: Any) -> None:
    """Removes every result, what remains of those whose nodes were deleted in part, and our folders.

    The exams stay, and so do copies that the user made and what the user put into a folder of ours.
    """
    for record in Record.all_of(scene):
        Result(record).remove()
    remove_leftovers(scene)


class Result:
    """A result that is in a scene.

    Everything that it tells stands in the scene, so one that was saved and reopened tells the same. Once it was removed, or
    the scene was closed, all but ``is_in_scene``, ``stale_reasons``, ``unobserve`` and ``remove`` raise ResultError. They
    do so too where what they tell was deleted from the scene.

    Args:
        record: the result's script node and what it refers to.
        files: what the rest of its maps is built from; None where all are in the scene.
    """

    def __init__(self, record: Record, files: ResultFiles | None = None) -> None:
        self.record = record
        self._files = files
        self._watch: staleness.Watch | None = None

    @classmethod
    def find(cls, scene: Any) -> Result | None:
        """The scene's result, or None; of several, the one that came last (``others`` tells of the rest)."""
        records = Record.all_of(scene)
        return cls(records[-1]) if records else None

    def complete(self) -> None:
        """Builds the maps that ``show_files`` left for later; does nothing a second time, or once the result has gone."""
        files, self._files = self._files, None
        if files is not None and self.is_in_scene:
            with at_once(self.record.scene):
                add_maps(self.record, files, KINDS)

    @property
    def is_in_scene(self) -> bool:
        """Whether it is still in the scene: not removed, not replaced, the scene not closed."""
        return self.record.scene is not None

    @property
    def others(self) -> int:
        """How many results the scene holds besides: some, where a scene was added to another."""
        return len(Record.all_of(self._live.scene)) - 1

    @property
    def prediction(self) -> Mapping[str, Any]:
        """The content of prediction.json."""
        return parse_prediction(self._text("text.prediction"))

    @property
    def report(self) -> str:
        """The HTML page."""
        return self._text("text.report")

    @property
    def settings(self) -> Mapping[str, Any]:
        """What the prediction was asked for."""
        settings: Mapping[str, Any] = self._live.kept("settings")
        return settings

    @property
    def bundle(self) -> Mapping[str, Any]:
        """``name``, ``version``, ``sha256`` and ``path`` of the bundle; no path of the demonstration bundle."""
        bundle: Mapping[str, Any] = self._live.kept("bundle")
        return bundle

    @property
    def notices(self) -> Sequence[str]:
        """The sentences that are kept with the result."""
        notices: Sequence[str] = self._live.kept("notices")
        return notices

    @property
    def exam_dates(self) -> Sequence[datetime.date]:
        """When the exams were, earliest first."""
        return [datetime.date.fromisoformat(exam["date"]) for exam in self._live.exams]

    @property
    def horizons_months(self) -> Sequence[float]:
        """Within how many months after the latest exam there is a risk, ascending."""
        from HCCNetLib.reporting.horizons import risk_by_horizon

        return [at["months"] for at in risk_by_horizon(self.prediction)]

    @property
    def landmark_index(self) -> int:
        """Which exam the prediction was made from: the latest."""
        return len(self._live.exams) - 1

    @property
    def shown_index(self) -> int:
        """Which exam was shown last."""
        return int(self._live.kept("state")["exam"])

    @property
    def shown_kind(self) -> str:
        """Which kind of map was shown last: a key of ``KINDS``."""
        return str(self._live.kept("state")["kind"])

    @property
    def threshold(self) -> float:
        """The share below which nothing is drawn."""
        return float(self._live.kept("state")["threshold"])

    @property
    def opacity(self) -> float:
        """Opacity of the maps, 0-1."""
        return float(self._live.kept("state")["opacity"])

    @property
    def field_is_shown(self) -> bool:
        """Whether the box that the model read of the shown exam is outlined."""
        return bool(self._live.kept("state")["field"])

    def volume(self, index: int, channel: str) -> Any:
        """An exam's volume, None where it is no longer in the scene."""
        return self._live.volume(index, channel)

    def map_node(self, index: int, kind: str = TOWARDS.key) -> Any:
        """An exam's map, None where there is none."""
        return self._live.get(map_role(kind, index))

    def field_node(self, index: int) -> Any:
        """The box that the model read of an exam, None where it was deleted."""
        return self._live.get(field_role(index))

    def node(self, role: str) -> Any:
        """Another node by its role, e.g. ``chart.risk`` or ``table.exams``; None where it was deleted."""
        return self._live.get(role)

    def show_exam(
        self, index: int, composite_nodes: Sequence[Any] | None = None, kind: str = TOWARDS.key
    ) -> Sequence[str]:
        """Shows an exam and its map together; what is missing is empty, never another exam's.

        Views that would show nothing of it are moved to the map's peak, or to the exam's middle where there is no map.

        Args:
            index: of the exam, 0 the earliest.
            composite_nodes: vtkMRMLSliceCompositeNode of the views; None: all but those of the exams side by side. Labels stay
                as they are.
            kind: a key of ``KINDS``.

        Returns:
            Sentences about what should be there and is not in the scene any more.

        Raises:
            IndexError: no such exam.
            KeyError: no such kind.
            ResultError: the result is no longer in the scene.
        """
        words, exam, record = KINDS[kind].words, self._exam(index), self._live
        image, overlay = self.volume(index, exam["shown"]), self.map_node(index, kind)
        views = layers.usual_composites(record.scene) if composite_nodes is None else composite_nodes
        layers.set_layers(views, image, overlay, self.opacity)
        record.change_state(exam=index, kind=kind)
        layers.update_legend(record)
        layers.update_fields(record)
        seen = overlay if image is None else image
        if seen is not None:
            layers.bring_into_view(views, seen, overlay)
        missing = []
        if image is None:
            missing.append(f"{exam['shown']} of {exam['date']} is no longer in the scene, so it can't be shown.")
        if overlay is None and kind in exam["maps"]:
            missing.append(f"The map of {exam['date']} of what {words} was deleted. Predict again to have it back.")
        return missing

    def show_side_by_side(self) -> None:
        """Shows every exam in its own view of the layout side by side, at the peak of the exam shown last.

        The kind of map is the one shown last. Views that the layout does not hold are not made.
        """
        layers.show_side_by_side(self._live)
        layers.update_legend(self._live)

    def jump_to_peak(self) -> None:
        """Moves the views of one exam to the peak of the exam shown last, where its map shows what raises the output."""
        peak = self.prediction["exams"][self.shown_index]["peak"]
        if peak is not None and self.shown_kind == TOWARDS.key:
            layers.jump_to(self._live.scene, np.array(peak["mm"]))

    def fit_views(self) -> None:
        """Brings the exams side by side onto one scale again, and gives the legend its size, after views changed theirs."""
        layers.place_side_by_side(self._live, stay=True)
        layers.fit_legend(self._live)

    def show_field(self, visible: bool) -> None:
        """Outlines the box that the model read of the shown exam, or no box."""
        self._live.change_state(field=visible)
        layers.update_fields(self._live)

    def set_threshold(self, threshold: float) -> None:
        """Draws nothing below this share (0-1), in no exam's map."""
        self._live.change_state(threshold=min(max(float(threshold), 0.0), 1.0))
        for node in self._live.maps():
            result_nodes.set_map_threshold(node, self.threshold)

    def set_opacity(self, opacity: float) -> None:
        """Draws the maps with this opacity (0-1) in all views that show one; other foregrounds stay as they are."""
        self._live.change_state(opacity=min(max(float(opacity), 0.0), 1.0))
        for composite in layers.composites_with_maps(self.record):
            composite.SetForegroundOpacity(self.opacity)

    def map_words(self) -> str:
        """What the colours of the shown kind of map stand for, and what is not drawn."""
        return f"{KINDS[self.shown_kind].scale}; below {self.threshold:.2f} nothing is drawn."

    def view_text(self, index: int, kind: str | None = None) -> str:
        """What a view that shows this exam should say: date, which of how many, whether there is a map and a meaning.

        Args:
            index: of the exam.
            kind: of the map; None: the one shown last.

        Raises:
            IndexError: no such exam.
        """
        parts = [self._exam(index)["date"], f"{index + 1} of {len(self._live.exams)}"]
        if self.map_node(index, kind or self.shown_kind) is None:
            parts.append("no map")
        if self._live.meaning is not None:
            parts.append("demonstration")
        return ", ".join(parts)

    def view_texts(self) -> Mapping[str, str]:
        """``view_text`` of every exam that can be shown, by the ID of its volume."""
        volumes = [self.volume(index, exam["shown"]) for index, exam in enumerate(self._live.exams)]
        return {node.GetID(): self.view_text(index) for index, node in enumerate(volumes) if node is not None}

    def headline(self) -> Headline:
        """The result at a glance."""
        from HCCNetLib.reporting.horizons import horizon_note, horizon_table
        from HCCNetLib.reporting.numbers import percent

        result = self.prediction
        within = f"HCC within {float(result['horizon_months']):g} months after {result['landmark']}"
        if result_nodes.has_no_meaning(result):
            return Headline("Demonstration", f"No meaning for this patient, so no risk of {within} is given.")
        what = "Estimated risk" if result["bundle"]["calibrated"] else "Network output, not calibrated, for the risk"
        low, high, count = result["spread"]["low"], result["spread"]["high"], len(result["members"])
        of_members = f" ({count} networks: {percent(low)} to {percent(high)})" if count > 1 else ""
        generated = "Generated patient. " if result["phantom"] else ""
        line = f"{generated}{what} of {within}{of_members}."
        figure = html.unescape(percent(result["risk"]))
        by_horizon = (horizon_table(result), horizon_note(result)) if len(self.horizons_months) > 1 else ()
        return Headline(figure, html.unescape(line), (low, result["risk"], high), *by_horizon)

    def sentence(self) -> str:
        """The result in words, with the notice that this is research; no figure where the result has no meaning."""
        from HCCNetLib.reporting.numbers import percent

        result = self.prediction
        of = (
            f"of a diagnosis of hepatocellular carcinoma within {float(result['horizon_months']):g} months "
            f"after {result['landmark']}"
        )
        if result_nodes.has_no_meaning(result):
            told = f"Demonstration only: this result has no meaning for this patient, so no risk {of} is given."
            return f"{told} {result['notice']}"
        kind = "Estimated risk" if result["bundle"]["calibrated"] else "Network output, not calibrated, for the risk"
        risk, low, high = (percent(x) for x in (result["risk"], result["spread"]["low"], result["spread"]["high"]))
        count = len(result["members"])
        spread = f", {low} to {high} from the smallest to the largest of {count} members" if count > 1 else ""
        generated = "Generated patient (phantom). " if result["phantom"] else ""
        return html.unescape(f"{generated}{kind} {of}: {risk}{spread}. {result['notice']}")

    def told(self) -> str:
        """The sentence, and what else a reader must know: that there are more results, and that this one is out of date."""
        parts = [self.sentence()]
        if self.others:
            parts.append(f"The scene holds {self.others + 1} results; this is one of them.")
        reasons = self.stale_reasons()
        if reasons:
            parts.append(" ".join(["Out of date:", *reasons, "Predict again."]))
        return " ".join(parts)

    def stale_reasons(
        self,
        settings: Mapping[str, Any] | None = None,
        exams: Sequence[ShownExam] | None = None,
        quick: bool = False,
    ) -> Sequence[str]:
        """Sentences about what is no longer as it was when the prediction was made; none if all is.

        Args:
            settings: what a prediction would be asked for now; None: not compared.
            exams: what a prediction would be made from now; None: not compared.
            quick: for a window, which asks often: voxels that were written in place without a word are not found.
        """
        if not self.is_in_scene:
            return [_GONE]
        reasons = [*staleness.volume_changes(self._live, quick), *staleness.bundle_changes(self.bundle)]
        if exams is not None:
            reasons += staleness.exam_changes(self._live, exams)
        if settings is not None:
            reasons += staleness.setting_changes(self.settings, settings)
        return reasons

    def observe(self, callback: Callable[[], None]) -> None:
        """Calls back whenever the result may have become stale; ``stale_reasons`` tells whether it has.

        Calls back a last time when the result is removed or replaced, but not when the scene is closed.

        An edit calls back many times: whoever is called waits until it is quiet. Voxels that are written in place without
        telling the volume call nobody, and are found by ``stale_reasons`` all the same.
        """
        self.unobserve()
        self._watch = staleness.Watch(self._live, callback)

    def unobserve(self) -> None:
        """Calls back no more."""
        if self._watch is not None:
            self._watch.stop()
        self._watch = None

    def restore(self) -> Sequence[str]:
        """Shows again what was shown when the scene was saved, and returns the sentences of ``show_exam``.

        To be called after a scene was opened or imported: a chart may have lost a series on the way, in the scene or in the
        view that draws it.
        """
        for role, chart in result_nodes.charts(self.prediction).items():
            self._mend_chart(self.node(role), chart)
        layers.remove_legend(self._live)
        return self.show_exam(self.shown_index, kind=self.shown_kind)

    def _mend_chart(self, node: Any, chart: result_nodes.Chart) -> None:
        if node is None:
            return
        series = [found for each in chart.series if (found := self._series(each, node)) is not None]
        wanted = [each.GetID() for each in series]
        if wanted != [node.GetNthPlotSeriesNodeID(n) for n in range(node.GetNumberOfPlotSeriesNodes())]:
            node.RemoveAllPlotSeriesNodeIDs()
            for node_id in wanted:
                node.AddAndObservePlotSeriesNodeID(node_id)
        for view in self._live.scene.GetNodesByClass("vtkMRMLPlotViewNode"):
            if (
                view.GetPlotChartNodeID() == node.GetID()
            ):  # a view draws all anew only where it shows something else first
                view.SetPlotChartNodeID(None)
                view.SetPlotChartNodeID(node.GetID())

    def _series(self, series: result_nodes.Series, chart: Any) -> Any:
        """A chart's series, made anew from its table where it was lost; None where its table was deleted."""
        node, table, record = self.node(series.role), self.node(series.table), self._live
        if node is None and table is not None:
            node = result_nodes.add_series(record.scene, series, table)
            record.own(series.role, node)
            placement.place_beside(record.scene, node, chart)
        return node

    def remove(self) -> None:
        """Removes every node that was made for the result, and its maps from the views; the exams stay.

        Nothing is left to do where it was removed or the scene was closed meanwhile.
        """
        self.unobserve()
        if not self.is_in_scene:
            return
        for composite in layers.composites_with_maps(self.record):
            composite.SetForegroundVolumeID(None)
        self._live.remove()

    @property
    def _live(self) -> Record:
        """The record; raises ResultError where it is no longer in the scene, since all that it refers to is gone."""
        if not self.is_in_scene:
            raise ResultError(_GONE)
        return self.record

    def _exam(self, index: int) -> Mapping[str, Any]:
        exams = self._live.exams
        if not 0 <= index < len(exams):
            raise IndexError(f"exam {index} of {len(exams)}")
        return exams[index]

    def _text(self, role: str) -> str:
        node = self.node(role)
        if node is None:
            raise ResultError("A text of the result was deleted from the scene. Predict again.")
        return str(node.GetText() or "")


def _in_order(prediction: Mapping[str, Any], exams: Sequence[ShownExam]) -> Sequence[ShownExam]:
    """The exams in the prediction's order."""
    given = {exam.exam_id: exam for exam in exams}
    predicted = [(exam["exam_id"], exam["date"]) for exam in prediction["exams"]]
    if sorted(predicted) != sorted((exam.exam_id, exam.date.isoformat()) for exam in exams):
        raise ResultError("The result is of other exams than those that were given. Predict again.")
    return [given[exam_id] for exam_id, _ in predicted]
