"""What a scene keeps of a result: a script node, what stands in it, and the nodes that it refers to.

Nodes are found by these references alone: names may be changed, and IDs change when a scene is imported.
"""

from __future__ import annotations

import datetime
import json
import uuid
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from HCCNetSlicer import fingerprints, placement
from HCCNetSlicer.hierarchy import RESULT_ATTRIBUTE
from HCCNetSlicer.result_files import ResultError

MODULE_NAME, RESULT_NAME = "HCCNet", "HCCNet result"

_MEANING = "HCCNet.meaning"
_ROLE = "HCCNet.role"  # what a node is to its result; a copy of it, which comes after it, says the same
_COPY = "copy"  # instead of a result's mark: a map that the user copied is the user's, and still no channel


@dataclass(frozen=True)
class ShownExam:
    """An exam as it lies in the scene.

    Args:
        exam_id: as in prediction.json.
        date: of the exam.
        volumes: channel → vtkMRMLScalarVolumeNode, in the order of the bundle's channels.
        fingerprints: channel → what the volume was when it was handed to the prediction; None: as it is now.
    """

    exam_id: str
    date: datetime.date
    volumes: Mapping[str, Any]
    fingerprints: Mapping[str, Mapping[str, Any]] | None = None

    def present(self, scene: Any) -> Sequence[Any]:
        """Those of its volumes that are in the scene."""
        return [volume for volume in self.volumes.values() if volume.GetScene() is scene]


def with_fingerprints(exam: ShownExam) -> ShownExam:
    """The exam with its volumes' fingerprints as of now: take them when the images go to the prediction.

    What is edited while the prediction runs is then known to have changed.
    """
    taken = {channel: fingerprints.fingerprint(volume) for channel, volume in exam.volumes.items()}
    return replace(exam, fingerprints=taken)


class Record:
    """The script node of a result.

    Args:
        node: the vtkMRMLScriptedModuleNode.
    """

    def __init__(self, node: Any) -> None:
        self.node = node

    @classmethod
    def add(cls, scene: Any) -> Record:
        """Adds a script node that refers to nothing yet."""
        node = scene.AddNewNodeByClass("vtkMRMLScriptedModuleNode", RESULT_NAME)
        node.SetAttribute("ModuleName", MODULE_NAME)
        node.SetAttribute(RESULT_ATTRIBUTE, uuid.uuid4().hex)
        record = cls(node)
        record.keep("exams", [])
        return record

    @classmethod
    def all_of(cls, scene: Any) -> Sequence[Record]:
        """Every result's; more than one where a scene was added to another. Each has a mark of its own from now on."""
        records = [cls(node) for node in _marked(scene) if node.IsA("vtkMRMLScriptedModuleNode")]
        _separate(records)
        return records

    @property
    def scene(self) -> Any:
        """The scene, None once the result was removed."""
        return self.node.GetScene()

    @property
    def mark(self) -> str:
        """What every node of the result is marked with."""
        return str(self.node.GetAttribute(RESULT_ATTRIBUTE))

    @property
    def meaning(self) -> str | None:
        """That the result has none, in words; else None."""
        words: str | None = self.node.GetAttribute(_MEANING)
        return words

    @cached_property
    def exams(self) -> Sequence[Mapping[str, Any]]:
        """Per exam ``exam_id``, ``date``, ``channels``, ``shown`` (a channel), ``maps`` (kinds), ``fingerprints``."""
        exams: Sequence[Mapping[str, Any]] = self.kept("exams")
        return exams

    def kept(self, name: str) -> Any:
        """Plain data that was kept under this name; raises ResultError where it is there no more."""
        try:
            return json.loads(self.node.GetParameter(name))
        except ValueError:
            raise ResultError("The result in the scene is damaged. Remove it and predict again.") from None

    def keep(self, name: str, value: Any) -> None:
        """Keeps plain data under a name."""
        self.node.SetParameter(name, json.dumps(value))
        self.__dict__.pop("exams", None)

    def change_state(self, **changes: Any) -> None:
        """Keeps what is shown and how."""
        self.keep("state", {**self.kept("state"), **changes})

    def keep_meaning(self, words: str) -> None:
        """Keeps that the result has no meaning, where a person who looks at the node sees it too."""
        self.node.SetAttribute(_MEANING, words)

    def refer(self, role: str, node: Any) -> None:
        """Refers to a node that is not the result's own."""
        self.node.SetNodeReferenceID(role, node.GetID())

    def own(self, role: str, node: Any) -> None:
        """Refers to a node that was made for the result and goes with it."""
        self.refer(role, node)
        node.SetAttribute(RESULT_ATTRIBUTE, self.mark)
        node.SetAttribute(_ROLE, role)

    def owned(self, kind: str = "") -> Sequence[Any]:
        """The nodes in the scene that were made for the result, or those whose role begins so."""
        count = self.node.GetNumberOfNodeReferenceRoles()
        roles = (self.node.GetNthNodeReferenceRole(n) for n in range(count))
        found = (self.get(role) for role in roles if role.startswith(kind))
        return [node for node in found if node is not None and node.GetAttribute(RESULT_ATTRIBUTE) == self.mark]

    def mark_anew(self, others: Collection[str]) -> None:
        """Marks the result and its nodes with a mark of their own, but no nodes with these IDs."""
        nodes = [node for node in self.owned() if node.GetID() not in others]
        self.node.SetAttribute(RESULT_ATTRIBUTE, uuid.uuid4().hex)
        for node in nodes:
            node.SetAttribute(RESULT_ATTRIBUTE, self.mark)

    def get(self, role: str) -> Any:
        """A node by its role, None where it was deleted or never was."""
        return self.node.GetNodeReference(role)

    def volume(self, index: int, channel: str) -> Any:
        """An exam's volume, None where it is no longer in the scene."""
        return self.get(volume_role(index, self.exams[index]["channels"].index(channel)))

    def volumes(self) -> Sequence[Any]:
        """All exams' volumes that are in the scene."""
        found = (self.volume(i, channel) for i, exam in enumerate(self.exams) for channel in exam["channels"])
        return [volume for volume in found if volume is not None]

    def maps(self) -> Sequence[Any]:
        """All maps that are in the scene."""
        return self.owned("map.")

    def remove(self) -> None:
        """Removes every node that was made for the result; their items, and folders of ours that are empty then."""
        scene = self.scene
        Record.all_of(scene)  # another result that has the same mark gets its own: its nodes are no copies
        mark = self.mark
        _remove_nodes(scene, [*self.owned(), self.node])
        # What is left with the mark are copies that the user made.
        _leave_to_user(node for node in _marked(scene) if node.GetAttribute(RESULT_ATTRIBUTE) == mark)


