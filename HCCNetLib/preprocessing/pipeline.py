"""Exam → PreparedExam: the published pipeline with one interpolation onto the network's grid.

Published order (arXiv 2501.10733): axes to PLI; Yeo-Johnson on raw intensities; every channel onto the first one's grid;
central region; body mask (first channel above its mean, largest component) and its box; per channel soft clipping at
median ± 3.5·1.4826·MAD and z-score over the body; cubic onto 1.5 mm; liver box; pad and crop to 72³. Here the grid of
the result is worked out first and each channel is interpolated once, cut to what that needs; clipping and scaling come
before the interpolation, as published. Spatial steps are affines, so what the network sees leads back to the patient.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from HCCNetLib.preprocessing.configuration import PreprocessingConfig
from HCCNetLib.preprocessing.field import Body, Window, find_body, locate_liver, place_window
from HCCNetLib.preprocessing.geometry import Reorientation, apply_affine, crop_for, resample, world_to_index
from HCCNetLib.preprocessing.intensity import ChannelStatistics, yeo_johnson
from HCCNetLib.records import Exam, Grid, Problem, Refusal

SMALLEST_BODY_MM = 100.0
COARSE_SPACING_MM = 8.0
LITTLE_LIVER = 0.9
LITTLE_FIELD = 0.4
CT_LIKE = -500.0  # MR magnitudes have no such values; air in CT has −1000


@dataclass(frozen=True)
class PreparedExam:
    """What the network reads of one exam, and the way back to the patient.

    Args:
        exam_id: the exam.
        data: (C, X, Y, Z) float32, mean 0 and SD 1 over the body, 0 where nothing was read.
        window: the grid of ``data`` and the part of it that was read.
        source_grid: the first channel's grid as stored; maps go back onto it.
        liver_fraction: part of the given liver mask inside what was read, or None.
        problems: what a reader should know.
    """

    exam_id: str
    data: NDArray[np.float32]
    window: Window
    source_grid: Grid
    liver_fraction: float | None
    problems: tuple[Problem, ...]

    def field(self) -> dict[str, Any]:
        """The field as ``prediction.json`` has it: an oriented box in patient space (RAS+ mm), and fractions."""
        corners = self.window.read_corners
        origin, edges = corners[0], corners[[4, 2, 1]] - corners[0]
        size = np.linalg.norm(edges, axis=1)
        return {
            "box": {
                "centre_mm": [round(float(v), 3) for v in corners.mean(axis=0)],
                "size_mm": [round(float(v), 3) for v in size],
                "axes": [[round(float(v), 6) for v in edge / length] for edge, length in zip(edges, size, strict=True)],
                "origin_mm": [round(float(v), 3) for v in origin],
            },
            "liver_fraction": self.liver_fraction,
            "image_fraction": self.window.read_fraction,
        }


def prepare_exam(
    exam: Exam, channels: Sequence[str], config: PreprocessingConfig, allow_missing: bool = False
) -> PreparedExam:
    """Prepares one exam for the network.

    Statistics are those of the body: the mask comes from the first channel, median and MAD (for the clipping), mean and
    SD (for the z-score) are taken per channel over the mask's voxels, or over all voxels of its bounding box where
    ``config.statistics`` says so.

    Args:
        exam: with all ``channels``.
        channels: in the network's order.
        config: the pipeline's numbers.
        allow_missing: a missing channel becomes zeros (for models that were trained so).

    Raises:
        Refusal: a channel is missing, can't be read, or is constant over the body.
    """
    try:
        return _prepare(exam, channels, config, allow_missing)
    except Refusal as refusal:
        message = refusal.message if exam.exam_id in refusal.message else f"Exam {exam.exam_id}: {refusal.message}"
        raise Refusal(refusal.code, message, exam.exam_id) from refusal


def _prepare(exam: Exam, channels: Sequence[str], config: PreprocessingConfig, allow_missing: bool) -> PreparedExam:
    present = [channel for channel in channels if channel in exam.images]
    if not present or (len(present) < len(channels) and not allow_missing):
        missing = ", ".join(channel for channel in channels if channel not in exam.images)
        raise Refusal("missing_channel", f"{missing} is missing.")
    first_image = exam.images[present[0]]
    first = Reorientation.towards(config.orientation, first_image.grid)
    problems: list[Problem] = []
    raw = first_image.read()
    transformed = yeo_johnson(first.apply(raw), config.yeo_johnson_lambda)
    body = find_body(transformed, config)
    liver = locate_liver(exam.liver_mask, exam.liver_box)
    window = place_window(first.target, body, config, liver)
    data = np.zeros((len(channels), *window.grid.shape), dtype=np.float32)
    for channel in present:
        image = exam.images[channel]
        reorientation = Reorientation.towards(config.orientation, image.grid)
        if channel != present[0]:
            raw = image.read()
            transformed = yeo_johnson(reorientation.apply(raw), config.yeo_johnson_lambda)
        problems += _look_at_values(raw, image.source)
        values = _body_values(transformed, reorientation.target, body, first.target, config)
        statistics = ChannelStatistics.of(values, config.clip_mads)
        if not statistics.sd > 0:
            raise Refusal("constant_image", f"{image.source} has one value all over the body. Export it again.")
        index = channels.index(channel)
        data[(index, *window.read)] = _interpolate(transformed, reorientation.target, statistics, window)
        if config.channel_mean is not None and config.channel_sd is not None:
            data[index] = (data[index] - config.channel_mean[index]) / config.channel_sd[index]
    liver_fraction = window.fraction_inside(liver.points) if liver is not None and liver.is_mask else None
    problems += _look_at_field(first.target, body, window, liver_fraction)
    tagged = tuple(Problem(p.code, p.message, exam.exam_id) for p in problems)
    return PreparedExam(exam.exam_id, data, window, first_image.grid, liver_fraction, tagged)


def _body_values(
    transformed: NDArray[np.float32], grid: Grid, body: Body, first: Grid, config: PreprocessingConfig
) -> NDArray[np.float32]:
    """A channel's values (N,) at the body's voxels, which are voxels of the first channel's grid."""
    over_mask = config.statistics == "body_mask"
    if grid.matches(first):
        region = transformed[body.region]
        return region[body.mask] if over_mask else region.ravel()
    where = body.mask if over_mask else np.ones_like(body.mask)
    index = np.argwhere(where) + np.array([s.start for s in body.region])
    points = world_to_index(grid.affine, apply_affine(first.affine, index.astype(np.float64)))
    values: NDArray[np.float32] = ndimage.map_coordinates(transformed, points.T, order=1, mode="nearest")
    return values


