"""Which of Slicer's names the module's code uses, and whether Slicer has them: no other test can tell without Slicer.

MRML and VTK classes are asked themselves (package slicer-core); what only a running Slicer has (qt, ctk, its widgets, the
application) is looked up in an inventory that was taken in one.
"""

from __future__ import annotations

import ast
import functools
import importlib
import json
import logging
import re
import types
import unittest
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import slicer
import vtk

CALL = "()"
LIBRARIES = ("slicer", "qt", "ctk", "vtk", "SampleData")
WIDGETS = ("qt", "ctk", "slicer_widgets")
SUBMODULES = ("ScriptedLoadableModule", "i18n", "packaging", "parameterNodeWrapper", "testing", "util")

# Names that the inventory can't hold, because what has them was not in the Slicer it was taken from, or because it lists no
# static methods; and where they were read instead.
READ_IN_SOURCES = {
    "SampleData.SampleDataLogic.registerCustomSampleDataSource": "Modules/Scripted/SampleData/SampleData.py",
    **dict.fromkeys(
        ("customDownloader", "sampleDataSourcesByCategory", "sampleName"), "Modules/Scripted/SampleData/SampleData.py"
    ),
    "instanceValue": "CTK: Libs/DICOM/Core/ctkDICOMDatabase.h",
    "installTorch": "extension PyTorch (SlicerPyTorch): PyTorchUtils/PyTorchUtils.py",
    **dict.fromkeys(
        (
            *("displayedNameForPatient", "fieldForPatient", "fieldForSeries", "fieldForStudy", "filesForSeries"),
            *("instancesForSeries", "nameForPatient", "seriesForStudy", "studiesForPatient"),
        ),
        "CTK: Libs/DICOM/Core/ctkDICOMDatabase.h",
    ),
    "connectGui": "Base/Python/slicer/parameterNodeWrapper/wrapper.py",
    "disconnectGui": "Base/Python/slicer/parameterNodeWrapper/wrapper.py",
    "qt.QObject.__init__": "Modules/Scripted/SampleData/SampleData.py",
    # Windows' own, by ctypes.
    "AssignProcessToJobObject": "Windows: kernel32",
    "CloseHandle": "Windows: kernel32",
    "CreateJobObjectW": "Windows: kernel32",
    "TerminateJobObject": "Windows: kernel32",
}

_OF_VTK = re.compile(r"[A-Z][A-Z0-9]*[a-z]\w*")  # GetID, not a constant
_OF_QT = re.compile(r"[a-z][a-z0-9]*[A-Z]\w*")
_SIGNAL = re.compile(r"(\w+)\(.*\)")
_CLASS = re.compile(r"vtk[A-Z]\w+")
# The only parts of Python's library with names like Qt's.
_OF_PYTHON = frozenset(
    name
    for part in (unittest.TestCase, unittest.TestLoader, unittest.TestSuite, unittest.TestResult(), logging.Logger)
    for name in dir(part)
)
_DESIGNER = {"Line": "QFrame"}  # what Qt Designer calls by a name of its own


@dataclass(frozen=True, order=True)
class Problem:
    """A name that Slicer does not have."""

    name: str
    where: str
    message: str

    def __str__(self) -> str:
        return f"{self.where}: {self.message}"


@dataclass
class Uses:
    """What some code uses: names from a library on, members of objects of unknown type, signals, classes in texts."""

    chains: list[tuple[tuple[str, ...], str]] = field(default_factory=list)
    members: list[tuple[str, str]] = field(default_factory=list)
    signals: list[tuple[str, tuple[str, ...], str]] = field(default_factory=list)
    classes: list[tuple[str, str]] = field(default_factory=list)
    widgets: list[tuple[str, str, str]] = field(default_factory=list)  # of a .ui: class, property, place

    def add(self, other: Uses) -> None:
        """Takes in what other code uses."""
        for name, values in other.__dict__.items():
            getattr(self, name).extend(values)


# ------------------------------------------------------------ what the code uses


