"""The loop of all stages: plain PyTorch, counted in steps.

A step's batch follows from the step's number alone, and so do all random draws in it. A run that was stopped and goes on
from its last checkpoint therefore ends with the same weights, and several processes do the same work as one.
"""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from HCCNetLib.records import Refusal
from HCCNetLib.training.checkpoint import TrainingState, write_json
from HCCNetLib.training.distributed import Workers
from HCCNetLib.training.runlog import RunLog
from HCCNetLib.training.schedules import cosine_schedule
from HCCNetLib.training.settings import StageConfig

CHECKPOINT_FILE = "checkpoint.safetensors"
BAD_BATCH_FILE = "bad_batch.json"

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Losses:
    """What a forward pass gives: the part of the step's loss to be minimised, and what is logged, as sums."""

    total: Tensor
    logged: Mapping[str, float]


Model = TypeVar("Model", bound=nn.Module)


class Task(ABC, Generic[Model]):
    """What a stage trains. Its ``losses`` over all passes and processes of a step add up to the step's loss.

    Args:
        model: everything that is trained. Whatever changes from step to step is a parameter or a buffer of it, since that is
            what checkpoints hold.
    """

    def __init__(self, model: Model) -> None:
        self.model = model

    @property
    @abstractmethod
    def scalars(self) -> Sequence[str]:
        """What ``losses`` logs; the same in every process, one without an item included."""

    @abstractmethod
    def load(self, step: int, workers: Workers) -> Sequence[Any]:
        """This process's part of a step's batch, one item per forward pass; runs in a thread of its own."""

    @abstractmethod
    def losses(self, item: Any, step: int) -> Losses:
        """The forward pass over one item."""

    def before_update(self, step: int) -> None:
        """The gradients are those of all processes; a stage may drop some."""
        return

    def after_update(self, step: int, workers: Workers) -> None:
        """The weights have changed; a stage may change what follows them."""
        return

    @abstractmethod
    def batch_of(self, step: int) -> Mapping[str, Any]:
        """Which patients and exams a step reads, for the file that is written when its loss is not a number."""

    @abstractmethod
    def validate(self) -> Mapping[str, float]:
        """A look at held-out patients; changes nothing."""


@dataclass(frozen=True)
class LoopSettings:
    """How a task is trained.

    Args:
        folder: of checkpoint and logs.
        identity: a digest of everything that decides the result; a checkpoint of another one is not continued.
        steps: of the run.
        learning_rate: peak and final.
        weight_decay: first and final.
        warmup: steps.
        clip_norm: of the gradient; 0: no limit.
        average: decay of the moving average; 0: none.
        checkpoint_every: steps.
        validate_every: steps.
        precision: of the forward pass: float32, bfloat16, or auto.
    """

    folder: Path
    identity: str
    steps: int
    learning_rate: tuple[float, float]
    weight_decay: tuple[float, float]
    warmup: int = 0
    clip_norm: float = 0.0
    average: float = 0.0
    checkpoint_every: int = 50
    validate_every: int = 100
    precision: str = "float32"


def loop_settings(config: StageConfig, folder: Path, identity: str) -> LoopSettings:
    """What a stage's settings say of the loop; the learning rate is scaled by batch / 128, as published."""
    return LoopSettings(
        folder=folder,
        identity=identity,
        steps=config.steps,
        learning_rate=(config.learning_rate * config.batch / 128, config.final_learning_rate),
        weight_decay=(config.weight_decay, config.final_weight_decay),
        warmup=config.warmup,
        clip_norm=config.clip_norm,
        checkpoint_every=config.checkpoint_every,
        validate_every=config.validate_every,
        precision=config.precision,
    )


