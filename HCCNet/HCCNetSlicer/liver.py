"""Where the liver is, as the user drew it in the scene: a segment, a label map or an ROI → a file for the prediction."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import slicer
import slicer.util
import vtk
from vtk.util import numpy_support

from HCCNetLib.readers.exams import LIVER_BOX, LIVER_MASK
from HCCNetLib.records import Affine, Refusal
from HCCNetSlicer.volumes import array_of, picture_of, to_world, write_nifti

_SEGMENTATION, _LABEL_MAP, _ROI = "vtkMRMLSegmentationNode", "vtkMRMLLabelMapVolumeNode", "vtkMRMLMarkupsROINode"
LIVER_CLASSES = (_SEGMENTATION, _LABEL_MAP, _ROI)


def write_liver(node: Any, folder: Path, name: str) -> tuple[str, Path]:
    """Writes a liver; returns the column of the table that it belongs to and the file.

    Args:
        node: a segmentation with one segment or one named liver, a label map with one label, or an ROI; of an ROI that is
            turned, the box around it with its sides along the patient's axes.
        folder: where to write.
        name: the file's name without its suffix.

    Raises:
        Refusal: empty, several labels or segments, or a node of another kind.
    """
    if node.GetClassName() == _ROI:
        path = folder / f"{name}.json"
        low, high = _box(node)
        path.write_text(json.dumps({"low_mm": low, "high_mm": high}), encoding="ascii")
        return LIVER_BOX, path
    mask, affine = _mask(node)
    path = folder / f"{name}.nii"
    write_nifti(path, mask.astype(np.uint8), affine)
    return LIVER_MASK, path


def liver_fingerprint(node: Any) -> str:
    """SHA-256 of what ``write_liver`` would write, places to a hundredth of a millimetre; raises Refusal as it does."""
    if node.GetClassName() == _ROI:
        places, voxels = np.array(_box(node)), b""
    else:
        mask, affine = _mask(node)
        places, voxels = affine, np.packbits(mask).tobytes() + str(mask.shape).encode()
    return hashlib.sha256((np.rint(places * 100) + 0.0).tobytes() + voxels).hexdigest()


def _mask(node: Any) -> tuple[np.ndarray, Affine]:
    kind = node.GetClassName()
    if kind not in (_SEGMENTATION, _LABEL_MAP):
        message = "The liver must be given as a segmentation, a label map or an ROI; the node that was chosen is none of these."
        raise Refusal("bad_liver", message)
    mask, affine = _segment(node) if kind == _SEGMENTATION else _label(node)
    if not mask.any():
        raise Refusal("empty_liver_mask", "The liver mask marks no voxel. Draw the liver, or choose no mask.")
    return mask, affine


def _box(node: Any) -> tuple[list[float], list[float]]:
    bounds = [0.0] * 6
    if node.GetNumberOfControlPoints() == 0 or min(node.GetSize()) <= 0:
        raise Refusal("empty_liver_box", "The liver's ROI has no size yet. Draw it, or choose none.")
    node.GetRASBounds(bounds)
    return bounds[0::2], bounds[1::2]


def _label(node: Any) -> tuple[np.ndarray, Affine]:
    if node.GetImageData() is None:
        raise Refusal("empty_liver_mask", "The liver mask marks no voxel. Draw the liver, or choose no mask.")
    data, affine = picture_of(node)
    labels = np.unique(data[data > 0])
    if len(labels) > 1:
        message = f"The label map holds {len(labels)} labels; which of them is the liver? Give a label map of the liver alone."
        raise Refusal("several_labels", message)
    return data > 0, affine


def _segment(node: Any) -> tuple[np.ndarray, Affine]:
    segmentation = node.GetSegmentation()
    segment = _liver_segment(segmentation)
    image = slicer.vtkOrientedImageData()
    # In the segmentation's own space: Slicer would resample an oblique one, and a turn needs no resampling.
    world = to_world(node)
    logic = slicer.vtkSlicerSegmentationsModuleLogic
    made = logic.GetSegmentBinaryLabelmapRepresentation(node, segment, image, world is None)
    if not made or image.GetNumberOfPoints() == 0:
        raise Refusal("empty_liver_mask", "The liver mask marks no voxel. Draw the liver, or choose no mask.")
    matrix = vtk.vtkMatrix4x4()
    image.GetImageToWorldMatrix(matrix)
    x0, _, y0, _, z0, _ = image.GetExtent()
    first = np.eye(4)
    first[:3, 3] = x0, y0, z0
    affine = (np.eye(4) if world is None else world) @ array_of(matrix) @ first
    x, y, z = image.GetDimensions()
    values = numpy_support.vtk_to_numpy(image.GetPointData().GetScalars()).reshape(z, y, x).transpose(2, 1, 0)
    # Segments share one label map as long as they do not overlap; one that was converted for us has it to itself.
    name = slicer.vtkSegmentationConverter.GetSegmentationBinaryLabelmapRepresentationName()
    is_shared = segmentation.ContainsRepresentation(name)
    return (values == segmentation.GetSegment(segment).GetLabelValue() if is_shared else values > 0), affine


def _liver_segment(segmentation: Any) -> str:
    """The only segment, or the only one that is named liver."""
    ids = list(segmentation.GetSegmentIDs())
    if len(ids) > 1:
        livers = [name for name in ids if is_named_liver(segmentation.GetSegment(name))]
        if len(livers) != 1:
            message = f"The segmentation has {len(ids)} segments. Name that of the liver, and only that, liver."
            raise Refusal("several_segments", message)
        return str(livers[0])
    if not ids:
        raise Refusal("empty_liver_mask", "The segmentation has no segment. Draw the liver, or choose no mask.")
    return str(ids[0])


def is_named_liver(segment: Any) -> bool:
    """Whether a segment is called liver."""
    return (segment.GetName() or "").strip().lower() == "liver"


def looks_unlike_liver(node: Any) -> bool:
    """Whether a segmentation's only segment, which is taken as the liver, is called something else."""
    if node.GetClassName() != _SEGMENTATION or node.GetSegmentation().GetNumberOfSegments() != 1:
        return False
    return not is_named_liver(node.GetSegmentation().GetNthSegment(0))
