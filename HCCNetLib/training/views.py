"""What DINO's views are: crops of one channel of an exam, each drawn for itself.

Place, channel, flips, rotation and intensities are drawn per view, keyed by seed, epoch, exam and the view's number. Two
views that shared a draw would be alike where they should only show the same exam. Crops are cut while the device is busy;
turning and changing intensities is done for all of them at once on the device.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from HCCNetLib.inference.cache import PreparedCache
from HCCNetLib.preprocessing.augmentation import Turn, draw_turn
from HCCNetLib.training.epochs import places_of_step
from HCCNetLib.training.examples import Example
from HCCNetLib.training.settings import BackboneConfig

_ORDER, _VIEW = 1, 2


@dataclass(frozen=True)
class View:
    """One view's draws.

    Args:
        channel: of the exam.
        start: first voxel of the crop along each axis, in the prepared cube with its margin.
        edge: of the crop, voxels.
        turn: flips and rotation.
        scale: of the intensities.
        shift: of the intensities, SD.
    """

    channel: int
    start: tuple[int, int, int]
    edge: int
    turn: Turn
    scale: float
    shift: float


@dataclass(frozen=True)
class ExamViews:
    """An exam and its views, those that the teacher reads first.

    Args:
        example: its patient.
        exam: its number, oldest first.
        views: global, then local.
        key: for stochastic depth.
    """

    example: Example
    exam: int
    views: tuple[View, ...]
    key: int


@dataclass(frozen=True)
class ViewPlan:
    """Draws the views of a step: exams in an order drawn per epoch; a batch may reach into the next epoch.

    Args:
        config: what may be drawn.
        examples: patients, all of whose exams are read.
    """

    config: BackboneConfig
    examples: Sequence[Example]

    @cached_property
    def exams(self) -> list[tuple[Example, int]]:
        """All exams: their patient, and their number, oldest first."""
        return [(example, exam) for example in self.examples for exam in range(len(example.exams))]

    def batch(self, step: int) -> list[ExamViews]:
        """The exams of a step with their views."""
        places = places_of_step(step, self.config.batch, len(self.exams), (self.config.seed, _ORDER))
        return [self.draw(*self.exams[index], epoch=epoch) for index, epoch in places]

    def draw(self, example: Example, exam: int, epoch: int) -> ExamViews:
        """The views of an exam in an epoch."""
        config = self.config
        edges = [config.preparation.crop_voxels] * config.global_views + [config.local_voxels] * config.local_views
        key = [config.seed, _VIEW, epoch, example.number, exam]
        views = tuple(_draw_view(np.random.default_rng([*key, i]), edge, config) for i, edge in enumerate(edges))
        rng = np.random.default_rng([*key, len(edges)])
        return ExamViews(example, exam, views, int(rng.integers(-(2**63), 2**63 - 1)))


def _draw_view(rng: np.random.Generator, edge: int, config: BackboneConfig) -> View:
    room = config.preparation.crop_voxels + 2 * config.jitter - edge
    x, y, z = (int(n) for n in rng.integers(0, room + 1, 3))
    return View(
        channel=int(rng.integers(len(config.channels))),
        start=(x, y, z),
        edge=edge,
        turn=draw_turn(rng, config.flip, config.rotate),
        scale=float(rng.uniform(1 - config.intensity_scale, 1 + config.intensity_scale)),
        shift=float(rng.uniform(-config.intensity_shift, config.intensity_shift)),
    )


@dataclass(frozen=True)
class ViewBatch:
    """Crops of one size as they lie in the cache, and what is to be done with each.

    Args:
        crops: (N, e, e, e) half precision.
        strides: (N, 3) steps in the flattened crop for one voxel along each axis of the view.
        offset: (N,) place of the view's first voxel in the flattened crop.
        factor: (N,) of the intensities.
        summand: (N,) added afterwards.
    """

    crops: Tensor
    strides: Tensor
    offset: Tensor
    factor: Tensor
    summand: Tensor

    def pinned(self) -> ViewBatch:
        """The same in memory from which a GPU fetches by itself."""
        return replace(self, **{name: tensor.pin_memory() for name, tensor in vars(self).items()})

    def to(self, device: torch.device) -> ViewBatch:
        """The same on another device."""
        return replace(self, **{name: tensor.to(device, non_blocking=True) for name, tensor in vars(self).items()})

    def render(self) -> Tensor:
        """The views (N, 1, e, e, e), single precision: turned, normalised, intensities changed."""
        count, edge = self.crops.shape[:2]
        step = torch.arange(edge, device=self.crops.device)
        x, y, z = (self.strides[:, axis, None] * step for axis in range(3))
        index = self.offset[:, None, None, None] + x[:, :, None, None] + y[:, None, :, None] + z[:, None, None, :]
        turned = self.crops.flatten(1).gather(1, index.flatten(1)).float()
        changed = torch.addcmul(self.summand[:, None], turned, self.factor[:, None])
        return changed.view(count, 1, edge, edge, edge)


def cut_views(cache: PreparedCache, exams: Sequence[ExamViews]) -> list[ViewBatch]:
    """The views of some exams, one batch per size of crop; view by view, so the n-th views of all exams lie together."""
    pieces = [cache.crops(e.example.exams[e.exam], [(v.channel, v.start, v.edge) for v in e.views]) for e in exams]
    edges = dict.fromkeys(view.edge for view in exams[0].views)
    batches = []
    for edge in edges:
        chosen = [i for i, view in enumerate(exams[0].views) if view.edge == edge]
        views = [e.views[i] for i in chosen for e in exams]
        crops = np.stack([piece[i] for i in chosen for piece in pieces])
        batches.append(_batch(views, crops, edge, cache))
    return batches


def _batch(views: Sequence[View], crops: NDArray[np.float16], edge: int, cache: PreparedCache) -> ViewBatch:
    config = cache.preparation.config
    of_crop = np.array([edge * edge, edge, 1])
    turns = [view.turn.affine(edge) for view in views]
    mean = np.zeros(len(cache.preparation.channels)) if config.channel_mean is None else np.array(config.channel_mean)
    sd = np.ones(len(mean)) if config.channel_sd is None else np.array(config.channel_sd)
    channel = [view.channel for view in views]
    # The pipeline's last step and the change of intensities, as one factor and one summand.
    factor = np.array([view.scale for view in views]) / sd[channel]
    summand = np.array([view.shift for view in views]) - mean[channel] * factor
    return ViewBatch(
        crops=torch.from_numpy(crops),
        strides=torch.from_numpy(np.stack([np.rint(of_crop @ turn[:3, :3]).astype(np.int64) for turn in turns])),
        offset=torch.from_numpy(np.array([np.rint(of_crop @ turn[:3, 3]).astype(np.int64) for turn in turns])),
        factor=torch.from_numpy(factor.astype(np.float32)),
        summand=torch.from_numpy(summand.astype(np.float32)),
    )
