"""Whether a solid nodule can be seen: a matched filter against what liver without nodules does to it.

The filter is the mean of a channel in a ball of the nodule's volume less the mean of the liver in a shell around it. Its value
at the nodule is compared with those at places of the same liver that hold no nodule; texture, vessels and noise decide there.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from HCCNetLib.synthetic.phantom import Phantom
from HCCNetLib.synthetic.rendering import ORGAN_LABELS, RenderedExam

Floats = NDArray[np.float64]
Integers = NDArray[np.int_]

VISIBLE = 3.0  # SDs: with four channels, about one place in a hundred without a nodule is as far off

_SHELL_GAP, _SHELL = 1.0, 3.0  # voxels
_PLACES, _TRIES = 120, 2000
_PURE = 0.9  # part of a place's ball that is liver


def visibility(phantom: Phantom, exam: int, rendered: RenderedExam, number: int) -> dict[str, float]:
    """By how many SDs a solid nodule stands out in each channel, either way; none where too little liver is without nodules.

    Args:
        phantom: the patient.
        exam: from 0.
        rendered: that exam.
        number: of the nodule, as in the mask.
    """
    diameter = phantom.nodules[number - 1].diameters[exam]
    ball, shell = _template(diameter, rendered.grid.spacing)
    liver = (rendered.organs == ORGAN_LABELS["liver"]) & (rendered.lesion == 0)
    centre = np.argwhere(rendered.lesion == number).mean(axis=0).round().astype(int)
    free = _places(liver, ball, shell)
    if len(free) < _PLACES // 4:
        return {}
    places = np.concatenate([centre[None], free])
    seen = {}
    for channel, image in rendered.images.items():
        inside = image[_at(places, ball, image.shape)].mean(axis=1)
        around = _at(places, shell, image.shape)
        weights = liver[around]
        values = inside - (image[around] * weights).sum(axis=1) / np.maximum(weights.sum(axis=1), 1)
        seen[channel] = float(abs(values[0] - values[1:].mean()) / values[1:].std())
    return seen


def _template(diameter: float, spacing: tuple[float, ...]) -> tuple[Integers, Integers]:
    """Voxel offsets (N, 3) of the ball and of the shell around it."""
    step = np.array(spacing)
    edge = float(step.mean())
    reach = np.ceil((diameter / 2 + (_SHELL_GAP + _SHELL) * edge) / step).astype(int)
    axes = [np.arange(-n, n + 1) for n in reach]
    offsets = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    distance = np.linalg.norm(offsets * step, axis=1)
    inside = distance <= max(diameter / 2, edge / 2)
    shell = (distance > diameter / 2 + _SHELL_GAP * edge) & (distance <= diameter / 2 + (_SHELL_GAP + _SHELL) * edge)
    return offsets[inside], offsets[shell]


def _at(places: Integers, offsets: Integers, shape: tuple[int, ...]) -> tuple[Integers, Integers, Integers]:
    """Indices (places, offsets) of the templates put at the places; cut off at the image's edge."""
    i, j, k = np.moveaxis(np.clip(places[:, None] + offsets, 0, np.array(shape) - 1), -1, 0)
    return i, j, k


def _places(liver: NDArray[np.bool_], ball: Integers, shell: Integers) -> Integers:
    """Places (N, 3) whose ball is liver without nodules, and half of whose shell is."""
    voxels = np.argwhere(liver)
    drawn = voxels[np.random.default_rng(0).integers(len(voxels), size=_TRIES)]
    drawn = drawn[liver[_at(drawn, ball, liver.shape)].mean(axis=1) >= _PURE]
    free: Integers = drawn[liver[_at(drawn, shell, liver.shape)].mean(axis=1) >= 0.5][:_PLACES]
    return free
