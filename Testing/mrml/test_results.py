"""Results in real MRML: where maps are drawn, what goes with what, what is saved, and that nothing is left behind."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jsonschema
import nibabel as nib
import numpy as np
import pytest
import slicer
import slicer.util
import vtk
from mrml_helpers import add_volume, hierarchy, matrix
from result_helpers import (
    AFFINE,
    AT_HORIZON,
    DATES,
    NOTICE,
    REPORT,
    SHAPE,
    View,
    Written,
    add_exams,
    centre,
    coloured,
    memory,
    save,
    spot,
    write_bundle,
    write_result,
)
from vtk.util.numpy_support import vtk_to_numpy

from HCCNetLib.inference import prediction_schema
from HCCNetLib.reporting import colours
from HCCNetSlicer import bundle_card, fingerprints, layers, result_nodes
from HCCNetSlicer.hierarchy import is_input
from HCCNetSlicer.results import Result, ResultError, ShownExam, remove_all, show_result, with_fingerprints

ROOT = Path(__file__).resolve().parents[2]
MODULE = ROOT / "HCCNet"


class Shown:
    """A result in a scene and all that it came from."""

    def __init__(self, scene: Any, folder: Path, written: Written | None = None, views: int = 1) -> None:
        self.scene, self.written = scene, written or Written()
        self.views = [View(scene, name) for name in ("Red", "Green")[:views]]
        self.folder = write_result(folder / "result", self.written)
        self.bundle = write_bundle(folder / "bundle", self.folder)
        self.settings = {"bundle": str(self.bundle), "explain": "saliency"}
        self.exams = add_exams(scene, self.written)
        self.before = census(scene)
        self.result = show_result(scene, self.folder, self.exams, self.settings, ["The exam of 2021-03-04 was cut."])

    def again(self) -> Result:
        return show_result(self.scene, self.folder, self.exams, self.settings)

    def layers(self, view: int = 0) -> tuple[Any, Any]:
        composite = self.views[view].composite
        return composite.GetBackgroundVolumeID(), composite.GetForegroundVolumeID()


@pytest.fixture
def shown(scene: Any, tmp_path: Path) -> Shown:
    return Shown(scene, tmp_path)


def census(scene: Any) -> tuple[list[str], int]:
    """The nodes, and how many items the subject hierarchy has."""
    return sorted(node.GetID() for node in scene.GetNodes()), hierarchy(scene).GetNumberOfItems()


def columns(table: Any) -> dict[str, list[Any]]:
    data = table.GetTable()
    arrays = [data.GetColumn(n) for n in range(data.GetNumberOfColumns())]
    return {a.GetName(): [a.GetValue(row) for row in range(a.GetNumberOfTuples())] for a in arrays}


def children(scene: Any, item: int) -> list[str]:
    found = vtk.vtkIdList()
    tree = hierarchy(scene)
    tree.GetItemChildren(item, found)
    return [tree.GetItemName(found.GetId(n)) for n in range(found.GetNumberOfIds())]


# Where maps are drawn

ROTATION = np.array([[0.933, -0.067, 0.354], [0.25, 0.933, -0.259], [-0.313, 0.330, 0.891]])
ROTATION = np.linalg.svd(ROTATION)[0] @ np.linalg.svd(ROTATION)[2]


def around_origin(directions: np.ndarray, spacing: Sequence[float], shape: Sequence[int]) -> np.ndarray:
    """The affine of a volume with these axes whose middle lies at (12, -7, 30) mm."""
    affine = np.eye(4)
    affine[:3, :3] = directions * np.array(spacing)
    affine[:3, 3] = np.array([12.0, -7.0, 30.0]) - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return affine


GEOMETRIES = {
    "as scanned": (np.diag([-1.0, -1.0, 1.0]), (4.0, 4.0, 8.0), SHAPE),
    "flipped": (np.diag([1.0, -1.0, -1.0]), (4.0, 4.0, 8.0), SHAPE),
    "left-handed": (np.diag([1.0, -1.0, 1.0]), (4.0, 4.0, 8.0), SHAPE),
    "permuted": (np.array([[0, 0, -1.0], [1, 0, 0], [0, -1.0, 0]]), (4.0, 4.0, 5.0), (36, 30, 24)),
    "oblique": (ROTATION, (4.0, 4.0, 6.0), (40, 36, 20)),
    "oblique and flipped": (ROTATION @ np.diag([-1.0, 1.0, -1.0]), (4.0, 4.0, 6.0), (40, 36, 20)),
    "anisotropic": (np.diag([-1.0, -1.0, 1.0]), (1.5, 5.0, 9.0), (90, 30, 14)),
}


@pytest.mark.parametrize("name", GEOMETRIES)
def test_a_map_is_drawn_where_it_lies_in_the_patient_and_the_right_way_up(
    scene: Any, tmp_path: Path, name: str
) -> None:
    directions, spacing, shape = GEOMETRIES[name]
    affine = around_origin(directions, spacing, shape)
    wanted = np.array([[-10.0, -25.0, 15.0], [30.0, 10.0, 42.0]])  # the second: more right, anterior and superior
    voxels = [tuple(np.rint(np.linalg.inv(affine) @ (*point, 1))[:3].astype(int)) for point in wanted]
    points = [(affine @ (*voxel, 1))[:3] for voxel in voxels]
    written = Written(DATES[:2], affine, shape, {("towards", n): spot(shape, voxel) for n, voxel in enumerate(voxels)})
    shown = Shown(scene, tmp_path, written)
    view = shown.views[0]
    for plane, across, up in (("Axial", 0, 1), ("Coronal", 0, 2), ("Sagittal", 1, 2)):
        places = []
        for index, point in enumerate(points):
            assert shown.result.show_exam(index) == []
            picture = view.picture(plane, point)
            mask = coloured(picture)
            places.append(centre(mask))
            assert np.abs(places[-1] - view.pixel(point)).max() < 1.5
            millimetres = view.node.GetFieldOfView()[0] / picture.shape[1]
            reach = (2.5 * max(spacing) * math.sqrt(3)) / millimetres + 2
            rows, across_pixels = np.nonzero(mask)
            assert np.hypot(across_pixels - places[-1][0], rows - places[-1][1]).max() < reach
        (first_x, first_y), (second_x, second_y) = places
        moved = np.array(points[1]) - points[0]
        assert second_x - first_x == pytest.approx(-moved[across] / millimetres, abs=2)
        assert second_y - first_y == pytest.approx(-moved[up] / millimetres, abs=2)


def test_below_the_threshold_the_image_is_as_without_a_map(shown: Shown) -> None:
    view, point = shown.views[0], (AFFINE @ (8, 9, 6, 1))[:3]
    shown.result.show_exam(0)
    with_map = view.picture("Axial", point)
    view.composite.SetForegroundVolumeID(None)
    without = view.picture("Axial", point)
    mask = coloured(with_map)
    assert 50 < mask.sum() < 0.02 * mask.size
    assert np.array_equal(with_map[~mask], without[~mask])


def test_colours_are_those_of_the_report(shown: Shown) -> None:
    view, point = shown.views[0], (AFFINE @ (8, 9, 6, 1))[:3]
    shown.result.set_opacity(1)
    for kind, scale, row in (("towards", colours.HIGHER, 9), ("against", colours.LOWER, 14)):
        shown.result.show_exam(0, kind=kind)
        place = (AFFINE @ (8, row, 6, 1))[:3]
        picture = view.picture("Axial", point)
        for voxels, share in ((0, 1.0), (1, 0.8), (2, 0.6)):
            column, line = np.rint(view.pixel(place + np.array([voxels * 4.0, 0, 0]))).astype(int)
            expected = colours.overlay(np.array([share], np.float32), scale)[0, :3]
            assert np.abs(picture[line, column] - expected).max() <= 4


def test_threshold_and_opacity_hold_for_all_exams(shown: Shown) -> None:
    view, point = shown.views[0], (AFFINE @ (8, 9, 6, 1))[:3]
    result = shown.result
    result.show_exam(0)
    few = coloured(view.picture("Axial", point)).sum()
    result.set_threshold(0.7)
    fewer = coloured(view.picture("Axial", point)).sum()
    result.set_threshold(0.05)
    assert 0 < fewer < few
    assert coloured(view.picture("Axial", point)).mean() > 0.5
    faint = view.picture("Axial", point)[220, 175]
    result.set_opacity(0.2)
    result.show_exam(3)
    assert view.composite.GetForegroundOpacity() == 0.2
    result.show_exam(0)
    assert np.ptp(view.picture("Axial", point)[220, 175]) < np.ptp(faint)
    displays = [result.map_node(index, kind).GetDisplayNode() for index in range(1, 4) for kind in ("towards", "less")]
    assert {(d.GetLowerThreshold(), d.GetApplyThreshold(), d.GetWindow(), d.GetLevel()) for d in displays} == {
        (0.05, 1, 1.0, 0.5)
    }


# What goes with what


def test_an_exam_and_its_map_switch_together_in_all_views(scene: Any, tmp_path: Path) -> None:
    shown = Shown(scene, tmp_path, views=2)
    label = add_volume(scene, "label", np.zeros(SHAPE, np.uint8), AFFINE, "vtkMRMLLabelMapVolumeNode")
    for view in shown.views:
        view.composite.SetLabelVolumeID(label.GetID())
    for index in (0, 3, 1):
        assert shown.result.show_exam(index) == []
        expected = shown.exams[index].volumes["DWI_b800"].GetID(), shown.result.map_node(index).GetID()
        assert shown.layers(0) == shown.layers(1) == expected
    one = shown.views[1].composite
    shown.result.show_exam(2, [one])
    assert shown.layers(0) == expected
    assert shown.layers(1)[0] == shown.exams[2].volumes["DWI_b800"].GetID()
    assert all(view.composite.GetLabelVolumeID() == label.GetID() for view in shown.views)


def test_the_latest_exam_is_shown_first(shown: Shown) -> None:
    assert (shown.result.shown_index, shown.result.landmark_index, shown.result.shown_kind) == (3, 3, "towards")
    assert shown.layers() == (shown.exams[3].volumes["DWI_b800"].GetID(), shown.result.map_node(3).GetID())


def test_a_missing_map_is_empty_and_never_the_exam_befores(scene: Any, tmp_path: Path) -> None:
    maps = {("towards", n): spot(SHAPE, (8, 9, 6)) for n in (0, 1, 3)}
    shown = Shown(scene, tmp_path, Written(maps=maps))
    shown.result.show_exam(1)
    assert shown.result.show_exam(2) == []
    assert shown.layers() == (shown.exams[2].volumes["DWI_b800"].GetID(), None)
    assert not coloured(shown.views[0].picture("Axial", (AFFINE @ (8, 9, 6, 1))[:3])).any()
    assert shown.result.view_text(2) == "2022-04-20, 3 of 4, no map"
    assert shown.result.view_text(1) == "2021-09-07, 2 of 4"
    assert shown.result.show_exam(0, kind="more") == []
    assert shown.layers()[1] is None
    assert shown.result.view_text(0) == "2021-03-04, 1 of 4, no map"


def test_a_deleted_map_is_empty_and_said_to_be_missing(shown: Shown) -> None:
    shown.scene.RemoveNode(shown.result.map_node(2))
    assert shown.result.show_exam(2) == [
        "The map of 2022-04-20 of what raises the output was deleted. Predict again to have it back."
    ]
    assert shown.layers()[1] is None


def test_a_deleted_exam_is_empty_and_said_to_be_missing(shown: Shown) -> None:
    shown.result.show_exam(0)
    shown.scene.RemoveNode(shown.exams[1].volumes["DWI_b800"])
    assert shown.result.show_exam(1) == ["DWI_b800 of 2021-09-07 is no longer in the scene, so it can't be shown."]
    assert shown.layers() == (None, shown.result.map_node(1).GetID())


def test_an_exam_that_is_not_there_is_refused(shown: Shown) -> None:
    for index in (-1, 4):
        with pytest.raises(IndexError, match=rf"^exam {index} of 4$"):
            shown.result.show_exam(index)
    with pytest.raises(KeyError):
        shown.result.show_exam(0, kind="sideways")


def test_the_channel_shown_lies_on_the_maps_grid(scene: Any, tmp_path: Path) -> None:
    written = Written(DATES[:1])
    folder = write_result(tmp_path, written)
    (exam,) = add_exams(scene, written)
    far = AFFINE.copy()
    far[2, 3] += 20
    elsewhere = add_volume(scene, "elsewhere", np.zeros(SHAPE, np.int16), far)
    coarse = add_volume(scene, "coarse", np.zeros((20, 18, 6), np.int16), AFFINE)
    volumes = {**exam.volumes, "T1_native": elsewhere, "T1_delayed": coarse}
    view = View(scene)
    show_result(scene, folder, [ShownExam(exam.exam_id, exam.date, volumes)], {})
    assert view.composite.GetBackgroundVolumeID() == exam.volumes["DWI_b800"].GetID()


def test_the_exams_own_display_stays(shown: Shown) -> None:
    display = shown.exams[0].volumes["DWI_b800"].GetDisplayNode()
    display.AutoWindowLevelOff()
    display.SetWindowLevel(77, 33)
    shown.result.show_exam(0)
    shown.again()
    assert (display.GetWindow(), display.GetLevel()) == (77, 33)


def test_without_maps_the_exams_are_shown_alone(scene: Any, tmp_path: Path) -> None:
    shown = Shown(scene, tmp_path, Written(maps={}))
    assert shown.layers() == (shown.exams[3].volumes["DWI_b800"].GetID(), None)
    assert shown.result.node("legend") is None
    assert shown.result.node("colours.higher") is None
    shown.result.remove()
    assert census(scene) == shown.before


# Where views look


def away(by: Sequence[float]) -> np.ndarray:
    """The tests' affine, moved."""
    affine = AFFINE.copy()
    affine[:3, 3] += by
    return affine


