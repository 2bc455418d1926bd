"""Stage 1: DINO (Caron et al., arXiv 2104.14294) for a 3D backbone of one input channel.

The student learns to give every view of an exam the output that its teacher, a moving average of itself, gives the other
global views. What is kept is the teacher's backbone.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from HCCNetLib.inference.cache import PreparedCache
from HCCNetLib.models import HCCNet, ModelConfig
from HCCNetLib.models.convnext3d import ConvNeXt3d
from HCCNetLib.models.dino_head import DinoHead
from HCCNetLib.models.keyed import give_keys, mix
from HCCNetLib.preprocessing.augmentation import unchanged
from HCCNetLib.preprocessing.pipeline import normalise_channels
from HCCNetLib.training.distributed import Workers
from HCCNetLib.training.loop import Losses, Task
from HCCNetLib.training.schedules import cosine_schedule
from HCCNetLib.training.settings import BackboneConfig
from HCCNetLib.training.start import scale_weights, seeded, store_channels_last
from HCCNetLib.training.views import ExamViews, ViewBatch, ViewPlan, cut_views

_SEED = 1
_WATCHED = 64  # exams
_LEAST_INFORMATION = 0.05  # nats by which the teacher's outputs must tell exams apart
_LEAST_SPREAD = 0.01  # of the embeddings


def dino_loss(
    student: Tensor, teacher: Tensor, centre: Tensor, student_temperature: float, teacher_temperature: float
) -> Tensor:
    """Cross-entropy between teacher and student, averaged over all pairs of different views.

    Args:
        student: (S, N, K) outputs of all views; the first T are those that the teacher read.
        teacher: (T, N, K).
        centre: (K,), subtracted from the teacher's outputs.
        student_temperature: of the softmax.
        teacher_temperature: likewise.

    Returns:
        (N,) a loss per exam.
    """
    with torch.autocast(student.device.type, enabled=False):  # it would multiply in half precision
        target = ((teacher.float() - centre) / teacher_temperature).softmax(dim=-1)
        predicted = (student.float() / student_temperature).log_softmax(dim=-1)
        pairs = -torch.einsum("tnk,snk->tsn", target, predicted)
    own = torch.eye(len(target), len(predicted), device=pairs.device, dtype=torch.bool)
    return pairs.masked_fill(own[..., None], 0).sum(dim=(0, 1)) / int((~own).sum())


def teacher_temperatures(config: BackboneConfig) -> list[float]:
    """A value per step: a line over the warm-up, then constant."""
    first, last, warmup = config.first_teacher_temperature, config.teacher_temperature, config.teacher_warmup
    line = [first + (last - first) * (i / (warmup - 1) if warmup > 1 else 1.0) for i in range(warmup)]
    return (line + [last] * config.steps)[: config.steps]


class DinoNet(nn.Module):
    """A backbone and its projection head."""

    def __init__(self, backbone: ConvNeXt3d, outputs: int) -> None:
        super().__init__()
        self.backbone, self.head = backbone, DinoHead(backbone.dim, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 1, X, Y, Z) → (N, K)."""
        result: Tensor = self.head(self.backbone(x))
        return result


class DinoModel(nn.Module):
    """Student, teacher, and the running centre of the teacher's outputs."""

    centre: Tensor

    def __init__(self, backbone: ConvNeXt3d, outputs: int) -> None:
        super().__init__()
        store_channels_last(backbone)
        self.student = DinoNet(backbone, outputs)
        self.teacher = copy.deepcopy(self.student).requires_grad_(False)
        self.register_buffer("centre", torch.zeros(outputs))

    def train(self, mode: bool = True) -> DinoModel:
        """The teacher always reads without stochastic depth."""
        super().train(mode)
        self.teacher.eval()
        return self

    @torch.no_grad()
    def follow(self, momentum: float) -> None:
        """Moves the teacher's weights towards the student's."""
        pairs = zip(self.teacher.parameters(), self.student.parameters(), strict=True)
        for teacher, student in pairs:
            teacher.lerp_(student, 1 - momentum)


def first_model(config: BackboneConfig) -> DinoModel:
    """Student and teacher before training; their weights follow from the seed."""
    with seeded(config.seed, _SEED):
        backbone = HCCNet(single_channel(config.model)).backbone
        if config.start == "scaled":
            scale_weights(backbone)
        return DinoModel(backbone, config.outputs)