def uses_of(source: str, file: str, own: frozenset[str] = frozenset()) -> Uses:
    """What a Python file uses.

    Args:
        source: its text.
        file: what problems call it.
        own: names that the project defines: they are nobody else's.
    """
    tree = ast.parse(source)
    collector = _Collector(file, tree, own | defined_in(tree))
    collector.visit(tree)
    return collector.uses


def defined_in(tree: ast.AST) -> frozenset[str]:
    """The names that a file gives to functions, classes, variables and attributes of ``self``."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and _is_self(node.value):
            names.add(node.attr)
    return frozenset(names)


def _is_self(node: ast.AST) -> bool:
    return isinstance(node, ast.Name) and node.id in ("self", "cls")


class _Collector(ast.NodeVisitor):
    def __init__(self, file: str, tree: ast.AST, own: frozenset[str]) -> None:
        self.uses = Uses()
        self._file = file
        self._own = own
        self._bound: dict[str, tuple[str, ...]] = {}  # names that a library gave
        self._foreign: set[str] = set()  # names that any other import gave
        for node in ast.walk(tree):  # imports inside functions too, before they are met
            if isinstance(node, ast.Import):
                self._bind_import(node)
            elif isinstance(node, ast.ImportFrom):
                self._bind_import_from(node)

    def _where(self, node: ast.AST) -> str:
        return f"{self._file}:{getattr(node, 'lineno', 0)}"

    def _bind_import(self, node: ast.Import) -> None:
        for alias in node.names:
            steps = tuple(alias.name.split("."))
            bound = alias.asname or steps[0]
            if steps[0] in LIBRARIES:
                self._bound[bound] = steps if alias.asname else steps[:1]
                self.uses.chains.append((steps, self._where(node)))
            else:
                self._foreign.add(bound)

    def _bind_import_from(self, node: ast.ImportFrom) -> None:
        module = tuple((node.module or "").split("."))
        for alias in node.names:
            if module[0] not in LIBRARIES:
                self._foreign.add(alias.asname or alias.name)
                continue
            steps = module if alias.name == "*" else (*module, alias.name)
            self.uses.chains.append((steps, self._where(node)))
            if alias.name != "*":
                self._bound[alias.asname or alias.name] = steps

    def visit_Constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, str) and _CLASS.fullmatch(node.value):
            self.uses.classes.append((node.value, self._where(node)))

    def visit_Name(self, node: ast.Name) -> None:
        self._take_chain(node)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        self._take_chain(node)

    def visit_Call(self, node: ast.Call) -> None:
        self._take_chain(node)

    def _take_chain(self, node: ast.expr) -> None:
        """``a.b(c).d`` as a whole; then what stands in it, here c."""
        steps, root, inside, calls = _unroll(node)
        if root in self._bound:
            steps = (*self._bound[root], *steps)
            self.uses.chains.append((steps, self._where(node)))
        elif root in self._foreign:
            # What another package has is its business; what its functions give may be a node.
            after = steps[steps.index(CALL) :] if CALL in steps else ()
            self._take_members(after, node)
        else:
            self._take_members(steps, node)
        if root not in self._foreign:
            for call in calls:
                self._take_signal(call)
        for other in inside:
            self.visit(other)

    def _take_members(self, steps: Iterable[str], node: ast.AST) -> None:
        for step in steps:
            if step != CALL and step not in self._own:
                self.uses.members.append((step, self._where(node)))

    def _take_signal(self, call: ast.Call) -> None:
        """``x.connect("clicked()", f)`` and ``x.clicked.connect(f)``."""
        function = call.func
        if not (isinstance(function, ast.Attribute) and function.attr in ("connect", "disconnect")):
            return
        texts = [a.value for a in call.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
        steps, root, _, _ = _unroll(function.value)
        sender = (*self._bound[root], *steps) if root in self._bound else ()
        if texts:
            self.uses.signals += [(text, sender, self._where(call)) for text in texts]
        elif call.args and isinstance(function.value, ast.Attribute):
            self.uses.signals.append((f"{function.value.attr}()", sender[:-1], self._where(call)))


def _unroll(node: ast.expr) -> tuple[tuple[str, ...], str, list[ast.AST], list[ast.Call]]:
    """Steps from the name at the root on; that name, empty where there is none; what else stands in it; the calls."""
    steps: list[str] = []
    inside: list[ast.AST] = []
    calls: list[ast.Call] = []
    while isinstance(node, ast.Attribute | ast.Call):
        if isinstance(node, ast.Attribute):
            steps.append(node.attr)
            node = node.value
        else:
            steps.append(CALL)
            calls.append(node)
            inside += [*node.args, *node.keywords]
            node = node.func
    root = node.id if isinstance(node, ast.Name) else ""
    return tuple(reversed(steps)), root, inside if root else [*inside, node], calls


def uses_of_ui(text: str, file: str) -> Uses:
    """What a .ui file uses: classes and their properties, signals and slots."""
    uses, root = Uses(), ElementTree.fromstring(text)
    for widget in root.iter("widget"):
        cls = _DESIGNER.get(widget.get("class", ""), widget.get("class", ""))
        uses.widgets.append((cls, "", f"{file}: {widget.get('name')}"))
        for entry in widget.findall("property"):
            if entry.get("stdset") != "0":  # a property that is made for this one widget
                uses.widgets.append((cls, entry.get("name", ""), f"{file}: {widget.get('name')}"))
    for connection in root.iter("connection"):
        for tag in ("signal", "slot"):
            uses.signals.append((connection.findtext(tag, ""), (), f"{file}: connection"))
    return uses


def names_in_ui(text: str) -> frozenset[str]:
    """The names of a .ui file's widgets, which the code finds as attributes."""
    return frozenset(widget.get("name", "") for widget in ElementTree.fromstring(text).iter("widget"))


