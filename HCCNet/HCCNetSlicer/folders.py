"""A patient's folder → volumes in the scene, by the library's own reader: the same rules, refusals and problems."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import slicer
import slicer.util

from HCCNetLib.readers import read_input
from HCCNetLib.readers.dicom import NOTHING_SAYS, OTHER_B_VALUE
from HCCNetLib.readers.exams import check_headers, probable_channels
from HCCNetLib.records import Box, Exam, Image, Patient, Problem, Refusal
from HCCNetSlicer.exam_table import ExamTable
from HCCNetSlicer.hierarchy import Hierarchy
from HCCNetSlicer.volumes import PHANTOM_ATTRIBUTE, matrix_of


@dataclass(frozen=True)
class LoadedPatient:
    """What a folder became.

    Args:
        item: the patient in the subject hierarchy.
        livers: key of the exam's row → label map or ROI of its liver.
        problems: what a reader should know, in sentences.
    """

    item: int
    livers: Mapping[str, Any]
    problems: tuple[str, ...]


def load_folder(scene: Any, path: Path) -> LoadedPatient:
    """Loads one patient's exams; nothing is left in the scene where one of them can't be read.

    Args:
        scene: to load into; views are left as they are.
        path: a patient's dated folders, DICOM or BIDS folder, or a table or cohort folder with one patient.

    Raises:
        Refusal: not readable, or more than one patient.
    """
    cohort = read_input(path)
    if cohort.refused:
        raise next(iter(cohort.refused.values()))
    if len(cohort.patients) > 1:
        message = f"{path.name} holds {len(cohort.patients)} patients. Choose the folder of one of them."
        raise Refusal("several_patients", message)
    patient = cohort.patients[0]
    problems = [*cohort.problems, *patient.problems]
    for exam in patient.exams:
        # Whether those that a model reads lie on one grid, the table says once they are chosen.
        channels = tuple(exam.images)
        problems += [
            *exam.problems,
            *check_headers(exam, channels),
            *probable_channels(exam, channels),
            *_not_loaded(exam),
        ]
    before = {node.GetID() for node in _all_nodes(scene)}
    try:
        item, livers = _add_patient(scene, patient)
    except BaseException:
        for node in _all_nodes(scene):
            if node.GetID() not in before:
                scene.RemoveNode(node)
        raise
    return LoadedPatient(item, livers, tuple(problem.message for problem in problems))


def _not_loaded(exam: Exam) -> list[Problem]:
    """Series that may be a channel and that the user can't choose, because they are not in the scene."""
    open_reasons = (NOTHING_SAYS, OTHER_B_VALUE)
    images = [i for i in exam.found if i.series_uid and (i.confidence == "ambiguous" or i.reason in open_reasons)]
    names = [f"{image.name} ({image.description})" if image.description else image.name for image in images]
    if not names:
        return []
    message = (
        f"exam {exam.exam_id}: not recognised as a channel and not loaded: {', '.join(names)}. If one of them is a channel, "
        f"import the folder with Slicer's DICOM module and choose it in the table."
    )
    return [Problem("series_not_loaded", message, exam.exam_id)]


def fill_from_folder(table: ExamTable, path: Path) -> tuple[str, ...]:
    """Loads a patient's folder and fills a table with it; returns what a reader should know. Raises Refusal."""
    loaded = load_folder(table.scene, path)
    table.fill_from_patient(loaded.item)
    for key, liver in loaded.livers.items():
        table.set_liver(key, liver)
    table.state.told_by_reader = loaded.problems
    return loaded.problems


def _all_nodes(scene: Any) -> list[Any]:
    return [scene.GetNthNode(n) for n in range(scene.GetNumberOfNodes())]


def _add_patient(scene: Any, patient: Patient) -> tuple[int, dict[str, Any]]:
    """All exams are read before anything is put into the hierarchy."""
    volumes = [
        [_add_volume(scene, image, f"{channel} {exam.date.isoformat()}") for channel, image in exam.images.items()]
        for exam in patient.exams
    ]
    livers = [_add_liver(scene, exam) for exam in patient.exams]
    hierarchy = Hierarchy(scene)
    tree = hierarchy.node
    item = tree.CreateSubjectItem(tree.GetSceneItemID(), patient.patient_id)
    by_row = {}
    for exam, nodes, liver in zip(patient.exams, volumes, livers, strict=True):
        study = tree.CreateStudyItem(item, exam.exam_id)
        tree.SetItemAttribute(study, "DICOM.StudyDate", exam.date.strftime("%Y%m%d"))
        for node in (*nodes, *([liver] if liver is not None else [])):
            tree.SetItemParent(tree.GetItemByDataNode(node) or tree.CreateItem(study, node), study)
        if liver is not None:
            by_row[hierarchy.key(study)] = liver
    return int(item), by_row


def _add_volume(scene: Any, image: Image, name: str, node_class: str = "vtkMRMLScalarVolumeNode") -> Any:
    data = image.read()
    if node_class == "vtkMRMLLabelMapVolumeNode":
        is_share = data.min() >= 0 and data.max() <= 1  # a probability, read as ``locate_liver`` reads it
        data = (data > 0.5 if is_share else data).astype(np.int16)
    node = scene.AddNewNodeByClass(node_class, name)
    slicer.util.updateVolumeFromArray(node, np.ascontiguousarray(data.transpose(2, 1, 0)))
    node.SetIJKToRASMatrix(matrix_of(image.grid.affine))
    if image.is_phantom:
        node.SetAttribute(PHANTOM_ATTRIBUTE, "1")
    node.CreateDefaultDisplayNodes()
    return node


def _add_liver(scene: Any, exam: Exam) -> Any:
    name = f"Liver {exam.date.isoformat()}"
    if exam.liver_mask is not None:
        return _add_volume(scene, exam.liver_mask, name, "vtkMRMLLabelMapVolumeNode")
    return None if exam.liver_box is None else _add_box(scene, exam.liver_box, name)


def _add_box(scene: Any, box: Box, name: str) -> Any:
    node = scene.AddNewNodeByClass("vtkMRMLMarkupsROINode", name)
    low, high = np.array(box.low), np.array(box.high)
    node.SetCenter(*((low + high) / 2))
    node.SetSize(*(high - low))
    return node
