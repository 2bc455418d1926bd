"""The nouns that every other room passes on: image, exam, patient, outcome, cohort. No files, no torch.

Patient space is NIfTI's throughout: millimetres, +x to the patient's right, +y anterior, +z superior (RAS+). An affine
is a (4, 4) matrix from voxel indices (centres at integers) to patient space.
"""

from __future__ import annotations

import datetime
import hashlib
import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

DAYS_PER_MONTH = 30.4375

Affine = NDArray[np.float64]

# How the files of generated patients are marked, in the header's field for a description.
PHANTOM_MARK = "HCCNet phantom: generated, shows nobody"


class Refusal(Exception):
    """Input that can't be used, in a sentence that a person can act on.

    Commands print the sentence and exit with 1, or list it beside the patient in a cohort. The message names exams,
    channels and files relative to the patient's folder, never the patient: whoever prints it says whose it is.

    Args:
        code: short machine-readable name of the reason, e.g. ``missing_channel``.
        message: what is wrong, where, and what to do.
        exam_id: the exam concerned, if it is one exam.
    """

    def __init__(self, code: str, message: str, exam_id: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.exam_id = exam_id

    def __reduce__(self) -> tuple[type[Refusal], tuple[str, str, str | None]]:
        """As it is sent from process to process; an exception's own way knows one argument."""
        return type(self), (self.code, self.message, self.exam_id)


@dataclass(frozen=True)
class Problem:
    """Something that a reader should know and that does not stop the work; it becomes a warning of the prediction."""

    code: str
    message: str
    exam_id: str | None = None


@dataclass(frozen=True)
class Grid:
    """Where an image's voxels lie: ``shape`` (X, Y, Z) and the affine to patient space."""

    shape: tuple[int, int, int]
    affine: Affine

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel size along each axis, mm."""
        x, y, z = np.sqrt((self.affine[:3, :3] ** 2).sum(axis=0))
        return float(x), float(y), float(z)

    def matches(self, other: Grid, tolerance_mm: float = 0.1) -> bool:
        """Whether every corner voxel of both grids lies within ``tolerance_mm`` of the other's."""
        if self.shape != other.shape:
            return False
        corners = np.array(np.meshgrid(*[(0, n - 1) for n in self.shape], indexing="ij")).reshape(3, -1)
        corners = np.vstack([corners, np.ones(corners.shape[1])])
        distance = np.linalg.norm(((self.affine - other.affine) @ corners)[:3], axis=0)
        return bool(distance.max() <= tolerance_mm)


@runtime_checkable
class Image(Protocol):
    """One 3D image that can say where it lies before its voxels are read."""

    @property
    def grid(self) -> Grid:
        """Shape and affine, known from the header."""
        ...

    @property
    def source(self) -> str:
        """What to call the image in a message: a file name, never a patient's name."""
        ...

    @property
    def is_phantom(self) -> bool:
        """Whether the image was generated and shows nobody."""
        ...

    def read(self) -> NDArray[np.float32]:
        """Voxels (X, Y, Z), slope and intercept applied; raises Refusal where they can't be used."""
        ...

    def header_problems(self) -> list[Problem]:
        """What is odd in the header and yet usable; raises Refusal where it is not."""
        ...

    def fingerprint(self) -> str:
        """SHA-256 of all that the image holds; what was worked out from it may be kept under this name."""
        ...


@dataclass(frozen=True)
class ArrayImage:
    """An image in memory: for tests, and for callers who hold arrays."""

    data: NDArray[np.float32]
    affine: Affine
    source: str = "array"
    is_phantom: bool = False

    @property
    def grid(self) -> Grid:
        """Shape and affine."""
        x, y, z = self.data.shape
        return Grid((x, y, z), np.asarray(self.affine, dtype=np.float64))

    def read(self) -> NDArray[np.float32]:
        """The voxels."""
        return self.data

    def header_problems(self) -> list[Problem]:
        """None: there is no header."""
        return []

    def fingerprint(self) -> str:
        """SHA-256 of shape, voxels and affine."""
        digest = hashlib.sha256(f"{self.data.dtype} {self.data.shape}".encode())
        digest.update(np.ascontiguousarray(self.data).tobytes())
        digest.update(self.grid.affine.tobytes())
        return digest.hexdigest()


@dataclass(frozen=True)
class Box:
    """An axis-aligned box in patient space, mm: ``low`` and ``high`` corners (RAS+)."""

    low: tuple[float, float, float]
    high: tuple[float, float, float]


Confidence = Literal["certain", "probable", "ambiguous", "none"]


@dataclass(frozen=True)
class FoundImage:
    """An image of an exam as it was found, whether or not it became a channel.

    ``series_uid`` and ``files`` are for programs: they may identify a patient and belong into no log, message or report.

    Args:
        name: unique within the exam, e.g. ``series 8, b 400``, or a file's name without its suffix.
        description: what the scanner or the file says of it, e.g. the series description; may be empty.
        channel: the channel that it became, or None.
        recognised_by: by what it got its channel: ``name``, ``b-value``, ``description``, ``image type``, ``echo time``,
            ``time after contrast``, ``table``; empty where it got none.
        confidence: ``certain`` by its name, a b-value in the header or the user's table; ``probable`` by words or times;
            ``ambiguous`` where it may be one of several; ``none`` where nothing is known.
        reason: why it is not used, a clause without a full stop; empty where it is used.
        grid: where its voxels lie; None where that can't be said.
        details: what sets it apart in its series, for people: ``{"b": "400"}``, ``{"phase": "2 of 6 (+25 s from contrast)"}``.
        series_uid: of DICOM.
        files: that it was read from.
    """

    name: str
    description: str = ""
    channel: str | None = None
    recognised_by: str = ""
    confidence: Confidence = "none"
    reason: str = ""
    grid: Grid | None = None
    details: Mapping[str, str] = field(default_factory=dict)
    series_uid: str = ""
    files: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Exam:
    """One MRI visit.

    Args:
        exam_id: unique within the patient.
        date: day of the visit.
        images: channel name → image, canonical names (``readers.channels``).
        liver_mask: an image that is above 0 inside the liver, or None. Its grid is its own.
        liver_box: a box around the liver, or None.
        unknown_files: names of images that belong to no channel; quoted where a channel is missing.
        resample_channels: the user says that the channels share one patient space though not one grid.
        found: every image that was found in it, with what it was taken for; empty where the reader does not tell.
    """

    exam_id: str
    date: datetime.date
    images: Mapping[str, Image]
    liver_mask: Image | None = None
    liver_box: Box | None = None
    problems: tuple[Problem, ...] = ()
    unknown_files: tuple[str, ...] = ()
    resample_channels: bool = False
    found: tuple[FoundImage, ...] = ()


@dataclass(frozen=True)
class Patient:
    """A patient's exams in the order of their dates; no two on one day.

    Args:
        patient_id: the patient.
        exams: at least one.
        problems: what a reader should know of the patient as a whole, e.g. what was passed over.
    """

    patient_id: str
    exams: tuple[Exam, ...]
    problems: tuple[Problem, ...] = ()

    def __post_init__(self) -> None:
        dates = [exam.date for exam in self.exams]
        if not dates:
            raise Refusal("no_exams", "The patient has no exam.")
        if any(later <= earlier for earlier, later in itertools.pairwise(dates)):
            raise ValueError("the exams of a patient must be in the order of their dates, one a day")
        if len({exam.exam_id for exam in self.exams}) != len(self.exams):
            raise ValueError("the exams of a patient must have different names")

    @property
    def landmark(self) -> Exam:
        """The exam from which a prediction is made: the latest."""
        return self.exams[-1]

    @property
    def is_phantom(self) -> bool:
        """Whether all images were generated: the patient does not exist."""
        images = [image for exam in self.exams for image in exam.images.values()]
        return bool(images) and all(image.is_phantom for image in images)

    def until(self, exam: Exam) -> Patient:
        """The patient as known on the day of ``exam``: that exam and the earlier ones."""
        return Patient(self.patient_id, tuple(e for e in self.exams if e.date <= exam.date), self.problems)


@dataclass(frozen=True)
class Outcome:
    """What became of a patient.

    Args:
        patient_id: the patient.
        diagnosis_date: day of the diagnosis, or None.
        last_seen_date: end of the follow-up of a patient without an event.
        competing_date: day of an event after which no diagnosis can come (death, transplant), or None.
    """

    patient_id: str
    diagnosis_date: datetime.date | None
    last_seen_date: datetime.date
    competing_date: datetime.date | None = None

    @property
    def event_date(self) -> datetime.date | None:
        """Day of the diagnosis or, without one, of the competing event; exams from that day on are not used."""
        return self.diagnosis_date or self.competing_date

    @property
    def ended_by_competing(self) -> bool:
        """Whether a competing event came without a diagnosis before."""
        return self.diagnosis_date is None and self.competing_date is not None

    @property
    def followed_until(self) -> datetime.date:
        """Day of the event, or the last day seen without one."""
        return self.event_date or self.last_seen_date


@dataclass(frozen=True)
class Cohort:
    """What one INPUT holds.

    Args:
        patients: those that could be read.
        refused: patient id → why that patient could not be read.
        outcomes: patient id → outcome, where known.
        outcomes_refused: why the outcomes that are there can't be used; prediction does not need them.
        problems: what was passed over.
        form: which of the contract's forms the input was recognised as.
    """

    patients: tuple[Patient, ...]
    refused: Mapping[str, Refusal] = field(default_factory=dict)
    outcomes: Mapping[str, Outcome] = field(default_factory=dict)
    outcomes_refused: Refusal | None = None
    problems: tuple[Problem, ...] = ()
    form: str = "cohort folder"

    def __post_init__(self) -> None:
        names = [*(patient.patient_id for patient in self.patients), *self.refused]
        if len(set(names)) < len(names):
            raise ValueError("the patients of a cohort must have different ids")


def months_between(earlier: datetime.date, later: datetime.date) -> float:
    """Months from ``earlier`` to ``later``: days / 30.4375, real-valued, negative if the order is reversed."""
    return (later - earlier).days / DAYS_PER_MONTH


def names_exam(message: str, exam_id: str) -> bool:
    """Whether a message says by itself which exam it is about: ``exam X`` or a file ``X/…``."""
    return f"xam {exam_id}" in message or f"{exam_id}/" in message


def landmark_label(outcome: Outcome, landmark: datetime.date, horizon: float) -> bool | None:
    """Whether the diagnosis comes within ``horizon`` months after ``landmark``; None where nobody knows.

    Negative if the whole horizon was followed without a diagnosis, or a competing event came first: then there will be none.
    A landmark on or after the event has no label.
    """
    if outcome.event_date is not None and outcome.event_date <= landmark:
        return None
    if outcome.diagnosis_date is not None:
        # A later diagnosis was seen too, so the horizon before it was followed.
        return months_between(landmark, outcome.diagnosis_date) <= horizon
    known = outcome.competing_date is not None or months_between(landmark, outcome.last_seen_date) >= horizon
    return False if known else None
