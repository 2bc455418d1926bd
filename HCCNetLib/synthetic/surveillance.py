"""The disease model of surveillance: a stationary process of tumours, benign nodules, exams and follow-up.

Tumours begin at a constant rate, each at ``onset_mm``, and grow with a volume doubling time of their own. The first tumour
that reaches the patient's threshold is diagnosed at the next exam, or earlier by chance (symptoms, AFP, ultrasound). Onsets
are a Poisson process and growth does not depend on them, so the threshold is crossed by a Poisson process of the same rate,
whatever the threshold. How long a patient has been followed without a diagnosis, how many exams there were and when,
therefore says nothing about the future. Dates matter only together with sizes.

Exams, loss to follow-up, the end of the study and death or transplant (the competing event) do not depend on the disease.
Each of the last three comes at a constant rate. The study closes on one day, and the time from a patient's first exam to
that day is exponential too: with a fixed length, later exams would be closer to the end, fewer of them would be labelled
negative, and dates would tell something.

Benign nodules and cysts keep their size, or grow and shrink slowly between two sizes, with a uniform phase, so that they
are stationary as well. Benign nodules look like tumours: only growth per time tells them apart.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from HCCNetLib.records import DAYS_PER_MONTH, Outcome, Refusal
from HCCNetLib.synthetic.disease import Course, patient_name
from HCCNetLib.synthetic.randomness import Stream, generator

Floats = NDArray[np.float64]
Range = tuple[float, float]
NoduleKind = Literal["tumour", "benign", "cyst"]

VISIBLE_MM = 10.0
CLOSING_DATE = datetime.date(2024, 12, 31)

_ROOM = 30000.0  # mm³, of ``_crowding``
_SLOWEST = 3.0  # SDs of the logarithm: the slowest doubling time that an existing tumour is looked for with


@dataclass(frozen=True)
class SurveillanceModel:
    """The numbers of the process; sizes are diameters in mm, times in months, rates per month.

    Args:
        onset_rate: of tumours in a patient, and so of crossings of the threshold.
        onset_mm: size at which a tumour begins.
        doubling: median volume doubling time of tumours (log-normal). A meta-analysis of 20 studies of untreated
            hepatocellular carcinoma pooled 4.6 months, 95% CI 3.9 to 5.3 (Nathani et al., Gut 2021;70:401).
        doubling_sd: SD of its logarithm.
        threshold: size from which a tumour can be diagnosed, uniform per patient.
        delay: mean time (exponential) from the threshold to a diagnosis between two exams.
        nodule_fraction: share of patients who form benign nodules.
        nodules: mean number (Poisson) of benign nodules in such a patient.
        stable_fraction: share of benign nodules and cysts that keep their size.
        nodule_size: smallest and largest size of a benign nodule.
        cyst_fraction: share of patients who form cysts.
        cysts: mean number of cysts in such a patient.
        cyst_size: smallest and largest size of a cyst.
        growing: volume doubling time of a benign nodule or cyst while it grows, log-uniform.
        shrinking: time to half the volume while it shrinks, log-uniform.
        gap: between two exams, log-uniform.
        most_exams: images are made of a patient's first exams only; the schedule goes on.
        death_rate: of death or transplant.
        loss_rate: of loss to follow-up.
        study: mean time from a patient's first exam to the end of the study.
        horizon: the main one, of labels in counts.
        horizons: of the true risk.
    """

    name: ClassVar[str] = "surveillance"

    onset_rate: float = 0.0127
    onset_mm: float = 4.0
    doubling: float = 5.0
    doubling_sd: float = 0.35
    threshold: Range = (18.0, 38.0)
    delay: float = 1.5
    nodule_fraction: float = 0.85
    nodules: float = 4.0
    stable_fraction: float = 0.1
    nodule_size: Range = (6.0, 36.0)
    cyst_fraction: float = 0.4
    cysts: float = 1.8
    cyst_size: Range = (5.0, 22.0)
    growing: Range = (10.0, 20.0)
    shrinking: Range = (6.0, 12.0)
    gap: Range = (1.0, 24.0)
    most_exams: int = 7
    death_rate: float = 0.004
    loss_rate: float = 0.006
    study: float = 80.0
    horizon: float = 12.0
    horizons: tuple[float, ...] = (6.0, 12.0, 18.0, 24.0, 36.0)

    def __post_init__(self) -> None:
        for name in ("onset_rate", "onset_mm", "doubling", "death_rate", "loss_rate", "study"):
            if not getattr(self, name) > 0:
                raise Refusal("bad_parameter", f"{name} must be above 0; it is {getattr(self, name):g}.")

    def draw(self, seed: int, index: int) -> SurveillanceCourse:
        """One patient's course; the same for the same seed and index, whatever else is drawn."""
        return _draw_course(self, seed, index)

    def draw_gaps(self, rng: np.random.Generator, shape: int | tuple[int, ...]) -> Floats:
        """Times between exams, months."""
        return _log_uniform(rng, self.gap, shape)


