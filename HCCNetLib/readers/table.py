"""Form 3, a cohort table: ``patient_id, exam_id, exam_date, <channel>...`` with paths relative to the table."""

from __future__ import annotations

from pathlib import Path

from HCCNetLib.readers.channels import is_channel_name
from HCCNetLib.readers.dates import parse_date
from HCCNetLib.readers.exams import NamedFile, ReadingOptions, assemble_exam, assemble_patient
from HCCNetLib.readers.images import LIVER_BOX, LIVER_MASK, SUFFIXES
from HCCNetLib.readers.outcomes import OUTCOMES_FILE, make_cohort, outcomes_beside
from HCCNetLib.readers.rows import read_rows
from HCCNetLib.records import Cohort, Exam, Patient, Refusal

_COLUMNS = ("patient_id", "exam_id", "exam_date")


def read_cohort_table(path: Path, options: ReadingOptions | None = None) -> Cohort:
    """Reads form 3; columns ``liver_mask`` and ``liver_box`` are optional, an empty cell is a missing image.

    Raises:
        Refusal: the table itself can't be read; a patient who can't be is refused alone.
    """
    options = options or ReadingOptions()
    rows_of: dict[str, list[tuple[int, dict[str, str]]]] = {}
    for number, row in read_rows(path, _COLUMNS):
        if not row["patient_id"]:
            raise Refusal("missing_patient_id", f"{path.name}, row {number} has no patient_id.")
        rows_of.setdefault(row["patient_id"], []).append((number, row))
    patients: list[Patient] = []
    refused: dict[str, Refusal] = {}
    for patient_id, rows in rows_of.items():
        try:
            exams = [_read_exam(path, number, row, options) for number, row in rows]
            _refuse_same_name(exams)
            patients.append(assemble_patient(patient_id, exams, options))
        except Refusal as refusal:
            refused[patient_id] = refusal
    outcomes = outcomes_beside(path.with_name(OUTCOMES_FILE), list(rows_of))
    return make_cohort("cohort table", patients, refused, outcomes)


def _read_exam(table: Path, number: int, row: dict[str, str], options: ReadingOptions) -> Exam:
    date = parse_date(row["exam_date"])
    if date is None:
        message = f"{table.name}, row {number}: exam_date is missing or not a date; write it as 2021-03-14."
        raise Refusal("undated_exam", message, row["exam_id"] or None)
    exam_id = row["exam_id"] or date.isoformat()
    files = [
        NamedFile(column, table.parent / cell, f"{column} of row {number}")
        for column, cell in row.items()
        if cell and column not in _COLUMNS and _is_image(column, cell, f"{column} of row {number}")
    ]
    channels = options.channels_of(row["patient_id"], exam_id, date)
    return assemble_exam(exam_id, date, files, options, table=channels)


def _is_image(column: str, cell: str, shown: str) -> bool:
    """Whether a cell names an image; other columns (age, sex, site) may stand in the table.

    Raises:
        Refusal: a channel's cell that is no path to an image that is read here.
    """
    if column == LIVER_BOX:
        return True
    is_image = cell.lower().endswith(SUFFIXES)
    expected = column == LIVER_MASK or all(is_channel_name(name) for name in column.split("+"))
    if expected and not is_image:
        kinds = f"{', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}"
        raise Refusal("not_an_image", f"{shown} is no {kinds} file. Convert it first, or leave the cell empty.")
    return is_image


def _refuse_same_name(exams: list[Exam]) -> None:
    names = [exam.exam_id for exam in exams]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise Refusal(
            "exam_twice", f"The exam_id {', '.join(twice)} stands there twice for one patient. Make it unique."
        )
