"""Form 1, a patient folder of dated exams, and form 2, a cohort folder of patient folders."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from HCCNetLib.readers.dates import date_in_name
from HCCNetLib.readers.exams import LIVER_BOX, NamedFile, ReadingOptions, assemble_exam, assemble_patient
from HCCNetLib.readers.nifti import image_stem
from HCCNetLib.readers.outcomes import OUTCOMES_FILE, read_outcomes
from HCCNetLib.records import Cohort, Patient, Problem, Refusal


def subfolders(folder: Path) -> list[Path]:
    """The visible subfolders in the order of their names.

    Raises:
        Refusal: no permission.
    """
    try:
        return sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    except PermissionError as error:
        raise Refusal(
            "no_permission", f"The folder {folder.name} can't be opened: no permission to read it."
        ) from error


def is_patient_folder(folder: Path) -> bool:
    """Whether a folder holds at least one folder named by a date."""
    return any(date_in_name(p.name) for p in subfolders(folder))


def read_patient_folder(folder: Path, options: ReadingOptions | None = None) -> Patient:
    """Reads form 1; the folder's name is the patient id.

    Raises:
        Refusal: an undated folder that holds images, two exams on one day, unusable images.
    """
    exams = []
    for subfolder in subfolders(folder):
        date = date_in_name(subfolder.name)
        if date is None:
            _refuse_if_exam(subfolder)
            continue
        exams.append(assemble_exam(subfolder.name, date, exam_files(subfolder), options))
    _refuse_loose_images(folder)
    return assemble_patient(folder.resolve().name, exams, options)


def exam_files(folder: Path) -> list[NamedFile]:
    """The images of an exam folder, and its liver box; other files are none of our business."""
    try:
        paths = sorted(p for p in folder.iterdir() if p.is_file() and not p.name.startswith("."))
    except PermissionError as error:
        raise Refusal("no_permission", f"Exam {folder.name} can't be opened: no permission to read it.") from error
    files = [
        NamedFile(stem, path, f"{folder.name}/{path.name}") for path in paths if (stem := image_stem(path)) is not None
    ]
    box = folder / f"{LIVER_BOX}.json"
    return files + ([NamedFile(LIVER_BOX, box, f"{folder.name}/{box.name}")] if box in paths else [])


def _refuse_if_exam(subfolder: Path) -> None:
    """An undated folder with images in it may be an exam; leaving it out in silence would change the series."""
    if exam_files(subfolder):
        message = (
            f"The folder {subfolder.name} holds images but its name is no date. Name exam folders by their date "
            f"(2021-03-14 or 20210314), or move it elsewhere."
        )
        raise Refusal("undated_folder", message)


def _refuse_loose_images(folder: Path) -> None:
    loose = sorted(p.name for p in folder.iterdir() if p.is_file() and image_stem(p) is not None)
    if loose:
        message = (
            f"{', '.join(loose[:5])} lie(s) beside the exam folders and belong(s) to no exam. Put images into a folder named "
            f"by the exam's date, or move them elsewhere."
        )
        raise Refusal("loose_images", message)


def read_cohort_folder(folder: Path, options: ReadingOptions | None = None) -> Cohort:
    """Reads form 2. A patient who can't be read is refused alone; subfolders without dated exams are named."""
    patients: list[Patient] = []
    refused: dict[str, Refusal] = {}
    problems: list[Problem] = []
    for subfolder in subfolders(folder):
        try:
            if not is_patient_folder(subfolder):
                problems.append(Problem("passed_over", _passed_over(subfolder)))
                continue
            patients.append(read_patient_folder(subfolder, options))
        except Refusal as refusal:
            refused[subfolder.name] = refusal
    outcomes_file = folder / OUTCOMES_FILE
    outcomes = read_outcomes(outcomes_file) if outcomes_file.is_file() else {}
    problems += outcome_problems(list(outcomes), [*(p.patient_id for p in patients), *refused])
    return Cohort(tuple(patients), refused, outcomes, tuple(problems), "cohort folder")


def _passed_over(subfolder: Path) -> str:
    return f"The folder {subfolder.name} was passed over: it holds no folder named by a date."


def outcome_problems(with_outcome: Sequence[str], patients: Sequence[str]) -> list[Problem]:
    """Outcomes of nobody: most often a patient id spelt in two ways."""
    strangers = len(set(with_outcome) - set(patients))
    if not strangers:
        return []
    message = f"{strangers} patient(s) in the outcomes have no exams here. Check how their ids are spelt."
    return [Problem("outcomes_without_exams", message)]
