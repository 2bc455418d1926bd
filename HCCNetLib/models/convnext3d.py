"""A ConvNeXt for volumes, v1 (layer scale) and v2 (global response normalisation).

After Liu et al. (arXiv 2201.03545) and Woo et al. (arXiv 2301.00808), in the 3D form of Nolte et al. (arXiv 2501.10733):
stem conv k3 s3, depthwise conv k3, three downsamplings k2 s2: 72³ voxels → 24³, 12³, 6³, 3³.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from HCCNetLib.models.keyed import DropPath
from HCCNetLib.models.pooling import CellPooling, Pooling, make_pooling

BlockVersion = Literal["v1", "v2"]

STEM_STRIDE = 3
STAGES = 4


@dataclass(frozen=True)
class Variant:
    """Depths and widths of the four stages, and the layers of the transformer that belongs to them."""

    depths: tuple[int, int, int, int]
    dims: tuple[int, int, int, int]
    layers: int


# The published ones, and `mini`: ours, for demonstration and tests.
VARIANTS = {
    "atto": Variant((2, 2, 6, 2), (32, 64, 128, 256), 4),
    "femto": Variant((2, 2, 6, 2), (48, 96, 192, 384), 4),
    "pico": Variant((2, 2, 6, 2), (64, 128, 256, 512), 4),
    "nano": Variant((2, 2, 8, 2), (80, 160, 320, 640), 6),
    "tiny": Variant((3, 3, 9, 3), (96, 192, 384, 768), 6),
    "mini": Variant((1, 1, 2, 1), (16, 32, 64, 128), 2),
}


def stage_stride(stage: int) -> int:
    """Voxels of the input along one axis for one cell of a stage's feature map; stages count from 0."""
    return STEM_STRIDE * 2**stage


def stage_macs(in_channels: int, variant: Variant) -> tuple[float, ...]:
    """Multiply-adds of each stage for one voxel of the input: what a pass through it costs, up to a common factor.

    Norms, activations and residuals are left out. Twice the sum times 72³ is the published number of operations.
    """
    costs = []
    before = in_channels
    for stage, (depth, dim) in enumerate(zip(variant.depths, variant.dims, strict=True)):
        kernel = STEM_STRIDE**3 if stage == 0 else 2**3
        block = 27 * dim + 2 * dim * 4 * dim
        costs.append((before * kernel * dim + depth * block) / stage_stride(stage) ** 3)
        before = dim
    return tuple(costs)


class GlobalResponseNorm(nn.Module):
    """Global response normalisation over (N, X, Y, Z, C) (arXiv 2301.00808, section 3.2)."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(dim))
        self.beta = nn.Parameter(torch.zeros(dim))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Scales each channel by its norm over space, relative to the mean norm of all channels."""
        norm = torch.linalg.vector_norm(
            x, dim=(1, 2, 3), keepdim=True
        )  # its gradient at 0 is 0, a root's is not finite
        return x + self.gamma * (x * (norm / (norm.mean(dim=-1, keepdim=True) + self.eps))) + self.beta


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of (N, C, X, Y, Z)."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalises each voxel over its channels."""
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


class Block(nn.Module):
    """Depthwise conv k3, LayerNorm, linear ×4, GELU, (v2: GRN), linear, (v1: layer scale), residual."""

    def __init__(self, dim: int, version: BlockVersion, drop_path: float, eps: float) -> None:
        super().__init__()
        self.conv_dw = nn.Conv3d(dim, dim, kernel_size=3, padding=1, groups=dim)
        self.norm = nn.LayerNorm(dim, eps=eps)
        self.fc1 = nn.Linear(dim, 4 * dim)
        self.act = nn.GELU()
        self.grn = GlobalResponseNorm(4 * dim, eps) if version == "v2" else None
        self.fc2 = nn.Linear(4 * dim, dim)
        self.gamma = nn.Parameter(torch.full((dim,), 1e-6)) if version == "v1" else None
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, X, Y, Z) → the same shape."""
        y = self.act(self.fc1(self.norm(self.conv_dw(x).movedim(1, -1))))
        if self.grn is not None:
            y = self.grn(y)
        y = self.fc2(y)
        if self.gamma is not None:
            y = self.gamma * y
        return x + self.drop_path(y.movedim(-1, 1))


class Stage(nn.Module):
    """A downsampling (in the first stage: the stem) and its blocks."""

    def __init__(
        self, in_dim: int, dim: int, is_stem: bool, drop_paths: list[float], version: BlockVersion, eps: float
    ) -> None:
        super().__init__()
        if is_stem:
            conv = nn.Conv3d(in_dim, dim, kernel_size=STEM_STRIDE, stride=STEM_STRIDE)
            self.downsample = nn.Sequential(conv, ChannelNorm(dim, eps=eps))
        else:
            conv = nn.Conv3d(in_dim, dim, kernel_size=2, stride=2)
            self.downsample = nn.Sequential(ChannelNorm(in_dim, eps=eps), conv)
        self.blocks = nn.Sequential(*[Block(dim, version, rate, eps) for rate in drop_paths])

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, X, Y, Z) → (N, C', X/s, Y/s, Z/s), s = 3 in the stem, else 2."""
        result: Tensor = self.blocks(self.downsample(x))
        return result


