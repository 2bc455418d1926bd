"""How well risks foretell: which exams have a label, discrimination, calibration, thresholds, with intervals. No torch."""

from __future__ import annotations

from HCCNetLib.evaluation.bootstrap import COMPARED, RESAMPLES, paired_difference
from HCCNetLib.evaluation.calibration import (
    brier,
    calibration_bins,
    calibration_intercept,
    calibration_slope,
    fit_recalibration,
    recalibrate,
)
from HCCNetLib.evaluation.discrimination import auroc, average_precision, pr_points, roc_points
from HCCNetLib.evaluation.evaluation import Evaluation, evaluate
from HCCNetLib.evaluation.intervals import Interval, wilson
from HCCNetLib.evaluation.landmarks import Landmarks, find_landmarks
from HCCNetLib.evaluation.scores import Scores, check_classes
from HCCNetLib.evaluation.thresholds import at_thresholds, choose_thresholds

__all__ = [
    "COMPARED",
    "RESAMPLES",
    "Evaluation",
    "Interval",
    "Landmarks",
    "Scores",
    "at_thresholds",
    "auroc",
    "average_precision",
    "brier",
    "calibration_bins",
    "calibration_intercept",
    "calibration_slope",
    "check_classes",
    "choose_thresholds",
    "evaluate",
    "find_landmarks",
    "fit_recalibration",
    "paired_difference",
    "pr_points",
    "recalibrate",
    "roc_points",
    "wilson",
]
