"""Lesion masks as a target: how much lesion each cell of the network's feature maps holds.

A mask is brought onto the grid of its prepared exam and kept beside it, as the lesion's share of each voxel.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from HCCNetLib.inference.cache import PreparedCache
from HCCNetLib.preprocessing.augmentation import ExamChange, Turn
from HCCNetLib.preprocessing.geometry import apply_affine, crop_for, resample, translation, world_to_index
from HCCNetLib.readers.nifti import NiftiImage
from HCCNetLib.records import Refusal
from HCCNetLib.training.examples import Examples, Progress
from HCCNetLib.training.settings import FinetuneConfig

# A cell with less, a sphere of 3 mm, counts as one with this much.
LEAST_ML = float(np.pi / 6 * 3.0**3 / 1000)
_WHOLE = 255  # a voxel full of lesion, as it is kept
_LEAST_INSIDE = 0.5


def keep_masks(examples: Examples, config: FinetuneConfig, cache: PreparedCache, progress: Progress) -> Examples:
    """The examples with the names under which their lesion masks are kept; a patient with a mask that can't be used is left out.

    Args:
        examples: prepared into ``cache``.
        config: cohort, and the path of each mask in it.
        cache: of the prepared exams.
        progress: called with stage, done and total.

    Raises:
        Refusal: there is no room to keep them.
    """
    root = Path(config.cohort)
    root, kept, left_out = root if root.is_dir() else root.parent, [], dict(examples.left_out)
    for done, example in enumerate(examples.all):
        progress("reading lesion masks", done, len(examples.all))
        names = []
        for exam_id, key in zip(example.exam_ids, example.exams, strict=True):
            path = root / config.target_masks.format(patient_id=example.patient_id, exam_id=exam_id)
            shown = config.target_masks.format(patient_id="…", exam_id=exam_id)
            try:
                names.append(_keep(NiftiImage(path, shown), exam_id, key, cache) if path.is_file() else None)
            except Refusal as refusal:
                if refusal.code == "cannot_write":
                    raise
                left_out[example.patient_id] = f"can't be used: {refusal.message}"
                break
        else:
            kept.append(replace(example, masks=tuple(names)))
    progress("reading lesion masks", len(examples.all), len(examples.all))
    return replace(examples, all=tuple(kept), left_out=left_out)


def _keep(image: NiftiImage, exam_id: str, key: str, cache: PreparedCache) -> str:
    window, source = cache.field(key)
    target = window.read_grid
    name = hashlib.sha256(f"lesion {key} {image.fingerprint()}".encode()).hexdigest()
    if not cache.has(name):
        mask = (image.read() != 0).astype(np.float32)
        index = world_to_index(source.affine, apply_affine(image.grid.affine, np.argwhere(mask).astype(np.float64)))
        inside = ((index >= -0.5) & (index <= np.array(source.shape) - 0.5)).all(axis=1)
        if inside.sum() < _LEAST_INSIDE * len(index):
            message = f"{image.shown} marks lesions outside the images of its exam. Check that it belongs to this exam."
            raise Refusal("mask_outside", message, exam_id)
        # With an empty rim: what is resampled goes on beyond an image as its outermost voxels are.
        rimmed = crop_for(np.pad(mask, 1), image.grid.affine @ translation([-1.0] * 3), target)
        share = np.zeros((1, *window.grid.shape), dtype=np.uint8)
        share[(0, *window.read)] = np.round(_WHOLE * resample(*rimmed, target, order=1))
        cache.put(name, share)
    return name


def read_lesions(cache: PreparedCache, name: str, turn: Turn, change: ExamChange) -> NDArray[np.float32]:
    """Lesion in ml per voxel (e, e, e) of the entry ``name``, cropped and turned as the exam's image is."""
    config = cache.preparation.config
    x, y, z = (slice(s, s + config.crop_voxels) for s in change.start)
    share = turn.apply(cache.data(name)[:, x, y, z])[0].astype(np.float32) / _WHOLE
    return share * np.float32(config.spacing_mm**3 / 1000)


def log_amounts(lesions: Tensor, stride: int) -> Tensor:
    """The logarithm of how many ml of lesion each cell of ``stride``³ voxels holds: (N, X, Y, Z) ml per voxel → (N, x, y, z)."""
    amounts = functional.avg_pool3d(lesions[:, None], stride)[:, 0] * stride**3
    return amounts.clamp_min(LEAST_ML).log()


def scales_of(lesions: Sequence[NDArray[np.float32]], strides: Sequence[int]) -> list[tuple[float, float]]:
    """Mean and SD of ``log_amounts`` over all cells of the given masks, for each stride; SD 1 where all are alike."""
    every = torch.from_numpy(np.stack(lesions))
    found = [log_amounts(every, stride).double() for stride in strides]
    return [(float(c.mean()), float(c.std(correction=0)) if c.max() > c.min() else 1.0) for c in found]
