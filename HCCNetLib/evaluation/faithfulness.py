"""The figures of a check of maps, from numbers per patient and method. No maps, no networks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from HCCNetLib.evaluation.intervals import Interval, percentile_interval, wilson

METHOD = (
    "of counted patients, Wilson's 95% interval; of means over patients, the 95% percentile bootstrap over patients, "
    "with 2 patients or more"
)
RESAMPLES = 2000
_CHUNK = 250  # resamples in memory at once

Curves = NDArray[np.float64]


@dataclass
class MapFigures:
    """What was measured on one patient's landmark exam with one method. None: could not be measured.

    Args:
        patient_id: the patient.
        method: the method's name.
        landmark: the exam.
        label: whether the diagnosis came within the horizon.
        lesion_ml: the lesion's volume.
        peak_value: of the positive map, on the patient's scale, 0–1.
        peak_members: how many members agree that the peak raises the output.
        agreement: mean correlation between the members' evidence.
        distance_mm: from the peak to the lesion.
        hit: near enough to it.
        inside: in it.
        random_hit: chance of a random point of the liver to be a hit.
        random_hit_in_field: the same of the field.
        energy: share of the positive evidence that lies in the lesion.
        lesion_share: the part of the field that the lesion fills.
        like_randomised: rank correlation with the randomised networks' evidence, mean over draws.
        like_other_patient: the same with the randomised networks' evidence on another patient.
        magnitude_randomised: rank correlation of the absolute values with the randomised networks', mean over draws.
        magnitude_other_patient: likewise with theirs on another patient.
        overlap_randomised: of the strongest cells, likewise.
        overlap_other_patient: likewise.
        hit_randomised: share of the draws in which the randomised networks' peak is a hit.
        like_random_head: rank correlation where only transformer and head are drawn anew, mean over draws.
        magnitude_random_head: the same of the absolute values.
        deletion_difference: area under the curve of deletion minus that in random order; logit units.
        insertion_difference: likewise.
        deletion_moved: the same of how far the output has moved from where the curve begins, in either direction.
        insertion_moved: likewise.
        like_with_noise: rank correlation with the evidence on the exam with noise, mean over draws.
        peak_shifts_mm: how far noise moves the peak, one per draw.
    """

    patient_id: str
    method: str
    landmark: str
    label: bool | None
    lesion_ml: float | None = None
    peak_value: float | None = None
    peak_members: int | None = None
    agreement: float | None = None
    distance_mm: float | None = None
    hit: bool | None = None
    inside: bool | None = None
    random_hit: float | None = None
    random_hit_in_field: float | None = None
    energy: float | None = None
    lesion_share: float | None = None
    like_randomised: float | None = None
    like_other_patient: float | None = None
    magnitude_randomised: float | None = None
    magnitude_other_patient: float | None = None
    overlap_randomised: float | None = None
    overlap_other_patient: float | None = None
    hit_randomised: float | None = None
    like_random_head: float | None = None
    magnitude_random_head: float | None = None
    deletion_difference: float | None = None
    insertion_difference: float | None = None
    deletion_moved: float | None = None
    insertion_moved: float | None = None
    like_with_noise: float | None = None
    peak_shifts_mm: tuple[float, ...] = ()


def known(values: Sequence[float | None]) -> list[float]:
    """The values that could be measured."""
    return [value for value in values if value is not None]


def mean_of(values: Sequence[float | None]) -> float | None:
    """Mean of the values that could be measured; None where there is none."""
    found = known(values)
    return math.fsum(found) / len(found) if found else None


def mean_interval(values: Sequence[float | None], seed: int, resamples: int = RESAMPLES) -> Interval:
    """Mean over patients with a bootstrap interval; patients in whom it could not be measured are left out.

    Args:
        values: one per patient.
        seed: of the bootstrap.
        resamples: of the bootstrap.
    """
    found = np.array(known(values))
    if not len(found):
        return Interval(None, None, None)
    if len(found) == 1:
        return Interval(float(found[0]), None, None)
    rng = np.random.default_rng(seed)
    means = [np.array([found.mean()])]
    for start in range(0, resamples, _CHUNK):
        drawn = rng.integers(0, len(found), (min(_CHUNK, resamples - start), len(found)))
        means.append(found[drawn].mean(axis=1))
    return percentile_interval(np.concatenate(means))


def localisation(rows: Sequence[MapFigures], within_mm: float, seed: int) -> dict[str, Any] | None:
    """How often the peak is at the lesion, over the patients with a lesion to be found; None where there are none."""
    judged = [row for row in rows if row.hit is not None]
    if not judged:
        return None
    hits, inside = (sum(bool(getattr(row, name)) for row in judged) for name in ("hit", "inside"))
    distances = known([row.distance_mm for row in judged])
    ratios = [row.energy / row.lesion_share if row.energy is not None and row.lesion_share else None for row in judged]
    return {
        "patients": len(judged),
        "hits": hits,
        "inside": inside,
        "within_mm": within_mm,
        "hit_rate": wilson(hits, len(judged)).to_dict(),
        "inside_rate": wilson(inside, len(judged)).to_dict(),
        "random": mean_of([row.random_hit for row in judged]),
        "random_in_field": mean_of([row.random_hit_in_field for row in judged]),
        "without_peak": len(judged) - len(distances),
        "median_distance_mm": float(np.median(distances)) if distances else None,
        "distance_mm": mean_interval(distances, seed).to_dict(),
        "energy": mean_interval([row.energy for row in judged], seed).to_dict(),
        "lesion_share_of_field": mean_of([row.lesion_share for row in judged]),
        "energy_over_volume": mean_interval(ratios, seed).to_dict(),
    }


def randomised(rows: Sequence[MapFigures], draws: int, head_draws: int, seed: int) -> dict[str, Any]:
    """How much the maps have in common with those of networks that learned nothing."""
    names = (
        *("like_randomised", "like_other_patient", "magnitude_randomised", "magnitude_other_patient"),
        *("overlap_randomised", "overlap_other_patient", "hit_randomised", "like_random_head", "magnitude_random_head"),
    )
    means = {name: mean_interval([getattr(row, name) for row in rows], seed).to_dict() for name in names}
    return {
        "patients": len(known([row.like_randomised for row in rows])),
        "draws": draws,
        "head_draws": head_draws,
        **means,
    }


def perturbed(
    rows: Sequence[MapFigures], curves: Sequence[Curves], fractions: Sequence[float], seed: int
) -> dict[str, Any] | None:
    """Deletion and insertion against a random order; None where nobody was perturbed.

    Networks may answer an exam without detail with a higher output than the exam itself, or not at all where their output
    is as high as it gets. The areas then say nothing about the order; how far the output moves does, and in how many patients
    detail raises the output stands beside.

    Args:
        rows: with the differences of the areas.
        curves: per patient (2, 2, fractions): in order and in random order (mean of the draws), deletion and insertion.
        fractions: of the field's volume.
        seed: of the bootstrap.
    """
    if not curves:
        return None
    mean = np.mean(curves, axis=0)
    content: dict[str, Any] = {
        "patients": len(curves),
        "raised_by_detail": sum(bool(one[0, 0, 0] > one[0, 0, -1]) for one in curves),
        "fractions": list(fractions),
    }
    for index, name in enumerate(("deletion", "insertion")):
        content[name] = {
            "curve": mean[0, index].tolist(),
            "random": mean[1, index].tolist(),
            "difference": mean_interval([getattr(row, f"{name}_difference") for row in rows], seed).to_dict(),
            "moved": mean_interval([getattr(row, f"{name}_moved") for row in rows], seed).to_dict(),
        }
    return content


def stability(rows: Sequence[MapFigures], draws: int, noise_sd: float, seed: int) -> dict[str, Any] | None:
    """What a little noise does to the maps; None where it was tried on nobody."""
    tried = [row for row in rows if row.like_with_noise is not None]
    if not tried:
        return None
    shifts = [shift for row in tried for shift in row.peak_shifts_mm]
    return {
        "patients": len(tried),
        "draws": draws,
        "noise_sd": noise_sd,
        "correlation": mean_interval([row.like_with_noise for row in tried], seed).to_dict(),
        "median_peak_shift_mm": float(np.median(shifts)) if shifts else None,
    }


@dataclass(frozen=True)
class Burden:
    """One patient's exams, oldest first: what attention they get, and how large the lesion is in each.

    Args:
        attention: name → shares of the exams; None where there are none.
        lesion_ml: of each exam.
        correlation: name → rank correlation of the two; None where it is not determined.
    """

    attention: dict[str, Sequence[float] | None]
    lesion_ml: Sequence[float]
    correlation: dict[str, float | None]


def attention_against_burden(burdens: Sequence[Burden], names: Sequence[str], seed: int) -> dict[str, Any] | None:
    """Whether exams with a larger lesion get more attention; None where no patient has enough exams.

    Lesions that grow are largest in the latest exam, and attention may prefer the latest exam whatever is in it: how often
    each of the two is so stands beside.
    """
    if not burdens:
        return None
    largest = [int(np.argmax(burden.lesion_ml)) for burden in burdens]
    last = [len(burden.lesion_ml) - 1 for burden in burdens]
    content: dict[str, Any] = {
        "patients": len(burdens),
        "chance": mean_of([1 / len(burden.lesion_ml) for burden in burdens]),
        "largest_is_latest": _agreeing(largest, last),
        "kinds": {},
    }
    for name in names:
        shares = [burden.attention[name] for burden in burdens]
        most = [None if of_patient is None else int(np.argmax(of_patient)) for of_patient in shares]
        content["kinds"][name] = {
            "correlation": mean_interval([burden.correlation[name] for burden in burdens], seed).to_dict(),
            "most_is_largest": _agreeing(most, largest),
            "most_is_latest": _agreeing(most, last),
        }
    return content


def _agreeing(first: Sequence[int | None], second: Sequence[int]) -> dict[str, float | None]:
    """The share of patients in whom two exams are the same one."""
    pairs = [(a, b) for a, b in zip(first, second, strict=True) if a is not None]
    return wilson(sum(a == b for a, b in pairs), len(pairs)).to_dict()
