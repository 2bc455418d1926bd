"""The self-supervised stages, from opened data to what is handed on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from HCCNetLib.evaluation.probe import linear_probe, require_targets
from HCCNetLib.models import HCCNet
from HCCNetLib.models.convnext3d import ConvNeXt3d
from HCCNetLib.records import Refusal
from HCCNetLib.training.digests import weights_digest
from HCCNetLib.training.dino import DinoTask, first_model
from HCCNetLib.training.distributed import Workers
from HCCNetLib.training.embeddings import EMBEDDINGS_FOLDER, Embeddings, encode_plainly, fill_together
from HCCNetLib.training.examples import Example
from HCCNetLib.training.loop import Loop, loop_settings, parameter_groups
from HCCNetLib.training.order import OrderModel, OrderTask, ShufflePlan, can_be_shuffled, hold_out
from HCCNetLib.training.pretraining import (
    OF_BACKBONE,
    Pretrained,
    PretrainRun,
    hand_on,
    load_backbone,
    open_pretraining,
    read_pretrained,
    require_same_network,
    seeded_network,
)
from HCCNetLib.training.settings import BackboneConfig, EncoderConfig
from HCCNetLib.training.start import store_channels_last
from HCCNetLib.training.views import ViewPlan

_BACKBONE, _ENCODER = 1, 2  # of the seeds
_LEAST_PATIENTS = 2

Progress = Callable[[str, int, int], None]
Say = Callable[[str], None]


def _trained(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


# ---------------------------------------------------------------- stage 1


def open_backbone(
    config: BackboneConfig, device: torch.device, progress: Progress, is_first: bool = True
) -> PretrainRun[BackboneConfig]:
    """Opens a run of stage 1; raises Refusal, besides what ``open_pretraining`` raises, where there is nothing to probe."""
    run = open_pretraining(config, device, progress, is_first)
    if config.target_column:
        require_targets(*_known_targets(run)[1:])  # before hours of training rather than after them
    return run


def train_backbone(run: PretrainRun[BackboneConfig], workers: Workers, progress: Progress, say: Say) -> Pretrained:
    """Trains from the last checkpoint or from the start, hands on the teacher's backbone, and probes it; each once only."""
    if not workers.decided(run.finished is not None):
        _train_backbone(run, workers, progress, say)
    if workers.is_first and run.config.target_column:
        _probe_once(run, progress)
    workers.wait()
    return read_pretrained(run.folder)


def _train_backbone(run: PretrainRun[BackboneConfig], workers: Workers, progress: Progress, say: Say) -> None:
    config, model = run.config, first_model(run.config)
    task = DinoTask(config, ViewPlan(config, run.examples.all), run.cache, model, say)
    loop = Loop(
        task,
        parameter_groups(_trained(model.student), lambda _: 1.0),
        loop_settings(config, run.folder, run.identity),
        workers,
    )
    weights = loop.run(progress)
    if workers.is_first:
        prefix = "teacher.backbone."
        backbone = {k.removeprefix("teacher."): v for k, v in weights.items() if k.startswith(prefix)}
        hand_on(run, backbone, {"collapsed": task.watch().verdict()})
    workers.wait()


def _probe_once(run: PretrainRun[BackboneConfig], progress: Progress) -> None:
    """Adds the probe before and after to what is handed on, unless it is there already."""
    handed = read_pretrained(run.folder)
    if handed.about.get("probe", {}).get("target") == run.config.target_column:
        return
    untrained = first_model(run.config).teacher.backbone.state_dict()
    probe: dict[str, Any] = {"target": run.config.target_column}
    probe["before"] = _probe(run, {f"backbone.{k}": v for k, v in untrained.items()}, progress)
    probe["after"] = _probe(run, handed.weights, progress)
    hand_on(run, handed.weights, {"collapsed": handed.about["collapsed"], "probe": probe})


def _probe(run: PretrainRun[BackboneConfig], weights: Mapping[str, Tensor], progress: Progress) -> dict[str, Any]:
    """R² of a straight line from the embeddings of whole exams to the exam-level target."""
    backbone = HCCNet(run.config.model).backbone
    load_backbone(backbone, Pretrained(run.folder, {}, {name: tensor.cpu() for name, tensor in weights.items()}))
    store_channels_last(backbone.to(run.device))
    examples, targets, patients = _known_targets(run)
    rows = []
    for done, example in enumerate(examples):
        progress("probing", done, len(examples))
        rows.append(encode_plainly(backbone, example, run.cache))
    known = np.array([t is not None for e in examples for t in e.targets])
    r2 = linear_probe(torch.cat(rows).double().numpy()[known], targets, patients)
    return {"r2": r2.to_dict(), "exams": len(targets), "patients": len(examples)}


