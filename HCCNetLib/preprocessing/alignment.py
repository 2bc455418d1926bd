"""How far an exam lies from the patient's first one: a translation that is found from the prepared images."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

# Structures between these sizes are compared (SDs of Gaussians): neither noise nor how bright a region is.
_FINE_MM, _COARSE_MM = 2.25, 9.0


class Shift(NamedTuple):
    """Where an exam lies relative to a reference.

    Args:
        voxels: by how much the same anatomy lies further along each axis.
        correlation: of the two there, −1 to 1.
    """

    voxels: tuple[int, int, int]
    correlation: float


def find_shift(reference: NDArray[np.float32], moving: NDArray[np.float32], most: int, spacing_mm: float) -> Shift:
    """The translation with the highest cross-correlation, over all channels that both have.

    Args:
        reference: (C, X, Y, Z) prepared images of the patient's first exam.
        moving: (C, X, Y, Z) those of another exam.
        most: largest shift along each axis, voxels.
        spacing_mm: edge of a voxel.
    """
    shape = reference.shape[1:]
    size = tuple(fft.next_fast_len(n + most, real=True) for n in shape)  # no shift of interest wraps around
    both = [c for c in range(len(reference)) if np.ptp(reference[c]) > 0 and np.ptp(moving[c]) > 0]  # none is missing
    total = np.zeros((2 * most + 1,) * 3)
    near = np.ix_(*[np.arange(-most, most + 1) % n for n in size])
    for channel in both:
        spectra = [fft.rfftn(_structures(image[channel], spacing_mm), size) for image in (reference, moving)]
        total += fft.irfftn(spectra[0].conj() * spectra[1], size)[near] / len(both)
    x, y, z = (int(i) - most for i in np.unravel_index(total.argmax(), total.shape))
    return Shift((x, y, z), float(total.max()))


def _structures(image: NDArray[np.float32], spacing_mm: float) -> NDArray[np.float32]:
    """The image (X, Y, Z) between two scales, fading towards its faces, with a sum of squares of 1."""
    fine, coarse = (ndimage.gaussian_filter(image, mm / spacing_mm) for mm in (_FINE_MM, _COARSE_MM))
    faded: NDArray[np.float32] = fine - coarse
    for axis, n in enumerate(image.shape):
        faded *= np.sqrt(np.hanning(n + 2)[1:-1]).astype(np.float32).reshape([-1 if a == axis else 1 for a in range(3)])
    return faded / max(float(np.linalg.norm(faded)), 1e-12)
