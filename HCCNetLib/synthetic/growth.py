"""The disease model of growth: one lesion in every patient, and at the latest exam its growth per time decides.

It is built so that at the latest exam growth per time decides and nothing else does. Both kinds of patient have the
same distribution of the number of exams, of the gaps between them, and of the lesion's size at the landmark (the latest
exam); only the volume doubling time differs. A fast lesion seen over a short time and a slow one seen over a long time
grow alike, so sizes in order without dates are not enough; some benign lesions shrink, so a set of sizes without order
does not either.

Earlier exams are landmarks too, by the same rule. A malignant patient's are mostly negative, the diagnosis being far
away, and the few who are lost to follow-up may have only such a landmark. Over all labelled landmarks the number of
exams and their dates therefore tell something; the oracle says how much.

Earlier sizes follow from the landmark's backwards in time. Two limits keep them what an image can show: a lesion that
grew from less than ``smallest_mm`` stands at ``smallest_mm``, and one that shrank did so from ``largest_mm``, at which
it stood before. Both leave dates, landmark sizes and growth rates as they were drawn.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from HCCNetLib.records import DAYS_PER_MONTH, Outcome, Refusal, months_between
from HCCNetLib.synthetic.disease import Course, patient_name, sphere_ml
from HCCNetLib.synthetic.randomness import Stream, generator

Range = tuple[float, float]
Kind = Literal["malignant", "benign"]

_FIRST_LANDMARK = datetime.date(2012, 1, 1)
_LANDMARK_DAYS = 8 * 365


@dataclass(frozen=True)
class GrowthModel:
    """The numbers of the model; lengths in mm, times in months.

    Args:
        malignant_fraction: chance of a patient to be of the malignant kind.
        exams: fewest and most exams of a patient, the landmark included.
        gap: shortest and longest time between two exams, drawn log-uniformly.
        landmark_diameter: of the target lesion at the landmark, drawn uniformly (diameter of the sphere of its volume).
        malignant_doubling: volume doubling time, drawn uniformly.
        benign_doubling: in the same way; for a lesion that shrinks, the time to half its volume.
        shrinking_fraction: chance of a benign lesion to shrink.
        smallest_mm: no lesion is smaller at an earlier exam.
        largest_mm: no lesion was larger at an earlier exam (a landmark's size is drawn below it).
        horizon: a malignant lesion is diagnosed within it after the landmark.
        diagnosis: earliest and latest diagnosis after the landmark.
        lost_fraction: chance of a patient of either kind to be lost to follow-up within the horizon.
        lost: earliest and latest day on which a lost patient was last seen, after the landmark.
        follow_up: of all others who are not diagnosed, after the landmark.
    """

    name: ClassVar[str] = "growth"

    malignant_fraction: float = 0.5
    exams: tuple[int, int] = (2, 4)
    gap: Range = (1.0, 24.0)
    landmark_diameter: Range = (20.0, 40.0)
    malignant_doubling: Range = (3.0, 6.0)
    benign_doubling: Range = (12.0, 24.0)
    shrinking_fraction: float = 0.2
    smallest_mm: float = 3.0
    largest_mm: float = 46.0
    horizon: float = 12.0
    diagnosis: Range = (1.0, 11.5)
    lost_fraction: float = 0.05
    lost: Range = (0.5, 11.5)
    follow_up: Range = (12.5, 36.0)

    def __post_init__(self) -> None:
        for name in ("malignant_fraction", "shrinking_fraction", "lost_fraction"):
            if not 0 <= getattr(self, name) <= 1:
                raise Refusal("bad_parameter", f"{name} must lie between 0 and 1; it is {getattr(self, name):g}.")

    def draw(self, seed: int, index: int) -> GrowthCourse:
        """One patient's course; the same for the same seed and index, whatever else is drawn."""
        return _draw_course(self, seed, index)


@dataclass(frozen=True)
class GrowthCourse(Course):
    """One patient's course: the landmark is the last exam.

    Args:
        kind: malignant or benign.
        doublings_per_month: growth rate of the target lesion's volume; negative where it shrinks.
        diameters: of the target lesion at each exam, mm.
    """

    kind: Kind
    doublings_per_month: float
    diameters: tuple[float, ...]

    @property
    def volumes_ml(self) -> tuple[float, ...]:
        """Volume of the target lesion at each exam, ml."""
        return tuple(sphere_ml(diameter) for diameter in self.diameters)


def _draw_course(model: GrowthModel, seed: int, index: int) -> GrowthCourse:
    rng = generator(seed, index, Stream.COURSE)
    malignant = bool(rng.random() < model.malignant_fraction)
    shrinks = bool(rng.random() < model.shrinking_fraction) and not malignant
    dates = _draw_dates(model, rng)
    doubling = rng.uniform(*(model.malignant_doubling if malignant else model.benign_doubling))
    rate = float(-1 / doubling if shrinks else 1 / doubling)
    diameter = float(rng.uniform(*model.landmark_diameter))
    times = [months_between(date, dates[-1]) for date in dates]
    diameters = tuple(diameter_before(model, diameter, rate, t) for t in times)
    outcome = _draw_outcome(model, rng, patient_name(index), dates[-1], malignant)
    return GrowthCourse(index, dates, outcome, "malignant" if malignant else "benign", rate, diameters)


def diameter_before(model: GrowthModel, landmark_diameter: float, rate: float, months: float) -> float:
    """Diameter, mm, of a lesion ``months`` before the landmark, within the model's limits.

    Args:
        model: its limits.
        landmark_diameter: at the landmark, mm.
        rate: volume doublings per month.
        months: before the landmark.
    """
    diameter = landmark_diameter * 2 ** (-rate * months / 3)
    return float(np.clip(diameter, model.smallest_mm, model.largest_mm))


def largest_conceivable(model: GrowthModel, landmark_diameter: float, months: float) -> float:
    """The largest diameter, mm, that a lesion of either kind with this size at the landmark could have had since."""
    return diameter_before(model, landmark_diameter, -1 / model.benign_doubling[0], months)


def _draw_dates(model: GrowthModel, rng: np.random.Generator) -> tuple[datetime.date, ...]:
    count = int(rng.integers(model.exams[0], model.exams[1] + 1))
    shortest, longest = np.log(model.gap)
    gaps = np.exp(rng.uniform(shortest, longest, size=count - 1))
    days = np.maximum(np.round(gaps * DAYS_PER_MONTH).astype(int), 1)
    landmark = _FIRST_LANDMARK + datetime.timedelta(days=int(rng.integers(_LANDMARK_DAYS)))
    before = [int(days[i:].sum()) for i in range(count - 1)] + [0]
    return tuple(landmark - datetime.timedelta(days=n) for n in before)


def _draw_outcome(
    model: GrowthModel, rng: np.random.Generator, patient_id: str, landmark: datetime.date, malignant: bool
) -> Outcome:
    """Loss to follow-up is drawn the same way for both kinds: a patient who is lost before the diagnosis has none."""

    def after(months: Range) -> datetime.date:
        return landmark + datetime.timedelta(days=round(rng.uniform(*months) * DAYS_PER_MONTH))

    lost = bool(rng.random() < model.lost_fraction)
    diagnosis, last_contact, followed = after(model.diagnosis), after(model.lost), after(model.follow_up)
    if malignant and (not lost or diagnosis <= last_contact):
        return Outcome(patient_id, diagnosis, diagnosis)
    return Outcome(patient_id, None, last_contact if lost else followed)
