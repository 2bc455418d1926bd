"""The window's description: Slicer loads it, every widget gets the scene, says what it does, and is the one that the code means."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).resolve().parents[2]
MODULE = ROOT / "HCCNet"
UI = MODULE / "Resources" / "UI" / "HCCNet.ui"
PARAMETERS = MODULE / "HCCNetWindow" / "parameters.py"
WINDOW = ElementTree.parse(UI).getroot()
WIDGETS = {widget.attrib["name"]: widget for widget in WINDOW.iter("widget")}

# Widgets that Slicer's loader of .ui files makes; it drops other classes without a word, and what lies in them.
LOADABLE = {
    *(
        "QCheckBox",
        "QComboBox",
        "QDateEdit",
        "QDoubleSpinBox",
        "QFrame",
        "QGroupBox",
        "QLabel",
        "QLineEdit",
        "QListWidget",
    ),
    *(
        "QPlainTextEdit",
        "QProgressBar",
        "QPushButton",
        "QRadioButton",
        "QScrollArea",
        "QSlider",
        "QSpinBox",
        "QSplitter",
    ),
    *(
        "QStackedWidget",
        "QTabWidget",
        "QTableView",
        "QTableWidget",
        "QTextBrowser",
        "QTextEdit",
        "QToolButton",
        "QTreeView",
    ),
    *(
        "QTreeWidget",
        "QWidget",
        "ctkCheckBox",
        "ctkCheckablePushButton",
        "ctkCollapsibleButton",
        "ctkCollapsibleGroupBox",
    ),
    *(
        "ctkComboBox",
        "ctkDirectoryButton",
        "ctkDoubleSlider",
        "ctkDoubleSpinBox",
        "ctkExpandButton",
        "ctkFittedTextBrowser",
    ),
    *("ctkMenuButton", "ctkPathLineEdit", "ctkPushButton", "ctkRangeWidget", "ctkSearchBox", "ctkSliderWidget"),
    *("qMRMLCheckableNodeComboBox", "qMRMLCollapsibleButton", "qMRMLColorTableComboBox", "qMRMLNodeComboBox"),
    *("qMRMLSegmentSelectorWidget", "qMRMLSegmentsTableView", "qMRMLSliderWidget", "qMRMLSpinBox"),
    *(
        "qMRMLSubjectHierarchyComboBox",
        "qMRMLSubjectHierarchyTreeView",
        "qMRMLTableView",
        "qMRMLTreeView",
        "qMRMLWidget",
    ),
}
# What a user touches. A heading's tooltip would show over all that lies below it, so headings have none.
TOUCHED = {
    *("QCheckBox", "QComboBox", "QPlainTextEdit", "QPushButton", "QTableWidget", "QToolButton", "ctkSliderWidget"),
    *("qMRMLNodeComboBox", "qMRMLSubjectHierarchyComboBox", "QTreeWidget"),
}
FOCUSED = TOUCHED | {"ctkCollapsibleButton"}
MENU_BAR = set("fevh")  # Slicer's File, Edit, View and Help


def of_classes(classes: set[str]) -> list[str]:
    """Names of the widgets of these classes, from top to bottom."""
    return [name for name, widget in WIDGETS.items() if widget.attrib["class"] in classes]


def value(widget: ElementTree.Element, name: str) -> str | None:
    """The text of a property, None where it is not set."""
    found = widget.find(f"property[@name='{name}']")
    return None if found is None else "".join(found.itertext()).strip()


def parameters() -> dict[str, str]:
    """Widget → the parameter that it is bound to."""
    bound = {name: value(widget, "SlicerParameterName") for name, widget in WIDGETS.items()}
    return {name: parameter for name, parameter in bound.items() if parameter is not None}


def fields_of_the_parameter_node(file: Path) -> dict[str, str]:
    """Field → annotation, a name of the file replaced by what it stands for.

    Raises:
        OSError: no such file.
        ValueError: it holds no class HCCNetParameters.
    """
    body = ast.parse(file.read_text(encoding="utf-8")).body
    names = {
        target.id: ast.unparse(node.value)
        for node in body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    for node in body:
        if isinstance(node, ast.ClassDef) and node.name == "HCCNetParameters":
            fields = [f for f in node.body if isinstance(f, ast.AnnAssign) and isinstance(f.target, ast.Name)]
            told = {f.target.id: ast.unparse(f.annotation) for f in fields if isinstance(f.target, ast.Name)}
            return {field: names.get(annotation, annotation) for field, annotation in told.items()}
    raise ValueError(f"{file.name} holds no class HCCNetParameters")


def widgets_used_in(source: str) -> Iterator[str]:
    """NAME of every ``ui.NAME``, ``….ui.NAME`` and ``…._ui.NAME``."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute):
            owner = node.value
            if (isinstance(owner, ast.Attribute) and owner.attr in ("ui", "_ui")) or (
                isinstance(owner, ast.Name) and owner.id == "ui"
            ):
                yield node.attr


