"""A small pre-norm transformer encoder that can return its attention."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from HCCNetLib.models.keyed import Dropout


class EncoderLayer(nn.Module):
    """Pre-norm self-attention and feed-forward layer (4D, GELU), residual around each.

    Sequences here have at most some twenty tokens, so attention is always computed explicitly; there is one path and its
    weights are at hand.
    """

    def __init__(self, dim: int, heads: int, dropout: float, eps: float) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(f"the width {dim} is not divisible by {heads} heads")
        self.heads = heads
        self.norm1 = nn.LayerNorm(dim, eps=eps)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.norm2 = nn.LayerNorm(dim, eps=eps)
        self.fc1 = nn.Linear(dim, 4 * dim)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(4 * dim, dim)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, is_padding: Tensor) -> tuple[Tensor, Tensor]:
        """One layer.

        Args:
            x: tokens (B, T, D).
            is_padding: (B, T), True where there is no token.

        Returns:
            Tokens (B, T, D) and attention (B, heads, T, T): rows are queries and sum to 1, padding receives 0.
        """
        attended, attention = self._attend(self.norm1(x), is_padding)
        x = x + self.dropout(attended)
        x = x + self.dropout(self.fc2(self.dropout(self.act(self.fc1(self.norm2(x))))))
        return x, attention

    def _attend(self, x: Tensor, is_padding: Tensor) -> tuple[Tensor, Tensor]:
        B, T, D = x.shape
        query, key, value = self.qkv(x).view(B, T, 3, self.heads, D // self.heads).permute(2, 0, 3, 1, 4)
        scores = query @ key.transpose(-2, -1) / (D // self.heads) ** 0.5
        scores = scores.masked_fill(is_padding[:, None, None, :], float("-inf"))
        attention = scores.softmax(dim=-1)
        mixed = (self.dropout(attention) @ value).transpose(1, 2).reshape(B, T, D)
        return self.proj(mixed), attention


class Encoder(nn.Module):
    """A stack of layers; no norm after the last one, as published."""

    def __init__(self, dim: int, heads: int, layers: int, dropout: float, eps: float) -> None:
        super().__init__()
        self.layers = nn.ModuleList(EncoderLayer(dim, heads, dropout, eps) for _ in range(layers))

    def forward(self, x: Tensor, is_padding: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens (B, T, D), padding (B, T) → tokens and attention (B, layers, heads, T, T)."""
        attentions = []
        for layer in self.layers:
            x, attention = layer(x, is_padding)
            attentions.append(attention)
        return x, torch.stack(attentions, dim=1)
