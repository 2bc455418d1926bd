"""Form 5, the published repository's layout: ``nifti/<patient>_<number>/<CHANNEL>.nii.gz`` and ``labels/labels.csv``.

The published ``labels.csv`` has ``id``, ``observation`` (the number), ``label`` and ``delta``, a time without a unit and
without a day. Exams need their dates, so a column with them has to be added. Messages name an exam by its number, since its
folder is named after the patient.
"""

from __future__ import annotations

import datetime
import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from HCCNetLib.readers.channels import plain_name
from HCCNetLib.readers.dates import parse_date
from HCCNetLib.readers.exams import NamedFile, ReadingOptions, assemble_exam, assemble_patient
from HCCNetLib.readers.folders import entries, exam_files, holds_images, not_looked_into
from HCCNetLib.readers.outcomes import OUTCOMES_FILE, make_cohort, outcomes_beside
from HCCNetLib.readers.rows import read_rows
from HCCNetLib.records import Cohort, Exam, Patient, Problem, Refusal

IMAGES, LABELS, TABLE = "nifti", "labels", "labels.csv"

_EXAM_FOLDER = re.compile(r"(.+)_(\d+)")
_WHOLE_NUMBER = re.compile(r"(\d{1,6})(?:\.0*)?")  # a column with a gap in it is written as 3.0
_DATE_COLUMNS = ("examdate", "date", "studydate", "mridate")

# Patient → number of the exam → what is there for it.
_ByExam = dict[str, dict[int, list[Path]]]


def is_published_layout(folder: Path) -> bool:
    """Whether a folder holds ``nifti`` with numbered exams, and ``labels``."""
    if not (folder / IMAGES).is_dir() or not (folder / LABELS).is_dir():
        return False
    is_numbered = any(_EXAM_FOLDER.fullmatch(path.name) for path in entries(folder / IMAGES))
    return is_numbered or (folder / LABELS / TABLE).is_file()


def read_published_layout(folder: Path, options: ReadingOptions | None = None) -> Cohort:
    """Reads form 5. A patient who can't be read is refused alone.

    Raises:
        Refusal: there is no ``labels.csv``, or it does not say the exams' dates.
    """
    dates, columns = _read_labels(folder / LABELS / TABLE)
    folders, problems = _exam_folders(folder / IMAGES)
    if not folders:
        raise Refusal("no_exams", f"{IMAGES} holds no folder named <patient>_<number>. Name the exams' folders so.")
    patients: list[Patient] = []
    refused: dict[str, Refusal] = {}
    for patient_id, exams in folders.items():
        try:
            patients.append(_read_patient(patient_id, exams, dates.get(patient_id, {}), options))
        except Refusal as refusal:
            refused[patient_id] = _without_names(refusal, exams)
    outcomes = outcomes_beside(folder / OUTCOMES_FILE, list(folders))
    problems += _what_does_not_match(folders, dates)
    if "label" in columns and not (folder / OUTCOMES_FILE).is_file():
        message = (
            f"{TABLE} has a label per exam and no day of a diagnosis: the labels are not used. Training and evaluation "
            f"need {OUTCOMES_FILE} (patient_id, diagnosis_date, last_seen_date) beside the folders {IMAGES} and {LABELS}."
        )
        problems.append(Problem("labels_not_used", message))
    return make_cohort("published layout", patients, refused, outcomes, problems)


def _read_labels(path: Path) -> tuple[dict[str, dict[int, list[str]]], Sequence[str]]:
    """Patient → number of the exam → dates as they are written in its rows; and the table's columns."""
    if not path.is_file():
        message = (
            f"{LABELS}/{TABLE} does not exist: without it no exam has a date. It needs id, observation, exam_date."
        )
        raise Refusal("missing_file", message)
    rows = read_rows(path, ("id", "observation"))
    columns = list(rows[0][1])
    column = _date_column(columns)
    dates: dict[str, dict[int, list[str]]] = {}
    for number, row in rows:
        observation = _WHOLE_NUMBER.fullmatch(row["observation"])
        if not row["id"] or observation is None:
            message = f"{TABLE}, row {number}: id and observation (a whole number) must both be there."
            raise Refusal("bad_table", message)
        dates.setdefault(row["id"], {}).setdefault(int(observation.group(1)), []).append(row[column])
    return dates, columns


