"""Slicer's layout manager with its slice and plot views, on real nodes and logics, drawn offscreen by VTK.

What ``qMRMLLayoutManager``, ``qMRMLSliceWidget`` and ``qMRMLPlotView`` do in C++ is repeated here, as far as a picture
shows it; the bars above the views are stand-ins.
"""
# ruff: noqa: N802, N815 - Slicer's and Qt's names

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import slicer
import vtk
from PySide6 import QtCore, QtGui, QtWidgets
from vtk.util.numpy_support import vtk_to_numpy

_MANAGERS = (
    *("vtkMRMLVolumeGlyphSliceDisplayableManager", "vtkMRMLModelSliceDisplayableManager"),
    *("vtkMRMLCrosshairDisplayableManager", "vtkMRMLOrientationMarkerDisplayableManager"),
    *("vtkMRMLRulerDisplayableManager", "vtkMRMLScalarBarDisplayableManager", "vtkMRMLColorLegendDisplayableManager"),
    *("vtkMRMLSegmentationsDisplayableManager2D", "vtkMRMLMarkupsDisplayableManager"),
)


class View(QtWidgets.QWidget):
    """A widget that shows what a render window draws, at its own size."""

    def __init__(self, window: vtk.vtkRenderWindow) -> None:
        super().__init__()
        self._window = window
        window.SetOffScreenRendering(True)
        window.SetMultiSamples(0)  # as in Slicer

    def renderWindow(self) -> vtk.vtkRenderWindow:
        return self._window

    def scheduleRender(self) -> None:
        self.update()

    def forceRender(self) -> None:
        self.repaint()

    def resizeEvent(self, event: QtGui.QResizeEvent) -> None:
        self._window.SetSize(self.width, self.height)

    def paintEvent(self, event: QtGui.QPaintEvent) -> None:
        self._window.Render()
        grab = vtk.vtkWindowToImageFilter(input=self._window, read_front_buffer=False, should_rerender=False)
        grab.Update()
        image = grab.GetOutput()
        width, height, _ = image.GetDimensions()
        rows = vtk_to_numpy(image.GetPointData().GetScalars()).reshape(height, width, 3)[::-1].copy()
        picture = QtGui.QImage(rows.data, width, height, 3 * width, QtGui.QImage.Format.Format_RGB888)
        QtGui.QPainter(self).drawImage(0, 0, picture)


class SliceView(View):
    """qMRMLSliceView: the blended image, pixel on pixel, the displayable managers, and writing in the corners."""

    def __init__(self, logic: Any) -> None:
        super().__init__(vtk.vtkRenderWindow())
        self._logic = logic
        self._renderer = vtk.vtkRenderer()
        self._renderer.GetActiveCamera().ParallelProjectionOn()
        self._window.AddRenderer(self._renderer)
        interactor = vtk.vtkGenericRenderWindowInteractor(render_window=self._window)
        self._window.SetInteractor(interactor)
        self._mapper = vtk.vtkImageMapper(color_window=255, color_level=127.5)
        self._image = vtk.vtkActor2D(mapper=self._mapper)
        self._image.GetProperty().SetDisplayLocationToBackground()
        self._annotation = vtk.vtkCornerAnnotation(maximum_line_height=0.07)
        self._annotation.GetTextProperty().ShadowOn()
        for actor in (self._image, self._annotation):
            self._renderer.AddViewProp(actor)
        factory = slicer.vtkMRMLSliceViewDisplayableManagerFactory.GetInstance()
        self.managers = factory.InstantiateDisplayableManagers(self._renderer)
        self.managers.AddObserver("UpdateEvent", lambda *_: self.update())
        logic.SetDisplayableManagerGroup(self.managers)
        logic.AddObserver("ModifiedEvent", lambda *_: self._take_image())

    def cornerAnnotation(self) -> vtk.vtkCornerAnnotation:
        return self._annotation

    def _take_image(self) -> None:
        connection = self._logic.GetImageDataConnection()
        self._mapper.SetInputConnection(connection)
        self._image.SetVisibility(connection is not None)
        self.update()

    def resizeEvent(self, event: QtGui.QResizeEvent) -> None:
        super().resizeEvent(event)
        self._logic.ResizeSliceNode(self.width, self.height)


