"""What is judged: each patient's risk and what became of the patient."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from HCCNetLib.records import Refusal

Floats = NDArray[np.float64]
Labels = NDArray[np.bool_]


@dataclass(frozen=True)
class Scores:
    """One row per patient.

    Args:
        patient_ids: N, each once.
        labels: (N,) whether the diagnosis came within the horizon.
        risks: (N,) the ensemble's calibrated risks, 0–1.
        uncalibrated: (N,) the ensemble's risks before calibration, 0–1.
        members: (N, M) each member's raw probability, 0–1, or None.
        horizon_months: of the labels; for messages.

    Raises:
        Refusal: ``one_class``: nobody, or everybody, was diagnosed.
        ValueError: lengths differ, a patient stands there twice, or a risk is not within 0–1.
    """

    patient_ids: tuple[str, ...]
    labels: Labels
    risks: Floats
    uncalibrated: Floats
    members: Floats | None = None
    horizon_months: float = 12.0

    def __post_init__(self) -> None:
        count = len(self.patient_ids)
        if len(set(self.patient_ids)) != count:
            raise ValueError("a patient stands there twice: evaluation takes one landmark per patient")
        if self.labels.dtype != np.bool_ or self.labels.shape != (count,):
            raise ValueError(f"labels must be {count} booleans, got {self.labels.dtype} {self.labels.shape}")
        for name, values in (("risks", self.risks), ("uncalibrated", self.uncalibrated)):
            if values.shape != (count,):
                raise ValueError(f"{name} must be {count} numbers, got {values.shape}")
            _check_probabilities(name, values)
        if self.members is not None:
            if self.members.ndim != 2 or self.members.shape[0] != count or not self.members.shape[1]:
                raise ValueError(f"members must be ({count}, M), got {self.members.shape}")
            _check_probabilities("members", self.members)
        check_classes(self.labels, self.horizon_months)

    @property
    def positives(self) -> int:
        """Patients with the diagnosis within the horizon."""
        return int(self.labels.sum())

    @property
    def prevalence(self) -> float:
        """Share of the positives."""
        return float(self.labels.mean())

    def of(self, patient_ids: Sequence[str]) -> Scores:
        """The rows of the given patients, in their order; KeyError for an unknown one, Refusal if one class is left."""
        places = {patient_id: row for row, patient_id in enumerate(self.patient_ids)}
        rows = np.array([places[patient_id] for patient_id in patient_ids], dtype=np.intp)
        members = None if self.members is None else self.members[rows]
        return Scores(
            tuple(patient_ids),
            self.labels[rows],
            self.risks[rows],
            self.uncalibrated[rows],
            members,
            self.horizon_months,
        )


def check_classes(labels: Labels, horizon_months: float | None = None) -> None:
    """Refuses labels that are all alike: nothing can be told apart."""
    count = len(labels)
    if count and labels.any() and not labels.all():
        return
    if not count:
        message = "No patient is left to evaluate: nobody has a landmark with a label and a prediction."
        raise Refusal("no_patient", message)
    kind = "negative" if labels.all() else "positive"
    within = "" if horizon_months is None else f" within the horizon of {horizon_months:g} months"
    message = f"There is no {kind} among {count} patient(s){within}: both kinds are needed. Use a larger cohort."
    raise Refusal("one_class", message)


def _check_probabilities(name: str, values: Floats) -> None:
    if not (np.isfinite(values).all() and (values >= 0).all() and (values <= 1).all()):
        raise ValueError(f"{name} must be within 0 and 1")
