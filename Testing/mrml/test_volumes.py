"""A volume goes out as it lies in the scene now; a liver too. Checked in patient space, on grids of every kind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import slicer
import slicer.util
import vtk
from mrml_helpers import add_volume, matrix

from HCCNetLib.preprocessing.field import locate_liver
from HCCNetLib.readers.nifti import NiftiImage, read_box
from HCCNetLib.records import PHANTOM_MARK, Refusal
from HCCNetSlicer.liver import write_liver
from HCCNetSlicer.volumes import grid_of, hardened_copy, picture_of, write_volume

SHAPE = (12, 10, 8)


def turned(x: float, y: float, z: float) -> np.ndarray:
    transform = vtk.vtkTransform()
    transform.RotateX(x)
    transform.RotateY(y)
    transform.RotateZ(z)
    return np.array([[transform.GetMatrix().GetElement(i, j) for j in range(3)] for i in range(3)])


def affine_of(directions: np.ndarray, spacing: tuple[float, float, float]) -> np.ndarray:
    affine = np.eye(4)
    affine[:3, :3] = directions * np.asarray(spacing)
    affine[:3, 3] = (11.0, -23.0, 37.0)
    return affine


AFFINES = {
    "RAS": affine_of(np.eye(3), (2.0, 2.0, 2.0)),
    "flipped": affine_of(np.diag([-1.0, -1.0, 1.0]), (2.0, 2.0, 2.0)),
    "anisotropic": affine_of(np.diag([-1.0, 1.0, -1.0]), (1.5, 2.0, 6.0)),
    "permuted": affine_of(np.array([[0.0, 0, 1], [1, 0, 0], [0, -1, 0]]), (1.5, 2.0, 3.0)),
    "oblique": affine_of(turned(20, -15, 30) @ np.diag([-1.0, 1.0, 1.0]), (1.5, 2.0, 4.0)),
}


def linear(scene: Any, values: np.ndarray, parent: Any = None) -> Any:
    node = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    node.SetMatrixTransformToParent(matrix(values))
    if parent is not None:
        node.SetAndObserveTransformNodeID(parent.GetID())
    return node


def motion() -> np.ndarray:
    affine = np.eye(4)
    affine[:3, :3] = turned(5, 10, -20)
    affine[:3, 3] = (4.0, 5.0, -6.0)
    return affine


def bend(scene: Any) -> Any:
    """A displacement field: 5 mm to the left everywhere, and a little more with height."""
    grid = vtk.vtkImageData()
    grid.SetDimensions(8, 8, 8)
    grid.SetOrigin(-150, -150, -150)
    grid.SetSpacing(50, 50, 50)
    grid.AllocateScalars(vtk.VTK_DOUBLE, 3)
    for index in np.ndindex(8, 8, 8):
        for axis, value in enumerate((-5.0 - index[2] * 0.2, 0.0, 0.0)):
            grid.SetScalarComponentFromDouble(*index, axis, value)
    transform = slicer.vtkOrientedGridTransform()
    transform.SetDisplacementGridData(grid)
    node = scene.AddNewNodeByClass("vtkMRMLGridTransformNode")
    node.SetAndObserveTransformToParent(transform)
    return node


def bright_place(node: Any) -> np.ndarray:
    """Where the brightest voxel lies in the scene."""
    data, affine = picture_of(node)
    index = np.unravel_index(data.argmax(), data.shape)
    return (affine @ [*index, 1])[:3]


def planted(scene: Any, affine: np.ndarray, name: str = "v") -> Any:
    data = np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE) % 50
    data[7, 3, 5] = 900
    return add_volume(scene, name, data, affine)


@pytest.mark.parametrize("affine", AFFINES.values(), ids=AFFINES)
def test_voxels_and_their_places_go_out_as_they_are(scene: Any, affine: np.ndarray, tmp_path: Path) -> None:
    node = planted(scene, affine, "Doe^Jane DWI")
    write_volume(node, tmp_path / "v.nii")
    image = nib.load(tmp_path / "v.nii")
    np.testing.assert_allclose(image.affine, affine, atol=1e-5)
    assert np.asarray(image.dataobj)[7, 3, 5] == 900
    assert NiftiImage(tmp_path / "v.nii", "v").header_problems() == []
    assert b"Doe" not in (tmp_path / "v.nii").read_bytes()


@pytest.mark.parametrize("affine", AFFINES.values(), ids=AFFINES)
def test_parent_transforms_are_part_of_the_place(scene: Any, affine: np.ndarray, tmp_path: Path) -> None:
    node = planted(scene, affine)
    outer = linear(scene, motion())
    inner = linear(scene, np.diag([1.0, 1.0, 1.0, 1.0]) + np.outer([0, 1, 0, 0], [0, 0, 0, 8.0]), outer)
    node.SetAndObserveTransformNodeID(inner.GetID())
    write_volume(node, tmp_path / "v.nii")
    before = nib.load(tmp_path / "v.nii")
    node.HardenTransform()
    hardened = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(hardened)
    expected = np.array([[hardened.GetElement(i, j) for j in range(4)] for i in range(4)])
    np.testing.assert_allclose(before.affine, expected, atol=1e-4)
    np.testing.assert_allclose(before.affine[:3, 3], (motion() @ [11, -15, 37, 1])[:3], atol=1e-4)


@pytest.mark.parametrize("affine", AFFINES.values(), ids=AFFINES)
def test_a_bent_volume_goes_out_as_slicer_would_harden_it(scene: Any, affine: np.ndarray) -> None:
    node = planted(scene, affine)
    still = bright_place(node)
    node.SetAndObserveTransformNodeID(bend(scene).GetID())
    data, world = picture_of(node)
    np.testing.assert_allclose(bright_place(node), still - [5.8, 0, 0], atol=3.1)  # half of the largest voxel
    assert slicer.util.arrayFromVolume(node).max() == 900  # the volume itself is untouched
    assert grid_of(node).shape == data.shape
    nodes = scene.GetNumberOfNodes()
    by_copy, affine_of_copy = hardened_copy(node)  # the way of Slicer 5.10
    np.testing.assert_array_equal(by_copy, data)
    np.testing.assert_allclose(affine_of_copy, world)
    assert scene.GetNumberOfNodes() == nodes
    node.HardenTransform()
    np.testing.assert_array_equal(slicer.util.arrayFromVolume(node).transpose(2, 1, 0), data)
    np.testing.assert_allclose(grid_of(node).affine, world)


def test_a_phantom_stays_marked_and_others_do_not(scene: Any, tmp_path: Path) -> None:
    node = planted(scene, AFFINES["RAS"])
    write_volume(node, tmp_path / "a.nii")
    node.SetAttribute("HCCNet.Phantom", "1")
    write_volume(node, tmp_path / "b.nii")
    assert not NiftiImage(tmp_path / "a.nii", "a").is_phantom
    assert NiftiImage(tmp_path / "b.nii", "b").is_phantom
    assert PHANTOM_MARK.encode() in (tmp_path / "b.nii").read_bytes()


# ---------------------------------------------------------------- livers


def liver_mask() -> np.ndarray:
    mask = np.zeros(SHAPE, np.int16)
    mask[6:9, 2:5, 4:7] = 1
    return mask


def centre_of(path: Path) -> np.ndarray:
    place = locate_liver(NiftiImage(path, "liver"), None)
    assert place is not None
    return place.centre


@pytest.mark.parametrize("moved", [False, True], ids=["still", "moved"])
@pytest.mark.parametrize("affine", AFFINES.values(), ids=AFFINES)
def test_a_label_map_goes_out_in_place(scene: Any, affine: np.ndarray, moved: bool, tmp_path: Path) -> None:
    node = add_volume(scene, "L", 3 * liver_mask(), affine, "vtkMRMLLabelMapVolumeNode")
    world = motion() if moved else np.eye(4)
    node.SetAndObserveTransformNodeID(linear(scene, world).GetID())
    column, path = write_liver(node, tmp_path, "liver")
    assert column == "liver_mask"
    np.testing.assert_allclose(centre_of(path), (world @ affine @ [7, 3, 5, 1])[:3], atol=1e-4)


@pytest.mark.parametrize("moved", [False, True], ids=["still", "moved"])
@pytest.mark.parametrize("affine", AFFINES.values(), ids=AFFINES)
def test_a_segment_goes_out_in_place(scene: Any, affine: np.ndarray, moved: bool, tmp_path: Path) -> None:
    """Beside another segment, with which it shares a label map as Slicer keeps it."""
    labels = add_volume(scene, "L", liver_mask(), affine, "vtkMRMLLabelMapVolumeNode")
    slicer.util.arrayFromVolume(labels)[0:2, 0:2, 0:2] = 2
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "S")
    assert slicer.vtkSlicerSegmentationsModuleLogic.ImportLabelmapToSegmentationNode(labels, node)
    segmentation = node.GetSegmentation()
    assert segmentation.GetNumberOfSegments() == 2
    segmentation.GetNthSegment(0).SetName("Liver")
    segmentation.GetNthSegment(1).SetName("Spleen")
    world = motion() if moved else np.eye(4)
    node.SetAndObserveTransformNodeID(linear(scene, world).GetID())
    column, path = write_liver(node, tmp_path, "liver")
    assert column == "liver_mask"
    np.testing.assert_allclose(centre_of(path), (world @ affine @ [7, 3, 5, 1])[:3], atol=1e-4)
    assert NiftiImage(path, "liver").read().sum() == 27


def test_a_bent_segment_goes_out_in_place(scene: Any, tmp_path: Path) -> None:
    labels = add_volume(scene, "L", liver_mask(), AFFINES["RAS"], "vtkMRMLLabelMapVolumeNode")
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "S")
    slicer.vtkSlicerSegmentationsModuleLogic.ImportLabelmapToSegmentationNode(labels, node)
    node.SetAndObserveTransformNodeID(bend(scene).GetID())
    _, path = write_liver(node, tmp_path, "liver")
    np.testing.assert_allclose(centre_of(path), [25 - 5.8, -17, 47], atol=1.0)


@pytest.mark.parametrize("moved", [False, True], ids=["still", "moved"])
def test_an_roi_goes_out_as_the_box_around_it(scene: Any, moved: bool, tmp_path: Path) -> None:
    node = scene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "R")
    node.SetCenter(10.0, -20.0, 30.0)
    node.SetSize(100.0, 80.0, 60.0)
    world = np.eye(4)
    if moved:
        world[:3, :3] = turned(0, 0, 90)
        world[:3, 3] = (1.0, 2.0, 3.0)
    node.SetAndObserveTransformNodeID(linear(scene, world).GetID())
    column, path = write_liver(node, tmp_path, "liver")
    assert column == "liver_box"
    box = read_box(path, "liver")
    low = (-29.0 + 10.0, -38.0, 3.0) if moved else (-40.0, -60.0, 0.0)
    high = (61.0, 62.0, 63.0) if moved else (60.0, 20.0, 60.0)
    np.testing.assert_allclose([box.low, box.high], [low, high], atol=1e-4)


def test_what_is_no_liver_is_refused_in_words(scene: Any, tmp_path: Path) -> None:
    several = add_volume(scene, "L", liver_mask(), AFFINES["RAS"], "vtkMRMLLabelMapVolumeNode")
    slicer.util.arrayFromVolume(several)[0, 0, 0] = 2
    empty = add_volume(scene, "E", 0 * liver_mask(), AFFINES["RAS"], "vtkMRMLLabelMapVolumeNode")
    segments = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "S")
    slicer.vtkSlicerSegmentationsModuleLogic.ImportLabelmapToSegmentationNode(several, segments)
    expected = {
        several: "The label map holds 2 labels; which of them is the liver? Give a label map of the liver alone.",
        empty: "The liver mask marks no voxel. Draw the liver, or choose no mask.",
        segments: "The segmentation has 2 segments. Name that of the liver, and only that, liver.",
        scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "N"): (
            "The segmentation has no segment. Draw the liver, or choose no mask."
        ),
        scene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "R"): (
            "The liver's ROI has no size yet. Draw it, or choose none."
        ),
        planted(scene, AFFINES["RAS"]): (
            "The liver must be given as a segmentation, a label map or an ROI; the node that was chosen is none of these."
        ),
    }
    for node, message in expected.items():
        with pytest.raises(Refusal) as refused:
            write_liver(node, tmp_path, "liver")
        assert refused.value.message == message
    assert list(tmp_path.iterdir()) == []
