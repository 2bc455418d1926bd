"""What a part of an exam is compared with: the same place without detail."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

# SD of the blur. A spot of 20 mm all but vanishes in it; what is bright or dark over half an organ stays. A constant would
# be further from anything that a network has seen, and on the way to it the first norm jumps where hardly any signal is left.
BLUR_MM = 18.0


def without_detail(images: Tensor, field: Tensor, voxel_mm: float) -> Tensor:
    """Each exam blurred inside the field that was read; padding does not bleed into it and stays as it is.

    Args:
        images: (S, C, X, Y, Z).
        field: (S, X, Y, Z), True where an exam was read.
        voxel_mm: edge of a voxel.
    """
    inside = field[:, None].to(images.dtype)
    blurred = _blur(images * inside, BLUR_MM / voxel_mm)
    weight = _blur(inside, BLUR_MM / voxel_mm)
    return torch.where(field[:, None], blurred / weight.clamp_min(1e-6), images)


def _blur(volumes: Tensor, sigma: float) -> Tensor:
    """A Gaussian of ``sigma`` voxels over the last three axes, zeros beyond the edge."""
    radius = int(3 * sigma + 0.5)
    at = torch.arange(-radius, radius + 1, dtype=volumes.dtype, device=volumes.device)
    kernel = torch.exp(-(at**2) / (2 * sigma**2))
    kernel = kernel / kernel.sum()
    result = volumes.flatten(0, 1)[:, None]
    for axis in range(3):
        shape, padding = [1, 1, 1, 1, 1], [0, 0, 0]
        shape[2 + axis], padding[axis] = len(kernel), radius
        result = functional.conv3d(result, kernel.view(shape), padding=padding)
    return result.view(volumes.shape)
