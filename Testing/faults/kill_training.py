"""Strikes small trainings at random moments, gives the same command again, and compares the weights with an undisturbed run's.

python Testing/faults/kill_training.py --points 100 --seed 0

All three stages; the strikes are SIGKILL, SIGTERM, Ctrl-C and a full disk in turn. Exit status 0: bit for bit the same, each
step logged once, every refusal a sentence; 1: not, or a run could not be continued. POSIX only (it forks).
"""

from __future__ import annotations

import argparse
import builtins
import errno
import io
import json
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from safetensors.numpy import load_file

from HCCNetLib.commands.main import build_parser, entry_point
from HCCNetLib.synthetic.acquisition import AcquisitionModel
from HCCNetLib.synthetic.cohort import CohortPlan, synthesize
from HCCNetLib.synthetic.growth import GrowthModel
from HCCNetLib.synthetic.phantom import PhantomModel

CHANNELS = ("DWI_b0", "DWI_b800")
SHARED = {
    "channels": list(CHANNELS),
    "preprocessing": {"spacing_mm": 4.5, "crop_voxels": 24, "liver_min_voxels": 27},
    "variant": "mini",
    "start": "scaled",
    "drop_path": 0.2,
    "batch": 4,
    "warmup": 5,
    "checkpoint_every": 7,
    "validate_every": 20,
    "processes": 1,
    "threads": 1,
    "device": "cpu",
}
KINDS = ("kill", "disk", "terminate", "interrupt")
INTERRUPTED, REFUSED = 130, 1


@dataclass(frozen=True)
class Stage:
    """A command, what it is given besides, and the folder in which it leaves log, checkpoint and weights."""

    command: str
    settings: dict[str, Any]
    words: tuple[str, ...] = ()
    within: str = ""


STAGES = {
    "backbone": Stage(
        "pretrain-backbone", {"jitter": 2, "local_voxels": 24, "outputs": 64, "steps": 40, "teacher_momentum": 0.9}
    ),
    "encoder": Stage("pretrain-encoder", {"jitter": 2, "draws": 2, "steps": 80, "dropout": 0.2, "exam_dropout": 0.2}),
    "finetune": Stage(
        "finetune",
        {
            "horizons_months": [6, 12, 24],
            "jitter": 2,
            "dropout": 0.2,
            "exam_dropout": 0.2,
            "average": 0.9,
            "steps": 50,
            "folds": 2,
            "seeds": 1,
            "exam_steps": 20,
            "target_weight": 1.0,
            "target_file": "truth/exams.csv",
            "target_column": "lesion_log_ml",
        },
        ("--member", "0"),
        "members/00",
    ),
}


def main() -> int:
    parser = argparse.ArgumentParser(description="strikes small trainings at random moments and continues them")
    parser.add_argument("--points", type=int, default=5, metavar="N", help="strikes per stage (default: 5)")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="of the moments (default: 0)")
    parser.add_argument("--stage", choices=[*STAGES, "all"], default="all", help="default: all")
    arguments = parser.parse_args()
    build_parser()  # imports all commands
    failed = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = PhantomModel(disease=GrowthModel(), channels=CHANNELS, acquisition=AcquisitionModel(spacing=6.0))
        synthesize(folder / "cohort", CohortPlan(10, 20, model))
        for number, stage in enumerate(STAGES if arguments.stage == "all" else [arguments.stage]):
            rng = random.Random(arguments.seed * 1000 + number)
            if not Trial(folder, stage, STAGES[stage]).passes(arguments.points, rng):
                failed.append(stage)
    print(f"FAILED: {', '.join(failed)}" if failed else "all PASSED")
    return int(bool(failed))


