"""What slice views show of a result: layers, where they look, legend, the outline of the field."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import slicer
import slicer.util
import vtk
from numpy.typing import NDArray

from HCCNetSlicer import result_nodes
from HCCNetSlicer.map_kinds import KINDS
from HCCNetSlicer.record import Record, field_role, map_role
from HCCNetSlicer.volumes import array_of, to_world

Points = NDArray[np.float64]

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


def bring_into_view(views: Iterable[Any], volume: Any, overlay: Any = None) -> None:
    """Moves those views that show nothing of a volume to its map's peak, or else to its middle; the others stay.

    Exams lie at different positions of the table: a view that showed one may miss the next. Views keep their orientation
    and how much they show.

    Args:
        views: vtkMRMLSliceCompositeNode of the views.
        volume: that should be seen.
        overlay: its map, None where there is none.
    """
    box = _box(volume)
    if box is None:
        return
    blind = [node for node in map(_slice_node, views) if node is not None and not _meets(_visible(node), box)]
    if not blind:
        return
    place = None if overlay is None else _peak(overlay)
    # A map stays where it was made when its exam is moved away.
    if place is None or not _meets(place[None], box):
        place = (box @ np.array([0.5, 0.5, 0.5, 1.0]))[:3]
    for node in blind:
        node.JumpSliceByCentering(*place)


def _slice_node(composite: Any) -> Any:
    """The view of these layers: they have the same name in the layout."""
    scene, name = composite.GetScene(), composite.GetLayoutName()
    nodes = (
        scene.GetNthNodeByClass(n, "vtkMRMLSliceNode") for n in range(scene.GetNumberOfNodesByClass("vtkMRMLSliceNode"))
    )
    return next((node for node in nodes if node.GetLayoutName() == name), None)


def _visible(view: Any) -> Points:
    """The corners (4, 3) of what a view shows, in the scene."""
    (x, y, _), (width, height, _) = view.GetXYZOrigin(), view.GetFieldOfView()
    corners = [(x + a * width / 2, y + b * height / 2, 0, 1) for a, b in ((-1, -1), (1, -1), (1, 1), (-1, 1))]
    points: Points = (np.array(corners) @ array_of(view.GetSliceToRAS()).T)[:, :3]
    return points


def _box(volume: Any) -> Points | None:
    """The affine from the unit cube to where a volume lies in the scene; None without voxels.

    Of a bent volume, the box around it along the scene's axes.
    """
    if volume.GetImageData() is None:
        return None
    world = to_world(volume)
    if world is None:
        bounds = np.zeros(6)
        volume.GetRASBounds(bounds)
        low, high = bounds[::2], bounds[1::2]
        box = np.diag([*np.maximum(high - low, 0.001), 1])
        box[:3, 3] = low
        return box
    cells = np.diag([*map(float, volume.GetImageData().GetDimensions()), 1.0])
    cells[:3, 3] = -0.5
    return world @ _to_ras(volume) @ cells


def _peak(node: Any) -> Points | None:
    """Where a map is highest; None where it is nowhere above 0, or bent."""
    world = to_world(node)
    if world is None or node.GetImageData() is None:
        return None
    voxels = slicer.util.arrayFromVolume(node)
    if voxels.max() <= 0:
        return None
    k, j, i = np.unravel_index(int(voxels.argmax()), voxels.shape)
    place: Points = (world @ _to_ras(node) @ np.array([i, j, k, 1.0]))[:3]
    return place


def _to_ras(volume: Any) -> Points:
    matrix = vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(matrix)
    return array_of(matrix)


def _meets(polygon: Points, box: Points) -> bool:
    """Whether a flat convex polygon (N, 3), which may be a point, has a part inside a box (an affine of the unit cube)."""
    inside = (np.column_stack([polygon, np.ones(len(polygon))]) @ np.linalg.inv(box).T)[:, :3]
    for axis in range(3):
        for sign, limit in ((1, 0), (-1, 1)):
            inside = _cut(inside, sign * (inside[:, axis] - limit))
    return len(inside) > 0


def _cut(polygon: Points, height: Points) -> Points:
    """What is left of a convex polygon (N, 3) where the height (N), which is that of a plane, is not below 0."""
    left = []
    for point, following, here, there in zip(
        polygon, np.roll(polygon, -1, axis=0), height, np.roll(height, -1), strict=True
    ):
        if here >= 0:
            left.append(point)
        if here * there < 0:
            left.append(point + (following - point) * here / (here - there))
    return np.array(left).reshape(-1, 3)


def hide_lone_legend(record: Record) -> None:
    """Hides the legend where its map is no longer in the scene, which it would not do by itself."""
    legend = record.get("legend")
    if legend is not None and legend.GetVisibility() and _shown_map(record) is None:
        legend.SetVisibility(False)


def update_legend(record: Record) -> None:
    """One legend, of the map that is shown: it hides with it."""
    state, legend, node = record.kept("state"), record.get("legend"), _shown_map(record)
    if node is None:
        hide_lone_legend(record)
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
    legend.SetTitleText(result_nodes.legend_title(KINDS[state["kind"]], state["threshold"], record.meaning))
    legend.SetVisibility(True)
    legend.Modified()  # a legend that came to another volume is not drawn anew by itself


def update_fields(record: Record) -> None:
    """Outlines the box that the model read of the shown exam, if boxes are to be seen."""
    state = record.kept("state")
    for index in range(len(record.exams)):
        field = record.get(field_role(index))
        if field is not None:
            field.SetDisplayVisibility(state["field"] and index == state["exam"])


def _shown_map(record: Record) -> Any:
    state = record.kept("state")
    return record.get(map_role(state["kind"], state["exam"]))


def _detach(legend: Any) -> None:
    """Takes the legend from the volume that has it."""
    holder = legend.GetDisplayableNode()
    if holder is not None:
        for n in reversed(range(holder.GetNumberOfDisplayNodes())):
            if holder.GetNthDisplayNodeID(n) == legend.GetID():
                holder.RemoveNthDisplayNodeID(n)
