"""aMAP, a clinical score of the risk of hepatocellular carcinoma in chronic liver disease: the baseline without images."""

from __future__ import annotations

import numpy as np

from HCCNetLib.evaluation.scores import Floats, Labels


def amap(age: Floats, male: Labels | Floats, albumin: Floats, bilirubin: Floats, platelets: Floats) -> Floats:
    """The score, 0–100; from 60 on the risk is high, below 50 low. NaN where a value is.

    Fan et al., J Hepatol 2020;73:1368: (0.06 age + 0.89 male + 0.48 (0.66 log₁₀ bilirubin − 0.085 albumin) − 0.01 platelets
    + 7.4) / 14.77 · 100.

    Args:
        age: years.
        male: 1 for men, 0 for women.
        albumin: g/l.
        bilirubin: µmol/l.
        platelets: 10⁹/l.

    Example:
        >>> round(float(amap(60.0, 1.0, 40.0, 15.0, 150.0)), 1)
        61.8
    """
    albi = 0.66 * np.log10(bilirubin) - 0.085 * albumin
    score = (0.06 * age + 0.89 * np.asarray(male, dtype=np.float64) + 0.48 * albi - 0.01 * platelets + 7.4) / 14.77
    result: Floats = np.clip(100 * score, 0, 100)
    return result
