"""The module's side of the worker: whatever a worker does, the client tells it in words and leaves nothing behind."""

from __future__ import annotations

import gc
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from HCCNetSlicer import scratch
from HCCNetSlicer.scratch import ScratchFolders
from HCCNetSlicer.worker_client import (
    Event,
    Failure,
    Notice,
    Patience,
    PredictRequest,
    Progress,
    Result,
    WorkerClient,
    WorkerError,
    default_command,
)

FAKE = Path(__file__).with_name("fake_worker.py")
QUICK = 0.01
LONG = Patience(start=30.0, silence=30.0)
MakeClient = Callable[..., WorkerClient]

ROOT = Path(__file__).resolve().parents[2]
MODULE = ROOT / "HCCNet"
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="asks /proc or signals about processes")


def fake(folder: Path, behaviours: str, role: str = "launcher") -> list[str]:
    return [sys.executable, "-I", "-S", str(FAKE), role, str(folder / "pids"), behaviours]


def pids(folder: Path) -> list[int]:
    file = folder / "pids"
    return [int(line.split()[1]) for line in file.read_text().splitlines()] if file.exists() else []


def is_there(pid: int) -> bool:
    """Whether a process runs, or is a zombie that nobody but us can bury."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        if Path("/proc/self/stat").exists():
            return False
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
        return True
    state, parent = fields[0], int(fields[1])
    return state not in "ZX" or parent == os.getpid()


def still_there(numbers: list[int], seconds: float = 1.0) -> list[int]:
    """Those processes that are there after a while: the system needs a moment to bury one that was killed."""
    deadline = time.monotonic() + seconds
    while (there := [pid for pid in numbers if is_there(pid)]) and time.monotonic() < deadline:
        time.sleep(0.005)
    return there


def leftovers(folder: Path) -> list[Path]:
    return list((folder / "scratch").iterdir()) if (folder / "scratch").exists() else []


@pytest.fixture
def make_client(tmp_path: Path) -> Iterator[MakeClient]:
    """Makes clients of fake workers; after every test no process and no folder of theirs may be left."""
    clients: list[WorkerClient] = []

    def make(behaviours: str, patience: Patience = LONG, role: str = "launcher") -> WorkerClient:
        client = WorkerClient(fake(tmp_path, behaviours, role), None, patience, tmp_path / "scratch")
        clients.append(client)
        return client

    yield make
    for client in clients:
        client.close()
    assert still_there(pids(tmp_path)) == []
    assert leftovers(tmp_path) == []


def ask(client: WorkerClient, device: str = "auto") -> Path:
    """Asks for a prediction; returns the request's folder."""
    folder = client.new_folder()
    (folder / "exams.csv").write_text("patient_id\n")
    client.predict(PredictRequest(folder / "exams.csv", folder / "out", device=device))
    return folder


def failure_of(client: WorkerClient, device: str = "auto") -> WorkerError:
    """Asks for a prediction that fails; its folder must be gone at once."""
    folder = ask(client, device)
    with pytest.raises(WorkerError) as caught:
        client.wait(interval=QUICK)
    assert not client.is_running
    assert not folder.exists()
    return caught.value


def poll_until(client: WorkerClient, wanted: Callable[[Event], bool], seconds: float = 20.0) -> list[Event]:
    """All events up to the first one that is wanted."""
    events: list[Event] = []
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        for event in client.poll():
            events.append(event)
            if wanted(event):
                return events
        time.sleep(0.01)
    raise AssertionError(f"nothing wanted within {seconds} s, only {events}")


# ---------------------------------------------------------------- what goes well


def test_a_request_gives_progress_in_order_and_then_its_result(make_client: MakeClient) -> None:
    client = make_client("works")
    folder = ask(client)
    assert client.is_running
    events: list[Event] = []
    result = client.wait(events.append, QUICK)
    assert events == [
        Progress("reading exams", 1, None, 0.1),
        Progress("predicting", None, 1, 0.4),
        Progress("predicting", None, 2, 0.8),
        result,
    ]
    assert result == Result(folder / "out" / "patient" / "prediction.json")
    assert not client.is_running
    client.release(folder)
    assert not folder.exists()


