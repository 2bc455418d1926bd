"""The exams side by side: a layout that Slicer reads, each view its exam at one place and scale, on real slice nodes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import slicer
import vtk
from mrml_helpers import add_volume, matrix
from result_helpers import AFFINE, DATES, SHAPE, Written, add_exams, spot, write_result
from slicer_fakes import LayoutManager

from HCCNetSlicer import layers, side_by_side
from HCCNetSlicer.results import Result, show_result

SIZE = (300, 400)


@pytest.fixture
def manager(scene: Any) -> Iterator[LayoutManager]:
    manager = LayoutManager(scene)
    side_by_side.register(manager.layoutLogic().GetLayoutNode())
    yield manager
    manager.logic.SetMRMLScene(None)


def show(scene: Any, manager: LayoutManager, folder: Path, written: Written) -> Result:
    result = show_result(scene, write_result(folder / "result", written), add_exams(scene, written), {})
    manager.setLayout(side_by_side.layout_for(len(written.dates)))
    for name in manager.sliceViewNames():
        manager.node(name).SetDimensions(*SIZE, 1)
    result.show_side_by_side()
    return result


def place(manager: LayoutManager, name: str) -> np.ndarray:
    """Middle of what a view shows, RAS mm."""
    to_ras = manager.node(name).GetSliceToRAS()
    return np.array([to_ras.GetElement(axis, 3) for axis in range(3)])


def ours(manager: LayoutManager) -> list[str]:
    return [name for name in manager.sliceViewNames() if side_by_side.is_view(name)]


@pytest.mark.parametrize("exams", [1, 2, 4, 5, 12])
def test_the_layout_has_a_view_an_exam_and_one_for_the_chart(scene: Any, manager: LayoutManager, exams: int) -> None:
    manager.setLayout(side_by_side.layout_for(exams))
    assert side_by_side.is_ours(manager.layout)
    shown = [name for name in ours(manager) if manager.node(name).IsMappedInLayout()]
    assert shown == [f"HCCNet{n}" for n in range(1, exams + 1)]
    for name in shown:
        assert manager.node(name).GetOrientation() == "Axial"
        assert manager.node(name).GetViewGroup() == side_by_side.GROUP
    assert [manager.plotWidget(n).mrmlPlotViewNode().GetLayoutName() for n in range(manager.plotViewCount)] == [
        "HCCNet"
    ]


def test_of_many_exams_the_latest_are_shown() -> None:
    assert side_by_side.layout_for(20) == side_by_side.layout_for(12)
    assert [side_by_side.exam_of(f"HCCNet{n}", 20) for n in (1, 12)] == [8, 19]
    assert [side_by_side.exam_of(f"HCCNet{n}", 4) for n in (1, 4, 5)] == [0, 3, None]


def test_each_view_shows_its_exam_with_its_map(scene: Any, manager: LayoutManager, tmp_path: Path) -> None:
    result = show(scene, manager, tmp_path, Written())
    for index in range(4):
        composite = manager.composite(f"HCCNet{index + 1}")
        image = result.volume(index, result.record.exams[index]["shown"])
        assert composite.GetBackgroundVolumeID() == image.GetID()
        assert composite.GetForegroundVolumeID() == result.map_node(index).GetID()
        assert composite.GetForegroundOpacity() == pytest.approx(result.opacity)
        assert composite.GetLinkedControl()
    assert result.view_texts() == {
        result.volume(i, result.record.exams[i]["shown"]).GetID(): f"{date}, {i + 1} of 4"
        for i, date in enumerate(DATES)
    }
    result.show_exam(1, kind="less")
    result.show_side_by_side()
    assert manager.composite("HCCNet1").GetForegroundVolumeID() is None  # the first exam has no map of change
    assert manager.composite("HCCNet3").GetForegroundVolumeID() == result.map_node(2, "less").GetID()


def test_an_exam_that_is_chosen_does_not_replace_the_others(scene: Any, manager: LayoutManager, tmp_path: Path) -> None:
    result = show(scene, manager, tmp_path, Written())
    before = [manager.composite(name).GetBackgroundVolumeID() for name in ours(manager)]
    result.show_exam(0)
    assert [manager.composite(name).GetBackgroundVolumeID() for name in ours(manager)] == before
    assert manager.composite("Red").GetBackgroundVolumeID() == before[0]


TURN = np.array([[0.9, -0.3, 0.1], [0.3, 0.95, 0.05], [-0.1, 0.0, 0.99]])
AFFINES = {
    "as scanned": AFFINE,
    "flipped": AFFINE @ np.array([[-1, 0, 0, SHAPE[0] - 1], [0, -1, 0, SHAPE[1] - 1], [0, 0, 1, 0], [0, 0, 0, 1]]),
    "permuted": AFFINE[:, [2, 0, 1, 3]] @ np.diag([0.5, 1.0, 2.0, 1.0]),
    "oblique": np.block([[TURN @ np.diag([4.0, 4.0, 8.0]), np.array([[-80.0], [-70.0], [-40.0]])], [np.eye(4)[3:]]]),
    "anisotropic": AFFINE @ np.diag([0.5, 2.0, 1.5, 1.0]),
}


@pytest.mark.parametrize("affine", AFFINES.values(), ids=AFFINES.keys())
def test_all_views_show_one_place_on_one_scale(
    scene: Any, manager: LayoutManager, tmp_path: Path, affine: np.ndarray
) -> None:
    """The peak of the exam that is shown, for every way in which an exam's axes may run."""
    maps = {("towards", i): spot(SHAPE, (8 + 4 * i, 18, 3 + i)) for i in range(4)}
    result = show(scene, manager, tmp_path, Written(maps=maps, affine=affine))
    for index in (3, 1):
        result.show_exam(index)
        result.show_side_by_side()
        peak = (affine @ [8 + 4 * index, 18, 3 + index, 1])[:3]
        scales, places = set(), set()
        for name in ours(manager):
            view = manager.node(name)
            assert place(manager, name)[2] == pytest.approx(peak[2], abs=1e-6)
            places.add(tuple(np.round(place(manager, name), 3)))
            assert view.GetOrientation() == "Axial"
            scales |= {round(fov / pixels, 6) for fov, pixels in zip(view.GetFieldOfView()[:2], SIZE, strict=True)}
            bounds = np.zeros(6)
            scene.GetNodeByID(manager.composite(name).GetBackgroundVolumeID()).GetRASBounds(bounds)
            half = np.array(view.GetFieldOfView()[:2]) / 2
            middle = place(manager, name)[:2]
            assert (bounds[:4:2] >= middle - half - 1e-3).all()  # all of the exam can be seen
            assert (bounds[1:4:2] <= middle + half + 1e-3).all()
        assert (len(scales), len(places)) == (1, 1)  # one point of the patient is at one pixel in all of them


