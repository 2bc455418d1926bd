"""What every way of explaining offers, and what all of them ask a network."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from HCCNetLib.inference import EncodedSequence
from HCCNetLib.models import HCCNet, ModelConfig
from HCCNetLib.records import Refusal

# Images that are encoded at once where one exam is changed many times: more need memory and hardly less time.
BATCH = 4


class Explainer(Protocol):
    """Where, in a patient's exams, one network's output comes from.

    Evidence is signed and in units of the logit: positive raises the risk. It is about how the prediction at the latest
    exam depends on each exam's picture, the other exams being what they are.
    """

    @property
    def key(self) -> str:
        """What it is called on the command line."""
        ...

    @property
    def title(self) -> str:
        """What it is called in a report."""
        ...

    @property
    def description(self) -> str:
        """How the evidence is made, in sentences for a reader of the report."""
        ...

    @property
    def per_channel(self) -> bool:
        """Whether evidence is told apart by channel."""
        ...

    def resolution_voxels(self, crop: int) -> int:
        """Edge of the smallest part that is told apart, in voxels of the network's cube of ``crop``³."""
        ...

    def passes(self, config: ModelConfig) -> float:
        """Cost in forward passes of the backbone per exam and member, beside the prediction's own; a backward counts two."""
        ...

    def evidence(self, model: HCCNet, sequence: EncodedSequence) -> Tensor:
        """Evidence (S, K, x, y, z) on cells of equal size from the cube's first corner on; K is 1, or the channels."""
        ...


def require_finite(values: NDArray[np.float64]) -> None:
    """Refuses evidence that is not a number: no map can be made of it."""
    if not np.isfinite(values).all():
        message = "What a network's output rests on is not a number: say --explain none, or choose another --method."
        raise Refusal("not_finite", message)


def logits_with(model: HCCNet, sequence: EncodedSequence, exam: int, images: Tensor) -> Tensor:
    """The logits (B,) had one exam looked like each of ``images`` (B, C, X, Y, Z)."""
    return logits_with_embedding(model, sequence, exam, model.backbone(images))


def logits_with_embedding(model: HCCNet, sequence: EncodedSequence, exam: int, embedding: Tensor) -> Tensor:
    """The logits (B,) had one exam each of these embeddings (B, D)."""
    others = sequence.embeddings.expand(len(embedding), -1, -1)
    is_exam = torch.arange(others.shape[1], device=others.device) == exam
    return sequence.reading.logit(model, torch.where(is_exam[:, None], embedding[:, None], others))