def visible_share(view: View) -> float:
    """How much of a view shows something, as it looks now."""
    view.node.SetDimensions(350, 270, 1)
    view.logic.UpdatePipeline()
    view.logic.GetBlend().Update()
    pixels = vtk_to_numpy(view.logic.GetBlend().GetOutput().GetPointData().GetScalars())
    return float((pixels[:, :3].max(axis=-1) > 0).mean())


@pytest.mark.parametrize("orientation", ["Axial", "Coronal", "Sagittal", "oblique"])
def test_an_exam_far_from_where_the_views_look_is_seen(scene: Any, tmp_path: Path, orientation: str) -> None:
    view = View(scene)
    if orientation == "oblique":
        slicer.util.updateVTKMatrixFromArray(view.node.GetSliceToRAS(), to_affine(ROTATION))
        view.node.UpdateMatrices()
    else:
        getattr(view.node, f"SetOrientationTo{orientation}")()
    written = Written(affine=away((200, 200, 500)))
    result = show_result(scene, write_result(tmp_path, written), add_exams(scene, written), {})
    directions = slicer.util.arrayFromVTKMatrix(view.node.GetSliceToRAS())[:3, :3]
    assert visible_share(view) > 0.1
    peak = (written.affine @ (8 + 4 * 3, 9, 6, 1))[:3]
    assert np.abs(slicer.util.arrayFromVTKMatrix(view.node.GetSliceToRAS())[:3, 3] - peak).max() < 1e-6
    assert np.array_equal(slicer.util.arrayFromVTKMatrix(view.node.GetSliceToRAS())[:3, :3], directions)
    view.node.SetXYZOrigin(400, 0, 0)  # panned away
    result.show_exam(3)
    assert visible_share(view) > 0.1


def to_affine(rotation: np.ndarray) -> np.ndarray:
    affine = np.eye(4)
    affine[:3, :3] = rotation
    return affine


def test_a_view_that_shows_something_of_the_exam_stays_where_it_is(shown: Shown) -> None:
    node = shown.views[0].node
    for x, y, z in ((180.0, 160.0, 40.0), (0.0, 0.0, -43.0), (-150.0, 20.0, 12.0)):
        node.SetXYZOrigin(0, 0, 0)
        node.SetSliceToRASByNTP(0, 0, 1, 1, 0, 0, x, y, z, 0)
        before = slicer.util.arrayFromVTKMatrix(node.GetXYToRAS()).tolist()
        shown.result.show_exam(1)
        assert slicer.util.arrayFromVTKMatrix(node.GetXYToRAS()).tolist() == before