def test_an_exam_that_does_not_reach_the_place_is_shown_at_its_own_peak(
    scene: Any, manager: LayoutManager, tmp_path: Path
) -> None:
    written = Written(maps={("towards", i): spot(SHAPE, (20, 18, 3 + i)) for i in range(4)})
    result = show(scene, manager, tmp_path, written)
    far = AFFINE.copy()
    far[2, 3] += 500
    for node in (*(result.volume(0, c) for c in ("DWI_b0", "DWI_b800")), result.map_node(0)):
        node.SetIJKToRASMatrix(matrix(far))
    result.show_side_by_side()
    assert place(manager, "HCCNet1")[2] == pytest.approx((far @ [20, 18, 3, 1])[2])
    assert place(manager, "HCCNet2")[2] == pytest.approx((AFFINE @ [20, 18, 6, 1])[2])


def test_views_that_change_their_size_are_brought_onto_one_scale_again(
    scene: Any, manager: LayoutManager, tmp_path: Path
) -> None:
    result = show(scene, manager, tmp_path, Written())
    for name in ours(manager):
        manager.node(name).SetDimensions(150, 500, 1)
        manager.node(name).SetSliceOffset(12.0)  # the user has scrolled
    result.fit_views()
    assert {place(manager, name)[2] for name in ours(manager)} == {12.0}
    scales = {round(manager.node(n).GetFieldOfView()[0] / 150, 6) for n in ours(manager)}
    scales |= {round(manager.node(n).GetFieldOfView()[1] / 500, 6) for n in ours(manager)}
    assert len(scales) == 1


