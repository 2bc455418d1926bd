"""Operating thresholds: chosen on development data, judged on other data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from HCCNetLib.evaluation.follow_up import Censoring, FollowUp, Integers, weights_at
from HCCNetLib.evaluation.intervals import Interval
from HCCNetLib.evaluation.replicates import jackknife_weights, share_interval
from HCCNetLib.evaluation.scores import Floats, Labels, check_classes
from HCCNetLib.records import Refusal

TARGET = 0.90


def choose_thresholds(risks: Floats, labels: Labels, weights: Floats | None = None) -> list[dict[str, Any]]:
    """Three thresholds; a landmark whose risk is at least the threshold is called positive.

    They lie halfway between two neighbouring risks, so that no call hangs on the last digit.

    Args:
        risks: (N,) calibrated, of development data: never of the data that the thresholds are judged on.
        labels: (N,).
        weights: (N,) how much each counts; None: all alike.

    Returns:
        For a sensitivity of 0.90 the highest threshold that reaches it, for a specificity of 0.90 the lowest one, and
        Youden's with the greatest sum of both: ``name``, ``threshold``, ``sensitivity``, ``specificity``, ``chosen_for``.

    Raises:
        Refusal: there is one class only.
    """
    check_classes(labels)
    weights = np.ones(len(risks)) if weights is None else weights
    values = np.unique(risks)
    candidates = _candidates(values)
    sensitivity = 1 - _weight_below(candidates, risks[labels], weights[labels])
    specificity = _weight_below(candidates, risks[~labels], weights[~labels])
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


def _weight_below(candidates: Floats, risks: Floats, weights: Floats) -> Floats:
    """Share of the weight at risks below each candidate."""
    order = np.argsort(risks)
    below = np.concatenate([[0.0], np.cumsum(weights[order])])
    result: Floats = below[np.searchsorted(risks[order], candidates, side="left")] / below[-1]
    return result


def at_thresholds(
    follow_up: FollowUp, risks: Floats, horizon: float, thresholds: Sequence[Mapping[str, Any]], seed: int = 0
) -> list[dict[str, Any]]:
    """How given thresholds do at a horizon, by IPCW.

    Args:
        follow_up: N landmarks.
        risks: (N,).
        horizon: months.
        thresholds: each with ``name``, ``threshold`` and perhaps ``chosen_for``, as in a bundle.
        seed: of the intervals.

    Returns:
        Per threshold: sensitivity, specificity, positive and negative predictive value with intervals, and the four counts
        of landmarks whose outcome is known.

    Raises:
        Refusal: ``bad_threshold``: a threshold has no name or is no number from 0 to 1.
    """
    checked = [checked_threshold(entry) for entry in thresholds]
    weights = jackknife_weights(follow_up.patients, np.ones(len(follow_up)), seed)
    ipcw = weights_at(follow_up, horizon, weights, Censoring(follow_up, weights))
    known, cases = follow_up.known(horizon), follow_up.cases(horizon)
    return [
        {"name": name, "threshold": threshold, "chosen_for": chosen_for}
        | _shares(follow_up.patients, risks >= threshold, cases, ipcw)
        | _four_counts((risks >= threshold)[known], cases[known])
        for name, threshold, chosen_for in checked
    ]


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


def _shares(patients: Integers, called: Labels, cases: Labels, weights: Floats) -> dict[str, Any]:
    """Each share is that of a set of landmarks within another; its interval knows how many patients the other has."""
    shares = {
        "sensitivity": (called & cases, cases),
        "specificity": (~called & ~cases, ~cases),
        "ppv": (called & cases, called),
        "npv": (~called & ~cases, ~called),
    }
    found = {}
    for name, (part, whole) in shares.items():
        counted = whole & (weights[0] > 0)
        with np.errstate(invalid="ignore"):
            values = (weights @ part) / (weights @ whole)
        known = (
            share_interval(values, len(np.unique(patients[counted]))) if counted.any() else Interval(None, None, None)
        )
        found[name] = known.to_dict()
    return found


def _four_counts(called: Labels, cases: Labels) -> dict[str, int]:
    return {
        "true_positives": int((called & cases).sum()),
        "false_positives": int((called & ~cases).sum()),
        "false_negatives": int((~called & cases).sum()),
        "true_negatives": int((~called & ~cases).sum()),
    }


def _candidates(values: Floats) -> Floats:
    """Ascending: everybody positive, halfway between neighbours, nobody positive."""
    middle = (values[:-1] + values[1:]) / 2
    # Between two neighbouring floats there is nothing: the half would fall on the lower one and call it positive.
    middle = np.where(middle > values[:-1], middle, values[1:])
    top = (values[-1] + 1) / 2
    return np.concatenate([values[:1], middle, [top if top > values[-1] else np.nextafter(values[-1], 2)]])
