"""Whether acting on a risk does more good than treating all patients, or none."""

from __future__ import annotations

import numpy as np

from HCCNetLib.evaluation.scores import Floats, Labels


def net_benefit_resampled(labels: Labels, risks: Floats, thresholds: Floats, weights: Floats) -> Floats:
    """(R, K): share of true positives − share of false positives × t / (1 − t) for those with a risk of at least t.

    Vickers and Elkin, Med Decis Making 2006;26:565. Treating no one has 0.

    Args:
        labels: (N,).
        risks: (N,) calibrated.
        thresholds: (K,) within 0–1, neither of them.
        weights: (R, N), IPCW included.
    """
    gains = np.where(labels[:, None], 1.0, -thresholds / (1 - thresholds))
    called = risks[:, None] >= thresholds
    result: Floats = weights @ (gains * called) / weights.sum(axis=1, keepdims=True)
    return result