def test_the_worker_is_sent_what_was_asked(make_client: MakeClient, monkeypatch: pytest.MonkeyPatch) -> None:
    client = make_client("works")
    folder = client.new_folder()
    monkeypatch.chdir(folder)
    request = PredictRequest(
        Path("exams.csv").absolute(), Path("out"), Path("bundle"), "saliency", "occlusion", "cuda", True
    )
    client.predict(request)
    sent = json.loads(client.wait(interval=QUICK).path.read_text())
    assert sent == {
        "v": 1,
        "id": "1",
        "op": "predict",
        "table": str(folder / "exams.csv"),
        "bundle": str(folder / "bundle"),
        "out": str(folder / "out"),
        "explain": "saliency",
        "method": "occlusion",
        "device": "cuda",
        "resample_channels": True,
        "scratch": str(folder),
    }


def test_the_worker_stays_for_the_next_request(make_client: MakeClient, tmp_path: Path) -> None:
    client = make_client("works")
    for _ in range(3):
        folder = ask(client)
        client.wait(interval=QUICK)
        client.release(folder)
    assert len(pids(tmp_path)) == 2  # one launcher, one worker


def test_a_worker_is_warmed_up_before_it_is_asked(make_client: MakeClient) -> None:
    client = make_client("works")
    assert not client.is_ready
    assert client.versions == {}
    client.start()
    pid = client.pid
    deadline = time.monotonic() + 20
    while not client.is_ready and time.monotonic() < deadline:
        assert client.poll() == []
        time.sleep(0.01)
    assert client.versions == {"hccnet": "0.1.0", "python": "3.12.10"}
    client.start()
    ask(client)
    client.wait(interval=QUICK)
    assert client.pid == pid


def test_a_request_s_folder_is_this_user_s_alone(make_client: MakeClient) -> None:
    folder = make_client("works").new_folder()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert folder.name.startswith("HCCNet-")


def test_a_second_request_is_refused_while_one_runs(make_client: MakeClient) -> None:
    client = make_client("hangs")
    folder = ask(client)
    with pytest.raises(ValueError, match="a request is running"):
        client.predict(PredictRequest(folder / "exams.csv", folder / "out"))


def test_polling_never_waits(make_client: MakeClient) -> None:
    client = make_client("hangs")
    ask(client)
    slowest = 0.0
    for _ in range(30):
        start = time.monotonic()
        client.poll()
        slowest = max(slowest, time.monotonic() - start)
        time.sleep(0.005)
    assert slowest < 0.2


def test_polling_does_not_wait_for_the_last_words_of_a_worker_that_has_ended(make_client: MakeClient) -> None:
    client = make_client("outlived", role="worker")
    ask(client)
    slowest = 0.0
    while client.is_running:
        start = time.monotonic()
        client.poll()
        slowest = max(slowest, time.monotonic() - start)
        time.sleep(0.005)
    assert slowest < 0.3


def test_a_worker_that_tells_of_itself_is_not_taken_for_dead(make_client: MakeClient) -> None:
    client = make_client("slow", Patience(30.0, 0.7))  # the request takes a second
    ask(client)
    client.wait(interval=QUICK)


def test_a_worker_that_floods_standard_error_does_not_stand_still(make_client: MakeClient) -> None:
    client = make_client("floods")
    ask(client)
    client.wait(interval=QUICK)


def test_news_of_an_earlier_request_are_passed_over(make_client: MakeClient) -> None:
    client = make_client("old-news")
    ask(client)
    events: list[Event] = []
    client.wait(events.append, QUICK)
    assert len(events) == 4


def test_a_result_counts_though_the_worker_died_after_it(make_client: MakeClient) -> None:
    client = make_client("dies-after-result,works")
    for _ in range(2):
        folder = ask(client)
        assert client.wait(interval=QUICK).path.is_file()
        client.release(folder)


# ---------------------------------------------------------------- what goes wrong

ADVICE = "Predict again; if it happens again, look at the details."
ONE_RELEASE = "Install library and module of one release."
BROKEN = (
    "The worker sent a line that is not of the protocol ({}) and was ended. Install library and module of one release."
)

