"""Every name of Slicer's that the module uses is one that Slicer has; and the checker that tells so finds what is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import update_slicer_names
from name_checker import (
    CALL,
    READ_IN_SOURCES,
    Names,
    Problem,
    Uses,
    read_inventory,
    uses_of,
    uses_of_project,
    uses_of_ui,
)

SMALL: dict[str, Any] = {
    "QObject": ["connect", "setProperty"],
    "QWidget": ["setToolTip", "toolTip", "visible"],
    "qt": {
        "QPushButton": {"is": "QWidget", "names": ["clicked", "setText", "text"]},
        "QComboBox": {"is": "QWidget", "names": ["activated", "currentIndexChanged", "setCurrentIndex"]},
        "QTimer": {"is": "QObject", "names": ["setInterval", "singleShot", "timeout"]},
        "Qt": {"is": None, "names": ["AlignLeft"]},
    },
    "ctk": {"ctkSliderWidget": {"is": "QWidget", "names": ["decimals", "valueChanged"]}},
    "slicer_widgets": {
        "qMRMLNodeComboBox": {"is": "QWidget", "names": ["currentNodeChanged", "setMRMLScene", "nodeTypes"]},
        "qMRMLWidget": {"is": "QWidget", "names": ["mrmlSceneChanged"]},
        "qSlicerLoadableModule": {"is": "QObject", "names": ["widgetRepresentation", "logic"]},
    },
    "slicer.util": {"pip_install": "(requirements)", "VTKObservationMixin": ["addObserver"], "mainWindow": "()"},
    "slicer.i18n": {"tr": "(text)"},
    "slicer.app": ["connect", "layoutManager", "processEvents", "startupCompleted"],
    "slicer.modules": {
        "colors": {"logic_names": ["AddDefaultColorLegendDisplayNode"]},
        "sampleDataSources": {"logic_names": None},
    },
    "instances": {
        "slicer.app.layoutManager()": ["sliceViewNames", "sliceWidget"],
        "x.sliceView()": ["cornerAnnotation", "sliceView"],
    },
    "slicer_names": ["app", "modules", "mrmlScene", "util"],
}

IMPORTS = "import ctk, qt, slicer, vtk\nfrom slicer.i18n import tr as _\nfrom vtk.util import numpy_support\nimport threading\n"

RIGHT = [
    "slicer.util.pip_install('x')",
    "slicer.util.mainWindow().setToolTip('x')",
    "slicer.app.processEvents()",
    "slicer.app.layoutManager().sliceWidget('Red').sliceView().cornerAnnotation().SetText(7, 'x')",
    "slicer.app.connect('startupCompleted()', print)",
    "slicer.modules.colors.logic().AddDefaultColorLegendDisplayNode(node)",
    "slicer.modules.hccnet.widgetRepresentation()",
    "slicer.modules.HCCNetWidget.anything",
    "slicer.mrmlScene.AddNewNodeByClass('vtkMRMLScalarVolumeNode', 'x')",
    "slicer.mrmlScene.AddObserver(slicer.vtkMRMLScene.StartCloseEvent, print)",
    "slicer.vtkMRMLTextNode.CreateStorageNodeAlways",
    "slicer.vtkOrientedImageData().GetImageToWorldMatrix(matrix)",
    "slicer.qMRMLNodeComboBox().setMRMLScene(slicer.mrmlScene)",
    "qt.QTimer.singleShot(0, print)",
    "button = qt.QPushButton(_('Fill'))\nbutton.toolTip = _('text').format(n=1)\nbutton.setToolTip('x')",
    "label.setAlignment = qt.Qt.AlignLeft\ndef setAlignment(): pass",
    "combo.connect('activated(int)', print)\ncombo.activated.connect(print)",
    "combo.connect('currentNodeChanged(vtkMRMLNode*)', print)",
    "vtk.vtkCommand.ModifiedEvent, vtk.VTK_DOUBLE, vtk.calldata_type(vtk.VTK_OBJECT)",
    "numpy_support.vtk_to_numpy(image.GetPointData().GetScalars())",
    "node.SetAndObserveDisplayNodeID(None)",
    "threading.Thread(target=print).start(); threading.currentThread",
    "class T:\n    def onFill(self):\n        self.myOwn = 1\n        self.onFill(self.myOwn)",
    "self.assertEqual(1, 1)",
]

WRONG = {
    "slicer.util.pip_instal('x')": "slicer.util.pip_instal",
    "from slicer.util import pip_instal": "slicer.util.pip_instal",
    "from slicer.i18n import translat": "slicer.i18n.translat",
    "slicer.utils.pip_install('x')": "slicer.utils",
    "slicer.app.processEvent()": "slicer.app.processEvent",
    "slicer.app.layoutManager().sliceViews()": "slicer.app.layoutManager().sliceViews",
    "slicer.app.layoutManager().sliceWidget('Red').sliceVieww().x": "sliceVieww",
    "slicer.app.connect('startUpCompleted()', print)": "startUpCompleted",
    "slicer.modules.colours.logic()": "slicer.modules.colours",
    "slicer.modules.colors.logic().AddColorLegend(node)": "slicer.modules.colors.logic().AddColorLegend",
    "slicer.vtkMRMLTextNode.CreateStorageNodeAlway": "slicer.vtkMRMLTextNode.CreateStorageNodeAlway",
    "slicer.vtkMRMLTxtNode()": "slicer.vtkMRMLTxtNode",
    "slicer.mrmlScene.AddNewNodesByClass('vtkMRMLTextNode')": "slicer.mrmlScene.AddNewNodesByClass",
    "slicer.mrmlScene.AddNewNodeByClass('vtkMRMLTxtNode')": "vtkMRMLTxtNode",
    "slicer.vtkOrientedImageData().GetImageToWorld()": "slicer.vtkOrientedImageData().GetImageToWorld",
    "slicer.qMRMLNodeCombobox()": "slicer.qMRMLNodeCombobox",
    "qt.QPushButon()": "qt.QPushButon",
    "qt.QPushButton('x').setTooltip('y')": "qt.QPushButton().setTooltip",
    "qt.Qt.AlignLeftt": "qt.Qt.AlignLeftt",
    "qt.QTimer.singleshot(0, print)": "qt.QTimer.singleshot",
    "ctk.ctkSlider()": "ctk.ctkSlider",
    "button.setTooltip('x')": "setTooltip",
    "button.tooltipText = 'x'": "tooltipText",
    "f(button).setTooltip('x')": "setTooltip",
    "g(x=[b.setTooltip for b in buttons])": "setTooltip",
    "combo.connect('activatd(int)', print)": "activatd",
    "combo.activatd.connect(print)": "activatd",
    "combo.connect('activated', print)": "activated",
    "button.clicked.disconnect(); combo.disconnect('indexChangd(int)', print)": "indexChangd",
    "qt.QPushButton().connect('activated(int)', print)": "activated",
    "node.SetAndObserveDisplyNodeID(None)": "SetAndObserveDisplyNodeID",
    "threading.Thread().getNam()": "getNam",
    "vtk.vtkMatrix4by4()": "vtk.vtkMatrix4by4",
    "vtk.vtkCommand.ModifyEvent": "vtk.vtkCommand.ModifyEvent",
    "numpy_support.vtk_to_nump(x)": "vtk.util.numpy_support.vtk_to_nump",
}


def found_in(code: str) -> list[str]:
    return [problem.name for problem in Names(SMALL).problems(uses_of(IMPORTS + code, "file.py"))]


@pytest.mark.parametrize("code", RIGHT)
def test_what_slicer_has_is_not_complained_about(code: str) -> None:
    assert found_in(code) == []


@pytest.mark.parametrize(("code", "name"), WRONG.items())
def test_what_slicer_does_not_have_is_found(code: str, name: str) -> None:
    assert found_in(code) == [name]


def test_a_problem_says_where_and_what() -> None:
    (problem,) = Names(SMALL).problems(uses_of("import qt\n\nqt.QPushButon()\n", "HCCNet/HCCNet.py"))
    assert str(problem) == "HCCNet/HCCNet.py:3: Slicer has no qt.QPushButon"


UI = """<ui><widget class="{root}" name="HCCNet">
<property name="SlicerParameterName" stdset="0"><string>x</string></property>
<widget class="ctkSliderWidget" name="slider"><property name="{name}"><number>2</number></property></widget></widget>
<connections><connection><sender>HCCNet</sender><signal>{signal}(vtkMRMLScene*)</signal>
<receiver>combo</receiver><slot>setMRMLScene(vtkMRMLScene*)</slot></connection></connections></ui>"""


@pytest.mark.parametrize(
    ("root", "name", "signal", "wrong"),
    [
        ("qMRMLWidget", "decimals", "mrmlSceneChanged", []),
        ("qMRMLWidgt", "decimals", "mrmlSceneChanged", ["qMRMLWidgt"]),
        ("qMRMLWidget", "decimal", "mrmlSceneChanged", ["ctkSliderWidget.decimal"]),
        ("qMRMLWidget", "decimals", "mrmlSceneChange", ["mrmlSceneChange"]),
    ],
)
def test_classes_properties_and_signals_of_a_window_are_checked(
    root: str, name: str, signal: str, wrong: list[str]
) -> None:
    uses = uses_of_ui(UI.format(root=root, name=name, signal=signal), "HCCNet.ui")
    assert [problem.name for problem in Names(SMALL).problems(uses)] == wrong


# ------------------------------------------------------------ this project


@pytest.fixture(scope="module")
def names() -> Names:
    return Names(read_inventory())


@pytest.fixture(scope="module")
def uses() -> Uses:
    return uses_of_project()


@pytest.fixture(scope="module")
def problems(names: Names, uses: Uses) -> list[Problem]:
    return names.problems(uses)


def test_slicer_has_every_name_that_the_module_and_its_tests_in_slicer_use(problems: list[Problem]) -> None:
    wrong = [str(problem) for problem in problems if problem.name not in READ_IN_SOURCES]
    advice = (
        "If a full inventory has these names, run update_slicer_names.py; if only Slicer's sources do, READ_IN_SOURCES."
    )
    assert not wrong, "\n".join([*wrong, advice])


def test_every_exception_is_needed(problems: list[Problem]) -> None:
    assert set(READ_IN_SOURCES) <= {problem.name for problem in problems}


def test_there_is_much_to_check(uses: Uses) -> None:
    assert len({steps for steps, _ in uses.chains}) > 60
    assert len({name for name, _ in uses.members}) > 100


def test_each_name_that_is_used_is_missed_where_it_is_misspelt(names: Names, uses: Uses) -> None:
    """The check covers all that it collects, with the inventory as it is."""
    for steps, where in uses.chains:
        for number in [n for n, step in enumerate(steps) if n and step != CALL]:
            misspelt = (*steps[:number], f"{steps[number]}Qq")
            known = [place for place in ("vtk", "util", "app") if place in steps[:number]]
            if number == 1 or (number == 2 and known):
                assert names.problems(Uses(chains=[(misspelt, where)])), (misspelt, where)
    for name, where in uses.members:
        if name[0].isupper() or name != name.lower():
            assert names.problems(Uses(members=[(f"{name}Qq", where)])) or name.isupper() or "_" in name, name
    for text, _, where in uses.signals:
        assert names.problems(Uses(signals=[(f"Qq{text}", (), where)])), text


# ------------------------------------------------------------ the tool that writes the inventory's part


def full_inventory() -> dict[str, Any]:
    sections = {f"slicer.{name}": {} for name in update_slicer_names.SUBMODULES}
    return {"seen_in": {}, "SampleData": {}, **sections, **SMALL}


def test_the_part_of_an_inventory_holds_what_is_used_and_covers_it() -> None:
    code = "combo = f(qt.QPushButton())\ncombo.setCurrentIndex(1)\nslicer.modules.colors.logic()\nslicer.util.pip_install('')"
    uses = uses_of(IMPORTS + code, "file.py")
    part = update_slicer_names.part_used(full_inventory(), uses)
    assert Names(part).problems(uses) == []
    assert list(part["qt"]) == ["QPushButton"]
    assert part["qt"]["QPushButton"]["names"] == "clicked setText text"
    assert part["elsewhere"] == {"setCurrentIndex": "QComboBox"}
    assert part["slicer.modules"] == {"colors": {"logic_names": "AddDefaultColorLegendDisplayNode"}}
    assert part["slicer.util"] == {"VTKObservationMixin": "addObserver", "mainWindow": "", "pip_install": ""}


def test_a_misspelt_name_does_not_come_into_the_part() -> None:
    uses = uses_of(IMPORTS + "combo.setCurrentIndx(1)\nqt.QPushButon()", "file.py")
    part = update_slicer_names.part_used(full_inventory(), uses)
    assert [problem.name for problem in Names(part).problems(uses)] == ["qt.QPushButon", "setCurrentIndx"]


def test_the_tool_writes_the_file_and_tells_what_it_did_not_find(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    inventory, part = tmp_path / "inventory.json", tmp_path / "slicer_names.json"
    inventory.write_text(json.dumps(full_inventory()), encoding="utf-8")
    monkeypatch.setattr(update_slicer_names, "INVENTORY", part)
    monkeypatch.setattr("sys.argv", ["update_slicer_names.py", str(inventory)])
    for code, status, told in (("x.toolTip", 0, ""), ("x.tooltipp()\nx.toolTipp()", 1, "toolTipp")):
        uses = uses_of(code, "file.py")
        monkeypatch.setattr(update_slicer_names, "uses_of_project", lambda uses=uses: uses)
        assert update_slicer_names.main() == status
        assert told in capsys.readouterr().out
    assert json.loads(part.read_text(encoding="utf-8"))["QWidget"] == "setToolTip toolTip visible"
