"""PySide6 made to look like PythonQt, as Slicer has it, with Slicer's style, and stand-ins for CTK's and MRML's widgets.

Properties are attributes (``label.text``), every other name is a method, and signals are connected by their C++ signature
(``button.connect("clicked()", slot)``).
"""
# ruff: noqa: N802, N815 - Qt's names

from __future__ import annotations

import re
import types
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import slicer
import slicer.util
from PySide6 import QtCore, QtGui, QtUiTools, QtWidgets
from vtk import vtkIdList

_UNLIMITED = 16_777_215  # Qt's greatest height
_WANTED = "visibilityToParent"  # as CTK calls it

THEMES = ("light", "dark")
# Of Slicer, for roles of Qt in these themes; after a slash: of what is disabled.
_COLOURS = """
Window           white            #323232
WindowText       black/#bebebe    white/#6d6d6d
Base             white/white      #1e1e1e/#1e1e1e
AlternateBase    #e4e4fe          #323232
ToolTipBase      #ffffdc          white
ToolTipText      black            #323232
Text             black/#bebebe    white/#6d6d6d
PlaceholderText  darkgray         lightgray
Button           #fcfcfc          #323232
ButtonText       black/#bebebe    white/#b4b4b4
BrightText       red              #ff4444
Light            #c8c8c8          #828284
Midlight         #e6e6e6          #5a5a5b
Dark             #aaaaaa          #232323
Mid              #c8c8c8          #2b2b2b
Shadow           #5a5a5a          #141414
Highlight        #308cc6/#919191  #3ca4ff/#505050
HighlightedText  white/white      white/#6d6d6d
Link             #0000ff          #3ca4ff
"""


def make_qt() -> types.ModuleType:
    """Slicer's module ``qt`` with all of PySide6's classes, which behave like PythonQt's from now on."""
    qt: Any = types.ModuleType("qt")
    for module in (QtCore, QtGui, QtWidgets):
        for name in dir(module):
            found = getattr(module, name)
            setattr(qt, name, found)
            if isinstance(found, type) and issubclass(found, QtCore.QObject):
                _show_properties(found)
                _let_connect(found)
    QtCore.QObject.name = _attribute("objectName")  # type: ignore[attr-defined]
    QtCore.QObject.className = lambda self: self.metaObject().className()  # type: ignore[attr-defined]
    qt.QUiLoader, qt.QFileDialog = UiLoader, FileDialog
    return qt


def _show_properties(cls: Any) -> None:
    """Makes a class's properties attributes, those too which it has inherited and whose getter it overrides."""
    meta = cls.staticMetaObject
    for index in range(meta.propertyCount()):
        name = meta.property(index).name()
        if index >= meta.propertyOffset() or name in vars(cls):
            setattr(cls, name, _attribute(name, vars(cls).get(name)))


def _attribute(name: str, getter: Any = None) -> property:
    """A property by its name; through its own getter where that has the same name, which Qt may be asking for just now."""
    get, put = QtCore.QObject.property, QtCore.QObject.setProperty
    return property(getter or (lambda self: get(self, name)), lambda self, value: put(self, name, value))


def _let_connect(cls: Any) -> None:
    """Lets a class's objects connect as PythonQt's do; PySide finds its own way of it for them, whatever the class says."""
    get = vars(cls).get("__getattribute__")  # QObject's, and that of the few classes that have their own

    def look_up(self: Any, name: str) -> Any:
        if name in ("connect", "disconnect"):
            act = getattr(QtCore.QObject, name)
            return lambda signal, slot: act(self, _checked(self, signal), slot)
        return get(self, name)

    if get is not None:
        cls.__getattribute__ = look_up


def _checked(sender: QtCore.QObject, signal: str) -> str:
    """A signal as Qt knows it; one that the sender does not have is an error, of which Qt would only warn."""
    signature = re.sub(r"vtk\w+\*?", "PyObject", signal)
    if sender.metaObject().indexOfSignal(signature) < 0:
        raise ValueError(f"{type(sender).__name__} has no signal {signal}")
    return QtCore.SIGNAL(signature)


def palette(standard: QtGui.QPalette, theme: str) -> QtGui.QPalette:
    """Slicer's colours in place of Qt's."""
    colours, groups = QtGui.QPalette(standard), QtGui.QPalette.ColorGroup
    for line in _COLOURS.strip().splitlines():
        name, *values = line.split()
        for group, value in zip((groups.All, groups.Disabled), values[THEMES.index(theme)].split("/"), strict=False):
            colours.setColor(group, QtGui.QPalette.ColorRole[name], QtGui.QColor(value))
    return colours


