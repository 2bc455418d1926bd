"""What a step of self-supervision costs, as ratios to the plain way of doing it, and how long the published stages take.

python Testing/benchmarks/pretraining.py order [--variant mini]
python Testing/benchmarks/pretraining.py dino [--variant mini] [--batch 8]     (compares with MONAI where it is installed)
python Testing/benchmarks/pretraining.py hours [--variant pico] [--channels 4]

Generated exams; on the GPU where there is one. Figures of one run on one machine: compare within it, not across.
"""

from __future__ import annotations

import argparse
import copy
import json
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from HCCNetLib.inference import choose_device
from HCCNetLib.inference.cache import Preparation, PreparedCache
from HCCNetLib.models import HCCNet
from HCCNetLib.models.convnext3d import ConvNeXt3d
from HCCNetLib.models.dino_head import DinoHead
from HCCNetLib.preprocessing.augmentation import draw_change, draw_turn
from HCCNetLib.preprocessing.pipeline import normalise_channels
from HCCNetLib.readers import read_input
from HCCNetLib.records import Refusal
from HCCNetLib.synthetic.acquisition import AcquisitionModel
from HCCNetLib.synthetic.cohort import CohortPlan, synthesize
from HCCNetLib.synthetic.growth import GrowthModel
from HCCNetLib.synthetic.phantom import PhantomModel
from HCCNetLib.training.dino import DinoTask, dino_loss, first_model, single_channel
from HCCNetLib.training.distributed import Workers
from HCCNetLib.training.embeddings import Embeddings
from HCCNetLib.training.examples import Example, gather_exams
from HCCNetLib.training.images import read_images
from HCCNetLib.training.loop import Loop, LoopSettings, Task, parameter_groups
from HCCNetLib.training.order import OrderModel, OrderTask, Shuffle, ShufflePlan, can_be_shuffled
from HCCNetLib.training.settings import BackboneConfig, EncoderConfig
from HCCNetLib.training.start import store_channels_last
from HCCNetLib.training.views import ViewPlan

CHANNELS = ("DWI_b0", "DWI_b150", "DWI_b400", "DWI_b800")
PATIENTS = 12
PUBLISHED_STEPS = 16000  # of the public code's first stage; see Training/published


def main() -> int:
    parser = argparse.ArgumentParser(description="what a step of self-supervision costs")
    parser.add_argument("what", choices=["order", "dino", "hours"])
    parser.add_argument("--variant", default="mini")
    parser.add_argument("--channels", type=int, default=4, help="of an exam (default: 4)")
    parser.add_argument("--batch", type=int, default=8, help="exams, or sequences, per step (default: 8)")
    parser.add_argument("--steps", type=int, default=10, help="measured ones, after two that are not (default: 10)")
    parser.add_argument("--threads", type=int, default=0, help="of torch on the CPU (default: as it is)")
    parser.add_argument("--precision", default="auto")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as name:
        {"order": measure_order, "dino": measure_dino, "hours": measure_hours}[arguments.what](Path(name), arguments)
    return 0


def small(arguments: argparse.Namespace) -> dict[str, Any]:
    """The demonstration's grid for mini, the published one for all others."""
    if arguments.variant == "mini":
        return {"spacing_mm": 2.25, "crop_voxels": 48, "liver_min_voxels": 55}
    return {}


def prepared(folder: Path, config: BackboneConfig | EncoderConfig) -> tuple[tuple[Example, ...], PreparedCache]:
    model = PhantomModel(disease=GrowthModel(), channels=config.channels, acquisition=AcquisitionModel(spacing=4.0))
    synthesize(folder / "cohort", CohortPlan(PATIENTS, 3, model))
    preparation = Preparation(config.channels, config.preparation, margin=config.jitter, half=True)
    cache = PreparedCache(folder / "prepared", preparation)
    examples = gather_exams(read_input(folder / "cohort"), config, cache, {}, (), lambda *_: None).all
    return examples, cache


def seconds_per_step(step: Callable[[], Any], steps: int, device: torch.device) -> float:
    """The median of some steps, after two that warm up."""
    found = []
    for number in range(steps + 2):
        start = time.perf_counter()
        step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        if number >= 2:
            found.append(time.perf_counter() - start)
    return statistics.median(found)


def run_loop(
    task: Task[Any], named: dict[str, nn.Parameter], folder: Path, arguments: argparse.Namespace, device: torch.device
) -> dict[str, float]:
    """Runs the loop as training does; medians of its own log, without the first two steps."""
    settings = LoopSettings(
        folder, "benchmark", arguments.steps + 2, (1e-4, 1e-6), (0.05, 0.5), clip_norm=3.0,
        checkpoint_every=10**9, validate_every=10**9, precision=arguments.precision,
    )  # fmt: skip
    loop = Loop(task, parameter_groups(named, lambda _: 1.0), settings, Workers(0, 1, device))
    task.validate = dict  # type: ignore[method-assign] - a look at held-out data is no part of a step
    loop.run(lambda *_: None)
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()][2:]
    return {name: statistics.median(line[name] for line in lines) for name in ("seconds", "data_wait")}


