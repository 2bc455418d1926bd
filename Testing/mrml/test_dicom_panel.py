"""The section "DICOM database": what it lists, what a tick means, and what is loaded; Qt and the database faked."""

from __future__ import annotations

import importlib
import sys
import types
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import qt_fakes
import slicer
import slicer.util
from dicom_fakes import FakeDatabase, copy_series
from slicer_fakes import modules

from HCCNetLib.records import Refusal
from HCCNetSlicer.exam_table import ExamTable
from HCCNetSlicer.folders import fill_from_files

DWI = sorted((Path(__file__).resolve().parents[1] / "data" / "dicom" / "prostatex-dwi").iterdir())
CHECKED, PARTLY, UNCHECKED = 2, 1, 0
MARKS = {CHECKED: "[x]", PARTLY: "[-]", UNCHECKED: "[ ]"}
NO_PATIENTS = "The DICOM database holds no patients. Import some with Slicer's DICOM module, then press Refresh."
NOT_OPEN = "The DICOM database is not open. Open Slicer's DICOM module, which opens or creates it, then press Refresh."


# ------------------------------------------------------------ a QTreeWidget


class TreeItem:
    """A QTreeWidgetItem: no QObject, all of it methods."""

    ShowIndicator = 0

    def __init__(self) -> None:
        self._text, self._data, self._state = "", None, UNCHECKED
        self._children: list[TreeItem] = []
        self._parent: TreeItem | None = None
        self.tree: Tree | None = None
        self.can_unfold = False

    def setText(self, column: int, text: str) -> None:  # noqa: N802
        self._text = text

    def text(self, column: int) -> str:
        return self._text

    def setData(self, column: int, role: int, value: str) -> None:  # noqa: N802
        self._data = value

    def data(self, column: int, role: int) -> Any:
        return self._data

    def setCheckState(self, column: int, state: int) -> None:  # noqa: N802
        changed, self._state = state != self._state, state
        if changed and self.tree is not None and not self.tree.__dict__.get("blocked"):
            self.tree.emit("itemChanged(QTreeWidgetItem*,int)", self, column)

    def checkState(self, column: int) -> int:  # noqa: N802
        return self._state

    def setChildIndicatorPolicy(self, policy: int) -> None:  # noqa: N802
        self.can_unfold = policy == self.ShowIndicator

    def addChild(self, child: TreeItem) -> None:  # noqa: N802
        child._parent, child.tree = self, self.tree
        self._children.append(child)

    def childCount(self) -> int:  # noqa: N802
        return len(self._children)

    def child(self, number: int) -> TreeItem:
        return self._children[number]

    def parent(self) -> TreeItem | None:
        return self._parent


class Tree(qt_fakes.Object):
    """A QTreeWidget of one column; Space and a click do the same to a tick."""

    def __init__(self) -> None:
        super().__init__()
        self._tops: list[TreeItem] = []
        self.blocked = False

    @property
    def topLevelItemCount(self) -> int:  # noqa: N802
        return len(self._tops)

    def topLevelItem(self, number: int) -> TreeItem:  # noqa: N802
        return self._tops[number]

    def addTopLevelItem(self, item: TreeItem) -> None:  # noqa: N802
        item.tree = self
        self._tops.append(item)

    def clear(self) -> None:
        self._tops = []

    def resizeColumnToContents(self, column: int) -> None:  # noqa: N802
        pass

    # What the user does and sees.

    def item(self, *words: str) -> TreeItem:
        """The item whose text begins so, below those whose texts begin so."""
        items = self._tops
        for word in words:
            (found,) = [item for item in items if item.text(0).startswith(word)]
            items = found._children
        return found

    def unfold(self, *words: str) -> None:
        item = self.item(*words)
        assert item.can_unfold
        self.emit("itemExpanded(QTreeWidgetItem*)", item)

    def press_space(self, *words: str) -> None:
        item = self.item(*words)
        item.setCheckState(0, UNCHECKED if item.checkState(0) == CHECKED else CHECKED)

    def lines(self) -> list[str]:
        """The tree as it is seen, indented."""
        return list(_lines(self._tops, ""))