FAILURES = [
    ("dies", "crash", f"The worker ended unexpectedly (exit status 3). {ADVICE}"),
    (
        "is-killed",
        "crash",
        "The worker ended unexpectedly (signal 9, SIGKILL). Often the system does this when the memory is full: close other "
        "programs and predict again.",
    ),
    ("dies-at-start", "crash", f"The worker ended unexpectedly (exit status 4). {ADVICE}"),
    ("hangs", "hang", f"The worker gave no sign of life for 0.5 seconds and was ended. {ADVICE}"),
    (
        "other-version",
        "wrong_version",
        "The worker speaks version 2 of the protocol, this module version 1: install library and module of one release.",
    ),
    ("cannot-start", "cannot_start", "The package torch is missing."),
    ("misunderstands", "bad_request", "Not JSON."),
    ("refuses", "missing_channel", "Exam 2021 lacks DWI_b0."),
    ("internal", "internal", "A bug."),
    ("not-json", "protocol", BROKEN.format("not JSON")),
    ("not-an-object", "protocol", BROKEN.format("not an object")),
    ("deep", "protocol", BROKEN.format("not JSON")),
    ("not-ascii", "protocol", BROKEN.format("not ASCII")),
    ("unknown-event", "protocol", BROKEN.format("an unknown event")),
    ("endless-line", "protocol", BROKEN.format("too long")),
    ("bad-progress", "protocol", BROKEN.format("progress with a wrong field")),
    ("bad-error", "protocol", BROKEN.format("an error with a wrong field")),
    ("no-result", "protocol", BROKEN.format("a result that is not there")),
    ("no-path", "protocol", BROKEN.format("a result that is not there")),
]


@pytest.mark.parametrize(("behaviour", "code", "message"), FAILURES, ids=[failure[0] for failure in FAILURES])
def test_a_failure_is_told_in_words_and_the_next_request_works(
    make_client: MakeClient, tmp_path: Path, behaviour: str, code: str, message: str
) -> None:
    stays = behaviour == "refuses"
    client = make_client(f"{behaviour},works", Patience(30.0, 0.5 if behaviour == "hangs" else 30.0))
    error = failure_of(client)
    assert (error.code, error.message, str(error)) == (code, message, message)
    assert leftovers(tmp_path) == []
    if stays:
        assert error.exam_id == "2021"
        assert failure_of(client).code == code
        assert len(pids(tmp_path)) == 2
    else:
        assert still_there(pids(tmp_path)[:2]) == []
        ask(client)
        assert client.wait(interval=QUICK).path.is_file()


def test_a_crash_s_details_hold_the_worker_s_last_words(make_client: MakeClient) -> None:
    error = failure_of(make_client("dies"))
    assert error.details == "something broke"
    assert "something broke" not in error.message


def test_a_worker_that_never_gets_ready_is_given_up(make_client: MakeClient) -> None:
    error = failure_of(make_client("never-ready", Patience(0.5, 30.0)))
    assert error.code == "slow_start"
    assert error.message == f"The worker was not ready after 0.5 seconds and was ended. {ADVICE}"


def test_a_worker_that_does_not_listen_is_found_out(make_client: MakeClient) -> None:
    client = make_client("deaf", role="worker")
    error = failure_of(client)
    assert error.message == f"The worker ended unexpectedly (exit status 7). {ADVICE}"


def test_a_missing_program_is_named(tmp_path: Path) -> None:
    client = WorkerClient([str(tmp_path / "PythonSlicer")], scratch_root=tmp_path / "scratch")
    error = failure_of(client)
    place = tmp_path / "PythonSlicer"
    assert (
        error.message
        == f"The worker can't be started: {place}: No such file or directory. Install the extension again."
    )
    client.close()
    assert leftovers(tmp_path) == []


def test_a_worker_that_ends_while_idle_is_told_and_replaced(make_client: MakeClient) -> None:
    client = make_client("dies-idle,works")
    client.start()
    failure = poll_until(client, lambda event: isinstance(event, Failure))[-1]
    assert isinstance(failure, Failure)
    assert not failure.of_request
    assert failure.error.message == f"The worker ended unexpectedly (exit status 6). {ADVICE}"
    assert client.poll() == []
    ask(client)
    client.wait(interval=QUICK)


def test_a_worker_that_was_ending_when_it_was_asked_is_replaced(make_client: MakeClient) -> None:
    client = make_client("leaves,works")
    for _ in range(2):
        ask(client)
        assert client.wait(interval=QUICK).path.is_file()


def test_a_worker_that_ended_unseen_is_replaced(make_client: MakeClient) -> None:
    client = make_client("dies-idle,works")
    client.start()
    while client._tree is not None and client._tree.status is None:
        time.sleep(0.01)
    ask(client)
    client.wait(interval=QUICK)


def test_time_that_the_computer_slept_is_no_silence(make_client: MakeClient, monkeypatch: pytest.MonkeyPatch) -> None:
    client = make_client("slow", Patience(30.0, 10.0))
    ask(client)
    poll_until(client, lambda event: isinstance(event, Progress))
    now = time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: now() + 3600)
    client.wait(interval=QUICK)


