"""What several panels do alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import qt


def timer(milliseconds: int, slot: Callable[[], None], once: bool = False) -> Any:
    """A timer that is not started; it ticks only while somebody keeps it."""
    made = qt.QTimer()
    made.setInterval(milliseconds)
    made.setSingleShot(once)
    made.connect("timeout()", slot)
    return made


def choose(combo: Any, texts: list[str], index: int) -> None:
    """Fills a combo box and selects an entry; a box that shows the same already is left alone, with its popup."""
    if [combo.itemText(n) for n in range(combo.count)] != texts:
        combo.clear()
        for text in texts:
            combo.addItem(text)
    combo.setCurrentIndex(index)


def set_header(table: Any, columns: Mapping[str, str]) -> None:
    """Gives a table its columns, as wide as what they hold, and rows as high.

    Args:
        table: the QTableWidget.
        columns: header → what the column means.
    """
    table.setColumnCount(len(columns))
    for number, (text, meaning) in enumerate(columns.items()):
        item = qt.QTableWidgetItem(text)
        item.setToolTip(meaning)
        table.setHorizontalHeaderItem(number, item)
    for header in (table.horizontalHeader(), table.verticalHeader()):
        header.setMinimumSectionSize(1)
        header.setSectionResizeMode(qt.QHeaderView.ResizeToContents)


class WheelFilter(qt.QObject):
    """Keeps the mouse wheel, with which the user scrolls the panel, from changing what lies under the pointer."""

    def eventFilter(self, watched: Any, event: Any) -> bool:  # noqa: N802 - Qt's name
        """Whether the event has been dealt with."""
        if event.type() != qt.QEvent.Wheel:
            return False
        event.ignore()  # then the panel scrolls
        return True
