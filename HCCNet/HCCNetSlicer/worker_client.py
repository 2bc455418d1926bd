"""Starts the worker (``HCCNetLib.commands.worker``, where its protocol is told), keeps it, and speaks with it.

The standard library alone and no Qt: whoever uses it calls ``poll()`` now and then, by a timer say.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import sys
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from HCCNetSlicer.processes import LONGEST_LINE, ProcessTree, describe_status
from HCCNetSlicer.scratch import FOLDER_PREFIX as FOLDER_PREFIX
from HCCNetSlicer.scratch import ScratchFolders

PROTOCOL_VERSION = 1

_LINES_PER_POLL = 1_000
_POLITE_SECONDS = 1.0
_DYING_SECONDS = 1.0
_LONGEST_STEP = 5.0  # seconds between two polls; more is a computer that slept or a program that was busy

_ADVICE = "Predict again; if it happens again, look at the details."
_ONE_RELEASE = "Install library and module of one release."


@dataclass(frozen=True)
class Patience:
    """Seconds without any event after which the worker is taken for dead.

    Args:
        start: from its start until it is ready.
        silence: during a request.
    """

    start: float = 120.0
    silence: float = 300.0


@dataclass(frozen=True)
class PredictRequest:
    """What to predict.

    Args:
        table: cohort table of one patient.
        out: folder for the result.
        bundle: of networks; None: the demonstration networks.
        explain: none, attention or saliency.
        method: that makes the maps; None: the library's default.
        device: auto, cpu or cuda.
        resample_channels: the channels of an exam share one patient space though not one grid.
    """

    table: Path
    out: Path
    bundle: Path | None = None
    explain: str = "saliency"
    method: str | None = None
    device: str = "auto"
    resample_channels: bool = False


class WorkerError(Exception):
    """A prediction, or the worker itself, failed.

    Args:
        code: short machine-readable name of the reason.
        message: what is wrong and what to do, for a person.
        details: the latest lines of the worker's standard error; shown on demand.
        exam_id: the exam concerned, if it is one exam.
    """

    def __init__(self, code: str, message: str, details: str = "", exam_id: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.details = details
        self.exam_id = exam_id


def cancelled() -> WorkerError:
    """The error of a prediction that somebody ended."""
    return WorkerError("cancelled", "The prediction was cancelled.")


@dataclass(frozen=True)
class Progress:
    """Where a request stands; ``exam`` and ``member`` count from 1, ``fraction`` is of the whole request, 0–1."""

    stage: str
    exam: int | None
    member: int | None
    fraction: float


@dataclass(frozen=True)
class Notice:
    """Something that a person should know and that does not end the request."""

    message: str


@dataclass(frozen=True)
class Result:
    """A request's good end: the path of prediction.json, and the notices that came on the way."""

    path: Path
    notices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Failure:
    """A request's bad end; or, where ``of_request`` is False, the end of a worker that had nothing to do."""

    error: WorkerError
    of_request: bool = True


Event = Progress | Notice | Result | Failure


@dataclass
class _Running:
    """The request that is worked on.

    Args:
        request: as it was last sent, with paths that are absolute.
        folder: of the client's own, in which its table lies.
        id: as last sent; None while it waits for the worker.
        stale: whether the worker is of an earlier request and has not been heard of in this one.
    """

    request: PredictRequest
    folder: Path | None
    id: str | None = None
    stale: bool = False
    notices: list[str] = field(default_factory=list)


@dataclass
class _Silence:
    """Seconds without any event, without those that the computer slept."""

    seconds: float = 0.0
    looked: float = field(default_factory=time.monotonic)

    def grow(self) -> None:
        """Time has gone by."""
        now = time.monotonic()
        self.seconds += min(now - self.looked, _LONGEST_STEP)
        self.looked = now


