"""Exam → PreparedExam: the published pipeline with one interpolation onto the network's grid.

Published order (arXiv 2501.10733): axes to PLI; Yeo-Johnson on raw intensities; every channel onto the first one's grid;
central region; body mask (first channel above its mean, largest component) and its box; per channel soft clipping at
median ± 3.5·1.4826·MAD and z-score over the body; cubic onto 1.5 mm; liver box; pad and crop to 72³. Here the grid of
the result is worked out first and each channel is interpolated once, cut to what that needs; clipping and scaling come
before the interpolation, as published. Spatial steps are affines, so what the network sees leads back to the patient.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from HCCNetLib.preprocessing.alignment import Shift, find_shift
from HCCNetLib.preprocessing.configuration import PreprocessingConfig
from HCCNetLib.preprocessing.field import Body, Window, find_body, locate_liver, place_window
from HCCNetLib.preprocessing.geometry import Reorientation, apply_affine, crop_for, resample, world_to_index
from HCCNetLib.preprocessing.intensity import ChannelStatistics, yeo_johnson
from HCCNetLib.readers import in_exam
from HCCNetLib.records import Affine, Exam, Grid, Image, Problem, Refusal

# To be raised whenever the same exam and configuration give other numbers: caches are keyed by it.
PIPELINE_VERSION = 1

SMALLEST_BODY_MM = 100.0
COARSE_SPACING_MM = 8.0
LEAST_OVERLAP, FULL_OVERLAP = 0.5, 0.98
LITTLE_LIVER = 0.9
LITTLE_FIELD = 0.4
LEAST_CORRELATION = 0.2  # below it two exams have too little in common to be aligned
CT_LIKE = -500.0  # MR magnitudes have no such values; air in CT has −1000


# The part of a channel that is needed, clipped and scaled, its affine, and the grid of the whole.
_Picture = tuple[NDArray[np.float32], Affine, Grid]


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
            "filled_fraction": self.window.filled_fraction,
        }


def prepare_patient(
    exams: Sequence[Exam], channels: Sequence[str], config: PreprocessingConfig, allow_missing: bool = False
) -> Iterator[PreparedExam]:
    """Prepares a patient's exams, oldest first, each aligned with the first where ``config`` says so; see ``prepare_exam``."""
    first: PreparedExam | None = None
    for exam in exams:
        prepared = prepare_exam(exam, channels, config, allow_missing, first=first)
        first = first or prepared
        yield prepared


