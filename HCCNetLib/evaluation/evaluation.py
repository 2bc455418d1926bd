"""All figures of one bundle on one cohort."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from HCCNetLib.evaluation.bootstrap import RESAMPLES, resample
from HCCNetLib.evaluation.calibration import (
    CalibrationBin,
    brier_resampled,
    calibration_bins,
    intercept_resampled,
    slope_resampled,
)
from HCCNetLib.evaluation.discrimination import auroc_resampled, average_precision_resampled, pr_points, roc_points
from HCCNetLib.evaluation.intervals import Interval, percentile_interval
from HCCNetLib.evaluation.scores import Floats, Scores
from HCCNetLib.evaluation.thresholds import at_thresholds
from HCCNetLib.records import Problem

METHOD = "95% percentile bootstrap over patients, drawn within each class; of proportions, Wilson's 95% interval"

_HISTOGRAM_BINS = 100
_FEW, _MANY = 10, 100


@dataclass(frozen=True)
class MemberFigures:
    """The members one by one, on raw outputs.

    Args:
        aurocs: one per member.
        mean: of the members' AUROCs.
        ensemble_above_mean: the ensemble's AUROC minus that mean.
    """

    aurocs: tuple[Interval, ...]
    mean: Interval
    ensemble_above_mean: Interval

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "auroc": [interval.to_dict() for interval in self.aurocs],
            "mean_auroc": self.mean.to_dict(),
            "ensemble_above_mean": self.ensemble_above_mean.to_dict(),
        }


@dataclass(frozen=True)
class Evaluation:
    """Figures with 95% intervals.

    Args:
        patients: evaluated.
        positives: among them.
        auroc: of the ensemble's risk.
        auprc: average precision; chance is the prevalence.
        brier: of the calibrated risk.
        brier_of_prevalence: had everybody been given the prevalence as risk.
        calibration_intercept: in the large; 0 is ideal.
        calibration_slope: 1 is ideal.
        members: None where there is one network or none was given.
        thresholds: as of ``at_thresholds``.
        roc: (K, 2) false and true positive rate.
        pr: (K, 2) recall and precision.
        bins: of the calibration curve.
        histogram: counts of risks by class, in 100 bins of a percentage point.
        warnings: what limits the figures.
        resamples: of the bootstrap.
        seed: of the bootstrap.
    """

    patients: int
    positives: int
    auroc: Interval
    auprc: Interval
    brier: Interval
    brier_of_prevalence: float
    calibration_intercept: Interval
    calibration_slope: Interval
    members: MemberFigures | None
    thresholds: tuple[Mapping[str, Any], ...]
    roc: Floats
    pr: Floats
    bins: tuple[CalibrationBin, ...]
    histogram: Mapping[str, Sequence[int]]
    warnings: tuple[Problem, ...]
    resamples: int
    seed: int

    def to_dict(self) -> dict[str, Any]:
        """As plain data for JSON; None where the data do not determine a figure."""
        return {
            "patients": self.patients,
            "positive": self.positives,
            "negative": self.patients - self.positives,
            "prevalence": self.positives / self.patients,
            "auroc": self.auroc.to_dict(),
            "auprc": self.auprc.to_dict(),
            "brier": self.brier.to_dict(),
            "brier_of_prevalence": self.brier_of_prevalence,
            "calibration_intercept": self.calibration_intercept.to_dict(),
            "calibration_slope": self.calibration_slope.to_dict(),
            "members": None if self.members is None else self.members.to_dict(),
            "thresholds": [dict(threshold) for threshold in self.thresholds],
            "curves": {
                "roc": self.roc.tolist(),
                "pr": self.pr.tolist(),
                "calibration": [one.to_dict() for one in self.bins],
                "histogram": {kind: list(counts) for kind, counts in self.histogram.items()},
            },
            "warnings": [{"code": p.code, "message": p.message} for p in self.warnings],
            "intervals": {"method": METHOD, "resamples": self.resamples, "seed": self.seed},
        }


def evaluate(
    scores: Scores, thresholds: Sequence[Mapping[str, Any]] = (), resamples: int = RESAMPLES, seed: int = 0
) -> Evaluation:
    """Judges risks.

    Args:
        scores: one landmark per patient.
        thresholds: chosen on other data.
        resamples: of the bootstrap.
        seed: of the bootstrap.

    Raises:
        Refusal: a threshold can't be used.
    """
    judged = at_thresholds(scores, thresholds)
    values = resample(scores.labels, lambda weights: _figures(scores, weights), resamples, seed)
    auroc, auprc, brier, intercept, slope = (percentile_interval(values[:, n]) for n in range(5))
    prevalence = scores.prevalence
    return Evaluation(
        patients=len(scores.labels),
        positives=scores.positives,
        auroc=auroc,
        auprc=auprc,
        brier=brier,
        brier_of_prevalence=prevalence * (1 - prevalence),
        calibration_intercept=intercept,
        calibration_slope=slope,
        members=_members(values[:, 0], values[:, 5:]),
        thresholds=tuple(judged),
        roc=roc_points(scores.labels, scores.risks),
        pr=pr_points(scores.labels, scores.risks),
        bins=tuple(calibration_bins(scores.labels, scores.risks)),
        histogram=_histogram(scores),
        warnings=tuple(_warnings(scores, auroc, slope)),
        resamples=resamples,
        seed=seed,
    )


def _figures(scores: Scores, weights: Floats) -> Floats:
    """(R, 5 + M): AUROC, average precision, Brier, calibration intercept and slope, each member's AUROC."""
    metrics = (auroc_resampled, average_precision_resampled, brier_resampled, intercept_resampled, slope_resampled)
    figures = [metric(scores.labels, scores.risks, weights) for metric in metrics]
    if scores.members is not None and scores.members.shape[1] > 1:
        figures += [auroc_resampled(scores.labels, member, weights) for member in scores.members.T]
    return np.stack(figures, axis=1)