class _Belongings:
    """What a client must not leave behind; apart from it, so that they can end when it is no more.

    Args:
        folders: for its requests.
    """

    def __init__(self, folders: ScratchFolders) -> None:
        self.tree: ProcessTree | None = None
        self.folders = folders

    def end(self) -> None:
        """Ends the worker, then removes the folders, into which it writes no more."""
        tree, self.tree = self.tree, None
        if tree is not None:
            tree.kill()
            tree.wait(_DYING_SECONDS)
        self.folders.remove_all()


class _BrokenLine(Exception):
    """A line that is not of the protocol; says why in a few words."""


class WorkerClient:
    """One worker, and at most one request at a time.

    Worker and folders go with the client: by ``close``, when nobody refers to it any more, and when Python ends.

    Args:
        command: starts the worker; see ``default_command``.
        environment: of the worker; None: this process's.
        patience: how long it may be silent.
        scratch_root: where folders for requests are made; None: the system's place for temporary files.
    """

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str] | None = None,
        patience: Patience | None = None,
        scratch_root: Path | None = None,
    ) -> None:
        self._command = list(command)
        self._environment = environment
        self._patience = patience or Patience()
        self._own = _Belongings(ScratchFolders(scratch_root))
        weakref.finalize(self, self._own.end)
        self._has_swept = False
        self._versions: dict[str, str] | None = None
        self._running: _Running | None = None
        self._silence = _Silence()
        self._events: list[Event] = []
        self._ids = itertools.count(1)

    @property
    def _tree(self) -> ProcessTree | None:
        return self._own.tree

    @property
    def is_running(self) -> bool:
        """Whether a request is worked on."""
        return self._running is not None

    @property
    def is_ready(self) -> bool:
        """Whether the worker has started and works as soon as it is asked."""
        return self._versions is not None

    @property
    def versions(self) -> dict[str, str]:
        """The packages that shape a result, and Python; empty while the worker is not ready."""
        return dict(self._versions or {})

    @property
    def pid(self) -> int | None:
        """The worker's process, or its launcher's; None where there is none."""
        return None if self._tree is None else self._tree.pid

    def start(self) -> None:
        """Starts the worker, if there is none, and returns at once: it gets ready meanwhile. A failure comes by ``poll``.

        The first time, folders are removed that the client of a program that died has left.
        """
        if self._tree is not None:
            return
        if not self._has_swept:
            self._has_swept = True
            self._own.folders.sweep()
        self._silence = _Silence()
        try:
            self._own.tree = ProcessTree(self._command, self._environment)
        except OSError as error:
            reason = error.strerror or type(error).__name__
            message = f"The worker can't be started: {self._command[0]}: {reason}. Install the extension again."
            self._fail("not_started", message)
        for folder in self._own.folders.all:
            self._announce(folder)

    def new_folder(self) -> Path:
        """A fresh folder, for this user alone, for a request's images, table and result.

        It goes when its request fails or is cancelled, by ``release``, and with the client. Should this program die, the
        worker removes it, or else the next client.

        Raises:
            WorkerError: there is no place for it.
        """
        try:
            folder = self._own.folders.make()
        except OSError as error:
            reason = error.strerror or type(error).__name__
            place = self._own.folders.root or "the place for temporary files"
            message = f"No folder can be made in {place}: {reason}. Check its permissions and the free space."
            raise WorkerError("no_folder", message) from error
        self._announce(folder)
        return folder

    def release(self, folder: Path) -> None:
        """Removes a folder of ``new_folder`` once its result has been taken; another one's folder is left alone.

        Where a file in it is still open, the folder goes by a later ``poll`` or by ``close``.
        """
        self._own.folders.release(folder)

    def works_on(self, folder: Path) -> bool:
        """Whether the running request is the one whose table lies in this folder."""
        return self._running is not None and self._running.folder == folder

    def predict(self, request: PredictRequest) -> None:
        """Asks for a prediction; everything that becomes of it comes by ``poll``.

        What became of an earlier request and has not been polled is dropped.

        Raises:
            ValueError: another request is running.
        """
        if self._running is not None:
            raise ValueError("a request is running")
        bundle = None if request.bundle is None else request.bundle.absolute()
        request = replace(request, table=request.table.absolute(), out=request.out.absolute(), bundle=bundle)
        self._forget_requests()
        self._running = _Running(request, self._own.folders.holder_of(request.table))
        if self._tree is not None and self._tree.status is not None:
            self._kill()  # it ended since the last poll, with nothing to do: nobody's loss
        self._running.stale = self.is_ready
        self._silence = _Silence()
        self.start()
        self._send()

    def poll(self) -> list[Event]:
        """What has happened since the last time, in its order.

        It waits for nothing: not for events, and not for the end of a worker that it kills.
        """
        self._read_lines()
        self._watch()
        self._own.folders.retry()
        events, self._events = self._events, []
        return events

    def wait(self, on_event: Callable[[Event], None] | None = None, interval: float = 0.05) -> Result:
        """Waits for the end of the running request, for scripts and tests; Ctrl-C cancels the request.

        Args:
            on_event: is given every event as it comes.
            interval: seconds between two looks.

        Raises:
            WorkerError: the request failed, or was cancelled meanwhile.
            ValueError: no request is running.
        """
        running = self._running
        if running is None and not any(_is_end(event) for event in self._events):
            raise ValueError("no request is running")
        try:
            while True:
                for event in self.poll():
                    if on_event is not None:
                        on_event(event)
                    if isinstance(event, Result):
                        return event
                    if isinstance(event, Failure) and event.of_request:
                        raise event.error
                if running is None or self._running is not running:
                    raise cancelled()
                time.sleep(interval)
        finally:
            if running is not None and self._running is running:  # not one that on_event began
                self.cancel()

    def cancel(self) -> None:
        """Ends the running request and its worker, removes its folder, and starts a fresh worker; waits for nothing.

        What became of the request and has not been polled is dropped.
        """
        self._forget_requests()
        if self._running is None:
            return
        if self._running.id is not None:  # a worker that is only getting ready may go on with that
            self._kill()
        self._end_request(keep_folder=False)
        self.start()

    def close(self) -> None:
        """Ends the worker and removes all folders, for which it may wait some seconds. The client can be used again."""
        if self._tree is not None and self.is_ready and not self.is_running:
            self._shut_down(self._tree)
        self._versions = None
        self._running = None
        self._events = []
        self._own.end()

    # ---------------------------------------------------------------- to the worker

    def _announce(self, folder: Path) -> None:
        """Names a folder to the worker, also to one that is not ready: should this program die, the worker removes it."""
        content = {"v": PROTOCOL_VERSION, "id": "scratch", "op": "scratch", "folder": str(folder)}
        with contextlib.suppress(OSError):  # a worker that reads no more has ended, and is found so by its status
            if self._tree is not None:
                self._tree.send(_line(content))

    def _send(self) -> None:
        """Sends the request, if there is one and the worker is ready for it."""
        if self._running is None or self._tree is None or not self.is_ready:
            return
        self._running.id = str(next(self._ids))
        self._silence = _Silence()
        request, folder = self._running.request, self._running.folder
        content = {
            "v": PROTOCOL_VERSION,
            "id": self._running.id,
            "op": "predict",
            "table": str(request.table),
            "bundle": None if request.bundle is None else str(request.bundle),
            "out": str(request.out),
            "explain": request.explain,
            "method": request.method,
            "device": request.device,
            "resample_channels": request.resample_channels,
            "scratch": None if folder is None else str(folder),
        }
        with contextlib.suppress(OSError):  # a worker that reads no more has ended, and is found so by its status
            self._tree.send(_line(content))

    def _shut_down(self, tree: ProcessTree) -> None:
        with contextlib.suppress(OSError):
            tree.send(_line({"v": PROTOCOL_VERSION, "id": str(next(self._ids)), "op": "shutdown"}))
        tree.end_input()
        tree.wait(_POLITE_SECONDS)

    def _kill(self) -> str:
        """Has the worker ended; returns its latest words."""
        tree, self._own.tree, self._versions = self._own.tree, None, None
        if tree is None:
            return ""
        tree.kill()
        return tree.tail

    # ---------------------------------------------------------------- from the worker

    def _read_lines(self, limit: int | None = _LINES_PER_POLL) -> None:
        for _ in itertools.count() if limit is None else range(limit):
            line = None if self._tree is None else self._tree.next_line()
            if line is None:
                return
            try:
                self._take(_event_of(line))
            except _BrokenLine as broken:
                message = f"The worker sent a line that is not of the protocol ({broken}) and was ended. {_ONE_RELEASE}"
                self._fail("protocol", message)

    def _take(self, event: Mapping[str, Any]) -> None:
        kind, known = event.get("event"), event.get("id")
        if kind == "ready":
            self._take_ready(event)
        elif kind not in ("progress", "result", "error"):
            raise _BrokenLine("an unknown event")
        elif known is None and kind == "error":
            self._silence = _Silence()
            self._take_error_of_worker(event)
        elif self._running is not None and known is not None and known == self._running.id:
            self._silence = _Silence()
            self._running.stale = False
            {"progress": self._take_progress, "result": self._take_result, "error": self._take_error}[kind](event)
        # Else it is about a request that is no more.

    def _take_ready(self, event: Mapping[str, Any]) -> None:
        version, versions = event.get("v"), event.get("versions")
        if version != PROTOCOL_VERSION:
            message = (
                f"The worker speaks version {_shown(version)} of the protocol, this module version {PROTOCOL_VERSION}: "
                f"install library and module of one release."
            )
            self._fail("wrong_version", message)
            return
        if not isinstance(versions, dict):
            raise _BrokenLine("no versions")
        if not self.is_ready:
            self._versions = {str(name): str(value) for name, value in versions.items()}
            self._send()

    def _take_progress(self, event: Mapping[str, Any]) -> None:
        stage, fraction = event.get("stage"), event.get("fraction")
        exam, member = event.get("exam"), event.get("member")
        counted = all(n is None or type(n) is int for n in (exam, member))
        if not isinstance(stage, str) or not isinstance(fraction, int | float) or not 0 <= fraction <= 1 or not counted:
            raise _BrokenLine("progress with a wrong field")
        self._events.append(Progress(stage, exam, member, float(fraction)))

    def _take_result(self, event: Mapping[str, Any]) -> None:
        assert self._running is not None
        path = event.get("path")
        if not isinstance(path, str) or not os.path.isfile(path):  # noqa: PTH113 - Path raises where a string is no path
            raise _BrokenLine("a result that is not there")
        self._events.append(Result(Path(path), tuple(self._running.notices)))
        self._end_request(keep_folder=True)

    def _take_error(self, event: Mapping[str, Any]) -> None:
        assert self._running is not None
        error = self._error_of(event)
        if error.code == "out_of_memory" and self._running.request.device != "cpu":
            notice = (
                "The GPU's memory does not suffice: the prediction is made once more on the CPU, which takes longer."
            )
            self._running.notices.append(notice)
            self._events.append(Notice(notice))
            self._running.request = replace(self._running.request, device="cpu")
            self._send()
            return
        self._events.append(Failure(error))
        self._end_request(keep_folder=False)
        if (
            error.code == "internal"
        ):  # a process that met a bug, or a GPU that failed, is not trusted with the next patient
            self._kill()
            self.start()

    def _take_error_of_worker(self, event: Mapping[str, Any]) -> None:
        """An error of no request: the worker can't start, or does not understand what it was sent."""
        error = self._error_of(event)
        self._fail(error.code, error.message)

    def _error_of(self, event: Mapping[str, Any]) -> WorkerError:
        code, message, exam_id = event.get("code"), event.get("message"), event.get("exam_id")
        if not isinstance(code, str) or not isinstance(message, str) or not isinstance(exam_id, str | None):
            raise _BrokenLine("an error with a wrong field")
        return WorkerError(code, message, "" if self._tree is None else self._tree.tail, exam_id)

    # ---------------------------------------------------------------- the worker's end

    def _watch(self) -> None:
        """Notices a worker that has ended or is silent for too long."""
        self._silence.grow()
        if self._tree is None:
            return
        status = self._tree.status
        if status is not None:
            self._tree.kill()  # the rest of the tree
            if self._tree.has_said_all:
                self._take_end(self._tree, status)
        elif not self.is_ready and self._silence.seconds > self._patience.start:
            message = f"The worker was not ready after {self._patience.start:g} seconds and was ended. {_ADVICE}"
            self._fail("slow_start", message)
        elif self.is_running and self._silence.seconds > self._patience.silence:
            message = f"The worker gave no sign of life for {self._patience.silence:g} seconds and was ended. {_ADVICE}"
            self._fail("hang", message)

    def _take_end(self, tree: ProcessTree, status: int) -> None:
        self._read_lines(limit=None)
        if self._tree is not tree:  # its last words told why
            return
        if self._running is not None and self._running.stale:
            # It was ending when it was asked, and nobody could see that yet.
            self._running.id, self._running.stale = None, False
            self._kill()
            self.start()
            return
        advice = _ADVICE
        if status in (-9, 137):
            advice = "Often the system does this when the memory is full: close other programs and predict again."
        self._fail("crash", f"The worker ended unexpectedly ({describe_status(status)}). {advice}")

    def _fail(self, code: str, message: str) -> None:
        """Ends worker and request; the next request starts a fresh worker."""
        error = WorkerError(code, message, self._kill())
        self._events.append(Failure(error, self.is_running))
        self._end_request(keep_folder=False)

    def _end_request(self, keep_folder: bool) -> None:
        running, self._running = self._running, None
        if running is not None and running.folder is not None and not keep_folder:
            self.release(running.folder)

    def _forget_requests(self) -> None:
        """Drops the events of requests: whoever polls next must not take them for news of another one."""
        for event in self._events:
            folder = self._own.folders.holder_of(event.path) if isinstance(event, Result) else None
            if folder is not None:
                self.release(folder)
        self._events = [event for event in self._events if isinstance(event, Failure) and not event.of_request]


