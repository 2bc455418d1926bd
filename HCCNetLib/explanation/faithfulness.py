"""Whether maps point at what is known to be there, and whether two maps say the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from scipy.stats import rankdata

from HCCNetLib.explanation.evidence import ALL, Evidence, ExamMaps, exam_maps
from HCCNetLib.preprocessing import PreparedExam, map_to_exam
from HCCNetLib.preprocessing.geometry import apply_affine

WITHIN_MM = 10.0  # a peak this near to the lesion is a hit
STRONGEST = 0.05  # share of the cells that two maps are compared on
_FEWEST = 3  # cells or exams below which a correlation says nothing

Mask = NDArray[np.bool_]
Point = tuple[float, float, float]


@dataclass(frozen=True)
class LesionPlace:
    """Where an exam's lesion lies, and what a random point would make of it.

    Args:
        lesion: (X, Y, Z) of the exam's grid.
        points: (N, 3) centres of the lesion's voxels, patient mm.
        random_hit: share of the liver's voxels in the field within ``WITHIN_MM`` of the lesion: the chance of a random
            point of the liver to be a hit.
        random_hit_in_field: the same of the whole field.
        share_of_field: the part of the field that the lesion fills.
    """

    lesion: Mask
    points: NDArray[np.float64]
    random_hit: float
    random_hit_in_field: float
    share_of_field: float

    @classmethod
    def find(cls, lesion: Mask, liver: Mask, prepared: PreparedExam) -> LesionPlace | None:
        """The place of a lesion, or None where no voxel of it lies in the field that was read.

        Args:
            lesion: (X, Y, Z) of the exam's grid.
            liver: likewise; the lesion counts as liver, whatever is said here.
            prepared: the exam.
        """
        field = _field_on_exam(prepared)
        seen = int((lesion & field).sum())
        if not seen:
            return None
        affine = prepared.source_grid.affine
        points = apply_affine(affine, np.argwhere(lesion).astype(np.float64))
        tree = cKDTree(points)

        def near(where: Mask) -> float:
            at = apply_affine(affine, np.argwhere(where).astype(np.float64))
            # The query's bound is exclusive, a hit's is not.
            distances, _ = tree.query(at, distance_upper_bound=np.nextafter(WITHIN_MM, np.inf))
            return float(np.isfinite(distances).mean())

        return cls(lesion, points, near((liver | lesion) & field), near(field), seen / int(field.sum()))

    def distance_mm(self, point: Point) -> float:
        """From a point to the centre of the nearest voxel of the lesion, mm; 0 at the centre of one."""
        distance = float(np.sqrt(((self.points - np.array(point)) ** 2).sum(axis=1)).min())
        return 0.0 if distance < 1e-6 else distance  # the same voxel, by another way through the affine


def _field_on_exam(prepared: PreparedExam) -> Mask:
    """(X, Y, Z) of the exam's own grid: voxels in the field that was read, where alone a map can be above 0."""
    ones = np.ones(prepared.window.grid.shape, dtype=np.float32)
    return map_to_exam(ones, prepared.window.grid.affine, prepared) > 0


@dataclass(frozen=True)
class Localisation:
    """How well a map points at the lesion.

    Args:
        distance_mm: from the map's peak to the nearest voxel of the lesion; None where the map has no peak.
        hit: whether that is at most ``WITHIN_MM``.
        inside: whether the peak is a voxel of the lesion.
        energy: share of the positive evidence that lies in the lesion; None where there is no positive evidence.
    """

    distance_mm: float | None
    hit: bool
    inside: bool
    energy: float | None


def localise(maps: ExamMaps, place: LesionPlace) -> Localisation:
    """Compares an exam's map with its lesion; a map without a peak misses."""
    if maps.peak is None:
        return Localisation(None, hit=False, inside=False, energy=None)
    distance = place.distance_mm(maps.peak.mm)
    towards = maps.towards[ALL].astype(np.float64)
    energy = float(towards[place.lesion].sum() / towards.sum())
    return Localisation(distance, distance <= WITHIN_MM, distance == 0, energy)


