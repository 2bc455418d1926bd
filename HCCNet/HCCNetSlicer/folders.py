"""A patient's folder or DICOM files → volumes in the scene, by the library's own reader: the same rules, refusals, problems."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import slicer
import slicer.util

from HCCNetLib.readers import read_dicom_files, read_input
from HCCNetLib.readers.dicom import NOTHING_SAYS, OTHER_B_VALUE
from HCCNetLib.readers.exams import check_headers, probable_channels
from HCCNetLib.records import Box, Cohort, Exam, Image, Patient, Problem, Refusal
from HCCNetSlicer.exam_table import ExamTable
from HCCNetSlicer.hierarchy import Hierarchy
from HCCNetSlicer.volumes import PHANTOM_ATTRIBUTE, matrix_of


@dataclass(frozen=True)
class LoadedPatient:
    """What a folder or a list of files became.

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
    several = f"{path.name} holds {len(cohort.patients)} patients. Choose the folder of one of them."
    return _load(scene, cohort, several, "import the folder with")


def load_files(scene: Any, files: Iterable[Path]) -> LoadedPatient:
    """Loads one patient's DICOM files as ``load_folder`` loads a folder of them.

    Args:
        scene: to load into; views are left as they are.
        files: wherever they lie.

    Raises:
        Refusal: not readable, files are missing, or more than one patient.
    """
    cohort = read_dicom_files(files)
    several = f"The chosen series are of {len(cohort.patients)} patients. Choose those of one patient."
    return _load(scene, cohort, several, "load it with")


def _load(scene: Any, cohort: Cohort, several: str, how: str) -> LoadedPatient:
    """Puts the only patient into the scene.

    Args:
        scene: to load into.
        cohort: as it was read.
        several: what to say where there is more than one patient.
        how: what to do with Slicer's DICOM module to get at a series that was not loaded.

    Raises:
        Refusal: not readable, or more than one patient.
    """
    if cohort.refused:
        raise next(iter(cohort.refused.values()))
    if len(cohort.patients) > 1:
        raise Refusal("several_patients", several)
    patient = cohort.patients[0]
    problems = [*cohort.problems, *patient.problems]
    for exam in patient.exams:
        # Whether those that a model reads lie on one grid, the table says once they are chosen.
        channels = tuple(exam.images)
        problems += [
            *exam.problems,
            *check_headers(exam, channels),
            *probable_channels(exam, channels),
            *_not_loaded(exam, how),
        ]
    with all_or_nothing(scene):
        item, livers = _add_patient(scene, patient)
    return LoadedPatient(item, livers, tuple(problem.message for problem in problems))


def _not_loaded(exam: Exam, how: str) -> list[Problem]:
    """Series that may be a channel and that the user can't choose, because they are not in the scene."""
    open_reasons = (NOTHING_SAYS, OTHER_B_VALUE)
    images = [i for i in exam.found if i.series_uid and (i.confidence == "ambiguous" or i.reason in open_reasons)]
    names = [f"{image.name} ({image.description})" if image.description else image.name for image in images]
    if not names:
        return []
    message = (
        f"exam {exam.exam_id}: not recognised as a channel and not loaded: {', '.join(names)}. If one of them is a channel, "
        f"{how} Slicer's DICOM module and choose it in the table."
    )
    return [Problem("series_not_loaded", message, exam.exam_id)]


def fill_from_folder(table: ExamTable, path: Path) -> tuple[str, ...]:
    """Loads a patient's folder and fills a table with it; returns what a reader should know. Raises Refusal."""
    return _fill(table, load_folder(table.scene, path))


def fill_from_files(table: ExamTable, files: Iterable[Path]) -> tuple[str, ...]:
    """Loads a patient's DICOM files and fills a table with them; returns what a reader should know. Raises Refusal."""
    return _fill(table, load_files(table.scene, files))


def _fill(table: ExamTable, loaded: LoadedPatient) -> tuple[str, ...]:
    table.fill_from_patient(loaded.item)
    for key, liver in loaded.livers.items():
        table.set_liver(key, liver)
    table.state.told_by_reader = loaded.problems
    return loaded.problems


@contextmanager
def all_or_nothing(scene: Any) -> Iterator[None]:
    """Removes the nodes that were added to a scene where what adds them fails."""
    before = {node.GetID() for node in _all_nodes(scene)}
    try:
        yield
    except BaseException:
        for node in _all_nodes(scene):
            if node.GetID() not in before:
                scene.RemoveNode(node)
        raise


def _all_nodes(scene: Any) -> list[Any]:
    return [scene.GetNthNode(n) for n in range(scene.GetNumberOfNodes())]


def add_to_hierarchy(
    scene: Any, patient: str, exams: Sequence[tuple[str, datetime.date, Sequence[Any]]]
) -> tuple[int, list[int]]:
    """Puts nodes of a scene under a new patient.

    Args:
        scene: that holds them.
        patient: name.
        exams: name, date and nodes of each.

    Returns:
        The items of the patient and of the exams' studies.
    """
    tree = Hierarchy(scene).node
    item = tree.CreateSubjectItem(tree.GetSceneItemID(), patient)
    studies = []
    for name, date, nodes in exams:
        study = tree.CreateStudyItem(item, name)
        tree.SetItemAttribute(study, "DICOM.StudyDate", date.strftime("%Y%m%d"))
        for node in nodes:
            tree.SetItemParent(tree.GetItemByDataNode(node) or tree.CreateItem(study, node), study)
        studies.append(int(study))
    return int(item), studies


def _add_patient(scene: Any, patient: Patient) -> tuple[int, dict[str, Any]]:
    """All exams are read before anything is put into the hierarchy."""
    volumes = [
        [_add_volume(scene, image, f"{channel} {exam.date.isoformat()}") for channel, image in exam.images.items()]
        for exam in patient.exams
    ]
    livers = [_add_liver(scene, exam) for exam in patient.exams]
    exams = [
        (exam.exam_id, exam.date, nodes if liver is None else [*nodes, liver])
        for exam, nodes, liver in zip(patient.exams, volumes, livers, strict=True)
    ]
    item, studies = add_to_hierarchy(scene, patient.patient_id, exams)
    key = Hierarchy(scene).key
    return item, {key(study): liver for study, liver in zip(studies, livers, strict=True) if liver is not None}


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
