"""Class activation: a stage's features, weighed by what the logit makes of them."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from HCCNetLib.explanation.path import mean_gradient
from HCCNetLib.inference import EncodedSequence
from HCCNetLib.models import STAGES, HCCNet, ModelConfig, stage_stride
from HCCNetLib.models.convnext3d import Variant, stage_macs

_STEPS = 8
_AT_ONCE = 8  # exams that are passed on together: fewer leave a processor idle, more need memory and are no faster


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
        entered, difference = features_of(model, sequence, self._stage)
        gradient = logit_gradient(model, sequence, self._stage, entered[None])[0]
        return (difference * gradient).sum(dim=1, keepdim=True)


class IntegratedActivation:
    """Class activation, stage 1, with the gradient averaged along the way from the average cell to the cell as it is.

    A network that is sure of itself hardly reacts to a small change, so that its gradient at the exams themselves is weak
    and says little; on the way there it is not. All exams go the way together. Over all exams, evidence sums to the logit
    minus the logit had every cell been its exam's average, as far as eight steps are enough.
    """

    key = "integrated-activation"
    title = "integrated activation"
    per_channel = False
    description = (
        "Features of the network's first stage, each minus its mean over the exam's field, times the gradient of the output, "
        f"averaged in {_STEPS} steps from exams all of whose cells are average to the exams as they are, summed over the "
        "features: what each cell's difference from the average of its exam brings to the output."
    )

    def resolution_voxels(self, crop: int) -> int:
        """3."""
        return stage_stride(0)

    def passes(self, config: ModelConfig) -> float:
        """Forward and backward through stages 2 to 4 at every step."""
        return _STEPS * ClassActivation(1).passes(config)

    def evidence(self, model: HCCNet, sequence: EncodedSequence) -> Tensor:
        """(S, 1, x, y, z)."""
        entered, difference = features_of(model, sequence, 1)

        def gradients(places: Tensor) -> Tensor:
            features = entered - (1 - places[:, None, None, None, None, None]) * difference
            return logit_gradient(model, sequence, 1, features)

        at_once = max(1, _AT_ONCE // len(entered))
        evidence = difference * mean_gradient(gradients, difference, _STEPS, at_once)
        return evidence.sum(dim=1, keepdim=True)


def features_of(model: HCCNet, sequence: EncodedSequence, stage: int) -> tuple[Tensor, Tensor]:
    """What a stage, 1 to 4, hands on, and its difference from each exam's mean over the field; both (S, C', x, y, z).

    Cells in which nothing was read differ by 0.
    """
    features = sequence.stage_maps[stage - 1]
    if stage < STAGES:
        features = model.backbone.enter_stage(stage, features)
    in_field = functional.avg_pool3d(sequence.field[:, None].to(features.dtype), stage_stride(stage - 1))
    total = in_field.sum(dim=(2, 3, 4), keepdim=True).clamp_min(1e-6)
    mean = (features * in_field).sum(dim=(2, 3, 4), keepdim=True) / total
    return features, (features - mean) * (in_field > 0)


def logit_gradient(model: HCCNet, sequence: EncodedSequence, stage: int, features: Tensor) -> Tensor:
    """∂logit/∂features, where ``features`` (B, S, C', x, y, z) of all exams stand for what a stage hands on."""
    backbone = model.backbone
    features = features.detach().requires_grad_(True)
    with torch.enable_grad():
        last = features.flatten(0, 1)
        if stage < STAGES:
            last = backbone.forward_stages(backbone.leave_stage(stage, last), start=stage + 1)
        logit = sequence.reading.logit(model, backbone.pool(last).unflatten(0, features.shape[:2]))
        (gradient,) = torch.autograd.grad(logit.sum(), features)
    return gradient
