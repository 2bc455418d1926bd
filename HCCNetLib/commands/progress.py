"""Progress on standard error: a bar on a terminal, a plain line now and then otherwise. Names no patient."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from typing import Protocol, TextIO

_WIDTH = 24
_LINE_SECONDS = 10.0


class Teller(Protocol):
    """Something that is told where the work stands: a bar, or a client of the worker."""

    def __call__(self, stage: str, done: int, total: int) -> None:
        """A stage, how much of it is done, and how much there is."""
        ...

    def close(self) -> None:
        """The work is over."""
        ...


@dataclass
class Progress:
    """Call it with a stage, how much of it is done, and how much there is.

    Args:
        prefix: e.g. ``patient 2 of 5``.
        stream: standard error where None.
    """

    prefix: str = ""
    stream: TextIO | None = None
    _stage: str | None = None
    _last_line: float = 0.0

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Shows where the work stands."""
        stream = self.stream or sys.stderr
        label = f"{self.prefix}: {stage}" if self.prefix else stage
        if stream.isatty():
            filled = _WIDTH * done // max(total, 1)
            stream.write(f"\r\x1b[K{label} [{'█' * filled}{'·' * (_WIDTH - filled)}] {done}/{total}")
            stream.flush()
        elif stage != self._stage or time.monotonic() - self._last_line >= _LINE_SECONDS:
            print(f"{label} {done}/{total}", file=stream, flush=True)
            self._last_line = time.monotonic()
        self._stage = stage

    def close(self) -> None:
        """Clears the bar."""
        stream = self.stream or sys.stderr
        if stream.isatty():
            stream.write("\r\x1b[K")
            stream.flush()