def test_without_a_map_views_that_miss_the_exam_look_at_its_middle(scene: Any, tmp_path: Path) -> None:
    view, other = View(scene), View(scene, "Green")
    written = Written(affine=away((0, 0, 900)), maps={})
    result = show_result(scene, write_result(tmp_path, written), add_exams(scene, written), {})
    middle = (written.affine @ (19.5, 17.5, 5.5, 1))[:3]
    assert np.allclose(slicer.util.arrayFromVTKMatrix(view.node.GetSliceToRAS())[:3, 3], middle)
    for node in (view.node, other.node):
        node.SetSliceOffset(0)
    result.show_exam(0, [other.composite])
    assert (view.node.GetSliceOffset(), other.node.GetSliceOffset()) == (0, pytest.approx(middle[2]))


def test_exams_at_different_positions_of_the_table_are_seen_when_switched(scene: Any, tmp_path: Path) -> None:
    shown = Shown(scene, tmp_path)
    transform = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "table")
    transform.SetMatrixTransformToParent(matrix(away((0, 0, 700)) @ np.linalg.inv(AFFINE)))
    for volume in shown.exams[1].volumes.values():
        volume.SetAndObserveTransformNodeID(transform.GetID())
    view = shown.views[0]
    for index in (1, 2, 1, 0):
        shown.result.show_exam(index)
        assert visible_share(view) > 0.1
    # The map stays where it was made, so its peak is no place of the exam.
    shown.result.show_exam(1)
    assert view.node.GetSliceOffset() == pytest.approx((AFFINE @ (0, 0, 5.5, 1))[2] + 700)


def test_a_warped_exam_is_found_too(shown: Shown) -> None:
    volume, view = shown.exams[1].volumes["DWI_b800"], shown.views[0]
    move = vtk.vtkThinPlateSplineTransform()
    source, target = vtk.vtkPoints(), vtk.vtkPoints()
    for corner in ((-100, -100, -60), (100, -100, -60), (-100, 100, -60), (-100, -100, 60), (100, 100, 60), (0, 0, 9)):
        source.InsertNextPoint(corner)
        target.InsertNextPoint(corner[0], corner[1], corner[2] + 700 + (corner[2] == 9))
    move.SetSourceLandmarks(source)
    move.SetTargetLandmarks(target)
    move.SetBasisToR()
    node = shown.scene.AddNewNodeByClass("vtkMRMLTransformNode", "warp")
    node.SetAndObserveTransformToParent(move)
    volume.SetAndObserveTransformNodeID(node.GetID())
    layers.bring_into_view([view.composite], volume, shown.result.map_node(1))
    assert 650 < view.node.GetSliceOffset() < 750


# Legend and field


def test_a_legend_hides_when_its_map_is_deleted(shown: Shown) -> None:
    legend = shown.result.node("legend")
    shown.scene.RemoveNode(shown.result.map_node(3))
    shown.result.show_exam(3)
    assert not legend.GetVisibility()
    shown.result.show_exam(1)
    assert legend.GetVisibility()
    shown.result.observe(lambda: None)
    shown.scene.RemoveNode(shown.result.map_node(0))
    assert legend.GetVisibility()
    shown.scene.RemoveNode(shown.result.map_node(1))
    assert not legend.GetVisibility()


def test_the_legend_goes_on_with_the_exam_where_the_predictions_text_was_deleted(scene: Any, tmp_path: Path) -> None:
    result = Shown(scene, tmp_path, Written(demonstration=True)).result
    scene.RemoveNode(result.node("text.prediction"))
    legend = result.node("legend")
    assert result.show_exam(1) == []
    assert legend.GetDisplayableNode() is result.map_node(1)
    with pytest.raises(ResultError, match=r"^A text of the result was deleted from the scene\. Predict again\.$"):
        result.sentence()


def test_the_legend_goes_with_the_map_and_says_what_it_shows(shown: Shown) -> None:
    result, logic = shown.result, slicer.vtkSlicerColorLogic
    legend = result.node("legend")
    assert (legend.GetNumberOfLabels(), legend.GetLabelFormat()) == (3, "%.1f")
    for index, kind, words in ((0, "towards", "raises output"), (2, "against", "lowers output")):
        result.show_exam(index, kind=kind)
        node = result.map_node(index, kind)
        assert legend.GetVisibility()
        assert legend.GetDisplayableNode() is node
        assert legend.GetPrimaryDisplayNode() is node.GetDisplayNode()
        assert logic.GetColorLegendDisplayNode(node) is legend
        assert legend.GetTitleText() == words
        assert [n for n in range(4) if logic.GetNumberOfColorLegendDisplayNodes(result.map_node(n, kind))] == [index]
    assert result.map_words() == "Colours: 1 is the patient's strongest evidence; below 0.15 nothing is drawn."
    result.set_threshold(0.3)
    result.show_exam(0, kind="more")
    assert not legend.GetVisibility()
    result.show_exam(1, kind="more")
    assert legend.GetVisibility()
    assert legend.GetTitleText() == "raised since"
    assert result.map_words() == "Colours: 1 is the patient's largest change; below 0.30 nothing is drawn."


@pytest.mark.parametrize("hand", [1.0, -1.0])
def test_the_field_is_the_box_of_the_prediction_and_only_the_shown_exams_is_seen(
    scene: Any, tmp_path: Path, hand: float
) -> None:
    axes = (ROTATION * np.array([1, 1, hand])).T.tolist()
    result = Shown(scene, tmp_path, Written(axes=axes)).result
    fields = [result.field_node(index) for index in range(4)]
    assert not any(field.GetDisplayVisibility() for field in fields)
    result.show_field(True)
    result.show_exam(1)
    assert [bool(field.GetDisplayVisibility()) for field in fields] == [False, True, False, False]
    assert fields[0].GetSize() == pytest.approx((60, 50, 40))
    assert fields[0].GetCenter() == pytest.approx((10, 5, 4))
    to_world = slicer.util.arrayFromVTKMatrix(fields[0].GetObjectToWorldMatrix())
    assert np.abs(to_world[:3, :3] @ np.diag([1, 1, hand]) - np.array(axes).T).max() < 1e-6
    assert np.linalg.det(to_world) == pytest.approx(1)
    display = fields[0].GetDisplayNode()
    assert not display.GetFillVisibility()
    assert not display.GetHandlesInteractive()
    assert fields[0].GetLocked()
    result.show_field(False)
    assert not any(field.GetDisplayVisibility() for field in fields)


# Numbers and words


def test_tables_hold_numbers_as_numbers_and_dates_as_text(shown: Shown) -> None:
    risk, exams = shown.result.node("table.risk"), shown.result.node("table.exams")
    assert columns(risk) == {
        "As of": list(DATES),
        "Date (decimal year)": pytest.approx([2021 + 62 / 365, 2021 + 249 / 365, 2022 + 109 / 365, 2023 + 10 / 365]),
        "Risk": pytest.approx([0.1, 0.11, 0.12, 0.13]),
    }
    held = columns(exams)
    assert list(held) == [
        *("Exam", "Date (decimal year)", "Months before latest exam", "Attention", "Attention, gradient-weighted"),
        *("Risk without it", "Liver inside the field", "Cube filled", "Peak of the map"),
        *("Peak R (mm)", "Peak A (mm)", "Peak S (mm)", "Members positive at the peak"),
    ]
    assert held["Attention, gradient-weighted"] == pytest.approx([0.5, math.nan, 0.5, 0.5], nan_ok=True)
    assert held["Risk without it"] == pytest.approx([0.1, 0.1, 0.1, math.nan], nan_ok=True)
    assert [held[f"Peak {axis} (mm)"][0] for axis in "RAS"] == [1, 2, 3]
    by_horizon = shown.result.node("table.horizons")
    assert columns(by_horizon) == {
        "Horizon": ["latest exam", "6 months", "12 months", "24 months"],
        "Months after the latest exam": [0, 6, 12, 24],
        "Risk": pytest.approx([0, 0.06, 0.123, 0.21]),
        "Smallest member": pytest.approx([0, 0.04, 0.08, 0.13]),
        "Largest member": pytest.approx([0, 0.09, 0.166, 0.27]),
        "Training cohort's average": pytest.approx([0, 0.05, 0.1, 0.18]),
    }
    for table in (risk, exams, by_horizon):
        data = table.GetTable()
        kinds = [data.GetColumn(n).GetClassName() for n in range(data.GetNumberOfColumns())]
        assert kinds == ["vtkStringArray"] + ["vtkDoubleArray"] * (len(kinds) - 1)


