"""The nodes that a result is shown with: each function makes one, or the few of one kind, and places nothing."""

from __future__ import annotations

import datetime
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import slicer
import slicer.util
import vtk

from HCCNetSlicer.result_files import MapImage
from HCCNetSlicer.volumes import matrix_of

Column = Sequence[str] | Sequence[float | None]

NO_MEANING = "demonstration, no meaning"

YEAR = "Date (decimal year)"  # MRML's charts draw numbers only
_MONTHS = "Months after the latest exam"
_LOW, _HIGH, _AVERAGE = "Smallest member", "Largest member", "Training cohort's average"

_ROOM = 0.06  # share of an axis beyond its first and last marker
_LONE_EXAM_YEARS = 0.5
# Blue and orange that colour-blind readers tell apart too; lines and markers differ as well.
_MAIN, _SECOND = (0.0, 0.30, 0.60), (0.85, 0.45, 0.0)
_FIELD = (0.9, 0.9, 0.9)


def has_no_meaning(prediction: Mapping[str, Any]) -> bool:
    """Whether demonstration weights were asked about somebody who exists."""
    from HCCNetLib.reporting import elements

    return elements.has_no_meaning(prediction)


def titled(text: str, prediction: Mapping[str, Any]) -> str:
    """A title, which says it where the result has no meaning."""
    return f"{text} ({NO_MEANING})" if has_no_meaning(prediction) else text


def add_map(scene: Any, name: str, image: MapImage, colours: Any) -> Any:
    """Adds a map as a volume with a display of its own: 0-1 for every exam, no interpolation.

    Without interpolation every colour is a value that the map holds, and the threshold neither shrinks nor widens a place.
    A legend shows only with the volume that it finds first by its display, so displays are not shared.
    """
    node = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name)
    slicer.util.updateVolumeFromArray(node, np.ascontiguousarray(image.voxels.transpose(2, 1, 0)))
    node.SetIJKToRASMatrix(matrix_of(image.affine))
    display = scene.AddNewNodeByClass("vtkMRMLScalarVolumeDisplayNode", f"{name} display")
    display.AutoWindowLevelOff()
    display.SetWindowLevelMinMax(0, 1)
    display.SetInterpolate(False)
    display.SetAndObserveColorNodeID(colours.GetID())
    node.SetAndObserveDisplayNodeID(display.GetID())
    return node


def set_map_threshold(node: Any, threshold: float) -> None:
    """Nothing below the threshold is drawn of a map."""
    display = node.GetDisplayNode()
    if display is not None:
        display.SetThreshold(threshold, 1)
        display.SetApplyThreshold(True)


def add_field(scene: Any, name: str, box: Mapping[str, Any]) -> Any:
    """Adds the box that the model read as a hidden outline.

    Args:
        scene: the scene.
        name: of the node.
        box: ``centre_mm``, ``size_mm`` and ``axes`` of prediction.json, RAS.
    """
    axes = np.array(box["axes"], dtype=float).T
    if np.linalg.det(axes) < 0:
        axes[:, 2] *= -1  # the same box, and a rotation as the markup expects
    to_world = np.eye(4)
    to_world[:3, :3], to_world[:3, 3] = axes, box["centre_mm"]
    node = scene.AddNewNodeByClass("vtkMRMLMarkupsROINode", name)
    node.SetROIType(slicer.vtkMRMLMarkupsROINode.ROITypeBox)
    node.SetSize(*box["size_mm"])
    node.SetAndObserveObjectToNodeMatrix(matrix_of(to_world))
    node.SetLocked(True)
    node.CreateDefaultDisplayNodes()
    display = node.GetDisplayNode()
    display.SetFillVisibility(False)
    display.SetHandlesInteractive(False)
    display.SetPropertiesLabelVisibility(False)
    display.SetPointLabelsVisibility(False)
    display.SetColor(_FIELD)
    display.SetSelectedColor(_FIELD)
    display.SetVisibility(False)
    return node


def add_text(scene: Any, name: str, text: str) -> Any:
    """Adds a text that is saved into a file of its own."""
    node = scene.AddNewNodeByClass("vtkMRMLTextNode", name)
    node.SetEncoding(vtk.VTK_ENCODING_UTF_8)
    node.SetForceCreateStorageNode(slicer.vtkMRMLTextNode.CreateStorageNodeAlways)
    node.SetText(text)
    return node


