"""``outcomes.csv``: what became of each patient; needed only to train or evaluate."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from HCCNetLib.readers.dates import parse_date
from HCCNetLib.readers.rows import read_rows
from HCCNetLib.records import Cohort, Outcome, Patient, Problem, Refusal

OUTCOMES_FILE = "outcomes.csv"
_COLUMNS = ("patient_id", "diagnosis_date", "last_seen_date")


def read_outcomes(path: Path) -> dict[str, Outcome]:
    """Reads ``patient_id, diagnosis_date (empty if none), last_seen_date``.

    Raises:
        Refusal: a column or date is missing or wrong, or a patient stands there twice; names the row.
    """
    return outcomes_in(path.name, read_rows(path, _COLUMNS))


def outcomes_in(table: str, rows: Iterable[tuple[int, Mapping[str, str]]]) -> dict[str, Outcome]:
    """The outcomes in numbered rows of a table, which have ``read_outcomes``'s columns; raises Refusal as it does."""
    outcomes: dict[str, Outcome] = {}
    for number, row in rows:
        where = f"{table}, row {number}"
        patient_id = row["patient_id"]
        if patient_id in outcomes:
            raise Refusal("outcome_twice", f"{where}: this patient stands there already. Keep one row per patient.")
        diagnosis = parse_date(row["diagnosis_date"]) if row["diagnosis_date"] else None
        last_seen = parse_date(row["last_seen_date"])
        if last_seen is None or (row["diagnosis_date"] and diagnosis is None):
            raise Refusal("bad_date", f"{where}: dates must be written 2021-03-14 (diagnosis_date may be empty).")
        if diagnosis is not None and last_seen < diagnosis:
            raise Refusal("bad_date", f"{where}: last_seen_date lies before diagnosis_date.")
        outcomes[patient_id] = Outcome(patient_id, diagnosis, last_seen)
    return outcomes


@dataclass(frozen=True)
class Outcomes:
    """The outcomes beside a cohort, as far as they can be used.

    Args:
        of: patient id → outcome.
        refused: why there are none though there is a file.
        problems: what is odd about them.
    """

    of: Mapping[str, Outcome]
    refused: Refusal | None
    problems: tuple[Problem, ...]


def outcomes_beside(
    file: Path, patient_ids: Sequence[str], read: Callable[[Path], dict[str, Outcome]] = read_outcomes
) -> Outcomes:
    """Reads a cohort's outcomes. Prediction does not need them, so what is wrong with them stops nobody here."""
    if not file.is_file():
        return Outcomes({}, None, ())
    try:
        outcomes = read(file)
    except Refusal as refusal:
        message = f"{refusal.message} Prediction does not need the outcomes; training and evaluation do."
        return Outcomes({}, refusal, (Problem(refusal.code, message),))
    strangers = len(set(outcomes) - set(patient_ids))
    if not strangers:
        return Outcomes(outcomes, None, ())
    # Most often a patient id spelt in two ways.
    message = f"{strangers} patient(s) in the outcomes have no exams here. Check how their ids are spelt."
    return Outcomes(outcomes, None, (Problem("outcomes_without_exams", message),))


def make_cohort(
    form: str,
    patients: Iterable[Patient],
    refused: Mapping[str, Refusal],
    outcomes: Outcomes,
    problems: Iterable[Problem] = (),
) -> Cohort:
    """What was read of an input and of the outcomes beside it."""
    return Cohort(
        patients=tuple(_with_outcome(patient, outcomes.of) for patient in patients),
        refused=refused,
        outcomes=outcomes.of,
        outcomes_refused=outcomes.refused,
        problems=(*problems, *outcomes.problems),
        form=form,
    )


def _with_outcome(patient: Patient, outcomes: Mapping[str, Outcome]) -> Patient:
    """The patient, with a problem where the diagnosis was known by the latest exam: then there is no risk left."""
    outcome = outcomes.get(patient.patient_id)
    if outcome is None or outcome.diagnosis_date is None or outcome.diagnosis_date > patient.landmark.date:
        return patient
    message = "The outcomes name a diagnosis on or before the latest exam: the risk of a future one has no meaning."
    return replace(patient, problems=(*patient.problems, Problem("diagnosed_before", message)))
