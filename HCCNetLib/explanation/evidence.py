"""All members' evidence on a patient, and the maps that are made of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from HCCNetLib.explanation.explainer import Explainer, require_finite
from HCCNetLib.inference import EncodedSequence
from HCCNetLib.models import STAGES, HCCNet, stage_stride
from HCCNetLib.preprocessing import PreparedExam, map_to_exam
from HCCNetLib.preprocessing.geometry import apply_affine, scaling, translation, world_to_index
from HCCNetLib.preprocessing.inverse import peak_voxel
from HCCNetLib.records import Affine

ALL = "all"  # the name of the map over all channels


@dataclass(frozen=True)
class Evidence:
    """Signed evidence on a patient, in units of the logit.

    Args:
        cells: (S, K, x, y, z), mean over the members; K is 1, or the channels.
        cell_voxels: edge of a cell in voxels of the network's grid.
        positive: (S, x, y, z): in how many members the evidence, summed over K, is above 0.
        members: how many there are.
        agreement: mean correlation over pairs of members, each over all cells of all exams; None for a lone member or
            where a member has no evidence.
    """

    cells: NDArray[np.float32]
    cell_voxels: int
    positive: NDArray[np.int16]
    members: int
    agreement: float | None

    @property
    def total(self) -> NDArray[np.float32]:
        """(S, x, y, z), summed over K."""
        total: NDArray[np.float32] = self.cells.sum(axis=1)
        return total


class EnsembleEvidence:
    """Asks every member for its evidence by one method (a ``MemberObserver``).

    Args:
        explainer: the method.
    """

    def __init__(self, explainer: Explainer) -> None:
        self.explainer = explainer
        self._sum: NDArray[np.float64] | None = None
        self._directions: NDArray[np.float64] | None = None
        self._positive: NDArray[np.int16] | None = None
        self._members = 0
        self.read: tuple[int, ...] = ()  # the exams that the prediction rests on; the others have no evidence
        self._cell_voxels = 0
        self._is_empty = False

    def observe(self, model: HCCNet, sequence: EncodedSequence) -> None:
        """Adds one member's evidence."""
        cells = self.explainer.evidence(model, sequence).double().cpu().numpy()
        require_finite(cells)
        total = cells.sum(axis=1)
        centred = total - total.mean()
        length = float(np.linalg.norm(centred))
        self._is_empty |= not length > 0
        direction = centred / length if length > 0 else centred
        positive = (total > 0).astype(np.int16)
        if self._sum is None or self._directions is None or self._positive is None:
            self._sum, self._directions, self._positive = cells, direction, positive
        else:
            self._sum, self._directions = self._sum + cells, self._directions + direction
            self._positive = self._positive + positive
        self._members += 1
        self.read = sequence.reading.exams
        self._cell_voxels = _cell_voxels(sequence.images.shape[-1], cells.shape[-1])

    def result(self) -> Evidence:
        """The mean over the members seen."""
        if self._sum is None or self._directions is None or self._positive is None:
            raise ValueError("no member has been observed")
        agreement = None
        if self._members > 1 and not self._is_empty:
            # The squared length of a sum of unit vectors holds every pair's correlation twice.
            pairs = self._members * (self._members - 1)
            agreement = float(np.clip(((self._directions**2).sum() - self._members) / pairs, -1, 1))
        return Evidence(
            cells=(self._sum / self._members).astype(np.float32),
            cell_voxels=self._cell_voxels,
            positive=self._positive,
            members=self._members,
            agreement=agreement,
        )


def _cell_voxels(crop: int, cells: int) -> int:
    """The edge of a cell: a voxel, or a stage's stride, which leaves over what does not make a whole cell."""
    return next(edge for edge in (1, *map(stage_stride, range(STAGES))) if crop // edge == cells)


@dataclass(frozen=True)
class Peak:
    """Where an exam's positive evidence is strongest.

    Args:
        mm: centre of the voxel in patient space.
        value: on the patient's scale, 0–1.
        members: in how many members the evidence of the cell there is positive.
    """

    mm: tuple[float, float, float]
    value: float
    members: int


@dataclass(frozen=True)
class ExamMaps:
    """One exam's maps on its own grid, (X, Y, Z), 0–1 on one scale for the patient and both signs; 0 outside the field.

    Args:
        towards: ``all`` or channel → what raises the output.
        against: ``all`` or channel → what lowers it.
        peak: of ``towards["all"]``; None where nothing raises the output.
        scale: what 1 stands for, in units of the logit per cell.
    """

    towards: Mapping[str, NDArray[np.float32]]
    against: Mapping[str, NDArray[np.float32]]
    peak: Peak | None
    scale: float


def exam_maps(
    evidence: Evidence, prepared: Sequence[PreparedExam], channels: Sequence[str] = ()
) -> tuple[ExamMaps, ...]:
    """Brings evidence back onto the exams.

    Args:
        evidence: of the exams.
        prepared: the exams.
        channels: names of the channels that the evidence tells apart, where maps of them are wanted.
    """
    cells = evidence.total[:, None]
    if channels and evidence.cells.shape[1] > 1:
        cells = np.concatenate([cells, evidence.cells], axis=1)
    names = (ALL, *channels)[: cells.shape[1]]
    signed = [
        {name: _on_exam(values, evidence.cell_voxels, exam) for name, values in zip(names, of_exam, strict=True)}
        for of_exam, exam in zip(cells, prepared, strict=True)
    ]
    largest = max(float(np.abs(values).max()) for of_exam in signed for values in of_exam.values())
    scale = largest if largest > 0 else 1.0
    maps = []
    for index, (of_exam, exam) in enumerate(zip(signed, prepared, strict=True)):
        towards = {name: positive_part(values, scale) for name, values in of_exam.items()}
        against = {name: positive_part(-values, scale) for name, values in of_exam.items()}
        maps.append(ExamMaps(towards, against, _peak(towards[ALL], evidence, index, exam), scale))
    return tuple(maps)


def positive_part(values: NDArray[np.float32], scale: float) -> NDArray[np.float32]:
    """What is above 0, on a scale, in single precision."""
    return (np.maximum(values, 0) / scale).astype(np.float32)


def _on_exam(cells: NDArray[np.float32], cell_voxels: int, exam: PreparedExam) -> NDArray[np.float32]:
    return map_to_exam(cells, cell_affine(exam.window.grid.affine, cell_voxels), exam)


def _peak(values: NDArray[np.float32], evidence: Evidence, index: int, exam: PreparedExam) -> Peak | None:
    voxel = peak_voxel(values, exam.source_grid.affine)
    if not values[voxel] > 0:
        return None
    point = apply_affine(exam.source_grid.affine, np.array([voxel], dtype=np.float64))
    affine = cell_affine(exam.window.grid.affine, evidence.cell_voxels)
    shape = np.array(evidence.positive.shape[1:])
    x, y, z = np.clip(np.rint(world_to_index(affine, point)[0]).astype(int), 0, shape - 1)
    mm = (float(point[0, 0]), float(point[0, 1]), float(point[0, 2]))
    return Peak(mm, float(values[voxel]), int(evidence.positive[index, x, y, z]))


def cell_affine(affine: Affine, cell_voxels: int) -> Affine:
    """The affine of a grid of cells, from that of the network's voxels: cell centres → patient mm.

    Cell i covers voxels i·s to i·s + s − 1; stem and downsamplings have no padding, so this holds for feature maps.
    """
    return affine @ translation([(cell_voxels - 1) / 2] * 3) @ scaling([cell_voxels] * 3)
