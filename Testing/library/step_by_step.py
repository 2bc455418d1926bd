"""The published pipeline one step after the other on whole volumes: the reference that the library is held against.

Written apart from the library: own orientation, own clipping, an interpolation per step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import nibabel as nib
import numpy as np
from scipy import ndimage

from HCCNetLib.preprocessing import PreprocessingConfig
from HCCNetLib.records import Exam


@dataclass
class Reference:
    """Data (C, X, Y, Z), and where the body mask lies on the same grid (0–1, interpolated)."""

    data: np.ndarray
    body: np.ndarray


def prepare_step_by_step(exam: Exam, channels: Sequence[str], config: PreprocessingConfig) -> Reference:
    images = [_to_pli(nib.Nifti1Image(exam.images[c].read(), exam.images[c].grid.affine)) for c in channels]
    arrays = [_yeo_johnson(np.asarray(image.dataobj, dtype=np.float64), config.yeo_johnson_lambda) for image in images]
    first = images[0]
    arrays = [_onto(a, image.affine, first.affine, first.shape) for a, image in zip(arrays, images, strict=True)]

    central = _fractions(first.shape, (0.5, 0.5, 0.5), config.central_fraction, config.central_min_voxels)
    arrays = [a[central] for a in arrays]
    labels, _ = ndimage.label(arrays[0] > arrays[0].mean())
    mask = labels == 1 + np.argmax(ndimage.sum_labels(np.ones_like(labels), labels, range(1, labels.max() + 1)))
    box = tuple(slice(i.min(), i.max() + 1) for i in np.nonzero(mask))
    arrays, mask = [a[box] for a in arrays], mask[box]

    where = mask if config.statistics == "body_mask" else np.ones_like(mask)
    arrays = [_clip_and_scale(a, where, config.clip_mads) for a in arrays]

    spacing = np.sqrt((first.affine[:3, :3] ** 2).sum(axis=0))
    step = config.spacing_mm / spacing
    shape = tuple(round((n - 1) / s) + 1 for n, s in zip(mask.shape, step, strict=True))
    arrays = [ndimage.affine_transform(a, step, output_shape=shape, order=3, mode="nearest") for a in arrays]
    body = ndimage.affine_transform(mask.astype(float), step, output_shape=shape, order=1, mode="nearest")

    liver = _fractions(shape, config.liver_centre, config.liver_size, config.liver_min_voxels)
    cropped = [_pad_and_crop(a[liver], config.crop_voxels) for a in (*arrays, body)]
    return Reference(np.stack(cropped[:-1]).astype(np.float32), cropped[-1])


def _to_pli(image: nib.Nifti1Image) -> nib.Nifti1Image:
    wanted = nib.orientations.axcodes2ornt("PLI")
    return image.as_reoriented(nib.orientations.ornt_transform(nib.io_orientation(image.affine), wanted))


def _yeo_johnson(x: np.ndarray, power: float) -> np.ndarray:
    result = np.empty_like(x)
    result[x >= 0] = ((x[x >= 0] + 1) ** power - 1) / power
    result[x < 0] = -((1 - x[x < 0]) ** (2 - power) - 1) / (2 - power)
    return result


def _onto(array: np.ndarray, affine: np.ndarray, target: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    step = np.linalg.inv(affine) @ target
    return ndimage.affine_transform(
        array, step[:3, :3], step[:3, 3], output_shape=tuple(shape), order=3, mode="nearest"
    )


def _fractions(
    shape: Sequence[int], centre: Sequence[float], size: Sequence[float], minimum: int
) -> tuple[slice, slice, slice]:
    slices = []
    for n, c, s in zip(shape, centre, size, strict=True):
        middle, length = int(c * n), int(s * n)
        start, end = int(middle - length / 2), int(middle + length / 2)
        end = start + minimum if end - start < minimum else end
        slices.append(slice(max(start, 0), end))
    return slices[0], slices[1], slices[2]


def _clip_and_scale(x: np.ndarray, where: np.ndarray, mads: float) -> np.ndarray:
    median = np.median(x[where])
    mad = np.median(np.abs(x[where] - median)) * 1.4826
    low, high = median - mads * mad, median + mads * mad
    constant = np.log(2) / (1 - np.tanh(1)) / ((high - low) / 2)
    x = x + np.logaddexp(0, -constant * (x - low)) / constant - np.logaddexp(0, constant * (x - high)) / constant
    return (x - x[where].mean()) / x[where].std()


def _pad_and_crop(x: np.ndarray, size: int) -> np.ndarray:
    missing = [max(size - n, 0) for n in x.shape]
    x = np.pad(x, [(m // 2, m - m // 2) for m in missing])
    starts = [n // 2 - size // 2 for n in x.shape]
    return x[tuple(slice(s, s + size) for s in starts)]
