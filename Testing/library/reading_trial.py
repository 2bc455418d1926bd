"""Reads inputs, whatever they are, in a process of its own with little memory and little time, and says how each ended.

As a script it is that process: a JSON list of inputs comes on standard input, a line of JSON goes out after each.
POSIX only (limits and alarms).
"""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

ROOT = Path(__file__).resolve().parents[2]

MEMORY_BYTES = 4 * 2**30
SECONDS = 10
CHANNELS_FILE = "channels.csv"  # beside an input: the table that says which image is which channel


@dataclass(frozen=True)
class Ending:
    """How the reading of one input ended.

    Args:
        name: of the case.
        kind: ``refused``, ``read``, ``traceback``, ``hang``, or ``crash`` where the process died.
        sentences: of all refusals and problems, of the input, of patients, exams and images.
        channels: how many images were read.
        trace: where it fell over.
        peak_bytes: the most memory that the process has held until then.
        seconds: that it took.
    """

    name: str
    kind: str
    sentences: tuple[str, ...] = ()
    channels: int = 0
    trace: str = ""
    peak_bytes: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Trial:
    """How all readings ended."""

    endings: tuple[Ending, ...]

    @property
    def peak_bytes(self) -> int:
        """The most memory that was held."""
        return max(ending.peak_bytes for ending in self.endings)

    def of_kind(self, *kinds: str) -> list[Ending]:
        """Those that ended so."""
        return [ending for ending in self.endings if ending.kind in kinds]

    def bad_sentences(self, patient_id: str | None = None) -> list[str]:
        """What was said and should not be said so, with the reason."""
        said = {(sentence, ending.name) for ending in self.endings for sentence in ending.sentences}
        return [
            f"{fault}: {sentence[:300]} [{name}]"
            for sentence, name in sorted(said)
            if (fault := fault_of(sentence, patient_id)) is not None
        ]


_JARGON = re.compile(
    r"\w*(Error|Exception)\b|Traceback|Errno|0x[0-9a-fA-F]|<class|object at|NoneType|ndarray|PosixPath|\bdtype\b|\bb'"
)
# A name of a file, channel or exam may begin with any letter: it holds what words don't, or 'exam' or 'series' says
# what it is.
_BEGINNING = re.compile(r"[A-Z0-9]|[^\s:]*[./_\\-][^\s]*|(exam|series) \S")


def fault_of(sentence: str, patient_id: str | None = None) -> str | None:
    """Why a person should not be shown this sentence, or None."""
    if not sentence.endswith("."):
        return "no full stop"
    if not _BEGINNING.match(sentence):
        return "does not begin like a sentence"
    if _JARGON.search(sentence):
        return "speaks like a program"
    if len(sentence) > 1500:
        return "too long to read"
    if not sentence.isprintable():
        return "can't be printed"
    return "names the patient" if patient_id and patient_id in sentence else None


def try_reading(cases: Sequence[tuple[str, Path]]) -> Trial:
    """Reads all cases in one process; where it dies or hangs for good, another goes on after that case."""
    endings: list[Ending] = []
    while len(endings) < len(cases):
        endings += _one_process(cases[len(endings) :])
    return Trial(tuple(endings))


def _one_process(cases: Sequence[tuple[str, Path]]) -> list[Ending]:
    """Endings of the cases until the process ended."""
    command = [sys.executable, __file__]
    with tempfile.TemporaryFile() as errors, tempfile.TemporaryFile() as given:
        # ASCII, since names need not be text.
        given.write(json.dumps([(name, str(path)) for name, path in cases]).encode("ascii"))
        given.seek(0)
        with subprocess.Popen(command, stdin=given, stdout=subprocess.PIPE, stderr=errors, cwd=ROOT) as process:
            endings = [_ending(json.loads(line)) for line in _answers(process)]
        if len(endings) < len(cases):
            errors.seek(0)
            kind = "hang" if -process.returncode == signal.SIGKILL else "crash"
            trace = f"exit status {process.returncode}\n{errors.read().decode(errors='replace')[-2000:]}"
            endings.append(Ending(cases[len(endings)][0], kind, trace=trace))
    return endings


