"""A result's folder, read as a whole before anything of it is shown."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
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
    try:
        prediction = json.loads(text)
    except ValueError:
        raise ResultError(f"{PREDICTION_FILE} is damaged. Predict again.") from None
    maps = {
        (key, index): _read_map(folder / file, kind, exam["date"])
        for index, exam in enumerate(prediction["exams"])
        for key, kind in KINDS.items()
        if (file := kind.file_of(exam)) is not None
    }
    return ResultFiles(text, prediction, _read_text(folder / REPORT_FILE), maps)


def _read_text(path: Path) -> str:
    # The cause would carry the folder's name, which may hold a patient's.
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        raise ResultError(f"{path.name} can't be read from the result's folder. Predict again.") from None


def _read_map(path: Path, kind: MapKind, date: str) -> MapImage:
    import nibabel as nib  # here, because Slicer has it only once a prediction was asked for
    from nibabel.filebasedimages import ImageFileError

    try:
        image: Any = nib.load(path)
        voxels = np.asarray(image.dataobj, dtype=np.float32)
    except (OSError, EOFError, ValueError, zlib.error, ImageFileError):
        message = f"The map of what {kind.words}, of the exam of {date}, can't be read. Predict again."
        raise ResultError(message) from None
    return MapImage(voxels, np.asarray(image.affine, dtype=np.float64))