class Bar(QtWidgets.QLabel):
    """Stands in for the bar above a view: its colour, its label and where it is."""

    def __init__(self, node: Any) -> None:
        super().__init__()
        self._node = node
        self.setContentsMargins(6, 2, 6, 2)
        self.setAutoFillBackground(True)
        node.AddObserver("ModifiedEvent", lambda *_: self._show())
        self._show()

    def _show(self) -> None:
        red, green, blue = self._node.GetLayoutColor()
        colours = QtGui.QPalette(QtGui.QColor.fromRgbF(red, green, blue))
        colours.setColor(QtGui.QPalette.ColorRole.WindowText, QtGui.QColor("black"))
        self.setPalette(colours)
        is_slice = self._node.IsA("vtkMRMLSliceNode")
        place = f"    {self._node.GetOrientation()}  {self._node.GetSliceOffset():.1f} mm" if is_slice else ""
        self.setText(f"{self._node.GetLayoutLabel()}{place}")


class ViewWidget(QtWidgets.QWidget):
    """A view below its bar."""

    def __init__(self, node: Any, view: QtWidgets.QWidget) -> None:
        super().__init__()
        self.node, self._view = node, view
        expanding = QtWidgets.QSizePolicy.Policy.Expanding
        view.setSizePolicy(expanding, expanding)
        layout = QtWidgets.QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(0)
        layout.addWidget(Bar(node))
        layout.addWidget(view, 1)


class SliceWidget(ViewWidget):
    """qMRMLSliceWidget, which is its controller too."""

    def __init__(self, node: Any, application: Any) -> None:
        self._logic = slicer.vtkMRMLSliceLogic()
        self._logic.SetMRMLApplicationLogic(application)
        view = SliceView(self._logic)
        super().__init__(node, view)
        application.GetSliceLogics().AddItem(self._logic)
        self._logic.SetSliceNode(node)
        self._logic.SetMRMLScene(node.GetScene())
        view.managers.SetMRMLDisplayableNode(node)

    def sliceView(self) -> Any:
        return self._view

    def sliceController(self) -> SliceWidget:
        return self

    def sliceLogic(self) -> Any:
        return self._logic

    def mrmlSliceNode(self) -> Any:
        return self.node

    def mrmlSliceCompositeNode(self) -> Any:
        return self._logic.GetSliceCompositeNode()

    def setSliceOffsetValue(self, offset: float) -> None:
        self._logic.StartSliceOffsetInteraction()
        self._logic.SetSliceOffset(offset)
        self._logic.EndSliceOffsetInteraction()

    def fitSliceToBackground(self) -> None:
        self._logic.StartSliceNodeInteraction(self.node.ResetFieldOfViewFlag)
        self._logic.FitSliceToBackground()
        self.node.UpdateMatrices()
        self._logic.EndSliceNodeInteraction()


class PlotView(View):
    """qMRMLPlotView: lines of the chart's series."""

    def __init__(self, node: Any) -> None:
        self._context = vtk.vtkContextView()
        super().__init__(self._context.GetRenderWindow())
        self._node, self._chart_node, self._tag = node, None, 0
        self._series: dict[Any, str] = {}  # plot → ID of its series
        self._chart = vtk.vtkChartXY()
        self._chart.GetBackgroundBrush().SetColor(255, 253, 246, 255)
        self._context.GetScene().AddItem(self._chart)
        self._context.GetRenderer().SetUseFXAA(True)
        for number in range(4):
            self._chart.GetAxis(number).GetTitleProperties().SetBold(False)
        node.AddObserver("ModifiedEvent", lambda *_: self._find_chart())

    def chart(self) -> vtk.vtkChartXY:
        return self._chart

    def _find_chart(self) -> None:
        found = self._node.GetScene().GetNodeByID(self._node.GetPlotChartNodeID() or "")
        if found is not self._chart_node:
            if self._chart_node is not None:
                self._chart_node.RemoveObserver(self._tag)
            self._chart_node = found
            if found is not None:
                self._tag = found.AddObserver("ModifiedEvent", lambda *_: self._show())
        self._show()

    def _show(self) -> None:
        node, scene = self._chart_node, self._node.GetScene()
        wanted = (
            [] if node is None else [node.GetNthPlotSeriesNodeID(n) for n in range(node.GetNumberOfPlotSeriesNodes())]
        )
        drawn = set()
        for plot in [self._chart.GetPlot(n) for n in reversed(range(self._chart.GetNumberOfPlots()))]:
            series = scene.GetNodeByID(self._series.get(plot, ""))
            drawn.add(self._series.get(plot))  # as in Slicer: what was drawn is not drawn anew, even where it goes now
            if series is None or series.GetID() not in wanted or _update_plot(series, plot) is None:
                self._remove(plot)
        for name in wanted:
            series = scene.GetNodeByID(name)
            plot = None if series is None or name in drawn else _update_plot(series, vtk.vtkPlotLine())
            if plot is not None:
                self._series[plot] = name
                self._chart.AddPlot(plot)
        if node is not None:
            _update_chart(node, self._chart)
        self.update()

    def _remove(self, plot: Any) -> None:
        if self._chart.GetPlotCorner(plot) == 0:  # else VTK can't show it again
            self._chart.SetPlotCorner(plot, 1)
        self._chart.RemovePlotInstance(plot)
        self._series.pop(plot, None)


