"""Prepared exams as a network gets them in training: cropped, normalised, intensities changed, turned."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from HCCNetLib.inference.cache import PreparedCache
from HCCNetLib.preprocessing.augmentation import ExamChange, Turn, has_image
from HCCNetLib.preprocessing.pipeline import normalise_channels


def read_images(
    cache: PreparedCache, keys: Sequence[str], turn: Turn, changes: Sequence[ExamChange]
) -> Iterator[NDArray[np.float32]]:
    """The exams (C, e, e, e) that ``keys`` name, with one turn for all and one change for each."""
    config = cache.preparation.config
    for key, change in zip(keys, changes, strict=True):
        crop = change.crop(cache.data(key), config.crop_voxels)
        yield turn.apply(change.recolour(normalise_channels(crop, config), has_image(crop)))
