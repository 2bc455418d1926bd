"""What follow-up says about the hazard of each interval after a landmark.

Intervals end at the horizons. A landmark is at risk in every interval that the patient completes without an event, in the one
in which the diagnosis falls, and for a share of the one in which the follow-up ends otherwise: without this share only those
diagnosed early would count there, and hazards would be too high. A competing event (death, transplant) ends the follow-up like
any other end: hazards are cause-specific. The likelihood is, nearly, that of a rate that is constant within an interval.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from HCCNetLib.evaluation.follow_up import DIAGNOSED
from HCCNetLib.evaluation.scores import Floats, Labels
from HCCNetLib.records import Refusal


@dataclass(frozen=True)
class Intervals:
    """Outcomes of N landmarks in K intervals.

    Args:
        at_risk: (N, K) 0–1, how much of the interval the landmark is followed; 1 in that of the diagnosis.
        diagnosed: (N, K) whether the diagnosis falls into the interval.
    """

    at_risk: Floats
    diagnosed: Labels

    @classmethod
    def of(cls, months: Floats, status: NDArray[np.int64], horizons: Sequence[float], whole: bool = False) -> Intervals:
        """From the end of follow-up.

        Args:
            months: (N,) from the landmark to the end of its follow-up.
            status: (N,) how it ended, as in ``evaluation.follow_up``.
            horizons: (K,) ends of the intervals, months, ascending.
            whole: count an interval without diagnosis only where it is completed, as published.
        """
        ends, starts, months = np.array(horizons), np.array([0.0, *horizons[:-1]]), months[:, None]
        after_start = months > starts
        after_start[:, 0] = True  # a diagnosis on the landmark's day is in the first interval
        diagnosed = (status == DIAGNOSED)[:, None] & after_start & (months <= ends)
        followed = np.clip((months - starts) / (ends - starts), 0, 1)
        return cls(np.where(diagnosed, 1.0, np.floor(followed) if whole else followed), diagnosed)

    @property
    def informative(self) -> Labels:
        """(N,) whether a landmark is followed at all."""
        result: Labels = self.at_risk.max(axis=1) > 0
        return result

    @property
    def cases(self) -> Labels:
        """(N,) whether a landmark is followed by the diagnosis within the last horizon."""
        result: Labels = self.diagnosed.max(axis=1)
        return result

    @property
    def hazards(self) -> Floats:
        """(K,) diagnoses per landmark at risk in each interval; 0 where none is at risk."""
        result: Floats = self.diagnosed.sum(axis=0) / np.maximum(self.at_risk.sum(axis=0), 1e-9)
        return result

    def require_events(self, months: Floats, horizons: Sequence[float]) -> None:
        """Refuses horizons from which nothing can be learned.

        Args:
            months: (N,) as in ``of``.
            horizons: (K,) as in ``of``.

        Raises:
            Refusal: ``beyond_follow_up`` or ``no_events``, naming the horizon.
        """
        longest = float(months.max())
        beyond = [horizon for horizon in horizons if horizon > longest]
        if beyond:
            message = (
                f"No exam of the cohort is followed for {beyond[0]:g} months; the longest follow-up after an exam is "
                f"{longest:.1f} months. Leave {_listed(beyond)} out of horizons_months."
            )
            raise Refusal("beyond_follow_up", message)
        for start, end, events in zip((0.0, *horizons[:-1]), horizons, self.diagnosed.sum(axis=0), strict=True):
            if not events:
                message = (
                    f"No diagnosis falls between {start:g} and {end:g} months after an exam of the cohort, so that no risk can be "
                    f"learned for this interval. Change horizons_months so that each interval has a diagnosis."
                )
                raise Refusal("no_events", message)


def _listed(months: Sequence[float]) -> str:
    return ", ".join(f"{month:g}" for month in months)
