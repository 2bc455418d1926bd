"""The few parts of Slicer's application that the module's main script imports and slicer-core does not have."""

from __future__ import annotations

import types
import unittest
from typing import Any


class ScriptedLoadableModule:
    """As in Slicer: keeps its parent."""

    def __init__(self, parent: Any) -> None:
        self.parent = parent


class ScriptedLoadableModuleLogic:
    """As in Slicer: can be made without arguments."""

    def __init__(self, parent: Any = None) -> None:
        self.parent = parent


class ScriptedLoadableModuleWidget:
    """As in Slicer, without its layout."""

    def __init__(self, parent: Any = None) -> None:
        self.parent = parent


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
    i18n = types.ModuleType("slicer.i18n")
    i18n.tr = lambda text: text  # type: ignore[attr-defined]
    return {"slicer.ScriptedLoadableModule": scripted, "slicer.i18n": i18n}
