"""The oracle of `surveillance`: what standard methods reach with measured sizes and dates, and with less than that.

At each landmark number, a gradient-boosted classifier of the label and a discrete-time survival model (the same classifier
on the intervals between horizons; Singer and Willett, J Educ Stat 1993;18:155) are cross-validated by patient in four
views. The true risk stands beside them; it needs no training.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from HCCNetLib.evaluation.discrimination import auroc_interval
from HCCNetLib.evaluation.landmark_sets import by_number
from HCCNetLib.records import months_between
from HCCNetLib.synthetic.disease import Progress
from HCCNetLib.synthetic.oracle import CLASSIFIER, Classify, classifier
from HCCNetLib.synthetic.surveillance import SurveillanceCourse, SurveillanceModel, doublings
from HCCNetLib.synthetic.true_risk import SEEN_MM, SIZE_ERROR, Measured, TrueRisk, measure

Floats = NDArray[np.float64]

VIEWS: Mapping[str, str] = {
    "full": "sizes at all exams, and dates",
    "no dates": "sizes at all exams in order",
    "last exam": "sizes at the last exam alone",
    "dates": "dates alone",
}
_NODULES = 3
_EXAMS = 7
_CHANGES = 5
_EXAM_SPREAD, _MONTH_SPREAD = 0.6, 0.1  # SD of growth between nodules, doublings per exam and per month


def by_number_and_all(numbers: NDArray[np.int_]) -> dict[str, NDArray[np.bool_]]:
    """Landmarks (N,) by their number, and all of them."""
    return {**by_number(numbers), "all": np.ones(len(numbers), dtype=np.bool_)}


@dataclass(frozen=True)
class LandmarkTable:
    """All landmarks of a cohort.

    Args:
        patients: (N,) index of the patient.
        numbers: (N,) 1 for the first.
        labels: (N, H) diagnosed within each horizon; False where not known.
        known: (N, H).
        risks: view of the true risk → (N, H).
        features: view of the oracle → (N, F).
        followed: (N,) months to the end of the follow-up.
    """

    horizons: tuple[float, ...]
    patients: NDArray[np.int_]
    numbers: NDArray[np.int_]
    labels: NDArray[np.bool_]
    known: NDArray[np.bool_]
    risks: Mapping[str, Floats]
    features: Mapping[str, Floats]
    followed: Floats

    def aurocs(self, scores: Floats, horizon: int) -> dict[str, Any]:
        """AUROC with its 95% interval over the landmarks with a label, by landmark number."""
        return {name: self._auroc(scores, horizon, among) for name, among in by_number_and_all(self.numbers).items()}

    def _auroc(self, scores: Floats, horizon: int, among: NDArray[np.bool_]) -> dict[str, float | None]:
        rows = np.flatnonzero(among & self.known[:, horizon])
        return auroc_interval(self.labels[rows, horizon], scores[rows], self.patients[rows]).to_dict()


def tabulate_landmarks(
    model: SurveillanceModel, courses: Sequence[SurveillanceCourse], seed: int, progress: Progress
) -> LandmarkTable:
    """Labels, true risks and features of every exam."""
    true = TrueRisk(model)
    rows = []
    for done, course in enumerate(courses):
        progress("computing true risks", done, len(courses))
        rows += [_landmark(true, course, exam, seed) for exam in range(len(course.dates))]
    progress("computing true risks", len(courses), len(courses))
    labels = [row["labels"] for row in rows]
    return LandmarkTable(
        horizons=model.horizons,
        patients=np.array([row["patient"] for row in rows]),
        numbers=np.array([row["number"] for row in rows]),
        labels=np.array([[label is True for label in row] for row in labels]),
        known=np.array([[label is not None for label in row] for row in labels]),
        risks={view: np.array([row[view] for row in rows]) for view in ("state", "images")},
        features={view: np.array([row["features"][view] for row in rows]) for view in VIEWS},
        followed=np.array([row["followed"] for row in rows]),
    )


def _landmark(true: TrueRisk, course: SurveillanceCourse, exam: int, seed: int) -> dict[str, Any]:
    measured = measure(course, exam, seed)
    return {
        "patient": course.index,
        "number": exam + 1,
        "labels": [course.label(exam, horizon) for horizon in true.model.horizons],
        "followed": months_between(course.dates[exam], course.outcome.followed_until),
        "state": true.from_state(course, exam),
        "images": true.from_images(measured),
        "features": features(measured),
    }


def describe_surveillance(
    model: SurveillanceModel, courses: Sequence[SurveillanceCourse], seed: int, progress: Progress
) -> dict[str, Any]:
    """The oracle's table for the cohort card.

    Args:
        model: the process.
        courses: patients; at least some hundred.
        seed: of the measurement errors.
        progress: called with stage, done and total.

    Raises:
        Refusal: scikit-learn is missing.
    """
    classify = classifier()
    table = tabulate_landmarks(model, courses, seed, progress)
    results = list(_results(table, table.horizons.index(model.horizon), classify, progress))
    at = table.horizons.index(model.horizon)
    return {
        "landmark": "every exam with a label",
        "patients": len(courses),
        "positive_share": {
            name: round(float(table.labels[rows, at].mean()), 4) if rows.any() else None
            for name, among in by_number_and_all(table.numbers).items()
            for rows in (among & table.known[:, at],)
        },
        "size_error_doublings": SIZE_ERROR,
        "seen_from_mm": SEEN_MM,
        "classifier": CLASSIFIER,
        "survival_model": "the same classifier on the intervals between horizons, competing events ending the follow-up",
        "interval": "95% jackknife over patients, the cross-validated scores being fixed",
        "views": {"state": "sizes, growth rates and threshold as they are", "images": VIEWS["full"], **VIEWS},
        "results": results,
    }


def _results(table: LandmarkTable, main: int, classify: Classify, progress: Progress) -> Iterator[dict[str, Any]]:
    def result(method: str, view: str, scores: Floats, horizon: int) -> dict[str, Any]:
        months = table.horizons[horizon]
        return {"method": method, "view": view, "horizon": months, "auroc": table.aurocs(scores, horizon)}

    for view, risks in table.risks.items():
        yield from (result("true risk", view, risks[:, n], n) for n in range(len(table.horizons)))
    for done, view in enumerate(VIEWS):
        progress("asking the oracle", done, len(VIEWS))
        rows = table.features[view]
        scores = classify(rows, table.labels[:, main], table.patients, table.known[:, main])
        yield result("classifier", view, scores, main)
        risks = _survival(table, rows, classify)
        yield from (result("survival model", view, risks[:, n], n) for n in range(len(table.horizons)))
    progress("asking the oracle", len(VIEWS), len(VIEWS))


def _survival(table: LandmarkTable, rows: Floats, classify: Classify) -> Floats:
    """Risk (N, H) from hazards in the intervals that end at the horizons."""
    count, starts = len(table.horizons), np.array([0.0, *table.horizons[:-1]])
    interval = np.tile(np.arange(count), len(rows))
    # Labels are cumulative: the diagnosis lies in an interval if it is not within the horizon before.
    within = table.labels & ~np.hstack([np.zeros((len(rows), 1), dtype=np.bool_), table.labels[:, :-1]])
    at_risk = (table.followed[:, None] > starts) & (within | table.known) & ~(table.labels & ~within)
    long = np.hstack([np.repeat(rows, count, axis=0), interval[:, None]])
    hazards = classify(long, within.ravel(), np.repeat(table.patients, count), at_risk.ravel())
    return np.asarray(1 - np.cumprod(1 - hazards.reshape(-1, count), axis=1), dtype=np.float64)


def features(measured: Measured) -> dict[str, Floats]:
    """The features of each view; NaN where there is nothing.

    Of each of the largest nodules and of the fastest: size, change, and the size to be expected after another year (or
    exam) at a rate that is shrunk towards the mean by its error.
    """
    months, sizes = measured.months, measured.sizes
    count = len(months)
    hidden = float(doublings(SEEN_MM)) - 1
    latest = np.where(np.isnan(sizes[:, -1]), hidden, sizes[:, -1])
    order = np.argsort(-latest)[:_NODULES]
    now = [float(np.isfinite(sizes[:, -1]).sum()), *_filled(latest[order], _NODULES)]
    dates = [count, *_filled(months[::-1], _EXAMS), *_filled(-np.diff(months)[::-1], _EXAMS - 1)]
    by_exam = [
        *now,
        count,
        *_changes(sizes, np.arange(count, dtype=np.float64) - (count - 1), order, 1.0, _EXAM_SPREAD),
    ]
    by_date = [*_changes(sizes, -months, order, 12.0, _MONTH_SPREAD), *dates]
    views = (by_exam + by_date, by_exam, now, dates)
    return {name: np.array(view, dtype=np.float64) for name, view in zip(VIEWS, views, strict=True)}


def _changes(sizes: Floats, times: Floats, order: NDArray[np.intp], ahead: float, spread: float) -> list[float]:
    """How the largest nodules change, and the largest expected size and the fastest rate of all."""
    rows = np.array([_change(row, times, ahead, spread) for row in sizes]).reshape(-1, _CHANGES)
    largest = [max(column, default=np.nan) for column in (c[~np.isnan(c)].tolist() for c in rows[:, :2].T)]
    return [*largest, *_filled(rows[order].ravel(), _NODULES * _CHANGES)]


def _change(row: Floats, times: Floats, ahead: float, spread: float) -> tuple[float, ...]:
    """Expected size, shrunk rate, rate, last step, time since first seen; where seen once, the rate from the limit of sight.

    Args:
        row: sizes (K,), NaN where not seen.
        times: of the exams, 0 at the last.
        ahead: for which the expected size is.
        spread: SD of rates between nodules.
    """
    seen = np.flatnonzero(~np.isnan(row))
    first = seen[0] - 1 if seen[0] else seen[0]  # an exam before, without a sight of it, limits its size there
    t, y = times[first : seen[-1] + 1], np.where(np.isnan(row), doublings(SEEN_MM) - 1, row)[first : seen[-1] + 1]
    if len(t) < 2:
        return float(y[-1]), np.nan, np.nan, np.nan, float(t[0])
    from_mean = t - t.mean()
    weight = float(from_mean @ from_mean)
    rate = float(from_mean @ y) / weight
    shrunk = rate / (1 + (SIZE_ERROR / spread) ** 2 / weight)
    now = y.mean() - rate * t.mean()
    return float(now + ahead * shrunk), float(shrunk), rate, float((y[-1] - y[-2]) / (t[-1] - t[-2])), float(t[0])


def _filled(values: Floats, count: int) -> Floats:
    """The first ``count`` values, NaN where there are fewer."""
    filled = np.full(count, np.nan)
    filled[: min(count, len(values))] = values[:count]
    return filled