def _answers(process: subprocess.Popen[bytes]) -> Iterator[bytes]:
    """Lines of its output; it is killed where its own alarm was not heard: code that is not Python's may not come back."""
    assert process.stdout is not None
    while True:
        watchdog = threading.Timer(SECONDS + 10, process.kill)
        watchdog.start()
        line = process.stdout.readline()
        watchdog.cancel()
        if not line:
            return
        yield line


def _ending(record: dict[str, Any]) -> Ending:
    return Ending(**{**record, "sentences": tuple(record["sentences"])})


# ---------------------------------------------------------------- the process


class _Late(BaseException):
    """The time is over; no reader catches this."""


@dataclass
class _Outcome:
    sentences: list[str] = field(default_factory=list)
    channels: int = 0


def _ring(_signal: int, _frame: FrameType | None) -> None:
    raise _Late


def main() -> None:
    """Reads what standard input names; the answers go to standard output, and nothing else does."""
    answers = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(2, 1)
    cases = json.load(sys.stdin)
    sys.path.insert(0, str(ROOT))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    signal.signal(signal.SIGALRM, _ring)
    for name, path in cases:
        start = time.perf_counter()
        answer = {"name": name, **_try(Path(path))}
        answer |= {"seconds": time.perf_counter() - start, "peak_bytes": peak_bytes()}
        print(json.dumps(answer), file=answers, flush=True)


def _try(path: Path) -> dict[str, Any]:
    from HCCNetLib.records import Refusal

    outcome = _Outcome()
    signal.alarm(SECONDS)
    kind, trace = "read", ""
    try:
        _read(path, outcome)
    except Refusal as refusal:
        kind = "refused"
        outcome.sentences.append(refusal.message)
    except _Late:
        kind, trace = "hang", "".join(traceback.format_exc()[-2000:])
    except BaseException:  # noqa: BLE001 - whatever it is, it is what the trial is about
        kind, trace = "traceback", "".join(traceback.format_exc()[-3000:])
    finally:
        signal.alarm(0)
    return {"kind": kind, "trace": trace, "sentences": outcome.sentences, "channels": outcome.channels}


def _read(path: Path, outcome: _Outcome) -> None:
    """All that a prediction would ask of an input, image by image; a patient's or image's refusal is noted."""
    from HCCNetLib.readers import ReadingOptions, check_images, read_channel_table, read_input
    from HCCNetLib.records import Refusal

    table = path.parent / CHANNELS_FILE
    cohort = read_input(path, ReadingOptions(channel_table=read_channel_table(table) if table.exists() else None))
    outcome.sentences += _problems(cohort)
    outcome.sentences += [refusal.message for refusal in cohort.refused.values()]
    if cohort.outcomes_refused is not None:
        outcome.sentences.append(cohort.outcomes_refused.message)
    for exam in [exam for patient in cohort.patients for exam in patient.exams]:
        try:
            check_images(exam, list(exam.images))
        except Refusal as refusal:
            outcome.sentences.append(refusal.message)
        masks = [exam.liver_mask] if exam.liver_mask is not None else []
        for image in [*exam.images.values(), *masks]:
            try:
                image.fingerprint()
                data = image.read()
                assert data.shape == image.grid.shape
                outcome.channels += 1
            except Refusal as refusal:
                outcome.sentences.append(refusal.message)


def _problems(cohort: Any) -> Iterator[str]:
    """What was told of the input and of its patients, and, behind the name of the exam, of exams."""
    yield from (problem.message for problem in cohort.problems)
    for patient in cohort.patients:
        yield from (problem.message for problem in patient.problems)
        for exam in patient.exams:
            yield from (f"exam {exam.exam_id}: {problem.message}" for problem in exam.problems)


def peak_bytes() -> int:
    """Linux' own figure where there is one: that of getrusage is at least the parent's at the time of the fork."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert found is not None
    return int(found.group(1)) * 1024


def tabulate(trial: Trial) -> Iterator[str]:
    """Every ending in a line, for a person."""
    for ending in trial.endings:
        last = ending.trace.strip().splitlines()[-1:] or ending.sentences[:1] or [f"{ending.channels} images"]
        line = f"{ending.kind:9s} {ending.seconds:5.2f} s {ending.peak_bytes / 1e6:6.0f} MB  {ending.name}: {last[0][:200]}"
        yield line.encode("ascii", "backslashreplace").decode()


if __name__ == "__main__":
    main()
