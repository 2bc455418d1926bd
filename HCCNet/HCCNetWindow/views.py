"""Slice views: the exam's date on them, linked, at the peak of its map."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import slicer
import vtk

_TOP_CENTRE = 7  # of VTK's corner annotations; Slicer itself writes into 0 to 3


class Stamps:
    """Keeps written on every slice view which exam it shows; on a view that shows something else, nothing."""

    def __init__(self) -> None:
        self._text, self._volume_id = "", ""
        self._observed: list[tuple[Any, int]] = []

    def show(self, text: str, volume: Any) -> None:
        """Writes a text on the views whose background is a volume, from now on; ``clear`` ends it."""
        self.clear()
        if volume is None:
            return
        self._text, self._volume_id = text, volume.GetID()
        for widget in _slice_widgets():
            composite = widget.mrmlSliceCompositeNode()
            tag = composite.AddObserver(vtk.vtkCommand.ModifiedEvent, lambda *_: self._write())
            self._observed.append((composite, tag))
        self._write()

    def clear(self) -> None:
        """Takes the writing away."""
        had_text = bool(self._text)
        self.leave()
        self._text, self._volume_id = "", ""
        if had_text:
            self._write()

    def leave(self) -> None:
        """Watches the views no more; what is written on them stays."""
        for composite, tag in self._observed:
            composite.RemoveObserver(tag)
        self._observed = []

    def _write(self) -> None:
        for widget in _slice_widgets():
            shows = self._text and widget.mrmlSliceCompositeNode().GetBackgroundVolumeID() == self._volume_id
            view = widget.sliceView()
            view.cornerAnnotation().SetText(_TOP_CENTRE, self._text if shows else "")
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
