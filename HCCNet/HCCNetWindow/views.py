"""Slice views: the exam's date on them, linked, at the peak of its map."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import slicer

_TOP_CENTRE = 7  # of VTK's corner annotations; Slicer itself writes into 0 to 3


def stamp(text: str) -> None:
    """Writes into every slice view which exam it shows; an empty text takes the writing away."""
    for view in _slice_views():
        view.cornerAnnotation().SetText(_TOP_CENTRE, text)
        view.scheduleRender()


def link() -> None:
    """Lets all slice views follow each other."""
    for widget in _slice_widgets():
        widget.mrmlSliceCompositeNode().SetLinkedControl(True)


def jump_to(point: Sequence[float]) -> None:
    """Moves all slice views to a point in the scene's space, RAS mm."""
    slicer.modules.markups.logic().JumpSlicesToLocation(*point, True)


def show_chart(chart: Any) -> None:
    """Shows a chart beside the slice views."""
    slicer.modules.plots.logic().ShowChartInLayout(chart)


def _slice_widgets() -> list[Any]:
    manager = slicer.app.layoutManager()
    return [] if manager is None else [manager.sliceWidget(name) for name in manager.sliceViewNames()]


def _slice_views() -> list[Any]:
    return [widget.sliceView() for widget in _slice_widgets()]