def test_the_legend_is_small_in_one_view_and_on_the_side_without_the_peak(
    scene: Any, manager: LayoutManager, tmp_path: Path
) -> None:
    """In the running Slicer its letters were 25 pixels high, on all views and over the date."""
    written = Written(maps={("towards", i): spot(SHAPE, (6 if i == 0 else 34, 18, 6)) for i in range(4)})
    result = show(scene, manager, tmp_path, written)
    for index, is_left in ((3, False), (0, True)):  # voxels run to the patient's left, which is the picture's right
        result.show_exam(index)
        result.show_side_by_side()
        legend = result.node("legend")
        assert list(legend.GetViewNodeIDs()) == [manager.node(f"HCCNet{index + 1}").GetID()]
        width, height = np.array(legend.GetSize()) * SIZE
        assert (width, height) == pytest.approx((32, 110))
        assert legend.GetPosition()[0] == (0.98 if is_left else 0.02)
        top = legend.GetPosition()[1] * (1 - height / SIZE[1]) + height / SIZE[1]
        assert top < 0.8  # the date is at the top
        assert len(legend.GetTitleText().split()) <= 3
    manager.setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView)
    result.fit_views()
    assert list(legend.GetViewNodeIDs()) == [manager.node("Red").GetID()]


def test_the_legend_is_made_anew_when_there_are_new_views_and_when_a_scene_was_opened(
    scene: Any, manager: LayoutManager, tmp_path: Path
) -> None:
    """Slicer's views draw only legends that came after them: on a first result, none would be seen side by side."""
    result = show_result(scene, write_result(tmp_path / "result", Written()), add_exams(scene, Written()), {})
    added = []

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def note(scene: Any, event: str, node: Any) -> None:
        if node.IsA("vtkMRMLColorLegendDisplayNode"):
            added.append(node)

    scene.AddObserver(scene.NodeAddedEvent, note)
    manager.setLayout(side_by_side.layout_for(4))
    for _ in range(2):
        result.show_side_by_side()
        assert added == [result.node("legend")]
    result.restore()
    assert added == [added[0], result.node("legend")]
    assert scene.GetNumberOfNodesByClass("vtkMRMLColorLegendDisplayNode") == 1


# ---------------------------------------------------------------- livers


def add_segmentation(scene: Any) -> Any:
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "liver")
    node.CreateDefaultDisplayNodes()
    node.GetSegmentation().AddEmptySegment("liver", "liver")
    return node


def add_roi(scene: Any) -> Any:
    node = scene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "liver")
    node.SetSize(60, 60, 60)
    return node


@pytest.mark.parametrize("make", [add_segmentation, add_roi])
def test_a_liver_is_outlined_in_the_views_of_its_exam_alone(scene: Any, manager: LayoutManager, make: Any) -> None:
    image, other = (add_volume(scene, name, np.ones(SHAPE, np.int16), AFFINE) for name in ("exam", "other"))
    liver = make(scene)
    manager.composite("Red").SetBackgroundVolumeID(image.GetID())
    manager.composite("Green").SetBackgroundVolumeID(other.GetID())
    layers.outline_liver(liver, [image])
    display = liver.GetDisplayNode()
    shown = {name: bool(display.GetVisibility(manager.node(name).GetID())) for name in ("Red", "Green", "Yellow")}
    assert shown == {"Red": True, "Green": False, "Yellow": False}
    if liver.IsA("vtkMRMLSegmentationNode"):
        assert (display.GetVisibility2DFill(), display.GetVisibility2DOutline()) == (False, True)
    in_space = scene.GetFirstNodeByClass("vtkMRMLViewNode").GetID()
    assert display.GetVisibility(in_space)
    manager.composite("Red").SetBackgroundVolumeID(other.GetID())
    layers.outline_liver(liver, [image])
    assert not display.GetVisibility2D()
    assert display.GetVisibility(in_space)
    layers.outline_liver(liver, None)
    assert display.GetVisibility2D()
    assert display.GetVisibility(manager.node("Green").GetID())


