"""Who of a cohort is judged, from which exam, and who is left out for which reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from HCCNetLib.evaluation.landmarks import find_landmarks
from HCCNetLib.records import Cohort, Patient, Refusal

# Nothing is wrong with these patients, and yet they can't be judged.
LEFT_OUT: Mapping[str, str] = {
    "not_in_part": "not in the part of the split that was asked for",
    "without_outcome": "no outcome known",
    "diagnosed_before": "no exam before the diagnosis",
    "without_label": "no exam followed for the whole horizon (censored)",
}


@dataclass(frozen=True)
class Chosen:
    """A patient as known at the landmark, and whether the diagnosis came within the horizon after it."""

    patient: Patient
    label: bool


@dataclass(frozen=True)
class Selection:
    """What of a cohort can be judged.

    Args:
        chosen: one landmark per patient, the latest labelled.
        left_out: reason → patient ids, a key for each of ``LEFT_OUT``.
        refused: patient id → why the patient's files or dates can't be used.
        exams: how many are read (``used``), lie after the landmark of a chosen patient (``after_landmark``), or on or after
            a diagnosis (``from_diagnosis_on``).
    """

    chosen: tuple[Chosen, ...]
    left_out: Mapping[str, tuple[str, ...]]
    refused: Mapping[str, Refusal]
    exams: Mapping[str, int]


def select_latest_labelled(cohort: Cohort, horizon: float, part: frozenset[str] | None = None) -> Selection:
    """Each patient's latest labelled exam as landmark.

    Args:
        cohort: with outcomes.
        horizon: months.
        part: ids of the patients to look at; None for all.
    """
    left_out: dict[str, list[str]] = {reason: [] for reason in LEFT_OUT}
    exams = {"used": 0, "after_landmark": 0, "from_diagnosis_on": 0}
    refused: dict[str, Refusal] = {}
    chosen: list[Chosen] = []
    for patient_id, refusal in cohort.refused.items():
        if part is None or patient_id in part:
            refused[patient_id] = refusal
        else:
            left_out["not_in_part"].append(patient_id)
    for patient in cohort.patients:
        try:
            found = _choose(patient, cohort, horizon, part, exams)
        except Refusal as refusal:
            refused[patient.patient_id] = refusal
            continue
        if isinstance(found, Chosen):
            chosen.append(found)
        else:
            left_out[found].append(patient.patient_id)
    return Selection(tuple(chosen), {reason: tuple(ids) for reason, ids in left_out.items()}, refused, exams)


def _choose(
    patient: Patient, cohort: Cohort, horizon: float, part: frozenset[str] | None, exams: dict[str, int]
) -> Chosen | str:
    """The patient at the landmark, or the reason why there is none; counts exams."""
    if part is not None and patient.patient_id not in part:
        return "not_in_part"
    outcome = cohort.outcomes.get(patient.patient_id)
    if outcome is None:
        return "without_outcome"
    landmarks = find_landmarks(patient, outcome, horizon)
    exams["from_diagnosis_on"] += landmarks.dropped
    if landmarks.patient is None:
        return "diagnosed_before"
    if not landmarks.labelled:
        return "without_label"
    latest, kept = landmarks.labelled[-1], landmarks.patient.exams
    exams["used"] += latest + 1
    exams["after_landmark"] += len(kept) - latest - 1
    return Chosen(landmarks.patient.until(kept[latest]), bool(landmarks.labels[latest]))
