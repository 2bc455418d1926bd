"""Integrated gradients along a straight way (Sundararajan et al., arXiv 1703.01365), with a sum that is checked."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

_CLOSE = 0.01  # of the difference: how near the sum must come
_SMALL = 0.01  # differences below this many units of the logit are judged as if they were this large


def integrate(
    gradients: Callable[[Tensor], Tensor], way: Tensor, difference: float, steps: int, batch: int, doublings: int = 2
) -> Tensor:
    """What each element of a way contributes to the difference between its two ends.

    Gauss-Legendre quadrature, which needs far fewer steps than equal ones. A network whose output turns within a small
    part of the way needs more: the steps are doubled until the contributions sum to the difference within
    1% (or 0.0001 where the difference is below 0.01).

    Args:
        gradients: of places (B,) on the way, 0 its beginning and 1 its end: (B, *way.shape).
        way: end minus beginning.
        difference: output at the end minus output at the beginning.
        steps: to begin with.
        batch: places asked for at once.
        doublings: at most so many.

    Returns:
        The shape of ``way``.
    """
    for doubling in range(doublings + 1):
        result = way * mean_gradient(gradients, way, steps * 2**doubling, batch)
        if abs(float(result.double().sum()) - difference) <= _CLOSE * max(abs(difference), _SMALL):
            break
    return result


def mean_gradient(gradients: Callable[[Tensor], Tensor], way: Tensor, steps: int, batch: int) -> Tensor:
    """The gradient averaged along a way, by Gauss-Legendre quadrature with a fixed number of steps."""
    nodes, weights = np.polynomial.legendre.leggauss(steps)
    places, shares = (torch.tensor(v, dtype=way.dtype, device=way.device) for v in ((nodes + 1) / 2, weights / 2))
    mean = torch.zeros_like(way)
    for some, their in zip(places.split(batch), shares.split(batch), strict=True):
        mean += torch.einsum("b,b...->...", their, gradients(some))
    return mean
