"""Pictures of the module in use, drawn by its real code without Slicer: the window's states, and the views beside it.

    python Testing/window/draw_window.py FOLDER [--widths 390 560] [--scales 1 1.5 2] [--themes light dark]

Needs PySide6-Essentials, which is no dependency of the project, in a virtual environment of its own from which the project's
packages can be imported too; not 6.12 with Python 3.11, where it miscounts references. Nodes, logics and rendering are
slicer-core's, the worker is the real one; Slicer's and CTK's widgets are stand-ins. Writes STATE-WIDTH-SCALE-THEME.png,
views-module.png, views-usual.png and screen.png into FOLDER, prints the smallest width that the panel can have in each state,
and fails where that is more than the width asked for.
"""
# ruff: noqa: N802, N815 - Slicer's and Qt's names

from __future__ import annotations

import argparse
import importlib
import itertools
import os
import sys
import tempfile
import time
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
os.environ.setdefault("VTK_DEFAULT_OPENGL_WINDOW", "vtkEGLRenderWindow")
ROOT = Path(__file__).resolve().parents[2]
MODULE = ROOT / "HCCNet"
sys.path[:0] = [str(MODULE), str(ROOT / "Testing" / "mrml"), str(ROOT / "Testing" / "slicer")]

import pythonqt  # noqa: E402
import slicer  # noqa: E402
import slicer.util  # noqa: E402
import slicer_fakes  # noqa: E402
from offscreen_views import LayoutManager  # noqa: E402
from PySide6 import QtCore, QtWidgets  # noqa: E402

SECONDS = 180  # that a prediction may take


class Application(QtWidgets.QApplication):
    """slicer.app on a real scene."""

    startupCompleted = QtCore.Signal()

    def __init__(self, scene: Any, temporary: str) -> None:
        super().__init__(["draw_window"])
        self.temporaryPath = temporary
        self.setStyle(pythonqt.Style("fusion"))
        self._size = self.font().pointSizeF()
        self._logic = slicer.vtkSlicerApplicationLogic()
        self._logic.SetHomeDirectory(temporary)
        self._logic.SetShareDirectory("share")
        self._logic.SetMRMLScene(scene)
        slicer.modules = module_logics(scene, self._logic)  # which the views need
        self._layouts = LayoutManager(scene, self._logic)

    def applicationLogic(self) -> Any:
        return self._logic

    def layoutManager(self) -> LayoutManager:
        return self._layouts

    def pauseRender(self) -> None:
        self._layouts.pauseRender()

    def resumeRender(self) -> None:
        self._layouts.resumeRender()

    def wear(self, scale: float, theme: str) -> None:
        """Takes a size of the writing and Slicer's colours."""
        font = self.font()
        font.setPointSizeF(scale * self._size)
        self.setFont(font)
        self.setPalette(pythonqt.palette(self.style().standardPalette(), theme))


class ModuleWidget:
    """ScriptedLoadableModuleWidget: a parent with a layout, into which the module puts its window."""

    def __init__(self, parent: Any = None) -> None:
        self.parent = parent or pythonqt.MRMLWidget()
        self.layout = QtWidgets.QVBoxLayout(self.parent)
        self.layout.setContentsMargins(0, 0, 0, 0)

    def setup(self) -> None:
        pass

    def resourcePath(self, name: str) -> str:
        return str(MODULE / "Resources" / name)


def parameter_node_wrapper(cls: type) -> type:
    """As Slicer's: what is set is kept in the node, and widgets that name a parameter show it and set it."""

    class Wrapped(slicer_fakes.parameter_node_wrapper(cls)):  # type: ignore[misc]
        def connectGui(self, ui: Any) -> list[Any]:
            found = {widget.property("SlicerParameterName"): widget for widget in vars(ui).values()}
            made = [_Tie(self, name, widget) for name, widget in found.items() if name]
            tag = self.node.AddObserver("ModifiedEvent", lambda *_: [tie.show() for tie in made])
            return [tag, *made]

        def disconnectGui(self, tag: list[Any]) -> None:
            self.node.RemoveObserver(tag[0])
            for tie in tag[1:]:
                tie.end()

    return Wrapped


