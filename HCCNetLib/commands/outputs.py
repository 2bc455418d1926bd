"""A prediction with its maps → a folder: written aside, renamed when whole."""

from __future__ import annotations

import csv
import hashlib
import io
import itertools
import json
import re
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from HCCNetLib.explanation import ALL, PatientMaps
from HCCNetLib.explanation.check import CHECK_FILE
from HCCNetLib.inference import Prediction
from HCCNetLib.preprocessing import PreparedExam
from HCCNetLib.records import Affine, Patient, Refusal
from HCCNetLib.reporting.check_report import render_check
from HCCNetLib.reporting.evaluation_report import render_evaluation
from HCCNetLib.reporting.report import write_report
from HCCNetLib.reporting.slices import ExamPicture
from HCCNetLib.reporting.tables import exam_table

PREDICTION_FILE, REPORT_FILE, SUMMARY_FILE = "prediction.json", "report.html", "summary.json"
EXAMS_FILE, PATIENTS_FILE = "exams.csv", "patients.csv"
EVALUATION_FILES = ("evaluation.json", "predictions.csv", "evaluation.html")
CHECK_FILES = (CHECK_FILE, "explain_check.csv", "explain_check.html")
_ASIDE = ".hccnet-"
_LONGEST_NAME = 150  # bytes; file systems take 255, and a suffix joins


# What a map's header says of it: a file may be looked at far from its folder. At most 79 bytes fit into the header.
_KINDS = {
    "towards": "raises output",
    "against": "lowers output",
    "more": "raised since last",
    "less": "lowered since last",
}
_MAP = "HCCNet, {}, 0-1; research software, not for clinical use"
_MAP_OF_DEMONSTRATION = "HCCNet, {}; demonstration weights: no meaning; not clinical"


def folder_name(identifier: str) -> str:
    """An identifier as one safe file name: letters, digits and ``._- `` stay, the rest becomes %XX.

    A long name is cut and ends in a digest, so that different identifiers keep different names.
    """
    safe = "".join(c if c.isalnum() or c in "._- " else "".join(f"%{b:02X}" for b in c.encode()) for c in identifier)
    safe = re.sub(r"^\.|[. ]$", lambda m: f"%{ord(m.group()):02X}", safe)
    if len(safe.encode()) <= _LONGEST_NAME:
        return safe
    digest = hashlib.sha256(identifier.encode()).hexdigest()[:16]
    return safe.encode()[: _LONGEST_NAME - 17].decode(errors="ignore") + "-" + digest


def set_aside(out: Path, patient_id: str) -> Path | None:
    """Renames an earlier result to ``<patient> (earlier)``, ``(earlier 2)`` …: it must not pass for today's.

    Returns:
        Where it is now, or None where there was none.
    """
    final = out / folder_name(patient_id)
    if not (final / PREDICTION_FILE).is_file():
        return None
    names = (f"{final.name} (earlier{f' {n}' if n > 1 else ''})" for n in itertools.count(1))
    earlier = next(path for name in names if not (path := out / name).exists())
    try:
        final.rename(earlier)
    except OSError as error:
        raise unwritable(out, error) from error
    return earlier


def set_table_aside(path: Path) -> None:
    """Renames an earlier table to ``… (earlier).csv``; one that stands there already is older and goes."""
    try:
        if path.is_file():
            path.replace(path.with_name(f"{path.stem} (earlier){path.suffix}"))
    except OSError as error:
        raise unwritable(path.parent, error) from error


