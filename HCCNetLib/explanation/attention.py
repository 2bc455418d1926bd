"""Gradient-weighted attention over exams."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from HCCNetLib.explanation.explainer import require_finite
from HCCNetLib.inference import EncodedSequence
from HCCNetLib.models import HCCNet
from HCCNetLib.models.hazards import any_place


class GradientAttention:
    """How much of what raises the output reaches CLS from each exam; a mean over the members.

    After Chefer et al. (arXiv 2103.15679): each layer's attention times its gradient, negative products dropped, averaged
    over heads and added along the residual path. Plain rollout follows where CLS looks, this one whether it mattered.
    Cost: the transformer, forward and backward; no pass of the backbone.
    """

    def __init__(self) -> None:
        self._sum: NDArray[np.float64] | None = None

    def observe(self, model: HCCNet, sequence: EncodedSequence) -> None:
        """Adds one member's shares."""
        shares = relevance(model, sequence)
        self._sum = shares if self._sum is None else self._sum + shares

    def shares(self) -> NDArray[np.float64] | None:
        """(S,), sums to 1; None where no exam raises any member's output."""
        if self._sum is None:
            raise ValueError("no member has been observed")
        total = self._sum.sum()
        return self._sum / total if total > 0 else None


def relevance(model: HCCNet, sequence: EncodedSequence) -> NDArray[np.float64]:
    """One member's relevance of each exam (S,), sums to 1 or is 0 throughout; 0 for an exam that is not read."""
    reading = sequence.reading
    embeddings = sequence.embeddings[list(reading.exams)]
    lengths = torch.tensor([len(embeddings)], device=embeddings.device)
    with torch.enable_grad():
        # Attention must hang on something that asks for a gradient, or its own could not be asked for.
        tokens, is_padding = model.tokens_of(
            embeddings[None].detach().requires_grad_(True), reading.times[None], lengths
        )
        attentions: list[Tensor] = []
        for layer in model.encoder.layers:
            tokens, attention = layer(tokens, is_padding)
            attentions.append(attention)
        gradients = torch.autograd.grad(reading.logit_of(any_place(model.decide(tokens)[None])).sum(), attentions)
    flow = torch.eye(tokens.shape[1], dtype=tokens.dtype, device=tokens.device).expand(len(tokens), -1, -1)
    for attention, gradient in zip(attentions, gradients, strict=True):
        weighted = (attention * gradient).clamp_min(0).mean(dim=1)
        flow = flow + weighted.detach() @ flow
    raised = flow[:, 0, 1:].sum(0).double().cpu().numpy()
    require_finite(raised)
    shares = np.zeros(len(sequence.embeddings))
    shares[list(reading.exams)] = raised / raised.sum() if raised.sum() > 0 else 0.0
    return shares
