"""Which exams of a patient a prediction may be made from in training and evaluation, and with which label."""

from __future__ import annotations

from dataclasses import dataclass, replace

from HCCNetLib.records import Outcome, Patient, Refusal, landmark_label


@dataclass(frozen=True)
class Landmarks:
    """A patient's exams as landmarks.

    Args:
        patient: exams before the diagnosis or competing event only; None where none is left.
        labels: one per exam of ``patient``, as landmark; None where it is not known.
        dropped: exams on or after that event.
    """

    patient: Patient | None
    labels: tuple[bool | None, ...]
    dropped: int

    @property
    def labelled(self) -> tuple[int, ...]:
        """Indices of the exams with a label, oldest first."""
        return tuple(index for index, label in enumerate(self.labels) if label is not None)


def before_event(patient: Patient, outcome: Outcome) -> tuple[Patient | None, int]:
    """The patient's exams before the diagnosis or a competing event, None where there is none, and how many are dropped.

    Args:
        patient: all exams.
        outcome: of the same patient.

    Raises:
        Refusal: ``seen_before_exam``: the patient was last seen before the latest exam that is kept.
    """
    if outcome.patient_id != patient.patient_id:
        raise ValueError("the outcome is another patient's")
    event = outcome.event_date
    kept = tuple(exam for exam in patient.exams if event is None or exam.date < event)
    dropped = len(patient.exams) - len(kept)
    if not kept:
        return None, dropped
    latest = kept[-1]
    if outcome.followed_until < latest.date:
        # A patient who was examined was seen: one of the two dates is wrong, and either changes the label.
        message = (
            f"The outcomes say that the patient was last seen on {outcome.last_seen_date.isoformat()}, before exam "
            f"{latest.exam_id} of {latest.date.isoformat()}. Correct last_seen_date or the exam's date."
        )
        raise Refusal("seen_before_exam", message, latest.exam_id)
    return replace(patient, exams=kept), dropped


def find_landmarks(patient: Patient, outcome: Outcome, horizon: float) -> Landmarks:
    """The exams before the diagnosis or a competing event, each with its label.

    Args:
        patient: all exams.
        outcome: of the same patient.
        horizon: months after the landmark within which the diagnosis counts.

    Raises:
        Refusal: as ``before_event``.
    """
    kept, dropped = before_event(patient, outcome)
    exams = () if kept is None else kept.exams
    return Landmarks(kept, tuple(landmark_label(outcome, exam.date, horizon) for exam in exams), dropped)
