"""The few parts of Slicer's application that the module's main script imports and slicer-core does not have."""

from __future__ import annotations

import json
import types
import unittest
from typing import Any

import slicer


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

        return types.SimpleNamespace(SetText=set_text)

    def scheduleRender(self) -> None:  # noqa: N802
        pass


class Application:
    """slicer.app: cursors, processEvents, temporary files, and three slice views on a real scene's composite nodes."""

    def __init__(self, scene: Any, temporary: str) -> None:
        self.cursors: list[str] = []
        self.temporaryPath = temporary
        self.views = {name: View() for name in ("Red", "Green", "Yellow")}
        self.composites = {}
        for name in self.views:
            node = slicer.vtkMRMLSliceCompositeNode()
            node.SetLayoutName(name)
            self.composites[name] = scene.AddNode(node)
        self.jumps: list[tuple[float, ...]] = []
        self.charts: list[Any] = []

    def setOverrideCursor(self, cursor: str) -> None:  # noqa: N802
        self.cursors.append(cursor)

    def restoreOverrideCursor(self) -> None:  # noqa: N802
        self.cursors.pop()

    def processEvents(self) -> None:  # noqa: N802
        pass

    def connect(self, signal: str, slot: Any) -> None:
        assert signal == "startupCompleted()"

    def layoutManager(self) -> Any:  # noqa: N802
        def widget(name: str) -> Any:
            return types.SimpleNamespace(
                sliceView=lambda: self.views[name], mrmlSliceCompositeNode=lambda: self.composites[name]
            )

        return types.SimpleNamespace(sliceViewNames=lambda: tuple(self.views), sliceWidget=widget)

    def modules(self) -> Any:
        """slicer.modules, as far as the window goes there."""
        markups = types.SimpleNamespace(JumpSlicesToLocation=lambda *place: self.jumps.append(place))
        plots = types.SimpleNamespace(ShowChartInLayout=self.charts.append)
        return types.SimpleNamespace(
            markups=types.SimpleNamespace(logic=lambda: markups), plots=types.SimpleNamespace(logic=lambda: plots)
        )
