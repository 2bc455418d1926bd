"""What the subject hierarchy tells of a volume: whose it is, of which study and day, what its series says."""

from __future__ import annotations

import datetime
import re
import uuid
from pathlib import Path
from typing import Any

import slicer
import vtk

from HCCNetLib.readers.dates import date_in_name, parse_date
from HCCNetLib.readers.exams import FIRST_MRI
from HCCNetSlicer.volumes import is_picture

# On every node that was made for a result: a map is no channel, and what a deleted script node leaves behind is still known
# as ours.
RESULT_ATTRIBUTE = "HCCNet.Result"

_KEY_ATTRIBUTE = "HCCNet.Key"
_DATE_IN_TEXT = re.compile(r"(?<!\d)(\d{4}-\d{2}-\d{2}|\d{8})(?!\d)")
_Constants = slicer.vtkMRMLSubjectHierarchyConstants


class Hierarchy:
    """A scene's subject hierarchy; the node is looked up anew each time, since clearing a scene replaces it."""

    def __init__(self, scene: Any) -> None:
        self.scene = scene

    @property
    def node(self) -> Any:
        """The hierarchy's node."""
        return slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(self.scene)

    def below(self, item: int) -> list[int]:
        """Every item below one."""
        ids = vtk.vtkIdList()
        self.node.GetItemChildren(item, ids, True)
        return [ids.GetId(n) for n in range(ids.GetNumberOfIds())]

    def volumes(self, item: int) -> list[Any]:
        """Greyscale volumes below an item that are no result of ours."""
        return [node for node in map(self.node.GetItemDataNode, self.below(item)) if is_input(node)]

    def volumes_at(self, item: int) -> list[Any]:
        """Those below an item, and the item's own if it is one."""
        node = self.node.GetItemDataNode(item)
        return [*([node] if is_input(node) else []), *self.volumes(item)]

    def patients(self) -> list[int]:
        """Items of the patients that have volumes."""
        level, node = _Constants.GetDICOMLevelPatient(), self.node
        return [i for i in self.below(node.GetSceneItemID()) if node.IsItemLevel(i, level) and self.volumes(i)]

    def key(self, item: int) -> str:
        """What names a patient or study from now on, in a saved scene too: its DICOM UID, else a mark of ours on its item."""
        node = self.node
        uid = node.GetItemUID(item, _Constants.GetDICOMUIDName())
        if uid:
            return str(uid)
        if not node.HasItemAttribute(item, _KEY_ATTRIBUTE):
            node.SetItemAttribute(item, _KEY_ATTRIBUTE, str(uuid.uuid4()))
        return str(node.GetItemAttribute(item, _KEY_ATTRIBUTE))

    def separate_copies(self) -> None:
        """Gives items that carry the same mark of ours marks of their own: a scene that was added twice has such."""
        node, seen = self.node, set()
        for item in self.below(node.GetSceneItemID()):
            if node.HasItemAttribute(item, _KEY_ATTRIBUTE):
                key = node.GetItemAttribute(item, _KEY_ATTRIBUTE)
                if key in seen:
                    node.SetItemAttribute(item, _KEY_ATTRIBUTE, str(uuid.uuid4()))
                seen.add(key)

    def study_of(self, volume: Any) -> int:
        """The item of a volume's study; 0 where there is none."""
        return self._ancestor(volume, _Constants.GetDICOMLevelStudy())

    def patient_of(self, volume: Any) -> str | None:
        """Who a volume belongs to, as one text per patient; None where the hierarchy does not say."""
        item = self._ancestor(volume, _Constants.GetDICOMLevelPatient())
        if not item:
            return None
        return str(self.node.GetItemAttribute(item, _attribute("PatientID")) or self.key(item))

    def series_attribute(self, volume: Any, name: str) -> str:
        """A DICOM attribute of a volume's series, e.g. ``Modality``; empty where there is none."""
        item = self._item(volume)
        return str(self.node.GetItemAttribute(item, _attribute(name))) if item else ""

    def study_date(self, volume: Any) -> datetime.date | None:
        """The day of a volume's study."""
        study = self.study_of(volume)
        return parse_date(self.node.GetItemAttribute(study, _attribute("StudyDate"))) if study else None

    def _ancestor(self, volume: Any, level: str) -> int:
        item = self._item(volume)
        return int(self.node.GetItemAncestorAtLevel(item, level)) if item else 0

    def _item(self, volume: Any) -> int:
        """A volume's item; 0 where it has none, about which the hierarchy would complain if asked for more."""
        item = int(self.node.GetItemByDataNode(volume))
        return 0 if item == self.node.GetInvalidItemID() else item


def is_input(node: Any) -> bool:
    """Whether a node may be a channel: a greyscale volume that is in the scene and no result of ours."""
    return is_picture(node) and node.GetScene() is not None and not node.GetAttribute(RESULT_ATTRIBUTE)


def all_inputs(scene: Any) -> list[Any]:
    """Every volume of a scene that may be a channel."""
    count = scene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode")
    nodes = [scene.GetNthNodeByClass(n, "vtkMRMLScalarVolumeNode") for n in range(count)]
    return [node for node in nodes if is_input(node)]


def without_date(name: str) -> str:
    """A volume's name without the date in it."""
    return _DATE_IN_TEXT.sub("", name).strip(" _-:")


def date_in_names(volume: Any) -> datetime.date | None:
    """The one date in a volume's name, or that of the folder its file lies in (``2021-03-14/DWI_b0.nii.gz``).

    A date before there was MRI is somebody's birthday.
    """
    found = map(parse_date, _DATE_IN_TEXT.findall(volume.GetName() or ""))
    dates = {date for date in found if date is not None and date >= FIRST_MRI}
    if dates:
        return dates.pop() if len(dates) == 1 else None
    storage = volume.GetStorageNode()
    file = storage.GetFileName() if storage is not None else None
    return date_in_name(Path(file).parent.name) if file else None


def _attribute(name: str) -> str:
    return f"{_Constants.GetDICOMAttributePrefix()}{name}"
