"""Workers that do what the tests of the client need; started through a launcher, as PythonSlicer starts Python.

``python fake_worker.py PIDS BEHAVIOUR[,BEHAVIOUR...]``: every process notes its number in the file PIDS; the n-th worker
that is started shows the n-th behaviour, further ones the last.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

STAGES = (("reading exams", 1, None, 0.1), ("predicting", None, 1, 0.4), ("predicting", None, 2, 0.8))


def write(data: bytes) -> None:
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def say(**event: Any) -> None:
    write(json.dumps(event).encode() + b"\n")


def ready(version: int = 1) -> None:
    say(event="ready", v=version, versions={"hccnet": "0.1.0", "python": "3.12.10"})


def requests() -> Iterator[dict[str, Any]]:
    for line in sys.stdin.buffer:
        request = json.loads(line)
        if request["op"] == "shutdown":
            return
        if request["op"] == "predict":
            yield request


def tell(request: dict[str, Any], stages: int = len(STAGES)) -> None:
    for stage, exam, member, fraction in STAGES[:stages]:
        say(event="progress", id=request["id"], stage=stage, exam=exam, member=member, fraction=fraction)


def give_result(request: dict[str, Any]) -> None:
    path = Path(request["out"]) / "patient" / "prediction.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(request))
    say(event="result", id=request["id"], path=str(path))


def refuse(request: dict[str, Any], code: str, message: str, **more: Any) -> None:
    say(event="error", id=request["id"], code=code, message=message, **more)


def answer_all(answer: Callable[[dict[str, Any]], None]) -> Callable[[], None]:
    """A worker that gets ready and then answers every request in one way."""

    def worker() -> None:
        ready()
        for request in requests():
            answer(request)

    return worker


def work(request: dict[str, Any]) -> None:
    tell(request)
    give_result(request)


def die(request: dict[str, Any]) -> None:
    tell(request, 1)
    print("something broke", file=sys.stderr, flush=True)
    os._exit(3)


def be_killed(request: dict[str, Any]) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_after_result(request: dict[str, Any]) -> None:
    work(request)
    os._exit(3)


def leave(request: dict[str, Any]) -> None:
    if request["id"] == "2":
        os._exit(3)
    work(request)


def hang(request: dict[str, Any]) -> None:
    tell(request, 1)
    time.sleep(60)


def be_stubborn(request: dict[str, Any]) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    tell(request, 2)
    time.sleep(60)


def be_slow(request: dict[str, Any]) -> None:
    for n in range(5):
        say(event="progress", id=request["id"], stage="predicting", exam=None, member=1, fraction=n / 5)
        time.sleep(0.2)
    give_result(request)


def lack_gpu_memory(request: dict[str, Any]) -> None:
    if request["device"] == "cpu":
        work(request)
    else:
        tell(request, 2)
        refuse(request, "out_of_memory", "The GPU's memory does not suffice.")


def be_old_news(request: dict[str, Any]) -> None:
    earlier = {**request, "id": "0"}
    tell(earlier)
    refuse(earlier, "old", "This is about an earlier request.")
    work(request)


def flood(request: dict[str, Any]) -> None:
    for n in range(40_000):
        print(f"line {n} of what a library has to say", file=sys.stderr)
    sys.stderr.write("x" * 300_000)
    sys.stderr.flush()
    work(request)


def garble(line: bytes) -> Callable[[], None]:
    return answer_all(lambda request: write(line.replace(b"ID", request["id"].encode())))


def never_ready() -> None:
    time.sleep(60)


def other_version() -> None:
    ready(version=2)
    time.sleep(60)


def cannot_start() -> None:
    say(event="error", id=None, code="cannot_start", message="The package torch is missing.")
    sys.exit(1)


def die_at_start() -> None:
    print("no such library", file=sys.stderr)
    sys.exit(4)


def die_idle() -> None:
    ready()
    time.sleep(0.2)
    os._exit(6)


def be_outlived() -> None:
    """Something that nobody can find holds the pipes after the end."""
    ready()
    subprocess.Popen([sys.executable, "-I", "-S", "-c", "import time; time.sleep(2.5)"], start_new_session=True)
    os._exit(8)


def be_deaf() -> None:
    os.close(0)
    ready()
    time.sleep(0.3)
    os._exit(7)


BEHAVIOURS: dict[str, Callable[[], None]] = {
    "works": answer_all(work),
    "dies": answer_all(die),
    "is-killed": answer_all(be_killed),
    "dies-after-result": answer_all(die_after_result),
    "leaves": answer_all(leave),
    "hangs": answer_all(hang),
    "stubborn": answer_all(be_stubborn),
    "slow": answer_all(be_slow),
    "no-gpu-memory": answer_all(lack_gpu_memory),
    "no-memory": answer_all(lambda request: refuse(request, "out_of_memory", "The memory does not suffice.")),
    "refuses": answer_all(lambda r: refuse(r, "missing_channel", "Exam 2021 lacks DWI_b0.", exam_id="2021")),
    "internal": answer_all(lambda request: refuse(request, "internal", "A bug.")),
    "misunderstands": answer_all(lambda _: say(event="error", id=None, code="bad_request", message="Not JSON.")),
    "old-news": answer_all(be_old_news),
    "floods": answer_all(flood),
    "never-ready": never_ready,
    "other-version": other_version,
    "cannot-start": cannot_start,
    "dies-at-start": die_at_start,
    "dies-idle": die_idle,
    "deaf": be_deaf,
    "outlived": be_outlived,
    "not-json": garble(b"Loading weights...\n"),
    "not-an-object": garble(b"[1, 2]\n"),
    "deep": garble(b"[" * 100_000 + b"\n"),
    "not-ascii": garble('{"event": "progress", "stage": "prêt"}\n'.encode()),
    "unknown-event": garble(b'{"event": "coffee", "id": "ID"}\n'),
    "endless-line": garble(b"x" * 1_100_000),
    "bad-progress": garble(b'{"event": "progress", "id": "ID", "stage": "predicting", "fraction": 7}\n'),
    "bad-error": garble(b'{"event": "error", "id": "ID", "code": 5, "message": "no"}\n'),
    "no-result": garble(b'{"event": "result", "id": "ID", "path": "/no/such/file"}\n'),
    "no-path": garble(b'{"event": "result", "id": "ID", "path": "\\ud800\\u0000"}\n'),
}


def note(pids: Path, what: str) -> int:
    """Notes this process; returns how many of its kind were noted before."""
    with pids.open("a") as file:
        file.write(f"{what} {os.getpid()}\n")
    return sum(line.startswith(what) for line in pids.read_text().splitlines()) - 1


def main() -> None:
    role, pids, behaviours = sys.argv[1], Path(sys.argv[2]), sys.argv[3].split(",")
    number = note(pids, role)
    if role == "launcher":
        command = [sys.executable, "-I", "-S", __file__, "worker", *sys.argv[2:]]
        status = subprocess.call(command)
        if status < 0:
            os.kill(os.getpid(), -status)
        sys.exit(status)
    with contextlib.suppress(BrokenPipeError):
        BEHAVIOURS[behaviours[min(number, len(behaviours) - 1)]]()


if __name__ == "__main__":
    main()