def _interpolate(
    transformed: NDArray[np.float32], grid: Grid, statistics: ChannelStatistics, window: Window
) -> NDArray[np.float32]:
    """One cubic interpolation onto the part of the network's grid that is read."""
    start = np.array([s.start for s in window.read], dtype=np.float64)
    offset = np.eye(4)
    offset[:3, 3] = start
    x, y, z = (s.stop - s.start for s in window.read)
    target = Grid((x, y, z), window.grid.affine @ offset)
    part = crop_for(transformed, grid.affine, target)
    if part is None:
        raise Refusal(
            "grids_differ", "a channel does not reach into the field of the first channel: not one patient space."
        )
    data, affine = part
    return resample(statistics.apply(data), affine, target, order=3)


def _look_at_values(raw: NDArray[np.float32], source: str) -> list[Problem]:
    if float(raw.min()) > CT_LIKE:
        return []
    message = f"{source} has values down to {raw.min():.0f}, as CT has and MR does not. Check that it is MR."
    return [Problem("looks_like_ct", message)]


def _look_at_field(grid: Grid, body: Body, window: Window, liver_fraction: float | None) -> list[Problem]:
    problems = []
    size = [(s.stop - s.start) * mm for s, mm in zip(body.region, grid.spacing, strict=True)]
    if min(size[:2]) < SMALLEST_BODY_MM:
        text = " × ".join(f"{v:.0f}" for v in size)
        problems.append(
            Problem("small_body", f"The body found is only {text} mm (P × L × I): look at the field that was read.")
        )
    if max(grid.spacing) > COARSE_SPACING_MM:
        message = f"Voxels are {max(grid.spacing):.3g} mm along one axis: small lesions can't be seen."
        problems.append(Problem("coarse_spacing", message))
    if window.read_fraction < LITTLE_FIELD:
        message = f"Only {window.read_fraction:.0%} of the network's cube holds the patient; the rest is padding."
        problems.append(Problem("little_field", message))
    if liver_fraction is not None and liver_fraction < LITTLE_LIVER:
        problems.append(
            Problem("little_liver", f"Only {liver_fraction:.0%} of the liver lies in the field that was read.")
        )
    return problems
