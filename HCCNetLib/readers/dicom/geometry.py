"""Where the slices of a volume lie: their order, their spacing and the affine, from positions and orientations alone."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from HCCNetLib.readers.dicom.frames import Frame
from HCCNetLib.readers.nifti import check_affine
from HCCNetLib.records import Affine, Grid, Refusal

SAME_PLACE_MM = 0.05
SAME_DIRECTION = 1e-3  # radians: 0.2 mm at the edge of a 400 mm image
LARGEST_TILT = np.radians(0.5)
UNEVEN = 0.03  # of the spacing: positions are written with a few digits
_UNEVEN_MM = 0.02
_LARGEST_SIDE, _MOST_VOXELS = 4096, 256 * 1024**2

_FROM_LPS = np.diag([-1.0, -1.0, 1.0])


def directions_of(frame: Frame) -> NDArray[np.float64] | None:
    """Unit vectors (3, 3), LPS, as columns: along a row, along a column, through the slice; None where they are none."""
    return None if frame.orientation is None else _directions(frame.orientation)


@functools.lru_cache(maxsize=256)
def _directions(orientation: tuple[float, ...]) -> NDArray[np.float64] | None:
    along_row, along_column = np.array(orientation).reshape(2, 3)
    lengths = np.linalg.norm(along_row), np.linalg.norm(along_column)
    if abs(lengths[0] - 1) > 0.01 or abs(lengths[1] - 1) > 0.01 or abs(along_row @ along_column) > 0.01:
        return None
    along_row, along_column = along_row / lengths[0], along_column / lengths[1]
    through = np.cross(along_row, along_column)
    directions = np.stack([along_row, along_column, through / np.linalg.norm(through)], axis=1)
    directions.setflags(write=False)
    return directions


def places_of(frames: Sequence[Frame]) -> NDArray[np.float64]:
    """(N,) where each slice lies along the normal of the first, mm. All need a position and an orientation."""
    directions = directions_of(frames[0])
    assert directions is not None
    return np.array([frame.position for frame in frames], dtype=np.float64) @ directions[:, 2]


def refuse_unplaced(frames: Sequence[Frame], shown: str) -> None:
    """Refuses frames that don't say where they lie, are of several orientations or sizes, or of none that can be."""
    if any(min(frame.shape) < 1 or max(frame.shape) > _LARGEST_SIDE for frame in frames):
        raise Refusal("implausible_size", f"{shown} has an image size that can't be. Export it again.")
    if any(frame.position is None or frame.orientation is None or frame.spacing is None for frame in frames):
        message = (
            f"{shown} does not say how it lies in the patient: position, orientation or pixel spacing is missing or no "
            f"number. Export it again from the original images."
        )
        raise Refusal("unknown_orientation", message)
    first = directions_of(frames[0])
    if first is None:
        raise Refusal(
            "bad_affine", f"{shown}: the directions of rows and columns are not at right angles. Export it again."
        )
    if any(not _is_same(first, directions_of(frame)) for frame in frames):
        message = f"{shown} has slices of several orientations, as a localizer has: it is not one volume."
        raise Refusal("mixed_orientations", message)
    if len({frame.shape for frame in frames}) > 1 or _differ([frame.spacing for frame in frames]):
        raise Refusal("mixed_sizes", f"{shown} has slices of several sizes or pixel spacings: it is not one volume.")


def _is_same(first: NDArray[np.float64], other: NDArray[np.float64] | None) -> bool:
    return other is not None and bool(np.abs(first - other).max() <= SAME_DIRECTION)


def _differ(spacings: Sequence[tuple[float, ...] | None]) -> bool:
    values = np.array(spacings, dtype=np.float64)
    return bool((np.ptp(values, axis=0) > 1e-3).any())


