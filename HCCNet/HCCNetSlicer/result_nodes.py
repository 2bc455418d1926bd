"""The nodes that a result is shown with: each function makes one, or the few of one kind, and places nothing."""

from __future__ import annotations

import datetime
import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import slicer
import slicer.util
import vtk

from HCCNetSlicer.map_kinds import MapKind
from HCCNetSlicer.result_files import MapImage
from HCCNetSlicer.volumes import matrix_of

Column = Sequence[str] | Sequence[float | None]

NO_MEANING = "demonstration, no meaning"

_LEGEND_WIDTH = 25  # characters
_DAYS = "Days since first exam"
_TOPS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0)
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


def legend_title(kind: MapKind, threshold: float, meaning: str | None) -> str:
    """What the legend says: what the places do, what 1 stands for, and what is not drawn; lines that fit into a view.

    Args:
        kind: of the map.
        threshold: the share below which nothing is drawn.
        meaning: that the result has none, in words; else None.
    """
    told = [kind.words, kind.scale, f"below {threshold:.2f} not drawn"]
    if meaning is not None:
        told.append(meaning)
    return "\n".join(line for part in told for line in textwrap.wrap(part, _LEGEND_WIDTH))


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
        _DAYS: _days(dates, prediction),
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
        _DAYS: _days(dates, prediction),
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


def add_risk_chart(scene: Any, prediction: Mapping[str, Any], risk: Any, exams: Any) -> tuple[Any, list[Any]]:
    """Adds the chart of the risk over time, and returns it with its series.

    Args:
        scene: the scene.
        prediction: the content of prediction.json.
        risk: the table of ``add_risk_table``.
        exams: the table of ``add_exam_table``.
    """
    words = _risk_words(prediction)
    line = _add_series(scene, f"{words} as of each exam", risk, words, "As of")
    without = _add_series(scene, f"{words} without the exam", exams, f"{words} without it", "Exam")
    without.SetLineStyle(slicer.vtkMRMLPlotSeriesNode.LineStyleNone)
    without.SetMarkerStyle(slicer.vtkMRMLPlotSeriesNode.MarkerStyleDiamond)
    without.SetColor(_SECOND)
    chart = _add_chart(scene, titled("HCCNet risk by date", prediction), words, [line, without])
    shares = [point["risk"] for point in prediction["trajectory"]]
    shares += [exam["risk_without"] for exam in prediction["exams"] if exam["risk_without"] is not None]
    chart.SetYAxisRangeAuto(False)
    chart.SetYAxisRange(0, next(top for top in _TOPS if top >= max(shares)))
    return chart, [line, without]


def add_attention_chart(scene: Any, prediction: Mapping[str, Any], exams: Any) -> tuple[Any, list[Any]]:
    """Adds the chart of the attention to each exam, and returns it with its series; ``exams`` is the exams' table."""
    plain = _add_series(scene, "Attention", exams, "Attention", "Exam")
    weighted = _add_series(scene, "Attention, gradient-weighted", exams, "Attention, gradient-weighted", "Exam")
    weighted.SetLineStyle(slicer.vtkMRMLPlotSeriesNode.LineStyleDash)
    weighted.SetMarkerStyle(slicer.vtkMRMLPlotSeriesNode.MarkerStyleSquare)
    weighted.SetColor(_SECOND)
    chart = _add_chart(scene, titled("HCCNet attention by date", prediction), "Attention (sum 1)", [plain, weighted])
    chart.SetYAxisRangeAuto(False)
    chart.SetYAxisRange(0, 1)
    return chart, [plain, weighted]


def _add_chart(scene: Any, title: str, y_title: str, series: Sequence[Any]) -> Any:
    chart = scene.AddNewNodeByClass("vtkMRMLPlotChartNode", title)
    chart.SetTitle(title)
    chart.SetXAxisTitle(_DAYS)
    chart.SetYAxisTitle(y_title)
    for node in series:
        chart.AddAndObservePlotSeriesNodeID(node.GetID())
    return chart


def _add_series(scene: Any, name: str, table: Any, y: str, label: str) -> Any:
    node = scene.AddNewNodeByClass("vtkMRMLPlotSeriesNode", name)
    node.SetAndObserveTableNodeID(table.GetID())
    node.SetPlotType(slicer.vtkMRMLPlotSeriesNode.PlotTypeScatter)
    node.SetXColumnName(_DAYS)
    node.SetYColumnName(y)
    node.SetLabelColumnName(label)
    node.SetLineStyle(slicer.vtkMRMLPlotSeriesNode.LineStyleSolid)
    node.SetMarkerStyle(slicer.vtkMRMLPlotSeriesNode.MarkerStyleCircle)
    node.SetMarkerSize(9)
    node.SetColor(_MAIN)
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


def _days(dates: Sequence[str], prediction: Mapping[str, Any]) -> list[float]:
    first = min(datetime.date.fromisoformat(exam["date"]) for exam in prediction["exams"])
    return [float((datetime.date.fromisoformat(date) - first).days) for date in dates]