@dataclass(frozen=True)
class NoduleCourse:
    """One nodule over a patient's exams.

    Args:
        kind: tumour, benign (solid) or cyst.
        diameters: at each exam, mm; 0 before a tumour has begun.
        doublings_per_month: of the volume, at the last exam; negative where it shrinks.
    """

    kind: NoduleKind
    diameters: tuple[float, ...]
    doublings_per_month: float


@dataclass(frozen=True)
class SurveillanceCourse(Course):
    """One patient's course.

    Args:
        threshold: size from which a tumour can be diagnosed, mm.
        nodules: all that are there at one exam at least.
    """

    threshold: float
    nodules: tuple[NoduleCourse, ...]

    def largest(self, *kinds: NoduleKind) -> tuple[float, ...]:
        """Diameter of the largest nodule of these kinds at each exam, mm; 0 where there is none."""
        sizes = [nodule.diameters for nodule in self.nodules if nodule.kind in kinds]
        return tuple(max(at_exam) for at_exam in zip([0.0] * len(self.dates), *sizes, strict=True))

    def visible(self, exam: int) -> bool:
        """Whether a tumour of at least ``VISIBLE_MM`` is there."""
        return self.largest("tumour")[exam] >= VISIBLE_MM


def doublings(diameter: float | Floats) -> Floats:
    """Volume of a sphere as a power of two of cubic millimetres, of its diameter, mm (−∞ for 0)."""
    with np.errstate(divide="ignore"):
        return np.asarray(3 * np.log2(diameter) + np.log2(np.pi / 6), dtype=np.float64)


def diameter_of(volume: Floats) -> Floats:
    """The inverse of ``doublings``."""
    return np.asarray(2 ** ((volume - np.log2(np.pi / 6)) / 3), dtype=np.float64)


def _draw_course(model: SurveillanceModel, seed: int, index: int) -> SurveillanceCourse:
    rng = generator(seed, index, Stream.COURSE)
    ends = rng.exponential([1 / model.death_rate, 1 / model.loss_rate, model.study])
    threshold = float(rng.uniform(*model.threshold))
    onset, rate = _draw_tumours(model, rng, threshold, float(ends.min()))
    onset_volume, crossing_volume = float(doublings(model.onset_mm)), float(doublings(threshold))
    crossings = onset + (crossing_volume - onset_volume) / rate
    schedule = _draw_schedule(model, rng, float(ends.min()))
    diagnosis = _diagnosed(float(crossings.min(initial=np.inf)), schedule, float(rng.exponential(model.delay)))
    end = min(diagnosis, float(ends.min()))
    times = schedule[schedule < end][: model.most_exams]
    first = CLOSING_DATE - datetime.timedelta(days=round(float(ends[2]) * DAYS_PER_MONTH))
    tumours = [
        _course("tumour", onset_volume + (times - o) * r, r, onset_volume) for o, r in zip(onset, rate, strict=True)
    ]
    nodules = tumours + _draw_others(model, rng, times)
    while _crowding(nodules) > _ROOM:  # one patient in a hundred, whose liver could not hold them
        nodules = tumours + _draw_others(model, rng, times)
    dates = _dates(first, times)
    return SurveillanceCourse(
        index=index,
        dates=dates,
        outcome=_outcome(patient_name(index), first, dates[-1], diagnosis, ends),
        threshold=threshold,
        nodules=tuple(nodule for nodule in nodules if any(nodule.diameters)),
    )


def _draw_tumours(
    model: SurveillanceModel, rng: np.random.Generator, threshold: float, end: float
) -> tuple[Floats, Floats]:
    """Onset (months from the first exam) and growth (doublings a month) of all tumours below the threshold at the first exam.

    Onsets are drawn over a time so long that a tumour from before has crossed the threshold; those that have are dropped:
    the patient enters undiagnosed.
    """
    way = float(doublings(threshold) - doublings(model.onset_mm))
    before = way * model.doubling * np.exp(_SLOWEST * model.doubling_sd)
    onset = rng.uniform(-before, end, rng.poisson(model.onset_rate * (before + end)))
    rate = 1 / (model.doubling * np.exp(model.doubling_sd * rng.standard_normal(len(onset))))
    there = onset + way / rate > 0
    return onset[there], rate[there]