def _date_column(columns: Sequence[str]) -> str:
    """The column with the exams' dates; raises Refusal where there is none, or more than one."""
    found = [name for name in columns if plain_name(name) in _DATE_COLUMNS]
    if len(found) == 1:
        return found[0]
    if found:
        message = f"{TABLE} has the columns {' and '.join(found)}: which is the exams' date? Keep one, as exam_date."
        raise Refusal("column_twice", message)
    message = (
        f"{TABLE} does not say the exams' dates (it has: {', '.join(columns)}). A time in numbers has neither unit nor "
        f"day, and is not guessed at. Add a column exam_date, written 2021-03-14."
    )
    raise Refusal("undated_exam", message)


def _exam_folders(folder: Path) -> tuple[_ByExam, list[Problem]]:
    """Patient → number → folders, and how many things beside them were passed over."""
    found: _ByExam = {}
    others = 0
    for path in entries(folder):
        match = _EXAM_FOLDER.fullmatch(path.name)
        if match and path.is_dir():
            found.setdefault(match.group(1), {}).setdefault(int(match.group(2)), []).append(path)
        elif path.is_dir() and holds_images(path.rglob("*")):
            others += 1
    if not others:
        return found, []
    message = f"{others} folder(s) in {IMAGES} hold images and are not named <patient>_<number>: passed over."
    return found, [Problem("passed_over", message)]


def _read_patient(
    patient_id: str,
    folders: Mapping[int, Sequence[Path]],
    dates: Mapping[int, Sequence[str]],
    options: ReadingOptions | None,
) -> Patient:
    exams: list[Exam] = []
    for number, paths in folders.items():
        exam_id = _exam_id(number)
        if len(paths) > 1 or len(dates.get(number, ())) > 1:
            what = "folders" if len(paths) > 1 else f"rows in {TABLE}"
            raise Refusal("exam_twice", f"Exam {exam_id} has several {what}. Keep one.", exam_id)
        date = _date_of(exam_id, dates.get(number))
        files = [NamedFile(f.name, f.path, f"{exam_id}/{f.path.name}") for f in exam_files(paths[0])]
        table = options.channels_of(patient_id, exam_id, date) if options else None
        exams.append(assemble_exam(exam_id, date, files, options, not_looked_into(paths[0]), table))
    problems = []
    if missing := [_exam_id(number) for number in dates if number not in folders]:
        message = f"{TABLE} lists exam {', '.join(missing)}, and there is no such folder: read without it."
        problems.append(Problem("exams_missing", message))
    in_order = [exam.date for exam in sorted(exams, key=lambda exam: int(exam.exam_id))]
    if any(later < earlier for earlier, later in itertools.pairwise(in_order)):
        message = f"the exams' numbers are not in the order of their dates in {TABLE}; the dates are used."
        problems.append(Problem("numbers_not_in_order", message))
    return assemble_patient(patient_id, exams, options, problems)


def _without_names(refusal: Refusal, folders: Mapping[int, Sequence[Path]]) -> Refusal:
    """The refusal with every exam's folder called by its number."""
    message = refusal.message
    for number, paths in folders.items():
        for path in paths:
            message = message.replace(path.name, _exam_id(number))
    return Refusal(refusal.code, message, refusal.exam_id)


def _exam_id(number: int) -> str:
    return f"{number:03d}"


def _date_of(exam_id: str, written: Sequence[str] | None) -> datetime.date:
    if written is None:
        message = (
            f"Exam {exam_id} has no row in {TABLE}, and an exam without its date can't be used. Add the row, or move the "
            f"folder elsewhere."
        )
        raise Refusal("undated_exam", message, exam_id)
    date = parse_date(written[0])
    if date is None:
        message = f"Exam {exam_id}: its date in {TABLE} is missing or no date. Write it as 2021-03-14."
        raise Refusal("undated_exam", message, exam_id)
    return date


def _what_does_not_match(folders: _ByExam, dates: Mapping[str, Mapping[int, Sequence[str]]]) -> list[Problem]:
    """Exams that stand only in the table or only in the folder, in numbers: their names are patients'."""
    in_folders, in_table = set(_exams(folders)), set(_exams(dates))
    problems = []
    if only := in_table - in_folders:
        message = f"{TABLE} lists {_counted(only)} without a folder in {IMAGES}. Check how the ids are spelt."
        problems.append(Problem("exams_missing", message))
    if only := in_folders - in_table:
        message = f"{IMAGES} holds {_counted(only)} without a row in {TABLE}: these patients are refused."
        problems.append(Problem("exams_not_listed", message))
    return problems


def _exams(of: Mapping[str, Mapping[int, object]]) -> Iterable[tuple[str, int]]:
    return ((patient_id, number) for patient_id, exams in of.items() for number in exams)


def _counted(exams: set[tuple[str, int]]) -> str:
    return f"{len(exams)} exam(s) of {len({patient_id for patient_id, _ in exams})} patient(s)"