# ---------------------------------------------------------------- order


def measure_order(folder: Path, arguments: argparse.Namespace) -> None:
    device = choose_device("auto")
    config = EncoderConfig(
        channels=CHANNELS[: arguments.channels], preprocessing=small(arguments), variant=arguments.variant,
        batch=arguments.batch, steps=arguments.steps + 2, warmup=1, draws=1, processes=1,
    )  # fmt: skip
    examples, cache = prepared(folder, config)
    examples = tuple(e for e in examples if can_be_shuffled(e))
    network = HCCNet(config.model)
    backbone = copy.deepcopy(network.backbone).to(device)
    store_channels_last(backbone)
    kept = Embeddings(folder / "embeddings", config, backbone, cache)
    start = time.perf_counter()
    for example in examples:
        kept.fill(example)
    once = time.perf_counter() - start
    task = OrderTask(config, ShufflePlan(config, examples), examples[:2], kept, OrderModel(network))
    ours = run_loop(task, dict(task.model.named_parameters()), folder / "log", arguments, device)["seconds"]

    encode = Reencoding(config, task, backbone, cache, device)
    optimiser = torch.optim.AdamW(task.model.parameters(), lr=1e-4)
    plain = seconds_per_step(lambda: encode.step(optimiser), max(3, arguments.steps // 5), device)
    print(f"{arguments.variant}, {arguments.batch} sequences per step, {device.type}")
    print(f"encoding all exams once, 2 draws: {once:.1f} s for {sum(len(e.exams) for e in examples)} exams")
    print(f"step on kept embeddings: {ours * 1000:.1f} ms")
    print(f"step that encodes the exams: {plain * 1000:.0f} ms")
    print(f"ratio: {plain / ours:.0f}")


class Reencoding:
    """The plain way: every step reads, augments and encodes the exams of its sequences with the frozen backbone."""

    def __init__(
        self, config: EncoderConfig, task: OrderTask, backbone: ConvNeXt3d, cache: PreparedCache, device: torch.device
    ) -> None:
        self.config, self.task, self.backbone, self.cache, self.device = config, task, backbone, cache, device
        self.number, self.rng = 0, np.random.default_rng(0)

    def step(self, optimiser: torch.optim.Optimizer) -> None:
        sequences = self.task.plan.batch(self.number)
        self.number += 1
        batch = self.task.collate(sequences, max(len(s.exams) for s in sequences)).to(self.device)
        for row, sequence in enumerate(sequences):
            with torch.no_grad():
                embeddings = self.backbone(torch.from_numpy(self.images(sequence)).to(self.device))
            batch.embeddings[row, : len(embeddings)] = embeddings[list(sequence.places)]
        optimiser.zero_grad(set_to_none=True)
        logits = self.task.model(batch.embeddings, batch.times, batch.lengths)
        nn.functional.binary_cross_entropy_with_logits(logits, batch.labels).backward()
        optimiser.step()

    def images(self, sequence: Shuffle) -> np.ndarray:
        config, count = self.config, len(sequence.example.exams)
        changes = tuple(draw_change(self.rng, len(config.channels), config.jitter, 0.1, 0.1) for _ in range(count))
        return np.stack(list(read_images(self.cache, sequence.example.exams, draw_turn(self.rng, 0.5, 0.5), changes)))


# ---------------------------------------------------------------- DINO


def dino_config(arguments: argparse.Namespace) -> BackboneConfig:
    mini = arguments.variant == "mini"
    return BackboneConfig(
        channels=CHANNELS[: arguments.channels], preprocessing=small(arguments), variant=arguments.variant,
        batch=arguments.batch, steps=arguments.steps + 2, warmup=1, processes=1,
        jitter=8 if mini else 12, local_voxels=32 if mini else 48,
    )  # fmt: skip


def dino_step(folder: Path, arguments: argparse.Namespace, device: torch.device) -> tuple[dict[str, float], Any]:
    config = dino_config(arguments)
    examples, cache = prepared(folder, config)
    task = DinoTask(config, ViewPlan(config, examples), cache, first_model(config))
    named = {n: p for n, p in task.model.student.named_parameters() if p.requires_grad}
    return run_loop(task, named, folder / "log", arguments, device), (config, examples, cache)


def measure_dino(folder: Path, arguments: argparse.Namespace) -> None:
    device = choose_device("auto")
    ours, (config, examples, cache) = dino_step(folder, arguments, device)
    print(f"{arguments.variant}, {arguments.batch} exams per step, {device.type}")
    print(f"this library: {ours['seconds']:.3f} s per step, {100 * ours['data_wait']:.1f}% of it waiting for data")
    if find_spec("monai") is None:
        raise Refusal("missing_package", "The comparison needs MONAI. Install it with: pip install monai.")
    images = [
        normalise_channels(cache.data(key).astype(np.float32), cache.preparation.config)
        for e in examples
        for key in e.exams
    ]
    for workers in (0, 2):
        plain = PlainDino(config, images, workers, device)
        seconds = seconds_per_step(plain.step, arguments.steps, device)
        print(f"MONAI CacheDataset, {workers} workers: {seconds:.3f} s per step; ratio {seconds / ours['seconds']:.2f}")


class PlainDino:
    """As one would write it with MONAI: a cached dataset, dictionary transforms for each view, plain modules."""

    def __init__(self, config: BackboneConfig, images: list[np.ndarray], workers: int, device: torch.device) -> None:
        from monai.data import CacheDataset, DataLoader

        self.config, self.device = config, device
        records = [{f"view{i}": image for i in range(4)} for image in images]
        data = CacheDataset(records, plain_transforms(config), progress=False, num_workers=0)
        self.loader = DataLoader(
            data,
            batch_size=config.batch,
            shuffle=True,
            drop_last=True,
            num_workers=workers,
            persistent_workers=workers > 0,
        )
        self.batches = self.endless()
        backbone = HCCNet(single_channel(config.model)).backbone
        self.student = nn.Sequential(backbone, DinoHead(backbone.dim, config.outputs)).to(device)
        self.teacher = copy.deepcopy(self.student).requires_grad_(False)
        self.centre = torch.zeros(config.outputs, device=device)
        self.optimiser = torch.optim.AdamW([p for p in self.student.parameters() if p.requires_grad], lr=1e-4)

    def endless(self) -> Iterator[dict[str, Any]]:
        while True:
            yield from self.loader

    def step(self) -> None:
        batch = next(self.batches)
        views = [batch[f"view{i}"].as_tensor().to(self.device) for i in range(4)]
        bfloat16 = self.device.type == "cuda"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=bfloat16):
            student = torch.stack([self.student(view) for view in views])
            with torch.no_grad():
                teacher = torch.stack([self.teacher(view) for view in views[:2]]).float()
        loss = dino_loss(student, teacher, self.centre, 0.1, 0.04).mean()
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.student.parameters(), 3.0)
        self.optimiser.step()
        with torch.no_grad():
            self.centre.mul_(0.9).add_(teacher.mean(dim=(0, 1)), alpha=0.1)
            for old, new in zip(self.teacher.parameters(), self.student.parameters(), strict=True):
                old.mul_(0.9995).add_(new, alpha=0.0005)