class Style(QtWidgets.QProxyStyle):
    """Slicer's sizes."""

    def pixelMetric(self, metric: Any, option: Any = None, widget: Any = None) -> int:
        kind = QtWidgets.QStyle.PixelMetric
        if kind.PM_LayoutLeftMargin <= metric <= kind.PM_LayoutBottomMargin:
            return 4 if isinstance(widget, CollapsibleButton) else 6
        sizes = {kind.PM_LayoutHorizontalSpacing: 3, kind.PM_LayoutVerticalSpacing: 3}
        sizes |= {kind.PM_SliderLength: 12, kind.PM_ButtonIconSize: 24}
        return sizes[metric] if metric in sizes else super().pixelMetric(metric, option, widget)


class FileDialog(QtWidgets.QFileDialog):
    """A dialog in which the user chooses ``answer``."""

    answer: ClassVar[str] = ""

    @classmethod
    def getExistingDirectory(cls, *_: Any) -> str:
        return cls.answer

    getOpenFileName = getSaveFileName = getExistingDirectory


class MRMLWidget(QtWidgets.QWidget):
    """Stands in for qMRMLWidget."""

    mrmlSceneChanged = QtCore.Signal(object)

    def setMRMLScene(self, scene: Any) -> None:
        self.mrmlSceneChanged.emit(scene)


