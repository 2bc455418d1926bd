"""From the last feature map to one vector, or to one per cell."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

Pooling = Literal["mean", "generalised_mean", "attention", "cells"]
POOLINGS: tuple[Pooling, ...] = ("mean", "generalised_mean", "attention", "cells")
_START_EXPONENT = 3.0
_LEAST = 1e-4  # a power's slope is not finite at 0


class MeanPooling(nn.Module):
    """The mean over all cells, as published."""

    def forward(self, feature_map: Tensor) -> Tensor:
        """(N, D, x, y, z) → (N, D)."""
        return feature_map.mean(dim=(2, 3, 4))


class GeneralisedMeanPooling(nn.Module):
    """(mean of xᵖ)^(1/p) with a learned p (Radenović et al., arXiv 1711.02512): the larger p, the nearer the maximum.

    Features are made positive by a softplus with a learned shift, since they have both signs here.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.exponent = nn.Parameter(torch.tensor([_START_EXPONENT]))
        self.shift = nn.Parameter(torch.zeros(dim))

    def forward(self, feature_map: Tensor) -> Tensor:
        """(N, D, x, y, z) → (N, D)."""
        positive = functional.softplus(feature_map + self.shift[:, None, None, None]).clamp_min(_LEAST)
        p = self.exponent.clamp_min(1.0)
        pooled: Tensor = (positive**p).mean(dim=(2, 3, 4)) ** (1 / p)
        return pooled


class AttentionPooling(nn.Module):
    """A mean over cells weighted by a softmax over a learned gated score (Ilse et al., arXiv 1802.04712)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.value = nn.Linear(dim, dim)
        self.gate = nn.Linear(dim, dim)
        self.score = nn.Linear(dim, 1)

    def forward(self, feature_map: Tensor) -> Tensor:
        """(N, D, x, y, z) → (N, D)."""
        cells = feature_map.flatten(2).transpose(1, 2)
        hidden = torch.tanh(self.value(cells)) * torch.sigmoid(self.gate(cells))
        pooled: Tensor = (self.score(hidden).softmax(dim=1) * cells).sum(dim=1)
        return pooled


class CellPooling(nn.Module):
    """No pooling: every cell is kept, and read as a series of its own (see ``hccnet``)."""

    def forward(self, feature_map: Tensor) -> Tensor:
        """(N, D, x, y, z) → (N, x·y·z, D)."""
        return feature_map.flatten(2).transpose(1, 2)


def make_pooling(kind: Pooling, dim: int) -> nn.Module:
    """The pooling layer of a kind for D = ``dim`` features."""
    made: dict[Pooling, Callable[[], nn.Module]] = {
        "mean": MeanPooling,
        "generalised_mean": lambda: GeneralisedMeanPooling(dim),
        "attention": lambda: AttentionPooling(dim),
        "cells": CellPooling,
    }
    return made[kind]()
