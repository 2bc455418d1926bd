"""The worker as its clients meet it: a process that speaks lines of JSON and stays usable whatever it is sent."""

from __future__ import annotations

import csv
import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch
from helpers import DWI, write_patient

from HCCNetLib.bundles import Bundle, write_bundle
from HCCNetLib.commands import worker, worker_service
from HCCNetLib.commands.failures import refusal_of
from HCCNetLib.commands.worker_requests import read_request
from HCCNetLib.commands.worker_service import Service
from HCCNetLib.inference import Predictor, prediction_schema, predictor
from HCCNetLib.readers import read_input
from HCCNetLib.records import Refusal

SECONDS = 60.0
DATES = ("2020-01-05", "2021-03-14")

# What libraries do to a process's standard output, by three ways, before and during the work.
NOISY = """
import os, sys
from HCCNetLib.commands import worker
print("a library greets")
take = worker._take_standard_streams
def take_and_patch():
    streams = take()
    from HCCNetLib.inference import Predictor
    prepare = Predictor.prepare
    def noisy(self, *arguments):
        print("a library prints")
        os.write(1, b"a library writes\\n")
        os.system("echo a program prints")
        assert sys.stdin.read() == ""
        return prepare(self, *arguments)
    Predictor.prepare = noisy
    return streams
worker._take_standard_streams = take_and_patch
worker._leave(worker.main())
"""


