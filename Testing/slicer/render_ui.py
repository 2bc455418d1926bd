"""Pictures of the module's window without Slicer, for a look at its layout.

    QT_QPA_PLATFORM=offscreen python Testing/slicer/render_ui.py FOLDER [--widths 420 560] [--states result error]

Needs PySide6, which is no dependency of the project, and nothing else: install it into a virtual environment of its own.
Slicer's and CTK's widgets are stand-ins that look and lay out about like the real ones; the style's sizes and the light and dark
colours are Slicer's. Writes FOLDER/STATE-WIDTH-THEME.png, prints the smallest width that the window can have, and fails where
that is more than the width asked for.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

from PySide6 import QtCore, QtGui, QtUiTools, QtWidgets

UI = Path(__file__).resolve().parents[2] / "HCCNet" / "Resources" / "UI" / "HCCNet.ui"
CHANNELS = ("DWI_b0", "DWI_b150", "DWI_b400", "DWI_b800")
DATES = ("2021-03-04", "2021-09-07", "2022-04-20", "2023-01-11")
PROBLEM = (
    "Exam 2022-04-20: the channels do not lie on one grid (DWI_b0: 256×192×30 voxels of 1.5×1.5×6 mm; DWI_b800: 128×96×30 voxels "
    "of 3×3×6 mm). Check that they are one visit; if they share one patient space, say so, and they are brought onto the first "
    "channel's grid."
)
CARD = (
    "phantom-demonstration 1, 2 networks, 12 months. Reads DWI_b0, DWI_b150, DWI_b400, DWI_b800. Its weights were learned from "
    "generated phantom images; they show that the software works and nothing else."
)
RESULT = (
    "Estimated risk of a diagnosis of hepatocellular carcinoma within 12 months after 2023-01-11: 12 %, 8 % to 17 % from the "
    "smallest to the largest of 2 members. Research software, not a medical device. Not for clinical use."
)
ERROR = "The GPU's memory does not suffice. Choose the processor under Advanced, or close what else uses the GPU."
DETAILS = 'Traceback (most recent call last):\n  File "worker.py", line 118, in serve\ntorch.OutOfMemoryError: CUDA out of memory.'
STATES = ("empty", "result", "error", "advanced")


class CollapsibleButton(QtWidgets.QAbstractButton):
    """Stands in for ctkCollapsibleButton."""

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        self.setCheckable(True)
        self.setChecked(True)
        policy = QtWidgets.QSizePolicy.Policy
        self.setSizePolicy(policy.Minimum, policy.Preferred)
        self.setBackgroundRole(QtGui.QPalette.ColorRole.Window)
        self.setContentsMargins(0, self._header(), 0, 0)

    def _header(self) -> int:
        option = QtWidgets.QStyleOptionButton()
        option.initFrom(self)
        content = self.fontMetrics().size(0, self.text() or "XXXX")
        kind = QtWidgets.QStyle.ContentsType.CT_PushButton
        return self.style().sizeFromContents(kind, option, content, self).height()

    def fold(self) -> None:
        """Closes it."""
        self.setChecked(False)
        for child in self.findChildren(QtWidgets.QWidget, options=QtCore.Qt.FindChildOption.FindDirectChildrenOnly):
            child.hide()
        self.setFixedHeight(self._header() + 14)

    def paintEvent(self, event: Any) -> None:  # noqa: N802 - Qt's name
        """Draws the heading."""
        painter, style = QtGui.QPainter(self), self.style()
        option = QtWidgets.QStyleOptionButton()
        option.initFrom(self)
        option.state |= QtWidgets.QStyle.StateFlag.State_Raised
        height = self._header()
        option.rect.setHeight(height)
        style.drawControl(QtWidgets.QStyle.ControlElement.CE_PushButtonBevel, option, painter, self)
        side = style.pixelMetric(QtWidgets.QStyle.PixelMetric.PM_IndicatorWidth, option, self)
        arrow = QtWidgets.QStyleOption()
        arrow.initFrom(self)
        arrow.rect = QtCore.QRect((height - side) // 2, (height - side) // 2, side, side)
        primitive = QtWidgets.QStyle.PrimitiveElement
        shape = primitive.PE_IndicatorArrowDown if self.isChecked() else primitive.PE_IndicatorArrowRight
        style.drawPrimitive(shape, arrow, painter, self)
        option.rect.setLeft(arrow.rect.right() + 6)
        align = QtCore.Qt.AlignmentFlag.AlignLeft | QtCore.Qt.AlignmentFlag.AlignVCenter
        painter.setPen(option.palette.color(QtGui.QPalette.ColorRole.ButtonText))
        painter.drawText(option.rect, align, self.text())


class SliderWidget(QtWidgets.QWidget):
    """Stands in for ctkSliderWidget, whose range is 0-1 here."""

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        slider, spin = QtWidgets.QSlider(QtCore.Qt.Orientation.Horizontal), QtWidgets.QDoubleSpinBox()
        slider.setValue(40)
        spin.setValue(0.4)
        layout.addWidget(slider)
        layout.addWidget(spin)


class Combo(QtWidgets.QComboBox):
    """Stands in for the choosers of nodes and items, with something long chosen."""

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        self.addItem("Anonymised patient 0017 of the longitudinal liver study")


class Loader(QtUiTools.QUiLoader):
    """Makes the stand-ins."""

    stand_ins = {  # noqa: RUF012 - never changed
        "qMRMLWidget": QtWidgets.QWidget,
        "ctkCollapsibleButton": CollapsibleButton,
        "ctkSliderWidget": SliderWidget,
        "qMRMLNodeComboBox": Combo,
        "qMRMLSubjectHierarchyComboBox": Combo,
    }

    def createWidget(self, name: str, parent: Any = None, object_name: str = "") -> Any:  # noqa: N802 - Qt's name
        """A stand-in, or Qt's own widget; a class that neither knows is an error."""
        if name in self.stand_ins:
            widget = self.stand_ins[name](parent)
            widget.setObjectName(object_name)
            return widget
        if name not in self.availableWidgets():
            raise ValueError(f"{UI.name} holds a {name}, which has no stand-in here")
        return super().createWidget(name, parent, object_name)


