"""Learning rate, weight decay and the like over the steps of a run."""

from __future__ import annotations

import math


def cosine_schedule(base: float, final: float, steps: int, warmup: int = 0) -> list[float]:
    """A value per step: a line from ``final`` up to ``base``, then half a cosine back to ``final``.

    As in the published code (after DINO's): the warm-up ends on ``base``, the first step after it has ``base`` too, and
    ``final`` itself would be the value of the step after the last.

    Args:
        base: value after the warm-up.
        final: value at both ends.
        steps: of the whole run, at least ``warmup``.
        warmup: steps of the line.
    """
    line = [final + (base - final) * (i / (warmup - 1) if warmup > 1 else 0.0) for i in range(min(warmup, steps))]
    rest = steps - warmup
    curve = [final + 0.5 * (base - final) * (1 + math.cos(math.pi * i / rest)) for i in range(max(rest, 0))]
    return line + curve