def _draw_schedule(model: SurveillanceModel, rng: np.random.Generator, end: float) -> Floats:
    """Times of exams from the first, at 0, to one after ``end``; whole days, no two on one day."""
    times = [0.0]
    while times[-1] <= end:
        gap = float(model.draw_gaps(rng, 1)[0])
        times.append(times[-1] + max(round(gap * DAYS_PER_MONTH), 1) / DAYS_PER_MONTH)
    return np.array(times)


def _diagnosed(crossing: float, schedule: Floats, delay: float) -> float:
    """When: at the next exam after the threshold is crossed, or ``delay`` after it."""
    following = schedule[schedule > crossing]
    return min(crossing + delay, float(following[0])) if len(following) else crossing + delay


def _draw_others(model: SurveillanceModel, rng: np.random.Generator, times: Floats) -> list[NoduleCourse]:
    """Benign nodules and cysts."""
    kinds: tuple[tuple[NoduleKind, float, float, Range], ...] = (
        ("benign", model.nodule_fraction, model.nodules, model.nodule_size),
        ("cyst", model.cyst_fraction, model.cysts, model.cyst_size),
    )
    return [
        _course(kind, *_draw_benign(model, rng, size, times))
        for kind, fraction, mean, size in kinds
        for _ in range(int(rng.poisson(mean)) if rng.random() < fraction else 0)
    ]


def _crowding(nodules: Sequence[NoduleCourse]) -> float:
    """Cubes of the largest radii of solid nodules with a margin, mm³."""
    return sum((max(n.diameters) / 2 + 2) ** 3 for n in nodules if n.kind != "cyst")


def _draw_benign(
    model: SurveillanceModel, rng: np.random.Generator, size: Range, times: Floats
) -> tuple[Floats, float, float]:
    """Volume at each exam (doublings), growth at the last, and the smallest volume: a triangle wave in time, or constant."""
    low, high = (float(v) for v in doublings(np.array(size)))
    up, down = (float(1 / _log_uniform(rng, which, 1)[0]) for which in (model.growing, model.shrinking))
    phase = rng.random()
    if rng.random() < model.stable_fraction:
        return np.full(len(times), low + phase * (high - low)), 0.0, low
    volumes = triangle_wave(np.append(times, times[-1] + 1e-3), phase, up, down, low, high)
    return volumes[:-1], up if volumes[-1] > volumes[-2] else -down, low


def triangle_wave(
    times: Floats, phase: float | Floats, up: float | Floats, down: float | Floats, low: float, high: float
) -> Floats:
    """Volume (doublings) that rises at ``up`` a month from ``low`` to ``high``, falls at ``down``, and so on.

    Args:
        times: months.
        phase: share of the period that is over at time 0, 0–1.
        up, down: doublings a month, both positive.
        low, high: doublings.
    """
    rise, fall = (high - low) / up, (high - low) / down
    at = np.mod(phase * (rise + fall) + times, rise + fall)
    return np.where(at < rise, low + at * up, high - (at - rise) * down)


def _course(kind: NoduleKind, volumes: Floats, rate: float, smallest: float) -> NoduleCourse:
    sizes = np.where(volumes >= smallest - 1e-9, diameter_of(volumes), 0.0)
    return NoduleCourse(kind, tuple(float(size) for size in sizes), float(rate))


def _dates(first: datetime.date, times: Floats) -> tuple[datetime.date, ...]:
    return tuple(first + datetime.timedelta(days=round(t * DAYS_PER_MONTH)) for t in times)


def _outcome(
    patient_id: str, first: datetime.date, last_exam: datetime.date, diagnosis: float, ends: Floats
) -> Outcome:
    """The first of diagnosis, death or transplant, loss and end of the study; a day after the last exam at the earliest."""
    end = min(diagnosis, float(ends.min()))
    day = max(first + datetime.timedelta(days=round(end * DAYS_PER_MONTH)), last_exam + datetime.timedelta(days=1))
    if diagnosis <= ends.min():
        return Outcome(patient_id, day, day)
    return Outcome(patient_id, None, day, day if ends.argmin() == 0 else None)


def _log_uniform(rng: np.random.Generator, values: Range, shape: int | tuple[int, ...]) -> Floats:
    low, high = (float(np.log(value)) for value in values)
    return np.asarray(np.exp(rng.uniform(low, high, size=shape)), dtype=np.float64)