# ------------------------------------------------------------ Slicer can load it


def test_the_window_is_a_widget_that_hands_the_scene_on() -> None:
    top = WINDOW.find("widget")
    assert top is not None
    assert top.attrib == {"class": "qMRMLWidget", "name": "HCCNet"}
    assert WINDOW.findtext("class") == "HCCNet"


def test_every_widget_is_of_a_class_that_slicers_loader_knows() -> None:
    assert {widget.attrib["class"] for widget in WIDGETS.values()} <= LOADABLE


def test_every_class_that_is_not_qts_is_declared() -> None:
    used = {widget.attrib["class"] for widget in WIDGETS.values()}
    declared = [custom.findtext("class") for custom in WINDOW.iter("customwidget")]
    assert sorted(declared) == sorted(name for name in used if not name.startswith("Q"))


def test_every_name_is_given_once() -> None:
    named = [e.attrib["name"] for tag in ("widget", "layout", "spacer") for e in WINDOW.iter(tag)]
    assert len(named) == len(set(named))


def test_enumerations_are_written_as_both_qt_5_and_qt_6_read_them() -> None:
    written = [e.text or "" for tag in ("enum", "set") for e in WINDOW.iter(tag)]
    assert written
    assert [text for text in written for one in text.split("|") if one.count("::") != 1] == []


def test_a_sliders_range_is_set_before_its_value() -> None:
    sliders = of_classes({"ctkSliderWidget"})
    assert sliders
    for name in sliders:
        order = [p.attrib["name"] for p in WIDGETS[name].findall("property")]
        assert order.index("minimum") < order.index("maximum") < order.index("value"), name


# ------------------------------------------------------------ what is connected


def test_every_mrml_widget_gets_the_scene_from_the_window() -> None:
    connections = [
        [connection.findtext(part) for part in ("sender", "signal", "slot")] for connection in WINDOW.iter("connection")
    ]
    assert connections
    assert all(c == ["HCCNet", "mrmlSceneChanged(vtkMRMLScene*)", "setMRMLScene(vtkMRMLScene*)"] for c in connections)
    receivers = [connection.findtext("receiver") for connection in WINDOW.iter("connection")]
    expected = [name for name, widget in WIDGETS.items() if re.match("qMRML(?!Widget$)", widget.attrib["class"])]
    assert sorted(map(str, receivers)) == sorted(expected)


def test_every_label_with_a_key_moves_to_a_widget_that_exists() -> None:
    buddies = {name: value(WIDGETS[name], "buddy") for name in of_classes({"QLabel"})}
    assert {buddy for buddy in buddies.values() if buddy} <= set(of_classes(TOUCHED))
    with_key = {name for name in buddies if "&" in (value(WIDGETS[name], "text") or "")}
    assert [name for name in with_key if not buddies[name]] == []


def test_tab_moves_through_all_controls_from_top_to_bottom() -> None:
    assert [stop.text for stop in WINDOW.iter("tabstop")] == of_classes(FOCUSED)


def test_tab_leaves_tables_and_texts() -> None:
    assert {value(WIDGETS[name], "tabKeyNavigation") for name in of_classes({"QTableWidget"})} == {"false"}
    assert {value(WIDGETS[name], "tabChangesFocus") for name in of_classes({"QPlainTextEdit"})} == {"true"}


# ------------------------------------------------------------ what it says and shows


@pytest.mark.parametrize("name", of_classes(TOUCHED))
def test_every_control_says_in_a_sentence_what_it_does(name: str) -> None:
    tip = value(WIDGETS[name], "toolTip") or ""
    assert len(tip.split()) >= 3
    assert tip.endswith(".")


def test_no_key_is_given_twice_or_is_one_of_slicers_menu_bar() -> None:
    texts = [value(widget, "text") or "" for widget in WIDGETS.values()]
    keys = [text[text.index("&") + 1].lower() for text in texts if "&" in text]
    assert len(keys) == len(set(keys))
    assert not MENU_BAR & set(keys)


def test_no_colour_is_fixed_so_that_every_theme_can_be_read() -> None:
    names = {p.attrib["name"] for widget in WIDGETS.values() for p in widget.findall("property")}
    assert "palette" not in names
    styles = " ".join(value(widget, "styleSheet") or "" for widget in WIDGETS.values())
    assert not re.search(r"#[0-9a-f]{3}|rgb|hsl|hsv|color|background", styles, re.IGNORECASE)


def test_the_notice_that_this_is_research_comes_first() -> None:
    assert list(WIDGETS)[1] == "researchLabel"
    scrolled = {widget.attrib["name"] for widget in WIDGETS["scrollArea"].iter("widget")}
    assert set(WIDGETS) - scrolled == {"HCCNet", "researchLabel"}  # all else is scrolled, the notice never
    text = value(WIDGETS["researchLabel"], "text")
    assert text == "Research software, not a medical device. Not for clinical use."


