"""How far an exam lies from the patient's first one: a translation that is found from the prepared images."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

from HCCNetLib.preprocessing.configuration import PreprocessingConfig

# Structures between these sizes are compared (SDs of Gaussians): neither noise nor how bright a region is.
_FINE_MM, _COARSE_MM = 2.25, 9.0

# Prepared images (C, X, Y, Z), and where something was read (X, Y, Z).
Field = tuple[NDArray[np.float32], NDArray[np.bool_]]


class Shift(NamedTuple):
    """Where an exam lies relative to a reference.

    Args:
        voxels: by how much the same anatomy lies further along each axis.
        correlation: of the two there, −1 to 1.
        channels: how many were compared; 0 where the two have none in common.
    """

    voxels: tuple[int, int, int]
    correlation: float
    channels: int


def find_shift(reference: Field, moving: Field, margin: int, config: PreprocessingConfig) -> Shift:
    """The translation with the highest cross-correlation, over all channels that both have.

    Args:
        reference: the patient's first exam.
        moving: another exam.
        margin: voxels on every side of both that are not compared, so that the result does not depend on them.
        config: ``align_voxels`` is the largest shift along each axis.
    """
    x, y, z = (slice(margin, n - margin) for n in reference[1].shape)
    fields = reference[1][x, y, z], moving[1][x, y, z]
    most = config.align_voxels
    # So large that no shift up to ``most`` wraps around.
    size = tuple(fft.next_fast_len(n + most, real=True) for n in fields[0].shape)
    near = np.ix_(*[np.arange(-most, most + 1) % n for n in size])
    total, channels = np.zeros((2 * most + 1,) * 3), 0
    for pair in zip(reference[0][:, x, y, z], moving[0][:, x, y, z], strict=True):
        if any(np.ptp(image) == 0 for image in pair):
            continue  # a channel that is missing
        one, other = (
            fft.rfftn(_structures(image, field, config.spacing_mm), size)
            for image, field in zip(pair, fields, strict=True)
        )
        total += fft.irfftn(one.conj() * other, size)[near]
        channels += 1
    a, b, c = (int(i) - most for i in np.unravel_index(total.argmax(), total.shape))
    return Shift((a, b, c), float(total.max()) / max(channels, 1), channels)


def _structures(image: NDArray[np.float32], field: NDArray[np.bool_], spacing_mm: float) -> NDArray[np.float32]:
    """The image (X, Y, Z) between two scales, fading towards its faces, with a sum of squares of 1; 0 outside ``field``."""
    inside = field.astype(np.float32)

    def smooth(mm: float) -> NDArray[np.float32]:
        """Over what was read alone, so that the edge of the field is no structure."""
        sd = mm / spacing_mm
        weights = ndimage.gaussian_filter(inside, sd) if not field.all() else inside
        result: NDArray[np.float32] = ndimage.gaussian_filter(image * inside, sd) / np.maximum(weights, 1e-6)
        return result

    faded = (smooth(_FINE_MM) - smooth(_COARSE_MM)) * inside
    for axis, n in enumerate(image.shape):
        faded *= np.sqrt(np.hanning(n + 2)[1:-1]).astype(np.float32).reshape([-1 if a == axis else 1 for a in range(3)])
    return faded / max(float(np.linalg.norm(faded)), 1e-12)
