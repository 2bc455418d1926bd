"""What the output does when an exam loses its detail in the order of the evidence, or is disturbed a little."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from HCCNetLib.explanation.explainer import BATCH, logits_with
from HCCNetLib.explanation.reference import without_detail
from HCCNetLib.inference import EncodedSequence
from HCCNetLib.models import HCCNet
from HCCNetLib.preprocessing import PreparedExam, PreprocessingConfig

FRACTIONS = (0.0, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)  # of the field's volume
NOISE_SD = 0.05  # in units of the SD of the body's voxels

Order = NDArray[np.int32]


def cells_to_voxels(cells: NDArray[np.float32], cell_voxels: int, crop: int) -> NDArray[np.float32]:
    """Each cell's value on all its voxels: (x, y, z) → (crop, crop, crop); 0 behind the last whole cell."""
    values = cells
    for axis in range(3):
        values = values.repeat(cell_voxels, axis=axis)
    return np.pad(values, [(0, crop - n) for n in values.shape])


def removal_order(
    values: NDArray[np.float32], field: NDArray[np.bool_], resolution: int, rng: np.random.Generator
) -> Order:
    """The place of each voxel of the field in the order of positive evidence, strongest first.

    Equal voxels are put in a random order of blocks, and in a random order within a block: a method that tells apart
    blocks of this size is compared with random blocks, not with single voxels, which a network would take for noise.

    Args:
        values: (X, Y, Z) signed evidence; where all are 0 the order is random throughout.
        field: (X, Y, Z), True where the exam was read.
        resolution: edge of a block, voxels.
        rng: decides between equal ones.

    Returns:
        (X, Y, Z), from 0 on; the number of the field's voxels outside it.
    """
    blocks = rng.random([math.ceil(n / resolution) for n in field.shape])
    at = np.ix_(*(np.arange(n) // resolution for n in field.shape))
    count = int(field.sum())
    ranked = np.lexsort((rng.random(count), blocks[at][field], -np.maximum(values[field], 0)))
    places = np.empty(count, dtype=np.int32)
    places[ranked] = np.arange(count, dtype=np.int32)
    order = np.full(field.shape, count, dtype=np.int32)
    order[field] = places
    return order


class Perturbation:
    """Deletion and insertion at the landmark exam (a ``MemberObserver``), after Petsiuk et al. (arXiv 1806.07421).

    Deletion begins with the exam as it is and takes its detail away, voxel by voxel in a given order; insertion begins
    without detail and gives it back in the same order. Detail is taken by a blur instead of a constant, as
    ``without_detail`` says.

    Args:
        orders: each (X, Y, Z), as ``removal_order`` makes them.
    """

    def __init__(self, orders: Sequence[Order]) -> None:
        self._orders = orders
        self._sum = np.zeros((len(orders), 2, len(FRACTIONS)))
        self._members = 0

    def observe(self, model: HCCNet, sequence: EncodedSequence) -> None:
        """Adds one member's logits."""
        exam = sequence.reading.exams[-1]
        image, field = sequence.images[exam], sequence.field[exam]
        bare = without_detail(image[None], field[None], sequence.voxel_mm)[0]
        first, last = logits_with(model, sequence, exam, torch.stack([image, bare])).tolist()
        self._sum[:, :, 0] += first, last
        self._sum[:, :, -1] += last, first
        orders = [torch.from_numpy(order).to(image.device) for order in self._orders]
        steps = [round(fraction * int(field.sum())) for fraction in FRACTIONS]
        asked = list(np.ndindex(len(orders), 2, len(FRACTIONS) - 2))
        for start in range(0, len(asked), BATCH):
            some = asked[start : start + BATCH]
            images = [_mixed(image, bare, orders[n] < steps[step + 1], mode == 0) for n, mode, step in some]
            logits = logits_with(model, sequence, exam, torch.stack(images)).tolist()
            for (n, mode, step), logit in zip(some, logits, strict=True):
                self._sum[n, mode, step + 1] += logit
        self._members += 1

    def curves(self) -> NDArray[np.float64]:
        """(orders, 2, fractions): the members' mean logit, deletion and insertion."""
        if not self._members:
            raise ValueError("no member has been observed")
        mean: NDArray[np.float64] = self._sum / self._members
        return mean


def _mixed(image: Tensor, bare: Tensor, changed: Tensor, is_deletion: bool) -> Tensor:
    """The exam without detail where ``changed``, or with detail only there."""
    return torch.where(changed, bare, image) if is_deletion else torch.where(changed, image, bare)


def area(curves: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean height of curves (..., fractions), their steps taken as equally long (trapezia)."""
    means: NDArray[np.float64] = ((curves[..., 1:] + curves[..., :-1]) / 2).mean(axis=-1)
    return means


def with_noise(prepared: PreparedExam, config: PreprocessingConfig, rng: np.random.Generator) -> PreparedExam:
    """The exam with Gaussian noise of ``NOISE_SD`` where it was read; a channel that is missing stays constant."""
    data = prepared.data
    scale = np.ones(len(data)) if config.channel_sd is None else np.array(config.channel_sd)
    sd = (NOISE_SD / scale).astype(np.float32)[:, None, None, None]  # what the last step has divided by
    noise = rng.standard_normal(data.shape, dtype=np.float32)
    is_there = (data != data[:, :1, :1, :1]).any(axis=(1, 2, 3), keepdims=True)
    return replace(prepared, data=data + sd * noise * prepared.window.read_mask * is_there)