# ------------------------------------------------------------ what Slicer has


class Names:
    """What Slicer has.

    A place is what a chain of names has come to: a dict (what is not in it is not there), a real class or module, or None
    (unknown type). The entry ``()`` of a dict is what a call gives.

    Args:
        inventory: as in slicer_names.json, or the one it was taken from.
        own_modules: Slicer modules of this project.
    """

    def __init__(self, inventory: Mapping[str, Any], own_modules: Iterable[str] = ("HCCNet",)) -> None:
        self._inventory = inventory
        self._own_modules = tuple(own_modules)
        self.of_qt = self._all_names()
        self.of_vtk = _names_of_real_classes() | self.of_qt

    def problems(self, uses: Uses) -> list[Problem]:
        """What is used and not there."""
        found = [
            *(p for steps, where in uses.chains for p in self._chain_problems(steps, where)),
            *(p for name, where in uses.members for p in self._member_problems(name, where)),
            *(p for text, sender, where in uses.signals for p in self._signal_problems(text, sender, where)),
            *(p for name, where in uses.classes for p in self._class_problems(name, where)),
            *(p for cls, name, where in uses.widgets for p in self._widget_problems(cls, name, where)),
        ]
        return sorted(set(found))

    def widget(self, name: str) -> dict[str, Any] | None:
        """The class of a widget with all that it inherits, None where it is not there."""
        for section in WIDGETS:
            if name in self._inventory.get(section, {}):
                return self._class(section, name)
        return None

    # ------------------------------------------------------------ problems

    def _chain_problems(self, steps: tuple[str, ...], where: str) -> Iterator[Problem]:
        place: Any = self._roots
        for number, step in enumerate(steps):
            if place is None:
                for member in steps[number:]:
                    if member != CALL:
                        yield from self._member_problems(member, where)
                return
            try:
                place = _go(place, step)
            except KeyError:
                name = _written(steps[: number + 1])
                yield Problem(name, where, f"Slicer has no {name}")
                return

    def _member_problems(self, name: str, where: str) -> Iterator[Problem]:
        if _OF_VTK.fullmatch(name) and name not in self.of_vtk:
            yield Problem(name, where, f"no class of VTK, MRML or Qt has {name}")
        elif _OF_QT.fullmatch(name) and name not in self.of_qt | _OF_PYTHON:
            yield Problem(name, where, f"no class of Qt, CTK or Slicer has {name}")

    def _signal_problems(self, text: str, sender: tuple[str, ...], where: str) -> Iterator[Problem]:
        match = _SIGNAL.fullmatch(text)
        if match is None:
            yield Problem(text, where, f'a signal is written with its types, like "clicked(bool)": "{text}" is not')
            return
        place: Any = self._roots if sender else None
        try:
            for step in sender:
                place = None if place is None else _go(place, step)
        except KeyError:
            return  # told already
        names = place if isinstance(place, dict) else self.of_qt
        if match[1] not in names:
            whose = _written(sender) if isinstance(place, dict) else "any class of Qt, CTK or Slicer"
            yield Problem(match[1], where, f'"{text}" is no signal of {whose}')

    def _class_problems(self, name: str, where: str) -> Iterator[Problem]:
        if not (hasattr(slicer, name) or hasattr(vtk, name) or name in self._inventory.get("slicer_names", ())):
            yield Problem(name, where, f"there is no class {name}")

    def _widget_problems(self, cls: str, name: str, where: str) -> Iterator[Problem]:
        members = self.widget(cls)
        if members is None:
            yield Problem(cls, where, f"Slicer has no widget {cls}")
        elif name and name not in members:
            yield Problem(f"{cls}.{name}", where, f"{cls} has no property {name}")

    # ------------------------------------------------------------ the tree of places

    @functools.cached_property
    def _roots(self) -> dict[str, Any]:
        sample_data = {"SampleDataLogic": _closed(self._inventory.get("SampleData", {}))}
        return {
            "qt": {name: self._class("qt", name) for name in self._inventory.get("qt", {})},
            "ctk": {name: self._class("ctk", name) for name in self._inventory.get("ctk", {})},
            "vtk": vtk,
            "SampleData": sample_data,
            "slicer": self._slicer(),
        }

    def _slicer(self) -> dict[str, Any]:
        inventory = self._inventory
        places: dict[str, Any] = dict.fromkeys(_names(inventory.get("slicer_names", ())))
        places |= {name: self._class("slicer_widgets", name) for name in inventory.get("slicer_widgets", {})}
        places |= {name: getattr(slicer, name) for name in dir(slicer) if name.startswith("vtk")}
        places["mrmlScene"] = slicer.vtkMRMLScene
        places["app"] = self._instance("slicer.app", inventory.get("slicer.app", ()))
        places["modules"] = self._modules()
        for name in SUBMODULES:
            if f"slicer.{name}" in inventory:
                places[name] = self._submodule(f"slicer.{name}", inventory[f"slicer.{name}"])
        return places

    def _submodule(self, name: str, content: Mapping[str, Any]) -> dict[str, Any]:
        """Functions, whose results may be known, and classes with their members."""
        places = self._instance(name, content)
        for key, members in content.items():
            if members and not (isinstance(members, str) and members.startswith("(")):  # no signature: a class
                places[key] = _closed(members)
        return places

    def _modules(self) -> dict[str, Any]:
        module = self._class("slicer_widgets", "qSlicerLoadableModule")
        places: dict[str, Any] = {}
        for name, entry in self._inventory.get("slicer.modules", {}).items():
            logic = _names(entry["logic_names"] or ())
            places[name] = {**module, "logic": {CALL: dict.fromkeys(logic)}} if logic else None
        for name in self._own_modules:
            places |= {name.lower(): None, f"{name}Widget": None, f"{name}Instance": None}
        return places

    def _instance(self, name: str, members: Iterable[str]) -> dict[str, Any]:
        """An object with its members; what ``name.member()`` gives is known where the inventory has that."""
        places: dict[str, Any] = dict.fromkeys(_names(members))
        for written, names in self._inventory.get("instances", {}).items():
            owner, _, member = written.removesuffix(CALL).rpartition(".")
            if owner == name and written.endswith(CALL) and member in places:
                places[member] = {CALL: dict.fromkeys(_names(names))}
        return places

    def _class(self, section: str, name: str) -> dict[str, Any]:
        entry = self._inventory.get(section, {}).get(name)
        if entry is None:
            return {}
        above = {"QWidget": ("QWidget", "QObject"), "QObject": ("QObject",)}.get(entry["is"], ())
        inherited = [name for cls in above for name in _names(self._inventory.get(cls, ()))]
        return _closed([*_names(entry["names"]), *inherited])

    def _all_names(self) -> frozenset[str]:
        """Every name of Qt, CTK, Slicer's widgets, application and Python helpers, whoever has it."""
        inventory, names = self._inventory, set()
        for section in ("QObject", "QWidget", "slicer.app", "SampleData", "elsewhere"):
            names |= set(_names(inventory.get(section, ())))
        for section in WIDGETS:
            for entry in inventory.get(section, {}).values():
                names |= set(_names(entry["names"]))
        for members in inventory.get("instances", {}).values():
            names |= set(_names(members))
        for section in SUBMODULES:
            for members in inventory.get(f"slicer.{section}", {}).values():
                if members and not (isinstance(members, str) and members.startswith("(")):
                    names |= set(_names(members))
        return frozenset(names)


