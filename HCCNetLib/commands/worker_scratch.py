"""The folders with a client's images, which must not outlive it. Nothing heavy: it works while torch is still imported."""

from __future__ import annotations

import errno
import json
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

PROTOCOL_VERSION = 1
SCRATCH_PREFIX = "HCCNet-"

_ATTEMPTS = 20
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


class Scratch:
    """The folders of clients that are to go with the worker."""

    def __init__(self) -> None:
        self._folders: set[Path] = set()

    def add(self, folder: Path | None) -> None:
        """Remembers a folder."""
        for known in list(self._folders):  # a copy: two threads add
            if not known.is_dir():
                self._folders.discard(known)
        if folder is not None:
            self._folders.add(folder)

    def remove(self) -> None:
        """Removes all; again where the work that still goes on has just written something."""
        for folder in list(self._folders):
            for _ in range(_ATTEMPTS):
                shutil.rmtree(folder, ignore_errors=True)
                if not os.path.lexists(folder):
                    break
                time.sleep(0.01)


def announced_folder(line: bytes) -> Path | None:
    """The folder that a line with the op ``scratch`` names; None for any other line, and for one that is not right."""
    try:
        content = json.loads(line.decode("ascii"))
        if (content["v"], content["op"]) != (PROTOCOL_VERSION, "scratch"):
            return None
        os.fsencode(content["folder"])  # raises where no folder can have such a name
        folder = Path(content["folder"])
    except (ValueError, RecursionError, TypeError, KeyError):
        return None
    return folder if is_scratch(folder) else None


def is_scratch(folder: Path) -> bool:
    """Whether a folder may be removed with all that is in it: a client's slip must not cost a home folder."""
    return folder.is_absolute() and folder.name.startswith(SCRATCH_PREFIX) and "\0" not in str(folder)


def write_no_more() -> None:
    """From now on no thread of this process makes a file or a folder.

    The work goes on until the process has ended: it would make a folder that was just removed again, for its result.
    """

    def refuse(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "os.mkdir" or (event == "open" and isinstance(arguments[2], int) and arguments[2] & _WRITING):
            raise OSError(errno.ECANCELED, "the worker is ending")

    sys.addaudithook(refuse)
