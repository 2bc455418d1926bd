"""Kills a small training at random moments, continues it each time, and compares its weights with an undisturbed run's.

python Testing/faults/kill_training.py --points 5 --seed 0

Exit status 0: bit for bit the same; 1: not, or the run could not be continued.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
import yaml
from safetensors.torch import load_file

from HCCNetLib.synthetic.acquisition import AcquisitionModel
from HCCNetLib.synthetic.cohort import CohortPlan, synthesize
from HCCNetLib.synthetic.phantom import PhantomModel

CHANNELS = ("DWI_b0", "DWI_b800")
SETTINGS = {
    "channels": list(CHANNELS),
    "preprocessing": {"spacing_mm": 4.5, "crop_voxels": 24, "liver_min_voxels": 27},
    "variant": "mini",
    "start": "scaled",
    "jitter": 2,
    "dropout": 0.2,
    "drop_path": 0.2,
    "exam_dropout": 0.2,
    "average": 0.9,
    "steps": 60,
    "batch": 4,
    "warmup": 5,
    "folds": 2,
    "seeds": 1,
    "checkpoint_every": 7,
    "validate_every": 20,
    "processes": 1,
    "threads": 1,
    "device": "cpu",
}
MEMBER = Path("members") / "00"


def main() -> int:
    parser = argparse.ArgumentParser(description="kills a small training at random moments and continues it")
    parser.add_argument("--points", type=int, default=5, metavar="N", help="kills (default: 5)")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="of the moments (default: 0)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        return compare(Path(folder), arguments.points, random.Random(arguments.seed))


def compare(folder: Path, points: int, rng: random.Random) -> int:
    model = PhantomModel(channels=CHANNELS, acquisition=AcquisitionModel(spacing=6.0))
    synthesize(folder / "cohort", CohortPlan(10, 20, model))
    if run(command(folder, "undisturbed")) != 0:
        print("the undisturbed run failed")
        return 1
    life = work_done(folder / "undisturbed")
    print(f"undisturbed: {life} exams and steps")
    words = command(folder, "killed")
    # In order, so that each kill finds the run at work; a moment later, so that it falls anywhere within a step.
    for number, moment in enumerate(sorted(rng.randrange(life) for _ in range(points)), start=1):
        delay = rng.uniform(0, 0.2)
        ended = run(words, lambda moment=moment: work_done(folder / "killed") >= moment, delay)
        if ended is not None:
            print(f"kill {number}: it had ended by itself, status {ended}")
            if ended != 0:
                return 1
            continue
        print(f"kill {number}: {delay:.3f} s after {moment} of {life}: {state(folder / 'killed')}")
    status = run(words)
    print(f"to the end: status {status}")
    if status != 0:
        return 1
    return verdict(folder / "undisturbed" / MEMBER, folder / "killed" / MEMBER)


def command(folder: Path, name: str) -> list[str]:
    """Each run prepares its own exams, so that kills fall into that too."""
    file = folder / f"{name}.yaml"
    file.write_text(yaml.safe_dump({**SETTINGS, "cohort": str(folder / "cohort"), "out": str(folder / name)}))
    return [sys.executable, "-m", "HCCNetLib", "finetune", "--config", str(file), "--member", "0"]


def run(words: list[str], reached: Callable[[], bool] | None = None, delay: float = 0.0) -> int | None:
    """Runs a command, killed some seconds after a point was reached; its exit status, or None where it was killed."""
    errors = None if reached is None else subprocess.DEVNULL
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=errors)
    if reached is None:
        return process.wait()
    while not reached() and process.poll() is None:
        time.sleep(0.005)
    try:
        return process.wait(delay)
    except subprocess.TimeoutExpired:
        process.kill()  # SIGKILL: nothing can be cleaned up
        process.wait()
        return None


def counts(out: Path) -> tuple[int, int]:
    """Exams prepared and steps logged."""
    log = out / MEMBER / "log.jsonl"
    steps = len(log.read_text().splitlines()) if log.is_file() else 0
    return len(list(out.glob("prepared/*/*.safetensors"))), steps


def work_done(out: Path) -> int:
    return sum(counts(out))


def state(out: Path) -> str:
    exams, steps = counts(out)
    kept = "a checkpoint" if (out / MEMBER / "checkpoint.safetensors").is_file() else "no checkpoint"
    return f"{exams} exams prepared, {steps} steps logged, {kept}"


def verdict(one: Path, other: Path) -> int:
    weights = [load_file(folder / "weights.safetensors") for folder in (one, other)]
    differing = [name for name, value in weights[0].items() if not torch.equal(value, weights[1][name])]
    steps = [[json.loads(line)["step"] for line in (f / "log.jsonl").read_text().splitlines()] for f in (one, other)]
    if differing or weights[0].keys() != weights[1].keys():
        print(f"FAILED: {len(differing)} of {len(weights[0])} tensors differ, e.g. {differing[:3]}")
        return 1
    if steps[1] != steps[0]:
        print("FAILED: the log does not have each step once")
        return 1
    left = [path.name for path in other.rglob("*.part")]
    print(f"PASSED: {len(weights[0])} tensors are the same bit for bit; unfinished files left: {len(left)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