class CollapsibleButton(QtWidgets.QAbstractButton):
    """Stands in for ctkCollapsibleButton: it draws itself and closes as that does."""

    contentsCollapsed = QtCore.Signal(bool)
    _CLOSED_HEIGHT = 14

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        self.setCheckable(True)
        self.setChecked(True)
        policy = QtWidgets.QSizePolicy.Policy
        self.setSizePolicy(policy.Minimum, policy.Preferred)
        self.setBackgroundRole(QtGui.QPalette.ColorRole.Window)
        self._forcing = False
        self.toggled.connect(self._fold)

    def setCollapsed(self, collapsed: bool) -> None:
        self.setChecked(not collapsed)

    collapsed = QtCore.Property(bool, lambda self: not self.isChecked(), setCollapsed)

    def _fold(self, opened: bool) -> None:
        self.setMaximumHeight(_UNLIMITED if opened else self.sizeHint().height())
        self._show_children()
        self.updateGeometry()
        self.contentsCollapsed.emit(not opened)

    def _show_children(self) -> None:
        for child in self.children():
            if child.isWidgetType():
                self._show_child(child)

    def _show_child(self, child: Any) -> None:
        """Shows a child while the button is open, unless the module itself has hidden it."""
        if not self.testAttribute(QtCore.Qt.WidgetAttribute.WA_WState_Created):
            return
        self._forcing, is_wanted = True, child.property(_WANTED) is not False
        child.setVisible(self.isChecked() and is_wanted)
        if is_wanted:  # so that it does not count as the module's own wish
            child.setAttribute(QtCore.Qt.WidgetAttribute.WA_WState_ExplicitShowHide, False)
        self._forcing = False

    def setVisible(self, visible: bool) -> None:
        self._forcing = True
        super().setVisible(visible)
        self._forcing = False
        self._show_children()

    def childEvent(self, event: Any) -> None:
        child = event.child()
        if event.added() and child.isWidgetType():
            attribute = QtCore.Qt.WidgetAttribute
            if child.testAttribute(attribute.WA_WState_ExplicitShowHide) and child.isHidden():
                child.setProperty(_WANTED, False)
            child.installEventFilter(self)
            self._show_child(child)

    def eventFilter(self, child: Any, event: Any) -> bool:
        shown = event.type() == QtCore.QEvent.Type.ShowToParent
        if (shown or event.type() == QtCore.QEvent.Type.HideToParent) and not self._forcing:
            child.setProperty(_WANTED, shown)
            self._show_child(child)
        return False

    def _header(self) -> QtCore.QSize:
        option, style = QtWidgets.QStyleOptionButton(), self.style()
        option.initFrom(self)
        metric = QtWidgets.QStyle.PixelMetric
        side = style.pixelMetric(metric.PM_IndicatorWidth, option, self)
        words = self.fontMetrics().size(QtCore.Qt.TextFlag.TextShowMnemonic, self.text or "XXXX")
        width = side + style.pixelMetric(metric.PM_CheckBoxLabelSpacing, option, self) + words.width()
        content = QtCore.QSize(width, max(side, words.height()))
        return style.sizeFromContents(QtWidgets.QStyle.ContentsType.CT_PushButton, option, content, self)

    def event(self, event: QtCore.QEvent) -> bool:
        if event.type() in (QtCore.QEvent.Type.Polish, QtCore.QEvent.Type.FontChange):
            self.setContentsMargins(0, self._header().height(), 0, 0)
        return super().event(event)

    def minimumSizeHint(self) -> QtCore.QSize:
        header = self._header()
        if not self.isChecked():
            return header + QtCore.QSize(0, self._CLOSED_HEIGHT)
        return super().minimumSizeHint.expandedTo(header)

    def sizeHint(self) -> QtCore.QSize:
        closed = self._header() + QtCore.QSize(0, self._CLOSED_HEIGHT)
        return super().sizeHint.expandedTo(closed) if self.isChecked() else closed

    def paintEvent(self, event: Any) -> None:
        painter, style = QtGui.QPainter(self), self.style()
        option = QtWidgets.QStyleOptionButton()
        option.initFrom(self)
        option.state |= QtWidgets.QStyle.StateFlag.State_Raised
        height = self._header().height()
        option.rect.setHeight(height)
        style.drawControl(QtWidgets.QStyle.ControlElement.CE_PushButtonBevel, option, painter, self)
        side = style.pixelMetric(QtWidgets.QStyle.PixelMetric.PM_IndicatorWidth, option, self)
        arrow = QtWidgets.QStyleOption()
        arrow.initFrom(self)
        arrow.rect = QtCore.QRect((height - side) // 2, (height - side) // 2, side, side)
        kind = QtWidgets.QStyle.PrimitiveElement
        style.drawPrimitive(
            kind.PE_IndicatorArrowDown if self.isChecked() else kind.PE_IndicatorArrowRight, arrow, painter, self
        )
        option.rect.setLeft(arrow.rect.right() + 6)
        flags = QtCore.Qt.AlignmentFlag.AlignLeft | QtCore.Qt.AlignmentFlag.AlignVCenter
        painter.setPen(option.palette.color(QtGui.QPalette.ColorRole.ButtonText))
        painter.drawText(option.rect, int(flags) | int(QtCore.Qt.TextFlag.TextHideMnemonic), self.text)


def _of_spin_box(name: str, kind: type) -> Any:
    """A property of a slider that its box keeps."""
    return QtCore.Property(
        kind, lambda self: self.box.property(name), lambda self, value: self.box.setProperty(name, value)
    )


class SliderWidget(QtWidgets.QWidget):
    """Stands in for ctkSliderWidget: a slider, and a box with its value."""

    valueChanged = QtCore.Signal(float)
    minimum, maximum, singleStep = (_of_spin_box(name, float) for name in ("minimum", "maximum", "singleStep"))
    value, decimals, suffix = _of_spin_box("value", float), _of_spin_box("decimals", int), _of_spin_box("suffix", str)
    pageStep = QtCore.Property(float, lambda self: 0.0, lambda self, step: None)

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        self.slider, self.box = QtWidgets.QSlider(QtCore.Qt.Orientation.Horizontal), QtWidgets.QDoubleSpinBox()
        self.slider.setRange(0, 1000)
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.slider)
        layout.addWidget(self.box)
        self.box.valueChanged.connect(self._moved)

    def setRange(self, low: float, high: float) -> None:
        self.box.setRange(low, high)

    def setValue(self, value: float) -> None:
        self.box.setValue(value)

    def _moved(self, value: float) -> None:
        span = self.maximum - self.minimum
        self.slider.setValue(round(1000 * (value - self.minimum) / span) if span else 0)
        self.valueChanged.emit(value)


