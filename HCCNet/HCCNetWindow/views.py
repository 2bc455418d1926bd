"""What lies around the panel: dates and livers on the slice views, the layouts, the chart's dates."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import slicer
import vtk

from HCCNetSlicer import layers, side_by_side
from HCCNetSlicer.observing import Observers
from HCCNetSlicer.result_nodes import decimal_year

_TOP_CENTRE = 7  # of VTK's corner annotations; Slicer itself writes into 0 to 3
_LABEL_SHARE = 0.1  # of the chart's width, which a date takes up


class Stamps:
    """Keeps written on every slice view which exam it shows; on a view that shows something else, nothing.

    Args:
        resized: called when a view has another size.
    """

    def __init__(self, resized: Callable[[], None]) -> None:
        self._resized = resized
        self._texts: Mapping[str, str] = {}
        self._observers = Observers()
        self._sizes: dict[str, tuple[int, ...]] = {}

    def show(self, texts: Mapping[str, str]) -> None:
        """Writes texts on the views, by the ID of the volume in their background, from now on; ``clear`` ends it."""
        self.leave()
        self._texts = texts
        for widget in _slice_widgets():
            view = widget.mrmlSliceNode()
            self._sizes[view.GetID()] = view.GetDimensions()
            self._observers.add(widget.mrmlSliceCompositeNode(), vtk.vtkCommand.ModifiedEvent, self._write)
            self._observers.add(view, vtk.vtkCommand.ModifiedEvent, self._view_changed)
        self._write()

    def clear(self) -> None:
        """Removes the texts."""
        had_texts = bool(self._texts)
        self.leave()
        self._texts = {}
        if had_texts:
            self._write()

    def leave(self) -> None:
        """Watches the views no more; what is written on them stays."""
        self._observers.clear()
        self._sizes = {}

    def _view_changed(self, view: Any, event: str) -> None:
        """A view changes whenever it is scrolled; only another size matters."""
        size = view.GetDimensions()
        if self._sizes.get(view.GetID()) != size:
            self._sizes[view.GetID()] = size
            self._resized()

    def _write(self, *_: Any) -> None:
        for widget in _slice_widgets():
            text = self._texts.get(widget.mrmlSliceCompositeNode().GetBackgroundVolumeID() or "", "")
            view = widget.sliceView()
            if view.cornerAnnotation().GetText(_TOP_CENTRE) != (text or None):
                view.cornerAnnotation().SetText(_TOP_CENTRE, text)
                view.scheduleRender()


class LiverOutlines:
    """Keeps livers outlined in the views of their exams."""

    def __init__(self) -> None:
        self._livers: Sequence[tuple[Any, Sequence[Any]]] = ()
        self._observers = Observers()

    def show(self, livers: Sequence[tuple[Any, Sequence[Any]]]) -> None:
        """Outlines livers from now on; those of before are shown in all views again, as Slicer does it.

        Args:
            livers: each with its exam's volumes.
        """
        self.leave()
        now = [liver for liver, _ in livers]
        for liver, _ in self._livers:
            if liver not in now and liver.GetScene() is not None:
                layers.outline_liver(liver, None)
        self._livers = livers
        if livers:
            for widget in _slice_widgets():
                self._observers.add(widget.mrmlSliceCompositeNode(), vtk.vtkCommand.ModifiedEvent, self._update)
        self._update()

    def leave(self) -> None:
        """Watches the views no more; what they show stays."""
        self._observers.clear()

    def _update(self, *_: Any) -> None:
        for liver, volumes in self._livers:
            layers.outline_liver(liver, volumes)


class Layouts:
    """The layout with the exams side by side, and the one that the user had before.

    Args:
        changed: called when another layout is shown, by whatever means.
    """

    def __init__(self, changed: Callable[[], None]) -> None:
        self._usual = 0
        self._changed = lambda layout: changed()
        manager = _manager()
        if manager is not None:
            manager.connect("layoutChanged(int)", self._changed)

    @property
    def is_side_by_side(self) -> bool:
        """Whether the exams are shown side by side."""
        manager = _manager()
        return manager is not None and side_by_side.is_ours(manager.layout)

    def show_side_by_side(self, exams: int) -> None:
        """Shows the layout for this many exams, with the chart's view."""
        manager = _manager()
        if manager is None:
            return
        side_by_side.register(manager.layoutLogic().GetLayoutNode())
        if not self.is_side_by_side:
            self._usual = manager.layout
        if manager.layout != side_by_side.layout_for(exams):
            manager.setLayout(side_by_side.layout_for(exams))

    def show_usual(self) -> None:
        """Shows the layout that the user had before."""
        if self.is_side_by_side:
            _manager().setLayout(self._usual or slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView)

    def leave(self) -> None:
        """Watches the layout no more."""
        manager = _manager()
        if manager is not None:
            manager.disconnect("layoutChanged(int)", self._changed)


def link() -> None:
    """Lets all slice views follow each other."""
    for widget in _slice_widgets():
        widget.mrmlSliceCompositeNode().SetLinkedControl(True)


def fit() -> None:
    """Lets every slice view show the whole of its exam."""
    manager = _manager()
    if manager is not None:
        manager.resetSliceViews()


def show_chart(chart: Any, labels: Mapping[float, str]) -> None:
    """Shows a chart, if it was not deleted, in the chart's view of the layout, with these labels along its x axis."""
    manager = None if chart is None else _manager()
    for widget in [] if manager is None else map(manager.plotWidget, range(manager.plotViewCount)):
        view = widget.mrmlPlotViewNode()
        if view.GetLayoutName() != side_by_side.CHART_VIEW:
            continue
        view.SetPlotChartNodeID(chart.GetID())
        positions, texts = vtk.vtkDoubleArray(), vtk.vtkStringArray()
        for position, text in labels.items():
            positions.InsertNextValue(position)
            texts.InsertNextValue(text)
        widget.plotView().chart().GetAxis(vtk.vtkAxis.BOTTOM).SetCustomTickPositions(positions, texts)
        chart.Modified()  # the view draws itself anew


def date_labels(dates: Sequence[datetime.date]) -> dict[float, str]:
    """Where dates stand along a chart's axis: those that have room for a label, the latest first of all."""
    span = (max(dates) - min(dates)).days
    kept: list[datetime.date] = []
    for date in sorted(dates, reverse=True):
        if not kept or (kept[-1] - date).days >= _LABEL_SHARE * span:
            kept.append(date)
    return {decimal_year(date.isoformat()): date.isoformat() for date in kept[::-1]}


def _manager() -> Any:
    """Slicer's layout manager; None where Slicer runs without a main window."""
    return slicer.app.layoutManager()


def _slice_widgets() -> list[Any]:
    manager = _manager()
    return [] if manager is None else [manager.sliceWidget(name) for name in manager.sliceViewNames()]
