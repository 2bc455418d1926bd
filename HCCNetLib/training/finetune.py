"""The supervised stage: the whole model learns the hazards of a diagnosis, and an exam-level target if there is one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from HCCNetLib.evaluation.discrimination import auroc
from HCCNetLib.inference.cache import PreparedCache
from HCCNetLib.models import HCCNet, ModelConfig, risk_logits
from HCCNetLib.models.convnext3d import STAGES, stage_stride
from HCCNetLib.models.keyed import give_keys
from HCCNetLib.models.pooling import GeneralisedMeanPooling
from HCCNetLib.preprocessing.augmentation import Turn, unchanged
from HCCNetLib.records import Refusal
from HCCNetLib.training.distributed import Workers
from HCCNetLib.training.embeddings import Embeddings
from HCCNetLib.training.examples import Example
from HCCNetLib.training.images import read_images
from HCCNetLib.training.intervals import Intervals
from HCCNetLib.training.lesions import log_amounts, read_lesions, scales_of
from HCCNetLib.training.loop import Losses, Task
from HCCNetLib.training.settings import FinetuneConfig
from HCCNetLib.training.start import store_channels_last
from HCCNetLib.training.visits import (
    Visit,
    VisitPlan,
    judged_landmarks,
    plain_visit,
    sequence_times,
    trained_landmarks,
)

_MASKS_LOOKED_AT = 256  # for the mean and SD of the target
_STRIDES = [stage_stride(stage) for stage in range(STAGES)]


class TargetHead(nn.Module):
    """Predicts the exam-level target from a vector D → D → 1; of several places, as the log of the sum of their exponentials.

    A target that is the logarithm of an amount, of lesion volume for example, is then the sum of what each place holds.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.fc1, self.act, self.fc2 = nn.Linear(dim, dim), nn.GELU(), nn.Linear(dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, P · D) of P places → (N,)."""
        places = x.unflatten(-1, (-1, self.dim))
        result: Tensor = self.fc2(self.act(self.fc1(places))).squeeze(-1).logsumexp(-1)
        return result


class StageHead(nn.Module):
    """Guesses the exam-level target from an earlier stage's feature map."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.pooling, self.norm, self.head = GeneralisedMeanPooling(dim), nn.LayerNorm(dim), TargetHead(dim)

    def forward(self, feature_map: Tensor) -> Tensor:
        """(N, D, x, y, z) → (N,)."""
        result: Tensor = self.head(self.norm(self.pooling(feature_map)))
        return result


class LesionHead(nn.Module):
    """Guesses the logarithm of how much lesion each cell of a stage's feature map holds, as a z-score."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm, self.fc1, self.act, self.fc2 = nn.LayerNorm(dim), nn.Linear(dim, dim), nn.GELU(), nn.Linear(dim, 1)

    def forward(self, feature_map: Tensor) -> Tensor:
        """(N, D, x, y, z) → (N, x, y, z)."""
        cells = self.norm(feature_map.movedim(1, -1))
        result: Tensor = self.fc2(self.act(self.fc1(cells))).squeeze(-1)
        return result


class FinetuneModel(nn.Module):
    """The network, and heads for the exam-level target or the lesion masks, which the bundle does not keep.

    With heads on the earlier stages too (deep supervision, Lee et al., arXiv 1409.5185) the stem finds small bright things
    long before the last stage does, whose few cells are each as wide as several lesions.
    """

    def __init__(self, config: ModelConfig, every_stage: bool, masks: bool = False) -> None:
        super().__init__()
        self.network = HCCNet(config)
        self.target_head = None if masks else TargetHead(config.dims[-1])
        self.stage_heads: nn.ModuleList | None = None
        if masks:
            self.stage_heads = nn.ModuleList(LesionHead(dim) for dim in config.dims)
        elif every_stage:
            self.stage_heads = nn.ModuleList(StageHead(dim) for dim in config.dims[:-1])
        store_channels_last(self.network.backbone)

    def encode(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Images (N, C, X, Y, Z) → embeddings (N, D), and guesses of the target, the embedding's own or the last stage's first.

        A guess is (N,); of lesion masks it is (N, x, y, z).
        """
        backbone, guesses = self.network.backbone, []
        features = images.contiguous(memory_format=torch.channels_last_3d)
        for stage in range(STAGES):
            features = backbone.forward_stages(features, stage, stage + 1)
            if self.stage_heads is not None and stage < len(self.stage_heads):
                guesses.append(self.stage_heads[stage](features))
        embeddings = backbone.pool(features)
        if self.target_head is not None:
            guesses.append(self.target_head(embeddings))
        return embeddings, guesses[::-1]