def test_charts_show_risk_and_attention_by_date(shown: Shown) -> None:
    risk, attention = shown.result.node("chart.risk"), shown.result.node("chart.attention")
    assert (risk.GetTitle(), attention.GetTitle()) == (
        "HCCNet risk within 12 months by date",
        "HCCNet attention by date",
    )
    first, last = 2021 + 62 / 365, 2023 + 10 / 365
    for chart in (risk, attention):
        assert not chart.GetLegendVisibility()  # it would cover the latest exam
        low, high = chart.GetYAxisRange()
        assert -0.1 < low < 0 < 1 < high < 1.1  # markers at 0 and 1 are whole
        low, high = chart.GetXAxisRange()
        assert first - 0.2 < low < first < last < high < last + 0.2
    assert risk.GetXAxisTitle() == "Exam (line: as of this exam; diamonds: without this exam)"
    for chart, names in (
        (risk, ["Risk", "Risk without it"]),
        (attention, ["Attention", "Attention, gradient-weighted"]),
    ):
        series = [chart.GetNthPlotSeriesNode(n) for n in range(chart.GetNumberOfPlotSeriesNodes())]
        assert [node.GetYColumnName() for node in series] == names
        assert {node.GetXColumnName() for node in series} == {"Date (decimal year)"}
        for node in series:
            held = columns(node.GetTableNode())
            assert {node.GetXColumnName(), node.GetYColumnName(), node.GetLabelColumnName()} <= set(held)
            assert node.GetPlotType() == node.PlotTypeScatter


def test_a_chart_shows_the_risk_by_horizon_with_members_and_cohort(shown: Shown) -> None:
    chart = shown.result.node("chart.horizons")
    assert chart.GetTitle() == "HCCNet risk by horizon"
    low, high = chart.GetXAxisRange()
    assert -3 < low < 0 < 24 < high < 27
    series = [chart.GetNthPlotSeriesNode(n) for n in range(chart.GetNumberOfPlotSeriesNodes())]
    assert [node.GetYColumnName() for node in series] == [
        *("Risk", "Smallest member", "Largest member", "Training cohort's average"),
    ]
    assert {node.GetXColumnName() for node in series} == {"Months after the latest exam"}
    assert {node.GetTableNode().GetID() for node in series} == {shown.result.node("table.horizons").GetID()}


def test_a_cohort_that_is_not_known_is_not_drawn(scene: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unknown = {months: at | {"average": None} for months, at in AT_HORIZON.items()}
    monkeypatch.setattr("result_helpers.AT_HORIZON", unknown)
    result = Shown(scene, tmp_path, Written()).result
    assert result.node("chart.horizons").GetNumberOfPlotSeriesNodes() == 3
    assert all(map(math.isnan, columns(result.node("table.horizons"))["Training cohort's average"]))
    assert "Cohort" not in result.headline().horizons


@pytest.mark.parametrize("horizons", [None, (12.0,)])
def test_a_result_of_one_horizon_has_no_curve(scene: Any, tmp_path: Path, horizons: tuple[float, ...] | None) -> None:
    result = Shown(scene, tmp_path, Written(horizons=horizons)).result
    assert result.node("table.horizons") is result.node("chart.horizons") is None
    assert result.horizons_months == [12.0]
    assert (result.headline().figure, result.headline().horizons) == ("12.3%", "")
    assert result.restore() == []


def test_the_headline_holds_the_risk_within_each_horizon(shown: Shown) -> None:
    headline = shown.result.headline()
    words = re.sub(r"<[^>]+>", " ", headline.horizons).split()
    assert " ".join(words) == (
        "Horizon Risk Members Cohort 6 months 6.0% 4.0% to 9.0% 5.0% 12 months, main 12.3% 8.0% to 16.6% 10.0% "
        "24 months 21.0% 13.0% to 27.0% 18.0%"
    )
    assert headline.horizon_note.startswith("Members: smallest to largest of 2. Cohort: the observed risk")


def test_the_sentence_gives_risk_spread_and_horizon(shown: Shown) -> None:
    assert shown.result.sentence() == (
        "Estimated risk of a diagnosis of hepatocellular carcinoma within 12 months after 2023-01-11: 12.3%, 8.0% to 16.6% "
        f"from the smallest to the largest of 2 members. {NOTICE}"
    )


def test_what_is_not_calibrated_is_not_called_a_risk(scene: Any, tmp_path: Path) -> None:
    result = Shown(scene, tmp_path, Written(calibrated=False)).result
    assert result.sentence().startswith("Network output, not calibrated, for the risk of a diagnosis of hepatocellular")
    assert "Network output (not calibrated)" in columns(result.node("table.risk"))
    assert result.node("chart.risk").GetNthPlotSeriesNode(0).GetYColumnName() == "Network output (not calibrated)"


def test_a_demonstration_on_a_patient_gives_no_risk_and_says_so_everywhere(scene: Any, tmp_path: Path) -> None:
    result = Shown(scene, tmp_path, Written(demonstration=True)).result
    assert result.sentence() == (
        "Demonstration only: this result has no meaning for this patient, so no risk of a diagnosis of hepatocellular "
        f"carcinoma within 12 months after 2023-01-11 is given. {NOTICE}"
    )
    for role in ("chart.risk", "chart.attention", "chart.horizons"):
        assert result.node(role).GetTitle().endswith(" (demonstration, no meaning)")
    for node in (result.node("table.risk"), result.node("table.exams"), result.map_node(0)):
        assert node.GetName().endswith(" (demonstration, no meaning)")
    assert result.view_text(3).endswith(", demonstration")
    assert result.headline().figure == "Demonstration"
    assert result.headline().spread is None
    assert result.headline().horizons == ""
    assert result.record.node.GetAttribute("HCCNet.meaning") == "demonstration, no meaning"


def test_a_demonstration_on_a_phantom_has_a_meaning(scene: Any, tmp_path: Path) -> None:
    result = Shown(scene, tmp_path, Written(demonstration=True, phantom=True)).result
    assert result.sentence().startswith("Generated patient (phantom). Estimated risk of a diagnosis")
    assert result.node("chart.risk").GetTitle() == "HCCNet risk within 12 months by date"


def test_the_script_node_tells_where_the_result_came_from(shown: Shown) -> None:
    result, node = shown.result, shown.result.record.node
    assert (node.GetName(), node.GetAttribute("ModuleName")) == ("HCCNet result", "HCCNet")
    assert node.GetDescription() == node.GetAttribute("HCCNet.notice") == NOTICE
    assert result.settings == shown.settings
    assert result.notices == ["The exam of 2021-03-04 was cut."]
    assert result.bundle == {
        "name": "test-bundle",
        "version": "2",
        "sha256": result.prediction["bundle"]["sha256"],
        "path": str(shown.bundle),
    }
    assert [date.isoformat() for date in result.exam_dates] == list(DATES)
    assert result.volume(2, "DWI_b0") is shown.exams[2].volumes["DWI_b0"]
    assert result.report == REPORT
    assert json.loads(result.node("text.prediction").GetText()) == result.prediction


def test_the_test_results_are_predictions_as_the_schema_has_them(shown: Shown) -> None:
    jsonschema.validate(shown.result.prediction, prediction_schema())


def test_a_deleted_text_is_said_to_be_missing(shown: Shown) -> None:
    shown.scene.RemoveNode(shown.result.node("text.report"))
    with pytest.raises(ResultError, match=r"^A text of the result was deleted from the scene\. Predict again\.$"):
        _ = shown.result.report


# Places in the hierarchy, and names


def test_maps_and_fields_lie_with_their_exam_and_the_rest_in_a_folder_of_the_patient(shown: Shown) -> None:
    tree, scene = hierarchy(shown.scene), shown.scene
    patient = tree.GetItemByName("Doe^Jane")
    study = tree.GetItemChildWithName(patient, "Study 20210907")
    assert children(scene, study)[2:] == [
        "HCCNet field 2021-09-07",
        "HCCNet raises the output 2021-09-07",
        "HCCNet lowers the output 2021-09-07",
        "HCCNet raised the output since the exam before 2021-09-07",
        "HCCNet lowered the output since the exam before 2021-09-07",
    ]
    assert children(scene, tree.GetItemChildWithName(patient, "HCCNet result")) == [
        *("HCCNet result", "HCCNet prediction", "HCCNet report", "HCCNet risk", "HCCNet exams", "HCCNet horizons"),
        *("Risk as of each exam", "Risk without the exam", "HCCNet risk within 12 months by date"),
        *("Attention", "Attention, gradient-weighted", "HCCNet attention by date"),
        *("Risk by horizon", "Smallest member by horizon", "Largest member by horizon"),
        *("Training cohort's average by horizon", "HCCNet risk by horizon"),
    ]


def test_volumes_outside_the_hierarchy_have_their_result_at_the_top(scene: Any, tmp_path: Path) -> None:
    written = Written(DATES[:1])
    folder = write_result(tmp_path, written)
    (exam,) = add_exams(scene, written)
    tree = hierarchy(scene)
    tree.RemoveItem(tree.GetItemByName("Doe^Jane"), False, True)
    result = show_result(scene, folder, [exam], {})
    assert children(scene, tree.GetSceneItemID())[-3:] == [
        "HCCNet field 2021-03-04",
        "HCCNet raises the output 2021-03-04",
        "HCCNet lowers the output 2021-03-04",
    ]
    result.remove()
    assert not tree.GetItemByName("HCCNet result")


def test_no_name_that_is_made_here_holds_the_patients(shown: Shown) -> None:
    known = shown.before[0]
    for index in range(4):
        shown.result.show_exam(index)
    made = [node for node in shown.scene.GetNodes() if node.GetID() not in known]
    assert len(made) > 40
    assert not [node.GetName() for node in made if "doe" in node.GetName().lower() or "jane" in node.GetName().lower()]


# Nothing is left behind


def test_removing_leaves_the_scene_as_it_was(shown: Shown) -> None:
    others = shown.scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "own")
    shown.result.show_exam(1)
    shown.result.observe(lambda: None)
    shown.result.remove()
    background = shown.exams[1].volumes["DWI_b800"].GetID()
    assert shown.layers() == (background, None)
    assert Result.find(shown.scene) is None
    shown.scene.RemoveNode(others)
    assert census(shown.scene) == shown.before
    shown.result.remove()