def prepare_exam(
    exam: Exam,
    channels: Sequence[str],
    config: PreprocessingConfig,
    allow_missing: bool = False,
    margin: int = 0,
    first: PreparedExam | None = None,
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
        margin: voxels to prepare beyond the network's cube on every side; training draws its crops from them.
        first: the patient's first exam, prepared in the same way, onto which this one is moved where ``config.align_voxels`` is
            above 0; None for the first exam itself.

    Raises:
        Refusal: a channel is missing, can't be read, or is constant over the body.
    """
    try:
        return _prepare(exam, channels, config, allow_missing, margin, first)
    except Refusal as refusal:
        raise in_exam(refusal, exam.exam_id) from refusal


def _prepare(
    exam: Exam,
    channels: Sequence[str],
    config: PreprocessingConfig,
    allow_missing: bool,
    margin: int,
    reference: PreparedExam | None,
) -> PreparedExam:
    present = [channel for channel in channels if channel in exam.images]
    if not present or (len(present) < len(channels) and not allow_missing):
        missing = ", ".join(channel for channel in channels if channel not in exam.images)
        raise Refusal("missing_channel", f"{missing} is missing.")
    first_image = exam.images[present[0]]
    first = Reorientation.towards(config.orientation, first_image.grid)
    problems: list[Problem] = []
    raw = _read_picture(first_image)
    transformed = yeo_johnson(first.apply(raw), config.yeo_johnson_lambda)
    body = find_body(transformed, config)
    liver = locate_liver(exam.liver_mask, exam.liver_box)
    window = place_window(first.target, body, config, liver, margin)
    reach = place_window(first.target, body, config, liver, margin + config.align_voxels).grid
    pictures: dict[str, _Picture] = {}
    for channel in present:
        image = exam.images[channel]
        reorientation = Reorientation.towards(config.orientation, image.grid)
        if channel != present[0]:
            raw = _read_picture(image)
            transformed = yeo_johnson(reorientation.apply(raw), config.yeo_johnson_lambda)
        problems += _look_at_values(raw, image.source)
        values = _body_values(transformed, reorientation.target, body, first.target, config)
        statistics = ChannelStatistics.of(values, config.clip_mads)
        if not statistics.sd > 0:
            raise Refusal("constant_image", f"{image.source} has one value all over the body. Export it again.")
        data, affine = crop_for(transformed, reorientation.target.affine, reach)
        pictures[channel] = statistics.apply(data), affine, reorientation.target
    if reference is not None and config.align_voxels:
        alone = _fill(window, pictures, channels, config, order=1)  # only compared, so linear interpolation will do
        shift = find_shift((reference.data, reference.window.read_mask), (alone, window.read_mask), margin, config)
        moved = window.moved(shift.voxels, first.target)
        is_aligned = shift.correlation >= LEAST_CORRELATION and moved.filled_fraction > 0
        window = moved if is_aligned else window
        problems += _look_at_shift(shift, is_aligned, config)
    for channel, (_, _, grid) in pictures.items():
        problems += _look_at_overlap(channel, grid, first.target, window)
    data = _fill(window, pictures, channels, config)
    if not np.isfinite(data).all():
        raise Refusal(
            "implausible_values", "the prepared images are not finite: a channel has values that no scanner makes."
        )
    liver_fraction = window.fraction_inside(liver.points) if liver is not None and liver.is_mask else None
    problems += _look_at_field(first.target, body, window, liver_fraction)
    tagged = tuple(Problem(p.code, p.message, exam.exam_id) for p in problems)
    return PreparedExam(exam.exam_id, data, window, first_image.grid, liver_fraction, tagged)


def _fill(
    window: Window,
    pictures: Mapping[str, _Picture],
    channels: Sequence[str],
    config: PreprocessingConfig,
    order: int = 3,
) -> NDArray[np.float32]:
    """What the network reads (C, X, Y, Z) of ``window``; 0, before the last step, where nothing is read."""
    data = np.zeros((len(channels), *window.grid.shape), dtype=np.float32)
    for channel, (values, affine, _) in pictures.items():
        read = window.read_grid
        data[(channels.index(channel), *window.read)] = resample(*crop_for(values, affine, read), read, order)
    return normalise_channels(data, config)


def normalise_channels(data: NDArray[np.float32], config: PreprocessingConfig) -> NDArray[np.float32]:
    """The pipeline's last step over (C, ...): each channel minus ``channel_mean``, over ``channel_sd``, where they are set."""
    if config.channel_mean is None or config.channel_sd is None:
        return data
    shape = (-1, *[1] * (data.ndim - 1))
    mean = np.array(config.channel_mean, dtype=np.float32).reshape(shape)
    sd = np.array(config.channel_sd, dtype=np.float32).reshape(shape)
    normalised = data - mean
    normalised /= sd
    return normalised


def _read_picture(image: Image) -> NDArray[np.float32]:
    data = image.read()
    if data.min() == data.max():
        message = f"{image.source} has the same value in every voxel: it holds no picture. Export it again."
        raise Refusal("constant_image", message)
    return data


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


def _look_at_shift(shift: Shift, is_aligned: bool, config: PreprocessingConfig) -> list[Problem]:
    """An exam that was not aligned with the first one, or perhaps not far enough."""
    if not is_aligned:
        message = "This exam could not be aligned with the first one and was read without alignment. "
        message += "Check that both are of the same patient." if shift.channels else "They have no channel in common."
        return [Problem("not_aligned", message)]
    if max(map(abs, shift.voxels)) < config.align_voxels:
        return []
    mm = config.align_voxels * config.spacing_mm
    message = (
        f"This exam was moved onto the first one by {mm:g} mm, the most that is allowed; it may lie further away. Look at the "
        f"field that was read."
    )
    return [Problem("alignment_at_limit", message)]


def _look_at_values(raw: NDArray[np.float32], source: str) -> list[Problem]:
    if float(raw.min()) > CT_LIKE:
        return []
    message = f"{source} has values down to {raw.min():.0f}, as CT has and MR does not. Check that it is MR."
    return [Problem("looks_like_ct", message)]


def _look_at_overlap(channel: str, grid: Grid, first: Grid, window: Window) -> list[Problem]:
    """A channel on its own grid must reach over the field; beyond its edge there is nothing to interpolate."""
    if grid.matches(first):
        return []
    field = window.read_grid
    index = np.argwhere(np.ones(field.shape, dtype=bool)).astype(np.float64)
    at = world_to_index(grid.affine, apply_affine(field.affine, index))
    inside = float(((at >= -0.5) & (at <= np.array(grid.shape) - 0.5)).all(axis=1).mean())
    if inside < LEAST_OVERLAP:
        message = (
            f"{channel} covers only {inside:.0%} of the field that is read of the first channel. Check that both are of one "
            f"visit and one patient space."
        )
        raise Refusal("grids_differ", message)
    if inside > FULL_OVERLAP:
        return []
    message = (
        f"{channel} covers only {inside:.0%} of the field that is read; beyond its edge its last values are repeated."
    )
    return [Problem("partly_covered", message)]


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
    if window.filled_fraction < LITTLE_FIELD:
        message = (
            f"Only {window.filled_fraction:.0%} of the network's cube is filled from the images; the rest is padding."
        )
        problems.append(Problem("little_field", message))
    if liver_fraction is not None and liver_fraction < LITTLE_LIVER:
        problems.append(
            Problem("little_liver", f"Only {liver_fraction:.0%} of the liver lies in the field that was read.")
        )
    return problems