@dataclass(frozen=True)
class Batch:
    """What one forward pass reads: N exams, Q sequences of at most S exams.

    Args:
        images: (N, C, X, Y, Z), or embeddings (N, D) of a frozen backbone.
        targets: (N,) z-scores, 0 where there is none; of lesion masks (N, X, Y, Z) ml per voxel.
        has_target: (N,).
        exam_keys: (N,) int64.
        exams: (Q, S) rows of ``images``, 0 beyond a sequence's length.
        times: (Q, S).
        lengths: (Q,).
        diagnosed: (Q, K) 1 where the diagnosis falls into the interval, else 0.
        at_risk: (Q, K) how much of the interval the landmark is followed, 0–1.
        weights: (Q,) in the loss; the step's sum to 1.
        sequence_keys: (Q,) int64.
        target_scale: 1 / the step's exams with a target.
    """

    images: Tensor
    targets: Tensor
    has_target: Tensor
    exam_keys: Tensor
    exams: Tensor
    times: Tensor
    lengths: Tensor
    diagnosed: Tensor
    at_risk: Tensor
    weights: Tensor
    sequence_keys: Tensor
    target_scale: float = 0.0

    def to(self, device: torch.device) -> Batch:
        """The same on another device."""
        moved: dict[str, Any] = {k: v.to(device) for k, v in vars(self).items() if isinstance(v, Tensor)}
        return replace(self, **moved)


