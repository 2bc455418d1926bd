"""Whether a risk of 20% means that 20 of 100 fall ill, and how to make it so.

Slope and intercept follow Van Calster et al., J Clin Epidemiol 2016;74:167: the slope is that of a logistic regression of
the label on logit(p); the intercept is that of one whose slope is held at 1 (calibration in the large). 1 and 0 are ideal; a
slope below 1 means risks too extreme, an intercept below 0 risks too high. Probabilities are kept within 1e-6 of 0 and 1
where their logit is taken, or a single certain mistake would outweigh all others.

Measures ``…_resampled`` take weights (R, N), how much each patient or landmark counts in each of R resamples (IPCW included,
``follow_up``), and return (R,).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import expit, logit

from HCCNetLib.evaluation.scores import Floats, Labels, check_classes
from HCCNetLib.records import Refusal

CLIP = 1e-6

_STEPS = 100
_HALVINGS = 30
_SMALLEST_STEP = 1e-5
_ROUNDING = 1e-12
_SPAN = 0.75


def brier_resampled(labels: Labels, risks: Floats, weights: Floats) -> Floats:
    """Brier score of each resample."""
    with np.errstate(invalid="ignore"):
        result: Floats = weights @ (risks - labels) ** 2 / weights.sum(axis=1)
    return result


def slope_resampled(labels: Labels, risks: Floats, weights: Floats) -> Floats:
    """Calibration slope of each resample; ±∞ where it separates the classes, NaN where its risks are all equal."""
    return _fit_lines(labels, _logits(risks), weights)[:, 1]


def intercept_resampled(labels: Labels, risks: Floats, weights: Floats) -> Floats:
    """Calibration in the large of each resample; ±∞ where it has one class only, NaN where it is empty."""
    positive, negative = ((weights[:, kind] > 0).any(axis=1) for kind in (labels, ~labels))
    solvable = positive & negative
    result = np.select([positive & ~negative, negative & ~positive], [np.inf, -np.inf], np.nan)
    if solvable.any():
        regression = _Regression(np.ones((len(labels), 1)), _logits(risks), labels)
        result[solvable] = _maximise(regression, weights[solvable])[:, 0]
    return result


def smoothed_resampled(labels: Labels, risks: Floats, weights: Floats, grid: Floats) -> Floats:
    """(R, K): share of the positives around each of K risks ``grid`` by local logistic regression.

    The regression is on logit(p), as in the slope, with tricube weights over the nearest three quarters, the usual span of
    loess (Austin and Steyerberg, Stat Med 2014;33:517). The first resample is fitted; the others take one step of Newton's
    from it, which is enough near it: leave out few, as the jackknife does. NaN where the classes are separated around.
    """
    x, places = _logits(risks), _logits(grid)
    return np.stack([_smoothed_at(labels, x - place, weights) for place in places], axis=1)


def _smoothed_at(labels: Labels, x: Floats, weights: Floats) -> Floats:
    distance = np.abs(x)
    order = np.argsort(distance)
    within = np.cumsum(weights[0, order])
    width = distance[order][np.searchsorted(within, _SPAN * within[-1])] + CLIP
    near = np.flatnonzero(distance < width)
    x, labels = x[near], labels[near]
    local = weights[:, near] * (1 - (distance[near] / width) ** 3) ** 3
    line = _fit_lines(labels, x, local[:1])
    if not np.isfinite(line).all():
        return np.full(len(weights), np.nan)
    regression = _Regression(np.stack([np.ones(len(x)), x], axis=1), np.zeros(len(x)), labels)
    result: Floats = expit(line[0, 0] + regression.step(line, local)[:, 0])
    return result


def fit_recalibration(probabilities: Floats, labels: Labels, weights: Floats | None = None) -> tuple[float, float]:
    """Slope and intercept of sigmoid(slope · logit(p) + intercept) by maximum likelihood, both free.

    Args:
        probabilities: (N,) 0–1, of landmarks of patients that the networks were not trained on.
        labels: (N,).
        weights: (N,) how much each counts, above 0; None: all alike.

    Raises:
        Refusal: ``one_class``; ``separated``: the likelihood has no maximum; ``wrong_direction``: a higher output does
            not mean a higher risk.
    """
    check_classes(labels)
    intercept, slope = _fit_lines(
        labels, _logits(probabilities), np.ones((1, len(labels))) if weights is None else weights[None]
    )[0]
    if slope == np.inf:
        message = (
            "The calibration can't be fitted: every positive exam's output is at least as high as every negative's, so "
            "that no finite slope is the best. Use more patients."
        )
        raise Refusal("separated", message)
    if not slope > 0:  # NaN too: all outputs are equal
        message = (
            "The calibration was not fitted: a higher output does not mean a higher risk on these patients. Check the "
            "labels and the training."
        )
        raise Refusal("wrong_direction", message)
    return float(slope), float(intercept)


def _logits(probabilities: Floats) -> Floats:
    result: Floats = logit(np.clip(probabilities, CLIP, 1 - CLIP))
    return result


def _fit_lines(labels: Labels, x: Floats, weights: Floats) -> Floats:
    """(R, 2): intercept and slope of the logistic regression of the labels on x (N,) in each resample."""
    drawn = weights > 0
    positive, negative = drawn & labels, drawn & ~labels
    lowest = [np.where(kind, x, np.inf).min(axis=1, initial=np.inf) for kind in (positive, negative)]
    highest = [np.where(kind, x, -np.inf).max(axis=1, initial=-np.inf) for kind in (positive, negative)]
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
    """(R, P): the coefficients of greatest likelihood in each resample, by Newton's method with halved steps.

    All resamples start from the greatest likelihood of their mean weights, which is near.
    """
    size = regression.design.shape[1]
    start = _ascend(regression, weights.mean(axis=0, keepdims=True), np.zeros((1, size)))
    return _ascend(regression, weights, np.repeat(start, len(weights), axis=0))


def _ascend(regression: _Regression, weights: Floats, found: Floats) -> Floats:
    """(R, P): Newton's method from ``found``."""
    rows = np.arange(len(weights))  # those still on their way
    reach = np.abs(regression.design).max(axis=0)
    for _ in range(_STEPS):
        part = weights if len(rows) == len(weights) else weights[rows]
        step = regression.step(found[rows], part)
        # A step that changes no log odds by more than 1 always gains: the curvature changes by less than a factor of e.
        far = np.abs(step) @ reach > 1
        if far.any():
            step[far] = _halve(regression, found[rows[far]], step[far], part[far])
        found[rows] += step
        # Steps shrink quadratically: after one this small the next is below rounding.
        rows = rows[np.abs(step).max(axis=1) > _SMALLEST_STEP]
        if not len(rows):
            break
    return found


def _halve(regression: _Regression, start: Floats, step: Floats, weights: Floats) -> Floats:
    """Steps (R, P) as long as they don't lose likelihood."""
    before = regression.log_likelihood(start, weights)
    for _ in range(_HALVINGS):
        overshot = regression.log_likelihood(start + step, weights) - before < -_ROUNDING * (1 + np.abs(before))
        if not overshot.any():
            break
        step[overshot] /= 2
    return step
