"""Callbacks on VTK objects that end together and keep nothing alive afterwards."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Observers:
    """Callbacks on nodes.

    Slicer's ``VTKObservationMixin`` refers to every object that it ever observed. The subject hierarchy of a closed scene
    then lives on, and its items are found in place of new nodes that have the same address ("DataNodeCache inconsistency").
    """

    def __init__(self) -> None:
        self._tags: list[tuple[Any, int]] = []

    def add(self, observed: Any, event: int | str, callback: Callable[..., None]) -> None:
        """Calls back at every such event, until ``clear``."""
        self._tags.append((observed, observed.AddObserver(event, callback)))

    def clear(self) -> None:
        """Calls back no more, and forgets what was observed."""
        for observed, tag in self._tags:
            observed.RemoveObserver(tag)
        self._tags = []