class Chooser(QtWidgets.QComboBox):
    """What the choosers of nodes and of the hierarchy's items have in common: one entry for none, then those of the scene."""

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        self._scene: Any = None
        self._offered: list[Any] = [None]
        self._later = QtCore.QTimer(self, singleShot=True, interval=0)
        self._later.timeout.connect(lambda: self._list(self._chosen()))

    def setMRMLScene(self, scene: Any) -> None:
        self._scene = scene
        for event in (scene.NodeAddedEvent, scene.NodeRemovedEvent, scene.EndBatchProcessEvent):
            scene.AddObserver(event, lambda *_: self._later.start())
        self._list(None)

    def _entries(self) -> Iterator[tuple[Any, str]]:
        """What there is to choose, and its name."""
        raise NotImplementedError

    def _chosen(self) -> Any:
        return self._offered[max(self.currentIndex, 0)]

    def _list(self, chosen: Any) -> None:
        entries = [(None, self.property("noneDisplay") or "None"), *self._entries()]
        self._offered = [entry for entry, _ in entries]
        blocked = self.blockSignals(True)
        self.clear()
        self.addItems([name for _, name in entries])
        self.setCurrentIndex(self._offered.index(chosen) if chosen in self._offered else 0)
        self.blockSignals(blocked)


class NodeChooser(Chooser):
    """Stands in for qMRMLNodeComboBox."""

    nodeActivated = QtCore.Signal(object)
    currentNodeChanged = QtCore.Signal(object)

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        self.activated.connect(lambda index: self.nodeActivated.emit(self._chosen()))
        self.currentIndexChanged.connect(lambda index: self.currentNodeChanged.emit(self._chosen()))

    def currentNode(self) -> Any:
        return self._chosen()

    def setCurrentNode(self, node: Any) -> None:
        if node not in self._offered:
            self._list(self._chosen())
        self.setCurrentIndex(self._offered.index(node))

    def _entries(self) -> Iterator[tuple[Any, str]]:
        for kind in self.property("nodeTypes") or ():
            yield from ((node, node.GetName()) for node in slicer.util.getNodesByClass(kind))


class ItemChooser(Chooser):
    """Stands in for qMRMLSubjectHierarchyComboBox."""

    currentItemChanged = QtCore.Signal(object)

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        self._levels: Any = ()
        self.currentIndexChanged.connect(lambda index: self.currentItemChanged.emit(self.currentItem()))

    def setLevelFilter(self, levels: Any) -> None:
        self._levels = levels

    def currentItem(self) -> int:
        return self._chosen() or 0

    def setCurrentItem(self, item: int) -> None:
        self._list(self._chosen())
        self.setCurrentIndex(self._offered.index(item or None))

    def _entries(self) -> Iterator[tuple[Any, str]]:
        tree, items = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(self._scene), vtkIdList()
        tree.GetItemChildren(tree.GetSceneItemID(), items, True)
        for item in map(items.GetId, range(items.GetNumberOfIds())):
            if not self._levels or tree.GetItemLevel(item) in self._levels:
                yield item, tree.GetItemName(item)


STAND_INS: dict[str, Callable[[Any], Any]] = {
    "qMRMLWidget": MRMLWidget,
    "ctkCollapsibleButton": CollapsibleButton,
    "ctkSliderWidget": SliderWidget,
    "qMRMLNodeComboBox": NodeChooser,
    "qMRMLSubjectHierarchyComboBox": ItemChooser,
}


class UiLoader(QtUiTools.QUiLoader):
    """Qt's loader with the stand-ins; it makes connections between them too."""

    def createWidget(self, name: str, parent: Any = None, object_name: str = "") -> Any:
        """A stand-in, or Qt's own widget; a class that neither knows is an error."""
        if name in STAND_INS:
            widget = STAND_INS[name](parent)
            widget.setObjectName(object_name)
            return widget
        if name not in self.availableWidgets():
            raise ValueError(f"{name} has no stand-in here")
        return super().createWidget(name, parent, object_name)

    def load(self, file: Any, parent: Any = None) -> Any:
        root = ET.fromstring(file.readAll().data())
        connections = root.findall("connections/connection")
        for part in root.findall("connections"):
            root.remove(part)
        buffer = QtCore.QBuffer()
        buffer.setData(ET.tostring(root))
        buffer.open(QtCore.QIODevice.OpenModeFlag.ReadOnly)
        window = super().load(buffer, parent)
        widgets = {
            window.objectName: window,
            **{child.objectName: child for child in window.findChildren(QtCore.QObject)},
        }
        for sender, signal, receiver, slot in ((part.text for part in list(one)[:4]) for one in connections):
            widgets[sender].connect(signal, getattr(widgets[receiver], slot.split("(")[0]))
        return window
