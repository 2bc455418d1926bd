"""Exams out of the scene into files for the worker, as they lie in it now; one volume at a step, so that a window can live."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from HCCNetLib.readers.exams import in_exam
from HCCNetLib.records import Refusal
from HCCNetSlicer.exam_table import TableExam
from HCCNetSlicer.fingerprints import fingerprint
from HCCNetSlicer.liver import liver_fingerprint, write_liver
from HCCNetSlicer.record import ShownExam
from HCCNetSlicer.volumes import write_volume

TABLE_FILE = "exams.csv"

_PATIENT = "patient"  # whom the worker is told of: it need not know who it is


def hand_over(exams: Sequence[TableExam], folder: Path, livers: dict[str, str]) -> Iterator[ShownExam | None]:
    """Writes exams as a cohort table with one unnamed patient, one volume at a step.

    What is kept of a volume or liver, by which a result knows whether it is out of date, is what went out.

    Args:
        exams: of one patient.
        folder: exists; the table becomes ``TABLE_FILE`` in it.
        livers: exam id → fingerprint, filled in here.

    Yields:
        Each exam, as a result knows it, when all of it is written; None after every volume.

    Raises:
        Refusal: a volume or liver was removed meanwhile, or a liver can't be used.
    """
    lines = []
    for number, exam in enumerate(exams, start=1):
        line = {"patient_id": _PATIENT, "exam_id": exam.exam_id, "exam_date": exam.date.isoformat()}
        taken = {}
        for channel, volume in exam.volumes.items():
            _require_in_scene(volume, channel, exam)
            taken[channel] = fingerprint(volume)
            path = folder / f"exam-{number}-{channel}.nii"
            write_volume(volume, path)
            line[channel] = path.name
            yield None
        if exam.liver is not None:
            _require_in_scene(exam.liver, "The liver", exam)
            livers[exam.exam_id] = fingerprint_of_liver(exam)
            column, path = write_liver(exam.liver, folder, f"exam-{number}-liver")
            line[column] = path.name
        lines.append(line)
        yield ShownExam(exam.exam_id, exam.date, exam.volumes, taken)
    _write_table(lines, folder / TABLE_FILE)


def fingerprint_of_liver(exam: TableExam) -> str:
    """Of an exam that has a liver; raises Refusal, with the exam named, where it can't be used."""
    try:
        return liver_fingerprint(exam.liver)
    except Refusal as refusal:
        raise in_exam(refusal, exam.exam_id) from refusal


def _require_in_scene(node: Any, what: str, exam: TableExam) -> None:
    """A node that was removed meanwhile has lost its transforms, and lies elsewhere."""
    if node.GetScene() is None:
        message = (
            f"{what} of exam {exam.exam_id} was removed from the scene meanwhile. Look at the table, and predict again."
        )
        raise Refusal("volume_removed", message, exam.exam_id)


def _write_table(lines: Sequence[Mapping[str, str]], path: Path) -> None:
    columns = list(dict.fromkeys(name for line in lines for name in line))
    with path.open("w", encoding="ascii", newline="") as file:
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        writer.writerows(lines)
