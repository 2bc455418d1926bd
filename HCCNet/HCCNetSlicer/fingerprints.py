"""What a prediction was made from: fingerprints of volumes, and whether they still hold."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
import vtk
from numpy.typing import NDArray
from vtk.util.numpy_support import vtk_to_numpy

# Files keep positions to some digits only: a saved and reopened volume has not moved.
_TOLERANCE_MM = 0.01
_LINEAR, _BENT = 2, 5  # points along each axis whose places tell where a volume lies; under a warping transform, more


def fingerprint(volume: Any) -> dict[str, Any]:
    """What tells whether a volume is still the same; plain data for JSON.

    Args:
        volume: a vtkMRMLVolumeNode.

    Returns:
        ``voxels``: SHA-256 over scalar type, dimensions and voxels; ``places``: points of its box in world space, mm, with
        all transforms that it is under.
    """
    return {"voxels": _voxels(volume), "places": np.round(_places(volume), 4).tolist()}


def has_other_voxels(volume: Any, taken: Mapping[str, Any], quick: bool = False) -> bool:
    """Whether the voxels are others than when the fingerprint was taken.

    Args:
        volume: a vtkMRMLVolumeNode.
        taken: a fingerprint.
        quick: takes the word of VTK's times for what has not changed since it was last looked at; voxels that were written
            in place without a word are not found then.
    """
    return _voxels(volume, quick) != taken["voxels"]


def has_moved(volume: Any, taken: Mapping[str, Any]) -> bool:
    """Whether any part of the volume lies more than 0.01 mm from where it lay when the fingerprint was taken."""
    now, then = _places(volume), np.asarray(taken["places"], dtype=float)
    return now.shape != then.shape or bool(np.abs(now - then).max(initial=0) > _TOLERANCE_MM)


_known: dict[tuple[int, int], str] = {}
_MOST_KNOWN = 500


def _voxels(volume: Any, quick: bool = False) -> str:
    image = volume.GetImageData()
    scalars = None if image is None else image.GetPointData().GetScalars()
    if scalars is None:
        return "none"
    times = image.GetMTime(), scalars.GetMTime()  # of all that VTK knows, no two ever have the same
    if not (quick and times in _known):
        values = np.ascontiguousarray(vtk_to_numpy(scalars))
        digest = hashlib.sha256(f"{values.dtype.str} {values.shape} {image.GetDimensions()}".encode())
        digest.update(values.data)
        if len(_known) >= _MOST_KNOWN:
            _known.clear()
        _known[times] = digest.hexdigest()
    return _known[times]


def _places(volume: Any) -> NDArray[np.float64]:
    """Points of the volume's box in world space, (N, 3), mm."""
    image, transform = volume.GetImageData(), volume.GetParentTransformNode()
    if image is None:
        return np.zeros((0, 3))
    to_ras, to_world = vtk.vtkMatrix4x4(), vtk.vtkGeneralTransform()
    volume.GetIJKToRASMatrix(to_ras)
    count = _LINEAR
    if transform is not None:
        transform.GetTransformToWorld(to_world)
        count = _LINEAR if transform.IsTransformToWorldLinear() else _BENT
    axes = [np.linspace(0, size - 1, count) for size in image.GetDimensions()]
    inside = [to_ras.MultiplyPoint((*index, 1.0))[:3] for index in itertools.product(*axes)]
    return np.array([to_world.TransformPoint(point) for point in inside])
