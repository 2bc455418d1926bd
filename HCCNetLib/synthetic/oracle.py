"""The oracle of `growth`: the best that a method can do with the lesion's sizes and the exams' dates, and with less.

A standard classifier (histogram gradient boosting, cross-validated) is given the sizes and dates of each patient's exams,
as they are or measured with an error, in five views. A view that leaves something out is still given all that can be
said without it, so that a weak result is the view's and not the features'.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from HCCNetLib.records import Refusal, months_between
from HCCNetLib.synthetic.disease import Progress
from HCCNetLib.synthetic.growth import GrowthCourse as Course
from HCCNetLib.synthetic.randomness import Stream, generator

Table = NDArray[np.float64]

VIEWS: Mapping[str, str] = {
    "full": "sizes and dates",
    "index": "sizes in order, without dates",
    "bag": "sizes without order and dates",
    "last": "the size at the last exam only",
    "dates": "dates only",
}
SIZE_ERRORS = (0.0, 0.6)
CLASSIFIER = "scikit-learn HistGradientBoostingClassifier, 5-fold cross-validation by patient"

_FOLDS = 5
_RESAMPLES = 1000
_SETTINGS = {
    "max_iter": 120,
    "learning_rate": 0.05,
    "max_leaf_nodes": 8,
    "min_samples_leaf": 20,
    "l2_regularization": 1.0,
    "early_stopping": False,
    "random_state": 0,
}


@dataclass(frozen=True)
class Series:
    """What the oracle is given of one patient: times (months before the landmark) and sizes (log2 ml), oldest first."""

    months: NDArray[np.float64]
    sizes: NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """An estimate and its 95% bootstrap interval."""

    value: float
    low: float
    high: float

    def to_dict(self) -> dict[str, float]:
        """Rounded, for the card."""
        return {"value": round(self.value, 3), "low": round(self.low, 3), "high": round(self.high, 3)}


@dataclass(frozen=True)
class OracleResult:
    """The oracle at one size error.

    Args:
        size_error: SD of the measured size, doublings of the volume.
        auroc: view → AUROC.
        full_above_index: by how much, on the same patients.
        index_above_bag: likewise.
    """

    size_error: float
    auroc: Mapping[str, Interval]
    full_above_index: Interval
    index_above_bag: Interval

    def to_dict(self) -> dict[str, Any]:
        """As plain data for the card."""
        return {
            "size_error_doublings": self.size_error,
            "auroc": {view: interval.to_dict() for view, interval in self.auroc.items()},
            "full_above_index": self.full_above_index.to_dict(),
            "index_above_bag": self.index_above_bag.to_dict(),
        }


def describe_oracle(courses: Sequence[Course], horizon: float, seed: int, progress: Progress) -> dict[str, Any]:
    """The oracle's table for the cohort card.

    Args:
        courses: patients; those without a labelled landmark are left out.
        horizon: months.
        seed: of the measurement errors.
        progress: called with stage, done and total.

    Raises:
        Refusal: scikit-learn is missing, or one class has too few patients.
    """
    results: list[dict[str, Any]] = []
    for done, size_error in enumerate(SIZE_ERRORS):
        progress("asking the oracle", done, len(SIZE_ERRORS))
        results.append(ask_oracle(courses, horizon, size_error, seed).to_dict())
    progress("asking the oracle", len(SIZE_ERRORS), len(SIZE_ERRORS))
    labels = [landmark.label for landmark in latest_landmarks(courses, horizon)]
    return {
        "landmark": "each patient's latest labelled exam",
        "patients": len(labels),
        "positive": sum(labels),
        "classifier": CLASSIFIER,
        "interval": "95% bootstrap over patients, the cross-validated scores being fixed",
        "views": dict(VIEWS),
        "results": results,
        "sequence_order": {
            "note": "sizes shuffled or in order, dates in order: what the second self-supervised stage can reach",
            "auroc": {
                f"size error {error:g}": ask_about_order(courses, error, seed).to_dict() for error in SIZE_ERRORS
            },
        },
        "all_labelled_landmarks": {
            "note": "over these, as in training, the number of exams and their dates tell something: see the disease model",
            "size_error_doublings": SIZE_ERRORS[-1],
            "auroc": ask_about_all_landmarks(courses, horizon, SIZE_ERRORS[-1], seed),
        },
    }


@dataclass(frozen=True)
class Landmark:
    """An exam of a patient from which a prediction is made, and its label."""

    course: Course
    exam: int
    label: bool


def latest_landmarks(courses: Sequence[Course], horizon: float) -> list[Landmark]:
    """Each patient's latest labelled exam: the landmarks of the contract's headline evaluation."""
    return [
        Landmark(course, exams[-1], bool(course.label(exams[-1], horizon)))
        for course in courses
        if (exams := course.labelled(horizon))
    ]


def ask_about_all_landmarks(
    courses: Sequence[Course], horizon: float, size_error: float, seed: int = 0
) -> dict[str, float]:
    """Cross-validated AUROC of each view over all labelled landmarks, patients kept together in folds; no intervals."""
    classify = classifier()
    landmarks = [
        Landmark(course, exam, bool(course.label(exam, horizon)))
        for course in courses
        for exam in course.labelled(horizon)
    ]
    labels = np.array([landmark.label for landmark in landmarks], dtype=np.bool_)
    patients = np.array([landmark.course.index for landmark in landmarks])
    once = np.ones((1, int(labels.sum()))), np.ones((1, int((~labels).sum())))
    tables = tabulate([measure(landmark, size_error, seed) for landmark in landmarks])
    return {
        view: round(float(_auroc_resampled(classify(table, labels, patients), labels, once)[0]), 3)
        for view, table in tables.items()
    }


def ask_oracle(courses: Sequence[Course], horizon: float, size_error: float, seed: int = 0) -> OracleResult:
    """Cross-validated AUROC of each view at each patient's latest labelled landmark.

    Args:
        courses: patients; those without a labelled landmark are left out.
        horizon: months.
        size_error: SD of the measured log2 volume, doublings.
        seed: of the measurement errors.

    Raises:
        Refusal: scikit-learn is missing, or one class has too few patients.
    """
    classify = classifier()
    landmarks = latest_landmarks(courses, horizon)
    labels = np.array([landmark.label for landmark in landmarks], dtype=np.bool_)
    patients = np.array([landmark.course.index for landmark in landmarks])
    if min(labels.sum(), (~labels).sum()) < 2 * _FOLDS:
        message = f"The oracle needs at least {2 * _FOLDS} patients with and without a diagnosis. Make more patients."
        raise Refusal("too_few_patients", message)
    series = [measure(landmark, size_error, seed) for landmark in landmarks]
    weights = _bootstrap_weights(labels)
    resampled = {
        view: _auroc_resampled(classify(table, labels, patients), labels, weights)
        for view, table in tabulate(series).items()
    }
    return OracleResult(
        size_error,
        {view: _interval(values) for view, values in resampled.items()},
        _interval(resampled["full"] - resampled["index"]),
        _interval(resampled["index"] - resampled["bag"]),
    )


def ask_about_order(courses: Sequence[Course], size_error: float, seed: int = 0) -> Interval:
    """Cross-validated AUROC of shuffled against ordered sizes, the dates being given in order: what stage 2 can reach.

    Each patient with at least two exams is shown in order and shuffled once; both are in one fold, and the interval comes
    from drawing patients again.

    Args:
        courses: patients.
        size_error: SD of the measured log2 volume, doublings.
        seed: of measurement errors and shuffles.

    Raises:
        Refusal: scikit-learn is missing, or too few patients have two exams.
    """
    classify = classifier()
    several = [course for course in courses if len(course.dates) > 1]
    if len(several) < 2 * _FOLDS:
        message = f"The oracle needs at least {2 * _FOLDS} patients with two exams. Make more patients."
        raise Refusal("too_few_patients", message)
    series, patients = [], []
    for course in several:
        ordered = measure(Landmark(course, len(course.dates) - 1, False), size_error, seed)
        series += [ordered, Series(ordered.months, ordered.sizes[_other_order(len(ordered.sizes), seed, course.index)])]
        patients += [course.index] * 2
    labels = np.tile([False, True], len(several))
    scores = classify(tabulate(series)["full"], labels, np.array(patients))
    rng = np.random.default_rng(0)
    drawn = rng.multinomial(len(several), np.full(len(several), 1 / len(several)), size=_RESAMPLES)
    weights = np.vstack([np.ones(len(several)), drawn])
    return _interval(_auroc_resampled(scores, labels, (weights, weights)))


def _other_order(count: int, seed: int, patient: int) -> NDArray[np.int_]:
    """A random order of ``count`` exams that is not the given one."""
    rng = np.random.default_rng([seed, patient, count])
    while True:
        order = rng.permutation(count)
        if (order != np.arange(count)).any():
            return order


def measure(landmark: Landmark, size_error: float, seed: int) -> Series:
    """The series up to a landmark, an error in each size; the same errors, scaled, for every ``size_error``."""
    course, count = landmark.course, landmark.exam + 1
    errors = generator(seed, course.index, Stream.MEASUREMENT).standard_normal(len(course.dates))
    months = np.array([months_between(date, course.dates[landmark.exam]) for date in course.dates[:count]])
    return Series(months, (np.log2(course.volumes_ml) + size_error * errors)[:count])


def tabulate(series: Sequence[Series]) -> dict[str, Table]:
    """The features (patients, features) of each view; what a short series lacks is NaN, which the classifier knows."""
    count = np.array([[len(s.sizes)] for s in series], dtype=np.float64)
    months, sizes = _aligned([s.months for s in series]), _aligned([s.sizes for s in series])
    ordered = _aligned([np.sort(s.sizes) for s in series])
    steps, gaps = np.diff(sizes), -np.diff(months)
    from_last = sizes[:, :-1] - sizes[:, -1:]
    first_to_last = np.array([[s.sizes[-1] - s.sizes[0]] for s in series])
    span = np.array([[s.months[0]] for s in series])
    spread = np.array([[s.sizes.mean(), s.sizes.std(), np.ptp(s.sizes)] for s in series])
    per_month = np.array([_line(-s.months, s.sizes) for s in series])
    per_exam = np.array([_line(np.arange(len(s.sizes), dtype=np.float64), s.sizes) for s in series])
    in_order = [count, sizes, steps, from_last, first_to_last, spread, per_exam]
    with np.errstate(invalid="ignore"):  # one exam spans no time
        rates = np.hstack([steps / gaps, first_to_last / span])
    return {
        "full": np.hstack([*in_order, months, gaps, span, rates, per_month]),
        "index": np.hstack(in_order),
        "bag": np.hstack([count, ordered, np.diff(ordered), spread]),
        "last": sizes[:, -1:],
        "dates": np.hstack([count, months, gaps, span]),
    }


def _aligned(rows: Sequence[NDArray[np.float64]]) -> Table:
    """Series of different lengths as rows that end together."""
    longest = max(len(row) for row in rows)
    return np.stack([np.concatenate([np.full(longest - len(row), np.nan), row]) for row in rows])


def _line(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[float, float]:
    """Least-squares slope of y over x, and the logarithm of Σ(x − mean)², on which the slope's error depends."""
    if len(x) < 2:
        return np.nan, np.nan
    from_mean = x - x.mean()
    weight = float(from_mean @ from_mean)
    return float(from_mean @ y) / weight, float(np.log(weight))