class RealWorker:
    """A worker process and what it says."""

    def __init__(self, *command: str) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [sys.executable, *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
        )
        self.lines: queue.Queue[bytes] = queue.Queue()
        self.errors: list[bytes] = []
        threading.Thread(target=self._read, daemon=True).start()
        threading.Thread(target=lambda: self.errors.extend(self.process.stderr or ()), daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.put(line)

    def write(self, line: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line + b"\n")
        self.process.stdin.flush()

    def send(self, **request: Any) -> None:
        self.write(json.dumps(request).encode())

    def event(self) -> dict[str, Any]:
        event = json.loads(self.lines.get(timeout=SECONDS).decode("ascii"))
        assert isinstance(event, dict)
        return event

    def answer(self) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """The progress up to a result or an error, and that."""
        told = []
        while (event := self.event())["event"] == "progress":
            told.append(event)
        return told, event

    def end(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture(scope="module")
def real_worker() -> Iterator[RealWorker]:
    """One worker for all tests that it survives; nobody may end it."""
    real = RealWorker("-m", "HCCNetLib.commands.worker")
    ready = real.event()
    assert (ready["event"], ready["v"]) == ("ready", 1)
    assert {"hccnet", "torch", "numpy", "python"} <= set(ready["versions"])
    yield real
    real.end()


@pytest.fixture(scope="module")
def small_bundle(demonstration: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two small networks of random weights."""
    states = [(demonstration.member(index).state_dict(), index) for index in range(2)]
    description = replace(demonstration.description, name="two")
    return write_bundle(tmp_path_factory.mktemp("two") / "bundle", description, states, "card").path


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_patient(tmp_path_factory.mktemp("images") / "patient", DATES)


def write_table(path: Path, images: Path, patients: int = 1, channels: tuple[str, ...] = DWI) -> Path:
    """A cohort table whose patients have the same images."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["patient_id", "exam_id", "exam_date", *channels])
        for number in range(patients):
            for date in DATES:
                writer.writerow([f"patient {number}", date, date, *(images / date / f"{c}.nii.gz" for c in channels)])
    return path


@pytest.fixture
def request_of(tmp_path: Path, images: Path, small_bundle: Path) -> Callable[..., dict[str, Any]]:
    """Makes a request that is right but for the fields that are given."""

    def make(**fields: Any) -> dict[str, Any]:
        table = write_table(tmp_path / "exams.csv", images)
        paths = {"table": str(table), "bundle": str(small_bundle), "out": str(tmp_path / "out")}
        return {"v": 1, "id": "1", "op": "predict", "explain": "none", "device": "cpu", **paths, **fields}

    return make


MakeRequest = Callable[..., dict[str, Any]]


def refused(real: RealWorker, **request: Any) -> dict[str, Any]:
    real.send(**request)
    error = real.answer()[1]
    assert error["event"] == "error"
    return error


# ---------------------------------------------------------------- results


def test_a_request_gives_progress_and_one_result(real_worker: RealWorker, request_of: MakeRequest) -> None:
    real_worker.send(**request_of(id="first", explain="saliency"))
    told, result = real_worker.answer()
    assert result == {"event": "result", "id": "first", "path": result["path"]}
    assert {event["id"] for event in told} == {"first"}
    fractions = [event["fraction"] for event in told]
    assert fractions == sorted(fractions)
    assert (fractions[0], fractions[-1]) == (0.0, 0.9)
    steps = [(event["stage"], event["exam"], event["member"]) for event in told]
    assert list(dict.fromkeys(steps)) == [
        ("opening bundle", None, None),
        ("reading exams", 1, None),
        ("reading exams", 2, None),
        ("predicting", None, 1),
        ("predicting", None, 2),
        ("explaining", None, None),
        ("writing", None, None),
    ]
    prediction = json.loads(Path(result["path"]).read_text())
    jsonschema.validate(prediction, prediction_schema())
    assert prediction["bundle"]["name"] == "two"
    assert [exam["exam_id"] for exam in prediction["exams"]] == list(DATES)
    assert (Path(result["path"]).parent / prediction["exams"][0]["saliency"]["all"]).is_file()


def test_requests_that_come_during_another_are_worked_on_in_their_order(
    real_worker: RealWorker, request_of: MakeRequest, tmp_path: Path
) -> None:
    for number in (1, 2):
        real_worker.send(**request_of(id=number, out=str(tmp_path / str(number))))
    for number in (1, 2):
        told, result = real_worker.answer()
        assert {event["id"] for event in told} == {number}
        assert (result["id"], Path(result["path"]).parents[1].name) == (number, str(number))


def test_the_demonstration_networks_and_maps_are_the_defaults(request_of: MakeRequest) -> None:
    content = request_of()
    for name in ("bundle", "explain", "device"):
        del content[name]
    request = read_request(json.dumps(content).encode())
    assert request is not None
    assert request.bundle.name == "demonstration"
    assert (request.explain, request.device, request.resample_channels) == ("saliency", "auto", False)


# ---------------------------------------------------------------- refusals


def test_a_missing_channel_is_an_error_about_its_exam(
    real_worker: RealWorker, request_of: MakeRequest, images: Path, tmp_path: Path
) -> None:
    table = write_table(tmp_path / "few" / "exams.csv", images, channels=DWI[:3])
    error = refused(real_worker, **request_of(table=str(table)))
    assert (error["id"], error["code"], error["exam_id"]) == ("1", "missing_channel", DATES[0])
    assert "DWI_b800" in error["message"]
    assert "patient 0" not in error["message"]


def test_a_table_of_two_patients_is_refused(
    real_worker: RealWorker, request_of: MakeRequest, images: Path, tmp_path: Path
) -> None:
    table = write_table(tmp_path / "two" / "exams.csv", images, patients=2)
    error = refused(real_worker, **request_of(table=str(table)))
    assert error["message"] == (
        "The table holds 2 patients; the worker predicts one at a time. Give each a table of its own."
    )


def test_an_image_that_is_not_there_is_refused(
    real_worker: RealWorker, request_of: MakeRequest, tmp_path: Path
) -> None:
    table = write_table(tmp_path / "none" / "exams.csv", tmp_path / "nowhere")
    error = refused(real_worker, **request_of(table=str(table)))
    assert error["id"] == "1"
    assert "DWI_b0" in error["message"]


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"bundle": "/no/such/bundle"}, "missing_bundle"),
        ({"table": "/no/such/table.csv"}, "missing_input"),
        ({"out": "/dev/null/out"}, "cannot_write"),
    ],
)
def test_a_path_that_can_t_be_used_is_an_error(
    real_worker: RealWorker, request_of: MakeRequest, fields: dict[str, str], code: str
) -> None:
    assert refused(real_worker, **request_of(**fields))["code"] == code


def test_a_folder_of_exams_is_no_table(real_worker: RealWorker, request_of: MakeRequest, images: Path) -> None:
    error = refused(real_worker, **request_of(table=str(images)))
    assert error["message"] == "The worker reads a table (.csv, .tsv); this is a patient folder."


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_refused(real_worker: RealWorker, request_of: MakeRequest) -> None:
    assert refused(real_worker, **request_of(device="cuda"))["code"] == "no_gpu"


def test_a_bundle_that_was_altered_meanwhile_is_refused(
    real_worker: RealWorker, request_of: MakeRequest, small_bundle: Path, tmp_path: Path
) -> None:
    bundle = shutil.copytree(small_bundle, tmp_path / "bundle")
    real_worker.send(**request_of(bundle=str(bundle)))
    assert real_worker.answer()[1]["event"] == "result"
    (bundle / "MODEL_CARD.md").write_text("something else")
    assert refused(real_worker, **request_of(bundle=str(bundle)))["code"] == "altered_bundle"


