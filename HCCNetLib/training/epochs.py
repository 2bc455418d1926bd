"""Which item stands where: each epoch reads all of them in an order of its own, and a batch may reach into the next."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def places_of_step(step: int, batch: int, count: int, key: Sequence[int]) -> list[tuple[int, int]]:
    """The items of a step.

    Args:
        step: from 0.
        batch: items per step.
        count: of all items.
        key: seeds the orders, together with the epoch.

    Returns:
        Per item its index and the epoch.
    """
    first = step * batch
    places = [divmod(first + i, count) for i in range(batch)]
    orders = {epoch: np.random.default_rng([*key, epoch]).permutation(count) for epoch, _ in places}
    return [(int(orders[epoch][place]), epoch) for epoch, place in places]
