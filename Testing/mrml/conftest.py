"""Fixtures of the tests on real MRML: a scene as a running Slicer has it, without the application (package slicer-core)."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

# Not everywhere is there a build of slicer-core; then one file stays, which says so.
collect_ignore_glob = [] if find_spec("slicer") else ["test_[!s]*.py", "test_sa*.py", "test_sl*.py"]

ROOT = Path(__file__).resolve().parents[2]
MODULE = ROOT / "HCCNet"

# As Slicer does for a module loaded from a source tree; the library beside it is the module's own business.
sys.path.insert(0, str(MODULE))


@pytest.fixture
def scene() -> Iterator[Any]:
    """An empty scene with the node classes of the module's logics and the default colours; ``slicer.mrmlScene`` during the test."""
    import slicer

    scene = slicer.vtkMRMLScene()
    application = slicer.vtkSlicerApplicationLogic()
    application.SetMRMLScene(scene)
    colors = slicer.vtkSlicerColorLogic()
    colors.SetMRMLApplicationLogic(application)
    logics = [colors, slicer.vtkSlicerVolumesLogic(), slicer.vtkSlicerSegmentationsModuleLogic()]
    logics += [slicer.vtkSlicerMarkupsLogic(), slicer.vtkSlicerTablesLogic(), slicer.vtkSlicerPlotsLogic()]
    for logic in logics:
        logic.SetMRMLScene(scene)
    slicer.mrmlScene = scene
    yield scene
    scene.Clear(True)
    for logic in reversed(logics):
        logic.SetMRMLScene(None)
    application.SetMRMLScene(None)
    slicer.mrmlScene = None
