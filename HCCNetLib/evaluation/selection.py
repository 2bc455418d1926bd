"""Which patients of a cohort can be judged, and why the others are left out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from HCCNetLib.evaluation.landmarks import before_event
from HCCNetLib.records import Cohort, Outcome, Patient, Refusal, landmark_label

# Nothing is wrong with these patients, and yet they can't be judged.
LEFT_OUT: Mapping[str, str] = {
    "not_in_part": "not in the part of the split that was asked for",
    "without_outcome": "no outcome known",
    "diagnosed_before": "no exam before the diagnosis or a competing event",
}
WITHOUT_LABEL = "no exam followed for the whole horizon (censored)"


@dataclass(frozen=True)
class Followed:
    """A patient and what became of the patient.

    Args:
        patient: exams before the diagnosis or a competing event only; each is a landmark.
        outcome: of the patient.
    """

    patient: Patient
    outcome: Outcome

    def latest_labelled(self, horizon: float) -> tuple[Patient, bool] | None:
        """The patient as known at the latest exam whose outcome within the horizon is known, and that outcome."""
        for exam in reversed(self.patient.exams):
            label = landmark_label(self.outcome, exam.date, horizon)
            if label is not None:
                return self.patient.until(exam), label
        return None


@dataclass(frozen=True)
class Selection:
    """What of a cohort can be judged.

    Args:
        followed: patients with a landmark.
        left_out: reason → patient ids, a key for each of ``LEFT_OUT``.
        refused: patient id → why the patient's files or dates can't be used.
        dropped: exams on or after a diagnosis or competing event.
    """

    followed: tuple[Followed, ...]
    left_out: Mapping[str, tuple[str, ...]]
    refused: Mapping[str, Refusal]
    dropped: int


def select(cohort: Cohort, part: frozenset[str] | None = None) -> Selection:
    """The patients whose exams can be landmarks.

    Args:
        cohort: with outcomes.
        part: ids of the patients to look at; None for all.
    """
    left_out: dict[str, list[str]] = {reason: [] for reason in LEFT_OUT}
    refused: dict[str, Refusal] = {}
    followed: list[Followed] = []
    dropped = 0
    for patient_id in [*cohort.refused, *(patient.patient_id for patient in cohort.patients)]:
        if part is not None and patient_id not in part:
            left_out["not_in_part"].append(patient_id)
        elif patient_id in cohort.refused:
            refused[patient_id] = cohort.refused[patient_id]
    for patient in cohort.patients:
        patient_id = patient.patient_id
        if part is not None and patient_id not in part:
            continue
        outcome = cohort.outcomes.get(patient_id)
        if outcome is None:
            left_out["without_outcome"].append(patient_id)
            continue
        try:
            kept, count = before_event(patient, outcome)
        except Refusal as refusal:
            refused[patient_id] = refusal
            continue
        dropped += count
        if kept is None:
            left_out["diagnosed_before"].append(patient_id)
        else:
            followed.append(Followed(kept, outcome))
    return Selection(tuple(followed), {reason: tuple(ids) for reason, ids in left_out.items()}, refused, dropped)
