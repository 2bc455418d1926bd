"""Occlusion, coarse to fine: what the output loses when a part of an exam loses its detail."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from HCCNetLib.explanation.explainer import BATCH, logits_with
from HCCNetLib.explanation.reference import without_detail
from HCCNetLib.inference import EncodedSequence
from HCCNetLib.models import HCCNet, ModelConfig

_COARSE = 3  # parts of the cube along each axis to begin with
_LEVELS = 3  # a kept part is halved along each axis from one level to the next
_KEPT = 8  # parts of a level that are looked at more closely


@dataclass(frozen=True)
class _Part:
    """A box of voxels, [low, high) along each axis."""

    low: tuple[int, int, int]
    high: tuple[int, int, int]

    @property
    def slices(self) -> tuple[slice, slice, slice]:
        x, y, z = (slice(a, b) for a, b in zip(self.low, self.high, strict=True))
        return x, y, z

    def split(self, count: int) -> list[_Part]:
        """The box in ``count`` parts along each axis, as equal as whole voxels allow."""
        cuts = [
            [a + round((b - a) * n / count) for n in range(count + 1)] for a, b in zip(self.low, self.high, strict=True)
        ]
        spans = [[(a, b) for a, b in itertools.pairwise(ends) if b > a] for ends in cuts]
        return [_Part((x[0], y[0], z[0]), (x[1], y[1], z[1])) for x, y, z in itertools.product(*spans)]


class Occlusion:
    """Evidence per voxel: the logit's loss when the part around it loses its detail, spread evenly over the part.

    The cube is looked at in 27 parts; the eight whose loss per voxel is greatest, of either sign, are halved along each
    axis and looked at again, twice. Elsewhere the coarse answer stands.
    """

    key = "occlusion"
    title = "occlusion, coarse to fine"
    per_channel = False
    description = (
        "What the output loses when a part of the exam is blurred: 27 parts of the field, then the strongest ones in halves "
        "and quarters along each axis."
    )

    def resolution_voxels(self, crop: int) -> int:
        """A twelfth of the cube's edge, where it was looked at most closely."""
        return max(1, crop // (_COARSE * 2 ** (_LEVELS - 1)))

    def passes(self, config: ModelConfig) -> float:
        """At most: parts without any read voxel are passed over."""
        return float(_COARSE**3 + (_LEVELS - 1) * _KEPT * 8)

    def evidence(self, model: HCCNet, sequence: EncodedSequence) -> Tensor:
        """(S, 1, X, Y, Z); zeros for an exam that is not read."""
        blurred = without_detail(sequence.images, sequence.field, sequence.voxel_mm)
        result = torch.zeros_like(sequence.images[:, :1])
        for exam in sequence.reading.exams:
            field = sequence.field[exam]
            parts = _Part((0, 0, 0), (field.shape[0], field.shape[1], field.shape[2])).split(_COARSE)
            for level in range(_LEVELS):
                parts = [part for part in parts if field[part.slices].any()]
                losses = self._losses(model, sequence, exam, blurred[exam], parts)
                density = [loss / int(field[p.slices].sum()) for loss, p in zip(losses, parts, strict=True)]
                for part, value in zip(parts, density, strict=True):
                    result[(exam, 0, *part.slices)] = value * field[part.slices]
                if level < _LEVELS - 1:
                    ranked = sorted(zip(density, parts, strict=True), key=lambda pair: -abs(pair[0]))
                    parts = [finer for _, part in ranked[:_KEPT] for finer in part.split(2)]
        return result

    def _losses(
        self, model: HCCNet, sequence: EncodedSequence, exam: int, blurred: Tensor, parts: Sequence[_Part]
    ) -> list[float]:
        """The logit minus the logit with each part blurred."""
        image = sequence.images[exam]
        whole = float(sequence.reading.logit(model, sequence.embeddings[None]))
        losses: list[float] = []
        for start in range(0, len(parts), BATCH):
            some = parts[start : start + BATCH]
            changed = image.expand(len(some), *image.shape).clone()
            for n, part in enumerate(some):
                changed[(n, slice(None), *part.slices)] = blurred[(slice(None), *part.slices)]
            losses += [whole - value for value in logits_with(model, sequence, exam, changed).tolist()]
        return losses