def test_removing_leaves_a_foreground_that_is_not_ours(shown: Shown) -> None:
    own = add_volume(shown.scene, "own", np.zeros(SHAPE, np.int16), AFFINE)
    shown.views[0].composite.SetForegroundVolumeID(own.GetID())
    shown.result.set_opacity(0.3)
    assert shown.views[0].composite.GetForegroundOpacity() != 0.3
    shown.result.remove()
    assert shown.layers()[1] == own.GetID()


def test_a_saved_results_storage_goes_too(shown: Shown, tmp_path: Path) -> None:
    save(shown.scene, tmp_path / "saved")
    kept = [v.GetStorageNode().GetID() for exam in shown.exams for v in exam.volumes.values()]
    shown.result.remove()
    assert [n.GetID() for n in shown.scene.GetNodes() if n.IsA("vtkMRMLStorageNode")] == kept


def test_a_folder_with_something_of_the_users_stays(shown: Shown) -> None:
    tree = hierarchy(shown.scene)
    folder = tree.GetItemByName("HCCNet result")
    note = shown.scene.AddNewNodeByClass("vtkMRMLTextNode", "my note")
    tree.CreateItem(folder, note)
    shown.result.remove()
    assert children(shown.scene, folder) == ["my note"]


def test_another_patients_result_leaves_nothing_of_the_first(scene: Any, tmp_path: Path) -> None:
    first = Shown(scene, tmp_path / "first", views=2)
    first_nodes = {node.GetID() for node in scene.GetNodes()} - set(first.before[0])
    texts = first.result.node("text.prediction")
    written = Written(("2019-01-02", "2020-02-03"), maps={("towards", 0): spot(SHAPE, (5, 5, 5))})
    exams = add_exams(scene, written, patient="Roe^Richard")
    before = census(scene)
    second = show_result(scene, write_result(tmp_path / "second", written), exams, {})
    tree = hierarchy(scene)
    assert children(scene, tree.GetItemByName("Doe^Jane")) == [f"Study {date.replace('-', '')}" for date in DATES]
    assert texts.GetScene() is None
    assert first.layers(0) == first.layers(1) == (exams[1].volumes["DWI_b800"].GetID(), None)
    second.remove()
    gone = {node_id for node_id in before[0] if node_id in first_nodes}
    assert (
        census(scene)[0]
        == sorted(set(before[0]) - gone)
        == sorted(
            {
                *first.before[0],
                *[part.GetID() for exam in exams for v in exam.volumes.values() for part in (v, v.GetDisplayNode())],
            }
        )
    )


def test_ten_results_in_a_row_take_no_more_nodes_and_memory_than_one(scene: Any, tmp_path: Path) -> None:
    shape = (80, 72, 24)
    shown = Shown(scene, tmp_path, Written(shape=shape, affine=np.diag([-2.0, -2.0, 4.0, 1.0])))
    for _ in range(3):
        shown.again()
    nodes, items, used = scene.GetNumberOfNodes(), hierarchy(scene).GetNumberOfItems(), memory()
    for _ in range(10):
        result = shown.again()
        for index in range(4):
            result.show_exam(index)
            shown.views[0].picture("Axial", (-80.0, -70.0, 48.0))
    assert (scene.GetNumberOfNodes(), hierarchy(scene).GetNumberOfItems()) == (nodes, items)
    one_result = 14 * np.prod(shape) * 4
    assert memory() - used < one_result


def test_what_a_deleted_script_node_leaves_goes_with_the_next_result(shown: Shown) -> None:
    nodes = shown.scene.GetNumberOfNodes()
    shown.scene.RemoveNode(shown.result.record.node)
    assert Result.find(shown.scene) is None
    again = shown.again()
    assert shown.scene.GetNumberOfNodes() == nodes
    again.remove()
    assert census(shown.scene)[0] == shown.before[0]


def test_a_copy_that_the_user_made_of_a_map_stays(shown: Shown) -> None:
    copy = shown.scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "mine")
    copy.CopyContent(shown.result.map_node(0))
    for name in shown.result.map_node(0).GetAttributeNames():
        copy.SetAttribute(name, shown.result.map_node(0).GetAttribute(name))
    shown.again()
    shown.again()
    assert copy.GetScene() is shown.scene


def test_a_copy_of_a_map_is_the_users_and_no_channel(shown: Shown) -> None:
    copy = copied(shown, 0)
    shown.result.remove()
    assert copy.GetScene() is shown.scene
    assert not is_input(copy)
    remove_all(shown.scene)
    assert copy.GetScene() is shown.scene
    assert not is_input(copy)


def copied(shown: Shown, index: int) -> Any:
    """A user's copy of a map, as Slicer clones it: with all attributes."""
    node = shown.result.map_node(index)
    copy = shown.scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "mine")
    copy.CopyContent(node)
    for name in node.GetAttributeNames():
        copy.SetAttribute(name, node.GetAttribute(name))
    return copy


def test_what_a_deleted_folder_leaves_can_be_removed(shown: Shown) -> None:
    copy = copied(shown, 0)
    delete_below_folder(shown.scene, with_folder=True)
    assert not hierarchy(shown.scene).GetItemByName("HCCNet result")
    assert Result.find(shown.scene) is None
    assert shown.scene.GetNumberOfNodes() > len(shown.before[0]) + 30
    remove_all(shown.scene)
    assert copy.GetScene() is shown.scene
    shown.scene.RemoveNode(copy)
    assert census(shown.scene) == shown.before
    assert shown.layers()[1] is None
    remove_all(shown.scene)
    assert census(shown.scene) == shown.before


def test_an_empty_folder_of_ours_goes_with_the_rest(shown: Shown) -> None:
    delete_below_folder(shown.scene, with_folder=False)
    assert hierarchy(shown.scene).GetItemByName("HCCNet result")
    remove_all(shown.scene)
    assert census(shown.scene) == shown.before


