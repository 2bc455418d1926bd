"""Volumes as they lie in the scene now, parent transforms included: where they are, what they hold, out to a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import slicer
import slicer.util
import vtk
from vtk.util import numpy_support

from HCCNetLib.records import PHANTOM_MARK, Affine, Grid

# A mark that our own reader leaves on generated images; a volume that Slicer loaded from a file has lost it.
PHANTOM_ATTRIBUTE = "HCCNet.Phantom"


def is_picture(node: Any) -> bool:
    """Whether a node is a greyscale volume; label maps, colour, vector and time series volumes are not."""
    if node is None or node.GetClassName() != "vtkMRMLScalarVolumeNode":
        return False
    image = node.GetImageData()
    return image is None or image.GetNumberOfScalarComponents() == 1


def array_of(matrix: vtk.vtkMatrix4x4) -> Affine:
    """A VTK matrix as (4, 4)."""
    result: Affine = np.array([[matrix.GetElement(row, column) for column in range(4)] for row in range(4)])
    return result


def matrix_of(affine: Affine) -> vtk.vtkMatrix4x4:
    """A (4, 4) array as VTK has it."""
    matrix = vtk.vtkMatrix4x4()
    matrix.DeepCopy(np.asarray(affine, dtype=float).ravel())
    return matrix


def to_world(node: Any) -> Affine | None:
    """The parent transforms of a node as one matrix (4, 4) from its own space to the scene's; None where they bend."""
    parent = node.GetParentTransformNode()
    if parent is None:
        return np.eye(4)
    if not parent.IsTransformToWorldLinear():
        return None
    matrix = vtk.vtkMatrix4x4()
    parent.GetMatrixTransformToWorld(matrix)
    return array_of(matrix)


def grid_of(node: Any) -> Grid:
    """Where a volume's voxels lie in the scene (RAS+ mm); of a bent volume, where they would lie once hardened."""
    world = to_world(node)
    if world is None:
        return _bent_grid(node)
    x, y, z = node.GetImageData().GetDimensions()
    return Grid((x, y, z), world @ own_affine(node))


def has_voxels(node: Any) -> bool:
    """Whether there is a picture in a volume."""
    image = node.GetImageData()
    return image is not None and image.GetPointData().GetScalars() is not None


def picture_of(node: Any) -> tuple[np.ndarray, Affine]:
    """Voxels (X, Y, Z) and their affine to the scene's space (RAS+ mm), as if all transforms were hardened."""
    world = to_world(node)
    if world is None:
        return _bent(node)
    return slicer.util.arrayFromVolume(node).transpose(2, 1, 0), world @ own_affine(node)


def own_affine(node: Any) -> Affine:
    """From voxel indices to the volume's own space (RAS+ mm), its transforms left out of account."""
    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    return array_of(matrix)


_bent_grids: dict[tuple[Any, ...], Grid] = {}
_MOST_GRIDS = 200


def _bent_grid(node: Any) -> Grid:
    """Asked for at every look at the table, and worked out by resampling: remembered by VTK's times, which never recur."""
    times = (node.GetMTime(), node.GetImageData().GetMTime(), node.GetParentTransformNode().GetTransformToWorldMTime())
    if times not in _bent_grids:
        if len(_bent_grids) >= _MOST_GRIDS:
            _bent_grids.clear()
        data, affine = _bent(node)
        _bent_grids[times] = Grid((data.shape[0], data.shape[1], data.shape[2]), affine)
    return _bent_grids[times]


def _bent(node: Any) -> tuple[np.ndarray, Affine]:
    """A volume below a nonlinear transform, resampled as Slicer itself hardens it; the node stays as it is."""
    if not hasattr(slicer.vtkMRMLVolumeNode, "GetTransformedImageData"):  # Slicer 5.10
        return hardened_copy(node)
    transform = vtk.vtkGeneralTransform()
    node.GetParentTransformNode().GetTransformToWorld(transform)
    image, matrix = vtk.vtkImageData(), vtk.vtkMatrix4x4()
    slicer.vtkMRMLVolumeNode.GetTransformedImageData(node, transform, image, matrix)
    values = numpy_support.vtk_to_numpy(image.GetPointData().GetScalars())
    x, y, z = image.GetDimensions()
    return values.reshape(z, y, x).transpose(2, 1, 0), array_of(matrix)


def hardened_copy(node: Any) -> tuple[np.ndarray, Affine]:
    """The same by a copy of the node, which is in the scene for a moment."""
    scene = node.GetScene()
    copy = scene.AddNode(scene.CreateNodeByClass(node.GetClassName()))
    try:
        copy.SetHideFromEditors(True)
        copy.CopyContent(node)
        copy.SetAndObserveTransformNodeID(node.GetTransformNodeID())
        copy.HardenTransform()
        return slicer.util.arrayFromVolume(copy).transpose(2, 1, 0).copy(), own_affine(copy)
    finally:
        scene.RemoveNode(copy)


def write_volume(node: Any, path: Path) -> None:
    """Writes a volume as NIfTI in single precision, which is what the library reads, in the scene's space."""
    data, affine = picture_of(node)
    write_nifti(path, data.astype(np.float32), affine, PHANTOM_MARK if node.GetAttribute(PHANTOM_ATTRIBUTE) else "")


def write_nifti(path: Path, data: np.ndarray, affine: Affine, description: str = "") -> None:
    """Writes (X, Y, Z) values as NIfTI; nothing of the scene, no name for example, goes into the header."""
    import nibabel as nib  # here: the module loads before nibabel is installed

    image = nib.Nifti1Image(data, affine)
    image.header.set_xyzt_units("mm")
    image.header["descrip"] = description.encode()
    image.set_sform(affine, code="scanner")
    nib.save(image, path)