def write_prediction(
    out: Path,
    patient: Patient,
    prepared: Sequence[PreparedExam],
    prediction: Prediction,
    maps: PatientMaps | None,
    channels: Sequence[str],
    tables: bool = False,
) -> tuple[Prediction, Path]:
    """Writes ``OUT/<patient>/`` with prediction.json, saliency NIfTI and report.html; replaces an earlier result.

    Args:
        out: the folder of all results.
        patient: with the exams' own images, for the pictures.
        prepared: the same exams.
        prediction: the paths of its exams' maps are filled in here.
        maps: of all exams, or None.
        channels: the bundle's; the report shows the last one that lies on the maps' grid.
        tables: whether to write exams.csv besides.

    Returns:
        The prediction as written, and the patient's folder.

    Raises:
        Refusal: no permission, disk full, or something else stands where the result belongs.
    """
    final = out / folder_name(patient.patient_id)
    with _written_aside(out, final) as aside:
        if maps is not None:
            prediction = _write_maps(aside, prepared, prediction, maps)
        result = prediction.to_dict()
        write_json(aside / PREDICTION_FILE, result)
        write_report(aside / REPORT_FILE, result, _pictures(patient, prepared, maps, channels))
        if tables:
            write_table(aside / EXAMS_FILE, exam_table(result))
    return prediction, final


@contextmanager
def _written_aside(out: Path, final: Path) -> Iterator[Path]:
    """A fresh folder that takes the place of ``final`` if the block ends well, and is removed if not."""
    if final.exists() and not (final / PREDICTION_FILE).is_file():
        message = f"{final} exists and holds no earlier prediction. Choose another --out or remove it first."
        raise Refusal("output_exists", message)
    aside = out / f"{_ASIDE}{secrets.token_hex(6)}"
    try:
        aside.mkdir(parents=True)
        yield aside
        if final.exists():
            former = out / f"{_ASIDE}{secrets.token_hex(6)}"
            final.rename(former)
            aside.rename(final)
            shutil.rmtree(former)
        else:
            aside.rename(final)
    except OSError as error:
        raise unwritable(out, error) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def unwritable(place: Path, error: OSError) -> Refusal:
    """The sentence for a place that can't be written."""
    reason = error.strerror or type(error).__name__
    message = f"Nothing could be written into {place}: {reason}. Check its permissions and the free space."
    return Refusal("cannot_write", message)


def write_json(path: Path, content: Any) -> None:
    """Writes JSON aside and renames it into place."""
    write_file(path, _as_json(content))


def write_table(path: Path, rows: Sequence[Sequence[str]]) -> None:
    """Writes a CSV file, or one with tabs for a ``.tsv``, aside and renames it into place."""
    write_file(path, _as_csv(rows, "\t" if path.suffix.lower() == ".tsv" else ","))


def write_file(path: Path, content: bytes) -> None:
    """Writes a file aside and renames it into place; raises Refusal where that can't be done."""
    aside = path.with_name(f"{_ASIDE}{secrets.token_hex(6)}")
    try:
        aside.write_bytes(content)
        aside.replace(path)
    except OSError as error:
        raise unwritable(path.parent, error) from error
    finally:
        with suppress(OSError):  # e.g. the parent is a file
            aside.unlink()


def _as_csv(rows: Sequence[Sequence[str]], delimiter: str = ",") -> bytes:
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter, lineterminator="\n").writerows(rows)
    return text.getvalue().encode("utf-8", "xmlcharrefreplace")


def write_evaluation(out: Path, content: Mapping[str, Any], table: Sequence[Sequence[str]]) -> None:
    """Writes evaluation.json, predictions.csv and evaluation.html: all three aside, then each into its place.

    Raises:
        Refusal: no permission, or disk full; then nothing has changed.
    """
    page = render_evaluation(content).encode("utf-8", "xmlcharrefreplace")
    write_together(out, EVALUATION_FILES, (_as_json(content), _as_csv(table), page))