def _update_plot(series: Any, plot: Any) -> Any:
    """The plot as its series wants it; None where the series' table has no such numbers."""
    table = series.GetTableNode() and series.GetTableNode().GetTable()
    names = series.GetXColumnName(), series.GetYColumnName()
    columns = [table.GetColumnByName(name) if table and name else None for name in names]
    if any(column is None or column.GetDataType() in (vtk.VTK_STRING, vtk.VTK_BIT) for column in columns):
        return None
    plot.SetWidth(series.GetLineWidth())
    plot.SetColorF(*series.GetColor())
    plot.SetOpacity(series.GetOpacity())
    plot.GetPen().SetOpacityF(series.GetOpacity())
    plot.GetPen().SetLineType(series.GetLineStyle())  # VTK numbers lines and markers as MRML does
    plot.SetMarkerSize(series.GetMarkerSize())
    plot.SetMarkerStyle(series.GetMarkerStyle())
    plot.SetInputData(table, *names)
    plot.SetLabel(series.GetName())
    return plot


def _update_chart(node: Any, chart: vtk.vtkChartXY) -> None:
    """Titles, legend and axes."""
    title, label = chart.GetTitleProperties(), chart.GetLegend().GetLabelProperties()
    chart.SetTitle((node.GetTitle() or "") if node.GetTitleVisibility() else "")
    title.SetFontSize(node.GetTitleFontSize())
    chart.SetShowLegend(node.GetLegendVisibility())
    label.SetFontSize(node.GetLegendFontSize())
    family = title.GetFontFamilyFromString(node.GetFontType() or "Arial")
    for number in range(4):
        axis, name = chart.GetAxis(number), "X" if number in (vtk.vtkAxis.BOTTOM, vtk.vtkAxis.TOP) else "Y"
        of_axis = {
            key: getattr(node, f"Get{name}Axis{key}")() for key in ("Title", "TitleVisibility", "RangeAuto", "Range")
        }
        axis.SetTitle((of_axis["Title"] or "") if of_axis["TitleVisibility"] else "")
        axis.SetLogScale(getattr(node, f"Get{name}AxisLogScale")())
        axis.SetBehavior(vtk.vtkAxis.AUTO if of_axis["RangeAuto"] else vtk.vtkAxis.FIXED)
        if not of_axis["RangeAuto"]:
            axis.SetUnscaledRange(*of_axis["Range"])
        axis.SetGridVisible(node.GetGridVisibility())
        axis.GetTitleProperties().SetFontSize(node.GetAxisTitleFontSize())
        axis.GetLabelProperties().SetFontSize(node.GetAxisLabelFontSize())
        for text in (axis.GetTitleProperties(), axis.GetLabelProperties(), title, label):
            text.SetFontFamily(family)
    chart.RecalculateBounds()


class PlotWidget(ViewWidget):
    """qMRMLPlotWidget."""

    def __init__(self, node: Any) -> None:
        super().__init__(node, PlotView(node))

    def plotView(self) -> Any:
        return self._view

    def mrmlPlotViewNode(self) -> Any:
        return self.node


def _blank(node: Any) -> ViewWidget:
    """What stands where Slicer would have another kind of view."""
    view = QtWidgets.QFrame()
    view.setAutoFillBackground(True)
    view.setPalette(QtGui.QPalette(QtGui.QColor("#9a9ed3")))  # of Slicer's 3D views
    return ViewWidget(node, view)


