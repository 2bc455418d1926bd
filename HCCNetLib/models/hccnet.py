"""HCCNet: one embedding per exam, a transformer over the dated sequence, a hazard's logit per interval (arXiv 2501.10733)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from HCCNetLib.models.convnext3d import VARIANTS, BlockVersion, ConvNeXt3d, Variant, init_weights
from HCCNetLib.models.hazards import any_place
from HCCNetLib.models.keyed import Dropout
from HCCNetLib.models.pooling import POOLINGS, Pooling
from HCCNetLib.models.time_encoding import time_encoding
from HCCNetLib.models.transformer import Encoder

HEAD_DIM = 128

HeadForm = Literal["tanh", "gelu"]


@dataclass(frozen=True)
class ModelConfig:
    """What a network is built from.

    Args:
        channels: image channels of an exam.
        depths: blocks of the four stages.
        dims: widths of the four stages; the last is the transformer's.
        layers: of the transformer.
        version: of the ConvNeXt block.
        dropout: in the transformer, in training.
        drop_path_rate: stochastic depth, in training.
        eps: of all LayerNorms.
        pooling: of the backbone's last feature map; the published one is the mean.
        outputs: logits of hazards, one per interval of time (see ``hazards``); the published network has one.
        head: tanh: linear, tanh, norm, linear, as published; gelu: norm, linear, GELU, linear, which learns rare events faster.
        change: whether the transformer is also given what changed from each exam to the landmark; not published.
    """

    channels: int
    depths: tuple[int, int, int, int]
    dims: tuple[int, int, int, int]
    layers: int
    version: BlockVersion = "v1"
    dropout: float = 0.1
    drop_path_rate: float = 0.0
    eps: float = 1e-6
    pooling: Pooling = "mean"
    outputs: int = 1
    head: HeadForm = "tanh"
    change: bool = False

    def __post_init__(self) -> None:
        if self.pooling not in POOLINGS:
            raise ValueError(f"pooling {self.pooling!r} is none of {', '.join(POOLINGS)}")
        if self.version not in ("v1", "v2"):
            raise ValueError(f"block version {self.version!r} is neither v1 nor v2")
        whole = (self.channels, self.layers, self.outputs, *self.depths, *self.dims)
        if any(type(n) is not int for n in whole):
            raise ValueError("channels, depths, dims, layers and outputs must be whole numbers")
        if type(self.change) is not bool:
            raise ValueError("change must be true or false")
        if self.head not in ("tanh", "gelu"):
            raise ValueError(f"head {self.head!r} is neither tanh nor gelu")
        rates = (self.dropout, self.drop_path_rate, self.eps)
        if any(type(r) not in (int, float) or not 0 <= r < 1 for r in rates) or not self.eps > 0:
            raise ValueError("dropout and drop_path_rate must be at least 0, eps above 0, and all below 1")
        if (
            len(self.depths) != 4
            or len(self.dims) != 4
            or min(*self.depths, *self.dims, self.layers, self.channels, self.outputs) < 1
        ):
            raise ValueError(
                "a network has four stages, each with a depth and a width, and at least one layer, channel and output"
            )
        if self.dims[-1] % HEAD_DIM:
            raise ValueError(f"the last width must be a multiple of {HEAD_DIM}: the heads are {HEAD_DIM} wide")

    @classmethod
    def variant(cls, name: str, channels: int, version: BlockVersion = "v1") -> ModelConfig:
        """A named variant: atto, femto, pico, nano, tiny or mini."""
        if name not in VARIANTS:
            raise ValueError(f"unknown variant {name!r}: choose one of {', '.join(VARIANTS)}")
        variant = VARIANTS[name]
        return cls(channels, variant.depths, variant.dims, variant.layers, version)

    @property
    def name(self) -> str:
        """The variant's name, or ``custom``."""
        shape = Variant(self.depths, self.dims, self.layers)
        return next((name for name, variant in VARIANTS.items() if variant == shape), "custom")

    def to_dict(self) -> dict[str, Any]:
        """As plain data for ``bundle.json``."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ModelConfig:
        """From plain data; raises ValueError for a name or a value that is unknown."""
        unknown = sorted(set(values) - {f.name for f in fields(cls)})
        if unknown:
            raise ValueError(f"unknown model settings: {', '.join(unknown)}")
        try:
            settings: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
            return cls(**settings)
        except TypeError as error:
            raise ValueError(f"model settings of a wrong type or missing: {error}") from error


class ChangeTokens(nn.Module):
    """How the embedding changes with time, added to the tokens: CLS gets the landmark and the slope, exams their difference.

    The slope is that of a straight line through all exams, by least squares with a ridge, so that a few exams within a short time
    give a small one. Attention adds embeddings up; a quotient of their differences and the time between it learns poorly.
    """

    _RIDGE = 10.0  # months²
    _PER_YEAR = 12.0

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.landmark, self.slope, self.difference = (nn.Linear(dim, dim, bias=False) for _ in range(3))

    def forward(self, exams: Tensor, times: Tensor, lengths: Tensor) -> Tensor:
        """Exams (N, S, D), times before the landmark (N, S) in months, lengths (N,) → what is added, (N, 1+S, D)."""
        landmark = exams[torch.arange(len(exams), device=exams.device), lengths - 1]
        is_exam = torch.arange(exams.shape[1], device=exams.device) < lengths[:, None]
        mean = (times * is_exam).sum(1, keepdim=True) / lengths[:, None]
        weights = (mean - times) * is_exam  # later exams have the smaller times
        weights = self._PER_YEAR * weights / ((weights**2).sum(1, keepdim=True) + self._RIDGE)
        slope = (weights[..., None].to(exams.dtype) * exams).sum(1)
        of_cls = self.landmark(landmark) + self.slope(slope)
        return torch.cat([of_cls[:, None], self.difference(landmark[:, None] - exams)], dim=1)


class HCCNet(nn.Module):
    """The whole model. Padding is known from lengths alone: an exam at time 0 is an exam."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        dim = config.dims[-1]
        shape = Variant(config.depths, config.dims, config.layers)
        self.config = config
        self.backbone = ConvNeXt3d(
            config.channels, shape, config.version, config.drop_path_rate, config.eps, config.pooling
        )
        self.cls_token = nn.Parameter(torch.zeros(dim))
        self.dropout = Dropout(config.dropout)
        self.change = ChangeTokens(dim) if config.change else None
        self.encoder = Encoder(dim, dim // HEAD_DIM, config.layers, config.dropout, config.eps)
        self.pooler = nn.Linear(dim, dim)
        self.head_norm = nn.LayerNorm(dim, eps=config.eps)
        self.head = nn.Linear(dim, config.outputs)
        self.apply(init_weights)
        nn.init.trunc_normal_(self.cls_token, std=0.02)

    def classify(self, embeddings: Tensor, times: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Reads sequences of embeddings.

        Args:
            embeddings: (B, S, P · D) of P places, 1 unless the backbone keeps its cells; what stands beyond a sequence's
                length is ignored.
            times: (B, S), real-valued, in the bundle's unit.
            lengths: (B,) exams of each sequence, at least 1.

        Returns:
            Logits of the hazards (B, K) and attention (B, layers, heads, 1+S, 1+S), token 0 being CLS; of several places the
            attention is the mean, weighted by their shares of the hazard.
        """
        tokens, is_padding = self.tokens_of(embeddings, times, lengths)
        tokens, attention = self.encoder(tokens, is_padding)
        of_places = self.decide(tokens).unflatten(0, (len(embeddings), -1))
        share = functional.softplus(of_places).sum(-1).clamp_min(torch.finfo(tokens.dtype).tiny)
        share = (share / share.sum(1, keepdim=True))[..., None, None, None, None]
        return any_place(of_places), (share * attention.unflatten(0, (len(embeddings), -1))).sum(1)

    def tokens_of(self, embeddings: Tensor, times: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """What the encoder reads: CLS and the dated exams (B · P, 1+S, D), and which are padding (B · P, 1+S)."""
        dim = self.config.dims[-1]
        series = embeddings.unflatten(-1, (-1, dim)).transpose(1, 2)  # (B, P, S, D)
        B, P, S, D = series.shape
        is_padding = torch.arange(S, device=embeddings.device) >= lengths[:, None].expand(B, P).reshape(-1, 1)
        times = times[:, None].expand(B, P, S).flatten(0, 1).masked_fill(is_padding, 0)
        exams = series.flatten(0, 1).masked_fill(
            is_padding[..., None], 0
        )  # NaN in padding would survive attention of 0
        tokens = torch.cat([self.cls_token.expand(B * P, 1, D), exams], dim=1)
        if self.change is not None:
            tokens = tokens + self.change(exams, times, lengths.repeat_interleave(P))
        times = torch.cat([times.new_zeros(B * P, 1), times], dim=1)
        is_padding = torch.cat([is_padding.new_zeros(B * P, 1), is_padding], dim=1)
        return self.dropout(tokens + time_encoding(times, D).to(tokens.dtype)), is_padding

    def decide(self, tokens: Tensor) -> Tensor:
        """The encoder's output (N, 1+S, D) → logits of the hazards (N, K), from CLS alone."""
        cls = tokens[:, 0]
        if self.config.head == "gelu":
            hidden = functional.gelu(self.pooler(self.head_norm(cls)))
        else:
            hidden = self.head_norm(torch.tanh(self.pooler(cls)))
        logits: Tensor = self.head(hidden)
        return logits

    def forward(self, images: Tensor, times: Tensor, lengths: Tensor) -> Tensor:
        """Images (B, S, C, X, Y, Z), times (B, S), lengths (B,) → logits (B, K); only real exams are encoded."""
        is_exam = torch.arange(images.shape[1], device=images.device) < lengths[:, None]
        encoded = self.backbone(images[is_exam])
        embeddings = encoded.new_zeros(*is_exam.shape, encoded.shape[-1])
        embeddings[is_exam] = encoded
        return self.classify(embeddings, times, lengths)[0]