def delete_below_folder(scene: Any, with_folder: bool) -> None:
    """Deletes as a running Slicer does: the nodes, and their items with them."""
    tree, items = hierarchy(scene), vtk.vtkIdList()
    folder = tree.GetItemByName("HCCNet result")
    tree.GetItemChildren(folder, items, True)
    for item in [items.GetId(n) for n in range(items.GetNumberOfIds())]:
        scene.RemoveNode(tree.GetItemDataNode(item))
        tree.RemoveItem(item, False, False)
    if with_folder:
        tree.RemoveItem(folder, False, False)


def is_ours(node: Any) -> bool:
    return node.GetAttribute("HCCNet.Result") is not None


# Several results


@pytest.fixture
def twice(shown: Shown, tmp_path: Path) -> Shown:
    """A result whose scene was saved and then added to itself."""
    path = save(shown.scene, tmp_path / "saved")
    shown.scene.SetURL(str(path))
    shown.scene.Import()
    return shown


def test_results_of_a_scene_that_was_added_twice_stay_apart(twice: Shown) -> None:
    first = twice.result
    second = Result.find(twice.scene)
    assert second is not None
    assert second.record.node is not first.record.node
    assert second.record.mark != first.record.mark
    ours = {node.GetID() for node in first.record.owned()}
    theirs = {node.GetID() for node in second.record.owned()}
    assert len(ours) == len(theirs)
    assert not ours & theirs
    assert not any(is_input(node) for node in (*first.record.maps(), *second.record.maps()))
    second.remove()
    assert Result.find(twice.scene).record.node is first.record.node
    assert first.show_exam(0) == []
    first.remove()
    assert not any(is_ours(node) for node in twice.scene.GetNodes())


def test_removing_the_first_of_two_equal_results_leaves_the_second_whole(twice: Shown) -> None:
    count = len(twice.result.record.owned())
    twice.result.remove()
    second = Result.find(twice.scene)
    assert second is not None
    assert len(second.record.owned()) == count
    assert second.restore() == []
    assert second.others == 0
    second.remove()
    assert not any(is_ours(node) for node in twice.scene.GetNodes())
    assert not hierarchy(twice.scene).GetItemByName("HCCNet result")


def test_of_several_results_the_last_is_found_and_the_others_are_told_of(twice: Shown) -> None:
    second = Result.find(twice.scene)
    assert second is not None
    assert twice.result.others == second.others == 1
    assert second.told() == f"{second.sentence()} The scene holds 2 results; this is one of them."
    remove_all(twice.scene)
    assert Result.find(twice.scene) is None
    assert not [node.GetName() for node in twice.scene.GetNodes() if (node.GetName() or "").startswith("HCCNet")]


# What can't be shown changes nothing


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda content: content.clear(), "phantom"),
        *((lambda content, key=key: content.pop(key), key) for key in ("exams", "bundle", "notice", "risk", "spread")),
        *((lambda content, key=key: content.pop(key), key) for key in ("members", "trajectory", "landmark", "phantom")),
        (lambda content: content.pop("horizon_months"), "horizon_months"),
        (lambda content: content["exams"][2].pop("peak"), "peak"),
        (lambda content: content["exams"][2]["field"]["box"].update(axes=[[1, 0, 0]]), "axes"),
        (lambda content: content["exams"][0].update(date="yesterday"), "date"),
        (lambda content: content["exams"][0].update(saliency_change={"more": "x"}), "less"),
        (lambda content: content.update(exams=[]), "exams"),
        (lambda content: content.update(risk_by_horizon=[]), "risk_by_horizon"),
        (lambda content: content["risk_by_horizon"][1].pop("average"), "average"),
        (lambda content: content["risk_by_horizon"][0].update(high=1.5), "high"),
        (lambda content: content.update(trajectory=[{"as_of": "2021-03-04", "risk": 1.5}]), "risk"),
        (lambda content: content.update(risk=math.nan), "risk"),
        (lambda content: content["bundle"].update(calibrated="yes"), "calibrated"),
    ],
)
def test_a_prediction_without_what_is_shown_is_refused_in_a_sentence(shown: Shown, change: Any, fault: str) -> None:
    path = shown.folder / "prediction.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")
    before = census(shown.scene)
    with pytest.raises(ResultError) as error:
        shown.again()
    assert str(error.value) == f"prediction.json is damaged: {fault} is missing or wrong. Predict again."
    assert census(shown.scene) == before


def test_a_prediction_that_is_no_object_is_refused(shown: Shown) -> None:
    (shown.folder / "prediction.json").write_text("[]", encoding="utf-8")
    with pytest.raises(ResultError, match=r"^prediction\.json is damaged: its content is missing or wrong\. Predict"):
        shown.again()


def test_a_map_that_is_no_volume_is_refused(shown: Shown) -> None:
    path = shown.folder / "saliency/2021-03-04.nii.gz"
    nib.save(nib.Nifti1Image(np.zeros((4, 4), np.float32), AFFINE), path)
    with pytest.raises(ResultError, match=r"^The map of what raises the output, of the exam of 2021-03-04, can't be"):
        shown.again()


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("prediction.json", None, "prediction.json can't be read from the result's folder. Predict again."),
        ("prediction.json", b"{", "prediction.json is damaged. Predict again."),
        ("report.html", None, "report.html can't be read from the result's folder. Predict again."),
        ("report.html", b"\xff\xfe\xff", "report.html can't be read from the result's folder. Predict again."),
        (
            "saliency/more/2021-09-07.nii.gz",
            None,
            "The map of what raised the output since the exam before, of the exam of 2021-09-07, can't be read. "
            "Predict again.",
        ),
        (
            "saliency/2021-03-04.nii.gz",
            b"\x1f\x8b\x08\x00damaged",
            "The map of what raises the output, of the exam of 2021-03-04, can't be read. Predict again.",
        ),
    ],
)
def test_a_damaged_result_is_refused_and_the_earlier_one_stays(
    shown: Shown, file: str, content: bytes | None, message: str
) -> None:
    if content is None:
        (shown.folder / file).unlink()
    else:
        (shown.folder / file).write_bytes(content)
    before, earlier = census(shown.scene), shown.result.record.node
    with pytest.raises(ResultError) as error:
        shown.again()
    assert str(error.value) == message
    assert census(shown.scene) == before
    assert Result.find(shown.scene).record.node is earlier


def test_a_result_of_other_exams_is_refused(shown: Shown) -> None:
    with pytest.raises(ResultError) as error:
        show_result(shown.scene, shown.folder, shown.exams[:3], shown.settings)
    assert str(error.value) == "The result is of other exams than those that were given. Predict again."
    assert Result.find(shown.scene) is not None


def test_what_fails_half_way_leaves_nothing(shown: Shown, monkeypatch: pytest.MonkeyPatch) -> None:
    shown.result.remove()

    def fail(*_: Any) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(result_nodes, "add_field", fail)
        with pytest.raises(MemoryError):
            shown.again()
    assert census(shown.scene) == shown.before
    with pytest.raises(TypeError):
        show_result(shown.scene, shown.folder, shown.exams, {"bundle": object()})
    assert census(shown.scene) == shown.before


# Staleness


def test_a_fresh_result_is_not_stale(shown: Shown) -> None:
    assert shown.result.stale_reasons() == []
    assert shown.result.stale_reasons(dict(reversed(shown.settings.items())), shown.exams[::-1]) == []


def test_edited_voxels_make_it_stale_even_when_nobody_was_told(shown: Shown) -> None:
    called: list[int] = []
    shown.result.observe(lambda: called.append(1))
    volume = shown.exams[1].volumes["DWI_b0"]
    slicer.util.arrayFromVolume(volume)[3, 4, 5] += 1
    assert not called
    assert shown.result.stale_reasons() == ["The voxels of DWI_b0 of 2021-09-07 have changed."]
    slicer.util.arrayFromVolumeModified(volume)
    assert called
    slicer.util.arrayFromVolume(volume)[3, 4, 5] -= 1
    assert shown.result.stale_reasons() == []