def remove_leftovers(scene: Any) -> None:
    """Removes what results have left behind whose script nodes were deleted, and empty folders of ours.

    For when there is no result. Of nodes with the same mark and role, the later ones are copies that the user made.
    """
    ours: dict[tuple[str, str | None], Any] = {}
    copies = []
    for node in _marked(scene):
        if ours.setdefault((node.GetAttribute(RESULT_ATTRIBUTE), node.GetAttribute(_ROLE)), node) is not node:
            copies.append(node)
    _leave_to_user(copies)
    _remove_nodes(scene, list(ours.values()))
    placement.remove_empty_folders(scene)


def volume_role(exam: int, channel: int) -> str:
    """The role of an exam's volume."""
    return f"exam{exam}.channel{channel}"


def map_role(kind: str, exam: int) -> str:
    """The role of an exam's map."""
    return f"map.{kind}.{exam}"


def field_role(exam: int) -> str:
    """The role of the box that the model read of an exam."""
    return f"field.{exam}"


def _marked(scene: Any) -> Sequence[Any]:
    return [node for node in scene.GetNodes() if node.GetAttribute(RESULT_ATTRIBUTE) not in (None, _COPY)]


def _leave_to_user(copies: Iterable[Any]) -> None:
    for node in copies:
        node.SetAttribute(RESULT_ATTRIBUTE, _COPY)


def _separate(records: Sequence[Record]) -> None:
    """Gives results that share a mark, as those of a scene that was added twice do, marks of their own."""
    known: dict[str, set[str]] = {}
    for record in records:
        if record.mark in known:
            record.mark_anew(known[record.mark])
        known[record.mark] = {node.GetID() for node in record.owned()}


def _remove_nodes(scene: Any, nodes: Sequence[Any]) -> None:
    """Removes nodes with their items, display and storage nodes."""
    placement.take_out(scene, nodes)
    parts = [part for node in nodes for part in _parts(node)]
    for node in [*nodes, *parts]:
        if scene.IsNodePresent(node):
            scene.RemoveNode(node)


def _parts(node: Any) -> Iterator[Any]:
    """Storage and display nodes."""
    if node.IsA("vtkMRMLStorableNode"):
        yield from (node.GetNthStorageNode(n) for n in range(node.GetNumberOfStorageNodes()))
    if node.IsA("vtkMRMLDisplayableNode"):
        yield from (node.GetNthDisplayNode(n) for n in range(node.GetNumberOfDisplayNodes()))
