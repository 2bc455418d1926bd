"""What slice views show of a result: layers, where they look, legend, the outline of the field, the exams side by side."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import slicer
import slicer.util
from numpy.typing import NDArray

from HCCNetSlicer import side_by_side
from HCCNetSlicer.map_kinds import KINDS
from HCCNetSlicer.record import Record, field_role, map_role
from HCCNetSlicer.volumes import array_of, own_affine, to_world

Points = NDArray[np.float64]

_LEGEND_PIXELS = (32, 110)  # Slicer derives the size of the letters from the width: about 13 pixels
_LEGEND_LABELS = 3
_VIEWS = "HCCNet.views"  # on a legend: how many views there were when it was made
_LEGEND_HEIGHT = 0.3  # above the bottom of the view, whose top carries the exam's date


def composites(scene: Any) -> Sequence[Any]:
    """The layers of every slice view."""
    return [node for node in scene.GetNodes() if node.IsA("vtkMRMLSliceCompositeNode")]


def usual_composites(scene: Any) -> Sequence[Any]:
    """The layers of the slice views that show one exam at a time."""
    return [node for node in composites(scene) if not side_by_side.is_view(node.GetLayoutName())]


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


def jump_to(scene: Any, point: Points) -> None:
    """Moves the slices that show one exam at a time to a point, RAS mm; a view that is zoomed past it is centred at it."""
    for composite in usual_composites(scene):
        view = _slice_node(composite)
        if view is not None:
            view.JumpSliceByOffsetting(*point)
            pixel, size = _pixel(view, point), view.GetDimensions()[:2]
            if (pixel < 0).any() or (pixel > size).any():
                view.JumpSliceByCentering(*point)


def show_volume(scene: Any, volume: Any) -> None:
    """Shows a volume alone in the views of one exam."""
    views = usual_composites(scene)
    set_layers(views, volume, None, 0)
    bring_into_view(views, volume)


def outline_liver(liver: Any, volumes: Sequence[Any] | None) -> None:
    """Outlines a liver in the slice views whose background is one of its exam's volumes, and in no other.

    Args:
        liver: segmentation, label map or ROI, in a scene.
        volumes: of its exam; None: in all views, as Slicer does it.
    """
    ids = {volume.GetID() for volume in volumes or ()}
    of_exam = [composite for composite in composites(liver.GetScene()) if composite.GetBackgroundVolumeID() in ids]
    if liver.IsA("vtkMRMLLabelMapVolumeNode"):
        _outline_label_map(liver, of_exam)
        return
    liver.CreateDefaultDisplayNodes()
    display = liver.GetDisplayNode()
    if liver.IsA("vtkMRMLSegmentationNode"):
        display.SetVisibility2DFill(False)
        display.SetVisibility2DOutline(True)
    views = [view for view in map(_slice_node, of_exam) if view is not None]
    in_space = [] if volumes is None else _nodes(liver.GetScene(), "vtkMRMLViewNode")
    display.SetViewNodeIDs([view.GetID() for view in (*views, *in_space)])
    display.SetVisibility2D(volumes is None or bool(views))


def _outline_label_map(liver: Any, of_exam: Sequence[Any]) -> None:
    for composite in composites(liver.GetScene()):
        if composite in of_exam:
            composite.SetLabelVolumeID(liver.GetID())
            view = _slice_node(composite)
            if view is not None:
                view.SetUseLabelOutline(True)
        elif composite.GetLabelVolumeID() == liver.GetID():
            composite.SetLabelVolumeID(None)


def show_side_by_side(record: Record) -> None:
    """Shows each exam with its map in its own view, which all scroll and zoom together."""
    state, exams = record.kept("state"), record.exams
    for composite in composites(record.scene):
        name = composite.GetLayoutName()
        if side_by_side.is_view(name):
            index = side_by_side.exam_of(name, len(exams))
            image = overlay = None
            if index is not None:
                image = record.volume(index, exams[index]["shown"])
                overlay = record.get(map_role(state["kind"], index))
            set_layers([composite], image, overlay, state["opacity"])
            composite.SetLinkedControl(True)
    place_side_by_side(record)


def place_side_by_side(record: Record, stay: bool = False) -> None:
    """Turns these views to one place on one scale: the peak of the exam shown last, else its middle.

    An exam that does not reach this place is shown at the peak of its own map, or at its middle.

    Args:
        record: of the result.
        stay: leaves each view where it is, and only brings all onto one scale.
    """
    shown = []
    for composite in composites(record.scene):
        image, view = record.scene.GetNodeByID(composite.GetBackgroundVolumeID() or ""), _slice_node(composite)
        if side_by_side.is_view(composite.GetLayoutName()) and image is not None and image.GetImageData() is not None:
            shown.append((view, image, record.scene.GetNodeByID(composite.GetForegroundVolumeID() or "")))
    views, boxes = [view for view, *_ in shown], [_bounds(image) for _, image, _ in shown]
    if stay:
        places = [array_of(view.GetSliceToRAS())[:3, 3] for view in views]
    else:
        place = _place_shown(record)
        places = [
            place if place is not None and box[2, 0] <= place[2] <= box[2, 1] else _place(overlay, box)
            for (*_, overlay), box in zip(shown, boxes, strict=True)
        ]
    side_by_side.place_views(views, boxes, places)


def _place_shown(record: Record) -> Points | None:
    """Where the exam shown last is looked at; None where it is no longer in the scene."""
    state = record.kept("state")
    index = state["exam"]
    image = record.volume(index, record.exams[index]["shown"])
    if image is None or image.GetImageData() is None:
        return None
    return _place(record.get(map_role(state["kind"], index)), _bounds(image))


def _place(overlay: Any, box: Points) -> Points:
    """The middle of an exam, at the height of its map's peak."""
    peak, place = None if overlay is None else _peak(overlay), box.mean(axis=1)
    if peak is not None and box[2, 0] <= peak[2] <= box[2, 1]:
        place[2] = peak[2]
    return place


