"""The true risk of the surveillance process at every exam and horizon: the ceiling for any method.

Two views. *State*: all sizes, growth rates and the threshold are known. What remains are tumours still to come, exams,
chance and death. *Images*: known are each nodule's size with an error, once it is measured as ``SEEN_MM`` or more, and the
dates. Nodules are followed from exam to exam without a mistake, and a tumour looks like a benign nodule.

Both rest on one fact: tumours cross the threshold by a Poisson process, each with an independent doubling time. A tumour
that crosses in ``u`` months has known sizes at all earlier times, and benign nodules form a Poisson process too. Sums over
a grid of crossing times and doubling times, weighted by the likelihood of the measurements, are therefore the posterior
(marking theorem; Kingman, Poisson Processes, 1993, chapter 5). No model is fitted. The grids err by 0.001 on average, and
rarely by 0.05. Future exams and delays are simulated.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr
from scipy.stats import norm

from HCCNetLib.records import months_between
from HCCNetLib.synthetic.randomness import Stream, generator
from HCCNetLib.synthetic.surveillance import SurveillanceCourse, SurveillanceModel, doublings, triangle_wave

Floats = NDArray[np.float64]

SIZE_ERROR = 0.4  # doublings of the volume, SD: about 10% of the diameter
SEEN_MM = 5.0

_STEP = 0.5  # months, up to the last horizon
_LATER_STEPS = 36  # from there to where no tumour has begun yet
_DOUBLING_TIMES = 13
_THRESHOLDS = 10
_BENIGN_RATES = 5  # growing, and as many shrinking
_BENIGN_PHASES = 60
_FUTURES = 4000


@dataclass(frozen=True)
class Measured:
    """What images show up to a landmark.

    Args:
        months: (K,) before the landmark, oldest first; the last one is 0.
        sizes: (nodules, K) measured volumes in doublings of 1 mm³; NaN where a nodule was not seen.
    """

    months: Floats
    sizes: Floats


def measure(course: SurveillanceCourse, exam: int, seed: int, size_error: float = SIZE_ERROR) -> Measured:
    """The exams up to ``exam``, with an error in each size; the same errors for every later landmark."""
    solid = [nodule for nodule in course.nodules if nodule.kind != "cyst"]
    months = np.array([months_between(date, course.dates[exam]) for date in course.dates[: exam + 1]])
    errors = generator(seed, course.index, Stream.MEASUREMENT).standard_normal((len(solid), len(course.dates)))
    true = doublings(np.array([nodule.diameters for nodule in solid]).reshape(errors.shape))
    sizes = (true + size_error * errors)[:, : exam + 1]
    sizes[sizes < doublings(SEEN_MM)] = np.nan
    order = np.argsort(errors[:, 0])  # as good as random: the course lists tumours first
    sizes = sizes[order]
    return Measured(months, sizes[~np.isnan(sizes).all(axis=1)])


@dataclass(frozen=True)
class TrueRisk:
    """The true risk under a model.

    Args:
        model: the process.
        size_error: SD of the measured log2 volume.
    """

    model: SurveillanceModel
    size_error: float = SIZE_ERROR

    def from_state(self, course: SurveillanceCourse, exam: int) -> Floats:
        """Risk (H,) of a diagnosis within each horizon, given the whole state at an exam."""
        top = float(doublings(course.threshold))
        there = [n for n in course.nodules if n.kind == "tumour" and n.diameters[exam] > 0]
        left = [(top - doublings(n.diameters[exam])) / n.doublings_per_month for n in there]
        ends = self._edges[1:]
        not_crossed = (ends < min(left, default=np.inf)).astype(np.float64)
        way = self._doubling * (top - doublings(self.model.onset_mm))
        to_come = self.model.onset_rate * np.clip(ends[:, None] - way, 0, None).mean(axis=1)
        return self._diagnosed(1 - not_crossed * np.exp(-to_come))

    def from_images(self, measured: Measured) -> Floats:
        """Risk (H,) of a diagnosis within each horizon, given measured sizes and dates."""
        volumes = self._volumes_before_crossing(measured.months)
        hidden = self._hidden(volumes)
        weight = self.model.onset_rate * self._widths[:, None] / _DOUBLING_TIMES  # (U, 1) of a tumour per cell
        unseen = (hidden.prod(axis=-1) * weight).sum(axis=-1)  # (T, U)
        tumour = np.stack([*self._each_density(measured, volumes, hidden, weight), np.zeros_like(unseen)])[:-1]
        benign, benign_seen = self._benign(measured)
        shown = weight.sum() * _DOUBLING_TIMES - unseen.sum(axis=-1)  # expected number of tumours that are seen, (T,)
        logs, crossed = [], []
        for share, rate in ((self.model.nodule_fraction, self.model.nodules), (1 - self.model.nodule_fraction, 0.0)):
            total = tumour.sum(axis=-1) + rate * benign[:, None]  # (n, T)
            with np.errstate(divide="ignore"):
                logs.append(np.log(share) - shown - rate * benign_seen + np.log(total).sum(axis=0))
            each = np.cumsum(tumour[..., : self._known], axis=-1) / np.maximum(total, 1e-300)[..., None]
            crossed.append(1 - (1 - each).prod(axis=0) * np.exp(-np.cumsum(unseen[:, : self._known], axis=-1)))
        posterior = np.exp(np.concatenate(logs) - np.max(logs))
        return self._diagnosed(posterior / posterior.sum() @ np.concatenate(crossed))

    def _volumes_before_crossing(self, months: Floats) -> Floats:
        """Volume (T, U, D, K) of a tumour, by threshold, time to the crossing and doubling time; −∞ before its onset."""
        top = doublings(self._thresholds)[:, None, None, None]
        left = self._middles[:, None, None] + months
        volumes = top - left / self._doubling[:, None]
        return np.where(volumes < doublings(self.model.onset_mm), -np.inf, volumes)

    def _hidden(self, volumes: Floats) -> Floats:
        """Chance not to be seen."""
        return np.asarray(ndtr((doublings(SEEN_MM) - volumes) / self.size_error))

    def _likelihood(self, row: Floats, volumes: Floats, hidden: Floats) -> Floats:
        """Of one nodule's measured sizes (K,) given true volumes (..., K)."""
        seen = ~np.isnan(row)
        shown = np.exp(-0.5 * ((row[seen] - volumes[..., seen]) / self.size_error) ** 2)
        return np.asarray(shown.prod(axis=-1) * hidden[..., ~seen].prod(axis=-1))

    def _each_density(self, measured: Measured, volumes: Floats, hidden: Floats, weight: Floats) -> Iterator[Floats]:
        """Per nodule, the intensity (T, U) of tumours with such sizes; without the factor that all nodules share."""
        for row in measured.sizes:
            yield (self._likelihood(row, volumes, hidden) * weight).sum(axis=-1)

    def _benign(self, measured: Measured) -> tuple[Floats, float]:
        """The likelihood (n,) of each nodule's sizes if it is benign, and the chance of a benign nodule to be seen."""
        volumes, weights = self._benign_volumes(measured.months)
        hidden = self._hidden(volumes)
        likelihoods = [self._likelihood(row, volumes, hidden) @ weights for row in measured.sizes]
        return np.array(likelihoods), float((1 - hidden.prod(axis=-1)) @ weights)

    def _benign_volumes(self, months: Floats) -> tuple[Floats, Floats]:
        """Volumes (B, K) of benign nodules, and the share (B,) of each."""
        low, high = doublings(np.array(self.model.nodule_size))
        phases = (np.arange(_BENIGN_PHASES) + 0.5) / _BENIGN_PHASES
        share = (np.arange(_BENIGN_RATES) + 0.5) / _BENIGN_RATES
        up, down = (
            1 / np.exp(np.log(a) + share * np.log(b / a)) for a, b in (self.model.growing, self.model.shrinking)
        )
        u, d, phase = (x.ravel()[:, None] for x in np.meshgrid(up, down, phases, indexing="ij"))
        changing = triangle_wave(-months, phase, u, d, float(low), float(high))
        stable = np.broadcast_to((low + phases * (high - low))[:, None], (len(phases), len(months)))
        shares = (1 - self.model.stable_fraction) / len(changing), self.model.stable_fraction / len(stable)
        return np.concatenate([changing, stable]), np.repeat(shares, (len(changing), len(stable)))

    def _diagnosed(self, crossed: Floats) -> Floats:
        """Risk (H,) from the distribution function (known cells,) of the first crossing."""
        return np.asarray(self._diagnosed_after @ np.diff(crossed, prepend=0.0), dtype=np.float64)

    @property
    def _known(self) -> int:
        return round(max(self.model.horizons) / _STEP)

    @cached_property
    def _edges(self) -> Floats:
        """Of the cells of the time to the crossing, up to the last horizon."""
        return np.arange(self._known + 1, dtype=np.float64) * _STEP

    @cached_property
    def _all_edges(self) -> Floats:
        """Of the cells up to where even the slowest tumour has not begun."""
        way = doublings(self.model.threshold[1]) - doublings(self.model.onset_mm)
        last = max(float(self._doubling[-1] * way), self._edges[-1] + 1)
        return np.concatenate([self._edges, np.linspace(self._edges[-1], last, _LATER_STEPS + 1)[1:]])

    @cached_property
    def _middles(self) -> Floats:
        return np.asarray((self._all_edges[1:] + self._all_edges[:-1]) / 2)

    @cached_property
    def _widths(self) -> Floats:
        return np.diff(self._all_edges)

    @cached_property
    def _doubling(self) -> Floats:
        """Doubling times of equal shares."""
        share = (np.arange(_DOUBLING_TIMES) + 0.5) / _DOUBLING_TIMES
        return np.asarray(self.model.doubling * np.exp(self.model.doubling_sd * norm.ppf(share)))

    @cached_property
    def _thresholds(self) -> Floats:
        low, high = self.model.threshold
        return np.asarray(low + (np.arange(_THRESHOLDS) + 0.5) / _THRESHOLDS * (high - low))

    @cached_property
    def _diagnosed_after(self) -> Floats:
        """Chance (H, cells) of a diagnosis within each horizon, and before death, after a crossing in each cell."""
        rng = np.random.default_rng(0)
        exams = np.cumsum(self.model.draw_gaps(rng, (_FUTURES, 60)), axis=1)
        delay = rng.exponential(self.model.delay, _FUTURES)
        table = np.empty((len(self.model.horizons), self._known))
        for cell, crossing in enumerate(self._middles[: self._known]):
            following = np.where(exams > crossing, exams, np.inf).min(axis=1)
            diagnosed = np.minimum(crossing + delay, following)
            alive = np.exp(-self.model.death_rate * diagnosed)
            table[:, cell] = [np.mean(alive * (diagnosed <= horizon)) for horizon in self.model.horizons]
        return table
