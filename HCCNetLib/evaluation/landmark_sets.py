"""Which landmarks a figure is about: all of them, one per patient, a landmark number, a subgroup."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from HCCNetLib.evaluation.follow_up import DIAGNOSED, FollowUp
from HCCNetLib.evaluation.scores import Floats, Labels

EARLY_MONTHS = 3.0
NUMBERS = {"1": (1, 1), "2": (2, 2), "3": (3, 3), "4 or more": (4, np.inf)}
INTERVALS = {"up to 6 months": (0, 6), "6 to 12 months": (6, 12), "more than 12 months": (12, np.inf)}

Rows = NDArray[np.intp]


@dataclass(frozen=True)
class Details:
    """What else is known of N landmarks.

    Args:
        since_last: (N,) months since the exam before; NaN for a patient's first.
        visible: (N,) 1 where a lesion was visible, 0 where not, NaN where not known.
        groups: name of a subgrouping → (N,) its groups, "" where not known.
    """

    since_last: Floats
    visible: Floats
    groups: Mapping[str, NDArray[np.str_]] = field(default_factory=dict)


@dataclass(frozen=True)
class LandmarkSet:
    """A set of landmarks that is judged.

    Args:
        kind: of sets that belong together, e.g. ``landmark number``.
        name: of this one.
        rows: the landmarks at a horizon.
        weights: (N,), or None for each landmark once.
        note: what must be said of it.
    """

    kind: str
    name: str
    rows: Callable[[float], Rows]
    weights: Floats | None = None
    note: str = ""


def landmark_sets(follow_up: FollowUp, details: Details, horizon: float, seed: int) -> Iterator[LandmarkSet]:
    """The headline first, then the others that are not empty.

    Args:
        follow_up: N landmarks, those of a patient in the order of their dates.
        details: of the same.
        horizon: the main one, months.
        seed: of the random choice of a landmark.
    """
    yield _fixed("headline", "every landmark", np.ones(len(follow_up), dtype=np.bool_))
    yield from _choices(follow_up, horizon, seed)
    for name, (low, high) in NUMBERS.items():
        yield _fixed("landmark number", name, (follow_up.numbers >= low) & (follow_up.numbers <= high))
    for name, (low, high) in INTERVALS.items():
        since = details.since_last
        yield _fixed("time since the last exam", name, (since > low) & (since <= high))
    if not np.isnan(details.visible).all():
        yield from _by_lesion(follow_up, details.visible)
    for kind, groups in details.groups.items():
        for name in np.unique(groups[groups != ""]):
            yield _fixed(kind, str(name), groups == name)


def _choices(follow_up: FollowUp, horizon: float, seed: int) -> Iterator[LandmarkSet]:
    """Other answers to the question which exam of a patient is judged."""
    kind = "which landmarks"
    yield _fixed(kind, "each patient's first", follow_up.numbers == 1)
    drawn = np.random.default_rng(seed).permutation(len(follow_up))
    yield _fixed(kind, "one at random", _last_of_each(follow_up, drawn), note="A choice that depends on later exams.")
    yield LandmarkSet(
        kind,
        "weighted by patient",
        lambda _: np.arange(len(follow_up)),
        follow_up.weights_by_patient(),
        "A landmark weighs 1 / the patient's number of landmarks. Patients who are diagnosed soon have few, so this weight "
        "looks into the future: prevalence rises, and even perfect risks seem too low.",
    )
    known = np.flatnonzero(follow_up.known(horizon))
    yield _fixed(
        kind,
        "each patient's latest with a known outcome",
        _last_of_each(follow_up, known),
        note="Positives are judged shortly before the diagnosis, when the tumour is largest: the figures flatter.",
    )
    early = (follow_up.status == DIAGNOSED) & (follow_up.months <= EARLY_MONTHS)
    note = f"Without landmarks that are followed by a diagnosis within {EARLY_MONTHS:g} months."
    yield _fixed(kind, "without early diagnoses", ~early, note=note)


def _last_of_each(follow_up: FollowUp, order: Rows) -> Labels:
    """Of each patient the landmark that comes last in ``order``."""
    chosen = np.zeros(len(follow_up), dtype=np.bool_)
    backwards = order[::-1]
    chosen[backwards[np.unique(follow_up.patients[backwards], return_index=True)[1]]] = True
    return chosen


def _by_lesion(follow_up: FollowUp, visible: Floats) -> Iterator[LandmarkSet]:
    """Cases with and without a visible lesion, each against all controls of the horizon."""
    for name, wanted in (("visible", 1.0), ("future", 0.0)):

        def rows(horizon: float, wanted: float = wanted) -> Rows:
            return np.flatnonzero((visible == wanted) | ~follow_up.cases(horizon))

        note = f"Diagnoses whose tumour {'was' if wanted else 'was not yet'} visible at the landmark, against all controls."
        yield LandmarkSet("tumour at the landmark", name, rows, note=note)


def _fixed(kind: str, name: str, chosen: Labels, note: str = "") -> LandmarkSet:
    rows = np.flatnonzero(chosen)
    return LandmarkSet(kind, name, lambda _: rows, note=note)
