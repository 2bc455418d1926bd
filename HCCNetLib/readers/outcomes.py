"""``outcomes.csv``: what became of each patient; needed only to train or evaluate."""

from __future__ import annotations

from pathlib import Path

from HCCNetLib.readers.dates import parse_date
from HCCNetLib.readers.rows import read_rows
from HCCNetLib.records import Outcome, Refusal

OUTCOMES_FILE = "outcomes.csv"
_COLUMNS = ("patient_id", "diagnosis_date", "last_seen_date")


def read_outcomes(path: Path) -> dict[str, Outcome]:
    """Reads ``patient_id, diagnosis_date (empty if none), last_seen_date``.

    Raises:
        Refusal: a column or date is missing or wrong, or a patient stands there twice; names the row.
    """
    outcomes: dict[str, Outcome] = {}
    for number, row in read_rows(path, _COLUMNS):
        where = f"{path.name}, row {number}"
        patient_id = row["patient_id"]
        if patient_id in outcomes:
            raise Refusal("outcome_twice", f"{where}: this patient stands there already. Keep one row per patient.")
        diagnosis = parse_date(row["diagnosis_date"]) if row["diagnosis_date"] else None
        last_seen = parse_date(row["last_seen_date"])
        if last_seen is None or (row["diagnosis_date"] and diagnosis is None):
            raise Refusal("bad_date", f"{where}: dates must be written 2021-03-14 (diagnosis_date may be empty).")
        outcomes[patient_id] = Outcome(patient_id, diagnosis, last_seen)
    return outcomes
