"""What changed since the last exam: the difference between consecutive landmarks, and where in the picture it comes from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from HCCNetLib.explanation.evidence import cell_affine, positive_part
from HCCNetLib.explanation.explainer import require_finite
from HCCNetLib.explanation.path import integrate
from HCCNetLib.inference import EncodedSequence
from HCCNetLib.models import HCCNet, stage_stride
from HCCNetLib.preprocessing import PreparedExam, map_to_exam

_STAGE = 1  # features after this stage, 1 to 4, are led from the previous exam's to the new one's
_STEPS, _DOUBLINGS = 8, 3
_BATCH = 8  # steps at once
_FAINT = 0.005  # units of the logit per cell


@dataclass(frozen=True)
class Change:
    """From one landmark to the next, in units of the members' mean logit: ``logit`` = ``by_dates`` + ``by_picture``.

    Args:
        logit: the output at the new landmark minus the output at the previous one.
        by_dates: what it would have changed had the new exam looked like the previous one: time passed, an exam more.
        by_picture: the rest, which comes from how the new exam's picture differs from the previous one's.
    """

    logit: float
    by_dates: float
    by_picture: float


class ChangeEvidence:
    """Explains the difference between consecutive landmarks, member by member (a ``MemberObserver``).

    ``by_picture`` is shared out over cells by integrated gradients along the straight way from the previous exam's
    features to the new one's (the first stage's, normalised as the second takes them). Exams are shifted onto each
    other at most: a lesion that breathing shifts by a cell gives positive evidence where it is now and negative where it was.

    Cost per pair of exams and member: 8 forward and backward passes through stages 2 to 4 for one exam, more where their
    sum falls short.
    """

    def __init__(self) -> None:
        self._numbers: NDArray[np.float64] | None = None
        self._cells: NDArray[np.float64] | None = None
        self._members = 0

    def observe(self, model: HCCNet, sequence: EncodedSequence) -> None:
        """Adds one member's changes."""
        numbers = np.zeros((len(sequence.as_of) - 1, 2))
        cells = np.zeros((len(sequence.as_of), *sequence.stage_maps[_STAGE - 1].shape[2:]))
        for new in range(1, len(sequence.as_of)):
            embeddings = sequence.embeddings[None]
            unchanged = embeddings.clone()
            unchanged[0, new] = embeddings[0, new - 1]
            before = float(sequence.as_of[new - 1].logit(model, embeddings))
            dates = float(sequence.as_of[new].logit(model, unchanged))
            after = float(sequence.as_of[new].logit(model, embeddings))
            numbers[new - 1] = dates - before, after - dates
            cells[new] = _by_picture(model, sequence, new, after - dates).double().cpu().numpy()
        require_finite(cells)
        self._numbers = numbers if self._numbers is None else self._numbers + numbers
        self._cells = cells if self._cells is None else self._cells + cells
        self._members += 1

    def changes(self) -> tuple[Change, ...]:
        """One per pair of consecutive exams, oldest first; mean over the members."""
        if self._numbers is None:
            raise ValueError("no member has been observed")
        rows = (self._numbers / self._members).tolist()
        return tuple(Change(dates + picture, dates, picture) for dates, picture in rows)

    def evidence(self) -> NDArray[np.float32]:
        """(S, x, y, z) signed, mean over the members: sums to ``by_picture`` over an exam; zeros for the first exam."""
        if self._cells is None:
            raise ValueError("no member has been observed")
        mean: NDArray[np.float32] = (self._cells / self._members).astype(np.float32)
        return mean

    def maps(self, prepared: Sequence[PreparedExam]) -> tuple[tuple[NDArray[np.float32], NDArray[np.float32]], ...]:
        """Per exam on its own grid, 0–1 on one scale for the patient: what raised and what lowered the output."""
        signed = self._on_exams(prepared)
        scale = _scale(signed)
        return tuple((positive_part(values, scale), positive_part(-values, scale)) for values in signed)

    def scale(self, prepared: Sequence[PreparedExam]) -> float:
        """What 1 stands for on the maps, in units of the logit per cell: the patient's largest, or a floor.

        Where hardly anything changed, maps must not look as if much had.
        """
        return _scale(self._on_exams(prepared))

    def _on_exams(self, prepared: Sequence[PreparedExam]) -> list[NDArray[np.float32]]:
        stride = stage_stride(_STAGE - 1)
        return [
            map_to_exam(cells, cell_affine(exam.window.grid.affine, stride), exam)
            for cells, exam in zip(self.evidence(), prepared, strict=True)
        ]


def _scale(signed: Sequence[NDArray[np.float32]]) -> float:
    return max(_FAINT, *(float(np.abs(values).max()) for values in signed))


def _by_picture(model: HCCNet, sequence: EncodedSequence, new: int, difference: float) -> Tensor:
    """(x, y, z): how much of the logit at landmark ``new`` each cell's difference from the previous exam brought."""
    features = model.backbone.enter_stage(_STAGE, sequence.stage_maps[_STAGE - 1])
    start, way = features[new - 1], features[new] - features[new - 1]
    gradients = partial(_gradients, model, sequence, new, start, way)
    return integrate(gradients, way, difference, _STEPS, _BATCH, _DOUBLINGS).sum(dim=0)


def _gradients(
    model: HCCNet, sequence: EncodedSequence, new: int, start: Tensor, way: Tensor, places: Tensor
) -> Tensor:
    """(B, C, x, y, z): of the logit at landmark ``new`` with respect to its features at ``places`` (B,) of their way."""
    backbone, reading = model.backbone, sequence.as_of[new]
    is_new = torch.arange(len(sequence.embeddings), device=way.device)[:, None] == new
    features = (start + places[:, None, None, None, None] * way).requires_grad_(True)
    with torch.enable_grad():
        last = backbone.forward_stages(backbone.leave_stage(_STAGE, features), start=_STAGE + 1)
        embeddings = torch.where(is_new, backbone.pool(last)[:, None], sequence.embeddings)
        (gradients,) = torch.autograd.grad(reading.logit(model, embeddings).sum(), features)
    return gradients