def volume_grid(frames: Sequence[Frame], shown: str) -> Grid:
    """The grid of slices that are already in the order of their places (X along rows, Y along columns, Z through).

    Raises:
        Refusal: a single slice, slices missing, uneven spacing, gantry tilt, or an affine that can't be.
    """
    frame, count = frames[0], len(frames)
    rows, columns = frame.shape
    if count < 2 or min(rows, columns) < 2:
        message = f"{shown} is not a 3D volume ({columns} × {rows} × {count} voxels). Use the whole series."
        raise Refusal("not_3d", message)
    if rows * columns * count > _MOST_VOXELS:
        raise Refusal("implausible_size", f"{shown} has an image size that can't be. Export it again.")
    _refuse_gaps(frames, shown)
    positions = np.array([f.position for f in frames], dtype=np.float64)
    step = (positions[-1] - positions[0]) / (count - 1)
    _refuse_tilt(positions, step, shown, frame)
    affine = _affine(frame, step)
    if min(frame.spacing or (0.0,)) <= 0:
        raise Refusal("bad_affine", f"{shown}: the pixel spacing is not above 0. Export it again.")
    check_affine(affine, shown)
    return Grid((columns, rows, count), affine)


def slice_grid(frame: Frame) -> Grid | None:
    """Where a lone slice lies, only to be shown; None where it does not say how thick it is."""
    directions = directions_of(frame)
    if directions is None or not frame.thickness or frame.position is None or frame.spacing is None:
        return None
    return Grid((frame.shape[1], frame.shape[0], 1), _affine(frame, frame.thickness * directions[:, 2]))


def _affine(frame: Frame, step: NDArray[np.float64]) -> Affine:
    """From indices along a row, along a column and through the slices to RAS+; ``frame`` is the first slice's."""
    directions = directions_of(frame)
    assert directions is not None
    assert frame.spacing is not None
    affine = np.eye(4)
    affine[:3, 0] = directions[:, 0] * frame.spacing[1]
    affine[:3, 1] = directions[:, 1] * frame.spacing[0]
    affine[:3, 2] = step
    affine[:3, 3] = np.array(frame.position)
    affine[:3] = _FROM_LPS @ affine[:3]
    return affine


def _refuse_gaps(frames: Sequence[Frame], shown: str) -> None:
    gaps = np.diff(places_of(frames))
    usual = float(np.sort(gaps)[(len(gaps) - 1) // 2])  # one of them: the mean of two would be nobody's
    tolerance = max(_UNEVEN_MM, UNEVEN * usual)
    for number in np.flatnonzero(np.abs(gaps - usual) > tolerance):
        gap = float(gaps[number])
        missing = round(gap / usual) - 1
        if missing >= 1 and abs(gap - (missing + 1) * usual) <= (missing + 1) * tolerance:
            message = (
                f"{shown} lacks {missing} slice{'s' * (missing > 1)} between its slices {number + 1} and {number + 2} (a gap of "
                f"{gap:.3g} mm where {usual:.3g} mm is usual). Export the whole series again."
            )
            raise Refusal("missing_slice", message)
        message = (
            f"{shown} has uneven gaps between its slices ({gap:.4g} mm after slice {number + 1}, {usual:.4g} mm elsewhere). "
            f"Export the whole series again, or convert it with a tool that resamples."
        )
        raise Refusal("varying_spacing", message)


def _refuse_tilt(positions: NDArray[np.float64], step: NDArray[np.float64], shown: str, frame: Frame) -> None:
    length = float(np.linalg.norm(step))
    directions = directions_of(frame)
    assert directions is not None
    normal = directions[:, 2]
    straight = positions[0] + np.arange(len(positions))[:, None] * step
    # A tilt moves every slice sideways by the same amount; else slices are sideways of where they should be.
    tilt = float(np.arccos(min(1.0, abs(float(step @ normal)) / length))) if length else 0.0
    if tilt > LARGEST_TILT:
        message = (
            f"{shown}: the slices are stacked askew by {np.degrees(tilt):.1f}° (gantry tilt or shear). Resample it to a "
            f"right-angled grid."
        )
        raise Refusal("sheared_grid", message)
    if np.abs(positions - straight).max() > max(_UNEVEN_MM, UNEVEN * length) + SAME_PLACE_MM:
        raise Refusal("varying_spacing", f"{shown}: its slices do not lie on one straight line. Export it again.")
