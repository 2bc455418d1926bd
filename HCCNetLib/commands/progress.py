"""Progress on standard error: a bar on a terminal, plain lines otherwise. Names no patient."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TextIO

_WIDTH = 24


@dataclass
class Progress:
    """Call it with a stage, how much of it is done, and how much there is.

    Args:
        prefix: e.g. ``patient 2 of 5``.
        stream: standard error where None.
    """

    prefix: str = ""
    stream: TextIO | None = None
    _last: tuple[str, int] | None = None

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Shows where the work stands."""
        stream = self.stream or sys.stderr
        label = f"{self.prefix}: {stage}" if self.prefix else stage
        if stream.isatty():
            filled = _WIDTH * done // max(total, 1)
            stream.write(f"\r\x1b[K{label} [{'█' * filled}{'·' * (_WIDTH - filled)}] {done}/{total}")
            stream.flush()
        elif self._last is None or self._last[0] != stage:
            # In a log one line per stage is enough.
            print(f"{label} ({total})", file=stream, flush=True)
        self._last = (stage, done)

    def close(self) -> None:
        """Clears the bar."""
        stream = self.stream or sys.stderr
        if stream.isatty():
            stream.write("\r\x1b[K")
            stream.flush()
