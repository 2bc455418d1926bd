"""Exams made for tests: a body in patient space, sampled onto any grid."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np

from HCCNetLib.records import ArrayImage, Exam, Patient

DWI = ("DWI_b0", "DWI_b150", "DWI_b400", "DWI_b800")
BODY_CENTRE = np.array([5.0, -10.0, 40.0])


def rotation(x: float, y: float, z: float) -> np.ndarray:
    """A rotation matrix of three angles in degrees."""
    a, b, c = np.radians([x, y, z])
    about_x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    about_y = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    about_z = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    return about_z @ about_y @ about_x


def centred_affine(shape: Sequence[int], spacing: Sequence[float], directions: np.ndarray) -> np.ndarray:
    """The affine of a grid whose middle lies at the body's centre."""
    affine = np.eye(4)
    affine[:3, :3] = directions * np.asarray(spacing)
    affine[:3, 3] = BODY_CENTRE - affine[:3, :3] @ ((np.asarray(shape) - 1) / 2)
    return affine


def positions(shape: Sequence[int], affine: np.ndarray) -> np.ndarray:
    """Patient-space position of every voxel, (X, Y, Z, 3)."""
    index = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"), axis=-1)
    return index @ affine[:3, :3].T + affine[:3, 3]


def body(points: np.ndarray, channel: int = 0, blob: np.ndarray | None = None) -> np.ndarray:
    """A smooth body (ellipsoid of 300 × 220 × 260 mm with waves inside) at patient-space points, and a bright blob of 8 mm SD."""
    relative = (points - BODY_CENTRE) / np.array([150.0, 110.0, 130.0])
    radius = np.sqrt((relative**2).sum(axis=-1))
    inside = 1 / (1 + np.exp((radius - 1) * 25))
    waves = np.sin(points[..., 0] / 17 + channel) * np.cos(points[..., 1] / 23) * np.sin(points[..., 2] / 19 + 1)
    values = 40 + inside * (400 + 120 * waves + 60 * relative[..., 0] - 30 * channel)
    if blob is not None:
        values = values + 900 * np.exp(-((points - blob) ** 2).sum(axis=-1) / (2 * 8.0**2))
    return values.astype(np.float32)


def make_exam(
    date: str, shape: Sequence[int], affine: np.ndarray, channels: Sequence[str] = DWI, blob: np.ndarray | None = None
) -> Exam:
    """An exam in memory."""
    points = positions(shape, affine)
    images = {name: ArrayImage(body(points, i, blob), affine, name) for i, name in enumerate(channels)}
    return Exam(date, datetime.date.fromisoformat(date), images)


def make_patient(dates: Sequence[str], channels: Sequence[str] = DWI, patient_id: str = "P1") -> Patient:
    """A patient whose exams have different grids."""
    exams = []
    for number, date in enumerate(dates):
        shape = (80 + 4 * number, 64, 60)
        affine = centred_affine(shape, (4.0, 4.0, 4.5), np.diag([-1.0, -1.0, 1.0]) @ rotation(0, 0, 2.0 * number))
        exams.append(make_exam(date, shape, affine, channels))
    return Patient(patient_id, tuple(exams))


def write_nifti(path: Path, data: np.ndarray, affine: np.ndarray, dtype: type = np.float32) -> None:
    """Writes an image with both orientations set."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(data.astype(dtype), affine)
    image.set_sform(affine, code="scanner")
    image.set_qform(affine, code="scanner")
    nib.save(image, path)


def write_patient(
    folder: Path, dates: Sequence[str] = ("2020-01-05", "2021-03-14"), channels: Sequence[str] = DWI
) -> Path:
    """Writes form 1 with small exams; returns the folder."""
    shape = (48, 40, 40)
    for number, date in enumerate(dates):
        affine = centred_affine(shape, (7.0, 7.0, 7.0), np.diag([-1.0, -1.0, 1.0]) @ rotation(0, 0, 3.0 * number))
        points = positions(shape, affine)
        for index, channel in enumerate(channels):
            write_nifti(folder / date / f"{channel}.nii.gz", body(points, index), affine)
    return folder
