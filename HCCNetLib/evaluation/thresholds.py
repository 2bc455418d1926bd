"""Operating thresholds: chosen on development data, judged on other data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from HCCNetLib.evaluation.intervals import wilson
from HCCNetLib.evaluation.scores import Floats, Labels, Scores, check_classes
from HCCNetLib.records import Refusal

TARGET = 0.90


def choose_thresholds(risks: Floats, labels: Labels) -> list[dict[str, Any]]:
    """Three thresholds; a patient whose risk is at least the threshold is called positive.

    They lie halfway between two neighbouring risks, so that no patient's call hangs on the last digit.

    Args:
        risks: (N,) calibrated, of development data: never of the data that the thresholds are judged on.
        labels: (N,).

    Returns:
        For a sensitivity of 0.90 the highest threshold that reaches it, for a specificity of 0.90 the lowest one, and
        Youden's with the greatest sum of both: ``name``, ``threshold``, ``sensitivity``, ``specificity``, ``chosen_for``.

    Raises:
        Refusal: there is one class only.
    """
    check_classes(labels)
    values = np.unique(risks)
    candidates = _candidates(values)
    sensitivity = np.array([(risks[labels] >= t).mean() for t in candidates])
    specificity = np.array([(risks[~labels] < t).mean() for t in candidates])
    chosen = (
        ("sensitivity_90", f"sensitivity of at least {TARGET:.0%}", int(np.flatnonzero(sensitivity >= TARGET)[-1])),
        ("specificity_90", f"specificity of at least {TARGET:.0%}", int(np.flatnonzero(specificity >= TARGET)[0])),
        ("youden", "greatest sum of sensitivity and specificity", int(np.argmax(sensitivity + specificity))),
    )
    return [
        {
            "name": name,
            "threshold": float(candidates[n]),
            "sensitivity": float(sensitivity[n]),
            "specificity": float(specificity[n]),
            "chosen_for": reason,
        }
        for name, reason, n in chosen
    ]


def at_thresholds(scores: Scores, thresholds: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """How given thresholds do on these patients.

    Args:
        scores: the patients.
        thresholds: each with ``name``, ``threshold`` and perhaps ``chosen_for``, as in a bundle.

    Returns:
        Per threshold: sensitivity, specificity, positive and negative predictive value, each with Wilson's interval, and
        the four counts.

    Raises:
        Refusal: ``bad_threshold``: a threshold has no name or is no number from 0 to 1.
    """
    return [_at(scores, *checked_threshold(entry)) for entry in thresholds]


def checked_threshold(entry: Mapping[str, Any]) -> tuple[str, float, str]:
    """Name, threshold and reason of a bundle's entry.

    Raises:
        Refusal: ``bad_threshold``.
    """
    name, threshold = entry.get("name"), entry.get("threshold")
    usable = isinstance(threshold, int | float) and not isinstance(threshold, bool) and 0 <= threshold <= 1.0000001
    if not isinstance(name, str) or not usable:
        message = (
            "An operating threshold of the bundle can't be used: it needs a name and a threshold from 0 to 1. Get the "
            "bundle again."
        )
        raise Refusal("bad_threshold", message)
    return name, float(threshold or 0.0), str(entry.get("chosen_for") or "")


def _at(scores: Scores, name: str, threshold: float, chosen_for: str) -> dict[str, Any]:
    called = scores.risks >= threshold
    true = int((called & scores.labels).sum())
    false = int((called & ~scores.labels).sum())
    missed = scores.positives - true
    cleared = len(scores.labels) - true - false - missed
    return {
        "name": name,
        "threshold": threshold,
        "chosen_for": chosen_for,
        "sensitivity": wilson(true, true + missed).to_dict(),
        "specificity": wilson(cleared, cleared + false).to_dict(),
        "ppv": wilson(true, true + false).to_dict(),
        "npv": wilson(cleared, cleared + missed).to_dict(),
        "true_positives": true,
        "false_positives": false,
        "false_negatives": missed,
        "true_negatives": cleared,
    }


def _candidates(values: Floats) -> Floats:
    """Ascending: everybody positive, halfway between neighbours, nobody positive."""
    middle = (values[:-1] + values[1:]) / 2
    # Between two neighbouring floats there is nothing: the half would fall on the lower one and call it positive.
    middle = np.where(middle > values[:-1], middle, values[1:])
    top = (values[-1] + 1) / 2
    return np.concatenate([values[:1], middle, [top if top > values[-1] else np.nextafter(values[-1], 2)]])
