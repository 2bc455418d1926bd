"""The self-supervised stages, from opened data to what is handed on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from HCCNetLib.evaluation.probe import linear_probe
from HCCNetLib.models import HCCNet
from HCCNetLib.models.convnext3d import ConvNeXt3d
from HCCNetLib.records import Refusal
from HCCNetLib.training.dino import DinoTask, first_model
from HCCNetLib.training.distributed import Workers
from HCCNetLib.training.embeddings import Embeddings, encode_plainly, weights_digest
from HCCNetLib.training.loop import Loop, parameter_groups
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

EMBEDDINGS_FOLDER = "embeddings"
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
    """Opens a run of stage 1; see ``open_pretraining``."""
    return open_pretraining(config, device, progress, is_first)


def train_backbone(run: PretrainRun[BackboneConfig], workers: Workers, progress: Progress, say: Say) -> Pretrained:
    """Trains from the last checkpoint or from the start, and hands on the teacher's backbone; once only."""
    finished = run.finished
    if finished is not None:
        return finished
    config = run.config
    model = first_model(config)
    untrained = {name: tensor.clone() for name, tensor in model.teacher.backbone.state_dict().items()}
    task = DinoTask(config, ViewPlan(config, run.examples.all), run.cache, model, say)
    loop = Loop(task, parameter_groups(_trained(model.student), lambda _: 1.0), run.loop_settings(), workers)
    weights = loop.run(progress)
    handed = None
    if workers.is_first:
        prefix = "teacher.backbone."
        backbone = {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}
        probes = {"before": untrained, "after": backbone} if config.target_column else {}
        results: dict[str, Any] = {"collapsed": task.verdict}
        if probes:
            results["probe"] = {"target": config.target_column} | {
                when: _probe(run, tensors, progress) for when, tensors in probes.items()
            }
        handed = hand_on(run, {f"backbone.{k}": v for k, v in backbone.items()}, results)
    workers.wait()
    return handed or read_pretrained(run.folder)


def _probe(run: PretrainRun[BackboneConfig], weights: Mapping[str, Tensor], progress: Progress) -> dict[str, Any]:
    """R² of a straight line from the embeddings of whole exams to the exam-level target."""
    config = run.config
    backbone = HCCNet(config.model).backbone
    named = {f"backbone.{name}": tensor.cpu() for name, tensor in weights.items()}
    load_backbone(backbone, Pretrained(run.folder, {}, named))
    store_channels_last(backbone.to(run.device))
    examples = [e for e in run.examples.all if any(t is not None for t in e.targets)]
    rows = []
    for done, example in enumerate(examples):
        progress("probing", done, len(examples))
        rows.append(encode_plainly(backbone, example, run.cache, config.jitter))
    targets = np.array([np.nan if t is None else t for e in examples for t in e.targets])
    patients = np.array([e.number for e in examples for _ in e.exams])
    known = ~np.isnan(targets)
    r2 = linear_probe(torch.cat(rows).double().numpy()[known], targets[known], patients[known])
    return {"r2": r2.to_dict(), "exams": int(known.sum()), "patients": len(examples)}


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
    """Encodes all exams once, then trains on the embeddings; hands on transformer and backbone together."""
    finished = run.finished
    if finished is not None:
        return finished
    config = run.config
    backbone = frozen_backbone(config)
    training, held_out = hold_out(run.examples.all, config)
    embeddings = _encode(run, backbone, workers, progress)
    model = OrderModel(seeded_network(config, config.model, _ENCODER))
    task = OrderTask(config, ShufflePlan(config, training), held_out, embeddings, model)
    loop = Loop(task, parameter_groups(_trained(model), lambda _: 1.0), run.loop_settings(), workers)
    weights = loop.run(progress)
    handed = None
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
        handed = hand_on(run, kept, results)
    workers.wait()
    return handed or read_pretrained(run.folder)


def _encode(run: PretrainRun[EncoderConfig], backbone: ConvNeXt3d, workers: Workers, progress: Progress) -> Embeddings:
    """Each process encodes its share of the patients."""
    store_channels_last(backbone.to(workers.device))
    embeddings = Embeddings(run.folder / EMBEDDINGS_FOLDER, run.config, backbone, run.cache, run.precision)
    examples = [e for e in run.examples.all if can_be_shuffled(e)]
    own = [examples[i] for i in workers.share(len(examples))]
    for done, example in enumerate(own):
        progress("encoding patients", done, len(own))
        embeddings.fill(example)
    progress("encoding patients", len(own), len(own))
    workers.wait()
    return embeddings