def add_risk_table(scene: Any, prediction: Mapping[str, Any]) -> Any:
    """Adds the table of the risk as of each exam."""
    points = prediction["trajectory"]
    dates = [point["as_of"] for point in points]
    columns: dict[str, Column] = {
        "As of": dates,
        YEAR: [decimal_year(date) for date in dates],
        _risk_words(prediction): [point["risk"] for point in points],
    }
    return _add_table(scene, titled("HCCNet risk", prediction), columns)


def add_exam_table(scene: Any, prediction: Mapping[str, Any]) -> Any:
    """Adds the table of the exams: what the model made of each."""
    exams = prediction["exams"]
    dates = [exam["date"] for exam in exams]
    peaks = [exam["peak"] or {"mm": (None, None, None), "value": None, "members": None} for exam in exams]
    columns: dict[str, Column] = {
        "Exam": dates,
        YEAR: [decimal_year(date) for date in dates],
        "Months before latest exam": [exam["months_before_landmark"] for exam in exams],
        "Attention": [exam["attention"] for exam in exams],
        "Attention, gradient-weighted": [exam["attention_gradient"] for exam in exams],
        f"{_risk_words(prediction)} without it": [exam["risk_without"] for exam in exams],
        "Liver inside the field": [exam["field"]["liver_fraction"] for exam in exams],
        "Cube filled": [exam["field"]["filled_fraction"] for exam in exams],
        "Peak of the map": [peak["value"] for peak in peaks],
        **{f"Peak {axis} (mm)": [peak["mm"][n] for peak in peaks] for n, axis in enumerate("RAS")},
        "Members positive at the peak": [peak["members"] for peak in peaks],
    }
    return _add_table(scene, titled("HCCNet exams", prediction), columns)


def add_horizon_table(scene: Any, prediction: Mapping[str, Any]) -> Any:
    """Adds the table of the risk within each horizon, which begins with 0 at the latest exam."""
    from HCCNetLib.reporting.horizons import has_average, risk_by_horizon

    entries = risk_by_horizon(prediction)
    start = {"months": 0, "risk": 0, "low": 0, "high": 0, "average": 0 if has_average(entries) else None}
    points = [start, *entries]
    columns: dict[str, Column] = {
        "Horizon": ["latest exam", *(f"{at['months']:g} months" for at in entries)],
        _MONTHS: [at["months"] for at in points],
        _risk_words(prediction): [at["risk"] for at in points],
        _LOW: [at["low"] for at in points],
        _HIGH: [at["high"] for at in points],
        _AVERAGE: [at["average"] for at in points],
    }
    return _add_table(scene, titled("HCCNet horizons", prediction), columns)


@dataclass(frozen=True)
class Series:
    """A series of a chart.

    Args:
        role: of its node in the result.
        name: of its node.
        table: role of the table that it draws.
        column: of the table, along the y axis.
        label: column with the points' labels.
        look: line style, marker style and colour.
        across: column along the x axis.
    """

    role: str
    name: str
    table: str
    column: str
    label: str
    look: tuple[int, int, tuple[float, float, float]]
    across: str = YEAR


@dataclass(frozen=True)
class Chart:
    """A chart over the exams' dates or the horizons; its y axis runs from 0 to 1.

    Args:
        title: of the chart.
        y_title: of its y axis.
        explanation: what its markers stand for: a legend would cover the latest exam.
        series: that it shows.
        ends: of the x axis, before room is left for markers.
    """

    title: str
    y_title: str
    explanation: str
    series: tuple[Series, ...]
    ends: tuple[float, float]


def charts(prediction: Mapping[str, Any]) -> Mapping[str, Chart]:
    """The charts of a result by their roles."""
    words = _risk_words(prediction)
    style = slicer.vtkMRMLPlotSeriesNode
    main = (style.LineStyleSolid, style.MarkerStyleCircle, _MAIN)
    apart = (style.LineStyleNone, style.MarkerStyleDiamond, _SECOND)
    dashed = (style.LineStyleDash, style.MarkerStyleSquare, _SECOND)
    as_of = Series("series.risk", f"{words} as of each exam", "table.risk", words, "As of", main)
    without = Series(
        "series.risk_without", f"{words} without the exam", "table.exams", f"{words} without it", "Exam", apart
    )
    plain = Series("series.attention", "Attention", "table.exams", "Attention", "Exam", main)
    weights = "Attention, gradient-weighted"
    weighted = Series("series.weighted", weights, "table.exams", weights, "Exam", dashed)
    dates = [decimal_year(exam["date"]) for exam in prediction["exams"]]
    ends = min(dates), max(dates)
    return {
        "chart.risk": Chart(
            titled(f"HCCNet risk within {prediction['horizon_months']:g} months by date", prediction),
            words,
            "Exam (line: as of this exam; diamonds: without this exam)",
            (as_of, without),
            ends,
        ),
        "chart.attention": Chart(
            titled("HCCNet attention by date", prediction),
            "Attention (sum 1)",
            "Exam (line: attention; dashes: weighted by the gradient)",
            (plain, weighted),
            ends,
        ),
        **_horizon_chart(prediction),
    }


