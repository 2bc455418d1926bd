"""``clinical.csv``: what else is known of patients and exams; evaluation uses it for subgroups and a clinical baseline."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from HCCNetLib.readers.rows import read_rows
from HCCNetLib.records import Refusal

CLINICAL_FILE = "clinical.csv"
GROUPS = ("centre", "scanner")

_Value = TypeVar("_Value", float, str)

_SEX = {"m": 1.0, "male": 1.0, "1": 1.0, "f": 0.0, "female": 0.0, "0": 0.0}
_YES = {"yes": 1.0, "true": 1.0, "1": 1.0, "no": 0.0, "false": 0.0, "0": 0.0}


@dataclass(frozen=True)
class Clinical:
    """Values by patient and exam.

    Args:
        numbers: (patient id, exam id) → column → value; exam id "" holds for all exams of the patient.
        groups: the same for ``GROUPS``.
    """

    numbers: Mapping[tuple[str, str], Mapping[str, float]]
    groups: Mapping[tuple[str, str], Mapping[str, str]]

    def unmatched(self, exams: Collection[tuple[str, str]]) -> int:
        """How many rows are of none of these patients and exams."""
        there = {*exams, *((patient_id, "") for patient_id, _ in exams)}
        return sum(key not in there for key in self.numbers)

    def number(self, patient_id: str, exam_id: str, column: str) -> float | None:
        """A value of an exam, or of the patient where the exam has none."""
        return _find(self.numbers, patient_id, exam_id, column)

    def group(self, patient_id: str, exam_id: str, column: str) -> str | None:
        """The same for a group."""
        return _find(self.groups, patient_id, exam_id, column)


def read_clinical(path: Path) -> Clinical:
    """Reads ``patient_id``, optionally ``exam_id`` (empty: all exams of the patient), and any of the known columns.

    ``age`` (years), ``sex`` (m or f), ``albumin`` (g/l), ``bilirubin`` (µmol/l), ``platelets`` (10⁹/l), ``visible_lesion``
    (yes or no), ``centre``, ``scanner``. Other columns are passed over; cells may be empty.

    Raises:
        Refusal: the table can't be read, has no known column, a value is outside of what its unit allows, or a row stands
            there twice.
    """
    numbers: dict[tuple[str, str], dict[str, float]] = {}
    groups: dict[tuple[str, str], dict[str, str]] = {}
    rows = read_rows(path, ("patient_id",))
    if not rows[0][1].keys() & {*_COLUMNS, *GROUPS}:
        known = ", ".join([*_COLUMNS, *GROUPS])
        raise Refusal("missing_column", f"{path.name} has none of the columns {known}. Check how they are spelt.")
    for number, row in rows:
        where = f"{path.name}, row {number}"
        if not row["patient_id"]:
            raise Refusal("missing_value", f"{where}: patient_id is empty. Fill it in or remove the row.")
        key = row["patient_id"], row.get("exam_id", "")
        if key in numbers:
            raise Refusal("row_twice", f"{where}: this patient and exam stand there already. Keep one row for each.")
        numbers[key] = {name: read(f"{where}: {name}", row[name]) for name, read in _COLUMNS.items() if row.get(name)}
        groups[key] = {name: row[name] for name in GROUPS if row.get(name)}
    return Clinical(numbers, groups)


def _word(words: Mapping[str, float], allowed: str) -> Callable[[str, str], float]:
    def read(where: str, text: str) -> float:
        if text.lower() not in words:
            raise Refusal("bad_value", f"{where} must be {allowed}, or empty.")
        return words[text.lower()]

    return read


def _range(low: float, high: float, unit: str) -> Callable[[str, str], float]:
    def read(where: str, text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not low <= value <= high:
            message = f"{where} must be a number from {low:g} to {high:g} {unit}, or empty. Check its unit."
            raise Refusal("bad_value", message)
        return value

    return read


_COLUMNS: Mapping[str, Callable[[str, str], float]] = {
    "age": _range(0, 120, "years"),
    "sex": _word(_SEX, "m or f"),
    "albumin": _range(10, 70, "g/l"),
    "bilirubin": _range(1, 1000, "µmol/l"),
    "platelets": _range(5, 1500, "10⁹/l"),
    "visible_lesion": _word(_YES, "yes or no"),
}


def _find(
    table: Mapping[tuple[str, str], Mapping[str, _Value]], patient_id: str, exam_id: str, column: str
) -> _Value | None:
    for key in ((patient_id, exam_id), (patient_id, "")):
        if column in table.get(key, {}):
            return table[key][column]
    return None
