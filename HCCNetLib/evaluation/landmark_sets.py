"""Which landmarks a figure is about: all of them, one per patient, a landmark number, a subgroup."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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
        rows: the landmarks.
        weights: (N,), or None for each landmark once.
        cases: (N,) the cases that are judged, of all landmarks; None for all. Such a set is chosen by its outcomes: it tells how
            well these cases are told apart from all controls, but has no risk of its own.
        horizon: at which alone it is judged, months; None for all.
        note: what must be said of it.
    """

    kind: str
    name: str
    rows: Rows
    weights: Floats | None = None
    cases: Labels | None = None
    horizon: float | None = None
    note: str = ""


def by_number(numbers: NDArray[np.int_]) -> dict[str, Labels]:
    """Landmarks (N,) by their number: a patient's first, second, third, later ones."""
    return {name: (numbers >= low) & (numbers <= high) for name, (low, high) in NUMBERS.items()}


def landmark_sets(follow_up: FollowUp, details: Details, horizon: float, seed: int) -> Iterator[LandmarkSet]:
    """The headline first, then the others that are not empty.

    Args:
        follow_up: N landmarks, those of a patient in the order of their dates.
        details: of the same.
        horizon: the main one, months.
        seed: of the random choice of a landmark.
    """
    everything = np.arange(len(follow_up))
    yield LandmarkSet("headline", "every landmark", everything)
    yield from _choices(follow_up, everything, horizon, seed)
    chosen = [("landmark number", name, among) for name, among in by_number(follow_up.numbers).items()]
    since = details.since_last
    chosen += [
        ("time since the last exam", name, (since > low) & (since <= high)) for name, (low, high) in INTERVALS.items()
    ]
    for kind, groups in details.groups.items():
        chosen += [(kind, str(name), groups == name) for name in np.unique(groups[groups != ""])]
    yield from (LandmarkSet(kind, name, np.flatnonzero(among)) for kind, name, among in chosen if among.any())
    if not np.isnan(details.visible).all():
        for name, wanted, words in (("visible", 1.0, "was"), ("future", 0.0, "was not yet")):
            note = f"Diagnoses whose tumour {words} visible at the landmark, against all controls."
            yield LandmarkSet("tumour at the landmark", name, everything, cases=details.visible == wanted, note=note)


def _choices(follow_up: FollowUp, everything: Rows, horizon: float, seed: int) -> Iterator[LandmarkSet]:
    """Other answers to the question which exam of a patient is judged."""
    kind = "which landmarks"
    yield LandmarkSet(kind, "each patient's first", np.flatnonzero(follow_up.numbers == 1))
    drawn = np.random.default_rng(seed).permutation(len(follow_up))
    note = "The choice depends on later exams: prevalence rises, and even perfect risks seem too low."
    yield LandmarkSet(kind, "one at random", _last_of_each(follow_up, drawn), note=note)
    note = (
        "A landmark weighs 1 / the patient's number of landmarks. Patients who are diagnosed soon have few, so this weight uses "
        "information from the future: prevalence rises, and even perfect risks seem too low."
    )
    yield LandmarkSet(kind, "weighted by patient", everything, follow_up.weights_by_patient(), note=note)
    known = np.flatnonzero(follow_up.known(horizon))
    note = "Positives are judged shortly before the diagnosis, when the tumour is largest: the figures flatter."
    latest = _last_of_each(follow_up, known)
    yield LandmarkSet(kind, "each patient's latest with a known outcome", latest, horizon=horizon, note=note)
    early = (follow_up.status == DIAGNOSED) & (follow_up.months <= EARLY_MONTHS)
    note = f"Without landmarks that are followed by a diagnosis within {EARLY_MONTHS:g} months, against all controls."
    yield LandmarkSet(kind, "without early diagnoses", everything, cases=~early, note=note)


def _last_of_each(follow_up: FollowUp, order: Rows) -> Rows:
    """Of each patient the landmark that comes last in ``order``."""
    backwards = order[::-1]
    chosen: Rows = np.sort(backwards[np.unique(follow_up.patients[backwards], return_index=True)[1]])
    return chosen
