"""Integrated gradients (Sundararajan et al., arXiv 1703.01365), exam by exam."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from HCCNetLib.explanation.explainer import BATCH, logits_with
from HCCNetLib.explanation.path import integrate
from HCCNetLib.explanation.reference import without_detail
from HCCNetLib.inference import EncodedSequence
from HCCNetLib.models import HCCNet, ModelConfig

STEPS = 50


class IntegratedGradients:
    """Evidence per voxel and channel: the gradient along the way from the exam without detail to the exam, times the way.

    Its sum over an exam is the logit minus the logit had that exam no detail.

    Args:
        steps: along the way; more where their sum falls short (``integrate``).
    """

    key = "integrated-gradients"
    title = "integrated gradients"
    per_channel = True

    def __init__(self, steps: int = STEPS) -> None:
        self._steps = steps
        self.description = (
            f"Gradient of the output, summed in {steps} steps from the exam without detail (blurred) to the exam as it is, "
            "times the difference between the two, for each voxel and channel."
        )

    def resolution_voxels(self, crop: int) -> int:
        """Single voxels."""
        return 1

    def passes(self, config: ModelConfig) -> float:
        """Forward and backward at every step; up to seven times as much where the steps are doubled twice."""
        return 3.0 * self._steps

    def evidence(self, model: HCCNet, sequence: EncodedSequence) -> Tensor:
        """(S, C, X, Y, Z); zeros for an exam that is not read."""
        blurred = without_detail(sequence.images, sequence.field, sequence.voxel_mm)
        result = torch.zeros_like(blurred)
        whole = float(sequence.reading.logit(model, sequence.embeddings[None]))
        for exam in sequence.reading.exams:
            start, way = blurred[exam], sequence.images[exam] - blurred[exam]
            lost = whole - float(logits_with(model, sequence, exam, start[None]))
            gradients = partial(_gradients, model, sequence, exam, start, way)
            result[exam] = integrate(gradients, way, lost, self._steps, BATCH)
        return result


def _gradients(
    model: HCCNet, sequence: EncodedSequence, exam: int, start: Tensor, way: Tensor, places: Tensor
) -> Tensor:
    """(B, C, X, Y, Z): of the logit with respect to an exam that lies at ``places`` (B,) of its way."""
    images = (start + places[:, None, None, None, None] * way).requires_grad_(True)
    with torch.enable_grad():
        (gradients,) = torch.autograd.grad(logits_with(model, sequence, exam, images).sum(), images)
    return gradients