def _known_targets(
    run: PretrainRun[BackboneConfig],
) -> tuple[list[Example], NDArray[np.float64], NDArray[np.int64]]:
    """Patients with a target, the targets of their exams that have one, and whose these are."""
    examples = [e for e in run.examples.all if any(t is not None for t in e.targets)]
    targets = np.array([t for e in examples for t in e.targets if t is not None], dtype=np.float64)
    patients = np.array([e.number for e in examples for t in e.targets if t is not None], dtype=np.int64)
    return examples, targets, patients


# ---------------------------------------------------------------- stage 2


def open_encoder(
    config: EncoderConfig, device: torch.device, progress: Progress, is_first: bool = True
) -> PretrainRun[EncoderConfig]:
    """Opens a run of stage 2; raises Refusal, besides what ``open_pretraining`` raises, where no patient has two exams."""
    backbone = frozen_backbone(config)
    run = open_pretraining(config, device, progress, is_first, of_backbone=weights_digest(backbone.state_dict()))
    training, held_out = hold_out(run.examples.all, config)
    if len(training) < _LEAST_PATIENTS or (config.validation_fraction and not held_out):
        message = (
            f"Sequence order needs patients with at least two exams, some to train on and some to look at; "
            f"{len(training) + len(held_out)} of {len(run.examples.all)} patients have two. Add patients."
        )
        raise Refusal("too_few_sequences", message)
    return run


def frozen_backbone(config: EncoderConfig) -> ConvNeXt3d:
    """The backbone whose embeddings are read: another run's, or an untrained one that follows from the seed."""
    network = seeded_network(config, config.model, _BACKBONE)
    if config.backbone_from:
        source = read_pretrained(Path(config.backbone_from))
        require_same_network(config, source, OF_BACKBONE)
        load_backbone(network.backbone, source)
    return network.backbone


def train_encoder(run: PretrainRun[EncoderConfig], workers: Workers, progress: Progress) -> Pretrained:
    """Encodes all exams once, then trains on the embeddings; hands on transformer and backbone together; once only."""
    if not workers.decided(run.finished is not None):
        _train_encoder(run, workers, progress)
    return read_pretrained(run.folder)


def _train_encoder(run: PretrainRun[EncoderConfig], workers: Workers, progress: Progress) -> None:
    config, backbone = run.config, frozen_backbone(run.config)
    training, held_out = hold_out(run.examples.all, config)
    embeddings = _encode(run, backbone, workers, progress)
    model = OrderModel(seeded_network(config, config.model, _ENCODER))
    task = OrderTask(config, ShufflePlan(config, training), held_out, embeddings, model)
    loop = Loop(
        task, parameter_groups(_trained(model), lambda _: 1.0), loop_settings(config, run.folder, run.identity), workers
    )
    weights = loop.run(progress)
    if workers.is_first:
        model.load_state_dict(weights)
        source = read_pretrained(Path(config.backbone_from)).about if config.backbone_from else None
        results = {
            "backbone": source,
            "knows_labels": bool(source and source.get("knows_labels")),
            "order_auroc": task.auroc(resamples=1000).to_dict(),
            "sequences": {
                "trained on": len(training),
                "held out": len(held_out),
                "patients with one exam, which has no order": sum(not can_be_shuffled(e) for e in run.examples.all),
            },
        }
        kept = {name.removeprefix("network."): tensor for name, tensor in weights.items()}
        kept |= {f"backbone.{name}": tensor for name, tensor in backbone.state_dict().items()}
        hand_on(run, kept, results)
    workers.wait()


def _encode(run: PretrainRun[EncoderConfig], backbone: ConvNeXt3d, workers: Workers, progress: Progress) -> Embeddings:
    """Each process encodes its share of the patients."""
    store_channels_last(backbone.to(workers.device))
    embeddings = Embeddings(run.folder / EMBEDDINGS_FOLDER, run.config, backbone, run.cache, run.precision)
    examples = [e for e in run.examples.all if can_be_shuffled(e)]
    fill_together(embeddings, examples, workers, progress)
    return embeddings