class _Tie:
    """Holds a widget and a parameter to one value."""

    def __init__(self, parameters: Any, name: str, widget: Any) -> None:
        self._parameters, self._name, self._widget = parameters, name, widget
        is_slider = isinstance(widget, pythonqt.SliderWidget)
        self._property, self._signal = ("value", "valueChanged(double)") if is_slider else ("checked", "toggled(bool)")
        self.show()
        widget.connect(self._signal, self.take)

    def show(self) -> None:
        setattr(self._widget, self._property, getattr(self._parameters, self._name))

    def take(self, value: Any) -> None:
        setattr(self._parameters, self._name, value)

    def end(self) -> None:
        self._widget.disconnect(self._signal, self.take)


def module_logics(scene: Any, application: Any) -> Any:
    """slicer.modules with the real logics of the modules that are loaded in every Slicer."""
    logics = {
        "colors": slicer.vtkSlicerColorLogic(),
        "volumes": slicer.vtkSlicerVolumesLogic(),
        "segmentations": slicer.vtkSlicerSegmentationsModuleLogic(),
        "markups": slicer.vtkSlicerMarkupsLogic(),
        "tables": slicer.vtkSlicerTablesLogic(),
        "plots": slicer.vtkSlicerPlotsLogic(),
    }
    for name, logic in logics.items():
        logic.SetMRMLApplicationLogic(application)
        logic.SetMRMLScene(scene)
        application.SetModuleLogic(name.capitalize(), logic)
    return types.SimpleNamespace(**{n: types.SimpleNamespace(logic=lambda it=it: it) for n, it in logics.items()})


def start_slicer(temporary: str) -> Application:
    """Puts everything that the module uses of Slicer into this Python."""
    qt = pythonqt.make_qt()
    qt.QSettings.setDefaultFormat(qt.QSettings.IniFormat)
    qt.QSettings.setPath(qt.QSettings.IniFormat, qt.QSettings.UserScope, temporary)
    sys.modules.update({**slicer_fakes.modules(), "qt": qt, "ctk": types.ModuleType("ctk")})
    sys.modules["slicer.ScriptedLoadableModule"].ScriptedLoadableModuleWidget = ModuleWidget  # type: ignore[attr-defined]
    sys.modules["slicer.parameterNodeWrapper"].parameterNodeWrapper = parameter_node_wrapper  # type: ignore[attr-defined]
    for name, widget in pythonqt.STAND_INS.items():
        setattr(sys.modules["ctk"] if name.startswith("ctk") else slicer, name, widget)
    utilities = {"mimeDataToSubjectHierarchyItemIDs": lambda self, data, ids: None}  # nothing is dragged here
    slicer.qMRMLUtils = type("qMRMLUtils", (), utilities)
    slicer.util.mainWindow = lambda: None
    slicer.mrmlScene = slicer.vtkMRMLScene()
    slicer.app = Application(slicer.mrmlScene, temporary)
    return slicer.app


def spin(until: Callable[[], bool], seconds: float) -> bool:
    """Lets Qt work until something is so, and whether it came to that in time."""
    end = time.monotonic() + seconds
    while not until() and time.monotonic() < end:
        QtWidgets.QApplication.processEvents()
        time.sleep(0.01)
    return until()


def settle() -> None:
    """Lets timers go off and views draw themselves."""
    spin(lambda: False, 0.8)


def make_window() -> Any:
    """The module's window, as Slicer makes it when the user opens the module."""
    window = importlib.import_module("HCCNet").HCCNetWidget()
    window.setup()
    window.enter()
    window.parent.show()
    settle()
    return window