def default_command(
    library_root: Path, base_environment: Mapping[str, str] | None = None
) -> tuple[list[str], dict[str, str]]:
    """How the worker is started: PythonSlicer where there is one, else the Python that runs this.

    Args:
        library_root: the folder that holds ``HCCNetLib``.
        base_environment: of the worker, e.g. ``slicer.util.startupEnvironment()`` for a Python that is not PythonSlicer;
            None: this process's.

    Returns:
        Command and environment, for ``WorkerClient``.

    Raises:
        WorkerError: there is no Python.
    """
    environment = dict(os.environ if base_environment is None else base_environment)
    python = shutil.which("PythonSlicer")
    if python is None and Path(sys.executable or "").name.lower().startswith("python"):
        python = sys.executable
    if python is None:
        message = "PythonSlicer, which runs the prediction, was not found beside Slicer. Install Slicer again."
        raise WorkerError("no_python", message)
    paths = [str(library_root), environment.get("PYTHONPATH", "")]
    environment["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
    environment["PYTHONSAFEPATH"] = "1"  # a torch.py in the folder where Slicer was started is not torch
    return [python, "-m", "HCCNetLib.commands.worker"], environment


def _is_end(event: Event) -> bool:
    return isinstance(event, Result) or (isinstance(event, Failure) and event.of_request)


def _line(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content, ensure_ascii=True).encode("ascii") + b"\n"


def _event_of(line: bytes) -> dict[str, Any]:
    """A line as an object."""
    if len(line) >= LONGEST_LINE and not line.endswith(b"\n"):
        raise _BrokenLine("too long")
    try:
        event = json.loads(line.decode("ascii"))
    except UnicodeDecodeError as error:
        raise _BrokenLine("not ASCII") from error
    except (ValueError, RecursionError) as error:
        raise _BrokenLine("not JSON") from error
    if not isinstance(event, dict):
        raise _BrokenLine("not an object")
    return event


def _shown(value: object) -> str:
    return str(value)[:20]
