"""What a run says of itself: JSON lines, TensorBoard where it is installed. Names no patient."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from HCCNetLib.records import Refusal
from HCCNetLib.training.checkpoint import write_whole

LOG_FILE = "log.jsonl"


class RunLog:
    """Scalars by step. A run that is continued drops what was logged after its checkpoint.

    Args:
        folder: of the run.
        step: from which it goes on.
    """

    def __init__(self, folder: Path, step: int) -> None:
        self._path = folder / LOG_FILE
        self._drop_after(step)
        self._board = _tensorboard(folder / "tensorboard", step)

    def add(self, step: int, scalars: Mapping[str, float]) -> None:
        """Adds a line and, where it is there, points in TensorBoard."""
        finite = {name: (value if math.isfinite(value) else None) for name, value in scalars.items()}
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": step, **finite}) + "\n")
        except OSError as error:
            message = f"The log in {self._path.parent} can't be written: {error.strerror}. Make room, then go on."
            raise Refusal("cannot_write", message) from error
        if self._board is not None:
            for name, value in scalars.items():
                self._board.add_scalar(name, value, step)

    def close(self) -> None:
        """Flushes what TensorBoard has not written yet."""
        if self._board is not None:
            self._board.close()

    def _drop_after(self, step: int) -> None:
        if not self._path.is_file():
            return
        kept = []
        for line in self._path.read_text(encoding="utf-8").splitlines():
            try:
                if json.loads(line)["step"] <= step:
                    kept.append(line)
            except (ValueError, KeyError, TypeError):
                continue  # cut short when the process was killed
        write_whole(self._path, "".join(f"{line}\n" for line in kept).encode())


def _tensorboard(folder: Path, step: int) -> Any:
    try:
        board = import_module("torch.utils.tensorboard")
    except ImportError:
        return None
    return board.SummaryWriter(str(folder), purge_step=step + 1 if step else None)
