"""The table of exams into a script node and back, so that a saved scene brings it along; volumes as node references."""

from __future__ import annotations

import json
from typing import Any

from HCCNetLib.readers.dates import parse_date
from HCCNetSlicer.exam_table import Corrections, ExamTable, TableState

_PARAMETER = "HCCNet.Exams"
_VERSION = 1
_GONE = "gone"  # no node has such an ID: a choice whose volume was removed stays a choice
_UNREADABLE = (
    "The table of exams that the scene keeps can't be read: it is damaged or of another release. Fill it again."
)


def store_table(table: ExamTable, node: Any) -> None:
    """Writes a table into a ``vtkMRMLScriptedModuleNode``; what else the node holds is left alone."""
    if node.GetParameter(_PARAMETER) and is_stored(table.state, node):
        return  # a node that did not change must not say that it did
    text, places = _written(table.state)
    was_modifying = node.StartModify()  # whoever watches the node is told once, when all is there
    for role in [node.GetNthNodeReferenceRole(n) for n in range(node.GetNumberOfNodeReferenceRoles())]:
        if role.startswith(_role("")):
            node.RemoveNodeReferenceIDs(role)
    for node_id, number in places.items():
        node.SetNodeReferenceID(_role(number), node_id)
    node.SetParameter(_PARAMETER, text)
    node.EndModify(was_modifying)


def is_stored(state: TableState | None, node: Any) -> bool:
    """Whether what a node keeps is this state, node by node; a node that keeps nothing is no contradiction."""
    if state is None:
        return False
    kept = node.GetParameter(_PARAMETER)
    if not kept:
        return True
    text, places = _written(state)
    # The reference to a node that was removed is gone, or still there.
    return kept == text and all(
        node.GetNodeReferenceID(_role(number)) in (node_id, None, "") for node_id, number in places.items()
    )


def _written(state: TableState) -> tuple[str, dict[str, int]]:
    """A state as text, and the numbers by which it names nodes."""
    said = state.corrections
    ids = [*state.loose, *said.cells.values(), *said.livers.values()]
    places = {node_id: number for number, node_id in enumerate(dict.fromkeys(filter(None, ids)))}

    def place_of(node_id: str | None) -> int | None:
        return None if node_id is None else places[node_id]

    content = {
        "version": _VERSION,
        "channels": state.channels,
        "missing_channels": state.missing_channels,
        "one_space": state.one_space,
        "patient": state.patient,
        "told_by_reader": state.told_by_reader,
        "loose": [places[node_id] for node_id in state.loose],
        "dates": {key: date.isoformat() if date else None for key, date in said.dates.items()},
        "cells": [[*place, place_of(node_id)] for place, node_id in said.cells.items()],
        "included": said.included,
        "livers": {key: place_of(node_id) for key, node_id in said.livers.items()},
        "removed": sorted(said.removed),
        "added": said.added,
    }
    return json.dumps(content), places


def restore_table(table: ExamTable, node: Any) -> str | None:
    """Takes the table that ``store_table`` wrote; it is left empty where the node holds none.

    Returns:
        A sentence where it can't be read, else None.
    """
    table.clear()
    text = node.GetParameter(_PARAMETER)
    if not text:
        return None
    try:
        content = json.loads(text)
        if content["version"] != _VERSION:
            return _UNREADABLE
        table.state = _state_of(content, table, node)
    except (ValueError, KeyError, TypeError, AttributeError):
        table.clear()
        return _UNREADABLE
    table.refresh()
    return None


def _role(number: int | str) -> str:
    """One role a volume: within a role MRML closes the gap that a removed node leaves, and the others would move up."""
    return f"HCCNet.Volume.{number}"


def _state_of(content: dict[str, Any], table: ExamTable, node: Any) -> TableState:
    def referred(number: int | None) -> str | None:
        if number is None:
            return None
        volume = node.GetNodeReference(_role(number))
        return f"{_GONE}-{number}" if volume is None else table.hold(volume)

    return TableState(
        channels=tuple(content["channels"]),
        missing_channels=content["missing_channels"],
        one_space=content["one_space"],
        patient=content["patient"],
        told_by_reader=tuple(content["told_by_reader"]),
        loose=[node_id for node_id in map(referred, content["loose"]) if node_id is not None],
        corrections=Corrections(
            dates={key: parse_date(date) if date else None for key, date in content["dates"].items()},
            cells={(key, channel): referred(number) for key, channel, number in content["cells"]},
            included=dict(content["included"]),
            livers={key: referred(number) for key, number in content["livers"].items()},
            removed=set(content["removed"]),
            added=list(content["added"]),
        ),
    )