def test_a_full_gpu_is_tried_once_more_on_the_cpu_with_a_notice(make_client: MakeClient, tmp_path: Path) -> None:
    client = make_client("no-gpu-memory")
    ask(client)
    events: list[Event] = []
    result = client.wait(events.append, QUICK)
    sentence = "The GPU's memory does not suffice: the prediction is made once more on the CPU, which takes longer."
    assert Notice(sentence) in events
    assert result.notices == (sentence,)
    assert json.loads(result.path.read_text())["device"] == "cpu"
    assert len(pids(tmp_path)) == 2


@pytest.mark.parametrize("device", ["auto", "cuda", "cpu"])
def test_full_memory_on_the_cpu_too_is_an_error(make_client: MakeClient, device: str) -> None:
    error = failure_of(make_client("no-memory"), device)
    assert (error.code, error.message) == ("out_of_memory", "The memory does not suffice.")


def test_no_place_for_a_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "scratch").write_text("a file")
    with pytest.raises(
        WorkerError, match=r"^No folder can be made in .*: .*\. Check its permissions and the free space\.$"
    ):
        WorkerClient(["python"], scratch_root=tmp_path / "scratch").new_folder()


# ---------------------------------------------------------------- cancel and close


@pytest.mark.parametrize("behaviour", ["stubborn", "hangs", "slow"])
def test_cancelling_ends_the_whole_tree_within_two_seconds(
    make_client: MakeClient, tmp_path: Path, behaviour: str
) -> None:
    client = make_client(f"{behaviour},works")
    folder = ask(client)
    poll_until(client, lambda event: isinstance(event, Progress))
    ended = pids(tmp_path)
    assert len(ended) == 2
    tree = client._tree  # a Popen that is forgotten buries its process by itself; this one must be waited for
    start = time.monotonic()
    client.cancel()
    assert time.monotonic() - start < 0.5
    assert tree is not None
    assert still_there([tree.pid, *ended]) == []
    assert time.monotonic() - start < 2
    assert not folder.exists()
    assert not client.is_running
    assert client.pid not in (None, *ended)
    ask(client)
    assert client.wait(interval=QUICK).path.is_file()


def test_cancelling_before_the_worker_is_ready_keeps_it(make_client: MakeClient, tmp_path: Path) -> None:
    client = make_client("works")
    folder = ask(client)
    pid = client.pid
    client.cancel()
    assert not folder.exists()
    assert client.pid == pid
    ask(client)
    client.wait(interval=QUICK)


def test_cancelling_nothing_does_nothing(make_client: MakeClient) -> None:
    client = make_client("works")
    client.cancel()
    assert client.pid is None
    folder = ask(client)
    client.wait(interval=QUICK)
    pid = client.pid
    client.cancel()
    assert client.pid == pid
    assert folder.exists()


def test_ctrl_c_cancels(make_client: MakeClient) -> None:
    client = make_client("hangs,works")
    folder = ask(client)

    def interrupt(event: Event) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        client.wait(interrupt, QUICK)
    assert not folder.exists()
    assert not client.is_running


@pytest.mark.parametrize(
    ("behaviour", "asked"),
    [
        ("works", True),
        ("works", False),
        ("hangs", True),
        ("stubborn", True),
        ("never-ready", False),
        ("dies-idle", False),
    ],
)
def test_closing_ends_everything(make_client: MakeClient, tmp_path: Path, behaviour: str, asked: bool) -> None:
    client = make_client(behaviour)
    if asked:
        ask(client)
    else:
        client.start()
    for _ in range(10):
        client.poll()
        time.sleep(0.01)
    client.close()
    assert still_there(pids(tmp_path)) == []
    assert leftovers(tmp_path) == []
    assert client.poll() == []
    client.close()


def test_closing_an_idle_worker_is_polite(make_client: MakeClient) -> None:
    client = make_client("works")
    folder = ask(client)
    client.wait(interval=QUICK)
    tree = client._tree
    assert tree is not None
    client.close()
    assert tree.status == 0
    assert not folder.exists()


def test_a_closed_client_can_be_used_again(make_client: MakeClient) -> None:
    client = make_client("works")
    client.start()
    client.close()
    ask(client)
    client.wait(interval=QUICK)


