"""The few Qt classes that the window touches, without Qt: properties as PythonQt has them, signals that a test can send.

That the names exist in Qt is another test's business (``test_names``); here they only have to remember.
"""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any, ClassVar

# What a property is before anybody sets it.
_INITIAL = {"text": "", "toolTip": "", "enabled": True, "visible": True, "checked": False, "value": 0.0}


class Object:
    """Remembers what is set, and whom to call for a signal."""

    def __init__(self, *_: Any) -> None:
        self.__dict__.update(_INITIAL)
        self.font = Font()
        self._slots: dict[str, list[Callable[..., None]]] = {}

    def connect(self, signal: str, slot: Callable[..., None]) -> None:
        """As in PythonQt: the signal with its C++ arguments."""
        self._slots.setdefault(signal, []).append(slot)

    def emit(self, signal: str, *arguments: Any) -> None:
        """What Qt does when the user acts; a signal that nobody waits for is a mistake of the test."""
        for slot in list(self._slots[signal]):
            slot(*arguments)

    def click(self) -> None:
        """A user's click; a disabled button does not answer."""
        assert self.enabled, "a disabled button was clicked"
        self.emit("clicked()")

    def __getattr__(self, name: str) -> Any:
        if name.startswith("set") and name[3:4].isupper():
            return lambda *values: setattr(self, name[3].lower() + name[4:], values[0] if len(values) == 1 else values)
        raise AttributeError(name)

    def installEventFilter(self, watcher: Any) -> None:  # noqa: N802
        self.watcher = watcher

    def removeEventFilter(self, watcher: Any) -> None:  # noqa: N802
        self.watcher = None

    def hasFocus(self) -> bool:  # noqa: N802
        return False

    def blockSignals(self, block: bool) -> bool:  # noqa: N802
        was, self.__dict__["blocked"] = self.__dict__.get("blocked", False), block
        return was


class Signalling(Object):
    """Whose value, set by code, tells those who wait for it, as Qt does."""

    _signals: ClassVar[dict[str, str]] = {"value": "valueChanged(double)", "checked": "toggled(bool)"}

    def __setattr__(self, name: str, value: Any) -> None:
        before = self.__dict__.get(name)
        super().__setattr__(name, value)
        signal = self._signals.get(name)
        if signal is not None and before != value:
            for slot in self.__dict__.get("_slots", {}).get(signal, []):
                slot(value)


class ComboBox(Object):
    """Entries by index."""

    def __init__(self, *_: Any) -> None:
        super().__init__()
        self._items: list[str] = []
        self.currentIndex = -1

    @property
    def count(self) -> int:
        return len(self._items)

    def addItem(self, text: str) -> None:  # noqa: N802
        self._items.append(text)
        self.currentIndex = max(self.currentIndex, 0)

    def itemText(self, index: int) -> str:  # noqa: N802
        return self._items[index]

    def clear(self) -> None:
        self._items, self.currentIndex = [], -1

    @property
    def texts(self) -> list[str]:
        return self._items

    def pick(self, text: str) -> None:
        """The user chooses an entry."""
        self.currentIndex = self._items.index(text)
        self.emit("activated(int)", self.currentIndex)


class NodeSelector(Object):
    """A qMRMLNodeComboBox, or the one of the subject hierarchy; what the user picks is told as activated."""

    node: Any = None
    item: int = 0

    def currentItem(self) -> int:  # noqa: N802
        return self.item

    def setLevelFilter(self, levels: Any) -> None:  # noqa: N802
        assert isinstance(levels, list), "PythonQt takes a text apart into its letters"

    def setCurrentNode(self, node: Any) -> None:  # noqa: N802
        changed, self.node = node is not self.node, node
        if changed:
            for slot in self._slots.get("currentNodeChanged(vtkMRMLNode*)", []):
                slot(node)

    def pick(self, node: Any) -> None:
        """The user chooses a node."""
        self.setCurrentNode(node)
        self.emit("nodeActivated(vtkMRMLNode*)", node)