@pytest.mark.parametrize(
    "name", [n for n in of_classes({"QLabel"}) if value(WIDGETS[n], "wordWrap") and not value(WIDGETS[n], "buddy")]
)
def test_a_long_word_in_a_text_never_widens_the_panel(name: str) -> None:
    policy = WIDGETS[name].find("property[@name='sizePolicy']/sizepolicy")
    assert policy is not None
    assert policy.attrib["hsizetype"] == "Ignored"


# ------------------------------------------------------------ what the code means


def test_every_parameter_that_a_control_is_bound_to_is_one_of_the_modules() -> None:
    """Slicer refuses to open the window otherwise."""
    bound = parameters()
    assert len(bound) == len(set(bound.values()))
    assert set(bound.values()) <= set(fields_of_the_parameter_node(PARAMETERS))


def test_every_parameter_of_a_slider_has_bounds() -> None:
    """Slicer refuses to open the window otherwise."""
    fields = fields_of_the_parameter_node(PARAMETERS)
    for name in set(parameters()) & set(of_classes({"ctkSliderWidget"})):
        annotation = fields[parameters()[name]]
        assert "WithinRange" in annotation or ("Minimum" in annotation and "Maximum" in annotation), name


def test_the_parameters_are_found_by_their_names(tmp_path: Path) -> None:
    file = tmp_path / "parameters.py"
    fields_in_text = "    share: Share\n    kind: str = 'a'\n    other = 1\n"
    text = f"Share = Annotated[float, WithinRange(0, 1)]\nclass HCCNetParameters:\n{fields_in_text}"
    file.write_text(text, encoding="utf-8")
    fields = fields_of_the_parameter_node(file)
    assert fields == {"share": "Annotated[float, WithinRange(0, 1)]", "kind": "str"}
    file.write_text("class Other:\n    kind: str\n", encoding="utf-8")
    with pytest.raises(ValueError, match="no class HCCNetParameters"):
        fields_of_the_parameter_node(file)


def test_the_code_uses_only_widgets_that_exist_and_every_control() -> None:
    used = {
        name: file.name
        for file in sorted(MODULE.rglob("*.py"))
        for name in widgets_used_in(file.read_text(encoding="utf-8"))
    }
    assert {name: file for name, file in used.items() if name not in WIDGETS} == {}
    unused = [name for name in of_classes(TOUCHED) if name not in used and name not in parameters()]
    assert unused == []


def test_uses_of_widgets_are_found_wherever_they_stand() -> None:
    source = (
        "self.ui.fillButton.clicked.connect(f)\nui.examTable.rowCount = 3\nwidget.ui.plotButton\nself.guide.other\n"
    )
    assert sorted(widgets_used_in(source)) == ["examTable", "fillButton", "plotButton"]


def names_of_class(name: str) -> set[str]:
    """What a running Slicer's widget of this class has."""
    inventory = json.loads((Path(__file__).parent / "slicer_names.json").read_text(encoding="utf-8"))
    room = next(inventory[room] for room in ("qt", "ctk", "slicer_widgets") if name in inventory[room])
    return set(" ".join((room[name]["names"], inventory["QWidget"], inventory["QObject"])).split())


def uses_of_widgets(source: str) -> Iterator[tuple[str, str]]:
    """(NAME, member) of every ``….ui.NAME.member``, and the signals that ``….ui.NAME.connect`` names."""
    for node in ast.walk(ast.parse(source)):
        if not (isinstance(node, ast.Attribute) and isinstance(node.value, ast.Attribute)):
            continue
        owner = node.value.value
        name = owner.attr if isinstance(owner, ast.Attribute) else owner.id if isinstance(owner, ast.Name) else ""
        if name in ("ui", "_ui"):
            yield node.value.attr, node.attr
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "connect":
            widget, signal = node.func.value, node.args[0]
            if isinstance(widget, ast.Attribute) and isinstance(signal, ast.Constant):
                yield widget.attr, str(signal.value).split("(")[0]


def test_every_widget_has_the_class_that_the_code_takes_it_for() -> None:
    """Whatever the code asks of a widget, one of its class in the window's file has."""
    wrong = [
        f"{file.name}: {name} is a {WIDGETS[name].attrib['class']} and has no {member}"
        for file in sorted(MODULE.rglob("*.py"))
        for name, member in uses_of_widgets(file.read_text(encoding="utf-8"))
        if name in WIDGETS and member not in names_of_class(WIDGETS[name].attrib["class"])
    ]
    assert wrong == []


def test_what_a_widget_s_class_does_not_have_is_found() -> None:
    source = (
        "self._ui.predictButton.setRange(1)\nui.examTable.connect('clicked()', f)\nself.ui.progressBar.setValue(3)\n"
    )
    asked = list(uses_of_widgets(source))
    assert {("predictButton", "setRange"), ("progressBar", "setValue"), ("examTable", "clicked")} <= set(asked)
    assert "setRange" not in names_of_class("QPushButton")
    assert "setValue" in names_of_class("QProgressBar")