def _members(ensemble: Floats, members: Floats) -> MemberFigures | None:
    """From (R,) and (R, M) resampled AUROCs."""
    if not members.shape[1]:
        return None
    mean = members.mean(axis=1)
    aurocs = tuple(percentile_interval(member) for member in members.T)
    return MemberFigures(aurocs, percentile_interval(mean), percentile_interval(ensemble - mean))


def _histogram(scores: Scores) -> dict[str, list[int]]:
    edges = np.linspace(0, 1, _HISTOGRAM_BINS + 1)
    kinds = {"positive": scores.labels, "negative": ~scores.labels}
    return {name: np.histogram(scores.risks[kind], edges)[0].tolist() for name, kind in kinds.items()}


def _warnings(scores: Scores, auroc: Interval, slope: Interval) -> list[Problem]:
    """What limits the figures, most serious first."""
    positives, negatives = scores.positives, len(scores.labels) - scores.positives
    fewer, kind = min((positives, "positive"), (negatives, "negative"))
    warnings = []
    if fewer < _FEW:
        message = (
            f"There are only {fewer} {kind} patient(s): the intervals are wide, and intervals from so few patients are "
            f"still narrower than the truth. Draw no conclusion from these figures."
        )
        warnings.append(Problem("very_few_patients", message))
    elif fewer < _MANY:
        message = (
            f"There are {fewer} {kind} patients. Calibration can be judged from about 100 positives and 100 negatives "
            f"on (Collins et al., Stat Med 2016;35:214); below that, read it with its interval."
        )
        warnings.append(Problem("few_patients", message))
    if auroc.value in (0.0, 1.0):
        message = (
            "The risks separate the two classes without exception: the bootstrap interval of the AUROC has no width, "
            "which understates what is not known."
        )
        warnings.append(Problem("separated", message))
    if slope.value is None:
        message = "The calibration slope is not determined: the risks separate the classes, or are all equal."
        warnings.append(Problem("slope_not_determined", message))
    return warnings
