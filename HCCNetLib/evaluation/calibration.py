"""Whether a risk of 20% means that 20 of 100 fall ill, and how to make it so.

Slope and intercept follow Van Calster et al., J Clin Epidemiol 2016;74:167: the slope is that of a logistic regression of
the label on logit(p); the intercept is that of one whose slope is held at 1 (calibration in the large). 1 and 0 are ideal; a
slope below 1 means risks too extreme, an intercept below 0 risks too high. Probabilities are kept within 1e-6 of 0 and 1
where their logit is taken, or a single certain mistake would outweigh all others.

Measures ``…_resampled`` take weights (R, N), how often each patient was drawn in each of R resamples, and return (R,).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import expit, logit
from scipy.stats import rankdata

from HCCNetLib.evaluation.intervals import Interval, wilson
from HCCNetLib.evaluation.scores import Floats, Labels, check_classes
from HCCNetLib.records import Refusal

CLIP = 1e-6

_STEPS = 100
_HALVINGS = 30
_SMALLEST_STEP = 1e-6
_ROUNDING = 1e-12
_MOST_BINS = 10
_PER_BIN = 10  # patients at least, as long as there are two bins


def brier(labels: Labels, risks: Floats) -> float:
    """Mean squared distance of risk and outcome."""
    return float(np.mean((risks - labels) ** 2))


def brier_resampled(labels: Labels, risks: Floats, weights: Floats) -> Floats:
    """Brier score of each resample."""
    result: Floats = weights @ (risks - labels) ** 2 / weights.sum(axis=1)
    return result


def calibration_slope(labels: Labels, risks: Floats) -> float:
    """Slope of the label's log odds over logit(risk); infinite where the classes are separated, NaN for equal risks."""
    return float(slope_resampled(labels, risks, np.ones((1, len(labels))))[0])


def calibration_intercept(labels: Labels, risks: Floats) -> float:
    """Calibration in the large: by how much the log odds of all risks are too low."""
    return float(intercept_resampled(labels, risks, np.ones((1, len(labels))))[0])


def slope_resampled(labels: Labels, risks: Floats, weights: Floats) -> Floats:
    """Calibration slope of each resample; ±∞ where it separates the classes, NaN where its risks are all equal."""
    return _fit_lines(labels, _logits(risks), weights)[:, 1]


def intercept_resampled(labels: Labels, risks: Floats, weights: Floats) -> Floats:
    """Calibration in the large of each resample."""
    return _maximise(_Regression(np.ones((len(labels), 1)), _logits(risks), labels), weights)[:, 0]


def fit_recalibration(probabilities: Floats, labels: Labels) -> tuple[float, float]:
    """Slope and intercept of sigmoid(slope · logit(p) + intercept) by maximum likelihood, both free.

    Args:
        probabilities: (N,) 0–1, of patients that the networks were not trained on.
        labels: (N,).

    Raises:
        Refusal: ``one_class``; ``separated``: the likelihood has no maximum; ``wrong_direction``: a higher output does
            not mean a higher risk.
    """
    check_classes(labels)
    intercept, slope = _fit_lines(labels, _logits(probabilities), np.ones((1, len(labels))))[0]
    if slope == np.inf:
        message = (
            "The calibration can't be fitted: every positive patient's output is at least as high as every negative's, "
            "so that no finite slope is the best. Use more patients."
        )
        raise Refusal("separated", message)
    if not slope > 0:  # NaN too: all outputs are equal
        message = (
            "The calibration was not fitted: a higher output does not mean a higher risk on these patients. Check the "
            "labels and the training."
        )
        raise Refusal("wrong_direction", message)
    return float(slope), float(intercept)


def recalibrate(probabilities: Floats, slope: float, intercept: float) -> Floats:
    """sigmoid(slope · logit(p) + intercept)."""
    result: Floats = expit(slope * _logits(probabilities) + intercept)
    return result


@dataclass(frozen=True)
class CalibrationBin:
    """Patients with similar risks.

    Args:
        count: patients.
        positives: among them.
        low: smallest risk.
        high: largest risk.
        mean: of their risks.
        observed: share of the positives with Wilson's interval.
    """

    count: int
    positives: int
    low: float
    high: float
    mean: float
    observed: Interval

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return {**vars(self), "observed": self.observed.to_dict()}


