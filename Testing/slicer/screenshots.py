"""Pictures of every step of docs/slicer.md, taken in a running Slicer, for the documentation and for reviewers.

    Slicer --no-splash --additional-module-paths HCCNet --python-script Testing/slicer/screenshots.py FOLDER

Writes FOLDER/<step>.png and exits with 1 where a date, the figure or a peak is covered: it draws the views with and without
date and legend and compares the pixels (``looks``). ``make screenshots SLICER_EXECUTABLE=…/Slicer OUT=FOLDER`` starts it.
"""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import qt
import slicer
import slicer.util

WINDOW = (1700, 1000)
SECONDS = 180  # that a prediction may take


class Session:
    """The module's window, used as a person uses it.

    Args:
        folder: where the pictures go.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.problems, self.count = folder, list[str](), 0
        slicer.util.mainWindow().resize(*WINDOW)
        slicer.util.selectModule("HCCNet")
        self.widget: Any = slicer.modules.hccnet.widgetRepresentation().self()
        self.ui = self.widget.ui
        self.wait(1)

    def wait(self, seconds: float, until: Callable[[], bool] = lambda: False) -> None:
        """Lets Slicer work for some seconds, or until something is so."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and not until():
            slicer.app.processEvents()
            time.sleep(0.01)

    def picture(self, step: str) -> None:
        """Saves a picture of the whole window."""
        self.wait(0.5)
        slicer.util.forceRenderAllViews()
        self.count += 1
        file = self.folder / f"{self.count:02d}-{step}.png"
        if not slicer.util.mainWindow().grab().save(str(file)):
            self.problems.append(f"{file.name} could not be written")
        print(f"{file}")

    def check(self, step: str) -> None:
        """Notes what is covered in what is shown now."""
        import looks

        result = self.widget.logic.result()
        found = ["there is no result"] if result is None else looks.problems_of_views(result)
        self.problems += [f"{step}: {problem}" for problem in [*found, *looks.problems_of_panel(self.ui)]]

    def choose_kind(self, index: int) -> None:
        """Chooses what the map shows, as a person does: Qt tells of a choice by code in no other way."""
        self.ui.kindComboBox.setCurrentIndex(index)
        self.widget.result.show(self.widget.result.result.shown_index)

    def predict(self) -> None:
        """Presses Predict and waits for the result; half-way there is a picture."""
        self.ui.predictButton.click()
        self.wait(SECONDS, lambda: self.ui.progressBar.value > 20)
        self.picture("predicting")
        self.wait(SECONDS, lambda: not self.ui.cancelButton.enabled)
        self.wait(1)
        if self.ui.errorLabel.visible:
            self.problems.append(self.ui.errorLabel.text)


def walk_through(session: Session) -> None:
    """The steps of docs/slicer.md with the generated patient, then the sample with real anatomy."""
    from HCCNetSlicer.sample_data import SAMPLES

    ui = session.ui
    session.picture("empty")
    for sample in SAMPLES:
        name = "generated" if sample.is_generated else "real-anatomy"
        slicer.mrmlScene.Clear()
        sample.load()
        session.picture(f"{name}-loaded")
        ui.fillButton.click()
        session.picture(f"{name}-table")
        session.predict()
        session.picture(f"{name}-side-by-side")
        session.check(f"{name}, side by side")
        ui.resultTable.selectRow(1)
        session.picture(f"{name}-second-exam")
        session.choose_kind(2)
        session.picture(f"{name}-change")
        session.choose_kind(0)
        ui.resultTable.selectRow(ui.resultTable.rowCount - 1)
        ui.layoutButton.click()
        session.picture(f"{name}-usual-layout")
        session.check(f"{name}, usual layout")
    larger_and_dark(session)


def larger_and_dark(session: Session) -> None:
    """The same window with larger letters, and in dark."""
    font, palette = slicer.app.font(), slicer.app.palette()
    for scale in (1.5, 2.0):
        larger = qt.QFont(font)
        larger.setPointSizeF(scale * font.pointSizeF())
        slicer.app.setFont(larger)
        session.wait(0.5)
        session.widget.enter()  # fits the panel
        session.picture(f"letters-{scale:g}")
    slicer.app.setFont(font)
    dark = qt.QPalette(qt.QColor(50, 50, 50))
    slicer.app.setPalette(dark)
    session.picture("dark")
    slicer.app.setPalette(palette)


def main() -> None:
    """Takes the pictures and ends Slicer."""
    sys.path.insert(0, str(Path(__file__).resolve().parent))
    try:
        session = Session(Path(sys.argv[1] if len(sys.argv) > 1 else "screenshots").absolute())
        walk_through(session)
        problems = session.problems
    except Exception:  # noqa: BLE001 - Slicer must end, and say why
        problems = [traceback.format_exc()]
    print(*(problems or ["Nothing is covered."]), sep="\n")
    slicer.util.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