def single_channel(config: ModelConfig) -> ModelConfig:
    """The same network with one input channel."""
    return ModelConfig(**{**vars(config), "channels": 1})


@dataclass(frozen=True)
class ExamBatch:
    """One forward pass: the views of N exams.

    Args:
        views: one batch per size of crop, the global ones first.
        keys: (N,) int64, for stochastic depth.
    """

    views: Sequence[ViewBatch]
    keys: Tensor


class DinoTask(Task[DinoModel]):
    """What the loop trains in stage 1.

    Args:
        config: the stage's settings.
        plan: draws the views.
        cache: of prepared exams.
        model: student and teacher; the optimiser has the student alone.
        say: is told, in a sentence, when the training has collapsed and when it has recovered.
    """

    def __init__(
        self,
        config: BackboneConfig,
        plan: ViewPlan,
        cache: PreparedCache,
        model: DinoModel,
        say: Callable[[str], None] = print,
    ) -> None:
        super().__init__(model)
        self.config, self.plan, self.cache, self.say = config, plan, cache, say
        self._has_collapsed = False
        self._temperatures = teacher_temperatures(config)
        self._momenta = cosine_schedule(config.teacher_momentum, 1.0, config.steps)
        self._frozen_steps = round(config.freeze_last * config.warmup)
        self._outputs: Tensor | None = None

    @property
    def scalars(self) -> tuple[str, ...]:
        """What every process logs."""
        return "loss", "teacher_entropy"

    def load(self, step: int, workers: Workers) -> Sequence[ExamBatch]:
        """This process's share of the step's exams, in passes of ``per_pass`` exams."""
        exams = self.plan.batch(step)
        own = [exams[i] for i in workers.share(len(exams))]
        size = self.config.per_pass or max(len(own), 1)
        return [self._collate(own[i : i + size], workers) for i in range(0, len(own), size)]

    def _collate(self, exams: Sequence[ExamViews], workers: Workers) -> ExamBatch:
        views = cut_views(self.cache, exams)
        return ExamBatch([v.pinned() if workers.device.type == "cuda" else v for v in views], _keys(exams))

    def losses(self, item: ExamBatch, step: int) -> Losses:
        """This pass's part of the mean over the step's exams."""
        model, config, exams = self.model, self.config, len(item.keys)
        device = model.centre.device
        views = [batch.to(device).render() for batch in item.views]
        with torch.no_grad():
            teacher = model.teacher(views[0][: config.global_views * exams]).float()
        outputs, first = [], 0
        for images in views:
            count = len(images) // exams
            give_keys(model.student, _view_keys(item.keys.to(device), first, count))
            outputs.append(model.student(images))
            first += count
        give_keys(model.student, None)
        student = torch.cat(outputs).view(-1, exams, config.outputs)
        teacher = teacher.view(-1, exams, config.outputs)
        temperature = self._temperatures[step]
        loss = dino_loss(student, teacher, model.centre, config.student_temperature, temperature)
        self._add_outputs(teacher)
        entropy = _entropy(((teacher - model.centre) / temperature).softmax(dim=-1)).mean(dim=0)
        share = {"loss": loss, "teacher_entropy": entropy}
        return Losses(loss.sum() / config.batch, {k: float(v.detach().sum()) / config.batch for k, v in share.items()})

    def _add_outputs(self, teacher: Tensor) -> None:
        total = teacher.sum(dim=(0, 1))
        self._outputs = total if self._outputs is None else self._outputs + total

    def before_update(self, step: int) -> None:
        """The head's last layer waits at first, as published: its directions would else be learned from noise."""
        if step < self._frozen_steps:
            for parameter in self.model.student.head.last_layer.parameters():
                parameter.grad = None

    def after_update(self, step: int, workers: Workers) -> None:
        """The centre follows the outputs of all processes, the teacher follows the student."""
        model, config = self.model, self.config
        outputs = torch.zeros_like(model.centre) if self._outputs is None else self._outputs
        mean = workers.sum_tensor(outputs) / (config.batch * config.global_views)
        model.centre.mul_(config.centre_momentum).add_(mean, alpha=1 - config.centre_momentum)
        self._outputs = None
        model.follow(self._momenta[step])

    def batch_of(self, step: int) -> Mapping[str, Any]:
        """The step's exams."""
        exams = self.plan.batch(step)
        return {"exams": [{"patient_id": e.example.patient_id, "exam": e.example.exam_ids[e.exam]} for e in exams]}

    def validate(self) -> Mapping[str, float]:
        """Whether the teacher still tells some fixed exams apart, by its outputs and by its embeddings."""
        watch = self.watch()
        verdict = watch.verdict()
        if (verdict is not None) != self._has_collapsed:
            self.say(verdict or "The training no longer looks collapsed.")
        self._has_collapsed = verdict is not None
        return {"exams_told_apart": watch.information, "feature_sd": watch.spread}

    @torch.no_grad()
    def watch(self) -> Watch:
        """A look at the teacher as it is now."""
        model, device = self.model, self.model.centre.device
        embeddings = torch.cat([model.teacher.backbone(image.to(device)) for image in self._watched()])
        logits = (model.teacher.head(embeddings) - model.centre) / self.config.teacher_temperature
        return Watch.of(logits.softmax(dim=-1), embeddings)

    def _watched(self) -> list[Tensor]:
        """Exams from all over the cohort, the middle crop, one channel: (1, 1, e, e, e) each.

        All of one channel: of several, a backbone that knows nothing but the channel would seem to tell exams apart.
        """
        exams, config = self.plan.exams, self.config
        chosen = [exams[i * len(exams) // min(_WATCHED, len(exams))] for i in range(min(_WATCHED, len(exams)))]
        whole, edge = unchanged(len(config.channels), config.jitter), config.preparation.crop_voxels
        images = []
        for example, exam in chosen:
            image = normalise_channels(whole.crop(self.cache.data(example.exams[exam]), edge), config.preparation)
            images.append(torch.from_numpy(image[-1:, None]))
        return images


@dataclass(frozen=True)
class Watch:
    """What a collapse shows in.

    Args:
        information: nats by which the teacher's outputs tell exams apart: the entropy of their mean minus their mean entropy.
        mean_entropy: of the outputs, nats.
        largest_entropy: log of the number of outputs.
        spread: SD of the embeddings over exams, each of length 1: 0 where all are alike, 1 where they point anywhere.
    """

    information: float
    mean_entropy: float
    largest_entropy: float
    spread: float

    @classmethod
    def of(cls, outputs: Tensor, embeddings: Tensor) -> Watch:
        """From the teacher's softmax outputs (N, K) and embeddings (N, D)."""
        outputs, directions = outputs.double(), nn.functional.normalize(embeddings.double(), dim=-1)
        mean_entropy = float(_entropy(outputs).mean())
        information = max(float(_entropy(outputs.mean(dim=0))) - mean_entropy, 0.0)
        spread = math.sqrt(max(1 - float(directions.mean(dim=0).square().sum()), 0.0))
        return cls(information, mean_entropy, math.log(outputs.shape[-1]), spread)

    def verdict(self) -> str | None:
        """What is wrong, in words; None where nothing is."""
        if self.information < _LEAST_INFORMATION:
            if self.mean_entropy > 0.9 * self.largest_entropy:
                how = "it spreads all of them evenly over its outputs. Lower teacher_temperature or centre_momentum"
            elif self.mean_entropy < 0.1 * self.largest_entropy:
                how = "it puts all of them on one output. Raise teacher_temperature or lower learning_rate"
            else:
                how = "their outputs are alike. Lower learning_rate, or raise batch"
            return (
                f"The training has collapsed: the teacher tells exams apart by {self.information:.3f} nats only; {how}."
            )
        if self.spread < _LEAST_SPREAD:
            return (
                f"The training has collapsed: the embeddings of different exams are alike (SD {self.spread:.4f}). Lower "
                f"learning_rate, or raise batch."
            )
        return None


def _entropy(probabilities: Tensor) -> Tensor:
    """Over the last axis, nats."""
    return torch.special.entr(probabilities).sum(dim=-1)


def _view_keys(keys: Tensor, first: int, count: int) -> Tensor:
    """(N,) keys of exams → (count · N,) of their views, each view another."""
    return torch.cat([mix(keys + view) for view in range(first, first + count)])


def _keys(exams: Sequence[ExamViews]) -> Tensor:
    return torch.tensor([e.key for e in exams], dtype=torch.int64)