def plain_transforms(config: BackboneConfig) -> Any:
    """Each view has transforms of its own, so that it has draws of its own."""
    from monai import transforms as mt

    chosen: list[Any] = [mt.ToTensord([f"view{i}" for i in range(4)])]
    for i in range(4):
        key, edge = f"view{i}", config.preparation.crop_voxels if i < 2 else config.local_voxels
        chosen += [
            mt.RandLambdad(key, lambda x: x[int(np.random.randint(len(x)))][None], prob=1.0),
            mt.RandSpatialCropd(key, (edge,) * 3, random_size=False),
            *[mt.RandFlipd(key, prob=0.5, spatial_axis=axis) for axis in range(3)],
            mt.RandRotate90d(key, prob=0.5, max_k=3),
            mt.RandScaleIntensityd(key, factors=0.1, prob=1.0),
            mt.RandShiftIntensityd(key, offsets=0.1, prob=1.0),
        ]
    return mt.Compose(chosen)


# ---------------------------------------------------------------- hours


def measure_hours(folder: Path, arguments: argparse.Namespace) -> None:
    device = choose_device("auto")
    ours, (config, _, _) = dino_step(folder, arguments, device)
    if device.type == "cuda":
        memory = f"{torch.cuda.max_memory_allocated() / 2**30:.1f} GiB on the GPU"
    else:
        memory = f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.1f} GiB"
    seconds = ours["seconds"]
    hours = PUBLISHED_STEPS * seconds * 32 / arguments.batch / 3600
    print(
        f"{arguments.variant} | {config.preparation.crop_voxels}³, {arguments.batch} exams per step, {device.type}, "
        f"{torch.get_num_threads()} threads | {1 / seconds:.3f} steps/s | {100 * ours['data_wait']:.1f}% waiting for data | "
        f"{memory} | {PUBLISHED_STEPS} steps of 32 exams, estimated: {hours:.0f} h"
    )


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Refusal as refusal:
        print(refusal.message, file=sys.stderr)
        sys.exit(1)
