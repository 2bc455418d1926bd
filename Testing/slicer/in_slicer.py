"""What the tests in Slicer share: an empty scene before and after each, the sample patient, the event loop."""

from __future__ import annotations

import sys
import time
import unittest
from pathlib import Path
from typing import Any

import slicer
import slicer.util

CHANNELS = ("DWI_b0", "DWI_b150", "DWI_b400", "DWI_b800")
DATES = ["2021-03-04", "2021-09-07", "2022-04-20", "2023-01-11"]


def module() -> Any:
    """The module's main script as it is loaded now: a reload makes another."""
    return sys.modules["HCCNet"]


def sample_patient() -> Path:
    import HCCNetLib

    return Path(HCCNetLib.__file__).resolve().parent / "samples" / "RA01"


def let_slicer_work(seconds: float = 0.2) -> None:
    """What waits for the event loop happens."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        slicer.app.processEvents()
        time.sleep(0.01)


def slice_widgets(side_by_side: bool = False) -> list[Any]:
    """The slice views that show one exam at a time, or those that show the exams side by side."""
    from HCCNetSlicer.side_by_side import is_view

    layout = slicer.app.layoutManager()
    return [layout.sliceWidget(name) for name in layout.sliceViewNames() if is_view(name) == side_by_side]


def messages_since(count: int) -> list[str]:
    """What Slicer has written into its log since it held this many entries."""
    log = slicer.app.errorLogModel()
    return [log.logEntryDescription(row) for row in range(count, log.logEntryCount())]


class InSlicer(unittest.TestCase):
    """Each test begins and ends with an empty scene."""

    def setUp(self) -> None:
        slicer.mrmlScene.Clear()
        self.addCleanup(slicer.mrmlScene.Clear)
        self.logic = module().HCCNetLogic()
        self.addCleanup(self.logic.close)

    def load(self) -> Any:
        """The sample patient's table; a package that is missing is a failure in words, not an error with a traceback."""
        return self.in_words(lambda: self.logic.load_folder(sample_patient()))

    def predict(self, table: Any) -> Any:
        return self.in_words(lambda: self.logic.predict(table))

    def in_words(self, do: Any) -> Any:
        from HCCNetSlicer.dependencies import DependencyError

        try:
            return do()
        except DependencyError as error:
            raise self.failureException(f"This Slicer lacks what prediction needs. {error}") from None

    def nodes(self) -> list[str]:
        """What lies in the scene, without what Slicer itself may add at any time."""
        collection = slicer.mrmlScene.GetNodes()
        every = [collection.GetItemAsObject(n) for n in range(collection.GetNumberOfItems())]
        return sorted(node.GetID() for node in every if not node.GetHideFromEditors())

    def assert_shown(self, result: Any, index: int) -> None:
        """Every slice view shows the exam and its own map."""
        exam = result.record.exams[index]
        image, overlay = result.volume(index, exam["shown"]), result.map_node(index)
        self.assertIsNotNone(image)
        self.assertIsNotNone(overlay)
        let_slicer_work()
        widgets = slice_widgets()
        self.assertGreater(len(widgets), 0)
        for widget in widgets:
            logic = widget.sliceLogic()
            composite = logic.GetSliceCompositeNode()
            self.assertEqual(composite.GetBackgroundVolumeID(), image.GetID())
            self.assertEqual(composite.GetForegroundVolumeID(), overlay.GetID())
            # What is drawn, not only what is asked for.
            self.assertEqual(logic.GetBackgroundLayer().GetVolumeNode().GetID(), image.GetID())
            self.assertEqual(logic.GetForegroundLayer().GetVolumeNode().GetID(), overlay.GetID())