def test_a_moved_exam_makes_it_stale(shown: Shown) -> None:
    called: list[int] = []
    shown.result.observe(lambda: called.append(1))
    volume = shown.exams[0].volumes["DWI_b800"]
    reason = ["DWI_b800 of 2021-03-04 has been moved: its geometry or its transform changed."]
    volume.SetSpacing(4.0, 4.0, 8.1)
    assert called
    assert shown.result.stale_reasons() == reason
    volume.SetSpacing(4.0, 4.0, 8.0)
    assert shown.result.stale_reasons() == []
    transform = shown.scene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "move")
    volume.SetAndObserveTransformNodeID(transform.GetID())
    assert shown.result.stale_reasons() == []
    called.clear()
    shift = np.eye(4)
    shift[0, 3] = 0.5
    transform.SetMatrixTransformToParent(matrix(shift))
    assert called
    assert shown.result.stale_reasons() == reason


def test_a_warping_transform_makes_it_stale(shown: Shown) -> None:
    volume = shown.exams[0].volumes["DWI_b0"]
    warp = vtk.vtkThinPlateSplineTransform()
    source, target = vtk.vtkPoints(), vtk.vtkPoints()
    for x in (-100, 100):
        for y in (-100, 100):
            for z in (-60, 60):
                source.InsertNextPoint(x, y, z)
                target.InsertNextPoint(x, y, z)
    source.InsertNextPoint(0, 0, 4)
    target.InsertNextPoint(5, 0, 4)
    warp.SetSourceLandmarks(source)
    warp.SetTargetLandmarks(target)
    warp.SetBasisToR()
    node = shown.scene.AddNewNodeByClass("vtkMRMLTransformNode", "warp")
    node.SetAndObserveTransformToParent(warp)
    volume.SetAndObserveTransformNodeID(node.GetID())
    reason = ["DWI_b0 of 2021-03-04 has been moved: its geometry or its transform changed."]
    assert shown.result.stale_reasons() == reason
    assert shown.again().stale_reasons() == []


def test_a_removed_exam_makes_it_stale(shown: Shown) -> None:
    called: list[int] = []
    shown.result.observe(lambda: called.append(1))
    other = shown.scene.AddNewNodeByClass("vtkMRMLTextNode", "other")
    shown.scene.RemoveNode(other)
    assert not called
    shown.scene.RemoveNode(shown.exams[2].volumes["DWI_b0"])
    assert called
    assert shown.result.stale_reasons() == ["DWI_b0 of 2022-04-20 was removed from the scene."]


def test_another_bundle_makes_it_stale(shown: Shown) -> None:
    (shown.bundle / "bundle.json").write_text("{ }", encoding="utf-8")
    assert shown.result.stale_reasons() == ["The bundle that made the result has been changed or replaced."]
    (shown.bundle / "bundle.json").unlink()
    assert shown.result.stale_reasons() == ["The bundle that made the result can't be found any more."]


def test_other_settings_and_exams_make_it_stale(shown: Shown) -> None:
    stale = shown.result.stale_reasons
    assert stale({**shown.settings, "explain": "none", "method": "x", "livers": {"a": "b"}}) == [
        "Chosen differently now: the explanation, the liver of an exam."
    ]
    assert stale({"explain": "saliency", "one_space": True, "new": 1}) == [
        "Chosen differently now: the bundle, whether channels share one patient space, another setting."
    ]
    assert stale({**shown.settings, "method": None, "livers": {}, "one_space": False}) == []
    assert stale(exams=shown.exams[1:]) == ["Other exams, dates or channels are chosen now."]
    other = add_volume(shown.scene, "other", np.zeros(SHAPE, np.int16), AFFINE)
    exam = shown.exams[0]
    swapped = ShownExam(exam.exam_id, exam.date, {**exam.volumes, "DWI_b0": other})
    assert stale(exams=[swapped, *shown.exams[1:]]) == ["Another volume is chosen now for DWI_b0 of 2021-03-04."]


def test_what_is_edited_while_the_prediction_runs_is_stale_from_the_start(shown: Shown) -> None:
    sent = [with_fingerprints(exam) for exam in shown.exams]
    slicer.util.arrayFromVolume(shown.exams[0].volumes["DWI_b0"])[:] += 1
    shown.scene.RemoveNode(shown.exams[1].volumes["DWI_b0"])
    result = show_result(shown.scene, shown.folder, sent, shown.settings)
    assert result.stale_reasons() == [
        "The voxels of DWI_b0 of 2021-03-04 have changed.",
        "DWI_b0 of 2021-09-07 was removed from the scene.",
    ]


def test_nobody_is_called_after_it_is_no_longer_watched(shown: Shown) -> None:
    called: list[int] = []
    shown.result.observe(lambda: called.append(1))
    shown.result.unobserve()
    shown.exams[0].volumes["DWI_b0"].SetSpacing(1, 1, 1)
    shown.scene.RemoveNode(shown.exams[0].volumes["DWI_b0"])
    assert not called