def _lines(items: Sequence[TreeItem], indent: str) -> Iterator[str]:
    for item in items:
        yield f"{indent}{MARKS[item.checkState(0)]} {item.text(0)}"
        yield from _lines(item._children, f"{indent}  ")


# ------------------------------------------------------------ the section


class Section:
    """The panel with its widgets, and what was loaded and told."""

    def __init__(self, panel_class: Any, load: Callable[[Sequence[Path]], object] | None = None) -> None:
        names = ("dicomCollapsibleButton", "dicomRefreshButton", "dicomLoadButton", "dicomLabel")
        self.ui = types.SimpleNamespace(dicomTree=Tree(), **{name: qt_fakes.Object() for name in names})
        self.loaded: list[list[Path]] = []
        self.told: list[str] = []
        self.panel = panel_class(self.ui, load or (lambda files: self.loaded.append(list(files))), self.attempt)
        self.tree: Tree = self.ui.dicomTree

    def attempt(self, act: Callable[[], object]) -> None:
        try:
            act()
        except Refusal as refusal:
            self.told.append(refusal.message)

    def open(self) -> None:
        self.ui.dicomCollapsibleButton.emit("contentsCollapsed(bool)", False)

    @property
    def sentence(self) -> str:
        assert self.ui.dicomLabel.visible == bool(self.ui.dicomLabel.text)
        return str(self.ui.dicomLabel.text)


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeDatabase:
    """Two patients: one with two studies, the later of which has a CT too; one with a CT alone."""
    jane, ron = {"PatientName": "Doe^Jane", "PatientID": "4711"}, {"PatientName": "Roe^Ron", "PatientID": "4712"}
    late = {"StudyDate": "20210314", "StudyDescription": "MR liver"}
    made = FakeDatabase(
        [
            *copy_series(
                DWI, tmp_path, "dwi1", **jane, StudyDate="20200105", StudyDescription="", SeriesDescription="DWI"
            ),
            *copy_series(DWI, tmp_path, "dwi2", **jane, **late, SeriesNumber=12, SeriesDescription="DWI"),
            *copy_series(DWI[:3], tmp_path, "t2", **jane, **late, SeriesNumber=4, SeriesDescription="T2"),
            *copy_series(DWI[:1], tmp_path, "ct", **jane, **late, SeriesNumber=5, SeriesDescription="", Modality="CT"),
            *copy_series(DWI[:2], tmp_path, "ct2", **ron, StudyDate="20220101", Modality="CT", StudyDescription=""),
        ]
    )
    made.update_displayed_fields()
    monkeypatch.setattr(slicer, "dicomDatabase", made, raising=False)
    monkeypatch.setattr(slicer.util, "longPath", lambda path: path)
    return made


