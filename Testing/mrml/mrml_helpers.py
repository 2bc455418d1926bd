"""Volumes and hierarchies made for tests on real MRML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import slicer
import slicer.util
import vtk


def matrix(affine: np.ndarray) -> vtk.vtkMatrix4x4:
    """A (4, 4) array as VTK has it."""
    result = vtk.vtkMatrix4x4()
    result.DeepCopy(np.asarray(affine, dtype=float).ravel())
    return result


def add_volume(
    scene: Any, name: str, data: np.ndarray, affine: np.ndarray, cls: str = "vtkMRMLScalarVolumeNode"
) -> Any:
    """Adds a volume to the scene: ``data`` (X, Y, Z) as nibabel has it, ``affine`` to RAS."""
    node = scene.AddNewNodeByClass(cls, name)
    slicer.util.updateVolumeFromArray(node, np.ascontiguousarray(data.transpose(2, 1, 0)))
    node.SetIJKToRASMatrix(matrix(affine))
    node.CreateDefaultDisplayNodes()
    return node


def add_file(scene: Any, path: Path, name: str | None = None) -> Any:
    """Adds the volume of a NIfTI file to the scene."""
    image = nib.load(path)
    return add_volume(scene, name or path.name.split(".")[0], np.asarray(image.dataobj), image.affine)


def load_volume(scene: Any, file: str, name: str) -> Any:
    """Loads a volume as ``slicer.util.loadVolume`` does, by Slicer's own reader."""
    node = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", scene.GetUniqueNameByString(name))
    storage = scene.AddNewNodeByClass("vtkMRMLVolumeArchetypeStorageNode")
    storage.SetFileName(file)
    assert storage.ReadData(node)
    node.SetAndObserveStorageNodeID(storage.GetID())
    node.CreateDefaultDisplayNodes()
    return node


def hierarchy(scene: Any) -> Any:
    """The scene's subject hierarchy."""
    return slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)


def add_study(
    scene: Any, patient: int, date: str, volumes: Sequence[Any], attributes: Mapping[str, str] | None = None
) -> int:
    """Makes a study under a patient's item and puts volumes into it; ``date`` as DICOM has it, 20210304."""
    tree = hierarchy(scene)
    study = tree.CreateStudyItem(patient, f"Study {date}")
    tree.SetItemAttribute(study, "DICOM.StudyDate", date)
    for name, value in (attributes or {}).items():
        tree.SetItemAttribute(study, name, value)
    for node in volumes:
        tree.CreateItem(study, node)
    return int(study)


def add_patient(scene: Any, name: str = "Doe^Jane", patient_id: str = "ID-4711") -> int:
    """Makes a patient's item."""
    tree = hierarchy(scene)
    item = tree.CreateSubjectItem(tree.GetSceneItemID(), name)
    tree.SetItemAttribute(item, "DICOM.PatientID", patient_id)
    return int(item)
