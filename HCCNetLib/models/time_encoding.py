"""The sinusoidal encoding of real-valued time."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def time_encoding(times: Tensor, dim: int) -> Tensor:
    """Sinusoids of base 10000 at real-valued times: sin on even features, cos on odd ones.

    Args:
        times: (...,) in the bundle's unit.
        dim: features D, even.

    Returns:
        (..., D).
    """
    frequencies = torch.exp(
        torch.arange(0, dim, 2, dtype=torch.float32, device=times.device) * (-math.log(10000.0) / dim)
    )
    angles = times.float().unsqueeze(-1) * frequencies
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(-2)