class Loop:
    """Trains a task from its last checkpoint, or from the start.

    Args:
        task: what is trained.
        groups: of parameters, each with ``lr_scale`` and ``decayed``; see ``parameter_groups``.
        settings: how.
        workers: this process among others.
    """

    def __init__(self, task: Task[Any], groups: list[dict[str, Any]], settings: LoopSettings, workers: Workers) -> None:
        self.task, self.settings, self.workers = task, settings, workers
        task.model.to(workers.device)
        # What is left of large negative features behind a GELU can be denormal, which some CPUs are slow with.
        torch.set_flush_denormal(True)
        optimiser = torch.optim.AdamW(groups, lr=settings.learning_rate[0])
        self.state = TrainingState(task.model, optimiser, _start_average(task.model, settings.average))
        self._in_bfloat16 = precision_of(settings.precision, workers.device) == "bfloat16"
        self._rates = cosine_schedule(*settings.learning_rate, settings.steps, settings.warmup)
        self._decays = cosine_schedule(settings.weight_decay[0], settings.weight_decay[1], settings.steps)

    def run(self, progress: Progress) -> dict[str, Tensor]:
        """Trains to the last step; returns the weights that are to be kept (the average where there is one).

        Raises:
            Refusal: a loss that is not a number, no room for a checkpoint, a checkpoint of another run.
        """
        checkpoint = self.settings.folder / CHECKPOINT_FILE
        if checkpoint.is_file():
            self.state.load(checkpoint, self.settings.identity)
        log = RunLog(self.settings.folder, self.state.step) if self.workers.is_first else None
        loader = ThreadPoolExecutor(1)
        try:
            self._run(loader, log, progress)
        finally:
            loader.shutdown(cancel_futures=True)
            if log is not None:
                log.close()
        weights = self.state.average or self.task.model.state_dict()
        return {name: tensor.detach().cpu().clone() for name, tensor in weights.items()}

    def _run(self, loader: ThreadPoolExecutor, log: RunLog | None, progress: Progress) -> None:
        settings, state = self.settings, self.state
        batch = loader.submit(self.task.load, state.step, self.workers)
        progress("training", state.step, settings.steps)
        while state.step < settings.steps:
            start = time.perf_counter()
            items = batch.result()
            waited = time.perf_counter() - start
            batch = self._prefetch(loader)
            scalars = self._step(items)
            seconds = time.perf_counter() - start
            scalars |= {"seconds": seconds, "data_wait": waited / seconds}
            self._after_step(scalars, log)
            progress("training", state.step, settings.steps)

    def _prefetch(self, loader: ThreadPoolExecutor) -> Future[Sequence[Any]]:
        following = self.state.step + 1
        return loader.submit(self.task.load if following < self.settings.steps else _nothing, following, self.workers)

    def _step(self, items: Sequence[Any]) -> dict[str, float]:
        """One update of the weights."""
        state = self.state
        rate = self._set_schedules()
        self.task.model.train()
        state.optimiser.zero_grad(set_to_none=True)
        sums: dict[str, float] = {}
        for item in items:
            with torch.autocast(self.workers.device.type, torch.bfloat16, enabled=self._in_bfloat16):
                losses = self.task.losses(item, state.step)
            if losses.total.requires_grad:
                losses.total.backward()
            for name, value in losses.logged.items():
                sums[name] = sums.get(name, 0.0) + value
        names = sorted(self.task.scalars)
        totals = dict(zip(names, self.workers.sum(sums.get(name, 0.0) for name in names), strict=True))
        self.workers.sum_gradients(self.task.model)
        self.task.before_update(state.step)
        norm = self._clip()
        if not all(math.isfinite(v) for v in (*totals.values(), norm)):
            self._refuse_bad_batch()
        state.optimiser.step()
        self.task.after_update(state.step, self.workers)
        state.step += 1
        self._update_average()
        return {**totals, "gradient_norm": norm, "learning_rate": rate}

    def _set_schedules(self) -> float:
        rate, decay = self._rates[self.state.step], self._decays[self.state.step]
        for group in self.state.optimiser.param_groups:
            group["lr"] = rate * group["lr_scale"]
            group["weight_decay"] = decay if group["decayed"] else 0.0
        return rate

    def _clip(self) -> float:
        largest = self.settings.clip_norm or math.inf
        return float(nn.utils.clip_grad_norm_(self.task.model.parameters(), largest))

    def _update_average(self) -> None:
        if self.state.average is None:
            return
        for name, value in self.task.model.state_dict().items():
            self.state.average[name].lerp_(value.detach(), 1 - self.settings.average)

    def _refuse_bad_batch(self) -> None:
        step, folder = self.state.step, self.settings.folder
        if self.workers.is_first:
            write_json(folder / BAD_BATCH_FILE, {"step": step, **self.task.batch_of(step)})
        message = (
            f"Training stopped at step {step + 1} of {self.settings.steps}: the loss is not a number. The batch is listed in "
            f"{folder / BAD_BATCH_FILE}: look at these exams, or lower learning_rate. The last checkpoint is kept."
        )
        raise Refusal("loss_not_finite", message)

    def _after_step(self, scalars: dict[str, float], log: RunLog | None) -> None:
        state, settings = self.state, self.settings
        is_last = state.step == settings.steps
        if log is not None:
            if state.step % settings.validate_every == 0 or is_last:
                scalars |= self.task.validate()
            log.add(state.step, scalars)
            if state.step % settings.checkpoint_every == 0 or is_last:
                state.save(settings.folder / CHECKPOINT_FILE, settings.identity)


def precision_of(setting: str, device: torch.device) -> str:
    """``float32`` or ``bfloat16``; ``auto`` is bfloat16 on a GPU that computes in it."""
    if setting != "auto":
        return setting
    return "bfloat16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "float32"


def _nothing(step: int, workers: Workers) -> Sequence[Any]:
    return ()


def _start_average(model: nn.Module, decay: float) -> dict[str, Tensor] | None:
    return {name: value.detach().clone() for name, value in model.state_dict().items()} if decay else None


def parameter_groups(named: Mapping[str, nn.Parameter], scale_of: Callable[[str], float]) -> list[dict[str, Any]]:
    """Groups of one learning-rate scale each; parameters of one dimension have no weight decay, as published."""
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, parameter in named.items():
        groups.setdefault((scale_of(name), parameter.ndim > 1), []).append(parameter)
    return [
        {"params": parameters, "lr_scale": scale, "decayed": decayed} for (scale, decayed), parameters in groups.items()
    ]
