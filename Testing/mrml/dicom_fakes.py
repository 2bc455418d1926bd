"""Slicer's DICOM database without Slicer: of ctkDICOMDatabase, what the module uses.

Read in CTK, Libs/DICOM/Core: the methods and the property ``isOpen`` in ctkDICOMDatabase.h, the queries in
ctkDICOMDatabase.cpp, the columns in Resources/dicom-schema.sql. Lists come as tuples, as PythonQt gives a QStringList.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pydicom

_TABLES = """
CREATE TABLE Patients (UID INTEGER PRIMARY KEY AUTOINCREMENT, PatientsName, PatientID, DisplayedPatientsName);
CREATE TABLE Studies (StudyInstanceUID PRIMARY KEY, PatientsUID, StudyDate, StudyDescription);
CREATE TABLE Series (SeriesInstanceUID PRIMARY KEY, StudyInstanceUID, SeriesNumber, SeriesDescription, Modality);
CREATE TABLE Images (SOPInstanceUID PRIMARY KEY, Filename, SeriesInstanceUID);
"""


class FakeDatabase:
    """A database of files, which are read when they are imported and not again.

    Args:
        files: to import.
    """

    def __init__(self, files: Iterable[Path] = ()) -> None:
        self.isOpen = True
        self.asked: list[tuple[str, str]] = []  # which method was called for which UID
        self.tables = sqlite3.connect(":memory:")
        self.tables.executescript(_TABLES)
        for file in files:
            self.add(file)

    def add(self, file: Path) -> None:
        """Imports a file, as "add link" does: it stays where it is."""
        tags = pydicom.dcmread(file, stop_before_pixels=True)
        name, patient_id = str(tags.get("PatientName", "")), str(tags.get("PatientID", ""))
        known = self._column("SELECT UID FROM Patients WHERE PatientID=? AND PatientsName=?", patient_id, name)
        date = str(tags.get("StudyDate") or "")
        iso = f"{date[:4]}-{date[4:6]}-{date[6:]}" if date else None
        if not known:
            self._write("INSERT INTO Patients VALUES (NULL, ?, ?, NULL)", name, patient_id)
            known = self._column("SELECT MAX(UID) FROM Patients")
        study, series = tags.StudyInstanceUID, tags.SeriesInstanceUID
        said = [str(tags.get(word, "")) for word in ("StudyDescription", "SeriesDescription", "Modality")]
        self._write("INSERT OR IGNORE INTO Studies VALUES (?, ?, ?, ?)", study, known[0], iso, said[0])
        number = int(tags.get("SeriesNumber") or 0)
        self._write("INSERT OR IGNORE INTO Series VALUES (?, ?, ?, ?, ?)", series, study, number, *said[1:])
        self._write("INSERT OR REPLACE INTO Images VALUES (?, ?, ?)", tags.SOPInstanceUID, str(file), series)

    def update_displayed_fields(self) -> None:
        """What CTK does after an import: names as people read them."""
        self._write("UPDATE Patients SET DisplayedPatientsName = REPLACE(PatientsName, '^', ', ')")

    def remove_series(self, uid: str) -> None:
        """The user removes a series."""
        self._write("DELETE FROM Images WHERE SeriesInstanceUID=?", uid)
        self._write("DELETE FROM Series WHERE SeriesInstanceUID=?", uid)

    def forget_file(self, file: Path) -> None:
        """An image that the database knows of and that was not retrieved."""
        self._write("UPDATE Images SET Filename = NULL WHERE Filename=?", str(file))

    # ------------------------------------------------------------ ctkDICOMDatabase's

    def patients(self) -> tuple[str, ...]:
        return self._ask("patients", "SELECT UID FROM Patients")

    def studiesForPatient(self, uid: str) -> tuple[str, ...]:  # noqa: N802
        return self._ask("studiesForPatient", "SELECT StudyInstanceUID FROM Studies WHERE PatientsUID=?", uid)

    def seriesForStudy(self, uid: str) -> tuple[str, ...]:  # noqa: N802
        return self._ask("seriesForStudy", "SELECT SeriesInstanceUID FROM Series WHERE StudyInstanceUID=?", uid)

    def instancesForSeries(self, uid: str, hits: int = -1) -> tuple[str, ...]:  # noqa: N802
        return self._ask("instancesForSeries", "SELECT SOPInstanceUID FROM Images WHERE SeriesInstanceUID=?", uid)

    def filesForSeries(self, uid: str, hits: int = -1) -> tuple[str, ...]:  # noqa: N802
        return self._ask("filesForSeries", "SELECT Filename FROM Images WHERE SeriesInstanceUID=?", uid)

    def nameForPatient(self, uid: str) -> str:  # noqa: N802
        return self._first("SELECT PatientsName FROM Patients WHERE UID=?", uid)

    def displayedNameForPatient(self, uid: str) -> str:  # noqa: N802
        return self._first("SELECT DisplayedPatientsName FROM Patients WHERE UID=?", uid)

    def fieldForPatient(self, field: str, uid: str) -> str:  # noqa: N802
        return self._first(f"SELECT {field} FROM Patients WHERE UID=?", uid)

    def fieldForStudy(self, field: str, uid: str) -> str:  # noqa: N802
        return self._first(f"SELECT {field} FROM Studies WHERE StudyInstanceUID=?", uid)

    def fieldForSeries(self, field: str, uid: str) -> str:  # noqa: N802
        return self._first(f"SELECT {field} FROM Series WHERE SeriesInstanceUID=?", uid)

    # ------------------------------------------------------------ SQLite

    def _ask(self, method: str, query: str, *values: str) -> tuple[str, ...]:
        self.asked.append((method, "".join(values)))
        return self._column(query, *values)

    def _column(self, query: str, *values: str) -> tuple[str, ...]:
        rows = self.tables.execute(query, values).fetchall()
        return tuple("" if value is None else str(value) for (value,) in rows)

    def _first(self, query: str, uid: str) -> str:
        return "".join(self._column(query, uid)[:1])

    def _write(self, query: str, *values: Any) -> None:
        self.tables.execute(query, values)


def copy_series(files: Iterable[Path], folder: Path, name: str, **tags: Any) -> list[Path]:
    """Copies a series as another one, whose UIDs end in ``name``; ``tags`` by keyword.

    A study is named by its date: series of one patient and date lie in one study.
    """
    copies = []
    for file in sorted(files):
        dataset = pydicom.dcmread(file)
        for keyword, value in tags.items():
            setattr(dataset, keyword, value)
        if "StudyDate" in tags:
            dataset.SeriesDate = dataset.AcquisitionDate = dataset.ContentDate = tags["StudyDate"]
        dataset.StudyInstanceUID = f"1.2.{_digits(dataset.PatientID)}.{_digits(dataset.StudyDate)}"
        dataset.SeriesInstanceUID = f"{dataset.StudyInstanceUID}.{_digits(name)}"
        dataset.SOPInstanceUID = f"{dataset.SeriesInstanceUID}.{len(copies) + 1}"
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        copies.append(folder / name / f"{dataset.SOPInstanceUID}.dcm")
        copies[-1].parent.mkdir(parents=True, exist_ok=True)
        dataset.save_as(copies[-1])
    return copies


def _digits(text: str) -> int:
    return int.from_bytes(text.encode()[-6:], "big")