def _names(names: Iterable[str] | str) -> list[str]:
    """Names as a list; slicer_names.json has them as one text."""
    return names.split() if isinstance(names, str) else list(names)


def _closed(names: Iterable[str] | str) -> dict[str, Any]:
    """A class: it has these members, and so has what its call gives."""
    place: dict[str, Any] = dict.fromkeys(_names(names))
    place[CALL] = place
    return place


def _go(place: Any, step: str) -> Any:
    if isinstance(place, dict):
        return place.get(CALL) if step == CALL else place[step]
    if step == CALL:
        return place if isinstance(place, type) else None
    if not hasattr(place, step) and not _import_part(place, step):
        raise KeyError(step)
    value = getattr(place, step)
    return value if isinstance(value, type | types.ModuleType) else None


def _import_part(place: Any, name: str) -> bool:
    """Whether a package has a module of this name, e.g. vtk.util, which is there once it was imported."""
    if not hasattr(place, "__path__"):
        return False
    try:
        importlib.import_module(f"{place.__name__}.{name}")
    except ImportError:
        return False
    return True


def _written(steps: Iterable[str]) -> str:
    return ".".join(steps).replace(f".{CALL}", CALL)


@functools.cache
def _names_of_real_classes() -> frozenset[str]:
    """Members of all classes of VTK and MRML, and the classes."""
    classes = [value for library in (slicer, vtk) for value in vars(library).values() if isinstance(value, type)]
    return frozenset({name for cls in classes for name in dir(cls)} | {cls.__name__ for cls in classes})


