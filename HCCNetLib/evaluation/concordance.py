"""Whether those who are diagnosed earlier have the higher risk, over all of the follow-up up to a time."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from HCCNetLib.evaluation.follow_up import CENSORED, COMPETING, Censoring, FollowUp, Integers
from HCCNetLib.evaluation.risks import Risks
from HCCNetLib.evaluation.scores import Floats

_SINGLE = 1e-6
_PAIRS = 4_000_000  # at once


def concordance_resampled(
    follow_up: FollowUp, risks: Risks, longest: float, weights: Floats, censoring: Censoring
) -> Floats:
    """(R,): the share of pairs in which the landmark with the earlier diagnosis has the higher risk, ties half.

    A pair is a landmark diagnosed within ``longest`` months and one known to be without diagnosis then: followed for
    longer, or with a competing event before, which counts as never diagnosed (Wolbers et al., Biostatistics 2014;15:526).
    Each landmark has its weight by IPCW at the time of the diagnosis, so that most pairs have 1/G(t−)² (Uno et al., Stat
    Med 2011;30:1105). Risks are compared as they are at that time, by the smallest horizon that reaches it (Antolini et
    al., Stat Med 2005;24:3927).

    Args:
        follow_up: N landmarks.
        risks: of the same.
        longest: months.
        weights: (R, N).
        censoring: of the same weights.

    Returns:
        NaN in a replicate without a pair.
    """
    cases = np.flatnonzero(follow_up.cases(longest))
    reached = np.array([risks.ranking_horizon(months) for months in follow_up.months[cases]])
    uncensored = censoring.uncensored_before(follow_up.months)
    weighted = np.divide(weights, uncensored, out=np.zeros_like(weights), where=uncensored > 0)
    of_cases = np.divide(weighted, uncensored, out=np.zeros_like(weights), where=uncensored > 0)
    competing = np.flatnonzero(follow_up.status == COMPETING)
    concordant = np.zeros(len(weights))
    for horizon in np.unique(reached):
        risk = risks.by_horizon[horizon]
        of_horizon = cases[reached == horizon]
        for chunk in np.array_split(of_horizon, len(of_horizon) * len(follow_up) // _PAIRS + 1):
            months, order = follow_up.months[chunk, None], risk[chunk, None]
            lower = (risk < order) + np.float32(0.5) * (risk == order)
            later = (follow_up.months > months) | ((follow_up.months == months) & (follow_up.status == CENSORED))
            before = follow_up.months[competing] <= months
            concordant += _paired(of_cases[:, chunk], lower * later, weights)
            concordant += _paired(weighted[:, chunk], lower[:, competing] * before, weighted[:, competing])
    pairs = (of_cases[:, cases] * censoring.without_event(follow_up.months[cases])).sum(axis=1)
    pairs += (weighted[:, cases] * _sums_until(follow_up, competing, cases, weighted)).sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        result: Floats = concordant / pairs
    whole = np.round(result)  # pairs are summed in single precision; a perfect ranking is perfect
    return np.where(np.abs(result - whole) < _SINGLE, whole, result)


def _paired(first: Floats, pairs: NDArray[np.float32], second: Floats) -> Floats:
    """(R,): Σᵢⱼ first[r, i] · pairs[i, j] · second[r, j]."""
    result: Floats = np.einsum("rj,rj->r", first.astype(np.float32) @ pairs, second)
    return result


def _sums_until(follow_up: FollowUp, rows: Integers, ends: Integers, values: Floats) -> Floats:
    """(R, M): at the end of each of M landmarks ``ends``, the sum of ``values`` (R, N) over ``rows`` that ended by then."""
    order = rows[np.argsort(follow_up.months[rows])]
    sums = np.concatenate([np.zeros((len(values), 1)), np.cumsum(values[:, order], axis=1)], axis=1)
    result: Floats = sums[:, np.searchsorted(follow_up.months[order], follow_up.months[ends], side="right")]
    return result