def draw(panel: Any, width: int, file: Path) -> int:
    """Writes a picture of a whole panel, however tall, and returns the smallest width that it can have."""
    areas = [area for area in panel.findChildren(QtWidgets.QScrollArea) if area.isVisible()]
    panel.resize(width, 300)
    for _ in range(4):
        QtWidgets.QApplication.processEvents()
        layout, hidden = panel.layout(), sum(area.verticalScrollBar().maximum for area in areas)
        panel.resize(
            width, max(panel.height + hidden, layout.totalHeightForWidth(width), layout.totalMinimumSize().height())
        )
    QtWidgets.QApplication.processEvents()
    panel.grab().save(str(file))
    bar = panel.style().pixelMetric(QtWidgets.QStyle.PixelMetric.PM_ScrollBarExtent)
    inner = [area.widget().minimumSizeHint.width() + bar + panel.width - area.viewport().width for area in areas]
    return max([panel.layout().totalMinimumSize().width(), *inner])


class Photographer:
    """Draws states of the panel into a folder.

    Args:
        application: whose fonts and colours change.
        wanted: the arguments.
    """

    def __init__(self, application: Application, wanted: argparse.Namespace) -> None:
        self._application, self._wanted = application, wanted
        self._looks = list(itertools.product(wanted.scales, wanted.themes))
        self.too_wide: list[Path] = []
        application.wear(*self._looks[0])

    def draw(self, state: str, window: Any, all_looks: bool = False) -> None:
        """Draws the window in one look, or in all: for every other one, a window is made anew for the same scene."""
        widths = self._wanted.widths if all_looks else self._wanted.widths[:1]
        for look in self._looks if all_looks else self._looks[:1]:
            self._application.wear(*look)
            shown = window if look == self._looks[0] else make_window()
            for width in widths:
                self._draw(shown, width, look[0], f"{state}-{width}-{look[0]:g}-{look[1]}.png")
            if shown is not window:
                shown.cleanup()
                shown.parent.hide()
        self._application.wear(*self._looks[0])

    def _draw(self, window: Any, width: int, scale: float, name: str) -> None:
        file = self._wanted.folder / name
        smallest = draw(window.parent, width, file)
        print(f"{file}: can be as narrow as {smallest} px", flush=True)
        if smallest > width and scale == 1:
            self.too_wide.append(file)

    def draw_views(self, views: LayoutManager) -> None:
        """Draws the views area as the module has left it, and in the usual layout."""
        layouts = {"module": views.layout, "usual": slicer.vtkMRMLLayoutNode.SlicerLayoutConventionalView}
        for name, layout in layouts.items():
            views.setLayout(layout)
            settle()
            views.viewport().grab().save(str(self._wanted.folder / f"views-{name}.png"))
        views.setLayout(layouts["module"])

    def draw_screen(self, panel: Any, viewport: Any) -> None:
        """Draws panel and views as Slicer's main window has them; they stay there."""
        help_button = pythonqt.CollapsibleButton()
        help_button.setText("Help && Acknowledgement")
        help_button.setCollapsed(True)
        left, area, screen = QtWidgets.QWidget(), QtWidgets.QScrollArea(), QtWidgets.QWidget()
        self._screen = screen  # which owns them now
        column, row = QtWidgets.QVBoxLayout(left), QtWidgets.QHBoxLayout(screen)
        for layout in (column, row):
            layout.setContentsMargins(0, 0, 0, 0)
        column.addWidget(help_button)
        column.addWidget(panel, 1)
        area.setWidgetResizable(True)
        area.setFrameShape(QtWidgets.QFrame.Shape.NoFrame)
        area.setHorizontalScrollBarPolicy(QtCore.Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        area.setWidget(left)
        area.setFixedWidth(max(self._wanted.widths[0], panel.minimumSizeHint.width()))
        row.addWidget(area)
        row.addWidget(viewport, 1)
        screen.resize(area.minimumWidth + self._wanted.views[0], self._wanted.views[1])
        screen.show()
        settle()
        screen.grab().save(str(self._wanted.folder / "screen.png"))


def use_module(application: Application, wanted: argparse.Namespace) -> Sequence[Path]:
    """Goes through the module as a user does and draws what there is to see; the pictures that are too wide."""
    photographer, views = Photographer(application, wanted), application.layoutManager()
    views.viewport().resize(*wanted.views)
    views.viewport().show()
    window = make_window()
    photographer.draw("empty", window)
    pythonqt.FileDialog.answer = str(wanted.patient)
    window.ui.addFolderButton.click()
    window.ui.fillButton.click()
    settle()
    photographer.draw("exams", window, all_looks=True)
    fail(window.ui, Path(application.temporaryPath))
    photographer.draw("error", window)
    predict(window, lambda: photographer.draw("running", window))
    photographer.draw("result", window, all_looks=True)
    photographer.draw_views(views)
    window.ui.advancedCollapsibleButton.collapsed = False
    window.ui.setupButton.click()
    photographer.draw("advanced", window)
    window.ui.advancedCollapsibleButton.collapsed = True
    photographer.draw_screen(window.parent, views.viewport())
    window.cleanup()
    return photographer.too_wide


def fail(ui: Any, folder: Path) -> None:
    """Predicts with a worker that crashes when it imports torch, and opens the details of the error."""
    (folder / "torch.py").write_text("import os, sys\nprint('Illegal instruction', file=sys.stderr)\nos._exit(132)\n")
    os.environ["PYTHONPATH"] = str(folder)
    ui.predictButton.click()
    if not spin(lambda: ui.errorLabel.visible, SECONDS):
        raise SystemExit("The module did not tell that its worker died.")
    ui.errorDetailsButton.click()
    settle()
    del os.environ["PYTHONPATH"]
    ui.endWorkerButton.click()


def predict(window: Any, meanwhile: Callable[[], None]) -> None:
    """Predicts, and does something as soon as the worker tells how far it is."""
    ui = window.ui
    ui.predictButton.click()
    spin(lambda: ui.progressBar.value > 0 or ui.errorLabel.visible, SECONDS)
    meanwhile()
    is_over = spin(lambda: window.result.result is not None or ui.errorLabel.visible, SECONDS)
    settle()
    if not is_over or ui.errorLabel.visible:
        said = ui.errorLabel.text, ui.errorDetailsText.plainText
        raise SystemExit("\n".join(said) if is_over else f"No end after {SECONDS} s: {ui.statusLabel.text}")


def size(text: str) -> tuple[int, int]:
    """A size, from 1300x800."""
    width, height = map(int, text.split("x"))
    return width, height


def main() -> None:
    """Draws everything."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--widths", type=int, nargs="+", default=[390, 560])
    parser.add_argument("--scales", type=float, nargs="+", default=[1, 1.5, 2], help="of the writing")
    parser.add_argument("--themes", nargs="+", choices=pythonqt.THEMES, default=pythonqt.THEMES)
    parser.add_argument("--patient", type=Path, default=ROOT / "HCCNetLib" / "samples" / "RA01")
    parser.add_argument("--views", type=size, default=(1300, 800), help="size of the views area, e.g. 1300x800")
    wanted = parser.parse_args()
    wanted.folder.mkdir(parents=True, exist_ok=True)
    bugs: list[Any] = []
    noise = "propagateSizeHints"  # of Qt without a screen
    QtCore.qInstallMessageHandler(lambda kind, place, text: None if noise in text else print(text, file=sys.stderr))
    # Of slots too, after which Qt goes on.
    sys.excepthook = lambda *error: (bugs.append(error), sys.__excepthook__(*error))
    with tempfile.TemporaryDirectory() as temporary:
        too_wide = use_module(start_slicer(temporary), wanted)
    for file in too_wide:
        print(f"{file} is narrower than the panel can be.", flush=True)
    os._exit(bool(bugs or too_wide))  # VTK's and Qt's objects know of no order in which to end


if __name__ == "__main__":
    main()