@dataclass(frozen=True)
class Normalisation:
    """What is worked out from the training patients once.

    Args:
        class_weights: of landmarks without and with a diagnosis within the horizon; 1 unless classes are balanced.
        target_mean: of the exam-level target.
        target_sd: of the exam-level target.
        lesions: per stage, mean and SD of ``log_amounts`` in its cells; empty without lesion masks.
        longest: exams of the longest sequence, to which all are padded: dropout's masks follow from their place.
    """

    class_weights: tuple[float, float]
    target_mean: float
    target_sd: float
    longest: int
    lesions: Sequence[tuple[float, float]] = ()

    @classmethod
    def of(
        cls, examples: Sequence[Example], config: FinetuneConfig, cache: PreparedCache | None = None
    ) -> Normalisation:
        """Balanced classes weigh each landmark by all / (2 · its class)."""
        weights = (1.0, 1.0)
        if config.loss == "balanced":
            known = trained_intervals(examples, config)
            positive, count = int(known.diagnosed.sum()), int(known.at_risk.sum())
            if not 0 < positive < count:
                message = (
                    "Classes can't be balanced: of a member's training patients no exam, or every exam whose outcome is known, is "
                    "followed by the diagnosis within the horizon. Take another horizon, or loss plain."
                )
                raise Refusal("one_class", message)
            weights = count / (2 * (count - positive)), count / (2 * positive)
        targets = np.array([t for e in examples for t in e.targets if t is not None])
        mean, sd = (float(targets.mean()), float(targets.std())) if len(targets) else (0.0, 1.0)
        longest = max(min(len(e.exams), config.max_exams) for e in examples)
        lesions: Sequence[tuple[float, float]] = ()
        names = [name for e in examples for name in e.masks if name is not None]
        if cache is not None and any(e.masks for e in examples):
            whole = unchanged(len(config.channels), config.jitter)
            chosen = names[:: len(names) // _MASKS_LOOKED_AT + 1]
            none = np.zeros((config.preparation.crop_voxels,) * 3, dtype=np.float32)
            lesions = scales_of([read_lesions(cache, name, Turn(), whole) for name in chosen] or [none], _STRIDES)
        return cls(weights, mean, sd or 1.0, longest, lesions)


def trained_intervals(examples: Sequence[Example], config: FinetuneConfig) -> Intervals:
    """Those of all landmarks (N, K) from which hazards are learned."""
    each = [(e.intervals(config), list(trained_landmarks(e, config))) for e in examples]
    at_risk = np.concatenate([intervals.at_risk[chosen] for intervals, chosen in each])
    return Intervals(at_risk, np.concatenate([intervals.diagnosed[chosen] for intervals, chosen in each]))


class FinetuneTask(Task[FinetuneModel]):
    """What the loop trains for one member of the ensemble.

    Args:
        config: the stage's settings.
        plan: draws the visits.
        held_out: patients that are only looked at.
        cache: of prepared exams.
        model: starts with random or pre-trained weights.
        exams_only: the first phase: the backbone learns the exam-level target, no label is used.
        embeddings: of the training exams, for a frozen backbone; None where it is trained.
    """

    def __init__(
        self,
        config: FinetuneConfig,
        plan: VisitPlan,
        held_out: Sequence[Example],
        cache: PreparedCache,
        model: FinetuneModel,
        exams_only: bool = False,
        embeddings: Embeddings | None = None,
    ) -> None:
        super().__init__(model)
        # All of them together are some megabytes; a step must not wait for a disk.
        self._kept = {} if embeddings is None else {e.number: embeddings.get(e) for e in plan.examples}
        self.config, self.plan, self.held_out, self.cache = config, plan, held_out, cache
        self.exams_only = exams_only
        self.normalisation = Normalisation.of(plan.examples, config, None if self._kept else cache)

    @property
    def scalars(self) -> tuple[str, ...]:
        """What every process logs."""
        if self._kept:
            return ("label_loss",)
        of_target = ("target_loss", "stage_target_loss")
        return of_target if self.exams_only else ("label_loss", *of_target)

    def load(self, step: int, workers: Workers) -> Sequence[Batch]:
        """This process's share of the step's patients, in passes of ``per_pass`` patients."""
        visits = self.plan.batch(step)
        scale = self._step_scale(visits)
        own = [visits[i] for i in workers.share(len(visits))]
        size = self.config.per_pass or max(len(own), 1)
        return [self._collate(own[i : i + size], scale) for i in range(0, len(own), size)]

    def losses(self, item: Batch, step: int) -> Losses:
        """Weighted negative log-likelihood of the follow-up and squared error of the target."""
        model, logged = self.model, {}
        batch = item.to(next(model.parameters()).device)
        embeddings, total = batch.images, torch.zeros((), device=batch.images.device)
        if not self._kept:
            give_keys(model.network.backbone, batch.exam_keys)
            embeddings, guesses = model.encode(batch.images)
            give_keys(model.network.backbone, None)
            of_embedding, *of_stages = (self._target_loss(batch, *one) for one in enumerate(guesses, start=1))
            total = self.config.target_weight * (self._embedding_weight(step) * of_embedding + sum(of_stages))
            logged["target_loss"] = float(of_embedding.detach())
            logged["stage_target_loss"] = sum(float(loss.detach()) for loss in of_stages) / max(len(of_stages), 1)
        if not self.exams_only:
            label_loss = (batch.weights * self._label_errors(batch, embeddings)).sum()
            total = total + label_loss
            logged["label_loss"] = float(label_loss.detach())
        return Losses(total, logged)

    def _embedding_weight(self, step: int) -> float:
        """With heads on all stages, the embedding's own guess joins halfway through the first phase.

        Before the earlier stages offer anything the last one only drifts to large features that are the same for every
        exam, and then it often stays there.
        """
        has_stages = self.model.stage_heads is not None and self.model.target_head is not None
        return 0.0 if self.exams_only and has_stages and step < self.config.exam_steps // 2 else 1.0

    def _target_loss(self, batch: Batch, number: int, guess: Tensor) -> Tensor:
        """Mean squared error of a guess, the ``number``-th from the last stage."""
        targets = batch.targets
        if self.normalisation.lesions:
            mean, sd = self.normalisation.lesions[-number]
            targets = (log_amounts(targets, _STRIDES[-number]) - mean) / sd
        errors = functional.mse_loss(guess.float(), targets, reduction="none").reshape(len(guess), -1).mean(1)
        return (errors * batch.has_target).sum() * batch.target_scale

    def _label_errors(self, batch: Batch, embeddings: Tensor) -> Tensor:
        network = self.model.network
        # As one module: each by itself would begin with the same stream, and the first two layers had one mask.
        random_parts = nn.ModuleList([network.dropout, network.encoder])
        places = torch.arange(embeddings.shape[-1] // network.backbone.dim, device=embeddings.device)
        give_keys(random_parts, (batch.sequence_keys[:, None] + places).flatten())  # each place has a mask of its own
        hazards = network.classify(embeddings[batch.exams], batch.times, batch.lengths)[0].float()
        give_keys(random_parts, None)
        errors = functional.binary_cross_entropy_with_logits(hazards, batch.diagnosed, reduction="none")
        if self.config.loss == "focal":  # Lin et al., arXiv 1708.02002: (1 − p of the true class)^γ
            errors = errors * (1 - torch.exp(-errors)) ** self.config.focal_gamma
        return (errors * batch.at_risk).sum(dim=1)

    def batch_of(self, step: int) -> Mapping[str, Any]:
        """The step's patients and the exams that were read of each."""
        visits = self.plan.batch(step)
        return {
            "patients": [
                {"patient_id": v.example.patient_id, "exams": [v.example.exam_ids[i] for i in v.exams]} for v in visits
            ]
        }

    def validate(self) -> Mapping[str, float]:
        """AUROC and log loss at the held-out patients' landmarks whose outcome within the main horizon is known."""
        if not self.held_out or self.exams_only:
            return {}
        probability, labels = at_main_horizon(self.held_out, predict(self.model, self.held_out, self), self.config)
        if not labels.any() or labels.all():
            return {}
        p = np.clip(probability, 1e-7, 1 - 1e-7)
        log_loss = -np.where(labels, np.log(p), np.log(1 - p)).mean()
        return {"validation_auroc": auroc(labels, probability), "validation_log_loss": float(log_loss)}

    def _collate(self, visits: Sequence[Visit], scale: tuple[float, float]) -> Batch:
        images = self._embedded(visits) if self._kept else self._images(visits)
        targets = np.stack([target for v in visits for target in self._targets(v)])
        has_target = ~np.isnan(targets.reshape(len(targets), -1)[:, 0])
        rows, times, weights, first = [], [], [], 0
        diagnosed, at_risk = [], []
        for visit in visits:
            intervals = visit.example.intervals(self.config)
            place = {exam: first + i for i, exam in enumerate(visit.exams)}
            for sequence, weight in zip(visit.sequences, visit.weights, strict=True):
                rows.append([place[i] for i in sequence])
                times.append(sequence_times(visit.example, sequence, self.config))
                diagnosed.append(intervals.diagnosed[sequence[-1]])
                at_risk.append(intervals.at_risk[sequence[-1]])
                weights.append(weight * self.normalisation.class_weights[int(diagnosed[-1].any())] / scale[0])
            first += len(visit.exams)
        return Batch(
            images=images,
            targets=torch.from_numpy(np.nan_to_num(targets)),
            has_target=torch.from_numpy(has_target),
            exam_keys=torch.from_numpy(np.concatenate([v.exam_keys for v in visits])),
            exams=_padded(rows, self.normalisation.longest).long(),
            times=_padded(times, self.normalisation.longest),
            lengths=torch.tensor([len(row) for row in rows]),
            diagnosed=torch.from_numpy(np.stack(diagnosed)).float(),
            at_risk=torch.from_numpy(np.stack(at_risk)).float(),
            weights=torch.tensor(weights),
            sequence_keys=torch.from_numpy(np.concatenate([v.sequence_keys for v in visits])),
            target_scale=1 / scale[1],
        )

    def _step_scale(self, visits: Sequence[Visit]) -> tuple[float, float]:
        """The sum of the weights of all sequences of a step, and its exams with a target, over all processes."""
        total = 0.0
        for v in visits:
            diagnosed = v.example.intervals(self.config).cases
            for sequence, weight in zip(v.sequences, v.weights, strict=True):
                total += weight * self.normalisation.class_weights[int(diagnosed[sequence[-1]])]
        targets = sum((v.example.masks or v.example.targets)[i] is not None for v in visits for i in v.exams)
        return total, float(max(targets, 1))

    def read(self, visit: Visit) -> Iterator[NDArray[np.float32]]:
        """The visit's exams (C, X, Y, Z) as the network gets them."""
        keys = [visit.example.exams[index] for index in visit.exams]
        return read_images(self.cache, keys, visit.turn, visit.changes)

    def _images(self, visits: Sequence[Visit]) -> Tensor:
        return torch.from_numpy(np.stack([image for v in visits for image in self.read(v)]))

    def _embedded(self, visits: Sequence[Visit]) -> Tensor:
        """The visits' exams as the frozen backbone has encoded them, each visit in one of the draws that are kept."""
        draws = [int(v.exam_keys[0] % (1 + self.config.draws)) for v in visits]
        return torch.cat(
            [self._kept[v.example.number][draw, list(v.exams)] for v, draw in zip(visits, draws, strict=True)]
        )

    def _targets(self, visit: Visit) -> Iterator[NDArray[np.float32]]:
        """Each exam's target: a z-score, or lesion in ml per voxel (X, Y, Z); NaN where there is none or none is learned."""
        example, normalisation = visit.example, self.normalisation
        edge = self.config.preparation.crop_voxels
        for index, change in zip(visit.exams, visit.changes, strict=True):
            if self._kept:
                yield np.full((), np.nan, dtype=np.float32)
            elif example.masks:
                name = example.masks[index]
                none = np.full((edge,) * 3, np.nan, dtype=np.float32)
                yield none if name is None else read_lesions(self.cache, name, visit.turn, change)
            else:
                target = example.targets[index]
                value = np.nan if target is None else (target - normalisation.target_mean) / normalisation.target_sd
                yield np.array(value, dtype=np.float32)


def _padded(rows: Sequence[Sequence[float]], length: int) -> Tensor:
    """Rows filled up with zeros: (Q, length)."""
    return torch.tensor([[*row, *[0] * (length - len(row))] for row in rows], dtype=torch.float32)


@torch.no_grad()
def predict(model: FinetuneModel, examples: Sequence[Example], task: FinetuneTask) -> list[NDArray[np.float64]]:
    """Each patient's risks (landmarks, horizons) at the judged landmarks, as prediction would compute them."""
    was_training, network = model.training, model.network
    model.eval()
    device = next(model.parameters()).device
    risks = []
    for example in examples:
        visit = plain_visit(example, task.config)
        images = torch.from_numpy(np.stack(list(task.read(visit)))).to(device)
        embeddings = network.backbone(images)
        place = {exam: row for row, exam in enumerate(visit.exams)}
        longest = max(len(sequence) for sequence in visit.sequences)
        rows = _padded([[place[i] for i in sequence] for sequence in visit.sequences], longest).long()
        times = _padded([sequence_times(example, s, task.config) for s in visit.sequences], longest).to(device)
        lengths = torch.tensor([len(sequence) for sequence in visit.sequences], device=device)
        hazards = network.classify(embeddings[rows.to(device)], times, lengths)[0]
        risks.append(risk_logits(hazards.double()).sigmoid().cpu().numpy())
    model.train(was_training)
    return risks


def at_main_horizon(
    examples: Sequence[Example], risks: Sequence[NDArray[np.float64]], config: FinetuneConfig
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Risks (N,) within the main horizon and labels (N,) of all judged landmarks whose outcome is known."""
    known = [
        (float(row[config.main]), label)
        for example, rows in zip(examples, risks, strict=True)
        for landmark, row in zip(judged_landmarks(example, config), rows, strict=True)
        if (label := example.labels[landmark]) is not None
    ]
    return np.array([risk for risk, _ in known]), np.array([label for _, label in known])
