"""What became of patients after their landmarks, and how the landmarks whose outcome is known stand for those censored.

A *case* at a horizon has the diagnosis within it. Who has a competing event (death, transplant) within it instead is a control:
the outcome is known, "not diagnosed by then" (Blanche et al., Stat Med 2013;32:5381, second definition). The observed risk
is then the cumulative incidence. Who is censored before the horizon is neither; a landmark that is followed for just the
horizon is a control.

Inverse probability of censoring weighting (IPCW; Graf et al., Stat Med 1999;18:2529) gives landmark i at horizon h the weight
1/G(min(Tᵢ, h)−) if its outcome is known, else 0. T is the end of its follow-up and G(t−) the probability to be uncensored
just before t, by Kaplan and Meier; a diagnosis comes before a censoring at the same time. These weights sum to the number of
landmarks, and the share of the cases under them is exactly the estimate of Aalen and Johansen (Satten and Datta, Am Stat
2001;55:207).

Weights (R, N) are of R replicates of a set of N landmarks; G is estimated again in each of them.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from HCCNetLib.evaluation.scores import Floats, Labels
from HCCNetLib.records import Outcome, months_between

CENSORED, DIAGNOSED, COMPETING = 0, 1, 2

Integers = NDArray[np.int64]


@dataclass(frozen=True)
class FollowUp:
    """One row per landmark.

    Args:
        patients: (N,) whose landmark it is.
        numbers: (N,) 1 for the patient's first landmark, 2 for the second, …
        months: (N,) from the landmark to the end of its follow-up, at least 0.
        status: (N,) how it ended: ``CENSORED``, ``DIAGNOSED`` or ``COMPETING``.

    Raises:
        ValueError: lengths differ, a time is negative or not finite, or a status is none of the three.
    """

    patients: Integers
    numbers: Integers
    months: Floats
    status: Integers

    def __post_init__(self) -> None:
        shapes = {values.shape for values in vars(self).values()}
        if shapes != {(len(self.patients),)}:
            raise ValueError(f"patients, numbers, months and status must be one per landmark, got {shapes}")
        if not (np.isfinite(self.months).all() and (self.months >= 0).all()):
            raise ValueError("months must be at least 0 and finite")
        if not np.isin(self.status, (CENSORED, DIAGNOSED, COMPETING)).all():
            raise ValueError("status must be 0 (censored), 1 (diagnosed) or 2 (competing event)")

    @classmethod
    def joined(cls, parts: Sequence[FollowUp]) -> FollowUp:
        """The rows of all, one after the other."""
        return cls(*(np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(cls)))

    def __len__(self) -> int:
        return len(self.patients)

    def of(self, rows: NDArray[np.bool_] | NDArray[np.intp]) -> FollowUp:
        """The given rows."""
        return FollowUp(self.patients[rows], self.numbers[rows], self.months[rows], self.status[rows])

    def weights_by_patient(self) -> Floats:
        """(N,): 1 / how many of the rows are the patient's, so that each patient counts once; mind ``horizons``."""
        _, place, counts = np.unique(self.patients, return_inverse=True, return_counts=True)
        result: Floats = 1.0 / counts[place]
        return result

    def cases(self, horizon: float) -> Labels:
        """(N,): diagnosed within ``horizon`` months."""
        result: Labels = (self.status == DIAGNOSED) & (self.months <= horizon)
        return result

    def known(self, horizon: float) -> Labels:
        """(N,): a case or a control at ``horizon`` months, not censored before."""
        result: Labels = (self.months >= horizon) | (self.status != CENSORED)
        return result


def follow_up_of(patients: Iterable[tuple[Sequence[datetime.date], Outcome]]) -> FollowUp:
    """One row per exam, patients one after the other.

    Args:
        patients: dates of the exams, oldest first, all before the patient's event; and what became of the patient.
    """
    rows = [
        (n, number, months_between(date, outcome.followed_until), _status(outcome))
        for n, (dates, outcome) in enumerate(patients)
        for number, date in enumerate(dates, start=1)
    ]
    table = np.array(rows, dtype=np.float64).reshape(-1, 4)
    patient, numbers, status = (table[:, column].astype(np.int64) for column in (0, 1, 3))
    return FollowUp(patient, numbers, table[:, 2], status)


def _status(outcome: Outcome) -> int:
    if outcome.diagnosis_date is not None:
        return DIAGNOSED
    return COMPETING if outcome.ended_by_competing else CENSORED


class Censoring:
    """Kaplan and Meier's estimate of the distribution of the censoring in each replicate.

    Args:
        follow_up: N landmarks.
        weights: (R, N).
    """

    def __init__(self, follow_up: FollowUp, weights: Floats):
        censored = follow_up.status == CENSORED
        order = np.lexsort((censored, follow_up.months))  # a censoring after the events of the same time
        self._remaining = np.zeros((len(weights), len(order) + 1))
        np.cumsum(weights[:, order[::-1]], axis=1, out=self._remaining[:, -2::-1])
        # Of several censorings at a time each leaves its share of what the one before left: the product is theirs together.
        now, after = self._remaining[:, :-1], self._remaining[:, 1:]
        factors = np.ones_like(self._remaining)
        np.divide(after, now, out=factors[:, 1:], where=censored[order] & (now > 0))
        self._times = follow_up.months[order]
        self._ends = [np.sort(follow_up.months[kind]) for kind in (~censored, censored)]
        self._uncensored = np.cumprod(factors, axis=1, out=factors)

    def uncensored_before(self, months: Floats) -> Floats:
        """(R, M): G(t−) at each of M times."""
        result: Floats = self._uncensored[:, np.searchsorted(self._times, months, side="left")]
        return result

    def without_event(self, months: Floats) -> Floats:
        """(R, M): the weight of those still followed, without an event, at each of M times."""
        events, censorings = self._ends
        gone = np.searchsorted(events, months, side="right") + np.searchsorted(censorings, months, side="left")
        result: Floats = self._remaining[:, gone]
        return result


def weights_at(follow_up: FollowUp, horizon: float, weights: Floats, censoring: Censoring) -> Floats:
    """(R, N): ``weights`` times IPCW at the horizon; NaN in a replicate in which no landmark is followed so far."""
    uncensored = censoring.uncensored_before(np.minimum(follow_up.months, horizon))
    known = follow_up.known(horizon)
    result = np.divide(weights, uncensored, out=np.zeros_like(weights), where=known & (uncensored > 0))
    result[censoring.uncensored_before(np.array([horizon]))[:, 0] <= 0] = np.nan
    return result


def cumulative_incidence(follow_up: FollowUp, times: Floats, weights: Floats) -> Floats:
    """(R, M): Aalen and Johansen's estimate of the risk of a diagnosis within each of M times, months."""
    censoring = Censoring(follow_up, weights)
    each = [weights_at(follow_up, time, weights, censoring) @ follow_up.cases(time) for time in times]
    result: Floats = np.stack(each, axis=1) / weights.sum(axis=1, keepdims=True)
    return result
