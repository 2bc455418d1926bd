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

if sys.platform == "win32":
    import ctypes
    from ctypes import wintypes

LONGEST_LINE = 1_000_000  # bytes
_TAIL_LINES = 50
_LONGEST_TAIL_LINE = 1_000
_LAST_WORDS_SECONDS = 1.0


class ProcessTree:
    """A running process, its children and theirs.

    A launcher (PythonSlicer, say) starts the real program as its child: ending the launcher alone would leave that running.
    The tree is a session of its own, on Windows a job. Where Windows grants no job, only the launcher is killed, and the
    rest has to end by itself when its standard input does.

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
        if sys.platform == "win32":
            self._job = job_of(self._process)
        self._lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._tail: deque[str] = deque(maxlen=_TAIL_LINES)
        self._killed: float | None = None
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

    @property
    def has_said_all(self) -> bool:
        """Whether nothing more comes from a tree that was killed: its output has been read, or a second has gone by."""
        if self._killed is None:
            return False
        is_read = not any(reader.is_alive() for reader in self._readers)
        return is_read or time.monotonic() - self._killed > _LAST_WORDS_SECONDS

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

    def kill(self) -> None:
        """Has the whole tree ended, and waits for nothing: ``wait`` and ``has_said_all`` tell when it is over.

        The process is buried, and its pipes are closed, by a thread in the background.
        """
        if self._killed is not None:
            return  # its number may be another process's by now
        self._killed = time.monotonic()
        self._kill_all()
        with contextlib.suppress(RuntimeError):  # while Python ends no thread can be started, and the system buries
            threading.Thread(target=self._bury, daemon=True).start()

    def _kill_all(self) -> None:
        if sys.platform == "win32":
            if self._job is not None:
                end_job(self._job)
        else:
            with contextlib.suppress(ProcessLookupError, PermissionError):  # the latter of macOS, for a dead group
                os.killpg(self._process.pid, signal.SIGKILL)
        self._process.kill()

    def _bury(self) -> None:
        self.end_input()
        self._process.wait()
        for reader, pipe in zip(self._readers, (self._process.stdout, self._process.stderr), strict=True):
            reader.join()  # the last of the tree to die closes the pipes
            if pipe is not None:
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


if sys.platform == "win32":
    # Children that outlive their parent can't be found any more; a job knows them. It is not made to end with this process:
    # a worker whose client has died must have the time to remove the images.
    _kernel = ctypes.WinDLL("kernel32")
    _kernel.CreateJobObjectW.argtypes = [wintypes.LPVOID, wintypes.LPCWSTR]
    _kernel.CreateJobObjectW.restype = wintypes.HANDLE
    _kernel.AssignProcessToJobObject.argtypes = [wintypes.HANDLE, wintypes.HANDLE]
    _kernel.TerminateJobObject.argtypes = [wintypes.HANDLE, wintypes.UINT]
    _kernel.CloseHandle.argtypes = [wintypes.HANDLE]

    def job_of(process: subprocess.Popen[bytes]) -> int | None:
        """A job that holds a process that was just started, and all that it will start; None where there can be none."""
        job: int | None = _kernel.CreateJobObjectW(None, None)
        process_handle = int(process._handle)  # type: ignore[attr-defined]
        if job is None or _kernel.AssignProcessToJobObject(job, process_handle):
            return job
        _kernel.CloseHandle(job)
        return None

    def end_job(job: int) -> None:
        """Ends all processes of a job."""
        _kernel.TerminateJobObject(job, 1)
        _kernel.CloseHandle(job)


def describe_status(status: int) -> str:
    """An exit status in words."""
    if status >= 0:
        return f"exit status {status}" if status < 0x80000000 else f"exit status 0x{status:08X}"
    try:
        return f"signal {-status}, {signal.Signals(-status).name}"
    except ValueError:
        return f"signal {-status}"
