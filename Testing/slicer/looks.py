"""What can be seen of a result: pictures of slice views, and whether date, peak and figure are covered by anything.

Used by the tests in Slicer, by screenshots.py, and by Testing/window/draw_window.py without Slicer.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import slicer
import vtk
from vtk.util.numpy_support import vtk_to_numpy

_TOP_CENTRE = 7  # of the corner annotations, where the date is
_AROUND_PEAK = 8  # pixels
_LARGEST_LEGEND = 0.15  # of a view
_LETTER_PIXELS = 25  # that a date changes at least


def picture(widget: Any) -> np.ndarray:
    """What a slice widget shows now: RGB (rows from the bottom, columns, 3)."""
    view = widget.sliceView()
    view.forceRender()
    grab = vtk.vtkWindowToImageFilter()
    grab.SetInput(view.renderWindow())
    grab.ReadFrontBufferOff()
    grab.Update()
    width, height, _ = grab.GetOutput().GetDimensions()
    return vtk_to_numpy(grab.GetOutput().GetPointData().GetScalars()).reshape(height, width, -1)[..., :3].astype(int)


def shown_widgets() -> list[Any]:
    """The slice widgets that the layout shows."""
    manager = slicer.app.layoutManager()
    widgets = [manager.sliceWidget(name) for name in manager.sliceViewNames()]
    return [widget for widget in widgets if widget.mrmlSliceNode().IsMappedInLayout()]


def problems_of_views(result: Any) -> list[str]:
    """What is covered in the views that are shown, or is not there at all; none is as it should be.

    A view is drawn with and without the date, and with and without the legend: what differs is where they are.
    """
    found: list[str] = []
    legend, exams = result.node("legend"), result.record.exams
    drawn_legends = 0
    for widget in shown_widgets():
        name, index = widget.mrmlSliceNode().GetLayoutName(), _exam_shown(result, widget)
        if index is None:
            found.append(f"{name} shows no exam of the result")
            continue
        annotation = widget.sliceView().cornerAnnotation()
        text = annotation.GetText(_TOP_CENTRE) or ""
        if not text.startswith(exams[index]["date"]):
            found.append(f"{name} shows the exam of {exams[index]['date']} and says {text!r}")
        whole = picture(widget)
        legend.SetVisibility(False)
        without_legend = picture(widget)
        annotation.SetText(_TOP_CENTRE, "")
        bare = picture(widget)
        annotation.SetText(_TOP_CENTRE, text)
        legend.SetVisibility(True)
        date, covered = _differs(without_legend, bare), _differs(whole, without_legend)
        drawn_legends += bool(covered.any())
        if date.sum() < _LETTER_PIXELS:
            found.append(f"{name}: the date is not drawn")
        if (covered & _box_around(date)).any():
            found.append(f"{name}: the legend covers the date")
        if covered.any() and _box_around(covered).mean() > _LARGEST_LEGEND:
            found.append(f"{name}: the legend takes {_box_around(covered).mean():.0%} of the view")
        peak = _peak_pixel(result, widget, index)
        if peak is not None and _near(covered | date, peak):
            found.append(f"{name}: the date or the legend covers the peak")
    if drawn_legends != 1:
        found.append(f"the legend is drawn in {drawn_legends} views, not in one")
    return found


def problems_of_panel(ui: Any) -> list[str]:
    """Which parts of the panel that must be seen at once can't be; none is as it should be."""
    return [
        f"{name} is covered or scrolled away"
        for name in ("researchLabel", "figureLabel", "resultLabel")
        if not _is_all_visible(getattr(ui, name))
    ]


def _is_all_visible(widget: Any) -> bool:
    seen = widget.visibleRegion().boundingRect()
    return seen.width() >= widget.width - 1 and seen.height() >= widget.height - 1


def _exam_shown(result: Any, widget: Any) -> int | None:
    shown = widget.mrmlSliceCompositeNode().GetBackgroundVolumeID()
    volumes = [result.volume(index, exam["shown"]) for index, exam in enumerate(result.record.exams)]
    return next((i for i, volume in enumerate(volumes) if volume is not None and volume.GetID() == shown), None)


def _peak_pixel(result: Any, widget: Any, index: int) -> tuple[int, int] | None:
    """Row (from the bottom) and column of an exam's peak in a view whose slice goes through it."""
    peak = result.prediction["exams"][index]["peak"]
    if peak is None:
        return None
    to_pixel = vtk.vtkMatrix4x4()
    vtk.vtkMatrix4x4.Invert(widget.mrmlSliceNode().GetXYToRAS(), to_pixel)
    x, y, z, _ = to_pixel.MultiplyPoint((*peak["mm"], 1.0))
    return (round(y), round(x)) if abs(z) < 1 else None


def _differs(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return np.abs(one - other).max(axis=-1) > 8


def _box_around(mask: np.ndarray) -> np.ndarray:
    """The smallest upright box that holds everything that is marked."""
    box = np.zeros_like(mask)
    rows, columns = np.nonzero(mask)
    if len(rows):
        box[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1] = True
    return box


def _near(mask: np.ndarray, pixel: tuple[int, int]) -> bool:
    row, column = pixel
    low_row, low_column = max(row - _AROUND_PEAK, 0), max(column - _AROUND_PEAK, 0)
    return bool(mask[low_row : row + _AROUND_PEAK + 1, low_column : column + _AROUND_PEAK + 1].any())