# ------------------------------------------------------------ this project's code


ROOT = Path(__file__).resolve().parents[2]
INVENTORY = Path(__file__).with_name("slicer_names.json")


def read_inventory() -> dict[str, Any]:
    """The part of the inventory that the code uses."""
    content: dict[str, Any] = json.loads(INVENTORY.read_text(encoding="utf-8"))
    return content


def scripts() -> list[Path]:
    """All code that Slicer runs: the module, and its tests inside Slicer."""
    return sorted([*(ROOT / "HCCNet").rglob("*.py"), *(ROOT / "Testing" / "slicer").glob("*.py")])


def uses_of_project() -> Uses:
    """All that the project's code and windows use."""
    windows = sorted((ROOT / "HCCNet").rglob("*.ui"))
    texts = {path: path.read_text(encoding="utf-8") for path in [*windows, *scripts()]}
    library = [path.read_text(encoding="utf-8") for path in (ROOT / "HCCNetLib").rglob("*.py")]
    own = frozenset().union(
        *(names_in_ui(texts[path]) for path in windows),
        *(defined_in(ast.parse(text)) for text in [*library, *(texts[path] for path in scripts())]),
    )
    uses = Uses()
    for path, text in texts.items():
        file = path.relative_to(ROOT).as_posix()
        uses.add(uses_of_ui(text, file) if path.suffix == ".ui" else uses_of(text, file, own))
    return uses
