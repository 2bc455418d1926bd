"""Class activation from the third stage's feature map, in patient space."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from HCCNetLib.inference import MAP_STAGE, EncodedSequence
from HCCNetLib.models import HCCNet, stage_stride
from HCCNetLib.preprocessing import PreparedExam, map_to_exam
from HCCNetLib.preprocessing.geometry import scaling, translation
from HCCNetLib.records import Affine

METHOD = "class activation, stage 3"
DESCRIPTION = (
    "Gradient times normalised activation of the network's third stage (each cell covers 12 voxels along each axis: 18 mm at "
    "1.5 mm), summed over features, averaged over the members, positive evidence only, scaled by the patient's largest "
    "value over all exams. Its faithfulness has not been tested."
)


class ClassActivation:
    """Positive evidence per cell: Σ over features of activation · ∂logit/∂activation, averaged over members.

    The activations are the third stage's as the last stage takes them, each cell normalised over its features. Before
    that norm the sum would be 0 in every cell, whatever the network had learned: the norm makes the logit indifferent
    to the length of a cell's feature vector.

    The elementwise product (HiResCAM, Draelos and Carin, arXiv 2011.08891) keeps where a feature mattered, which the
    average of the gradient over space (Grad-CAM) loses. Cost: the last stage and the transformer, forward and backward,
    once per member; no further pass through the first three stages.
    """

    def __init__(self) -> None:
        self._sum: Tensor | None = None
        self._members = 0

    def observe(self, model: HCCNet, sequence: EncodedSequence) -> None:
        """Adds one member's evidence."""
        with torch.enable_grad():
            backbone = model.backbone
            maps = backbone.enter_stage(MAP_STAGE + 1, sequence.feature_maps).detach().requires_grad_(True)
            embeddings = backbone.pool(backbone.leave_stage(MAP_STAGE + 1, maps))
            read = embeddings[list(sequence.read)]
            lengths = torch.tensor([len(read)], device=embeddings.device)
            logit = model.classify(read[None], sequence.times[None], lengths)[0]
            (gradient,) = torch.autograd.grad(logit.sum(), maps)
        evidence = (maps.detach() * gradient).sum(dim=1).cpu()
        self._sum = evidence if self._sum is None else self._sum + evidence
        self._members += 1

    def evidence(self) -> NDArray[np.float32]:
        """Signed evidence per cell, (S, x, y, z), mean over the members seen."""
        if self._sum is None:
            raise ValueError("no member has been observed")
        result: NDArray[np.float32] = (self._sum / self._members).numpy().astype(np.float32)
        return result

    def maps(self, prepared: Sequence[PreparedExam]) -> list[NDArray[np.float32]]:
        """One map per exam on the exam's own grid, 0–1 by one scale per patient, 0 outside the field read."""
        positive = np.maximum(self.evidence(), 0)
        maps = [
            map_to_exam(cells, cell_affine(exam.window.grid.affine, MAP_STAGE), exam)
            for cells, exam in zip(positive, prepared, strict=True)
        ]
        largest = max(float(m.max()) for m in maps)
        return [m / largest if largest > 0 else m for m in maps]


def cell_affine(affine: Affine, stage: int) -> Affine:
    """The affine of a stage's feature map, from that of the network's grid: cell centres → patient mm.

    Stem and downsamplings have no padding, so cell i covers voxels i·s to i·s + s − 1.
    """
    stride = stage_stride(stage)
    return affine @ translation([(stride - 1) / 2] * 3) @ scaling([stride] * 3)
