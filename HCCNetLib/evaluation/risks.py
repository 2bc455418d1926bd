"""Risks that a model gives at each landmark, for one horizon or for several."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from HCCNetLib.evaluation.scores import Floats


@dataclass(frozen=True)
class Risks:
    """Risks of N landmarks.

    Args:
        by_horizon: months → (N,) calibrated risk, 0–1, of a diagnosis within them.

    Raises:
        ValueError: there is none, lengths differ, or a risk is not within 0–1.
    """

    by_horizon: Mapping[float, Floats]

    def __post_init__(self) -> None:
        if not self.by_horizon or len({values.shape for values in self.by_horizon.values()}) > 1:
            raise ValueError("risks must be given for one horizon or more, for the same landmarks at each")
        for values in self.by_horizon.values():
            if not ((values >= 0) & (values <= 1)).all():
                raise ValueError("risks must be within 0 and 1")

    @property
    def horizons(self) -> tuple[float, ...]:
        """Months, ascending."""
        return tuple(sorted(self.by_horizon))

    def at(self, horizon: float) -> Floats | None:
        """(N,) the calibrated risk within ``horizon`` months; None where the model gives none for it."""
        return self.by_horizon.get(horizon)

    def ranking_horizon(self, months: float) -> float:
        """The smallest horizon that reaches as far as ``months``, else the largest: the one whose risk ranks there."""
        return next((horizon for horizon in self.horizons if horizon >= months), self.horizons[-1])

    def ranking(self, months: float) -> Floats:
        """(N,) the risk that ranks landmarks by what happens within ``months``; calibrated for ``ranking_horizon``."""
        return self.by_horizon[self.ranking_horizon(months)]

    def of(self, rows: NDArray[np.bool_] | NDArray[np.intp]) -> Risks:
        """The given rows."""
        return Risks({horizon: values[rows] for horizon, values in self.by_horizon.items()})