def load() -> Any:
    """The window; its connections, which concern the scene, are left out."""
    text = UI.read_text(encoding="utf-8")
    before, after = text.split("<connections>")[0], text.split("</connections>")[1]
    buffer = QtCore.QBuffer()
    buffer.setData((before + after).encode())
    buffer.open(QtCore.QIODevice.OpenModeFlag.ReadOnly)
    window = Loader().load(buffer)
    for layout in window.findChildren(QtWidgets.QLayout):  # the sizes of Slicer's style
        owner = layout.parentWidget()
        layout.setSpacing(3)
        if owner.layout() == layout and (owner == window or isinstance(owner, CollapsibleButton)):
            margin = 6 if owner == window else 4
            layout.setContentsMargins(margin, margin, margin, margin)
    return window


def fill(window: Any, state: str) -> None:
    """Puts the window into a state as the module's code does, with plausible content."""

    def find(name: str) -> Any:
        return window.findChild(QtWidgets.QWidget, name)

    find("bundleComboBox").addItem("phantom-demonstration 1 (demonstration)")
    find("kindComboBox").addItem("what raises the output")
    find("deviceComboBox").addItem("Automatic: the graphics card where there is one")
    find("methodComboBox").addItem("integrated-activation (default)")
    find("temporaryLabel").setText("0.0 MB")
    find("cardLabel").setText(CARD)
    for name in ("errorLabel", "errorDetailsButton", "errorDetailsText"):
        find(name).setVisible(state == "error")
    find("errorLabel").setText(ERROR)
    find("errorDetailsText").setPlainText(DETAILS)
    find("errorDetailsButton").setArrowType(QtCore.Qt.ArrowType.DownArrow)
    find("statusLabel").setText("Ready.")
    fill_exams(find("examTable"), () if state == "empty" else DATES)
    if state == "empty":
        find("problemsLabel").setText("There is no exam. Fill the table from the scene or add a folder.")
    else:
        find("problemsLabel").setText(PROBLEM)
    if state in ("result", "advanced"):
        find("progressBar").setValue(100)
        find("statusLabel").setText("Predicted in 6.2 s.")
        find("resultLabel").setText(RESULT)
        find("staleLabel").setText("Out of date: exam 2022-04-20 was moved after the prediction. Predict again.")
        fill_results(find("resultTable"))
    else:
        find("staleLabel").hide()
        find("resultCollapsibleButton").fold()
        find("exportCollapsibleButton").setEnabled(False)
    if state != "advanced":
        find("advancedCollapsibleButton").fold()