@dataclass(frozen=True)
class LandmarkCells:
    """What is kept of a method's evidence on the landmark exam.

    Args:
        cells: (x, y, z), signed, summed over channels.
        cell_voxels: edge of a cell in voxels of the network's grid.
        in_field: (x, y, z), which of them hold a voxel that was read.
        peak_mm: of the positive map on the exam's own grid; None where nothing raises the output.
    """

    cells: NDArray[np.float32]
    cell_voxels: int
    in_field: Mask
    peak_mm: Point | None


def landmark_cells(evidence: Evidence, prepared: PreparedExam) -> LandmarkCells:
    """The last exam of ``evidence``; ``prepared`` is that exam."""
    last = replace(evidence, cells=evidence.total[-1:, None], positive=evidence.positive[-1:])
    (maps,) = exam_maps(last, [prepared])
    cells = last.cells[0, 0]
    in_field = _cells_in_field(prepared.window.read_mask, evidence.cell_voxels, cells.shape)
    return LandmarkCells(cells, evidence.cell_voxels, in_field, None if maps.peak is None else maps.peak.mm)


def _cells_in_field(read: Mask, cell_voxels: int, shape: Sequence[int]) -> Mask:
    """(x, y, z): cells with at least one voxel that was read; voxels behind the last whole cell belong to none."""
    x, y, z = shape
    s = cell_voxels
    blocks = read[: x * s, : y * s, : z * s].reshape(x, s, y, s, z, s)
    return np.asarray(blocks.any(axis=(1, 3, 5)))


@dataclass(frozen=True)
class Similarity:
    """How alike two maps are over the same cells.

    Args:
        correlation: Spearman's, of the signed evidence.
        magnitude: Spearman's, of its absolute values: a random head may turn the sign of a pattern that is the same, and
            over several draws the signed one would cancel.
        overlap: share of the strongest ``STRONGEST`` of the cells of one that are among those of the other.
    """

    correlation: float | None
    magnitude: float | None
    overlap: float | None


def compare(one: LandmarkCells, other: LandmarkCells, rng: np.random.Generator) -> Similarity:
    """Compares two maps over the cells that lie in both fields; nothing is said of a map that is the same everywhere.

    Args:
        one: a map.
        other: a map with cells of the same size.
        rng: decides between cells of equal evidence.
    """
    both = one.in_field & other.in_field
    a, b = one.cells[both], other.cells[both]
    correlation = spearman(a, b)
    if correlation is None:
        return Similarity(None, None, None)
    count = max(1, round(STRONGEST * len(a)))
    common = np.intersect1d(_strongest(a, count, rng), _strongest(b, count, rng))
    return Similarity(correlation, spearman(np.abs(a), np.abs(b)), len(common) / count)


def _strongest(values: NDArray[np.float32], count: int, rng: np.random.Generator) -> NDArray[np.intp]:
    """Indices of the greatest values, the order of equal ones drawn."""
    return np.lexsort((rng.random(len(values)), -values))[:count]


def spearman(a: Sequence[float] | NDArray[np.float32], b: Sequence[float] | NDArray[np.float32]) -> float | None:
    """Spearman's rank correlation, equal values sharing their mean rank; None below three values or for constant ones."""
    if len(a) < _FEWEST:
        return None
    # From scipy 1.18 on ranks have the precision of what is ranked.
    ranks = np.stack([rankdata(a), rankdata(b)]).astype(np.float64)
    ranks -= ranks.mean(axis=1, keepdims=True)
    lengths = np.sqrt((ranks**2).sum(axis=1))
    if not lengths.min() > 0:
        return None
    return float(np.clip((ranks[0] * ranks[1]).sum() / lengths.prod(), -1, 1))
