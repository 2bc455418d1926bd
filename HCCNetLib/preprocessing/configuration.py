"""What preprocessing does, as data that a bundle carries."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

Triple = tuple[float, float, float]


def _is_number(value: object) -> bool:
    return type(value) in (int, float) and math.isfinite(value)  # type: ignore[arg-type]


@dataclass(frozen=True)
class PreprocessingConfig:
    """The pipeline's numbers; the defaults are the published ones (arXiv 2501.10733 and the authors' code).

    Fractions and voxel counts are along the axes of ``orientation``: P, L, I.

    Args:
        orientation: directions towards which the axes run.
        yeo_johnson_lambda: power transform of the raw intensities.
        central_fraction: part of each axis that is searched for the body, around the image's centre.
        central_min_voxels: a shorter search region is lengthened at its far end, as far as there are voxels.
        statistics: over which voxels median, MAD, mean and SD are taken: those of the body mask, or all of its
            bounding box (the published code).
        clip_mads: soft clipping at median ± this · 1.4826 · MAD.
        spacing_mm: of the network's grid, isotropic.
        liver_centre: the liver box's centre, as fractions of the body box.
        liver_size: the liver box's size, as fractions of the body box.
        liver_min_voxels: a smaller liver box is lengthened at its far end, as far as there are voxels.
        crop_voxels: edge of the cube that the network reads.
        align_voxels: the cube of a later exam is moved by up to this many voxels along each axis, so that it shows what the cube
            of the patient's first exam shows; 0: not, as published.
        channel_mean: subtracted from each channel at the end; None: nothing.
        channel_sd: divides each channel at the end; None: nothing.
    """

    orientation: str = "PLI"
    yeo_johnson_lambda: float = 0.5
    central_fraction: Triple = (0.85, 0.80, 0.99)
    central_min_voxels: int = 82
    statistics: Literal["body_mask", "body_box"] = "body_mask"
    clip_mads: float = 3.5
    spacing_mm: float = 1.5
    liver_centre: Triple = (0.5, 0.3, 0.3)
    liver_size: Triple = (0.6, 0.5, 0.4)
    liver_min_voxels: int = 82
    crop_voxels: int = 72
    align_voxels: int = 0
    channel_mean: tuple[float, ...] | None = None
    channel_sd: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        self._check_kinds()
        if sorted(self.orientation) not in [
            sorted(o) for o in ("RAS", "LAS", "RPS", "LPS", "RAI", "LAI", "RPI", "LPI")
        ]:
            raise ValueError(f"orientation {self.orientation!r} is not three patient directions")
        if not 0 < self.yeo_johnson_lambda < 2:
            raise ValueError("yeo_johnson_lambda must lie between 0 and 2")
        if not 0.2 <= self.spacing_mm <= 20:
            raise ValueError("spacing_mm must lie between 0.2 and 20")
        if self.clip_mads <= 0:
            raise ValueError("clip_mads must be above 0")
        if not 24 <= self.crop_voxels <= 512:
            raise ValueError("crop_voxels must lie between 24 (the network divides each axis by 24) and 512")
        if not 0 <= self.align_voxels <= self.crop_voxels // 2:
            raise ValueError("align_voxels must lie between 0 and half of crop_voxels")
        if min(*self.central_fraction, *self.liver_size) <= 0 or max(*self.central_fraction, *self.liver_size) > 1:
            raise ValueError("central_fraction and liver_size must lie between 0 and 1")
        if self.statistics not in ("body_mask", "body_box"):
            raise ValueError("statistics must be body_mask or body_box")
        if (self.channel_mean is None) != (self.channel_sd is None):
            raise ValueError("channel_mean and channel_sd go together")
        if self.channel_sd is not None and min(self.channel_sd) <= 0:
            raise ValueError("channel_sd must be above 0")

    def _check_kinds(self) -> None:
        """Whatever stands in a bundle's JSON, numbers are finite numbers of the right kind here."""
        lists = {"central_fraction": 3, "liver_centre": 3, "liver_size": 3, "channel_mean": None, "channel_sd": None}
        for f in fields(self):
            value = getattr(self, f.name)
            if f.name in lists:
                length = lists[f.name]
                right = value is None if length is None and value is None else isinstance(value, tuple)
                right = right and (value is None or all(_is_number(v) for v in value))
                right = right and (length is None or len(value) == length)
            elif isinstance(f.default, str):
                right = isinstance(value, str)
            elif isinstance(f.default, int):
                right = type(value) is int
            else:
                right = _is_number(value)
            if not right:
                raise ValueError(f"{f.name} is of a wrong kind, or not finite")

    def to_dict(self) -> dict[str, Any]:
        """As plain data for ``bundle.json``."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> PreprocessingConfig:
        """From plain data; raises ValueError for a name or a value that is unknown, so that nothing is ignored."""
        unknown = sorted(set(values) - {f.name for f in fields(cls)})
        if unknown:
            raise ValueError(f"unknown preprocessing settings: {', '.join(unknown)}")
        try:
            settings: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
            return cls(**settings)
        except TypeError as error:
            raise ValueError(f"preprocessing settings of a wrong type: {error}") from error
