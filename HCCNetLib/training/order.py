"""Stage 2: the transformer learns to tell sequences in order from shuffled ones, on embeddings that are kept.

The dates stay sorted; the embeddings move. A permutation that changes nothing is no shuffle, and a patient with one exam
has no order: both would be examples with a wrong label.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from HCCNetLib.evaluation.discrimination import auroc_resampled
from HCCNetLib.evaluation.intervals import Interval, percentile_interval
from HCCNetLib.models import HCCNet
from HCCNetLib.models.keyed import give_keys
from HCCNetLib.training.distributed import Workers
from HCCNetLib.training.embeddings import Embeddings
from HCCNetLib.training.epochs import places_of_step
from HCCNetLib.training.examples import Example
from HCCNetLib.training.loop import Losses, Task
from HCCNetLib.training.settings import EncoderConfig

_ORDER, _SEQUENCE, _VALIDATION = 1, 4, 5
_REPEATS = 4  # shuffles of each held-out patient
_RESAMPLES = 1000


@dataclass(frozen=True)
class Shuffle:
    """One reading of a patient's sequence.

    Args:
        example: the patient.
        draw: of the augmentation.
        exams: indices of the exams whose dates are given, oldest first.
        places: the exam whose embedding stands at each of these dates; the same as ``exams`` where nothing is shuffled.
        key: for dropout.
    """

    example: Example
    draw: int
    exams: tuple[int, ...]
    places: tuple[int, ...]
    key: int = 0

    @property
    def is_shuffled(self) -> bool:
        """The label."""
        return self.places != self.exams


def draw_permutation(rng: np.random.Generator, exams: Sequence[int]) -> tuple[int, ...]:
    """A random order of at least two exams that is not the given one; all others are equally likely."""
    if len(exams) < 2:
        raise ValueError("one exam has no other order")
    while True:
        order = tuple(int(exams[i]) for i in rng.permutation(len(exams)))
        if order != tuple(exams):
            return order


def can_be_shuffled(example: Example) -> bool:
    """Whether a patient's exams have an order."""
    return len(example.exams) >= 2


@dataclass(frozen=True)
class ShufflePlan:
    """Draws the sequences of a step.

    Args:
        config: what may be drawn.
        examples: patients with at least two exams.
    """

    config: EncoderConfig
    examples: Sequence[Example]

    def batch(self, step: int) -> list[Shuffle]:
        """The step's sequences: patients in an order drawn per epoch; a batch may reach into the next epoch."""
        places = places_of_step(step, self.config.batch, len(self.examples), (self.config.seed, _ORDER))
        return [self.draw(self.examples[index], epoch) for index, epoch in places]

    def draw(self, example: Example, epoch: int) -> Shuffle:
        """A patient's sequence in an epoch."""
        config = self.config
        rng = np.random.default_rng([config.seed, _SEQUENCE, epoch, example.number])
        draw = 1 + int(rng.integers(config.draws)) if config.draws else 0
        exams = _draw_exams(len(example.exams), config, rng)
        shuffled = rng.random() < config.shuffled
        key = int(rng.integers(-(2**63), 2**63 - 1))
        return Shuffle(example, draw, exams, draw_permutation(rng, exams) if shuffled else exams, key)


def _draw_exams(count: int, config: EncoderConfig, rng: np.random.Generator) -> tuple[int, ...]:
    """At most as many exams as are allowed, some left out at random, two at least."""
    order = [int(i) for i in rng.permutation(count)]
    kept = [i for i in order[2:] if rng.random() >= config.exam_dropout]
    return tuple(sorted([*order[:2], *kept][: config.max_exams]))


def held_out_shuffles(examples: Sequence[Example], config: EncoderConfig) -> list[Shuffle]:
    """Each held-out patient in order and shuffled, several times; all exams, as prediction reads them."""
    found = []
    for example in examples:
        exams = tuple(range(len(example.exams)))
        rng = np.random.default_rng([config.seed, _VALIDATION, example.number])
        for _ in range(_REPEATS):
            found += [Shuffle(example, 0, exams, exams), Shuffle(example, 0, exams, draw_permutation(rng, exams))]
    return found


def hold_out(examples: Sequence[Example], config: EncoderConfig) -> tuple[list[Example], list[Example]]:
    """Patients to train on and patients on which the AUROC is reported, by seed."""
    usable = [e for e in examples if can_be_shuffled(e)]
    order = np.random.default_rng([config.seed, _VALIDATION]).permutation(len(usable))
    aside = set(order[: round(config.validation_fraction * len(usable))].tolist())
    training = [e for i, e in enumerate(usable) if i not in aside]
    return training, [e for i, e in enumerate(usable) if i in aside]


class OrderModel(nn.Module):
    """The network without its backbone: tokens of embeddings → transformer → one logit."""

    def __init__(self, network: HCCNet) -> None:
        super().__init__()
        del network.backbone  # it is frozen, and checkpoints need not hold it
        self.network = network

    def forward(self, embeddings: Tensor, times: Tensor, lengths: Tensor) -> Tensor:
        """(Q, S, D), (Q, S), (Q,) → logits (Q,) of being shuffled."""
        return self.network.classify(embeddings, times, lengths)[0].squeeze(-1)


