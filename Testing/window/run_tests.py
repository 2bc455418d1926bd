"""Runs the tests of Testing/slicer without Slicer, on what draw_window.py puts in its place: each in a process of its own.

    python Testing/window/run_tests.py [PART_OF_A_NAME ...]

It shows that the tests themselves work and most of what they test; Slicer has the last word. Tests of what is not there (scene
files, reloading, the modules Sample Data and DICOM, the log) are named and left out. Needs what draw_window.py needs.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import types
import unittest
from typing import Any

import draw_window
import slicer
import slicer.util
from mrml_helpers import load_volume
from PySide6 import QtCore
from run_in_slicer import load

MODULES = ("test_in_slicer", "test_window_in_slicer")
NOT_HERE = (
    "saved",
    "reload",
    "second_window",
    "offered_once",
    "the_button",
    "slicers_functions",
    "from_the_database",
    "log",
)
SECONDS = 300  # for one test
PANEL_WIDTH = 400


class MainWindow:
    """The size of Slicer's main window: the panel on the left, the views beside it."""

    def __init__(self, panel: Any, views: Any) -> None:
        self._panel, self._views = panel, views
        self.resize(1700, 1000)

    def resize(self, *size: Any) -> None:
        """As Qt: a QSize, or width and height."""
        self.size = size[0] if len(size) == 1 else QtCore.QSize(*size)
        self._panel.resize(PANEL_WIDTH, self.size.height())
        self._views.resize(self.size.width() - PANEL_WIDTH, self.size.height() - 100)


def cases() -> list[unittest.TestCase]:
    """Every test, by name."""
    return [case for group in load(MODULES, unittest.TestLoader()) for case in group]  # type: ignore[union-attr]


def run_here(name: str) -> None:
    """Runs one test in this process and ends it."""
    with tempfile.TemporaryDirectory() as temporary:
        application = draw_window.start_slicer(temporary)
        application.wear(1, "light")
        application.layoutManager().viewport().show()
        window = draw_window.make_window()
        main_window = MainWindow(window.parent, application.layoutManager().viewport())
        slicer.modules.hccnet = types.SimpleNamespace(
            widgetRepresentation=lambda: types.SimpleNamespace(self=lambda: window)
        )
        slicer.util.mainWindow = lambda: main_window
        slicer.util.selectModule, slicer.util.selectedModule = lambda name: None, lambda: "HCCNet"
        slicer.util.getModuleLogic = lambda name: window.logic
        slicer.util.loadVolume = lambda file, properties: load_volume(slicer.mrmlScene, file, properties["name"])
        (case,) = [case for case in cases() if case.id() == name]
        result = unittest.TextTestRunner(verbosity=0).run(case)
        sys.stderr.flush()
        os._exit(not result.wasSuccessful())  # VTK's and Qt's objects know of no order in which to end


def main() -> int:
    """Runs the tests, or one in this process; 1 where one fails."""
    if sys.argv[1:2] == ["--here"]:
        run_here(sys.argv[2])
    sys.modules["qt"] = types.ModuleType("qt")  # here the tests are only counted
    passed = failed = 0
    for name in [case.id() for case in cases() if not sys.argv[1:] or any(part in case.id() for part in sys.argv[1:])]:
        if any(part in name for part in NOT_HERE):
            print(f"not here  {name}")
            continue
        command = [sys.executable, __file__, "--here", name]
        run = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
        passed, failed = passed + (run.returncode == 0), failed + (run.returncode != 0)
        print(f"{'ok       ' if run.returncode == 0 else 'FAILED   '} {name}", flush=True)
        if run.returncode:
            print(run.stderr[-3000:])
    print(f"{passed} passed, {failed} failed")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