def _write_maps(
    folder: Path, prepared: Sequence[PreparedExam], prediction: Prediction, maps: PatientMaps
) -> Prediction:
    """Every map as NIfTI, and the prediction with their paths."""
    exams = []
    demonstration = prediction.bundle["demonstration"]
    for exam, ready, of_exam, (more, less) in zip(prediction.exams, prepared, maps.exams, maps.changes, strict=True):
        file, affine = f"{folder_name(exam.exam_id)}.nii.gz", ready.source_grid.affine

        def save(kind: str, place: str, values: NDArray[np.float32], file: str = file, affine: Affine = affine) -> str:
            name = f"{place}/{file}"
            (folder / place).mkdir(parents=True, exist_ok=True)
            save_map(folder / name, values, affine, kind, demonstration)
            return name

        towards = against = None
        if of_exam is not None:
            towards = {name: save("towards", _place("saliency", name), v) for name, v in of_exam.towards.items()}
            against = {
                name: save("against", _place("saliency/against", name), v) for name, v in of_exam.against.items()
            }
        change = None
        if exam is not prediction.exams[0]:
            change = {"more": save("more", "saliency/more", more), "less": save("less", "saliency/less", less)}
        exams.append(replace(exam, saliency=towards, saliency_against=against, saliency_change=change))
    return replace(prediction, exams=tuple(exams))


def _place(folder: str, name: str) -> str:
    """Maps of single channels have folders of their own."""
    return folder if name == ALL else f"{folder}/{folder_name(name)}"


def save_map(path: Path, values: NDArray[np.float32], affine: Affine, kind: str, demonstration: bool) -> None:
    """Writes (X, Y, Z) values as single-precision NIfTI on the given affine, scanner coordinates; ``kind`` as in _KINDS."""
    image = nib.Nifti1Image(values.astype(np.float32), affine)
    image.header["descrip"] = (_MAP_OF_DEMONSTRATION if demonstration else _MAP).format(_KINDS[kind]).encode()
    image.header.set_xyzt_units("mm")
    image.set_sform(affine, code="scanner")
    image.set_qform(affine, code="scanner")
    nib.save(image, path)


def _pictures(
    patient: Patient, prepared: Sequence[PreparedExam], maps: PatientMaps | None, channels: Sequence[str]
) -> list[ExamPicture]:
    """A picture per exam, and one of what changed since the last exam."""
    pictures = []
    for index, (exam, ready) in enumerate(zip(patient.exams, prepared, strict=True)):
        present = [channel for channel in reversed(channels) if channel in exam.images]
        # Maps lie on the first channel's grid, and so does that channel at least.
        shown = next(channel for channel in present if exam.images[channel].grid.matches(ready.source_grid))
        plain = ExamPicture(
            exam_id=exam.exam_id,
            channel=shown,
            image=exam.images[shown].read(),
            saliency=None,
            affine=ready.source_grid.affine,
            field_corners=ready.window.read_corners,
        )
        if maps is None:
            pictures.append(plain)
            continue
        of_exam = maps.exams[index]
        if of_exam is None:
            pictures.append(plain)
        else:
            pictures.append(replace(plain, saliency=of_exam.towards[ALL], against=of_exam.against[ALL]))
        if index and exam is patient.landmark:
            more, less = maps.changes[index]
            pictures.append(replace(plain, saliency=more, against=less, kind="change"))
    return pictures


def write_check(out: Path, content: Mapping[str, Any], table: Sequence[Sequence[str]]) -> None:
    """Writes explain_check.json, explain_check.csv and explain_check.html: all three aside, then each into its place.

    Raises:
        Refusal: no permission, or disk full; then nothing has changed.
    """
    page = render_check(content).encode("utf-8", "xmlcharrefreplace")
    write_together(out, CHECK_FILES, (_as_json(content), _as_csv(table), page))


def write_together(out: Path, names: Sequence[str], contents: Sequence[bytes]) -> None:
    """Writes files into one folder: all aside, then each into its place; raises Refusal where that can't be done."""
    aside = out / f"{_ASIDE}{secrets.token_hex(6)}"
    try:
        aside.mkdir(parents=True)
        for name, content in zip(names, contents, strict=True):
            (aside / name).write_bytes(content)
        for name in names:
            (aside / name).replace(out / name)
    except OSError as error:
        raise unwritable(out, error) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _as_json(content: Any) -> bytes:
    return (json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode("utf-8")