@pytest.fixture
def panel_class(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The panel's class, with the parts of Qt that it uses."""
    qt: Any = qt_fakes.module()
    qt.QTreeWidgetItem = TreeItem
    qt.Qt.Checked, qt.Qt.PartiallyChecked, qt.Qt.Unchecked, qt.Qt.UserRole = CHECKED, PARTLY, UNCHECKED, 256
    for name, fake in {**modules(), "qt": qt}.items():
        monkeypatch.setitem(sys.modules, name, fake)
    monkeypatch.delitem(sys.modules, "HCCNetWindow.dicom_panel", raising=False)
    return importlib.import_module("HCCNetWindow.dicom_panel").DicomPanel


@pytest.fixture
def section(panel_class: Any, database: FakeDatabase) -> Section:
    """The section as it stands when the window opens."""
    return Section(panel_class)


# ------------------------------------------------------------ what is listed


def test_nothing_is_read_before_the_section_is_opened(section: Section, database: FakeDatabase) -> None:
    section.ui.dicomCollapsibleButton.emit("contentsCollapsed(bool)", True)
    assert database.asked == []
    assert section.sentence == ""


def test_patients_studies_and_series_unfold_with_what_tells_them_apart(section: Section) -> None:
    section.open()
    assert section.tree.lines() == ["[ ] Doe, Jane (4711), 2 studies", "[ ] Roe, Ron (4712), 1 study"]
    section.tree.unfold("Doe")
    section.tree.unfold("Doe", "2021")
    assert section.tree.lines() == [
        "[ ] Doe, Jane (4711), 2 studies",
        "  [ ] 2020-01-05",
        "  [ ] 2021-03-14, MR liver",
        "    [ ] 4: T2 (MR, 3 images)",
        "    [ ] 5 (CT, 1 image)",
        "    [ ] 12: DWI (MR, 12 images)",
        "[ ] Roe, Ron (4712), 1 study",
    ]


def test_what_is_not_unfolded_is_not_read_and_what_is_is_read_once(section: Section, database: FakeDatabase) -> None:
    section.open()
    section.tree.unfold("Doe")
    section.tree.unfold("Doe", "2021")
    asked = list(database.asked)
    assert [method for method, _ in asked].count("seriesForStudy") == 1
    section.tree.unfold("Doe")
    section.tree.unfold("Doe", "2021")
    assert database.asked == asked
    assert not section.tree.item("Doe", "2021", "4").can_unfold


def test_values_that_are_missing_are_called_so(section: Section, database: FakeDatabase) -> None:
    database.tables.execute("UPDATE Patients SET PatientsName = '', DisplayedPatientsName = NULL, PatientID = ''")
    database.tables.execute("UPDATE Studies SET StudyDate = NULL")
    database.tables.execute("UPDATE Series SET SeriesNumber = NULL, SeriesDescription = '', Modality = ''")
    section.open()
    for patient in range(2):
        section.tree.emit("itemExpanded(QTreeWidgetItem*)", section.tree.topLevelItem(patient))
    section.tree.unfold("no name (no id), 1", "no date")
    assert section.tree.lines()[-3:] == [
        "[ ] no name (no id), 1 study",
        "  [ ] no date",
        "    [ ] no description (2 images)",
    ]


def test_an_empty_or_closed_database_is_told_in_place_of_patients(section: Section, database: FakeDatabase) -> None:
    section.open()
    database.isOpen = False
    section.tree.unfold("Doe")
    assert (section.sentence, section.tree.topLevelItemCount) == (NOT_OPEN, 2)
    section.ui.dicomRefreshButton.click()
    assert (section.sentence, section.tree.lines()) == (NOT_OPEN, [])
    database.isOpen = True
    database.tables.execute("DELETE FROM Patients")
    section.ui.dicomRefreshButton.click()
    assert (section.sentence, section.tree.lines()) == (NO_PATIENTS, [])


def test_opening_the_section_again_shows_what_is_new_and_else_keeps_the_ticks(
    section: Section, database: FakeDatabase, tmp_path: Path
) -> None:
    section.open()
    section.tree.press_space("Doe")
    before = section.tree.lines()
    section.open()
    assert section.tree.lines() == before
    for file in copy_series(DWI[:1], tmp_path, "new", PatientName="Alien^Ann", PatientID="1"):
        database.add(file)
    section.open()
    assert [line[4:9] for line in section.tree.lines()] == ["Alien", "Doe, ", "Roe, "]
    assert section.panel.ticked_series() == []


# ------------------------------------------------------------ ticks


def test_a_tick_at_a_patient_ticks_the_mr_series_and_one_more_press_unticks_all(section: Section) -> None:
    section.open()
    section.tree.press_space("Doe")
    assert section.tree.lines() == [
        "[x] Doe, Jane (4711), 2 studies",
        "  [x] 2020-01-05",
        "    [x] 8: DWI (MR, 12 images)",
        "  [x] 2021-03-14, MR liver",
        "    [x] 4: T2 (MR, 3 images)",
        "    [ ] 5 (CT, 1 image)",
        "    [x] 12: DWI (MR, 12 images)",
        "[ ] Roe, Ron (4712), 1 study",
    ]
    assert len(section.panel.ticked_series()) == 3
    section.tree.press_space("Doe", "2021", "5")
    section.tree.press_space("Doe")
    assert section.panel.ticked_series() == []
    assert not any("[x]" in line or "[-]" in line for line in section.tree.lines())


def test_a_series_that_is_unticked_leaves_its_study_and_patient_half_ticked(section: Section) -> None:
    section.open()
    section.tree.press_space("Doe")
    section.tree.press_space("Doe", "2021", "4")
    states = [section.tree.item(*words).checkState(0) for words in (["Doe"], ["Doe", "2021"], ["Doe", "2020"])]
    assert states == [PARTLY, PARTLY, CHECKED]
    section.tree.press_space("Doe", "2021", "12")
    assert section.tree.item("Doe", "2021").checkState(0) == UNCHECKED
    section.tree.press_space("Doe", "2021", "12")
    section.tree.press_space("Doe", "2021", "4")
    assert section.tree.item("Doe").checkState(0) == CHECKED


def test_a_study_alone_can_be_ticked_and_its_patient_is_half_ticked_then(section: Section) -> None:
    section.open()
    section.tree.unfold("Doe")
    section.tree.press_space("Doe", "2021")
    assert section.tree.item("Doe").checkState(0) == PARTLY
    assert len(section.panel.ticked_series()) == 2


def test_a_study_without_mr_stays_unticked_and_says_so_but_its_series_can_be_ticked(section: Section) -> None:
    section.open()
    section.tree.press_space("Roe")
    assert section.sentence == "No MR series there. Tick another study or patient."
    assert section.panel.ticked_series() == []
    assert section.tree.item("Roe").checkState(0) == UNCHECKED
    section.tree.press_space("Roe", "2022", "8")
    assert section.sentence == ""
    assert section.tree.item("Roe").checkState(0) == CHECKED
    assert len(section.panel.ticked_series()) == 1


def test_a_database_that_closed_meanwhile_ticks_nothing(section: Section, database: FakeDatabase) -> None:
    section.open()
    database.isOpen = False
    section.tree.press_space("Doe")
    assert (section.sentence, section.tree.item("Doe").checkState(0)) == (NOT_OPEN, UNCHECKED)
    database.isOpen = True
    section.tree.press_space("Doe")
    assert len(section.panel.ticked_series()) == 3


# ------------------------------------------------------------ what is loaded


def test_load_without_a_tick_says_what_to_do(section: Section) -> None:
    section.open()
    section.ui.dicomLoadButton.click()
    assert section.told == ["Tick a patient, studies or series in the DICOM database first."]
    assert section.loaded == []


def test_the_files_of_the_ticked_series_are_loaded_and_no_others(section: Section, tmp_path: Path) -> None:
    section.open()
    section.tree.unfold("Doe")
    section.tree.press_space("Doe", "2021")
    section.tree.press_space("Doe", "2021", "4")
    section.ui.dicomLoadButton.click()
    assert [sorted(files) for files in section.loaded] == [sorted((tmp_path / "dwi2").iterdir())]
    assert section.told == []


def test_ticked_exams_fill_the_table_and_two_patients_are_refused(
    panel_class: Any, database: FakeDatabase, scene: Any, tmp_path: Path
) -> None:
    for file in copy_series(DWI, tmp_path, "of another", PatientName="Poe^Pat", PatientID="4713"):
        database.add(file)
    table = ExamTable(scene)
    section = Section(panel_class, lambda files: fill_from_files(table, files))
    section.open()
    section.tree.press_space("Doe")
    section.tree.press_space("Poe")
    section.ui.dicomLoadButton.click()
    assert section.told == ["The chosen series are of 2 patients. Choose those of one patient."]
    assert table.rows == ()
    section.tree.press_space("Poe")
    section.tree.press_space("Doe", "2021", "4")  # b 0 too, in truth: which of both is meant is for the user to say
    section.ui.dicomLoadButton.click()
    assert [exam.exam_id for exam in table.exams()] == ["2020-01-05", "2021-03-14"]
    assert not any("Doe" in told for told in [*section.told, *table.state.told_by_reader])
