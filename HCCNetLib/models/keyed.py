"""Dropout and stochastic depth whose masks follow from keys, one per row of the batch, instead of a global state.

A sample's mask is then the same wherever it stands in a batch, however a batch is divided over processes and passes, and
after training was stopped and continued. Numbers come from the finaliser of SplitMix64 (Steele et al. 2014,
doi 10.1145/2660193.2660195) over key, stream and position: integer arithmetic, alike on every device.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

_GOLDEN, _MIX1, _MIX2 = (value - 2**64 for value in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))
_BITS = 24  # what single precision resolves in [0, 1)


def _shift_right(x: Tensor, bits: int, into: Tensor) -> Tensor:
    """A logical shift: torch's own keeps the sign."""
    return torch.bitwise_right_shift(x, bits, out=into).bitwise_and_((1 << (64 - bits)) - 1)


def _mix_in_place(x: Tensor) -> Tensor:
    # In place and with one buffer: fresh memory for each operation costs more than the arithmetic.
    buffer = torch.empty_like(x)
    x.bitwise_xor_(_shift_right(x, 30, buffer)).mul_(_MIX1)
    x.bitwise_xor_(_shift_right(x, 27, buffer)).mul_(_MIX2)
    return x.bitwise_xor_(_shift_right(x, 31, buffer))


def mix(x: Tensor) -> Tensor:
    """Whole numbers (int64) → whole numbers that look independent of each other."""
    return _mix_in_place(x.clone())


def keyed_uniform(keys: Tensor, stream: int, count: int) -> Tensor:
    """Uniform numbers in [0, 1).

    Args:
        keys: (N,) int64.
        stream: different numbers for the same key.
        count: numbers per key.

    Returns:
        (N, count) single precision; a row depends on its key and the stream alone.
    """
    start = mix(keys + mix(torch.tensor(stream + 1, device=keys.device) * _GOLDEN))
    position = torch.arange(1, count + 1, device=keys.device) * _GOLDEN
    mixed = _mix_in_place(start[:, None] + position)
    return _shift_right(mixed, 64 - _BITS, mixed).float().div_(2**_BITS)


class KeyedRandomness(nn.Module):
    """A layer that is random in training: by keys where ``give_keys`` set them, else by torch's generator."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate
        self._keys: Tensor | None = None
        self._stream = 0

    def set_keys(self, keys: Tensor | None, stream: int) -> None:
        """Sets the rows' keys for the next forward pass; each call within it takes the next stream."""
        self._keys, self._stream = keys, stream

    def _kept(self, x: Tensor, shape: list[int]) -> Tensor:
        """1 where something is kept, 0 elsewhere: (N, *shape)."""
        if self._keys is None:
            return x.new_empty([len(x), *shape]).bernoulli_(1 - self.rate)
        count = 1
        for n in shape:
            count *= n
        kept = keyed_uniform(self._keys, self._stream, count) >= self.rate
        self._stream += 1
        return kept.view(len(x), *shape).to(x.dtype)


class Dropout(KeyedRandomness):
    """Zeroes single values in training and scales up the others."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, ...) → the same shape."""
        if not self.training or self.rate == 0:
            return x
        if self._keys is None:
            return functional.dropout(x, self.rate)
        return x * self._kept(x, list(x.shape[1:])) / (1 - self.rate)


class DropPath(KeyedRandomness):
    """Stochastic depth: drops a residual branch for a whole sample (arXiv 1603.09382)."""

    def forward(self, x: Tensor) -> Tensor:
        """Zeroes samples of (N, ...) at random in training and scales up the others."""
        if not self.training or self.rate == 0:
            return x
        return x * self._kept(x, [1] * (x.ndim - 1)) / (1 - self.rate)


# Layers take streams this far apart, so that one that is called several times does not run into the next.
_CALLS = 64


def give_keys(module: nn.Module, keys: Tensor | None) -> None:
    """Gives the rows' keys (N,) to all random layers of a module, for one forward pass; None: torch's generator again."""
    layers = (layer for layer in module.modules() if isinstance(layer, KeyedRandomness))
    for number, layer in enumerate(layers):
        layer.set_keys(keys, number * _CALLS)
