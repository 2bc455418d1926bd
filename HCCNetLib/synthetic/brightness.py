"""How much of the outcome brightness alone gives away: what a network could read without finding a nodule.

Each exam is prepared as the network reads it and reduced to intensity quantiles of every channel and to shares of bright
voxels. A standard classifier, cross-validated by patient, predicts the diagnosis within the horizon from those at the last
exam, from how they change, and from both.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from HCCNetLib.evaluation.discrimination import auroc_interval
from HCCNetLib.evaluation.intervals import Interval
from HCCNetLib.preprocessing import PreparedExam, PreprocessingConfig, prepare_exam
from HCCNetLib.records import ArrayImage, Exam
from HCCNetLib.synthetic.disease import Course, Progress, sphere_ml
from HCCNetLib.synthetic.oracle import CLASSIFIER, classifier
from HCCNetLib.synthetic.phantom import Phantom, PhantomModel, draw_phantom
from HCCNetLib.synthetic.rendering import RenderedExam, render_exam
from HCCNetLib.synthetic.surveillance_oracle import by_number_and_all

Floats = NDArray[np.float64]

QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 0.999)
# A voxel is bright in the last channel above the median of what is read, by so many SDs of the body.
BRIGHT = (0.5, 1.0, 1.5, 2.0, 3.0)
VIEWS: Mapping[str, str] = {
    "quantiles at the last exam": "intensity quantiles of each channel",
    "quantile slopes": "their slopes per month and differences to the first and the previous exam",
    "bright share": "shares of bright voxels of the last channel, at the last exam and as they change",
}
# What the network reads, at every second voxel along each axis: the same field and intensities in an eighth of the time.
_COARSE = PreprocessingConfig(spacing_mm=3.0, crop_voxels=36, liver_min_voxels=41)
_ANY_DATE = datetime.date(2000, 1, 1)
_FEWEST = 5  # of each class, for an AUROC


@dataclass(frozen=True)
class Brightness:
    """One patient's exams in brightness.

    Args:
        course: dates and outcome.
        months: of each exam (E,), since the first.
        quantiles: (E, channels · quantiles).
        shares: (E, thresholds) of bright voxels.
        solid_ml: volume of all solid nodules at each exam (E,), ml.
    """

    course: Course
    months: Floats
    quantiles: Floats
    shares: Floats
    solid_ml: Floats


def measure_brightness(
    model: PhantomModel, seed: int, indices: Sequence[int], progress: Progress | None = None
) -> list[Brightness]:
    """Renders patients and keeps their brightness alone; coarse voxels make it quick and change little.

    Args:
        model: the cohort's.
        seed: of the cohort.
        indices: of the patients.
        progress: called with stage, done and total.
    """
    measured = []
    for done, index in enumerate(indices):
        if progress:
            progress("measuring brightness", done, len(indices))
        measured.append(_of_patient(model, draw_phantom(model, seed, index)))
    return measured


def _of_patient(model: PhantomModel, phantom: Phantom) -> Brightness:
    course = phantom.course
    exams = range(len(course.dates))
    rows = [brightness_of(prepare(render_exam(model, phantom, exam), model.channels)) for exam in exams]
    solid = [nodule for nodule in phantom.nodules if nodule.is_solid]
    return Brightness(
        course=course,
        months=course.months_before_landmark[0] - np.array(course.months_before_landmark),
        quantiles=np.array([quantiles for quantiles, _ in rows]),
        shares=np.array([shares for _, shares in rows]),
        solid_ml=np.array([sum(sphere_ml(nodule.diameters[exam]) for nodule in solid) for exam in exams]),
    )


def prepare(rendered: RenderedExam, channels: Sequence[str]) -> PreparedExam:
    """A rendered exam as the network reads it."""
    images = {
        name: ArrayImage(rendered.images[name].astype(np.float32), rendered.grid.affine, name) for name in channels
    }
    return prepare_exam(Exam("phantom", _ANY_DATE, images), channels, _COARSE)


def brightness_of(prepared: PreparedExam) -> tuple[Floats, Floats]:
    """Quantiles (channels · quantiles,) and shares of bright voxels (thresholds,) of what is read of one exam."""
    voxels = prepared.data[:, prepared.window.read_mask].astype(np.float64)
    quantiles = np.quantile(voxels, QUANTILES, axis=1).T.ravel()
    last = voxels[-1] - np.median(voxels[-1])
    return quantiles, np.array([(last > threshold).mean() for threshold in BRIGHT])


def ask_about_brightness(measured: Sequence[Brightness], horizon: float) -> dict[str, Any]:
    """The table for the cohort card: AUROC of each view by number of the landmark, with 95% intervals.

    Args:
        measured: of ``measure_brightness``.
        horizon: months.

    Raises:
        Refusal: scikit-learn is missing.
    """
    landmarks = [(patient, exam) for patient in measured for exam in patient.course.labelled(horizon)]
    labels = np.array([bool(patient.course.label(exam, horizon)) for patient, exam in landmarks])
    patients = np.array([patient.course.index for patient, _ in landmarks])
    numbers = np.array([exam + 1 for _, exam in landmarks])
    classify = classifier()
    scores = {view: classify(table, labels, patients) for view, table in _tabulate(landmarks).items()}
    return {
        "classifier": CLASSIFIER,
        "label": f"diagnosis within {horizon:g} months",
        "interval": "95% jackknife over patients, the cross-validated scores being fixed",
        "views": dict(VIEWS),
        "patients": len(measured),
        "results": [
            {
                "method": "brightness",
                "view": view,
                "horizon": horizon,
                "auroc": {
                    n: _auroc(values, labels, patients, among) for n, among in by_number_and_all(numbers).items()
                },
            }
            for view, values in scores.items()
        ],
        "rank_correlation_with_volume": _correlations(measured),
    }


def _auroc(
    scores: Floats, labels: NDArray[np.bool_], patients: NDArray[np.int_], chosen: NDArray[np.bool_]
) -> dict[str, float | None]:
    """AUROC at some landmarks; not determined where a class is too small."""
    rows = np.flatnonzero(chosen)
    if min(labels[rows].sum(), (~labels[rows]).sum()) < _FEWEST:
        return Interval(None, None, None).to_dict()
    return auroc_interval(labels[rows], scores[rows], patients[rows]).to_dict()


def _tabulate(landmarks: Iterable[tuple[Brightness, int]]) -> dict[str, Floats]:
    """Features (landmarks, features) of each view; NaN where one exam shows no change."""
    rows: dict[str, list[Floats]] = {view: [] for view in VIEWS}
    for patient, exam in landmarks:
        months, quantiles, shares = (a[: exam + 1] for a in (patient.months, patient.quantiles, patient.shares))
        views = quantiles[-1], _changes(months, quantiles), np.concatenate([shares[-1], _changes(months, shares)])
        for view, row in zip(VIEWS, views, strict=True):
            rows[view].append(row)
    return {view: np.array(table) for view, table in rows.items()}


def _changes(months: Floats, values: Floats) -> Floats:
    """Slope per month, difference to the first and to the previous exam, of each column (E, n)."""
    if len(months) < 2:
        return np.full(3 * values.shape[1], np.nan)
    from_mean = months - months.mean()
    slope = from_mean @ values / (from_mean @ from_mean)
    return np.concatenate([slope, values[-1] - values[0], values[-1] - values[-2]])


def _correlations(measured: Sequence[Brightness]) -> dict[str, float]:
    """Spearman's correlation over all exams of each share of bright voxels, if it varies, with the volume of all solid nodules."""
    shares, volumes = (
        np.concatenate([getattr(patient, name) for patient in measured]) for name in ("shares", "solid_ml")
    )
    return {
        f"share above {threshold:g} SD": round(float(stats.spearmanr(share, volumes)[0]), 3)
        for threshold, share in zip(BRIGHT, shares.T, strict=True)
        if np.ptp(share) > 0
    }
