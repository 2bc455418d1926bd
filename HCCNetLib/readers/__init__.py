"""Files → records. An input's form is recognised by looking."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from HCCNetLib.readers.bids import is_bids_dataset, is_bids_subject, read_bids_dataset, read_bids_subject
from HCCNetLib.readers.channel_table import channel_rows, read_channel_table
from HCCNetLib.readers.deidentify import Pseudonyms, deidentify, deidentify_refusal, is_folder, names_in, open_key
from HCCNetLib.readers.dicom import holds_dicom, is_dicom, is_dicom_folder, read_dicom, read_dicom_files
from HCCNetLib.readers.exams import (
    ReadingOptions,
    check_images,
    in_exam,
    orientation_letters,
    require_channels,
)
from HCCNetLib.readers.folders import (
    entries,
    holds_images,
    is_patient_folder,
    name_as_given,
    read_cohort_folder,
    read_patient_folder,
    readable,
)
from HCCNetLib.readers.published import IMAGES, is_published_layout, read_published_layout
from HCCNetLib.readers.table import read_cohort_table
from HCCNetLib.records import Cohort, Refusal

__all__ = [
    "Pseudonyms",
    "ReadingOptions",
    "channel_rows",
    "check_images",
    "in_exam",
    "name_as_given",
    "open_key",
    "orientation_letters",
    "read_channel_table",
    "read_dicom_files",
    "read_input",
    "require_channels",
]

_FORMS = (
    "a patient folder (one folder per exam named by its date, 2021-03-14 or 20210314, with one <channel>.nii.gz per "
    "channel), a folder of such patient folders, a table (.csv, .tsv) with patient_id, exam_id, exam_date and a column "
    "per channel, a folder of DICOM files at any depth, a BIDS dataset (sub-*/ses-*, dates in sub-*_sessions.tsv), or the "
    "published layout (nifti/<patient>_<number>, dates in labels/labels.csv)"
)


def read_input(path: str | Path, options: ReadingOptions | None = None) -> Cohort:
    """Reads an input of any of the forms; voxels are not read yet.

    Args:
        path: the input.
        options: what is allowed beyond the strict reading.

    Raises:
        Refusal: nothing in it is recognised, or the input as a whole can't be read. A patient folder that can't be
            read is refused as a whole; within a cohort, each patient alone.
    """
    path, options = Path(path), options or ReadingOptions()
    if options.pseudonyms is None:
        return _read(path, options)
    names = names_in(path, *([options.channel_table.name] if options.channel_table else []))
    try:
        return deidentify(_read(path, options), options.pseudonyms, names)
    except Refusal as refusal:
        patient_id = name_as_given(path) if is_folder(path) else None
        raise deidentify_refusal(refusal, options.pseudonyms, names, patient_id) from None


def _read(path: Path, options: ReadingOptions) -> Cohort:
    """Reads the input; the last of its problems are the rows of the channel table that were of no use."""
    cohort = _read_form(path, options)
    unused = options.channel_table.unused() if options.channel_table else []
    return replace(cohort, problems=(*cohort.problems, *unused))


def _read_form(path: Path, options: ReadingOptions) -> Cohort:
    if readable(path) != path.name:
        raise Refusal("bad_name", f"The name {readable(path)} holds characters that can't be read. Rename it.")
    try:
        exists, is_folder = path.exists(), path.is_dir()
    except OSError as error:
        raise Refusal("no_permission", f"{path.name} can't be opened: {error.strerror}.") from error
    if not exists:
        raise Refusal("missing_input", f"The input {path} does not exist. Check the path.")
    if not is_folder:
        if path.suffix.lower() in (".csv", ".tsv"):
            return read_cohort_table(path, options)
        if is_dicom(path):
            return read_dicom(path, options)
        raise Refusal("unknown_input", f"{path.name} is no folder, table or DICOM file. Expected {_FORMS}.")
    if is_bids_dataset(path):
        return read_bids_dataset(path, options)
    if is_bids_subject(path) and not is_patient_folder(path):
        return Cohort(patients=(read_bids_subject(path, options),), form="patient folder")
    if is_published_layout(path):
        return read_published_layout(path, options)
    if is_dicom_folder(path):
        return read_dicom(path, options)
    if is_patient_folder(path):
        return Cohort(patients=(read_patient_folder(path, options),), form="patient folder")
    cohort = read_cohort_folder(path, options)
    if not cohort.patients and not cohort.refused:
        raise Refusal("unknown_input", f"{_what_is_there(path)} Expected {_FORMS}.")
    return cohort


def _what_is_there(folder: Path) -> str:
    """Says what was found instead, because the nearest mistake differs."""
    found = entries(folder)
    if not found:
        return f"The folder {folder.name} is empty."
    if folder.name == IMAGES and is_published_layout(folder.parent):
        return f"The folder {folder.name} is part of the published layout. Give the folder that holds it."
    for path in found:
        if path.is_dir() and (is_bids_dataset(path) or is_published_layout(path)):
            return f"The folder {folder.name} holds a dataset. Give its folder {path.name}."
    if holds_dicom(folder):
        return (
            f"The folder {folder.name} holds DICOM files and images of other formats: which of them are meant can't be told. "
            f"Give the folder of one kind, or move the others elsewhere."
        )
    if holds_images(p for p in found if p.is_file()):
        return f"The folder {folder.name} holds images but no folder named by a date: an exam without its date can't be used."
    undated = [p.name for p in found if p.is_dir() and holds_images(p.iterdir())]
    if undated:
        return f"The folder(s) {', '.join(undated[:5])} hold images but their names are no dates."
    if holds_images(folder.rglob("*")):
        return f"The folder {folder.name} holds images, but none in a folder named by its exam's date."
    return f"The folder {folder.name} holds no exam folder named by a date."