def _horizon_chart(prediction: Mapping[str, Any]) -> Mapping[str, Chart]:
    """The chart of the risk within each horizon; none for a single one."""
    from HCCNetLib.reporting.horizons import has_average, risk_by_horizon

    entries = risk_by_horizon(prediction)
    if len(entries) < 2:
        return {}
    words, style = _risk_words(prediction), slicer.vtkMRMLPlotSeriesNode
    dotted = (style.LineStyleDot, style.MarkerStyleNone, _MAIN)
    looks = {
        ("series.horizons", words): (style.LineStyleSolid, style.MarkerStyleCircle, _MAIN),
        ("series.low", _LOW): dotted,
        ("series.high", _HIGH): dotted,
    }
    if has_average(entries):
        looks["series.average", _AVERAGE] = (style.LineStyleDash, style.MarkerStyleNone, _SECOND)
    series = (
        Series(role, f"{column} by horizon", "table.horizons", column, "Horizon", look, _MONTHS)
        for (role, column), look in looks.items()
    )
    cohort = "; dashes: training cohort" * has_average(entries)
    explanation = f"Months (line: ensemble; dots: range of the members{cohort})"
    title = titled("HCCNet risk by horizon", prediction)
    return {"chart.horizons": Chart(title, words, explanation, tuple(series), (0.0, entries[-1]["months"]))}


def add_series(scene: Any, series: Series, table: Any) -> Any:
    """Adds a series of a chart; ``table`` is the node of the table that it draws."""
    node = scene.AddNewNodeByClass("vtkMRMLPlotSeriesNode", series.name)
    line, marker, colour = series.look
    node.SetAndObserveTableNodeID(table.GetID())
    node.SetPlotType(slicer.vtkMRMLPlotSeriesNode.PlotTypeScatter)
    node.SetXColumnName(series.across)
    node.SetYColumnName(series.column)
    node.SetLabelColumnName(series.label)
    node.SetLineStyle(line)
    node.SetMarkerStyle(marker)
    node.SetMarkerSize(9)
    node.SetColor(colour)
    return node


def add_chart(scene: Any, chart: Chart, series: Sequence[Any]) -> Any:
    """Adds a chart of these nodes of series; the axes leave room for markers at their ends."""
    node = scene.AddNewNodeByClass("vtkMRMLPlotChartNode", chart.title)
    node.SetTitle(chart.title)
    node.SetXAxisTitle(chart.explanation)
    node.SetYAxisTitle(chart.y_title)
    node.SetLegendVisibility(False)
    node.SetXAxisRangeAuto(False)
    node.SetYAxisRangeAuto(False)
    first, last = chart.ends
    room = _ROOM * (last - first) or _LONE_EXAM_YEARS
    node.SetXAxisRange(first - room, last + room)
    node.SetYAxisRange(-_ROOM, 1 + _ROOM)
    for each in series:
        node.AddAndObservePlotSeriesNodeID(each.GetID())
    return node


def _add_table(scene: Any, name: str, columns: Mapping[str, Column]) -> Any:
    """A table with numbers as numbers; what is None is not a number (NaN)."""
    node = scene.AddNewNodeByClass("vtkMRMLTableNode", name)
    for title, values in columns.items():
        is_text = isinstance(values[0], str)
        array = vtk.vtkStringArray() if is_text else vtk.vtkDoubleArray()
        array.SetName(title)
        for value in values:
            array.InsertNextValue(math.nan if value is None else value)
        node.AddColumn(array)
    node.SetUseColumnTitleAsColumnHeader(True)
    node.SetLocked(True)
    return node


def _risk_words(prediction: Mapping[str, Any]) -> str:
    """What is not calibrated is not called a risk."""
    return "Risk" if prediction["bundle"]["calibrated"] else "Network output (not calibrated)"


def decimal_year(date: str) -> float:
    """A date (``2021-03-14``) as a number that charts can draw and people can read, e.g. 2021.2."""
    day = datetime.date.fromisoformat(date)
    start, end = datetime.date(day.year, 1, 1), datetime.date(day.year + 1, 1, 1)
    return day.year + (day - start).days / (end - start).days
