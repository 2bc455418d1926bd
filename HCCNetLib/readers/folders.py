"""Form 1, a patient folder of dated exams, and form 2, a cohort folder of patient folders."""

from __future__ import annotations

import datetime
import os
from collections.abc import Iterable
from pathlib import Path

from HCCNetLib.readers.dates import date_in_name
from HCCNetLib.readers.exams import NamedFile, ReadingOptions, assemble_exam, assemble_patient
from HCCNetLib.readers.images import LIVER_BOX, image_stem
from HCCNetLib.readers.outcomes import OUTCOMES_FILE, make_cohort, outcomes_beside
from HCCNetLib.readers.rows import CONTROLS
from HCCNetLib.records import Cohort, Patient, Problem, Refusal

# What an exam may be packed into, and images that are not read here.
_ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".7z", ".rar")
_OTHER_IMAGES = (
    *(".dcm", ".ima", ".mha", ".mhd", ".img", ".hdr", ".mgz", ".mgh", ".par", ".rec"),
    *(".nrrd.gz", ".img.gz"),
)
_ICON = "Icon\r"  # macOS puts it into folders that have a picture of their own


def entries(folder: Path) -> list[Path]:
    """What a folder holds, visible, in the order of names.

    Raises:
        Refusal: no permission, or a name that is not valid Unicode.
    """
    try:
        found = sorted(p for p in folder.iterdir() if not p.name.startswith(".") and p.name != _ICON)
    except PermissionError as error:
        raise Refusal("no_permission", f"{readable(folder)} can't be opened: no permission to read it.") from error
    for path in found:
        if readable(path) != path.name:
            raise Refusal("bad_name", f"The name {readable(path)} holds characters that can't be read. Rename it.")
    return found


def readable(path: Path) -> str:
    """A path's name as text that can be printed and stored."""
    return CONTROLS.sub("?", path.name.encode("utf-8", "replace").decode("utf-8"))


def name_as_given(folder: Path) -> str:
    """The folder's name as the user wrote it; links are not followed, since what they point to may be named alike."""
    return Path(os.path.abspath(folder)).name  # noqa: PTH100 - Path.resolve follows links


def is_patient_folder(folder: Path) -> bool:
    """Whether a folder is a patient's: it holds exams, that is folders named by a date, and no patients.

    A dated folder without images of its own beside folders of dated exams is something else in a cohort (logs), or a
    patient whose id looks like a date.
    """
    found = [p for p in entries(folder) if date_in_name(p.name) is not None and (p.is_dir() or p.is_symlink())]
    if not found or any(p.is_dir() and holds_images(entries(p)) for p in found):
        return bool(found)
    subfolders = [p for p in entries(folder) if p.is_dir()]
    return not any(date_in_name(q.name) is not None and q.is_dir() for p in subfolders for q in entries(p))


def _unopened_exam(path: Path, dates: set[datetime.date]) -> bool:
    """Whether a path is an exam that can't be opened: a dated link to nowhere, or an archive not unpacked beside."""
    if path.is_symlink() and not path.exists():
        return date_in_name(path.name) is not None
    suffix = next((s for s in _ARCHIVES if path.name.lower().endswith(s)), None)
    if suffix is None or path.is_dir():
        return False
    date = date_in_name(path.name[: -len(suffix)])
    return date is not None and date not in dates


def read_patient_folder(folder: Path, options: ReadingOptions | None = None) -> Patient:
    """Reads form 1; the folder's name is the patient id.

    Raises:
        Refusal: an undated folder that holds images, two exams on one day, an exam that is there and can't be opened.
    """
    options = options or ReadingOptions()
    patient_id = name_as_given(folder)
    exams = []
    problems = []
    found = entries(folder)
    dates = {date for p in found if p.is_dir() and (date := date_in_name(p.name)) is not None}
    for path in found:
        date = date_in_name(path.name)
        if _unopened_exam(path, dates):
            message = (
                f"{path.name} looks like an exam and is no folder that can be opened (a link to nowhere, or packed)."
            )
            raise Refusal("unreadable_exam", f"{message} Unpack or mount it, or move it elsewhere.")
        if date is not None and path.is_dir():
            table = options.channels_of(patient_id, path.name, date)
            exams.append(assemble_exam(path.name, date, exam_files(path), options, not_looked_into(path), table))
        elif path.is_dir():
            _refuse_if_exam(path)
            problems.append(Problem("passed_over", f"The folder {path.name} was passed over: it holds no image."))
        elif image_stem(path) is not None:
            message = (
                f"{path.name} lies beside the exam folders and belongs to no exam. Put it into a folder named by the "
                f"exam's date, or move it elsewhere."
            )
            raise Refusal("loose_images", message)
    return assemble_patient(patient_id, exams, options, problems)


def exam_files(folder: Path) -> list[NamedFile]:
    """The images of an exam folder, and its liver box; files of other kinds are none of our business.

    Raises:
        Refusal: no permission.
    """
    try:
        paths = entries(folder)
    except Refusal as refusal:
        raise Refusal(refusal.code, refusal.message.replace(folder.name, f"Exam {folder.name}", 1)) from refusal
    files = []
    for path in paths:
        name = LIVER_BOX if path.name == f"{LIVER_BOX}.json" else image_stem(path)
        if name is not None and not path.is_dir():
            files.append(NamedFile(name, path, f"{folder.name}/{path.name}"))
    return files


def not_looked_into(folder: Path) -> list[str]:
    """What an exam folder holds that a user may think is read: images in subfolders, a liver in another format."""
    names = []
    for path in entries(folder):
        if path.is_dir() and holds_images(path.rglob("*")):
            names.append(f"the folder {path.name}")
        elif image_stem(path) is None and path.name != f"{LIVER_BOX}.json":
            is_image = path.name.lower().endswith(_OTHER_IMAGES)
            is_liver = path.name.lower().startswith(("liver_mask", "liver_box", "livermask", "liverbox"))
            if is_image or is_liver:
                names.append(path.name)
    return names


def _refuse_if_exam(folder: Path) -> None:
    """An undated folder with images in it may be an exam; leaving it out in silence would change the series."""
    if holds_images(folder.rglob("*")):
        message = (
            f"The folder {folder.name} holds images but its name is no date. Name exam folders by their date "
            f"(2021-03-14 or 20210314), or move it elsewhere."
        )
        raise Refusal("undated_folder", message)


def passed_over(folder: Path, reason: str) -> Problem:
    """That a folder was not read; a patient in another form than the others would else be missed in silence."""
    more = " It does hold images: if they are a patient's, give it as an INPUT of its own."
    told = more if holds_images(folder.rglob("*")) else ""
    return Problem("passed_over", f"The folder {folder.name} was passed over: {reason}{told}")


def holds_images(paths: Iterable[Path]) -> bool:
    """Whether any of the paths is an image, by its name or, of a file without suffix, by DICOM's mark."""
    return any(
        image_stem(p) is not None or p.name.lower().endswith(_OTHER_IMAGES) or (not p.suffix and _is_dicom(p))
        for p in paths
    )


def _is_dicom(path: Path) -> bool:
    """By the mark alone; ``dicom.files`` looks closer."""
    try:
        if not path.is_file():  # a pipe would be waited for
            return False
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


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
                problems.append(passed_over(subfolder, "it holds no folder named by a date."))
        except Refusal as refusal:
            refused[subfolder.name] = refusal
    outcomes = outcomes_beside(folder / OUTCOMES_FILE, [*(p.patient_id for p in patients), *refused])
    return make_cohort("cohort folder", patients, refused, outcomes, problems)
