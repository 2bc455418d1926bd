"""The few parts of Slicer's application that the module's main script imports and slicer-core does not have."""

from __future__ import annotations

import json
import types
import unittest
from typing import Any

import numpy as np
import slicer
import vtk


class ScriptedLoadableModule:
    """As in Slicer: keeps its parent."""

    def __init__(self, parent: Any) -> None:
        self.parent = parent


class ScriptedLoadableModuleLogic:
    """As in Slicer: has a parameter node in the scene, one for the module."""

    def __init__(self, parent: Any = None) -> None:
        self.parent = parent

    def getParameterNode(self) -> Any:  # noqa: N802
        found = slicer.mrmlScene.GetSingletonNode("HCCNet", "vtkMRMLScriptedModuleNode")
        if found is not None:
            return found
        node = slicer.vtkMRMLScriptedModuleNode()
        node.SetSingletonTag("HCCNet")
        return slicer.mrmlScene.AddNode(node)


class ScriptedLoadableModuleWidget:
    """As in Slicer; its layout takes what is added."""

    def __init__(self, parent: Any = None) -> None:
        self.parent = parent
        self.layout = types.SimpleNamespace(addWidget=lambda widget: None)

    def setup(self) -> None:
        pass

    def resourcePath(self, name: str) -> str:  # noqa: N802
        return name


def parameter_node_wrapper(cls: type) -> type:
    """As Slicer's: what is set is kept in the node, what was never set is the default."""

    class Wrapped:
        def __init__(self, node: Any) -> None:
            object.__setattr__(self, "node", node)

        def __getattr__(self, name: str) -> Any:
            text = self.node.GetParameter(name)
            return json.loads(text) if text else getattr(cls, name)

        def __setattr__(self, name: str, value: Any) -> None:
            assert name in cls.__annotations__, f"{name} is no parameter"
            self.node.SetParameter(name, json.dumps(value))

        def connectGui(self, ui: Any) -> int:  # noqa: N802
            return 1

        def disconnectGui(self, tag: int) -> None:  # noqa: N802
            assert tag == 1

    return Wrapped


class ScriptedLoadableModuleTest(unittest.TestCase):
    """As in Slicer: a unittest whose ``runTest`` is called."""


def modules() -> dict[str, types.ModuleType]:
    """Names for ``sys.modules``."""
    scripted = types.ModuleType("slicer.ScriptedLoadableModule")
    for cls in (
        ScriptedLoadableModule,
        ScriptedLoadableModuleLogic,
        ScriptedLoadableModuleWidget,
        ScriptedLoadableModuleTest,
    ):
        setattr(scripted, cls.__name__, cls)
    wrapper: Any = types.ModuleType("slicer.parameterNodeWrapper")
    wrapper.parameterNodeWrapper, wrapper.WithinRange = parameter_node_wrapper, lambda low, high: (low, high)
    i18n = types.ModuleType("slicer.i18n")
    i18n.tr = lambda text: text  # type: ignore[attr-defined]
    return {"slicer.ScriptedLoadableModule": scripted, "slicer.i18n": i18n, "slicer.parameterNodeWrapper": wrapper}


class View:
    """A slice view: what is written on it."""

    def __init__(self) -> None:
        self.text = ""

    def cornerAnnotation(self) -> Any:  # noqa: N802
        def set_text(place: int, text: str) -> None:
            assert place == 7  # the others are Slicer's
            self.text = text

        return types.SimpleNamespace(SetText=set_text, GetText=lambda place: self.text or None)

    def scheduleRender(self) -> None:  # noqa: N802
        pass