def test_a_failure_that_nobody_polled_is_not_the_next_request_s(tmp_path: Path) -> None:
    client = WorkerClient([str(tmp_path / "PythonSlicer")], scratch_root=tmp_path / "scratch")
    for first in (client.cancel, lambda: None):
        client._command[:] = [str(tmp_path / "PythonSlicer")]
        ask(client)
        first()
        client._command[:] = fake(tmp_path, "works")
        folder = ask(client)
        assert client.wait(interval=QUICK).path.is_file()
        client.release(folder)
        client.close()
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("end", ["close", "cancel"])
def test_a_request_that_is_ended_while_somebody_waits_is_cancelled(make_client: MakeClient, end: str) -> None:
    client = make_client("hangs")
    ask(client)
    with pytest.raises(WorkerError, match=r"^The prediction was cancelled\.$") as caught:
        client.wait(lambda _: getattr(client, end)(), QUICK)
    assert caught.value.code == "cancelled"


def test_a_request_that_begins_on_another_one_s_result_goes_on(make_client: MakeClient) -> None:
    client = make_client("works")
    first = ask(client)
    result = client.wait(lambda event: ask(client) if isinstance(event, Result) else None, QUICK)
    assert result.path.is_relative_to(first)
    assert client.is_running
    assert not client.wait(interval=QUICK).path.is_relative_to(first)


@pytest.mark.parametrize("later", ["poll", "close"])
def test_a_folder_that_can_t_be_removed_yet_is_removed_later(
    make_client: MakeClient, monkeypatch: pytest.MonkeyPatch, later: str
) -> None:
    client = make_client("works")
    folder = client.new_folder()
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", lambda *_, **__: None)  # as where a file in it is open on Windows
        client.release(folder)
        client.poll()
        assert folder.exists()
    getattr(client, later)()
    assert not folder.exists()


def test_a_folder_that_can_t_be_removed_at_all_is_kept_in_mind(
    make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = make_client("works")
    folder = client.new_folder()
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", lambda *_, **__: None)
        client.close()
    assert client._own.folders.all == [folder]
    client.close()
    assert not folder.exists()


def test_a_client_that_nobody_refers_to_leaves_nothing(tmp_path: Path) -> None:
    client = WorkerClient(fake(tmp_path, "hangs"), None, LONG, tmp_path / "scratch")
    ask(client)
    poll_until(client, lambda event: isinstance(event, Progress))
    assert len(pids(tmp_path)) == 2
    del client
    gc.collect()
    assert still_there(pids(tmp_path)) == []
    assert leftovers(tmp_path) == []


PROGRAM = """
import sys
from pathlib import Path
sys.path.insert(0, {module!r})
from HCCNetSlicer.worker_client import PredictRequest, Progress, WorkerClient
client = WorkerClient({command!r}, scratch_root=Path({scratch!r}))
folder = client.new_folder()
(folder / "exams.csv").write_text("")
client.predict(PredictRequest(folder / "exams.csv", folder / "out"))
while not any(isinstance(event, Progress) for event in client.poll()):
    pass
"""


def test_a_program_that_ends_without_closing_leaves_nothing(tmp_path: Path) -> None:
    command, scratch = fake(tmp_path, "hangs"), tmp_path / "scratch"
    program = PROGRAM.format(module=str(MODULE), command=command, scratch=str(scratch))
    subprocess.run([sys.executable, "-c", program], check=True, timeout=30)
    assert len(pids(tmp_path)) == 2
    assert still_there(pids(tmp_path)) == []
    assert leftovers(tmp_path) == []


# ---------------------------------------------------------------- what programs that died have left


def dead_pid() -> int:
    process = subprocess.Popen([sys.executable, "-I", "-S", "-c", ""])
    process.wait()
    return process.pid


def test_a_client_s_start_removes_what_dead_programs_have_left(make_client: MakeClient, tmp_path: Path) -> None:
    here, root = scratch._system(), tmp_path / "scratch"
    orphan = f"HCCNet-{here}-{dead_pid()}-abcdefgh"
    others = (f"HCCNet-{here}-{os.getpid()}-abcdefgh", f"HCCNet-00000000-{dead_pid()}-abcdefgh", "HCCNet-export")
    for name in (orphan, *others):
        (root / name).mkdir(parents=True)
        (root / name / "DWI_b0.nii.gz").write_text("an image")
    (root / f"HCCNet-{here}-{dead_pid()}-a_link00").symlink_to(root / others[2])
    make_client("works").start()
    assert sorted(path.name for path in root.iterdir() if not path.is_symlink()) == sorted(others)
    assert (root / others[2] / "DWI_b0.nii.gz").exists()
    shutil.rmtree(root)


@pytest.mark.parametrize(("hours", "stays"), [(23, True), (25, False)])
def test_on_windows_age_alone_tells_an_orphan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hours: int, stays: bool
) -> None:
    def end(pid: int, number: int) -> None:
        raise AssertionError("on Windows this ends the process")

    folder = tmp_path / f"HCCNet-{scratch._system()}-{dead_pid()}-abcdefgh"
    folder.mkdir()
    then = time.time() - hours * 3600
    os.utime(folder, (then, then))
    with monkeypatch.context() as patch:
        patch.setattr(sys, "platform", "win32")
        patch.setattr(os, "kill", end)
        ScratchFolders(tmp_path).sweep()
    assert folder.exists() == stays


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {module!r})
from HCCNetSlicer.worker_client import PredictRequest, WorkerClient, default_command
client = WorkerClient(*default_command(Path({root!r})), scratch_root=Path({scratch!r}))
if {warm}:
    client.start()
