"""A training run so small that it takes seconds."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from HCCNetLib.commands.main import main
from HCCNetLib.evaluation.follow_up import CENSORED, DIAGNOSED, FollowUp
from HCCNetLib.inference.cache import Preparation, PreparedCache
from HCCNetLib.readers import read_input
from HCCNetLib.records import ArrayImage
from HCCNetLib.training import loop
from HCCNetLib.training.configuration import build_config
from HCCNetLib.training.examples import Example, gather_examples
from HCCNetLib.training.settings import FinetuneConfig

CHANNELS = ("DWI_b0", "DWI_b800")
# 24 voxels of 4.5 mm are the 108 mm of the published field.
PREPROCESSING = {
    "spacing_mm": 4.5,
    "crop_voxels": 24,
    "liver_min_voxels": 27,
    "channel_mean": [0.4, 0.6],
    "channel_sd": [0.5, 0.5],
}
SETTINGS: dict[str, Any] = {
    "name": "tiny",
    "channels": list(CHANNELS),
    "horizons_months": [6, 12, 24],
    "preprocessing": PREPROCESSING,
    "variant": "mini",
    "start": "scaled",
    "jitter": 2,
    "drop_path": 0.2,
    "dropout": 0.2,
    "exam_dropout": 0.2,
    "subsequences": 2,
    "steps": 4,
    "batch": 4,
    "warmup": 1,
    "learning_rate": 4e-2,
    "folds": 2,
    "seeds": 1,
    "checkpoint_every": 2,
    "validate_every": 2,
    "processes": 1,
    "threads": 1,
    "device": "cpu",
}


def tiny_config(**changes: Any) -> FinetuneConfig:
    return build_config(FinetuneConfig, {**SETTINGS, **changes})


def write_yaml(path: Path, content: Mapping[str, Any]) -> Path:
    path.write_text(yaml.safe_dump(dict(content), sort_keys=False), encoding="utf-8")
    return path


def open_cache(folder: Path, config: FinetuneConfig) -> PreparedCache:
    return PreparedCache(folder, Preparation(config.channels, config.preparation, margin=config.jitter, half=True))


def examples_of(cohort: Path, folder: Path, config: FinetuneConfig) -> tuple[Example, ...]:
    return gather_examples(read_input(cohort), config, open_cache(folder, config), {}, lambda *_: None).all


def example(
    labels: Sequence[bool | None], name: str = "P", number: int = 0, targets: Sequence[float | None] = ()
) -> Example:
    """A patient examined every half year, without images, and a follow-up that gives the labels at 12 months."""
    count = len(labels)
    months = tuple(6.0 * (count - 1 - i) for i in range(count))
    exams = tuple(f"{name}-{i}" for i in range(count))
    followed, status = _follow_up_that_gives(labels, months)
    return Example(
        name, number, exams, months, tuple(labels), tuple(targets) or (None,) * count, exams, followed, status
    )


def _follow_up_that_gives(labels: Sequence[bool | None], months: Sequence[float]) -> tuple[float, int]:
    """Months from the latest exam to the end of the follow-up, and how it ended; NaN where no label is known."""
    if all(label is None for label in labels):
        return math.nan, CENSORED
    for followed, status in itertools.product((15.0, 9.0, 3.0), (CENSORED, DIAGNOSED)):
        if list(labels) == labels_at(12, followed + np.array(months), status):
            return followed, status
    raise ValueError(f"no follow-up gives the labels {labels}")


def labels_at(horizon: float, months: np.ndarray, status: int) -> list[bool | None]:
    same = np.ones(len(months), dtype=np.int64)
    follow_up = FollowUp(same, same, months, status * same)
    known, cases = follow_up.known(horizon), follow_up.cases(horizon)
    return [bool(case) if is_known else None for is_known, case in zip(known, cases, strict=True)]


def log_of(member: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (member / "log.jsonl").read_text().splitlines()]


def changed_image(image: Any, **changes: Any) -> ArrayImage:
    values = {"data": image.data, "affine": image.affine, "source": image.source}
    return ArrayImage(**{**values, **changes})


def interrupted(words: list[str], stop: int) -> int:
    """Gives a training command and interrupts it after ``stop`` steps of both phases together; returns its exit code."""
    step, steps = loop.Loop._step, itertools.count()

    def until(self: Any, items: Any) -> Any:
        if next(steps) == stop:
            raise KeyboardInterrupt
        return step(self, items)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop.Loop, "_step", until)
        return main(words)
