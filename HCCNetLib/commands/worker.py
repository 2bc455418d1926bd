"""The worker: predicts for a client in another process, ``python -m HCCNetLib.commands.worker``.

The protocol, version 1: one JSON object per line, ASCII, on standard input and output. Whatever a library prints goes to
standard error. The worker is warm: the latest bundle's networks stay loaded from request to request.

At the start, once everything is imported::

    {"event": "ready", "v": 1, "versions": {"hccnet": "...", "torch": "...", ...}}

or ``{"event": "error", "id": null, "code": "cannot_start", "message": "..."}`` and exit status 1.

Requests; ``id`` is a string or a whole number, ``bundle`` null or absent means the demonstration networks::

    {"v": 1, "id": "7", "op": "predict", "table": "/…/exams.csv", "bundle": null, "out": "/…/out",
     "explain": "none" | "attention" | "saliency", "device": "auto" | "cpu" | "cuda"}
    {"v": 1, "id": "8", "op": "shutdown"}

The table is a cohort table of one patient. Requests are worked on one at a time, in their order. ``explain`` and
``device`` may be left out. Further fields, none of them needed:

- ``method``: makes the maps of ``saliency``, one of ``METHODS``;
- ``resample_channels``: true where the channels of an exam share one patient space though not one grid;
- ``scratch``: the folder in which the table lies, its name begins with ``HCCNet-``. The worker removes it when its
  standard input ends or it is terminated, so that a client that died leaves no patient's images behind. A client that
  lives removes it itself.

A client may name such a folder before there is a request, also before the worker is ready: as soon as images lie in it.
There is no answer, unless the line is wrong::

    {"v": 1, "id": "6", "op": "scratch", "folder": "/…/HCCNet-…"}

Answers repeat the id; ``exam`` and ``member`` are numbers from 1 or null, ``fraction`` never falls within a request, and
the latest progress is told again while the work goes on and there is nothing new::

    {"event": "progress", "id": "7", "stage": "predicting", "exam": null, "member": 3, "fraction": 0.41}
    {"event": "result", "id": "7", "path": "/…/out/<patient>/prediction.json"}
    {"event": "error", "id": "7", "code": "missing_channel", "message": "...", "exam_id": "2021-03-14"}

Exactly one result or error ends a request; ``exam_id`` is there where the error is about one exam. Besides the codes of
refusals: ``bad_request`` and ``wrong_version`` (id null if the line does not tell it), ``out_of_memory`` (of the GPU; the
same request may do on the CPU), ``memory``, ``internal`` (a bug; the traceback is on standard error). After each of them
the worker goes on. End of standard input ends it at once, also in the midst of a request or of its start.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from types import FrameType
from typing import TYPE_CHECKING, Any, BinaryIO

from HCCNetLib.commands.worker_scratch import PROTOCOL_VERSION, Scratch, announced_folder, write_no_more

# Nothing heavy here: what the imports of torch and others print would reach the client as protocol.
if TYPE_CHECKING:
    from HCCNetLib.commands.worker_requests import PredictRequest

    Lines = queue.SimpleQueue[bytes]
    Waiting = queue.Queue[PredictRequest | None]

LONGEST_LINE = 1_000_000  # bytes

_ALIVE_SECONDS = 15.0
_WORKING_SHARE = 0.1  # of one core: a process that waits for a dead disk uses less

# Where in the request each stage lies; the networks with their explanation take most of the time.
_SPANS = {
    "opening bundle": (0.0, 0.03),
    "reading exams": (0.03, 0.15),
    "predicting": (0.15, 0.85),
    "explaining": (0.85, 0.9),
    "writing": (0.9, 1.0),
}


class Channel:
    """Where events go: the original standard output, one whole line at a time."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._lock = threading.Lock()

    def send(self, event: Mapping[str, Any]) -> None:
        """Sends one event; a client that no longer listens ends the worker by the end of standard input."""
        line = json.dumps(event, ensure_ascii=True, allow_nan=False).encode("ascii") + b"\n"
        with self._lock, contextlib.suppress(OSError):
            self._file.write(line)
            self._file.flush()


