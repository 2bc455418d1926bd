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
    """

    role: str
    name: str
    table: str
    column: str
    label: str
    look: tuple[int, int, tuple[float, float, float]]


@dataclass(frozen=True)
class Chart:
    """A chart over the exams' dates; its y axis runs from 0 to 1.

    Args:
        title: of the chart.
        y_title: of its y axis.
        explanation: what its markers stand for: a legend would cover the latest exam.
        series: that it shows.
    """

    title: str
    y_title: str
    explanation: str
    series: tuple[Series, ...]


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
    return {
        "chart.risk": Chart(
            titled("HCCNet risk by date", prediction),
            words,
            "Exam (line: as of this exam; diamonds: without this exam)",
            (as_of, without),
        ),
        "chart.attention": Chart(
            titled("HCCNet attention by date", prediction),
            "Attention (sum 1)",
            "Exam (line: attention; dashes: weighted by the gradient)",
            (plain, weighted),
        ),
    }


def add_series(scene: Any, series: Series, table: Any) -> Any:
    """Adds a series of a chart; ``table`` is the node of the table that it draws."""
    node = scene.AddNewNodeByClass("vtkMRMLPlotSeriesNode", series.name)
    line, marker, colour = series.look
    node.SetAndObserveTableNodeID(table.GetID())
    node.SetPlotType(slicer.vtkMRMLPlotSeriesNode.PlotTypeScatter)
    node.SetXColumnName(YEAR)
    node.SetYColumnName(series.column)
    node.SetLabelColumnName(series.label)
    node.SetLineStyle(line)
    node.SetMarkerStyle(marker)
    node.SetMarkerSize(9)
    node.SetColor(colour)
    return node


def add_chart(scene: Any, chart: Chart, dates: Sequence[str], series: Sequence[Any]) -> Any:
    """Adds a chart of these nodes of series; the axes leave room for markers at the first and last of the dates."""
    node = scene.AddNewNodeByClass("vtkMRMLPlotChartNode", chart.title)
    node.SetTitle(chart.title)
    node.SetXAxisTitle(chart.explanation)
    node.SetYAxisTitle(chart.y_title)
    node.SetLegendVisibility(False)
    node.SetXAxisRangeAuto(False)
    node.SetYAxisRangeAuto(False)
    first, last = decimal_year(min(dates)), decimal_year(max(dates))
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