def _bounds(volume: Any) -> Points:
    """The bounds (3, 2) of a volume in the scene, RAS mm."""
    bounds = np.zeros(6)
    volume.GetRASBounds(bounds)
    return bounds.reshape(3, 2)


def slice_nodes(scene: Any) -> list[Any]:
    """Every slice view."""
    return _nodes(scene, "vtkMRMLSliceNode")


def _nodes(scene: Any, name: str) -> list[Any]:
    return [scene.GetNthNodeByClass(n, name) for n in range(scene.GetNumberOfNodesByClass(name))]


def _slice_node(composite: Any) -> Any:
    """The view of these layers: they have the same name in the layout."""
    name = composite.GetLayoutName()
    return next((node for node in slice_nodes(composite.GetScene()) if node.GetLayoutName() == name), None)


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
    return world @ own_affine(volume) @ cells


def _peak(node: Any) -> Points | None:
    """Where a map is highest; None where it is nowhere above 0, or bent."""
    world = to_world(node)
    if world is None or node.GetImageData() is None:
        return None
    voxels = slicer.util.arrayFromVolume(node)
    if voxels.max() <= 0:
        return None
    k, j, i = np.unravel_index(int(voxels.argmax()), voxels.shape)
    place: Points = (world @ own_affine(node) @ np.array([i, j, k, 1.0]))[:3]
    return place


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
    views = str(len(slice_nodes(record.scene)))
    if legend is not None and legend.GetAttribute(_VIEWS) != views:
        remove_legend(record)
        legend = None
    if legend is None:
        legend = slicer.vtkSlicerColorLogic.AddDefaultColorLegendDisplayNode(node)
        legend.SetName("HCCNet legend")
        legend.SetNumberOfLabels(_LEGEND_LABELS)
        legend.SetAttribute(_VIEWS, views)
        record.own("legend", legend)
    elif legend.GetDisplayableNode() is not node:
        _detach(legend)
        node.AddAndObserveDisplayNodeID(legend.GetID())
        legend.SetAndObservePrimaryDisplayNode(node.GetDisplayNode())
    legend.SetTitleText(KINDS[state["kind"]].title)
    legend.SetVisibility(True)
    fit_legend(record)
    legend.Modified()  # a legend that came to another volume is not drawn anew by itself


def remove_legend(record: Record) -> None:
    """Removes the legend, so that the next one is drawn in all views: Slicer's views draw only legends that came after them."""
    legend = record.get("legend")
    if legend is not None:
        record.scene.RemoveNode(legend)


def fit_legend(record: Record) -> None:
    """Puts the legend into one view, at the side where the map's peak is not, in letters of one size.

    To be called again when views have another size: Slicer knows sizes in shares of the view only.
    """
    legend, node = record.get("legend"), _shown_map(record)
    view = None if legend is None or node is None else _view_of(node)
    if view is None:
        return
    size = np.maximum(view.GetDimensions()[:2], 1)
    peak = _peak(node)
    is_left = peak is not None and _pixel(view, peak)[0] > size[0] / 2
    legend.SetViewNodeIDs([view.GetID()])
    legend.SetSize(*np.minimum(np.array(_LEGEND_PIXELS) / size, 0.6))
    legend.SetPosition(0.02 if is_left else 0.98, _LEGEND_HEIGHT)


def _view_of(overlay: Any) -> Any:
    """The first slice view that shows a map, of those that the layout shows; None where there is none."""
    showing = [c for c in composites(overlay.GetScene()) if c.GetForegroundVolumeID() == overlay.GetID()]
    views = [view for view in map(_slice_node, showing) if view is not None]
    return next((view for view in views if view.IsMappedInLayout()), views[0] if views else None)


def _pixel(view: Any, point: Points) -> Points:
    """Column and row (from the bottom) of a point, RAS mm, in a view."""
    to_pixel = np.linalg.inv(array_of(view.GetXYToRAS()))
    pixel: Points = (to_pixel @ np.array([*point, 1.0]))[:2]
    return pixel


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