class ConvNeXt3d(nn.Module):
    """The backbone: one exam of several channels → one vector.

    Args:
        in_channels: image channels C.
        variant: depths and widths.
        version: of the block.
        drop_path_rate: stochastic depth of the last block; it rises linearly from 0 at the first.
        eps: of all LayerNorms.
        pooling: of the last feature map.
    """

    def __init__(
        self,
        in_channels: int,
        variant: Variant,
        version: BlockVersion = "v1",
        drop_path_rate: float = 0.0,
        eps: float = 1e-6,
        pooling: Pooling = "mean",
    ) -> None:
        super().__init__()
        last = max(sum(variant.depths) - 1, 1)
        rates = iter([drop_path_rate * block / last for block in range(sum(variant.depths))])
        dims = (in_channels, *variant.dims)
        self.stages = nn.ModuleList(
            Stage(dims[i], dims[i + 1], i == 0, [next(rates) for _ in range(variant.depths[i])], version, eps)
            for i in range(STAGES)
        )
        self.pooling = make_pooling(pooling, variant.dims[-1])
        self.norm = nn.LayerNorm(variant.dims[-1], eps=eps)
        self.dim = variant.dims[-1]
        self.apply(init_weights)

    @property
    def stem(self) -> nn.Conv3d:
        """The first convolution."""
        stem = self._stage(0).downsample[0]
        assert isinstance(stem, nn.Conv3d)
        return stem

    def places(self, edge: int) -> int:
        """How many embeddings an image of ``edge`` voxels along each axis has."""
        return (edge // stage_stride(STAGES - 1)) ** 3 if isinstance(self.pooling, CellPooling) else 1

    def forward_stages(self, x: Tensor, start: int = 0, stop: int = STAGES) -> Tensor:
        """Runs stages ``start`` to ``stop``: images (N, C, X, Y, Z) or a feature map → the map of stage ``stop - 1``."""
        for stage in self.stages[start:stop]:
            x = stage(x)
        return x

    def enter_stage(self, stage: int, feature_map: Tensor) -> Tensor:
        """The features as a later stage takes them: the map before it, (N, C, x, y, z), each cell normalised over C.

        A stage sees only these; how long a cell's own feature vector is makes no difference to it.
        """
        result: Tensor = self._stage(stage).downsample[0](feature_map)
        return result

    def leave_stage(self, stage: int, entered: Tensor) -> Tensor:
        """Runs a later stage from what ``enter_stage`` gave: (N, C, x, y, z) → (N, C', x/2, y/2, z/2)."""
        module = self._stage(stage)
        result: Tensor = module.blocks(module.downsample[1](entered))
        return result

    def _stage(self, index: int) -> Stage:
        stage = self.stages[index]
        assert isinstance(stage, Stage)
        return stage

    def pool(self, feature_map: Tensor) -> Tensor:
        """Pooling (as published: the mean) and LayerNorm of the last stage's map: (N, D, x, y, z) → (N, D).

        With ``cells`` each is normalised alone and they are laid end to end: (N, cells · D).
        """
        result: Tensor = self.norm(self.pooling(feature_map)).flatten(1)
        return result

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, X, Y, Z) → embeddings (N, D)."""
        return self.pool(self.forward_stages(x))


def init_weights(module: nn.Module) -> None:
    """Truncated normal 0.02 for weights, 0 for biases, as published."""
    if isinstance(module, (nn.Conv3d, nn.Linear)):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
