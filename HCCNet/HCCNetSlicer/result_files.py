"""A result's folder, read as a whole before anything of it is shown."""

from __future__ import annotations

import datetime
import json
import math
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from HCCNetSlicer.map_kinds import KINDS, MapKind

PREDICTION_FILE, REPORT_FILE = "prediction.json", "report.html"


class ResultError(Exception):
    """A result that can't be shown, in a sentence that a person can act on; it names dates, never a patient."""


@dataclass(frozen=True)
class MapImage:
    """A map: voxels (X, Y, Z) 0-1, single precision, and the affine (4, 4) from voxel indices to RAS, mm."""

    voxels: NDArray[np.float32]
    affine: NDArray[np.float64]


@dataclass(frozen=True)
class ResultFiles:
    """All that a result's folder holds.

    Args:
        text: prediction.json as it is written.
        prediction: its content.
        report: the HTML page.
        maps: (kind, index of the exam) → map; what the prediction names no file for is absent.
    """

    text: str
    prediction: Mapping[str, Any]
    report: str
    maps: Mapping[tuple[str, int], MapImage]


def read_result(folder: Path) -> ResultFiles:
    """Reads prediction.json, report.html and every map that the prediction names.

    Raises:
        ResultError: one of them is missing or damaged.
    """
    text = _read_text(folder / PREDICTION_FILE)
    prediction = parse_prediction(text)
    maps = {
        (key, index): _read_map(folder / file, kind, exam["date"])
        for index, exam in enumerate(prediction["exams"])
        for key, kind in KINDS.items()
        if (file := kind.file_of(exam)) is not None
    }
    return ResultFiles(text, prediction, _read_text(folder / REPORT_FILE), maps)


def parse_prediction(text: str) -> Mapping[str, Any]:
    """The content of prediction.json; raises ResultError where something is missing or wrong that a result is shown with."""
    try:
        content: Mapping[str, Any] = json.loads(text)
    except ValueError:
        raise ResultError(f"{PREDICTION_FILE} is damaged. Predict again.") from None
    fault = _fault(content, _PREDICTION, "its content")
    if fault is None and "risk_by_horizon" in content:  # results of older versions have none
        fault = _fault(content["risk_by_horizon"], [_AT_HORIZON], "risk_by_horizon")
    if fault is not None:
        raise ResultError(f"{PREDICTION_FILE} is damaged: {fault} is missing or wrong. Predict again.")
    return content


def _fault(value: Any, wanted: Any, name: str) -> str | None:
    """The name of the first part that is not as wanted; None where all is.

    Args:
        value: that was read.
        wanted: a function that accepts it; a dict of what its parts are to be; a list, of what each of one or more is to
            be; a tuple, of what it is to be where it is not null.
        name: of the value.
    """
    if isinstance(wanted, tuple):
        return None if value is None else _fault(value, wanted[0], name)
    if isinstance(wanted, dict):
        if not isinstance(value, dict):
            return name
        faults = (_fault(value.get(key, _ABSENT), part, key) for key, part in wanted.items())
        return next((fault for fault in faults if fault is not None), None)
    if isinstance(wanted, list):
        if not isinstance(value, list) or not value:
            return name
        return next((fault for part in value if (fault := _fault(part, wanted[0], name)) is not None), None)
    check: Callable[[Any], bool] = wanted
    return None if check(value) else name


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_share(value: Any) -> bool:
    return _is_number(value) and 0 <= value <= 1


def _is_yes_or_no(value: Any) -> bool:
    return isinstance(value, bool)


def _is_date(value: Any) -> bool:
    try:
        return isinstance(value, str) and datetime.date.fromisoformat(value).isoformat() == value
    except ValueError:
        return False


def _is_point(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 3 and all(map(_is_number, value))


def _are_axes(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 3 and all(map(_is_point, value))


def _are_files(value: Any) -> bool:
    return isinstance(value, dict) and bool(value) and all(map(_is_text, value.values()))


# The part of the schema that a result in the scene is made of; Slicer has no jsonschema.
_ABSENT = object()
_EXAM = {
    "exam_id": _is_text,
    "date": _is_date,
    "months_before_landmark": _is_number,
    "attention": (_is_share,),
    "attention_gradient": (_is_share,),
    "risk_without": (_is_share,),
    "saliency": (_are_files,),
    "saliency_against": (_are_files,),
    "saliency_change": ({"more": _is_text, "less": _is_text},),
    "peak": ({"mm": _is_point, "value": _is_number, "members": _is_number},),
    "field": {
        "box": {"centre_mm": _is_point, "size_mm": _is_point, "axes": _are_axes},
        "liver_fraction": (_is_share,),
        "filled_fraction": _is_share,
    },
}
_AT_HORIZON = {"months": _is_number, "risk": _is_share, "low": _is_share, "high": _is_share, "average": (_is_share,)}
_PREDICTION = {
    "phantom": _is_yes_or_no,
    "bundle": {
        "name": _is_text,
        "version": _is_text,
        "sha256": _is_text,
        "demonstration": _is_yes_or_no,
        "calibrated": _is_yes_or_no,
    },
    "landmark": _is_date,
    "horizon_months": _is_number,
    "risk": _is_share,
    "members": [_is_share],
    "spread": {"low": _is_share, "high": _is_share},
    "exams": [_EXAM],
    "trajectory": [{"as_of": _is_date, "risk": _is_share}],
    "notice": _is_text,
}


def _read_text(path: Path) -> str:
    # The cause would carry the folder's name, which may hold a patient's.
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        raise ResultError(f"{path.name} can't be read from the result's folder. Predict again.") from None


def _read_map(path: Path, kind: MapKind, date: str) -> MapImage:
    import nibabel as nib  # here, because Slicer has it only once a prediction was asked for
    from nibabel.filebasedimages import ImageFileError

    message = f"The map of what {kind.words}, of the exam of {date}, can't be read. Predict again."
    try:
        image: Any = nib.load(path)
        voxels = np.asarray(image.dataobj, dtype=np.float32)
    except (OSError, EOFError, ValueError, zlib.error, ImageFileError):
        raise ResultError(message) from None
    if voxels.ndim != 3:
        raise ResultError(message)
    return MapImage(voxels, np.asarray(image.affine, dtype=np.float64))