@dataclass(frozen=True)
class SequenceBatch:
    """Q sequences of at most S exams.

    Args:
        embeddings: (Q, S, D).
        times: (Q, S) months before the sequence's last exam.
        lengths: (Q,).
        labels: (Q,) 1 where shuffled.
        keys: (Q,) int64, for dropout.
    """

    embeddings: Tensor
    times: Tensor
    lengths: Tensor
    labels: Tensor
    keys: Tensor

    def to(self, device: torch.device) -> SequenceBatch:
        """The same on another device."""
        return replace(self, **{name: tensor.to(device) for name, tensor in vars(self).items()})


class OrderTask(Task[OrderModel]):
    """What the loop trains in stage 2.

    Args:
        config: the stage's settings.
        plan: draws the sequences.
        held_out: patients that are only looked at.
        embeddings: filled for all of them.
        model: the transformer.
    """

    def __init__(
        self,
        config: EncoderConfig,
        plan: ShufflePlan,
        held_out: Sequence[Example],
        embeddings: Embeddings,
        model: OrderModel,
    ) -> None:
        super().__init__(model)
        self.config, self.plan = config, plan
        self.held_out = held_out_shuffles(held_out, config)
        # All of them together are a few megabytes; a step must not wait for a disk.
        self._embeddings = {e.number: embeddings.get(e) for e in (*plan.examples, *held_out)}
        self._longest = min(max(len(e.exams) for e in plan.examples), config.max_exams)

    @property
    def scalars(self) -> tuple[str, ...]:
        """What every process logs."""
        return "loss", "accuracy"

    def load(self, step: int, workers: Workers) -> Sequence[SequenceBatch]:
        """This process's share of the step's sequences, in passes of ``per_pass``."""
        sequences = self.plan.batch(step)
        own = [sequences[i] for i in workers.share(len(sequences))]
        size = self.config.per_pass or max(len(own), 1)
        # Padded alike in every batch: dropout's masks follow from a token's place.
        return [self.collate(own[i : i + size], self._longest) for i in range(0, len(own), size)]

    def collate(self, sequences: Sequence[Shuffle], longest: int) -> SequenceBatch:
        """Sequences as one padded batch."""
        dim = next(iter(self._embeddings.values())).shape[-1]
        embeddings, times = torch.zeros(len(sequences), longest, dim), torch.zeros(len(sequences), longest)
        for row, sequence in enumerate(sequences):
            count = len(sequence.exams)
            embeddings[row, :count] = self._embeddings[sequence.example.number][sequence.draw, list(sequence.places)]
            times[row, :count] = torch.tensor(self._times(sequence))
        return SequenceBatch(
            embeddings,
            times,
            torch.tensor([len(s.exams) for s in sequences]),
            torch.tensor([float(s.is_shuffled) for s in sequences]),
            torch.tensor([s.key for s in sequences], dtype=torch.int64),
        )

    def _times(self, sequence: Shuffle) -> list[float]:
        if self.config.time == "exams":
            return [float(len(sequence.exams) - 1 - i) for i in range(len(sequence.exams))]
        months = sequence.example.months
        return [months[i] - months[sequence.exams[-1]] for i in sequence.exams]

    def losses(self, item: SequenceBatch, step: int) -> Losses:
        """Cross-entropy, this pass's part of the mean over the step's sequences."""
        batch = item.to(next(self.model.parameters()).device)
        give_keys(self.model, batch.keys)
        logits = self.model(batch.embeddings, batch.times, batch.lengths).float()
        give_keys(self.model, None)
        loss = functional.binary_cross_entropy_with_logits(logits, batch.labels, reduction="sum") / self.config.batch
        right = ((logits > 0) == (batch.labels > 0)).sum() / self.config.batch
        return Losses(loss, {"loss": float(loss.detach()), "accuracy": float(right)})

    def batch_of(self, step: int) -> Mapping[str, Any]:
        """The step's patients and exams, in the order in which they were shown."""
        return {
            "patients": [
                {"patient_id": s.example.patient_id, "exams": [s.example.exam_ids[i] for i in s.places]}
                for s in self.plan.batch(step)
            ]
        }

    def validate(self) -> Mapping[str, float]:
        """AUROC of shuffled against ordered on the held-out patients."""
        value = self.auroc().value
        return {} if value is None else {"validation_auroc": value}

    @torch.no_grad()
    def auroc(self, resamples: int = 0) -> Interval:
        """AUROC with a 95% interval from drawing patients again, all their sequences together."""
        if not self.held_out:
            return Interval(None, None, None)
        was_training, model = self.model.training, self.model
        model.eval()
        batch = self.collate(self.held_out, max(len(s.exams) for s in self.held_out))
        batch = batch.to(next(model.parameters()).device)
        scores = model(batch.embeddings, batch.times, batch.lengths).double().cpu().numpy()
        model.train(was_training)
        labels = batch.labels.cpu().numpy() > 0
        patients = len(self.held_out) // (2 * _REPEATS)
        rng = np.random.default_rng(0)
        drawn = np.vstack(
            [np.ones((1, patients)), rng.multinomial(patients, np.full(patients, 1 / patients), resamples)]
        )
        values = auroc_resampled(labels, scores, np.repeat(drawn, 2 * _REPEATS, axis=1))
        return percentile_interval(values) if resamples else Interval(float(values[0]), None, None)