class Trial:
    """One stage, undisturbed and struck."""

    def __init__(self, folder: Path, name: str, stage: Stage) -> None:
        self.folder, self.name, self.stage = folder, name, stage
        self.errors = folder / "errors.txt"

    def passes(self, points: int, rng: random.Random) -> bool:
        if self.run("undisturbed") != 0:
            print(f"{self.name}: the undisturbed run failed: {self.errors.read_text()}")
            return False
        life = sum(self.counts("undisturbed"))
        size = (self.place("undisturbed") / "checkpoint.safetensors").stat().st_size
        # In order, so that each strike finds the run at work; a moment later, so that it falls anywhere within a step.
        # Some come when all steps are done: what follows them can be struck too.
        moments = sorted(min(rng.randrange(life + life // 10), life) for _ in range(points))
        hits = dict.fromkeys(KINDS, 0)
        for number, moment in enumerate(moments):
            kind, delay = KINDS[number % len(KINDS)], rng.uniform(0, 0.3)
            budget = rng.randrange(size) if kind == "disk" else None  # no room for the next checkpoint
            problem, hit = self.strike(kind, moment, delay, budget)
            if problem:
                print(f"{self.name}: strike {number + 1} ({kind}): {problem}")
                return False
            hits[kind] += hit
        if self.run("struck") != 0:
            print(f"{self.name}: the run could not be continued: {self.errors.read_text()}")
            return False
        told = ", ".join(f"{count} {kind}" for kind, count in hits.items())
        missed = [kind for kind, count in hits.items() if count == 0 and points >= 2 * len(KINDS)]
        problem = f"no strike hit: {', '.join(missed)}" if missed else self.difference()
        print(
            f"{self.name}: {sum(hits.values())} strikes hit ({told}): {problem or 'the same bit for bit'}", flush=True
        )
        return problem is None

    def strike(self, kind: str, moment: int, delay: float, budget: int | None) -> tuple[str | None, bool]:
        """What went wrong, if anything, and whether the run was at work when it was struck."""
        before = self.unfinished()
        status = self.run("struck", kind, lambda: sum(self.counts("struck")) >= moment, delay, budget)
        said = self.errors.read_text()
        expected = {"kill": -signal.SIGKILL, "disk": REFUSED, "terminate": INTERRUPTED, "interrupt": INTERRUPTED}[kind]
        if status not in (0, expected):
            return f"it ended with {status}: {said}", False
        if "Traceback" in said:
            return f"a traceback: {said}", False
        if kind == "disk" and status == REFUSED and "No space left on device" not in said:
            return f"the sentence does not say why: {said}", False
        if kind != "kill" and self.unfinished() - before:
            return f"unfinished files were left: {self.unfinished() - before}", False
        return None, status == expected

    def run(
        self,
        name: str,
        kind: str = "",
        reached: Callable[[], bool] = lambda: True,
        delay: float = 0.0,
        budget: int | None = None,
    ) -> int:
        """Runs the command in a process of its own, struck some seconds after a point was reached; its exit status."""
        child = self.start(name, budget)
        if kind in ("", "disk"):
            return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        struck_at = None
        while True:
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                return os.waitstatus_to_exitcode(status)
            now = time.monotonic()
            if struck_at is None and reached():
                struck_at = now + delay
            if struck_at is not None and now >= struck_at:
                signals = {"kill": signal.SIGKILL, "terminate": signal.SIGTERM, "interrupt": signal.SIGINT}
                os.kill(child, signals[kind])
                return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            time.sleep(0.003)

    def start(self, name: str, budget: int | None) -> int:
        """Forks: importing torch anew would take most of the time. This process has computed nothing with it."""
        words = self.words(name)
        self.errors.write_text("")
        child = os.fork()
        if child:
            return child
        status = 1
        try:
            with self.errors.open("w") as errors, Path(os.devnull).open("w") as nothing:
                os.dup2(errors.fileno(), 2)
                os.dup2(nothing.fileno(), 1)
            if budget is not None:
                fill_disk_after(budget)
            sys.argv = ["hccnet", *words]
            signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
            entry_point()
        except SystemExit as end:
            status = int(end.code or 0)
        except BaseException as error:  # noqa: BLE001 - a child must not go on as its parent
            os.write(2, "".join(traceback.format_exception(error)).encode())
        finally:
            os._exit(status)

    def words(self, name: str) -> list[str]:
        """Each run prepares its own exams, so that strikes fall into that too."""
        file = self.folder / f"{self.name}-{name}.yaml"
        own = {"cohort": str(self.folder / "cohort"), "out": str(self.folder / f"{self.name}-{name}")}
        file.write_text(yaml.safe_dump({**SHARED, **self.stage.settings, **own}))
        return [self.stage.command, "--config", str(file), *self.stage.words]

    def place(self, name: str) -> Path:
        return self.folder / f"{self.name}-{name}" / self.stage.within

    def counts(self, name: str) -> tuple[int, int, int]:
        """Exams prepared, patients encoded, steps logged."""
        out = self.folder / f"{self.name}-{name}"
        steps = sum(log.read_text(errors="replace").count("\n") for log in self.place(name).rglob("log.jsonl"))
        return len(list(out.glob("prepared/*/*.safetensors"))), len(list(out.glob("embeddings/*/*.safetensors"))), steps

    def unfinished(self) -> set[str]:
        return {path.name for path in (self.folder / f"{self.name}-struck").rglob("*.part")}

    def difference(self) -> str | None:
        """What the struck run has otherwise than the undisturbed one."""
        one, other = (load_file(self.place(name) / "weights.safetensors") for name in ("undisturbed", "struck"))
        differing = sorted(name for name in one.keys() & other.keys() if not np.array_equal(one[name], other[name]))
        if differing or one.keys() != other.keys():
            return f"{len(differing)} of {len(one)} tensors differ, e.g. {differing[:3]}"
        lines = [(self.place(name) / "log.jsonl").read_text().splitlines() for name in ("undisturbed", "struck")]
        steps = [[json.loads(line)["step"] for line in log] for log in lines]
        return None if steps[0] == steps[1] else "the log does not have each step once"


class LimitedFile:
    """A file on a disk that is full after some bytes: what fits is written, then the system's error is raised."""

    def __init__(self, file: Any, left: list[int]) -> None:
        self._file, self._left = file, left

    def write(self, content: Any) -> int:
        size = len(content)
        if size > self._left[0]:
            self._file.write(content[: self._left[0]])
            self._left[0] = 0
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._left[0] -= size
        return int(self._file.write(content))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> LimitedFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def fill_disk_after(size: int) -> None:
    """From now on this process can write so many bytes into files, and no more."""
    opened, left = io.open, [size]

    def limited(file: Any, mode: str = "r", *given: Any, **named: Any) -> Any:
        found = opened(file, mode, *given, **named)
        return LimitedFile(found, left) if set(mode) & set("wax+") else found

    io.open = builtins.open = limited  # type: ignore[assignment]


if __name__ == "__main__":
    sys.exit(main())