def calibration_bins(labels: Labels, risks: Floats) -> list[CalibrationBin]:
    """Up to ten bins of about equally many patients (at least about ten each), equal risks in one bin."""
    wanted = int(np.clip(len(labels) // _PER_BIN, 2, _MOST_BINS))
    # Equal risks have one mean rank and so one place.
    place = np.floor(wanted * (rankdata(risks) - 0.5) / len(risks)).astype(np.intp)
    return [_bin(labels[place == n], risks[place == n]) for n in np.unique(place)]


def _bin(labels: Labels, risks: Floats) -> CalibrationBin:
    count, positives = len(labels), int(labels.sum())
    observed = wilson(positives, count)
    return CalibrationBin(count, positives, float(risks.min()), float(risks.max()), float(risks.mean()), observed)


def _logits(probabilities: Floats) -> Floats:
    result: Floats = logit(np.clip(probabilities, CLIP, 1 - CLIP))
    return result


def _fit_lines(labels: Labels, x: Floats, weights: Floats) -> Floats:
    """(R, 2): intercept and slope of the logistic regression of the labels on x (N,) in each resample."""
    drawn = weights > 0
    positive, negative = drawn & labels, drawn & ~labels
    lowest = [np.where(kind, x, np.inf).min(axis=1) for kind in (positive, negative)]
    highest = [np.where(kind, x, -np.inf).max(axis=1) for kind in (positive, negative)]
    # Also where they touch in one value the likelihood rises for ever.
    upward, downward = lowest[0] >= highest[1], highest[0] <= lowest[1]
    solvable = ~(upward | downward)
    result = np.full((len(weights), 2), np.nan)
    result[upward & ~downward, 1], result[downward & ~upward, 1] = np.inf, -np.inf
    if solvable.any():
        middle, scale = x.mean(), x.std()
        design = np.stack([np.ones(len(x)), (x - middle) / scale], axis=1)
        fitted = _maximise(_Regression(design, np.zeros(len(x)), labels), weights[solvable])
        slope = fitted[:, 1] / scale
        result[solvable] = np.stack([fitted[:, 0] - slope * middle, slope], axis=1)
    return result


@dataclass(frozen=True)
class _Regression:
    """A logistic regression: design (N, P), offset (N,) of the linear predictor, labels (N,)."""

    design: Floats
    offset: Floats
    labels: Labels

    def predictor(self, coefficients: Floats) -> Floats:
        """(R, P) → (R, N)."""
        result: Floats = coefficients @ self.design.T + self.offset
        return result

    def log_likelihood(self, coefficients: Floats, weights: Floats) -> Floats:
        """(R,)."""
        agreeing = np.where(self.labels, 1.0, -1.0) * self.predictor(coefficients)
        result: Floats = -(weights * np.logaddexp(0.0, -agreeing)).sum(axis=1)
        return result

    def step(self, coefficients: Floats, weights: Floats) -> Floats:
        """Newton's step (R, P)."""
        size = self.design.shape[1]
        expected = expit(self.predictor(coefficients))
        gradient = (weights * (self.labels - expected)) @ self.design
        products = (self.design[:, :, None] * self.design[:, None, :]).reshape(-1, size**2)
        curvature = ((weights * expected * (1 - expected)) @ products).reshape(-1, size, size)
        # A trace of ridge keeps the step finite where every expectation is 0 or 1.
        step: Floats = np.linalg.solve(curvature + 1e-12 * np.eye(size), gradient[..., None])[..., 0]
        return step


def _maximise(regression: _Regression, weights: Floats) -> Floats:
    """(R, P): the coefficients of greatest likelihood in each resample, by Newton's method with halved steps."""
    found = np.zeros((len(weights), regression.design.shape[1]))
    best = regression.log_likelihood(found, weights)
    rows = np.arange(len(weights))  # those still on their way
    for _ in range(_STEPS):
        step = regression.step(found[rows], weights[rows])
        gained = np.zeros(len(rows))
        for _ in range(_HALVINGS):
            value = regression.log_likelihood(found[rows] + step, weights[rows])
            gained = value - best[rows]
            overshot = gained < -_ROUNDING * (1 + np.abs(best[rows]))
            if not overshot.any():
                break
            step[overshot] /= 2
        found[rows] += step
        best[rows] += gained
        # Steps shrink quadratically: after one this small the next is below rounding.
        rows = rows[np.abs(step).max(axis=1) > _SMALLEST_STEP]
        if not len(rows):
            break
    return found