class Telling:
    """Progress of one request, as events.

    Args:
        channel: where they go.
        request_id: repeated in each.
    """

    def __init__(self, channel: Channel, request_id: str | int) -> None:
        self._channel = channel
        self._id = request_id
        self._latest: dict[str, Any] | None = None
        self._told = (time.monotonic(), time.process_time())
        self._over = threading.Event()
        self._lock = threading.Lock()  # nothing may be told of a request that is answered
        threading.Thread(target=self._keep_telling, daemon=True).start()

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Tells how far the work is."""
        start, end = _SPANS[stage]
        number = min(done + 1, total)
        self._latest = {
            "event": "progress",
            "id": self._id,
            "stage": stage,
            "exam": number if stage == "reading exams" else None,
            "member": number if stage == "predicting" else None,
            "fraction": round(start + (end - start) * done / max(total, 1), 4),
        }
        self._tell()

    def close(self) -> None:
        """The work is over."""
        with self._lock:
            self._over.set()

    def _tell(self) -> None:
        with self._lock:
            self._told = (time.monotonic(), time.process_time())
            if self._latest is not None and not self._over.is_set():
                self._channel.send(self._latest)

    def _keep_telling(self) -> None:
        """One network's explanation may take minutes on a CPU, and a client can't tell that from a worker that hangs."""
        while not self._over.wait(_ALIVE_SECONDS):
            then, used = self._told
            if time.process_time() - used >= _WORKING_SHARE * (time.monotonic() - then):
                self._tell()


def main() -> int:
    """Runs the worker until its standard input ends or it is told to shut down; returns the exit status."""
    scratch = Scratch()
    requests, channel = _take_standard_streams()
    _set_signals(scratch)
    lines: Lines = queue.SimpleQueue()
    # Before the imports, which take seconds: a client may die meanwhile.
    threading.Thread(target=_receive, args=(requests, scratch, lines), daemon=True).start()
    try:
        from HCCNetLib.commands.worker_service import Service, versions
    except Exception as error:  # noqa: BLE001 - a broken package fails in whatever way it likes
        message = _why_not_started(error)
        channel.send({"event": "error", "id": None, "code": "cannot_start", "message": message})
        return 1
    channel.send({"event": "ready", "v": PROTOCOL_VERSION, "versions": versions()})
    waiting: Waiting = queue.Queue()
    threading.Thread(target=_listen, args=(lines, channel, scratch, waiting), daemon=True).start()
    service = Service()
    while (request := waiting.get()) is not None:
        telling = Telling(channel, request.id)
        answer = service.answer(request, telling)
        telling.close()
        channel.send({**answer, "id": request.id})
    return 0


def _receive(requests: BinaryIO, scratch: Scratch, lines: Lines) -> None:
    """Hands on the lines as they come, remembers the folders that they name, and ends the worker with the last line."""
    for line in _lines(requests):
        folder = announced_folder(line)
        if folder is None:
            lines.put(line)
        else:
            scratch.add(folder)
    _end(scratch, 0)


def _listen(lines: Lines, channel: Channel, scratch: Scratch, waiting: Waiting) -> None:
    """Puts the requests into the queue as their lines come."""
    from HCCNetLib.commands.worker_requests import BadRequest, read_request

    while True:
        try:
            request = read_request(lines.get())
        except BadRequest as bad:
            channel.send(bad.event())
            continue
        if request is not None:
            scratch.add(request.scratch)
        waiting.put(request)


def _lines(file: BinaryIO) -> Iterator[bytes]:
    """Whole lines; of one that is too long, the beginning."""
    while (line := file.readline(LONGEST_LINE)).endswith(b"\n") or len(line) == LONGEST_LINE:
        rest = line
        while not rest.endswith(b"\n"):
            rest = file.readline(LONGEST_LINE)
            if not rest:
                return
        yield line


def _take_standard_streams() -> tuple[BinaryIO, Channel]:
    """Standard input and output for the protocol alone: printing goes to standard error, reading finds nothing."""
    requests, answers = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    sys.stderr.reconfigure(errors="replace", line_buffering=True)  # type: ignore[union-attr]
    faulthandler.enable()
    return os.fdopen(requests, "rb"), Channel(os.fdopen(answers, "wb"))


def _set_signals(scratch: Scratch) -> None:
    """Ctrl-C in a console belongs to the client, which shares it; a request to terminate ends the worker."""

    def terminate(number: int, frame: FrameType | None) -> None:
        _end(scratch, 128 + number)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, terminate)


def _end(scratch: Scratch, status: int) -> None:
    """Ends at once, whatever the other threads do."""
    write_no_more()
    scratch.remove()
    os._exit(status)


def _why_not_started(error: Exception) -> str:
    if isinstance(error, ModuleNotFoundError) and error.name:
        package = error.name.split(".")[0]
        return f"The package {package} is missing in the Python that predicts. Install it there."
    first_line = next(iter(str(error).splitlines()), "")
    return (
        f"A package can't be loaded in the Python that predicts ({type(error).__name__}: {first_line}). "
        f"Install torch and the other packages again."
    )


def _leave(status: int) -> None:
    """Ends without the interpreter's tidying up, which a thread that reads would disturb."""
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    _leave(main())
