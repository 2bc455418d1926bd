"""Attention over exams."""

from __future__ import annotations

import torch
from torch import Tensor


def attention_rollout(attention: Tensor) -> Tensor:
    """How much of the CLS output rests on each exam, by attention rollout (Abnar and Zuidema, arXiv 2005.00928).

    Heads are averaged, the residual path is included (half of each layer's weight), layers are multiplied, and CLS's
    own share is removed.

    Args:
        attention: (layers, heads, 1+S, 1+S) of one sequence without padding.

    Returns:
        (S,), sums to 1.
    """
    tokens = attention.shape[-1]
    identity = torch.eye(tokens, dtype=attention.dtype, device=attention.device)
    flow = identity
    for layer in attention.mean(dim=1):
        flow = (0.5 * layer + 0.5 * identity) @ flow
    exams = flow[0, 1:]
    return exams / exams.sum()
