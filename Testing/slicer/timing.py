"""Seconds from Predict to the result in a running Slicer, and where they go.

    Slicer --no-splash --additional-module-paths HCCNet --python-script Testing/slicer/timing.py [PATIENT_FOLDER] [RUNS]

PATIENT_FOLDER: a patient's dated folders (default: the sample RA01). For each run a row: seconds to each mark, with the processor
seconds that Slicer's own process used in between, during which the worker waits on a computer with few processors. The
worker's own stages stand below. ``make timing SLICER_EXECUTABLE=…/Slicer`` starts it.
"""

from __future__ import annotations

import sys
import time
import traceback
from pathlib import Path
from typing import Any

import slicer
import slicer.util

SECONDS = 300


class Marks:
    """When what was first seen, in seconds since the press, with processor seconds of this process."""

    def __init__(self) -> None:
        self._start = time.perf_counter(), time.process_time()
        self.rows: list[tuple[str, float, float]] = []

    def set(self, name: str) -> None:
        """Notes a mark once."""
        if name not in [row[0] for row in self.rows]:
            wall, used = time.perf_counter(), time.process_time()
            self.rows.append((name, wall - self._start[0], used - self._start[1]))

    def lines(self) -> list[str]:
        """The marks as a table."""
        told, before = [], (0.0, 0.0)
        for name, wall, used in self.rows:
            told.append(
                f"  {wall:6.2f} s  (+{wall - before[0]:5.2f}; Slicer's processor {used - before[1]:5.2f})  {name}"
            )
            before = wall, used
        return told


def predict(widget: Any) -> Marks:
    """Presses Predict and watches until the maps that come last are built."""
    predictions, ui = widget.logic.predictions, widget.ui
    poll = type(predictions).poll
    marks = Marks()

    def watched() -> list[Any]:
        events = poll(predictions)
        if predictions.client.is_running:
            marks.set("all volumes are handed over")
        for event in events:
            stage = getattr(event, "stage", None)
            marks.set(f"worker: {stage}" if stage else f"event: {type(event).__name__}")
        return events

    predictions.poll = watched
    try:
        ui.predictButton.click()
        marks.set("the press was answered")
        end = time.monotonic() + SECONDS
        while time.monotonic() < end and ui.cancelButton.enabled:
            slicer.app.processEvents()
        marks.set("the result is in the panel")
        slicer.util.forceRenderAllViews()
        marks.set("the views are drawn")
        while time.monotonic() < end and not predictions.is_complete:
            slicer.app.processEvents()
        marks.set("all maps are built")
    finally:
        del predictions.poll
    if ui.errorLabel.visible:
        raise RuntimeError(ui.errorLabel.text)
    return marks


def main() -> None:
    """Prints the tables and ends Slicer."""
    try:
        slicer.util.selectModule("HCCNet")
        widget: Any = slicer.modules.hccnet.widgetRepresentation().self()
        import HCCNetLib

        sample = Path(HCCNetLib.__file__).parent / "samples" / "RA01"
        widget.exams.take_folders([str(sys.argv[1] if len(sys.argv) > 1 else sample)])
        for _ in range(100):
            slicer.app.processEvents()
        for run in range(int(sys.argv[2]) if len(sys.argv) > 2 else 4):
            marks = predict(widget)
            print(
                f"{'warm' if run else 'cold'}: {marks.rows[-2][1]:.2f} s from the press to the views",
                *marks.lines(),
                sep="\n",
            )
            seconds = widget.logic.result().prediction["seconds"]
            print("  in the worker:", ", ".join(f"{stage} {value:.2f}" for stage, value in seconds.items()))
        status = 0
    except Exception:  # noqa: BLE001 - Slicer must end, and say why
        traceback.print_exc()
        status = 1
    slicer.util.exit(status)


if __name__ == "__main__":
    main()