def fill_exams(table: Any, dates: Sequence[str]) -> None:
    """Rows of the patient's exams, with the widgets that the module puts into the cells."""
    table.setColumnCount(3 + len(CHANNELS))
    table.setHorizontalHeaderLabels(["Use", "Date", "State", *CHANNELS])
    table.setRowCount(len(dates))
    for row, date in enumerate(dates):
        check = QtWidgets.QCheckBox()
        check.setChecked(row != 0)
        table.setCellWidget(row, 0, check)
        day = QtWidgets.QDateEdit(QtCore.QDate.fromString(date, "yyyy-MM-dd"))
        day.setDisplayFormat("yyyy-MM-dd")
        table.setCellWidget(row, 1, day)
        table.setItem(row, 2, QtWidgets.QTableWidgetItem(("left out", "ready", "blocked", "look")[row % 4]))
        for column, channel in enumerate(CHANNELS, start=3):
            cell = QtWidgets.QComboBox()
            cell.addItem(f"{channel} {date}")
            table.setCellWidget(row, column, cell)
    table.resizeColumnsToContents()
    if dates:
        table.selectRow(1)


def fill_results(table: Any) -> None:
    """Rows of the result's exams."""
    columns = ["Date", "Months before", "Attention", "Output without it"]
    table.setColumnCount(len(columns))
    table.setHorizontalHeaderLabels(columns)
    table.setRowCount(len(DATES))
    for row, date in enumerate(DATES):
        for column, text in enumerate([date, f"{22.3 - 7 * row:.1f}", f"{10 + 9 * row} %", "10 %"]):
            table.setItem(row, column, QtWidgets.QTableWidgetItem(text))
    table.resizeColumnsToContents()
    table.selectRow(len(DATES) - 1)


def palette(theme: str) -> QtGui.QPalette:
    """Slicer's light or dark colours, as far as these widgets show them."""
    light = {"Window": "white", "Base": "white", "AlternateBase": "#e4e4fe", "Button": "#fcfcfc", "Light": "#c8c8c8"}
    light |= {"Midlight": "#e6e6e6", "Dark": "#aaaaaa", "Mid": "#c8c8c8", "Shadow": "#5a5a5a", "Highlight": "#308cc6"}
    dark = {"Window": "#323232", "Base": "#1e1e1e", "AlternateBase": "#323232", "Button": "#323232", "Light": "#828284"}
    dark |= {"Midlight": "#5a5a5b", "Dark": "#232323", "Mid": "#2b2b2b", "Shadow": "#141414", "Highlight": "#308cc6"}
    text, faint, gray = (
        ("black", ("#bebebe", "#bebebe"), "darkgray")
        if theme == "light"
        else ("white", ("#6d6d6d", "#b4b4b4"), "lightgray")
    )
    colours, role = QtGui.QPalette(), QtGui.QPalette.ColorRole
    for name, colour in (light if theme == "light" else dark).items():
        colours.setColor(role[name], QtGui.QColor(colour))
    for name in ("WindowText", "Text", "ButtonText"):
        colours.setColor(role[name], QtGui.QColor(text))
        off = faint[1] if name == "ButtonText" else faint[0]
        colours.setColor(QtGui.QPalette.ColorGroup.Disabled, role[name], QtGui.QColor(off))
    colours.setColor(role.PlaceholderText, QtGui.QColor(gray))
    colours.setColor(role.HighlightedText, QtGui.QColor("white"))
    return colours


def render(state: str, width: int, file: Path) -> int:
    """Writes a picture of the whole window and returns the smallest width that it can have."""
    panel = QtWidgets.QWidget()
    layout = QtWidgets.QVBoxLayout(panel)
    layout.setContentsMargins(0, 0, 0, 0)
    window = load()
    layout.addWidget(window)
    fill(window, state)
    panel.resize(width, 400)
    panel.show()
    QtWidgets.QApplication.processEvents()
    panel.resize(width, layout.totalHeightForWidth(width))
    QtWidgets.QApplication.processEvents()
    panel.resize(width, max(layout.totalHeightForWidth(width), layout.totalMinimumSize().height()))
    QtWidgets.QApplication.processEvents()
    panel.grab().save(str(file))
    return layout.totalMinimumSize().width()


def main() -> None:
    """Writes the pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--widths", type=int, nargs="+", default=[420, 560])
    parser.add_argument("--states", nargs="+", choices=STATES, default=STATES)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    application = QtWidgets.QApplication([sys.argv[0]])
    application.setStyle("fusion")
    for theme in ("light", "dark"):
        application.setPalette(palette(theme))
        for state in arguments.states:
            for width in arguments.widths:
                file = arguments.folder / f"{state}-{width}-{theme}.png"
                smallest = render(state, width, file)
                print(f"{file}: can be as narrow as {smallest} px")
                if smallest > width:
                    raise SystemExit(f"The window does not fit into {width} px.")


if __name__ == "__main__":
    main()
