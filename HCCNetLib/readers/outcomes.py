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
OUTCOME_COLUMNS = ("diagnosis_date", "last_seen_date", "competing_event", "competing_date")


def read_outcomes(path: Path) -> dict[str, Outcome]:
    """Reads ``patient_id, diagnosis_date (empty if none), last_seen_date``.

    Optional columns name an event after which no diagnosis can come: ``competing_date``, and in words ``competing_event``
    (death, transplant).

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
        outcomes[patient_id] = _outcome(where, patient_id, row)
    return outcomes


def _outcome(where: str, patient_id: str, row: Mapping[str, str]) -> Outcome:
    diagnosis, last_seen, competing = (
        parse_date(row[name]) if row.get(name) else None
        for name in ("diagnosis_date", "last_seen_date", "competing_date")
    )
    wrong = [n for n, d in (("diagnosis_date", diagnosis), ("competing_date", competing)) if row.get(n) and d is None]
    if last_seen is None or wrong:
        message = (
            f"{where}: dates must be written 2021-03-14 (diagnosis_date and competing_date may be empty, last_seen_date "
            f"may not)."
        )
        raise Refusal("bad_date", message)
    if row.get("competing_event") and competing is None:
        message = f"{where}: competing_event names an event and competing_date is empty. Fill in its date."
        raise Refusal("missing_date", message)
    if diagnosis is not None and last_seen < diagnosis:
        raise Refusal("bad_date", f"{where}: last_seen_date lies before diagnosis_date.")
    if diagnosis is not None and competing is not None and competing < diagnosis:
        message = (
            f"{where}: competing_date lies before diagnosis_date; no diagnosis can come after a competing event. Correct "
            f"one of them."
        )
        raise Refusal("bad_date", message)
    return Outcome(patient_id, diagnosis, last_seen, competing)


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