# ---------------------------------------------------------------- lines that are no requests

WRONG_VERSION = (
    "The request is of version {} of the protocol, this worker speaks version 1: use client and library of one release."
)
NO_SCRATCH = "folder must be the absolute path of a folder whose name begins with HCCNet-."


@pytest.mark.parametrize(
    ("line", "request_id", "message"),
    [
        (b"predict, please", None, "The line is not JSON in ASCII."),
        (b"", None, "The line is not JSON in ASCII."),
        ('{"id": "é"}'.encode(), None, "The line is not JSON in ASCII."),
        (b"[" * 100_000, None, "The line is not JSON in ASCII."),
        (b"x" * 2_500_000, None, "The line is not JSON in ASCII."),
        (b"[1]", None, "The line is JSON but not an object."),
        (b'{"v": 1, "op": "predict"}', None, "The request has no id: a string or a whole number."),
        (b'{"v": 1, "id": true, "op": "predict"}', None, "The request has no id: a string or a whole number."),
        (b'{"v": 2, "id": "7", "op": "predict"}', "7", WRONG_VERSION.format(2)),
        (b'{"v": true, "id": "7", "op": "predict"}', "7", WRONG_VERSION.format("true")),
        (b'{"id": 7, "op": "predict"}', 7, WRONG_VERSION.format("null")),
        (b'{"v": 1, "id": "7", "op": "train"}', "7", 'The op "train" is none of predict, scratch, shutdown.'),
        (b'{"v": 1, "id": "7", "op": "scratch", "folder": "/home"}', "7", NO_SCRATCH),
        (b'{"v": 1, "id": "7", "op": "scratch", "folder": "HCCNet-a"}', "7", NO_SCRATCH),
        (b'{"v": 1, "id": "7", "op": "scratch", "folder": 5}', "7", NO_SCRATCH),
        (b'{"v": 1, "id": "7", "op": "scratch", "folder": "/HCCNet-\\ud800"}', "7", NO_SCRATCH),
        (b'{"v": 2, "id": "7", "op": "scratch", "folder": "/HCCNet-a"}', "7", WRONG_VERSION.format(2)),
        (b'{"v": 1, "id": "7", "op": "predict", "out": "/o"}', "7", "The request lacks table or out: paths."),
    ],
    ids=lambda value: str(value)[:24],
)
def test_a_bad_line_is_answered_and_the_worker_goes_on(
    real_worker: RealWorker, line: bytes, request_id: object, message: str
) -> None:
    real_worker.write(line)
    code = "wrong_version" if "of version" in message else "bad_request"
    assert real_worker.event() == {"event": "error", "id": request_id, "code": code, "message": message}


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("table", 5, "table is no path: a string that is not empty."),
        ("out", "", "out is no path: a string that is not empty."),
        ("bundle", "a\0b", "bundle is no path: a string that is not empty."),
        ("table", "\ud800", "table is no path: it holds characters that no file's name has."),
        ("explain", "everything", 'explain is "everything", which is none of none, attention, saliency.'),
        ("explain", ["none"], 'explain is ["none"], which is none of none, attention, saliency.'),
        ("device", "tpu", 'device is "tpu", which is none of auto, cpu, cuda.'),
        ("resample_channels", 1, "resample_channels is 1, neither true nor false."),
        (
            "scratch",
            "/",
            "scratch must be the folder in which the table lies, with a name that begins with HCCNet-.",
        ),
    ],
)
def test_a_wrong_field_is_named(
    real_worker: RealWorker, request_of: MakeRequest, field: str, value: object, message: str
) -> None:
    error = refused(real_worker, **request_of(**{field: value}))
    assert error == {"event": "error", "id": "1", "code": "bad_request", "message": message}


def test_an_unknown_method_is_named(real_worker: RealWorker, request_of: MakeRequest) -> None:
    error = refused(real_worker, **request_of(method="guessing"))
    assert error["message"].startswith('method is "guessing", which is none of ')


# ---------------------------------------------------------------- the process


def test_a_request_after_all_of_that_is_answered_by_the_same_process(
    real_worker: RealWorker, request_of: MakeRequest
) -> None:
    real_worker.process.send_signal(signal.SIGINT)  # Ctrl-C in the client's console
    real_worker.send(**request_of())
    assert real_worker.answer()[1]["event"] == "result"
    assert real_worker.process.poll() is None


