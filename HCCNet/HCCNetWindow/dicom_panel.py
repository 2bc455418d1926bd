"""The DICOM database's patients, studies and series as a tree: what is ticked in it is loaded as exams."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import qt
from slicer.i18n import tr as _

from HCCNetLib.records import Refusal
from HCCNetSlicer.dicom_database import (
    MR,
    ListedPatient,
    ListedSeries,
    ListedStudy,
    files_of,
    list_patients,
    list_series,
    list_studies,
)

_PATIENT, _STUDY, _SERIES = "patient", "study", "series"


class DicomPanel:
    """Lists what was imported with Slicer's DICOM module, and loads what the user ticks.

    The tree is the truth: each item has a key, its kind and UID, and its tick. Studies and series are read from the
    database when what holds them is unfolded or ticked. Looking ticks nothing.

    Args:
        ui: the window's widgets by name.
        load: loads files of one patient into the scene and the table of exams.
        attempt: does what the user asked for; an error becomes a sentence.
    """

    def __init__(
        self,
        ui: Any,
        load: Callable[[Sequence[Path]], object],
        attempt: Callable[[Callable[[], object]], None],
    ) -> None:
        self._ui, self._load, self._attempt = ui, load, attempt
        self._shown: list[ListedPatient] | None = None
        self._listed: set[str] = set()  # keys of patients and studies that were looked into
        self._mr: set[str] = set()  # keys of the MR series among those that are listed
        self._say("")
        ui.dicomCollapsibleButton.connect("contentsCollapsed(bool)", self._folded)
        ui.dicomTree.connect("itemExpanded(QTreeWidgetItem*)", self._unfolded)
        ui.dicomTree.connect("itemChanged(QTreeWidgetItem*,int)", self._ticked)
        ui.dicomRefreshButton.connect("clicked()", self.refresh)
        ui.dicomLoadButton.connect("clicked()", self.load)

    def refresh(self) -> None:
        """Lists the patients anew; nothing is ticked then."""
        self._shown = None
        self._list_patients()

    def load(self) -> None:
        """Loads the series that are ticked."""
        self._attempt(self._load_ticked)

    def ticked_series(self) -> list[str]:
        """UIDs of the series that are ticked, of all patients."""
        tree = self._ui.dicomTree
        tops = [tree.topLevelItem(n) for n in range(tree.topLevelItemCount)]
        items = [item for top in tops for item in _below(top)]
        return [_uid(item) for item in items if _kind(item) == _SERIES and _is_ticked(item)]

    def _load_ticked(self) -> None:
        series = self.ticked_series()
        if not series:
            raise Refusal("nothing_ticked", _("Tick a patient, studies or series in the DICOM database first."))
        self._load(files_of(series))

    # ------------------------------------------------------------ what is listed

    def _folded(self, collapsed: bool) -> None:
        if not collapsed:
            self._list_patients()

    def _list_patients(self) -> None:
        """Shows the patients; where they are the same as before the tree stays, with its ticks."""
        try:
            found = list_patients()
        except Refusal as refusal:
            found, told = [], refusal.message
        else:
            no_patients = _(
                "The DICOM database holds no patients. Import some with Slicer's DICOM module, then press Refresh."
            )
            told = "" if found else no_patients
        self._say(told)
        if found == self._shown:
            return
        tree, self._shown = self._ui.dicomTree, found
        tree.clear()
        self._listed.clear()
        self._mr.clear()
        for patient in found:
            tree.addTopLevelItem(_item(_PATIENT, patient.uid, patient_words(patient)))
        tree.resizeColumnToContents(0)

    def _unfolded(self, item: Any) -> None:
        self._say("")
        try:
            self._list_below(item)
        except Refusal as refusal:
            self._say(refusal.message)

    def _list_below(self, item: Any) -> None:
        """Reads what an item holds, once."""
        if _kind(item) == _SERIES or _key(item) in self._listed:
            return
        if _kind(item) == _PATIENT:
            below = [_item(_STUDY, study.uid, study_words(study)) for study in list_studies(_uid(item))]
        else:
            series = list_series(_uid(item))
            self._mr.update(f"{_SERIES} {one.uid}" for one in series if one.modality == MR)
            below = [_item(_SERIES, one.uid, series_words(one)) for one in series]
        for child in below:
            item.addChild(child)
        self._listed.add(_key(item))
        self._ui.dicomTree.resizeColumnToContents(0)

    def _say(self, told: str) -> None:
        self._ui.dicomLabel.setText(told)
        self._ui.dicomLabel.setVisible(bool(told))

    # ------------------------------------------------------------ ticks

    def _ticked(self, item: Any, column: int) -> None:
        """The user ticked or unticked an item."""
        self._say("")
        wanted = _is_ticked(item)
        was_blocked = self._ui.dicomTree.blockSignals(True)
        try:
            self._tick_below(item, wanted)
        except Refusal as refusal:
            self._say(refusal.message)
        else:
            if wanted and _kind(item) != _SERIES and self._state(item) == qt.Qt.Unchecked:
                self._say(_("No MR series there. Tick another study or patient."))
        finally:
            self._show_states(item)
            self._ui.dicomTree.blockSignals(was_blocked)

    def _tick_below(self, item: Any, wanted: bool) -> None:
        """Ticks the MR series that a patient or study holds, or unticks all that it holds."""
        if wanted:
            self._list_below(item)
        for child in _children(item):
            if _kind(child) == _STUDY:
                self._tick_below(child, wanted)
                child.setCheckState(0, self._state(child))
            elif not wanted or _key(child) in self._mr:
                child.setCheckState(0, qt.Qt.Checked if wanted else qt.Qt.Unchecked)

    def _show_states(self, item: Any) -> None:
        """Shows at an item and what holds it whether all is ticked, some, or nothing."""
        while item is not None:
            if _kind(item) != _SERIES:
                item.setCheckState(0, self._state(item))
            item = item.parent()

    def _state(self, item: Any) -> Any:
        """Of a patient or study: ticked where all MR series in it are."""
        below = list(_below(item))
        if not any(_kind(one) == _SERIES and _is_ticked(one) for one in below):
            return qt.Qt.Unchecked
        is_part = any(
            (_key(one) in self._mr and not _is_ticked(one)) or (_kind(one) == _STUDY and _key(one) not in self._listed)
            for one in below
        )
        return qt.Qt.PartiallyChecked if is_part else qt.Qt.Checked


def _item(kind: str, uid: str, text: str) -> Any:
    item = qt.QTreeWidgetItem()
    item.setText(0, text)
    item.setData(0, qt.Qt.UserRole, f"{kind} {uid}")
    item.setCheckState(0, qt.Qt.Unchecked)
    if kind != _SERIES:  # what it holds is read when it is unfolded
        item.setChildIndicatorPolicy(qt.QTreeWidgetItem.ShowIndicator)
    return item


def _key(item: Any) -> str:
    return str(item.data(0, qt.Qt.UserRole))


def _kind(item: Any) -> str:
    return _key(item).split(" ", 1)[0]


def _uid(item: Any) -> str:
    return _key(item).split(" ", 1)[1]


def _is_ticked(item: Any) -> bool:
    return bool(item.checkState(0) == qt.Qt.Checked)


def _children(item: Any) -> list[Any]:
    return [item.child(n) for n in range(item.childCount())]


def _below(item: Any) -> Iterator[Any]:
    """Everything that is listed below an item."""
    for child in _children(item):
        yield child
        yield from _below(child)


def patient_words(patient: ListedPatient) -> str:
    """How a patient stands in the tree."""
    count = _("1 study") if patient.studies == 1 else _("{n} studies").format(n=patient.studies)
    return f"{patient.name or _('no name')} ({patient.patient_id or _('no id')}), {count}"


def study_words(study: ListedStudy) -> str:
    """How a study stands in the tree."""
    date = _("no date") if study.date is None else study.date.isoformat()
    return ", ".join(filter(None, (date, study.description)))


def series_words(series: ListedSeries) -> str:
    """How a series stands in the tree."""
    count = _("1 image") if series.images == 1 else _("{n} images").format(n=series.images)
    title = ": ".join(filter(None, (series.number, series.description))) or _("no description")
    return f"{title} ({', '.join(filter(None, (series.modality, count)))})"