class LayoutManager:
    """The real layout logic, whose slice views have layers as a running Slicer gives them, and charts without a window."""

    def __init__(self, scene: Any) -> None:
        self.scene, self.slots = scene, []
        self.logic = slicer.vtkMRMLLayoutLogic()
        self.logic.SetMRMLScene(scene)
        self.views: dict[str, View] = {}
        self.charts: dict[str, Any] = {}
        self.setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView)

    def layoutLogic(self) -> Any:  # noqa: N802
        return self.logic

    @property
    def layout(self) -> int:
        return int(self.logic.GetLayoutNode().GetViewArrangement())

    def setLayout(self, layout: int) -> None:  # noqa: N802
        node = self.logic.GetLayoutNode()
        assert node.IsLayoutDescription(layout), f"no layout {layout}"
        node.SetViewArrangement(layout)
        mapped = list(self.logic.GetViewNodes())
        for view in self._nodes("vtkMRMLAbstractViewNode"):
            view.SetMappedInLayout(view in mapped)  # as Slicer's own layout manager does
        for name in self.sliceViewNames():
            self.views.setdefault(name, View())
            if self.composite(name) is None:
                layers = slicer.vtkMRMLSliceCompositeNode()
                layers.SetLayoutName(name)
                layers.SetSingletonTag(name)
                self.scene.AddNode(layers)
        for slot in self.slots:
            slot(layout)

    def connect(self, signal: str, slot: Any) -> None:
        assert signal == "layoutChanged(int)"
        self.slots.append(slot)

    def disconnect(self, signal: str, slot: Any) -> None:
        if slot in self.slots:  # Qt does not mind
            self.slots.remove(slot)

    def _nodes(self, name: str) -> list[Any]:
        return [self.scene.GetNthNodeByClass(n, name) for n in range(self.scene.GetNumberOfNodesByClass(name))]

    def sliceViewNames(self) -> tuple[str, ...]:  # noqa: N802
        return tuple(node.GetLayoutName() for node in self._nodes("vtkMRMLSliceNode"))

    def node(self, name: str) -> Any:
        return next(node for node in self._nodes("vtkMRMLSliceNode") if node.GetLayoutName() == name)

    def composite(self, name: str) -> Any:
        nodes = self._nodes("vtkMRMLSliceCompositeNode")
        return next((node for node in nodes if node.GetLayoutName() == name), None)

    def resetSliceViews(self) -> None:  # noqa: N802
        """Zooms as Slicer's logic does it."""
        for name in self.sliceViewNames():
            volume = self.scene.GetNodeByID(self.composite(name).GetBackgroundVolumeID() or "")
            if volume is not None:
                bounds = np.zeros(6)
                volume.GetRASBounds(bounds)
                self.node(name).SetFieldOfView(*np.full(2, np.ptp(bounds.reshape(3, 2), axis=1).max()), 1)
                self.node(name).JumpSliceByCentering(*bounds.reshape(3, 2).mean(axis=1))

    def sliceWidget(self, name: str) -> Any:  # noqa: N802
        return types.SimpleNamespace(
            sliceView=lambda: self.views[name],
            mrmlSliceCompositeNode=lambda: self.composite(name),
            mrmlSliceNode=lambda: self.node(name),
        )

    @property
    def plotViewCount(self) -> int:  # noqa: N802
        return len(self._nodes("vtkMRMLPlotViewNode"))

    def plotWidget(self, number: int) -> Any:  # noqa: N802
        node = self._nodes("vtkMRMLPlotViewNode")[number]
        chart = self.charts.setdefault(node.GetID(), vtk.vtkChartXY())
        return types.SimpleNamespace(
            mrmlPlotViewNode=lambda: node, plotView=lambda: types.SimpleNamespace(chart=lambda: chart)
        )


class Application:
    """slicer.app: cursors, processEvents, temporary files, and views on a real scene."""

    usual = ("Red", "Green", "Yellow")

    def __init__(self, scene: Any, temporary: str) -> None:
        self.cursors: list[str] = []
        self.temporaryPath = temporary
        self.manager = LayoutManager(scene)
        self.paused = 0

    @property
    def composites(self) -> dict[str, Any]:
        """The layers of the views that show one exam."""
        return {name: self.manager.composite(name) for name in self.usual}

    @property
    def texts(self) -> list[str]:
        """What is written on the views that show one exam."""
        return [self.manager.views[name].text for name in self.usual]

    def layoutManager(self) -> LayoutManager:  # noqa: N802
        return self.manager

    def pauseRender(self) -> None:  # noqa: N802
        self.paused += 1

    def resumeRender(self) -> None:  # noqa: N802
        self.paused -= 1

    def setOverrideCursor(self, cursor: str) -> None:  # noqa: N802
        self.cursors.append(cursor)

    def restoreOverrideCursor(self) -> None:  # noqa: N802
        self.cursors.pop()

    def processEvents(self) -> None:  # noqa: N802
        pass

    def connect(self, signal: str, slot: Any) -> None:
        assert signal == "startupCompleted()"
        self.started = slot