folder = client.new_folder()
(folder / "exams.csv").write_text("an image")
if not {warm}:
    client.predict(PredictRequest(folder / "exams.csv", folder / "out"))
print(client.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("warm", [True, False], ids=["before it asks", "after it asked"])
def test_a_program_that_is_killed_while_its_worker_starts_leaves_no_images(tmp_path: Path, warm: bool) -> None:
    program = KILLED.format(module=str(MODULE), root=str(ROOT), scratch=str(tmp_path / "scratch"), warm=warm)
    done = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, check=False, timeout=30)
    assert done.returncode == -signal.SIGKILL
    assert still_there([int(done.stdout)], 20.0) == []
    assert leftovers(tmp_path) == []


# ---------------------------------------------------------------- the library's own worker


def test_client_and_library_understand_each_other(tmp_path: Path) -> None:
    command, environment = default_command(ROOT)
    client = WorkerClient(command, environment, scratch_root=tmp_path / "scratch")
    try:
        folder = client.new_folder()
        sample = ROOT / "HCCNetLib" / "samples" / "RA01" / "2023-01-11"
        images = {path.name.partition(".")[0]: str(path) for path in sorted(sample.iterdir())}
        rows = [["patient_id", "exam_id", "exam_date", *images], ["patient", "1", "2023-01-11", *images.values()]]
        (folder / "exams.csv").write_text("\n".join(",".join(row) for row in rows))
        client.predict(PredictRequest(folder / "exams.csv", folder / "out", explain="none", device="cpu"))
        events: list[Event] = []
        result = client.wait(events.append, QUICK)
        assert json.loads(result.path.read_text())["patient_id"] == "patient"
        assert {event.stage for event in events if isinstance(event, Progress)} > {"reading exams", "predicting"}
        assert client.versions["hccnet"]
        client.predict(PredictRequest(folder / "none.csv", folder / "out"))
        with pytest.raises(WorkerError, match=r"none\.csv does not exist"):
            client.wait(interval=QUICK)
    finally:
        client.close()
    assert leftovers(tmp_path) == []


# ---------------------------------------------------------------- how it is started


def test_the_client_needs_the_standard_library_alone() -> None:
    program = (
        f"import sys; sys.path.insert(0, {str(MODULE)!r}); before = set(sys.modules)\n"
        "import HCCNetSlicer.worker_client\n"
        "new = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
        "print(sorted(new - set(sys.stdlib_module_names)))"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=30)
    assert done.stdout.strip() == "['HCCNetSlicer']"


def test_pythonslicer_is_taken_where_there_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "PythonSlicer"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    command, environment = default_command(Path("/library"), {"PYTHONPATH": "/other", "HOME": "/home"})
    assert command == [str(program), "-m", "HCCNetLib.commands.worker"]
    assert environment == {
        "HOME": "/home",
        "PYTHONPATH": os.pathsep.join(("/library", "/other")),
        "PYTHONSAFEPATH": "1",
    }


def test_without_pythonslicer_this_python_is_taken_if_it_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    command, environment = default_command(tmp_path, {})
    assert command[0] == sys.executable
    assert environment["PYTHONPATH"] == str(tmp_path)
    monkeypatch.setattr(sys, "executable", "/opt/Slicer/bin/SlicerApp-real")
    with pytest.raises(WorkerError) as caught:
        default_command(tmp_path)
    assert caught.value.message == (
        "PythonSlicer, which runs the prediction, was not found beside Slicer. Install Slicer again."
    )
