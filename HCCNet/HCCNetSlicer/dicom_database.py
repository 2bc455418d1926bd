"""What Slicer's DICOM database lists, and where the files of its series lie; no file is opened here.

Patients' names are for the screen alone: no message, exception or log has one.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import slicer
import slicer.util

from HCCNetLib.readers.dates import parse_date
from HCCNetLib.records import Refusal

MR = "MR"


@dataclass(frozen=True)
class ListedPatient:
    """A patient of the database.

    Args:
        uid: the database's own.
        name: as Slicer shows it.
        patient_id: of the hospital.
        studies: how many.
    """

    uid: str
    name: str = field(repr=False)
    patient_id: str = field(repr=False)
    studies: int


@dataclass(frozen=True)
class ListedStudy:
    """A study of a patient; ``date`` is None where the database has none."""

    uid: str
    date: datetime.date | None
    description: str


@dataclass(frozen=True)
class ListedSeries:
    """A series of a study; ``images`` counts objects, of which an enhanced one holds many slices."""

    uid: str
    number: str
    description: str
    modality: str
    images: int


def list_patients() -> list[ListedPatient]:
    """All patients, by name. Raises Refusal where there is no open database."""
    database = _database()
    found = [
        ListedPatient(
            uid,
            str(database.displayedNameForPatient(uid) or database.nameForPatient(uid)),
            str(database.fieldForPatient("PatientID", uid)),
            len(database.studiesForPatient(uid)),
        )
        for uid in map(str, database.patients())
    ]
    return sorted(found, key=lambda patient: (patient.name.casefold(), patient.patient_id, patient.uid))


def list_studies(patient_uid: str) -> list[ListedStudy]:
    """The studies of a patient, by date. Raises Refusal where there is no open database."""
    database = _database()
    found = [
        ListedStudy(
            uid,
            parse_date(str(database.fieldForStudy("StudyDate", uid))),
            str(database.fieldForStudy("StudyDescription", uid)),
        )
        for uid in map(str, database.studiesForPatient(patient_uid))
    ]
    return sorted(found, key=lambda study: (study.date or datetime.date.max, study.description, study.uid))


def list_series(study_uid: str) -> list[ListedSeries]:
    """The series of a study, by number. Raises Refusal where there is no open database."""
    database = _database()
    found = [
        ListedSeries(
            uid,
            str(database.fieldForSeries("SeriesNumber", uid)),
            str(database.fieldForSeries("SeriesDescription", uid)),
            str(database.fieldForSeries("Modality", uid)),
            len(database.instancesForSeries(uid)),
        )
        for uid in map(str, database.seriesForStudy(study_uid))
    ]
    return sorted(found, key=lambda one: (int(one.number) if one.number.isdecimal() else 10**9, one.uid))


def files_of(series_uids: Iterable[str]) -> list[Path]:
    """The files of series.

    Raises:
        Refusal: no open database, a series is no longer in it, or images were never retrieved from their server.
    """
    database = _database()
    names: list[str] = []
    for uid in series_uids:
        found = [str(name) for name in database.filesForSeries(uid)]
        if not found:
            message = (
                "A chosen series is no longer in the DICOM database. Press Refresh in that section and choose again."
            )
            raise Refusal("series_removed", message)
        names += found
    absent = names.count("")
    if absent:
        message = (
            f"{absent} of {len(names)} images were not retrieved from their server yet. Retrieve them with Slicer's DICOM "
            f"module, then load again."
        )
        raise Refusal("not_retrieved", message)
    # As Slicer does with the database's files: Windows opens no path beyond 260 characters otherwise.
    return [Path(slicer.util.longPath(name)) for name in names]


def _database() -> Any:
    """Slicer's open database, looked up each time: the user may choose another one."""
    database = getattr(slicer, "dicomDatabase", None)
    if database is None:
        message = "There is no DICOM database, because Slicer's DICOM module is not loaded. Enable that module and restart Slicer."
        raise Refusal("no_dicom_database", message)
    if not database.isOpen:
        message = (
            "The DICOM database is not open. Open Slicer's DICOM module, which opens or creates it, then press Refresh."
        )
        raise Refusal("dicom_database_closed", message)
    return database
