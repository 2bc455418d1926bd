"""The kinds of maps that a result holds, and their colours: those of the report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

COLOURS = 256
DIRECTIONS = ("higher", "lower")


@dataclass(frozen=True)
class MapKind:
    """One kind of map.

    Args:
        key: how the code calls it.
        words: what the marked places do.
        title: the same in two words, for a legend.
        entry: where an exam of prediction.json names the files.
        part: which file of that entry: a channel or ``all`` where it is None.
        direction: which colours: of a ``higher`` or a ``lower`` output.
        scale: what 1 stands for.
    """

    key: str
    words: str
    title: str
    entry: str
    part: str | None
    direction: str
    scale: str

    def file_of(self, exam: Mapping[str, Any]) -> str | None:
        """The map's path relative to prediction.json, or None where the exam has no such map."""
        files = exam[self.entry]
        if files is None:
            return None
        name = self.part or ("all" if "all" in files else next(iter(files)))
        return str(files[name])


_EVIDENCE, _CHANGE = "Colours: 1 is the patient's strongest evidence", "Colours: 1 is the patient's largest change"
TOWARDS = MapKind("towards", "raises the output", "raises output", "saliency", None, "higher", _EVIDENCE)
AGAINST = MapKind("against", "lowers the output", "lowers output", "saliency_against", None, "lower", _EVIDENCE)
MORE = MapKind(
    "more", "raised the output since the exam before", "raised since", "saliency_change", "more", "higher", _CHANGE
)
LESS = MapKind(
    "less", "lowered the output since the exam before", "lowered since", "saliency_change", "less", "lower", _CHANGE
)
KINDS = {kind.key: kind for kind in (TOWARDS, AGAINST, MORE, LESS)}


def default_threshold() -> float:
    """The share below which the report draws nothing."""
    from HCCNetLib.reporting import colours

    return colours.THRESHOLD


def add_colour_table(scene: Any, direction: str, name: str) -> Any:
    """Adds a colour table of 256 colours for 0-1: the report's, opaque.

    The report's colours run from its threshold to 1. Below it the first one goes on, so that a lower threshold shows
    something, and the colour of a value never depends on the threshold. Opacity is not in the table: a display node takes
    any alpha above 0 for opaque.
    """
    from HCCNetLib.reporting import colours

    scale = {"higher": colours.HIGHER, "lower": colours.LOWER}[direction]
    shares = np.linspace(0, 1, COLOURS)
    rgb = colours.overlay(np.maximum(shares, colours.THRESHOLD), scale)[:, :3] / 255
    node = scene.AddNewNodeByClass("vtkMRMLColorTableNode", name)
    node.SetTypeToUser()
    node.SetNumberOfColors(COLOURS)
    for index, (share, (red, green, blue)) in enumerate(zip(shares, rgb.tolist(), strict=True)):
        node.SetColor(index, f"{share:.3f}", red, green, blue, 1.0)
    return node
