"""Form 1, a patient folder of dated exams, and form 2, a cohort folder of patient folders."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from HCCNetLib.readers.dates import date_in_name
from HCCNetLib.readers.exams import LIVER_BOX, NamedFile, ReadingOptions, assemble_exam, assemble_patient
from HCCNetLib.readers.nifti import image_stem
from HCCNetLib.readers.outcomes import OUTCOMES_FILE, outcomes_beside, with_outcome
from HCCNetLib.records import Cohort, Patient, Problem, Refusal

# What an exam may be packed into, and what it may hold that is not read.
_ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar")
_DICOM = (".dcm", ".ima")


def entries(folder: Path) -> list[Path]:
    """What a folder holds, visible, in the order of names.

    Raises:
        Refusal: no permission, or a name that is not valid Unicode.
    """
    try:
        found = sorted(p for p in folder.iterdir() if not p.name.startswith("."))
    except PermissionError as error:
        raise Refusal("no_permission", f"{readable(folder)} can't be opened: no permission to read it.") from error
    for path in found:
        if readable(path) != path.name:
            raise Refusal("bad_name", f"The name {readable(path)} holds characters that can't be read. Rename it.")
    return found


def readable(path: Path) -> str:
    """A path's name as text that can be printed and stored."""
    return path.name.encode("utf-8", "replace").decode("utf-8")


def name_as_given(folder: Path) -> str:
    """The folder's name as the user wrote it; links are not followed, since what they point to may be named alike."""
    return Path(os.path.abspath(folder)).name  # noqa: PTH100 - Path.resolve follows links


def is_patient_folder(folder: Path) -> bool:
    """Whether a folder holds at least one folder (or what ought to be one) named by a date.

    A dated folder of dated folders is a patient whose id looks like a date, not an exam.
    """
    dated = [p for p in entries(folder) if _looks_like_exam(p)]
    return any(not p.is_dir() or not any(date_in_name(q.name) and q.is_dir() for q in entries(p)) for p in dated)


def _looks_like_exam(path: Path) -> bool:
    """A folder named by a date, a link so named that leads nowhere, or an archive."""
    if date_in_name(path.name) is not None:
        return path.is_dir() or path.is_symlink()
    return path.name.lower().endswith(_ARCHIVES) and date_in_name(path.name.split(".")[0]) is not None


def read_patient_folder(folder: Path, options: ReadingOptions | None = None) -> Patient:
    """Reads form 1; the folder's name is the patient id.

    Raises:
        Refusal: an undated folder that holds images, two exams on one day, an exam that is there and can't be opened.
    """
    exams = []
    problems = []
    for path in entries(folder):
        date = date_in_name(path.name)
        if _looks_like_exam(path) and not path.is_dir():
            message = (
                f"{path.name} looks like an exam and is no folder that can be opened (a link to nowhere, or packed)."
            )
            raise Refusal("unreadable_exam", f"{message} Unpack or mount it, or move it elsewhere.")
        if date is not None and path.is_dir():
            exams.append(assemble_exam(path.name, date, exam_files(path), options))
        elif path.is_dir():
            _refuse_if_exam(path)
            problems.append(Problem("passed_over", f"The folder {path.name} was passed over: it holds no images."))
        elif image_stem(path) is not None:
            message = (
                f"{path.name} lies beside the exam folders and belongs to no exam. Put it into a folder named by the "
                f"exam's date, or move it elsewhere."
            )
            raise Refusal("loose_images", message)
    return assemble_patient(name_as_given(folder), exams, options, problems)


def exam_files(folder: Path) -> list[NamedFile]:
    """The images of an exam folder, and its liver box; other files are none of our business.

    Raises:
        Refusal: no permission, or a link to an image that leads nowhere.
    """
    try:
        paths = entries(folder)
    except Refusal as refusal:
        raise Refusal(refusal.code, refusal.message.replace(folder.name, f"Exam {folder.name}", 1)) from refusal
    files = []
    for path in paths:
        name = LIVER_BOX if path.name == f"{LIVER_BOX}.json" else image_stem(path)
        if name is None or path.is_dir():
            continue
        files.append(NamedFile(name, path, f"{folder.name}/{path.name}"))
    return files


def _refuse_if_exam(folder: Path) -> None:
    """An undated folder with images in it may be an exam; leaving it out in silence would change the series."""
    if holds_images(folder.rglob("*")):
        message = (
            f"The folder {folder.name} holds images but its name is no date. Name exam folders by their date "
            f"(2021-03-14 or 20210314), or move it elsewhere."
        )
        raise Refusal("undated_folder", message)


def holds_images(paths: Iterable[Path]) -> bool:
    """Whether any of the paths is an image by its name."""
    return any(image_stem(p) is not None or p.suffix.lower() in _DICOM for p in paths)


def read_cohort_folder(folder: Path, options: ReadingOptions | None = None) -> Cohort:
    """Reads form 2. A patient who can't be read is refused alone; subfolders without dated exams are named."""
    patients: list[Patient] = []
    refused: dict[str, Refusal] = {}
    problems: list[Problem] = []
    for subfolder in entries(folder):
        if not subfolder.is_dir():
            if subfolder.is_symlink() and not subfolder.exists():
                message = "It is a link that leads nowhere. Mount what it points to, or remove it."
                refused[subfolder.name] = Refusal("unreadable_patient", message)
            continue
        try:
            if is_patient_folder(subfolder):
                patients.append(read_patient_folder(subfolder, options))
            else:
                message = f"The folder {subfolder.name} was passed over: it holds no folder named by a date."
                problems.append(Problem("passed_over", message))
        except Refusal as refusal:
            refused[subfolder.name] = refusal
    outcomes = outcomes_beside(folder / OUTCOMES_FILE, [*(p.patient_id for p in patients), *refused])
    return Cohort(
        patients=tuple(with_outcome(patient, outcomes.of) for patient in patients),
        refused=refused,
        outcomes=outcomes.of,
        outcomes_refused=outcomes.refused,
        problems=(*problems, *outcomes.problems),
        form="cohort folder",
    )