class Action(Signalling):
    """An entry of a menu."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text


class Menu(Object):
    """Entries that are made when it opens."""

    def __init__(self, *_: Any) -> None:
        super().__init__()
        self.actions: list[Action] = []

    def clear(self) -> None:
        self.actions = []

    def addAction(self, text: str) -> Action:  # noqa: N802
        self.actions.append(Action(text))
        return self.actions[-1]


class ToolButton(Signalling):
    """A button that may open a menu."""

    InstantPopup = 2

    @property
    def texts(self) -> list[str]:
        """What its menu offers."""
        self.menu.emit("aboutToShow()")
        return [action.text for action in self.menu.actions]

    def pick(self, text: str) -> None:
        """The user opens the menu and chooses an entry."""
        self.pick_later(text)()

    def pick_later(self, text: str) -> Callable[[], None]:
        """The user opens the menu, and chooses an entry when this is called."""
        index = self.texts.index(text)
        return lambda action=self.menu.actions[index]: action.emit("triggered()")  # type: ignore[misc]

    @property
    def picked(self) -> str:
        """The entry that is chosen."""
        self.menu.emit("aboutToShow()")
        return next(action.text for action in self.menu.actions if action.checked)


class Font:
    """A font of 10 points."""

    size = 10.0

    def pointSizeF(self) -> float:  # noqa: N802
        return self.size

    def setPointSizeF(self, size: float) -> None:  # noqa: N802
        self.size = size

    def setBold(self, bold: bool) -> None:  # noqa: N802
        pass


class TableItem(Object):
    """Its text is a method in Qt."""

    def __init__(self, text: str = "") -> None:
        super().__init__()
        self.shown = text

    def setText(self, text: str) -> None:  # noqa: N802
        self.shown = text


class Table(Object):
    """A QTableWidget."""

    def __init__(self, *_: Any) -> None:
        super().__init__()
        self.widgets: dict[tuple[int, int], Any] = {}
        self.items: dict[tuple[int, int], TableItem] = {}
        self.rowCount = self.columnCount = 0
        self._row = -1
        self._viewport, self._header = Object(), Object()
        self.horizontalHeaderLabels: list[str] = []

    def viewport(self) -> Object:
        return self._viewport

    def horizontalHeader(self) -> Object:  # noqa: N802
        return self._header

    verticalHeader = horizontalHeader  # noqa: N815

    def setColumnCount(self, count: int) -> None:  # noqa: N802
        self.columnCount = count
        self.horizontalHeaderLabels = [""] * count

    def setHorizontalHeaderItem(self, column: int, item: TableItem) -> None:  # noqa: N802
        self.horizontalHeaderLabels[column] = item.shown

    def setRowCount(self, count: int) -> None:  # noqa: N802
        self.rowCount = count
        self.widgets = {place: w for place, w in self.widgets.items() if place[0] < count}
        self.items = {place: i for place, i in self.items.items() if place[0] < count}
        if self._row >= count:
            self._row = -1

    def setCellWidget(self, row: int, column: int, widget: Any) -> None:  # noqa: N802
        self.widgets[row, column] = widget

    def cellWidget(self, row: int, column: int) -> Any:  # noqa: N802
        return self.widgets[row, column]

    def setItem(self, row: int, column: int, item: TableItem) -> None:  # noqa: N802
        self.items[row, column] = item

    def item(self, row: int, column: int) -> TableItem:
        return self.items[row, column]

    def currentRow(self) -> int:  # noqa: N802
        return self._row

    def selectRow(self, row: int) -> None:  # noqa: N802
        changed, self._row = row != self._row, row
        if changed:
            for slot in self._slots.get("itemSelectionChanged()", []):
                slot()

    def texts(self) -> list[list[str]]:
        return [
            [self.items[r, c].shown for c in range(self.columnCount) if (r, c) in self.items]
            for r in range(self.rowCount)
        ]


class Contents(Object):
    """What a scroll area holds."""

    minimumSizeHint = types.SimpleNamespace(width=lambda: 360)  # noqa: N815


class ScrollArea(Object):
    """A QScrollArea."""

    def verticalScrollBar(self) -> Any:  # noqa: N802
        return types.SimpleNamespace(sizeHint=types.SimpleNamespace(width=lambda: 15))

    seen: Any = None

    def ensureWidgetVisible(self, widget: Any) -> None:  # noqa: N802
        self.seen = widget


class Widget(Object):
    """QWidget's function that is no widget's."""

    order: ClassVar[list[tuple[Any, Any]]] = []

    @classmethod
    def setTabOrder(cls, first: Any, second: Any) -> None:  # noqa: N802
        cls.order.append((first, second))


class Date:
    """A QDate."""

    def __init__(self, year: int, month: int, day: int) -> None:
        self._text = f"{year:04d}-{month:02d}-{day:02d}"

    def toString(self, pattern: str) -> str:  # noqa: N802
        assert pattern == "yyyy-MM-dd"
        return self._text


class DateEdit(Object):
    """A QDateEdit without keyboard tracking: what is typed counts when the field is left, or is interpreted by code."""

    def __init__(self, *_: Any) -> None:
        super().__init__()
        self._typed: Date | None = None

    def setDate(self, date: Date) -> None:  # noqa: N802
        changed = getattr(self.__dict__.get("date"), "_text", None) != date._text
        self.__dict__["date"] = date
        if changed and not self.__dict__.get("blocked"):
            for slot in self._slots.get("dateChanged(QDate)", []):
                slot(date)

    focus = False

    def hasFocus(self) -> bool:  # noqa: N802
        return self.focus

    def __getattribute__(self, name: str) -> Any:
        if name == "text":
            shown = self.__dict__.get("_typed") or self.__dict__.get("date")
            return shown._text if shown is not None else ""
        return super().__getattribute__(name)

    def pick(self, date: str) -> None:
        """The user picks a day in the calendar, which does not end the editing."""
        assert self.keyboardTracking is False
        self.setDate(Date(*map(int, date.split("-"))))

    def type(self, date: str) -> None:
        """The user types a date and is still in the field."""
        self._typed = Date(*map(int, date.split("-")))

    def interpretText(self) -> None:  # noqa: N802
        if self._typed is not None:
            typed, self._typed = self._typed, None
            self.setDate(typed)


class Timer(Object):
    """Ticks when the test says so."""

    made: ClassVar[list[Timer]] = []

    def __init__(self, *_: Any) -> None:
        super().__init__()
        self.active = False
        Timer.made.append(self)

    def start(self) -> None:
        self.active = True

    def stop(self) -> None:
        self.active = False


def tick() -> None:
    """Time goes by: every running timer fires once."""
    for timer in list(Timer.made):
        if timer.active:
            timer.active = not getattr(timer, "singleShot", False)
            timer.emit("timeout()")


class Settings:
    """A QSettings of this process; lists come back as tuples, a lone entry as text."""

    kept: ClassVar[dict[str, Any]] = {}

    def value(self, name: str, default: Any = None) -> Any:
        value = self.kept.get(name, default)
        if isinstance(value, list):
            return value[0] if len(value) == 1 else tuple(value)
        return value

    def setValue(self, name: str, value: Any) -> None:  # noqa: N802
        self.kept[name] = value


class FileDialog:
    """Answers what the test wants."""

    answer: ClassVar[str] = ""

    @classmethod
    def getExistingDirectory(cls, *_: Any) -> str:  # noqa: N802
        return cls.answer

    getSaveFileName = getExistingDirectory  # noqa: N815


_CLASSES = {
    "QTableWidget": Table,
    "QComboBox": ComboBox,
    "ctkSliderWidget": Signalling,
    "QCheckBox": Signalling,
    "QToolButton": Signalling,
    "QScrollArea": ScrollArea,
    "QWidget": Contents,
    "qMRMLNodeComboBox": NodeSelector,
    "qMRMLSubjectHierarchyComboBox": NodeSelector,
}


def make_widget(class_name: str) -> Object:
    """A widget of the window's file."""
    return _CLASSES.get(class_name, Object)()


def module() -> types.ModuleType:
    """For ``sys.modules["qt"]``."""
    qt: Any = types.ModuleType("qt")
    qt.QObject, qt.QTimer, qt.QComboBox, qt.QCheckBox = Object, Timer, ComboBox, Signalling
    qt.QDateEdit, qt.QDate, qt.QTableWidgetItem = DateEdit, Date, TableItem
    qt.QToolButton, qt.QMenu, qt.QWidget = ToolButton, Menu, Widget
    qt.QHeaderView = types.SimpleNamespace(ResizeToContents=3)
    qt.QSettings, qt.QFileDialog = Settings, FileDialog
    qt.Qt = types.SimpleNamespace(WaitCursor="wait", IgnoreAction=0, DownArrow="down", RightArrow="right")
    qt.QEvent = types.SimpleNamespace(DragEnter=60, DragMove=61, Drop=63, Wheel=31)
    return qt
