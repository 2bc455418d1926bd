"""What is true of a phantom cohort, read back: where the lesion and the liver lie, and how large the lesion is."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from HCCNetLib.readers.nifti import NiftiImage
from HCCNetLib.readers.rows import read_rows
from HCCNetLib.records import Grid, Refusal
from HCCNetLib.synthetic.cohort import EXAMS_FILE, TRUTH_FILE, TRUTH_FOLDER
from HCCNetLib.synthetic.rendering import ORGAN_LABELS
from HCCNetLib.synthetic.truth_tables import RISK_VIEWS

_LIVER = ORGAN_LABELS["liver"]
_ADVICE = "Make the phantom again with `hccnet synthesize`, or take its truth folder away to check without it."


@dataclass(frozen=True)
class ExamTruth:
    """Masks (X, Y, Z) on the exam's grid.

    Args:
        lesion: of the lesion; of surveillance, of the tumours.
        liver: without vessels, cysts and benign nodules; the lesion belongs to it.
    """

    lesion: NDArray[np.bool_]
    liver: NDArray[np.bool_]


@dataclass(frozen=True)
class Truth:
    """The truth folder of a phantom cohort.

    Args:
        folder: where it is.
        lesion_ml: volume of the lesion, or of all solid nodules, by patient and exam.
        visible: whether a tumour was visible, where the truth says so.
        risks: view (``RISK_VIEWS``) → months → true risk by patient and exam, where there are any.
    """

    folder: Path
    lesion_ml: Mapping[tuple[str, str], float]
    visible: Mapping[tuple[str, str], bool]
    risks: Mapping[str, Mapping[float, Mapping[tuple[str, str], float]]]

    def size(self, patient_id: str, exam_id: str) -> float:
        """The lesion's volume at an exam, ml; raises Refusal where the exam is not listed."""
        if (patient_id, exam_id) not in self.lesion_ml:
            message = f"{TRUTH_FOLDER}/{EXAMS_FILE} has no row for exam {exam_id}. {_ADVICE}"
            raise Refusal("missing_truth", message, exam_id)
        return self.lesion_ml[patient_id, exam_id]

    def exam(self, patient_id: str, exam_id: str, grid: Grid) -> ExamTruth:
        """The masks of an exam.

        Args:
            patient_id: the patient.
            exam_id: the exam.
            grid: the exam's, which the masks must share.

        Raises:
            Refusal: a mask is missing, damaged, or lies on another grid.
        """
        nodules, organs = (self._mask(patient_id, exam_id, name, grid) for name in ("lesion", "organs"))
        return ExamTruth(np.isin(nodules, self._tumours(patient_id)), (organs == _LIVER) | (nodules > 0))

    def _tumours(self, patient_id: str) -> list[int]:
        """Their numbers in the lesion masks: the growing lesion's, or those of the tumours."""
        shown = f"{TRUTH_FOLDER}/…/{TRUTH_FILE}"
        try:
            truth = json.loads((self.folder / patient_id / TRUTH_FILE).read_text(encoding="utf-8"))
            return [n for n, nodule in enumerate(truth["nodules"], start=1) if nodule["kind"] in ("lesion", "tumour")]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise Refusal("bad_truth", f"{shown} is missing or damaged. {_ADVICE}") from error

    def _mask(self, patient_id: str, exam_id: str, name: str, grid: Grid) -> NDArray[np.float32]:
        shown = f"{TRUTH_FOLDER}/…/{exam_id}/{name}.nii.gz"
        image = NiftiImage(self.folder / patient_id / exam_id / f"{name}.nii.gz", shown)
        try:
            matches = image.grid.matches(grid)
            values = image.read()
        except Refusal as refusal:
            raise Refusal(refusal.code, f"{refusal.message} {_ADVICE}", exam_id) from refusal
        if not matches:
            message = f"{shown} lies on another grid than exam {exam_id}: it is the truth of another cohort. {_ADVICE}"
            raise Refusal("other_grid", message, exam_id)
        return values


def find_truth(cohort: Path) -> Truth | None:
    """The truth beside a phantom's exams, or None where there is none.

    Args:
        cohort: the cohort's folder, or its table.

    Raises:
        Refusal: the folder is there and its table of sizes is missing or damaged.
    """
    folder = (cohort if cohort.is_dir() else cohort.parent) / TRUTH_FOLDER
    if not folder.is_dir():
        return None
    try:
        rows = read_rows(folder / EXAMS_FILE, ("patient_id", "exam_id", "lesion_ml"))
    except Refusal as refusal:
        raise Refusal(refusal.code, f"In the folder {TRUTH_FOLDER}: {refusal.message} {_ADVICE}") from refusal

    def column(name: str) -> dict[tuple[str, str], float]:
        return {(row["patient_id"], row["exam_id"]): _number(row[name], number, name) for number, row in rows}

    there = rows[0][1]
    visible = {
        (row["patient_id"], row["exam_id"]): row["visible_tumour"] == "yes"
        for _, row in rows
        if "visible_tumour" in there
    }
    risks: dict[str, dict[float, dict[tuple[str, str], float]]] = {view: {} for view in RISK_VIEWS}
    for name in there:
        kind, _, months = name.rpartition("_")
        if kind.removeprefix("risk_") in risks:
            risks[kind.removeprefix("risk_")][float(months)] = column(name)
    return Truth(folder, column("lesion_ml"), visible, {view: found for view, found in risks.items() if found})


def _number(text: str, row: int, column: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value >= 0):
        what = "volume" if column.endswith("_ml") else "risk"
        raise Refusal("bad_truth", f"{TRUTH_FOLDER}/{EXAMS_FILE}, row {row}: {column} is no {what}. {_ADVICE}")
    return value