class Classify(Protocol):
    """Out-of-fold probabilities (N,) of a standard classifier, a patient's rows in one fold."""

    def __call__(
        self,
        table: Table,
        labels: NDArray[np.bool_],
        patients: NDArray[np.int_],
        known: NDArray[np.bool_] | None = None,
    ) -> NDArray[np.float64]:
        """Fits on the rows whose label is known (None: all), predicts every row."""
        ...


def classifier() -> Classify:
    """The standard classifier.

    Raises:
        Refusal: scikit-learn, which is optional, is missing.
    """
    try:
        ensemble = importlib.import_module("sklearn.ensemble")
        selection = importlib.import_module("sklearn.model_selection")
        threads = importlib.import_module("threadpoolctl")  # comes with scikit-learn
    except ImportError as error:
        message = "The oracle needs scikit-learn, which is not installed. Install it: pip install 'hccnet[training]'."
        raise Refusal("missing_package", message) from error

    def classify(
        table: Table,
        labels: NDArray[np.bool_],
        patients: NDArray[np.int_],
        known: NDArray[np.bool_] | None = None,
    ) -> NDArray[np.float64]:
        known = np.ones(len(labels), dtype=np.bool_) if known is None else known
        folds = selection.StratifiedGroupKFold(_FOLDS, shuffle=True, random_state=0)
        predicted = np.empty(len(labels))
        # Tables this small gain nothing from threads, and on a busy machine threads wait for each other.
        with threads.threadpool_limits(1):
            for train, test in folds.split(table, labels, patients):
                train = train[known[train]]
                told = [len(np.unique(column[~np.isnan(column)])) > 1 for column in table[train].T]
                model = ensemble.HistGradientBoostingClassifier(**_SETTINGS).fit(table[train][:, told], labels[train])
                predicted[test] = model.predict_proba(table[test][:, told])[:, 1]
        return predicted

    return classify


def _bootstrap_weights(labels: NDArray[np.bool_]) -> tuple[Table, Table]:
    """How often each positive and each negative patient is drawn: everybody once (row 0), then resampled within classes."""
    rng = np.random.default_rng(0)

    def draw(count: int) -> Table:
        resampled = rng.multinomial(count, np.full(count, 1 / count), size=_RESAMPLES)
        return np.vstack([np.ones(count), resampled])

    return draw(int(labels.sum())), draw(int((~labels).sum()))


def _auroc_resampled(
    scores: NDArray[np.float64], labels: NDArray[np.bool_], weights: tuple[Table, Table]
) -> NDArray[np.float64]:
    """AUROC of each row of weights: the weighted share of pairs in the right order, ties half."""
    positive, negative = scores[labels][:, None], scores[~labels][None]
    right = (positive > negative) + 0.5 * (positive == negative)
    auroc: NDArray[np.float64] = ((weights[0] @ right) * weights[1]).sum(axis=1) / right.size
    return auroc


def _interval(values: NDArray[np.float64]) -> Interval:
    """The first value is the estimate, the others are its resamples."""
    low, high = np.percentile(values[1:], [2.5, 97.5])
    return Interval(float(values[0]), float(low), float(high))
