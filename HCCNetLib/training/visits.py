"""What is drawn when a patient is read in training: exams, sequences, augmentation, the keys of dropout.

Every draw is keyed by seed, member, epoch and the patient's number: it does not depend on the batch, the process or what
was drawn before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from HCCNetLib.preprocessing.augmentation import ExamChange, Turn, draw_change, draw_turn, drop_channels, unchanged
from HCCNetLib.training.epochs import places_of_step
from HCCNetLib.training.examples import Example
from HCCNetLib.training.settings import FinetuneConfig

_ORDER, _VISIT = 1, 2


@dataclass(frozen=True)
class Visit:
    """One reading of a patient.

    Args:
        example: the patient.
        exams: indices of the exams that are encoded, oldest first.
        sequences: per sequence, indices of its exams, oldest first, the landmark last.
        weights: of the sequences in the loss; those of one landmark sum to its weight.
        turn: of all exams.
        changes: one per encoded exam.
        exam_keys: (encoded exams,) int64, for stochastic depth.
        sequence_keys: (sequences,) int64, for dropout.
    """

    example: Example
    exams: tuple[int, ...]
    sequences: tuple[tuple[int, ...], ...]
    weights: tuple[float, ...]
    turn: Turn
    changes: tuple[ExamChange, ...]
    exam_keys: NDArray[np.int64]
    sequence_keys: NDArray[np.int64]


@dataclass(frozen=True)
class VisitPlan:
    """Draws visits for one member of the ensemble.

    Args:
        config: what may be drawn.
        member: number of the member.
        examples: its training patients.
    """

    config: FinetuneConfig
    member: int
    examples: Sequence[Example]

    def batch(self, step: int) -> list[Visit]:
        """The visits of a step: patients in an order drawn per epoch; a batch may reach into the next epoch."""
        key = (self.config.seed, self.member, _ORDER)
        places = places_of_step(step, self.config.batch, len(self.examples), key)
        return [self.draw(self.examples[index], epoch) for index, epoch in places]

    def draw(self, example: Example, epoch: int) -> Visit:
        """One visit of a patient in an epoch."""
        config = self.config
        rng = np.random.default_rng([config.seed, self.member, _VISIT, epoch, example.number])
        exams = _draw_exams(example, config, rng)
        turn = draw_turn(rng, config.flip, config.rotate)
        intensity = config.intensity_scale, config.intensity_shift
        changes = tuple(draw_change(rng, len(config.channels), config.jitter, *intensity) for _ in exams)
        exam_keys = _draw_keys(rng, len(exams))
        if config.channel_dropout:
            changes = tuple(drop_channels(rng, change, config.channel_dropout) for change in changes)
        # Last, so that the images are the same ones whatever is made of the sequences.
        sequences, weights = _draw_sequences(example, exams, config, rng)
        sequence_keys = _draw_keys(rng, len(sequences))
        return Visit(example, exams, sequences, weights, turn, changes, exam_keys, sequence_keys)


def _draw_keys(rng: np.random.Generator, count: int) -> NDArray[np.int64]:
    return rng.integers(-(2**63), 2**63 - 1, count)


def plain_visit(example: Example, config: FinetuneConfig) -> Visit:
    """The reading of prediction: a sequence per landmark, with all exams up to it, nothing drawn."""
    landmarks = judged_landmarks(example, config)
    exams = tuple(range(landmarks[-1] + 1)) if config.history == "all" else landmarks
    sequences = tuple(tuple(range(landmark + 1)) if config.history == "all" else (landmark,) for landmark in landmarks)
    changes = tuple(unchanged(len(config.channels), config.jitter) for _ in exams)
    none = np.zeros(0, dtype=np.int64)
    return Visit(example, exams, sequences, (1.0,) * len(sequences), Turn(), changes, none, none)


def judged_landmarks(example: Example, config: FinetuneConfig) -> tuple[int, ...]:
    """Landmarks on which calibration and thresholds rest: not chosen by what follows, unless the configuration says so."""
    return tuple(range(len(example.exams))) if config.landmarks == "all" else trained_landmarks(example, config)


def _draw_exams(example: Example, config: FinetuneConfig, rng: np.random.Generator) -> tuple[int, ...]:
    """All exams; of a longer series a landmark and as many of the earlier ones as are allowed, at random."""
    count = len(example.exams)
    if count <= config.max_exams:
        return tuple(range(count))
    landmark = int(rng.choice(trained_landmarks(example, config)))
    earlier = rng.choice(landmark, min(config.max_exams - 1, landmark), replace=False)
    return (*sorted(int(i) for i in earlier), landmark)


def _chance_to_be_drawn(landmark: int, trained: Sequence[int], most: int) -> float:
    """Of a landmark of a series longer than ``most``: as the visit's own, or as an earlier exam of a later one's."""
    as_earlier = sum(min(most - 1, later) / later for later in trained if later > landmark)
    return (1 + as_earlier) / len(trained)


def trained_landmarks(example: Example, config: FinetuneConfig) -> tuple[int, ...]:
    """Landmarks of a patient from which hazards are learned."""
    informative = example.intervals(config).informative
    chosen = example.labelled[-1:] if config.landmarks == "latest" else range(len(informative))
    return tuple(landmark for landmark in chosen if informative[landmark])


def _draw_sequences(
    example: Example, exams: Sequence[int], config: FinetuneConfig, rng: np.random.Generator
) -> tuple[tuple[tuple[int, ...], ...], tuple[float, ...]]:
    """Per landmark among the exams one sequence or, where exams are left out at random, several."""
    trained = trained_landmarks(example, config)
    landmarks = [i for i in trained if i in exams]
    draws = config.subsequences if config.exam_dropout else 1
    sequences, weights = [], []
    for landmark in landmarks:
        # On average over visits it depends on nothing that comes later: 1 / the patient's number of exams would.
        weight = 1 / (landmark + 1) if config.landmark_weight == "number" and config.landmarks == "all" else 1.0
        if len(example.exams) > config.max_exams and config.landmark_weight == "number":
            weight /= _chance_to_be_drawn(landmark, trained, config.max_exams)
        weights += [weight / draws] * draws
        earlier = [i for i in exams if i < landmark] if config.history == "all" else []
        for _ in range(draws):
            kept = [i for i in earlier if rng.random() >= config.exam_dropout]
            sequences.append((*kept, landmark))
    return tuple(sequences), tuple(weights)


def sequence_times(example: Example, sequence: Sequence[int], config: FinetuneConfig) -> list[float]:
    """The time of each exam of a sequence as the network is given it: 0 for the landmark, positive before."""
    if config.time == "exams":
        return [float(len(sequence) - 1 - i) for i in range(len(sequence))]
    landmark = example.months[sequence[-1]]
    return [example.months[i] - landmark for i in sequence]
