"""Arrays of risks and labels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from HCCNetLib.records import Refusal

Floats = NDArray[np.float64]
Labels = NDArray[np.bool_]


def check_classes(labels: Labels, horizon_months: float | None = None) -> None:
    """Refuses labels that are all alike: nothing can be told apart."""
    count = len(labels)
    if count and labels.any() and not labels.all():
        return
    if not count:
        message = "There is nothing to evaluate: no exam has both a known outcome and a prediction."
        raise Refusal("no_landmark", message)
    share = "All" if labels.all() else "None"
    within = "" if horizon_months is None else f" within the horizon of {horizon_months:g} months"
    message = (
        f"{share} of {count} exam(s) with a known outcome have a diagnosis{within}: both kinds are needed. Use a larger "
        f"cohort."
    )
    raise Refusal("one_class", message)
