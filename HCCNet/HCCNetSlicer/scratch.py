"""Folders for a patient's images on their way to the worker: none may stay, whoever dies. Standard library alone."""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import re
import shutil
import sys
import tempfile
import time
from pathlib import Path

FOLDER_PREFIX = "HCCNet-"  # the worker removes no other folder

_NAME = re.compile(FOLDER_PREFIX + r"([0-9a-f]{8})-(\d{1,9})-\w+")
_DAY_SECONDS = 86_400
_LAST_ATTEMPTS = 10


class ScratchFolders:
    """The folders of one owner in this process.

    Args:
        root: where they are made; None: the system's place for temporary files.
    """

    def __init__(self, root: Path | None = None) -> None:
        self.root = root
        self._folders: set[Path] = set()
        self._released: set[Path] = set()

    @property
    def all(self) -> list[Path]:
        """Those that are there, also those that could not be removed yet."""
        return sorted(self._folders)

    def make(self) -> Path:
        """A fresh folder, for this user alone; its name tells whose it is. Raises OSError."""
        if self.root is not None:
            self.root.mkdir(parents=True, exist_ok=True)
        prefix = f"{FOLDER_PREFIX}{_system()}-{os.getpid()}-"
        folder = Path(tempfile.mkdtemp(prefix=prefix, dir=self.root)).absolute()
        self._folders.add(folder)
        return folder

    def holder_of(self, path: Path) -> Path | None:
        """The folder in which something lies; None where it lies elsewhere."""
        return next((folder for folder in self._folders if folder in path.parents), None)

    def release(self, folder: Path) -> None:
        """Removes a folder now or, where a file in it is still open, by a later ``retry``; another one's is left alone."""
        if folder in self._folders:
            self._released.add(folder)
            self.retry()

    def retry(self) -> None:
        """Removes what has been released and could not be removed; only what is gone is forgotten."""
        for folder in list(self._released):
            shutil.rmtree(folder, ignore_errors=True)
            if not os.path.lexists(folder):
                self._released.discard(folder)
                self._folders.discard(folder)

    def remove_all(self) -> None:
        """Removes all, and waits a little where a process that is about to end still holds a file."""
        self._released |= self._folders
        for _ in range(_LAST_ATTEMPTS):
            self.retry()
            if not self._released:
                return
            time.sleep(0.05)

    def sweep(self) -> None:
        """Removes the folders of owners that died before they could."""
        for folder in Path(self.root or tempfile.gettempdir()).glob(f"{FOLDER_PREFIX}*"):
            with contextlib.suppress(OSError):
                if _is_orphan(folder):
                    shutil.rmtree(folder, ignore_errors=True)


def _is_orphan(folder: Path) -> bool:
    name = _NAME.fullmatch(folder.name)
    if name is None or folder.is_symlink() or not folder.is_dir():
        return False
    if sys.platform != "win32" and name[1] == _system():
        return not _is_alive(int(name[2]))
    # On Windows asking os.kill would end the process; and of another computer's processes nobody here knows.
    return time.time() - folder.stat().st_mtime > _DAY_SECONDS


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        return True
    return True


def _system() -> str:
    """Stands for where a process's number means something: this computer, this container."""
    numbers = ""
    with contextlib.suppress(OSError, AttributeError):  # AttributeError: no links on this system
        numbers = os.readlink("/proc/self/ns/pid")  # noqa: PTH115 - it is no path of a file
    return hashlib.sha256(f"{platform.node()} {numbers}".encode()).hexdigest()[:8]