def test_what_libraries_print_does_not_reach_the_channel(request_of: MakeRequest) -> None:
    real = RealWorker("-c", NOISY)
    try:
        assert real.lines.get(timeout=SECONDS) == b"a library greets\n"  # before the worker was there
        assert real.event()["event"] == "ready"
        real.send(**request_of())
        assert real.answer()[1]["event"] == "result"
        real.send(v=1, id="2", op="shutdown")
        assert real.process.wait(SECONDS) == 0
        assert real.lines.empty()
        said = b"".join(real.errors)
        assert all(words in said for words in (b"a library prints", b"a library writes", b"a program prints"))
    finally:
        real.end()


@pytest.mark.parametrize("end", ["end of input", "termination"])
def test_a_worker_that_ends_in_the_midst_of_a_request_leaves_no_images(
    request_of: MakeRequest, images: Path, tmp_path: Path, end: str
) -> None:
    scratch = tmp_path / "HCCNet-abc"
    table = write_table(scratch / "exams.csv", images)
    shutil.copytree(images, scratch / "images")
    real = RealWorker("-m", "HCCNetLib.commands.worker")
    try:
        real.event()
        # Takes long, so that the end falls into the midst of it.
        paths = {"table": str(table), "out": str(scratch / "out"), "scratch": str(scratch)}
        real.send(**request_of(explain="saliency", method="occlusion", **paths))
        while real.event()["stage"] != "predicting":
            pass
        assert scratch.exists()
        if end == "termination":
            real.process.terminate()
        else:
            assert real.process.stdin is not None
            real.process.stdin.close()
        assert real.process.wait(SECONDS) == (0 if end == "end of input" else 128 + signal.SIGTERM)
        assert not scratch.exists()
    finally:
        real.end()


def importing(folder: Path, statement: str) -> str:
    """A worker one of whose packages does something else when it is imported."""
    (folder / "nibabel.py").write_text(statement)
    return f"import sys; sys.path.insert(0, {str(folder)!r}); from HCCNetLib.commands import worker as w; w._leave(w.main())"


def test_a_worker_whose_client_dies_while_it_starts_leaves_no_images(tmp_path: Path) -> None:
    scratch = tmp_path / "HCCNet-abc"
    scratch.mkdir()
    (scratch / "DWI_b0.nii.gz").write_text("an image")
    real = RealWorker("-c", importing(tmp_path, "import time; time.sleep(300)"))
    try:
        real.send(v=1, id="1", op="scratch", folder=str(scratch))
        assert real.process.stdin is not None
        real.process.stdin.close()
        assert real.process.wait(SECONDS) == 0
        assert not scratch.exists()
    finally:
        real.end()


def test_a_folder_that_is_named_alone_is_removed_in_the_end_and_not_answered(
    real_worker: RealWorker, request_of: MakeRequest, tmp_path: Path
) -> None:
    (tmp_path / "HCCNet-abc").mkdir()
    real_worker.send(v=1, id="scratch", op="scratch", folder=str(tmp_path / "HCCNet-abc"))
    real_worker.send(**request_of())
    told, result = real_worker.answer()
    assert {event["id"] for event in (*told, result)} == {"1"}
    assert (tmp_path / "HCCNet-abc").exists()


# The main thread writes a result, again and again, while another thread ends the process, which takes its time.
WRITING = """
import os, sys, threading, time
from pathlib import Path
from HCCNetLib.commands import worker
folder = Path(sys.argv[1])
folder.mkdir()
scratch = worker.Scratch()
scratch.add(folder)
leave = os._exit
os._exit = lambda status: (time.sleep(0.2), leave(status))
threading.Timer(0.05, worker._end, (scratch, 0)).start()
while True:
    try:
        (folder / "out" / "patient").mkdir(parents=True, exist_ok=True)
        (folder / "out" / "patient" / "saliency.nii.gz").write_bytes(bytes(1000))
    except OSError:
        pass
"""


def test_work_that_goes_on_to_the_end_does_not_put_the_folder_there_again(tmp_path: Path) -> None:
    folder = tmp_path / "HCCNet-abc"
    subprocess.run([sys.executable, "-c", WRITING, str(folder)], check=True, timeout=SECONDS)
    assert not folder.exists()


def test_a_package_that_is_missing_is_named(tmp_path: Path) -> None:
    real = RealWorker("-c", importing(tmp_path, "import a_package_that_nobody_has"))
    try:
        assert real.event() == {
            "event": "error",
            "id": None,
            "code": "cannot_start",
            "message": "The package a_package_that_nobody_has is missing in the Python that predicts. Install it there.",
        }
        assert real.process.wait(SECONDS) == 1
    finally:
        real.end()


