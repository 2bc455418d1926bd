"""What every disease model has in common: a patient's course, without any image."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np

from HCCNetLib.records import Outcome, landmark_label, months_between

Progress = Callable[[str, int, int], None]  # stage, done, total

_ML_PER_MM3 = 1e-3


@dataclass(frozen=True)
class Course:
    """One patient's exams and outcome; each disease model adds what an image can only show with errors.

    Args:
        index: number of the patient in the cohort, from 0.
        dates: of the exams, oldest first.
        outcome: diagnosis, competing event and last contact.
    """

    index: int
    dates: tuple[datetime.date, ...]
    outcome: Outcome

    @property
    def patient_id(self) -> str:
        """The patient's folder name."""
        return self.outcome.patient_id

    @property
    def months_before_landmark(self) -> tuple[float, ...]:
        """Time of each exam before the last one, months."""
        return tuple(months_between(date, self.dates[-1]) for date in self.dates)

    def label(self, exam: int, horizon: float) -> bool | None:
        """The label of an exam as landmark."""
        return landmark_label(self.outcome, self.dates[exam], horizon)

    def labelled(self, horizon: float) -> list[int]:
        """The exams that have a label as landmark, oldest first."""
        return [exam for exam in range(len(self.dates)) if self.label(exam, horizon) is not None]


class DiseaseModel(Protocol):
    """Draws courses."""

    name: ClassVar[str]

    @property
    def horizon(self) -> float:
        """The main horizon, months."""
        ...

    def draw(self, seed: int, index: int) -> Any:
        """One patient's course; the same for the same seed and index, whatever else is drawn."""
        ...


def draw_courses(model: DiseaseModel, seed: int, indices: Iterable[int]) -> list[Any]:
    """Draws several patients."""
    return [model.draw(seed, index) for index in indices]


def sphere_ml(diameter: float) -> float:
    """Volume of a sphere, ml, of its diameter, mm."""
    return float(np.pi / 6 * diameter**3 * _ML_PER_MM3)


def patient_name(index: int) -> str:
    """Folder name of a patient, e.g. ``PH00001`` for index 0."""
    return f"PH{index + 1:05d}"
