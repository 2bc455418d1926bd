"""A process with all that it starts: spoken with by lines, ended as a whole. Standard library alone."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import IO

LONGEST_LINE = 1_000_000  # bytes
_TAIL_LINES = 50
_LONGEST_TAIL_LINE = 1_000


class ProcessTree:
    """A running process, its children and theirs.

    A launcher (PythonSlicer, say) starts the real program as its child: ending the launcher alone would leave that running.

    Args:
        command: program and arguments.
        environment: of the process; None: this one's.

    Raises:
        OSError: the program can't be started.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
        self._process = subprocess.Popen(
            list(command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=None if environment is None else dict(environment),
            start_new_session=sys.platform != "win32",
            creationflags=_creation_flags(),
        )
        self._lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._tail: deque[str] = deque(maxlen=_TAIL_LINES)
        self._ended = False
        # Both must be read all the time: a process whose pipe is full stands still.
        readers = ((self._read_lines, self._process.stdout), (self._read_tail, self._process.stderr))
        self._readers = [threading.Thread(target=read, args=(pipe,), daemon=True) for read, pipe in readers]
        for reader in self._readers:
            reader.start()

    @property
    def pid(self) -> int:
        """The process itself: the launcher, where there is one."""
        return self._process.pid

    @property
    def status(self) -> int | None:
        """The exit status of the process itself, negative for a signal; None while it runs."""
        return self._process.poll()

    @property
    def tail(self) -> str:
        """The latest lines of standard error."""
        return "\n".join(self._tail.copy())

    def next_line(self) -> bytes | None:
        """The next line of standard output, None if there is none now; one that is too long comes in part, without its end."""
        try:
            return self._lines.get_nowait()
        except queue.Empty:
            return None

    def send(self, line: bytes) -> None:
        """Writes a line to standard input.

        Raises:
            OSError: the process reads no more.
        """
        assert self._process.stdin is not None
        self._process.stdin.write(line)
        self._process.stdin.flush()

    def end_input(self) -> None:
        """Closes standard input."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):  # what was not flushed finds no reader
            self._process.stdin.close()

    def wait(self, seconds: float) -> bool:
        """Whether the process itself has ended, after at most so long."""
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def kill(self, seconds: float = 1.0) -> None:
        """Ends the whole tree; afterwards nothing of it runs, and no zombie is left.

        Args:
            seconds: to wait for the end of the process and for the end of its output, each.
        """
        if self._ended:
            return  # its number may be another process's by now
        self._ended = True
        _kill_tree(self._process)
        self.wait(seconds)
        self.end_input()
        deadline = time.monotonic() + seconds
        for reader in self._readers:  # the last of the tree to die closes the pipes
            reader.join(max(0.0, deadline - time.monotonic()))
        for reader, pipe in zip(self._readers, (self._process.stdout, self._process.stderr), strict=True):
            if pipe is not None and not reader.is_alive():
                pipe.close()

    def _read_lines(self, pipe: IO[bytes]) -> None:
        while line := pipe.readline(LONGEST_LINE):
            self._lines.put(line)

    def _read_tail(self, pipe: IO[bytes]) -> None:
        while line := pipe.readline(_LONGEST_TAIL_LINE):
            self._tail.append(line.decode("utf-8", "replace").rstrip())


def _creation_flags() -> int:
    """On Windows: Ctrl-C of a console is not the process's business, and no window opens."""
    if sys.platform == "win32":
        return subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW
    return 0


def _kill_tree(process: subprocess.Popen[bytes]) -> None:
    if sys.platform == "win32":
        # Children are found through their parent, so the parent must not be gone before.
        taskkill = ["taskkill", "/F", "/T", "/PID", str(process.pid)]
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            flags = subprocess.CREATE_NO_WINDOW
            subprocess.run(taskkill, capture_output=True, timeout=5, check=False, creationflags=flags)
    else:
        with contextlib.suppress(ProcessLookupError, PermissionError):  # the latter of macOS, for a dead group
            os.killpg(process.pid, signal.SIGKILL)
    process.kill()


def describe_status(status: int) -> str:
    """An exit status in words."""
    if status >= 0:
        return f"exit status {status}" if status < 0x80000000 else f"exit status 0x{status:08X}"
    try:
        return f"signal {-status}, {signal.Signals(-status).name}"
    except ValueError:
        return f"signal {-status}"
