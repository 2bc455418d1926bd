"""The table of exams into a script node and back, so that a saved scene brings it along; volumes as node references."""

from __future__ import annotations

import json
from typing import Any

from HCCNetLib.readers.dates import parse_date
from HCCNetSlicer.exam_table import Corrections, ExamTable, TableState

_ROLE = "HCCNet.Volume"
_PARAMETER = "HCCNet.Exams"
_GONE = "gone"  # no node has this ID: a choice whose volume was removed stays a choice


def store_table(table: ExamTable, node: Any) -> None:
    """Writes a table into a ``vtkMRMLScriptedModuleNode``; what else the node holds is left alone."""
    state, said = table.state, table.state.corrections
    ids = [*state.loose, *said.cells.values(), *said.livers.values()]
    places = {node_id: number for number, node_id in enumerate(dict.fromkeys(filter(None, ids)))}

    def place_of(node_id: str | None) -> int | None:
        return None if node_id is None else places[node_id]

    content = {
        "channels": state.channels,
        "missing_channels": state.missing_channels,
        "one_space": state.one_space,
        "patient": state.patient,
        "loose": [places[node_id] for node_id in state.loose],
        "dates": {key: date.isoformat() if date else None for key, date in said.dates.items()},
        "cells": [[*place, place_of(node_id)] for place, node_id in said.cells.items()],
        "included": said.included,
        "livers": {key: place_of(node_id) for key, node_id in said.livers.items()},
        "removed": sorted(said.removed),
        "added": said.added,
    }
    node.RemoveNodeReferenceIDs(_ROLE)
    for node_id, number in places.items():
        node.SetNthNodeReferenceID(_ROLE, number, node_id)
    node.SetParameter(_PARAMETER, json.dumps(content))


def restore_table(table: ExamTable, node: Any) -> None:
    """Takes the table that ``store_table`` wrote; it is left empty where the node holds none."""
    table.clear()
    text = node.GetParameter(_PARAMETER)
    if not text:
        return
    content = json.loads(text)

    def referred(number: int | None) -> str | None:
        return None if number is None else node.GetNthNodeReferenceID(_ROLE, number) or _GONE

    table.state = TableState(
        channels=tuple(content["channels"]),
        missing_channels=content["missing_channels"],
        one_space=content["one_space"],
        patient=content["patient"],
        loose=[referred(number) or _GONE for number in content["loose"]],
        corrections=Corrections(
            dates={key: parse_date(date) if date else None for key, date in content["dates"].items()},
            cells={(key, channel): referred(number) for key, channel, number in content["cells"]},
            included=content["included"],
            livers={key: referred(number) for key, number in content["livers"].items()},
            removed=set(content["removed"]),
            added=content["added"],
        ),
    )
    table.refresh()
