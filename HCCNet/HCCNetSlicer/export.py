"""A result out of the scene into files: each is written aside and renamed when whole."""

from __future__ import annotations

import csv
import io
import itertools
import secrets
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from HCCNetSlicer.map_kinds import KINDS
from HCCNetSlicer.results import Result
from HCCNetSlicer.volumes import picture_of, write_nifti


def write_report(result: Result, path: Path) -> list[Path]:
    """Saves the self-contained HTML report; raises OSError, ResultError."""
    report = result.report
    _write_aside(path, lambda aside: aside.write_text(report, encoding="utf-8"))
    return [path]


def write_table(result: Result, path: Path) -> list[Path]:
    """Saves the exams as CSV, as ``hccnet predict --csv`` does; raises OSError, ResultError."""
    from HCCNetLib.reporting.tables import exam_table

    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(exam_table(result.prediction))
    _write_aside(path, lambda aside: aside.write_text(text.getvalue(), encoding="utf-8"))
    return [path]


def write_maps(result: Result, folder: Path) -> list[Path]:
    """Saves every map that is in the scene as ``<date>-<kind>.nii.gz``, in the scene's space; raises OSError.

    They go into a new folder, so that nothing is overwritten.

    Returns:
        The files, as they are now.
    """
    files: list[Path] = []
    own = _new_folder(folder, f"HCCNet maps {result.exam_dates[result.landmark_index].isoformat()}")
    words = "demonstration, no meaning" if result.prediction["bundle"]["demonstration"] else "research software only"
    for index, date in enumerate(result.exam_dates):
        for kind in KINDS:
            node = result.map_node(index, kind)
            if node is None:
                continue
            path = own / f"{date.isoformat()}-{kind}.nii.gz"
            own.mkdir(exist_ok=True)
            _write_aside(path, partial(_write_map, node, f"HCCNet {kind}; {words}"))
            files.append(path)
    return files


def _new_folder(parent: Path, name: str) -> Path:
    names = (name if number == 1 else f"{name} ({number})" for number in itertools.count(1))
    return next(path for candidate in names if not (path := parent / candidate).exists())


def _write_map(node: Any, description: str, path: Path) -> None:
    data, affine = picture_of(node)
    write_nifti(path, data, affine, description)


def _write_aside(path: Path, write: Callable[[Path], object]) -> None:
    # The suffix stays, since it decides the format.
    aside = path.with_name(f".hccnet-{secrets.token_hex(6)}-{path.name}")
    try:
        write(aside)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