def test_the_demonstration_bundle_is_found_where_it_is_installed_now(
    shown: Shown, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, given in (("there", ""), ("here", None), ("path", "there")):
        there = write_bundle(tmp_path / "one" / name, shown.folder)
        monkeypatch.setattr("HCCNetSlicer.staleness.DEMONSTRATION", there)
        settings = {"bundle": str(there) if given == "there" else given}
        result = show_result(shown.scene, shown.folder, shown.exams, settings)
        assert result.bundle["path"] == ""
        assert str(tmp_path) not in result.record.node.GetParameter("settings")
        assert result.stale_reasons({"bundle": ""}) == []
        elsewhere = write_bundle(tmp_path / "two" / name, shown.folder)
        monkeypatch.setattr("HCCNetSlicer.staleness.DEMONSTRATION", elsewhere)
        (there / "bundle.json").unlink()
        assert result.stale_reasons({"bundle": str(elsewhere)}) == []
        (elsewhere / "bundle.json").write_text("{ }", encoding="utf-8")
        assert result.stale_reasons() == ["The bundle that made the result has been changed or replaced."]
    assert bundle_card.DEMONSTRATION.is_dir()


GONE = "This result is no longer in the scene."


@pytest.mark.parametrize("how", ["removed", "replaced", "scene closed", "script node deleted"])
def test_a_result_that_is_gone_says_so_and_nothing_else(shown: Shown, how: str) -> None:
    result, called = shown.result, []
    result.observe(lambda: called.append(result.stale_reasons()))
    if how == "removed":
        Result.find(shown.scene).remove()
    elif how == "replaced":
        shown.again()
    elif how == "scene closed":
        shown.scene.Clear(False)
    else:
        shown.scene.RemoveNode(result.record.node)
    assert called == ([] if how == "scene closed" else [[GONE]])
    called.clear()
    shown.exams[0].volumes["DWI_b0"].SetSpacing(1, 1, 1)
    assert not called
    assert not result.is_in_scene
    assert result.stale_reasons(shown.settings, shown.exams) == [GONE]
    for use in (
        *(result.sentence, result.told, result.restore, lambda: result.show_exam(0), lambda: result.show_field(True)),
        *(lambda: result.set_threshold(0.5), lambda: result.set_opacity(0.5), lambda: result.view_text(0)),
        *(lambda: result.prediction, lambda: result.report, lambda: result.others, lambda: result.observe(print)),
        *(lambda: result.exam_dates, lambda: result.map_node(0), lambda: result.node("legend"), lambda: result.opacity),
    ):
        with pytest.raises(ResultError) as error:
            use()
        assert str(error.value) == GONE
    count = shown.scene.GetNumberOfNodes()
    result.unobserve()
    result.remove()
    assert shown.scene.GetNumberOfNodes() == count


def test_what_is_told_says_when_it_is_out_of_date(shown: Shown) -> None:
    result = shown.result
    assert result.told() == result.sentence()
    slicer.util.arrayFromVolume(shown.exams[0].volumes["DWI_b0"])[0, 0, 0] += 1
    shown.scene.RemoveNode(shown.exams[2].volumes["DWI_b0"])
    assert result.told() == (
        f"{result.sentence()} Out of date: The voxels of DWI_b0 of 2021-03-04 have changed. "
        "DWI_b0 of 2022-04-20 was removed from the scene. Predict again."
    )


def test_a_damaged_record_is_told_in_words_and_can_be_removed(shown: Shown) -> None:
    for name in ("exams", "state"):
        shown.result.record.node.UnsetParameter(name)
    result = Result.find(shown.scene)
    with pytest.raises(ResultError, match=r"^The result in the scene is damaged\. Remove it and predict again\.$"):
        result.show_exam(0)
    result.remove()
    assert census(shown.scene) == shown.before


def test_sixteen_volumes_are_checked_in_less_than_fifty_milliseconds(scene: Any) -> None:
    voxels = np.random.default_rng(0).integers(0, 2000, (117, 91, 20)).astype(np.int16)
    volumes = [add_volume(scene, f"v{n}", voxels, AFFINE) for n in range(16)]
    times = []
    for _ in range(3):
        start = time.perf_counter()
        for volume in volumes:
            fingerprints.fingerprint(volume)
        times.append(time.perf_counter() - start)
    assert min(times) < 0.05


# Saved and reopened


def rounded(held: dict[str, list[Any]]) -> str:
    """A table's content to the six digits that Slicer writes into a file; prediction.json keeps all."""
    return repr({name: [v if isinstance(v, str) else f"{v:.5g}" for v in values] for name, values in held.items()})


def told(result: Result) -> dict[str, Any]:
    """All that should be the same after reopening."""
    maps = [result.map_node(index, kind) for index in range(4) for kind in ("towards", "against", "more", "less")]
    found: dict[str, Any] = {
        "prediction": result.prediction,
        "report": result.report,
        "kept": [result.settings, result.bundle, result.notices, result.exam_dates],
        "state": [result.shown_index, result.shown_kind, result.threshold, result.opacity, result.field_is_shown],
        "tables": [rounded(columns(result.node(role))) for role in ("table.risk", "table.exams", "table.horizons")],
        "legend": [result.node("legend").GetTitleText(), result.node("legend").GetVisibility()],
        "sentence": result.sentence(),
    }
    for n, node in enumerate(maps):
        if node is not None:
            display = node.GetDisplayNode()
            found[f"map {n}"] = [
                slicer.util.arrayFromVolume(node).tobytes(),
                np.round(slicer.util.arrayFromVTKMatrix(to_ras(node)), 6).tolist(),
                [display.GetWindow(), display.GetLevel(), round(display.GetLowerThreshold(), 6)],
                [display.GetApplyThreshold(), display.GetInterpolate(), display.GetAutoWindowLevel()],
                [display.GetColorNode().GetLookupTable().GetTableValue(n) for n in range(256)],
            ]
    for role in ("chart.risk", "chart.attention", "chart.horizons"):
        chart = result.node(role)
        series = [chart.GetNthPlotSeriesNode(n) for n in range(chart.GetNumberOfPlotSeriesNodes())]
        found[role] = [chart.GetTitle(), chart.GetYAxisRange()] + [
            (
                s.GetName(),
                s.GetXColumnName(),
                s.GetYColumnName(),
                s.GetLabelColumnName(),
                s.GetLineStyle(),
                s.GetMarkerStyle(),
                s.GetTableNode().GetName(),
            )
            for s in series
        ]
    for index in range(4):
        field = result.field_node(index)
        placed = np.round(slicer.util.arrayFromVTKMatrix(field.GetObjectToWorldMatrix()), 6).tolist()
        found[f"field {index}"] = [np.round(field.GetSize(), 6).tolist(), placed, bool(field.GetDisplayVisibility())]
    return found


def to_ras(node: Any) -> Any:
    result = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(result)
    return result


@pytest.fixture(params=["opened", "added to another"])
def reopened(request: pytest.FixtureRequest, scene: Any, tmp_path: Path) -> tuple[Shown, dict[str, Any]]:
    """A result that was saved with an oblique geometry, its scene closed and opened again."""
    written = Written(affine=around_origin(ROTATION, (4.03, 3.97, 8.1), SHAPE), axes=ROTATION.T.tolist())
    shown = Shown(scene, tmp_path, written)
    shown.result.show_field(True)
    shown.result.set_threshold(0.25)
    shown.result.set_opacity(0.45)
    shown.result.show_exam(1, kind="against")
    before = told(shown.result)
    path = save(scene, tmp_path / "saved")
    scene.Clear(False)
    scene.SetURL(str(path))
    if request.param == "opened":
        scene.Connect()
    else:
        for name in ("a", "b", "c"):
            add_volume(scene, name, np.zeros(SHAPE, np.int16), AFFINE)
            scene.AddNewNodeByClass("vtkMRMLScriptedModuleNode", name)
        scene.Import()
    return shown, before


def test_a_reopened_scene_holds_the_same_result(reopened: tuple[Shown, dict[str, Any]]) -> None:
    shown, before = reopened
    result = Result.find(shown.scene)
    assert result is not None
    assert result.restore() == []
    after = told(result)
    assert {name for name in before if after[name] != before[name]} == set()
    assert result.stale_reasons(shown.settings) == []
    view = View(shown.scene, "Yellow")
    result.show_exam(2)
    node = result.map_node(2)
    place = (shown.written.affine @ (16, 9, 6, 1))[:3]
    mask = coloured(view.picture("Axial", place))
    assert view.composite.GetForegroundVolumeID() == node.GetID()
    assert np.abs(centre(mask) - view.pixel(place)).max() < 1.5


def test_a_reopened_result_is_stale_when_something_is_edited_and_goes_without_a_trace(
    reopened: tuple[Shown, dict[str, Any]],
) -> None:
    shown, _ = reopened
    result = Result.find(shown.scene)
    assert result is not None
    slicer.util.arrayFromVolume(result.volume(0, "DWI_b0"))[0, 0, 0] += 1
    assert result.stale_reasons() == ["The voxels of DWI_b0 of 2021-03-04 have changed."]
    result.remove()
    left = [node.GetName() for node in shown.scene.GetNodes() if (node.GetName() or "").startswith("HCCNet")]
    assert left == []
    assert not hierarchy(shown.scene).GetItemByName("HCCNet result")


@pytest.mark.parametrize("how", ["opened", "added to another"])
def test_a_result_can_be_restored_as_soon_as_its_scene_is_read(shown: Shown, tmp_path: Path, how: str) -> None:
    shown.result.show_exam(1, kind="against")
    scene, path = shown.scene, save(shown.scene, tmp_path / "saved")
    told: list[Any] = []

    def read(*_: Any) -> None:
        result = Result.find(scene)
        told.append((result.restore(), result.shown_index, result.told() == result.sentence()))
        told.append(scene.GetNumberOfNodesByClass("vtkMRMLColorLegendDisplayNode"))

    tag = scene.AddObserver(slicer.vtkMRMLScene.EndImportEvent, read)
    scene.Clear(False)
    scene.SetURL(str(path))
    (scene.Connect if how == "opened" else scene.Import)()
    scene.RemoveObserver(tag)
    assert told == [([], 1, True), 1]


# The module's manners


def test_a_scene_is_read_where_neither_scipy_nor_torch_is(shown: Shown) -> None:
    code = (
        "import sys\n"
        "for name in ('torch', 'scipy', 'nibabel'): sys.modules[name] = None\n"
        "from HCCNetLib.reporting import colours, elements, horizons, numbers, tables\n"
    )
    subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True)


def test_maps_are_as_in_their_files(shown: Shown) -> None:
    image = nib.load(shown.folder / "saliency/less/2022-04-20.nii.gz")
    node = shown.result.map_node(2, "less")
    assert np.array_equal(slicer.util.arrayFromVolume(node).transpose(2, 1, 0), np.asarray(image.dataobj))
    assert slicer.util.arrayFromVolume(node).dtype == np.float32
    assert np.allclose(slicer.util.arrayFromVTKMatrix(to_ras(node)), image.affine)


def test_a_quick_look_finds_what_was_told_and_a_thorough_one_the_rest(shown: Shown) -> None:
    volume = shown.result.record.volumes()[0]
    assert shown.result.stale_reasons(quick=True) == shown.result.stale_reasons()
    before = list(shown.result.stale_reasons())
    slicer.util.arrayFromVolume(volume)[:] += 1  # in place, without a word
    assert shown.result.stale_reasons(quick=True) == before
    assert len(shown.result.stale_reasons()) == len(before) + 1
    slicer.util.arrayFromVolume(volume)[:] += 1
    slicer.util.arrayFromVolumeModified(volume)
    assert len(shown.result.stale_reasons(quick=True)) == len(before) + 1