def test_a_label_map_is_outlined_as_the_layer_of_labels(scene: Any, manager: LayoutManager) -> None:
    image = add_volume(scene, "exam", np.ones(SHAPE, np.int16), AFFINE)
    liver = add_volume(scene, "liver", np.ones(SHAPE, np.int16), AFFINE, "vtkMRMLLabelMapVolumeNode")
    manager.composite("Red").SetBackgroundVolumeID(image.GetID())
    layers.outline_liver(liver, [image])
    assert manager.composite("Red").GetLabelVolumeID() == liver.GetID()
    assert manager.node("Red").GetUseLabelOutline()
    assert manager.composite("Green").GetLabelVolumeID() is None
    layers.outline_liver(liver, None)
    assert manager.composite("Red").GetLabelVolumeID() is None


# ---------------------------------------------------------------- charts in a scene that was opened


def series_names(chart: Any) -> list[str]:
    return [chart.GetNthPlotSeriesNode(n).GetName() for n in range(chart.GetNumberOfPlotSeriesNodes())]


def test_a_chart_that_lost_its_line_gets_it_back(scene: Any, manager: LayoutManager, tmp_path: Path) -> None:
    """After a scene was reopened in the running Slicer, the chart showed its diamonds alone."""
    result = show(scene, manager, tmp_path, Written())
    chart = result.node("chart.risk")
    chart.RemoveNthPlotSeriesNodeID(0)
    result.restore()
    assert series_names(chart) == ["Risk as of each exam", "Risk without the exam"]
    scene.RemoveNode(result.node("series.risk"))
    result.restore()
    assert series_names(chart) == ["Risk as of each exam", "Risk without the exam"]
    line = result.node("series.risk")
    assert line.GetTableNode() is result.node("table.risk")
    tree = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    items = [tree.GetItemByDataNode(node) for node in (line, chart)]
    assert tree.GetItemParent(items[0]) == tree.GetItemParent(items[1])
    result.remove()
    assert scene.GetNumberOfNodesByClass("vtkMRMLPlotSeriesNode") == 0


def test_a_view_draws_its_chart_anew_when_a_scene_was_opened(
    scene: Any, manager: LayoutManager, tmp_path: Path
) -> None:
    result = show(scene, manager, tmp_path, Written())
    view, chart = manager.plotWidget(0).mrmlPlotViewNode(), result.node("chart.risk")
    view.SetPlotChartNodeID(chart.GetID())
    shown = []
    view.AddObserver(view.PlotChartNodeChangedEvent, lambda *_: shown.append(view.GetPlotChartNodeID()))
    result.restore()
    assert shown == [None, chart.GetID()]


def test_a_closed_scene_s_hierarchy_is_let_go(scene: Any) -> None:
    """If anything keeps it, its items answer for new nodes: 'DataNodeCache inconsistency found' with every prediction."""
    from HCCNetSlicer.observing import Observers

    observers = Observers()
    tree = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    observers.add(tree, tree.SubjectHierarchyItemModifiedEvent, lambda *_: None)
    observers.clear()
    weak = vtk.vtkWeakReference()
    weak.Set(tree)
    del tree
    scene.Clear(False)
    assert weak.Get() is None
