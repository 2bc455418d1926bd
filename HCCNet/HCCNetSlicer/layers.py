"""What slice views show of a result: layers, legend, the outline of the field."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import slicer

from HCCNetSlicer import result_nodes
from HCCNetSlicer.map_kinds import KINDS
from HCCNetSlicer.record import Record, field_role, map_role

_LABELS = 6  # every fifth, which the legend's one decimal tells exactly


def composites(scene: Any) -> Sequence[Any]:
    """The layers of every slice view."""
    return [node for node in scene.GetNodes() if node.IsA("vtkMRMLSliceCompositeNode")]


def composites_with_maps(record: Record) -> Sequence[Any]:
    """The layers of the views that show a map of the result."""
    maps = {node.GetID() for node in record.maps()}
    return [composite for composite in composites(record.scene) if composite.GetForegroundVolumeID() in maps]


def set_layers(views: Iterable[Any], image: Any, overlay: Any, opacity: float) -> None:
    """Shows an image and a map on it; None is an empty layer. Labels stay."""
    for composite in views:
        was_modifying = composite.StartModify()
        composite.SetBackgroundVolumeID(None if image is None else image.GetID())
        composite.SetForegroundVolumeID(None if overlay is None else overlay.GetID())
        if overlay is not None:
            composite.SetForegroundOpacity(opacity)
        composite.EndModify(was_modifying)


def update_legend(record: Record, prediction: Mapping[str, Any]) -> None:
    """One legend, of the map that is shown: it hides with it, which it would not do by itself."""
    state, legend = record.kept("state"), record.get("legend")
    node = record.get(map_role(state["kind"], state["exam"]))
    if node is None:
        if legend is not None:
            legend.SetVisibility(False)
        return
    if legend is None:
        legend = slicer.vtkSlicerColorLogic.AddDefaultColorLegendDisplayNode(node)
        legend.SetName("HCCNet legend")
        legend.SetNumberOfLabels(_LABELS)
        record.own("legend", legend)
    elif legend.GetDisplayableNode() is not node:
        _detach(legend)
        node.AddAndObserveDisplayNodeID(legend.GetID())
        legend.SetAndObservePrimaryDisplayNode(node.GetDisplayNode())
    legend.SetTitleText(result_nodes.legend_title(KINDS[state["kind"]], state["threshold"], prediction))
    legend.SetVisibility(True)
    legend.Modified()  # a legend that came to another volume is not drawn anew by itself


def update_fields(record: Record) -> None:
    """Outlines the box that the model read of the shown exam, if boxes are to be seen."""
    state = record.kept("state")
    for index in range(len(record.exams)):
        field = record.get(field_role(index))
        if field is not None:
            field.SetDisplayVisibility(state["field"] and index == state["exam"])


def _detach(legend: Any) -> None:
    """Takes the legend from the volume that has it."""
    holder = legend.GetDisplayableNode()
    if holder is not None:
        for n in reversed(range(holder.GetNumberOfDisplayNodes())):
            if holder.GetNthDisplayNodeID(n) == legend.GetID():
                holder.RemoveNthDisplayNodeID(n)