# ---------------------------------------------------------------- memory, bugs, warmth: in this process


class Silent:
    def __call__(self, stage: str, done: int, total: int) -> None:
        pass

    def close(self) -> None:
        pass


def answer(service: Service, content: dict[str, Any]) -> dict[str, Any]:
    request = read_request(json.dumps(content).encode())
    assert request is not None
    return service.answer(request, Silent())


def test_the_networks_stay_loaded_for_the_next_request(
    request_of: MakeRequest, small_bundle: Path, tmp_path: Path
) -> None:
    service = Service()
    assert answer(service, request_of())["event"] == "result"
    first = service._latest
    assert first is not None
    assert answer(service, request_of())["event"] == "result"
    assert service._latest is first
    other = shutil.copytree(small_bundle, tmp_path / "other")
    assert answer(service, request_of(bundle=str(other)))["event"] == "result"
    assert service._latest is not first


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), "out_of_memory"),
        (RuntimeError("CUDA error: out of memory"), "out_of_memory"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), "out_of_memory"),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:1] . DefaultCPUAllocator: can't allocate memory"), "memory"),
        (MemoryError(), "memory"),
        (OSError(28, "No space left on device", "/scans/Jane Doe"), "cannot_write"),
        (KeyError("Jane Doe"), "internal"),
    ],
    ids=lambda value: getattr(type(value), "__name__", "") if isinstance(value, Exception) else value,
)
def test_an_error_on_the_way_is_told_without_a_name(
    request_of: MakeRequest,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: Exception,
    code: str,
) -> None:
    def fail(*arguments: object) -> None:
        raise error

    monkeypatch.setattr(Predictor, "prepare", fail)
    service = Service()
    event = answer(service, request_of())
    assert (event["event"], event["code"]) == ("error", code)
    assert "Jane" not in event["message"] + capsys.readouterr().err
    assert (service._latest is None) == (code != "cannot_write")


def test_after_a_full_gpu_the_next_request_works(request_of: MakeRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> None:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    service = Service()
    with monkeypatch.context() as patch:
        patch.setattr(predictor, "_encode", fail)
        event = answer(service, request_of())
    assert event == {"event": "error", "code": "out_of_memory", "message": event["message"]}
    assert answer(service, request_of())["event"] == "result"


def test_a_bug_s_traceback_is_kept_for_its_finder(
    request_of: MakeRequest, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(worker_service, "find_check", lambda *_: {}["Jane Doe"])
    event = answer(Service(), request_of(explain="saliency"))
    assert event["message"] == (
        "The prediction met an error that the software does not expect (KeyError). The details tell where."
    )
    said = capsys.readouterr().err
    assert "KeyError, at:" in said
    assert "worker_service.py" in said


def test_a_gpu_that_is_full_before_the_first_network_is_refused(
    images: Path, small_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> None:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    ready = Predictor(small_bundle, "cpu")
    patient = read_input(images).patients[0]
    prepared = ready.prepare(patient)
    monkeypatch.setattr(torch.Tensor, "to", fail)
    with pytest.raises(Refusal, match=r"^The GPU's memory does not suffice\.") as caught:
        ready.predict_prepared(patient, prepared)
    assert caught.value.code == "out_of_memory"


def test_an_error_that_is_a_bug_is_no_refusal() -> None:
    assert refusal_of(ValueError("shapes")) is None
    assert refusal_of(OSError(5, "Input/output error")) is None
    refusal = Refusal("code", "A sentence.")
    assert refusal_of(refusal) is refusal


# ---------------------------------------------------------------- signs of life


class Noted(worker.Channel):
    """A channel that keeps what is sent."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []

    def send(self, event: Any) -> None:
        self.events.append(dict(event))


@pytest.mark.parametrize("busy", [True, False], ids=["works", "waits"])
def test_long_work_is_told_again_and_a_standstill_is_not(monkeypatch: pytest.MonkeyPatch, busy: bool) -> None:
    monkeypatch.setattr(worker, "_ALIVE_SECONDS", 0.05)
    monkeypatch.setattr(worker, "_WORKING_SHARE", 0.01 if busy else 0.9)
    channel = Noted()
    telling = worker.Telling(channel, "1")
    telling("predicting", 0, 2)
    end = time.monotonic() + 0.5
    while time.monotonic() < end:
        if not busy:
            time.sleep(0.02)
    telling.close()
    count = len(channel.events)
    assert count > 1 if busy else count == 1
    assert all(event == channel.events[0] for event in channel.events)
    time.sleep(0.1)
    assert len(channel.events) == count
