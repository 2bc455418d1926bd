"""Class activation: a stage's features, weighed by what the logit makes of them."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from HCCNetLib.inference import EncodedSequence
from HCCNetLib.models import STAGES, HCCNet, ModelConfig, stage_stride
from HCCNetLib.models.convnext3d import Variant, stage_macs


class ClassActivation:
    """Evidence per cell of a stage: Σ over features of (activation − its mean over the exam) · ∂logit/∂activation.

    That is, to first order, what the logit would lose if the cell looked like the average of its exam's field. Without
    the mean, what all cells share outweighs what makes a cell special, and hides it.

    The activations are those that the next stage takes, each cell normalised over its features: the norm makes the logit
    indifferent to the length of a cell's feature vector. The elementwise product (HiResCAM, Draelos and Carin,
    arXiv 2011.08891) keeps where a feature mattered, which the average of the gradient over space (Grad-CAM) loses.

    Args:
        stage: 1 (fine cells, little context) to 4 (coarse).
    """

    per_channel = False

    def __init__(self, stage: int) -> None:
        if not 1 <= stage <= STAGES:
            raise ValueError(f"there are {STAGES} stages, and {stage} is none of them")
        self._stage = stage
        self.key = f"class-activation-{stage}"
        self.title = f"class activation, stage {stage}"
        self.description = (
            f"Features of the network's stage {stage} of {STAGES}, each minus its mean over the exam's field, times the "
            "gradient of the output, summed over the features: what the output would lose, to first order, if a cell "
            "looked like the average of its exam."
        )

    def resolution_voxels(self, crop: int) -> int:
        """3, 6, 12 or 24."""
        return stage_stride(self._stage - 1)

    def passes(self, config: ModelConfig) -> float:
        """Forward and backward through the stages behind this one."""
        costs = stage_macs(config.channels, Variant(config.depths, config.dims, config.layers))
        return 3 * sum(costs[self._stage :]) / sum(costs)

    def evidence(self, model: HCCNet, sequence: EncodedSequence) -> Tensor:
        """(S, 1, x, y, z), all exams at once."""
        backbone, stage = model.backbone, self._stage
        features = sequence.stage_maps[stage - 1]
        with torch.enable_grad():
            if stage == STAGES:
                entered = features.detach().requires_grad_(True)
                last = entered
            else:
                entered = backbone.enter_stage(stage, features).detach().requires_grad_(True)
                last = backbone.forward_stages(backbone.leave_stage(stage, entered), start=stage + 1)
            logit = sequence.reading.logit(model, backbone.pool(last)[None])
            (gradient,) = torch.autograd.grad(logit.sum(), entered)
        entered = entered.detach()
        in_field = functional.avg_pool3d(sequence.field[:, None].to(entered.dtype), stage_stride(stage - 1))
        total = in_field.sum(dim=(2, 3, 4), keepdim=True).clamp_min(1e-6)
        mean = (entered * in_field).sum(dim=(2, 3, 4), keepdim=True) / total
        evidence: Tensor = ((entered - mean) * gradient).sum(dim=1, keepdim=True) * (in_field > 0)
        return evidence