class LayoutManager(QtCore.QObject):
    """qMRMLLayoutManager: a widget for every view node of the scene, and those of the layout in the viewport."""

    layoutChanged = QtCore.Signal(int)
    threeDViewCount = 0

    def __init__(self, scene: Any, application: Any) -> None:
        super().__init__()
        self._scene, self._application = scene, application
        self._slice_logics = vtk.vtkCollection()
        application.SetSliceLogics(self._slice_logics)
        factory = slicer.vtkMRMLSliceViewDisplayableManagerFactory.GetInstance()
        factory.SetMRMLApplicationLogic(application)
        for name in _MANAGERS:
            factory.RegisterDisplayableManager(name)
        self._widgets: dict[str, Any] = {}  # by the node's ID
        self._shown: tuple[int, str] = (0, "")
        self._viewport, self._pauses = QtWidgets.QWidget(), 0
        self._box = QtWidgets.QVBoxLayout(self._viewport)
        self._box.setContentsMargins(0, 0, 0, 0)
        self._logic = slicer.vtkMRMLLayoutLogic()
        self._logic.SetMRMLScene(scene)
        self._node = self._logic.GetLayoutNode()
        self._node.AddObserver("ModifiedEvent", lambda *_: self._arrange())
        self.setLayout(self._node.SlicerLayoutConventionalView)

    def pauseRender(self) -> None:
        self._pauses += 1
        self._viewport.setUpdatesEnabled(False)

    def resumeRender(self) -> None:
        self._pauses -= 1
        self._viewport.setUpdatesEnabled(self._pauses == 0)

    def viewport(self) -> QtWidgets.QWidget:
        return self._viewport

    def layoutLogic(self) -> Any:
        return self._logic

    @property
    def layout(self) -> int:
        return self._node.GetViewArrangement()

    def setLayout(self, layout: int) -> None:
        self._node.SetViewArrangement(layout)

    def sliceViewNames(self) -> tuple[str, ...]:
        return tuple(widget.mrmlSliceNode().GetLayoutName() for widget in self._of(SliceWidget))

    def sliceWidget(self, name: str) -> SliceWidget | None:
        found = [widget for widget in self._of(SliceWidget) if widget.mrmlSliceNode().GetLayoutName() == name]
        return found[0] if found else None

    def resetSliceViews(self) -> None:
        for widget in self._of(SliceWidget):
            widget.sliceController().fitSliceToBackground()

    @property
    def plotViewCount(self) -> int:
        return len(self._of(PlotWidget))

    def plotWidget(self, index: int) -> PlotWidget:
        return self._of(PlotWidget)[index]

    def _of(self, kind: type) -> list[Any]:
        self._make_widgets()
        return [widget for widget in self._widgets.values() if isinstance(widget, kind)]

    def _make_widgets(self) -> None:
        for node in slicer.util.getNodesByClass("vtkMRMLAbstractViewNode"):
            if node.GetID() not in self._widgets:
                if node.IsA("vtkMRMLSliceNode"):
                    widget: ViewWidget = SliceWidget(node, self._application)
                else:
                    widget = PlotWidget(node) if node.IsA("vtkMRMLPlotViewNode") else _blank(node)
                self._widgets[node.GetID()] = widget

    def _arrange(self) -> None:
        """Puts the layout's views where its description says."""
        shown = self.layout, self._node.GetCurrentLayoutDescription()
        if shown == self._shown or not shown[1]:
            return
        self._shown = shown
        self._make_widgets()
        for widget in self._widgets.values():
            widget.setParent(None)
            widget.node.SetMappedInLayout(False)
        while self._box.count():
            self._box.takeAt(0).widget().setParent(None)
        self._box.addWidget(self._build(self._node.GetLayoutRootElement()))
        self.layoutChanged.emit(self.layout)

    def _build(self, element: Any) -> QtWidgets.QWidget:
        """The widget of an element of the description, a layout or a view."""
        if element.GetName() == "view":
            widget = self._widgets[self._logic.GetViewFromElement(element).GetID()]
            widget.node.SetMappedInLayout(True)
            widget.show()
            return widget
        kind = element.GetAttribute("type") or "horizontal"
        items = list(_nested(element))
        children = [self._build(next(_nested(item))) for item in items]
        direction = QtCore.Qt.Orientation.Vertical if kind == "vertical" else QtCore.Qt.Orientation.Horizontal
        if element.GetAttribute("split") == "true":
            splitter = QtWidgets.QSplitter(direction)
            for child in children:
                splitter.addWidget(child)
            sizes = [int(item.GetAttribute("splitSize") or 0) for item in items]
            if any(sizes):
                splitter.setSizes(sizes)
            return splitter
        box = QtWidgets.QWidget()
        grid = QtWidgets.QGridLayout(box)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setSpacing(1)
        for number, (item, child) in enumerate(zip(items, children, strict=True)):
            line = (number, 0) if kind == "vertical" else (0, number)
            place = [int(item.GetAttribute(name) or 0) for name in ("row", "column")] if kind == "grid" else line
            grid.addWidget(child, *place)
        return box


def _nested(element: Any) -> Iterator[Any]:
    return map(element.GetNestedElement, range(element.GetNumberOfNestedElements()))
