"""DICOM written for tests: any right-angled grid, classic or enhanced, b-values in the vendors' dialects.

Everything is derived from names by hashing, so that the same call writes the same bytes. Volumes are (X, Y, Z) with an
affine to RAS+ millimetres, as everywhere in the library; a slice's rows run along Y and its columns along X.
"""

from __future__ import annotations

import hashlib
import random
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import DataElement, Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    EnhancedMRImageStorage,
    EnhancedSRStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    MediaStorageDirectoryStorage,
    MRImageStorage,
    RLELossless,
    SegmentationStorage,
)
from pydicom.valuerep import DSfloat

from HCCNetLib.records import Exam, Grid, Image, Patient

SYNTAXES = {
    "implicit little endian": ImplicitVRLittleEndian,
    "explicit little endian": ExplicitVRLittleEndian,
    "explicit big endian": ExplicitVRBigEndian,
    "deflated": DeflatedExplicitVRLittleEndian,
    "RLE": RLELossless,
    "JPEG 2000": JPEG2000Lossless,
}
_COMPRESSED = (RLELossless, JPEG2000Lossless)
_FROM_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])  # DICOM's axes run to the left and to the back


# ---------------------------------------------------------------- b-values, as each vendor writes them


def _private(dataset: Dataset, group: int, creator: str, element: int, vr: str, value: Any) -> None:
    dataset.private_block(group, creator, create=True).add_new(element, vr, value)


def _padded(text: str) -> bytes:
    """A text value as it lies in a file: of even length."""
    return (text + " " * (len(text) % 2)).encode("ascii")


def _standard(dataset: Dataset, b_value: float) -> None:
    dataset.DiffusionBValue = b_value


def _nested(dataset: Dataset, b_value: float) -> None:
    dataset.MRDiffusionSequence = DicomSequence([Dataset()])
    dataset.MRDiffusionSequence[0].DiffusionBValue = b_value


def _siemens(dataset: Dataset, b_value: float) -> None:
    _private(dataset, 0x0019, "SIEMENS MR HEADER", 0x0C, "IS", round(b_value))


def _siemens_bytes(dataset: Dataset, b_value: float) -> None:
    """As archives hold it that lost the private elements' types."""
    _private(dataset, 0x0019, "SIEMENS MR HEADER", 0x0C, "OB", _padded(f"{b_value:.0f}"))


def _siemens_unknown(dataset: Dataset, b_value: float) -> None:
    """The private creator is gone too."""
    dataset.add_new(0x0019100C, "UN", _padded(f"{b_value:.0f}"))


def _ge(dataset: Dataset, b_value: float) -> None:
    _private(dataset, 0x0043, "GEMS_PARM_01", 0x39, "IS", [round(b_value), 8, 0, 0])
    _ge_direction(dataset, b_value)


def _ge_offset(dataset: Dataset, b_value: float) -> None:
    _private(dataset, 0x0043, "GEMS_PARM_01", 0x39, "IS", [1_000_000_000 + round(b_value), 8, 0, 0])
    _ge_direction(dataset, b_value)


def _ge_bytes(dataset: Dataset, b_value: float) -> None:
    dataset.add_new(0x00431039, "UN", _padded(f"{1_000_000_000 + round(b_value)}\\8\\0\\0"))
    _ge_direction(dataset, b_value)


def _ge_direction(dataset: Dataset, b_value: float) -> None:
    """Without a direction dcm2niix takes a b-value of GE for 0."""
    for element, value in zip((0xBB, 0xBC, 0xBD), (1 if b_value >= 1 else 0, 0, 0), strict=True):
        _private(dataset, 0x0019, "GEMS_ACQU_01", element, "DS", value)


def _philips(dataset: Dataset, b_value: float) -> None:
    _private(dataset, 0x2001, "Philips Imaging DD 001", 0x03, "FL", b_value)


def _philips_bytes(dataset: Dataset, b_value: float) -> None:
    dataset.add_new(0x20011003, "UN", struct.pack("<f", b_value))


def _uih(dataset: Dataset, b_value: float) -> None:
    _private(dataset, 0x0065, "Image Private Header", 0x09, "FD", b_value)


def _uih_bytes(dataset: Dataset, b_value: float) -> None:
    dataset.add_new(0x00651009, "UN", struct.pack("<d", b_value))


@dataclass(frozen=True)
class Dialect:
    """How a vendor's scanner writes a b-value."""

    manufacturer: str
    write: Callable[[Dataset, float], None]


DIALECTS = {
    "standard": Dialect("Siemens Healthineers", _standard),
    "nested": Dialect("Philips", _nested),
    "Siemens": Dialect("SIEMENS", _siemens),
    "Siemens, bytes": Dialect("SIEMENS", _siemens_bytes),
    "Siemens, unknown": Dialect("SIEMENS", _siemens_unknown),
    "GE": Dialect("GE MEDICAL SYSTEMS", _ge),
    "GE, offset": Dialect("GE MEDICAL SYSTEMS", _ge_offset),
    "GE, unknown": Dialect("GE MEDICAL SYSTEMS", _ge_bytes),
    "Philips": Dialect("Philips Medical Systems", _philips),
    "Philips, unknown": Dialect("Philips Medical Systems", _philips_bytes),
    "UIH": Dialect("UIH", _uih),
    "UIH, unknown": Dialect("UIH", _uih_bytes),
}


# ---------------------------------------------------------------- what is written, and how


@dataclass(frozen=True)
class Stack:
    """One volume of a series, and what its slices say of it.

    Args:
        volume: (X, Y, Z).
        affine: to RAS+ mm; any right-angled one.
        b_value: s/mm².
        echo_time: ms.
        temporal: position in time, from 1.
        image_type: (0008,0008), or the frame type of an enhanced object.
        tags: keyword → value, on every slice; of an enhanced object not used.
    """

    volume: NDArray[Any]
    affine: NDArray[np.float64]
    b_value: float | None = None
    echo_time: float | None = None
    temporal: int | None = None
    image_type: tuple[str, ...] = ("ORIGINAL", "PRIMARY", "M", "ND")
    tags: Mapping[str, Any] = field(default_factory=dict)

    @property
    def grid(self) -> Grid:
        """Shape and affine."""
        x, y, z = self.volume.shape
        return Grid((x, y, z), np.asarray(self.affine, dtype=np.float64))


@dataclass(frozen=True)
class Writing:
    """How files are written.

    Args:
        syntax: transfer syntax.
        dialect: of the b-values, a key of ``DIALECTS``.
        dtype: of the stored values, uint16 or int16.
        shuffled: instance numbers say nothing about the place of a slice.
        scattered: files have meaningless names without a suffix, and lie in nested folders.
        seed: of both.
    """

    syntax: UID = ExplicitVRLittleEndian
    dialect: str = "standard"
    dtype: type[np.uint16 | np.int16] = np.uint16
    shuffled: bool = False
    scattered: bool = False
    seed: int = 0


@dataclass(frozen=True)
class Quantised:
    """Integers as stored; values are ``stored · slope + intercept``."""

    stored: NDArray[Any]
    slope: float
    intercept: float


def quantise(volume: NDArray[Any], dtype: type[np.uint16 | np.int16] = np.uint16) -> Quantised:
    """Integers that fit are stored as they are; of others the range is spread over most of the type's.

    Half of the type's positive numbers are enough, and no other program takes them for negative ones.
    """
    low, high = float(volume.min()), float(volume.max())
    limits = np.iinfo(dtype)
    if limits.min <= low and high <= np.iinfo(np.int16).max and np.array_equal(volume, np.rint(volume)):
        return Quantised(volume.astype(dtype), 1.0, 0.0)
    first, last = (0, 32000) if dtype is np.uint16 else (-32000, 32000)
    slope = _as_decimal((high - low) / (last - first) or 1.0)
    intercept = _as_decimal(low - first * slope)
    stored = np.clip(np.rint((volume - intercept) / slope), limits.min, limits.max)
    return Quantised(stored.astype(dtype), slope, intercept)


def quantisation_step(volume: NDArray[Any], dtype: type[np.uint16 | np.int16] = np.uint16) -> float:
    """The distance of two neighbouring values of a volume as it is written; what is read differs by half of it."""
    return quantise(volume, dtype).slope


def _as_decimal(value: float) -> float:
    """The number that is left of a float in DICOM's sixteen characters."""
    return float(str(DSfloat(value, auto_format=True)))


def _decimals(values: Iterable[float]) -> list[DSfloat]:
    return [DSfloat(float(value), auto_format=True) for value in values]


def uid_of(*words: object) -> str:
    """A UID that stands for these words."""
    return f"2.25.{int(hashlib.sha256(repr(words).encode()).hexdigest()[:30], 16)}"


def series_tags(
    patient_id: str = "P1", date: str = "20200105", number: int = 1, description: str = "", **more: Any
) -> dict[str, Any]:
    """What all slices of a series say of patient, study and series; ``more`` by keyword."""
    return {
        "PatientID": patient_id,
        "PatientName": f"Nobody^{patient_id}",
        "StudyDate": date,
        "SeriesDate": date,
        "AcquisitionDate": date,
        "StudyTime": "090000",
        "AcquisitionTime": f"09{number % 60:02d}00.000000",
        "StudyInstanceUID": uid_of("study", patient_id, date),
        "SeriesInstanceUID": uid_of("series", patient_id, date, number),
        "FrameOfReferenceUID": uid_of("frame of reference", patient_id, date),
        "SeriesNumber": number,
        "SeriesDescription": description,
        "Modality": "MR",
        "PatientPosition": "HFS",
        "MagneticFieldStrength": "1.5",
        "MRAcquisitionType": "2D",
        "ScanningSequence": "SE",
        "SequenceVariant": "NONE",
        "RepetitionTime": "4000",
        "BodyPartExamined": "ABDOMEN",
    } | more


# ---------------------------------------------------------------- classic: a file per slice


def write_series(
    folder: Path,
    volume: NDArray[Any],
    affine: NDArray[np.float64],
    tags: Mapping[str, Any] | None = None,
    writing: Writing | None = None,
) -> list[Path]:
    """Writes one volume as a classic series; returns the files in the order of slices."""
    return write_stacks(folder, [Stack(volume, affine)], tags, writing)


def write_stacks(
    folder: Path, stacks: Sequence[Stack], tags: Mapping[str, Any] | None = None, writing: Writing | None = None
) -> list[Path]:
    """Writes several volumes as one classic series; returns the files, stack by stack in the order of slices."""
    tags, writing = {**series_tags(), **(tags or {})}, writing or Writing()
    rng = random.Random(f"{writing.seed} {tags['SeriesInstanceUID']}")
    slices = [
        (stack, quantise(stack.volume, writing.dtype), k) for stack in stacks for k in range(stack.volume.shape[2])
    ]
    numbers = list(range(1, len(slices) + 1))
    if writing.shuffled:
        rng.shuffle(numbers)
    paths = []
    for number, (stack, quantised, k) in zip(numbers, slices, strict=True):
        dataset = _classic_slice(stack, quantised, k, tags, writing, number)
        paths.append(folder / _file_name(number, rng, writing.scattered))
        save(paths[-1], dataset, writing.syntax)
    return paths


def _file_name(number: int, rng: random.Random, scattered: bool) -> str:
    if not scattered:
        return f"{number:05d}.dcm"
    folders = [f"{rng.randrange(4):02d}" for _ in range(rng.randrange(4))]
    return "/".join([*folders, f"{rng.getrandbits(40):010X}"])


def _classic_slice(
    stack: Stack, quantised: Quantised, k: int, tags: Mapping[str, Any], writing: Writing, number: int
) -> Dataset:
    dialect = DIALECTS[writing.dialect]
    dataset = _dataset(
        {
            "SOPClassUID": MRImageStorage,
            "Manufacturer": dialect.manufacturer,
            **tags,
            "SOPInstanceUID": uid_of("instance", tags["SeriesInstanceUID"], number),
            "InstanceNumber": number,
            "ImageType": list(stack.image_type),
        }
    )
    place = _Place.of(stack)
    dataset.ImagePositionPatient = place.position(k)
    dataset.ImageOrientationPatient = place.orientation
    dataset.PixelSpacing = place.in_plane
    dataset.SliceThickness = dataset.SpacingBetweenSlices = place.between
    if stack.echo_time is not None:
        dataset.EchoTime = stack.echo_time
    if stack.temporal is not None:
        dataset.TemporalPositionIdentifier = stack.temporal
    if stack.b_value is not None:
        dialect.write(dataset, stack.b_value)
    for keyword, value in stack.tags.items():
        setattr(dataset, keyword, value)
    if (quantised.slope, quantised.intercept) != (1.0, 0.0):
        dataset.RescaleSlope, dataset.RescaleIntercept = _decimals([quantised.slope, quantised.intercept])
    _put_pixels(dataset, quantised.stored[:, :, k].T, writing.syntax)
    return dataset


@dataclass(frozen=True)
class _Place:
    """A stack's grid in DICOM's words."""

    affine: NDArray[np.float64]  # to LPS

    @classmethod
    def of(cls, stack: Stack) -> _Place:
        return cls(_FROM_RAS @ np.asarray(stack.affine, dtype=np.float64))

    @property
    def spacing(self) -> NDArray[np.float64]:
        spacing: NDArray[np.float64] = np.linalg.norm(self.affine[:3, :3], axis=0)
        return spacing

    @property
    def orientation(self) -> list[DSfloat]:
        """Direction of the columns' index, then of the rows'."""
        return _decimals((self.affine[:3, :2] / self.spacing[:2]).T.ravel())

    @property
    def in_plane(self) -> list[DSfloat]:
        """Between rows, then between columns."""
        return _decimals([self.spacing[1], self.spacing[0]])

    @property
    def between(self) -> DSfloat:
        return _decimals([self.spacing[2]])[0]

    def position(self, k: int) -> list[DSfloat]:
        return _decimals((self.affine @ [0, 0, k, 1])[:3])


def _dataset(tags: Mapping[str, Any]) -> Dataset:
    dataset = Dataset()
    for keyword, value in tags.items():
        setattr(dataset, keyword, value)
    return dataset


def _put_pixels(dataset: Dataset, pixels: NDArray[Any], syntax: UID) -> None:
    """Stores (Y, X) or (frame, Y, X) integers of 16 bits."""
    dataset.Rows, dataset.Columns = pixels.shape[-2:]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 16, 15
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    # pydicom swaps every element but this one.
    dtype = pixels.dtype.newbyteorder(">" if syntax == ExplicitVRBigEndian else "<")
    content = np.ascontiguousarray(pixels, dtype=dtype).tobytes()
    dataset.add(DataElement(0x7FE00010, "OW", content))


def save(path: Path, dataset: Dataset, syntax: UID = ExplicitVRLittleEndian) -> None:
    """Writes a dataset as a file of the DICOM form; pixels are compressed where the transfer syntax says so."""
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian if syntax in _COMPRESSED else syntax
    if syntax in _COMPRESSED:
        dataset.compress(syntax, generate_instance_uid=False)
    dataset.save_as(path, enforce_file_format=True)


# ---------------------------------------------------------------- enhanced: all slices in one file


def write_enhanced(
    path: Path,
    stacks: Sequence[Stack],
    tags: Mapping[str, Any] | None = None,
    writing: Writing | None = None,
) -> None:
    """Writes an Enhanced MR object; what a stack says stands in the functional groups of its frames.

    ``writing.shuffled`` mixes the frames of all stacks; the position of a stack among ``stacks`` is its dimension index.
    """
    tags, writing = {**series_tags(), **(tags or {})}, writing or Writing()
    frames = [(number, stack, k) for number, stack in enumerate(stacks, 1) for k in range(stack.volume.shape[2])]
    if writing.shuffled:
        random.Random(writing.seed).shuffle(frames)
    quantised = [quantise(stack.volume, writing.dtype) for stack in stacks]
    dataset = _dataset(
        {
            "SOPClassUID": EnhancedMRImageStorage,
            "SOPInstanceUID": uid_of("enhanced", tags["SeriesInstanceUID"]),
            "Manufacturer": DIALECTS[writing.dialect].manufacturer,
            **tags,
            "InstanceNumber": 1,
            "ImageType": list(stacks[0].image_type),
            "AcquisitionDateTime": f"{tags['StudyDate']}{tags['AcquisitionTime']}",
            "NumberOfFrames": len(frames),
        }
    )
    organization = uid_of("dimensions", tags["SeriesInstanceUID"])
    dataset.DimensionOrganizationSequence = [_dataset({"DimensionOrganizationUID": organization})]
    dataset.DimensionIndexSequence = [
        _dataset({"DimensionOrganizationUID": organization, "DimensionIndexPointer": pointer, **group})
        for pointer, group in _dimensions(stacks)
    ]
    dataset.SharedFunctionalGroupsSequence = [Dataset()]
    dataset.PerFrameFunctionalGroupsSequence = [
        _frame(stack, quantised[number - 1], k, number, writing) for number, stack, k in frames
    ]
    pixels = np.stack([quantised[number - 1].stored[:, :, k].T for number, _, k in frames])
    _put_pixels(dataset, pixels, writing.syntax)
    save(path, dataset, writing.syntax)


def _dimensions(stacks: Sequence[Stack]) -> list[tuple[int, dict[str, Any]]]:
    """Along what the frames are ordered: the slice, then whatever the stacks differ in."""
    frame_content = {"FunctionalGroupPointer": 0x00209111}
    slices = [(0x00209056, frame_content), (0x00209057, frame_content)]  # StackID, InStackPositionNumber
    if any(stack.b_value is not None for stack in stacks):
        return [*slices, (0x00189087, {"FunctionalGroupPointer": 0x00189117})]
    if any(stack.echo_time is not None for stack in stacks):
        return [*slices, (0x00189082, {"FunctionalGroupPointer": 0x00189114})]
    return [*slices, (0x00209128, frame_content)]  # TemporalPositionIndex


def _frame(stack: Stack, quantised: Quantised, k: int, number: int, writing: Writing) -> Dataset:
    place = _Place.of(stack)
    content = {"StackID": "1", "InStackPositionNumber": k + 1, "DimensionIndexValues": [1, k + 1, number]}
    if stack.temporal is not None:
        content["TemporalPositionIndex"] = stack.temporal
    measures = {"PixelSpacing": place.in_plane, "SliceThickness": place.between, "SpacingBetweenSlices": place.between}
    slope, intercept = _decimals([quantised.slope, quantised.intercept])
    frame_type = {"FrameType": list(stack.image_type), "ComplexImageComponent": _component(stack.image_type)}
    groups: dict[str, dict[str, Any]] = {
        "FrameContentSequence": content,
        "PlanePositionSequence": {"ImagePositionPatient": place.position(k)},
        "PlaneOrientationSequence": {"ImageOrientationPatient": place.orientation},
        "PixelMeasuresSequence": measures,
        "PixelValueTransformationSequence": {"RescaleSlope": slope, "RescaleIntercept": intercept, "RescaleType": "US"},
        "MRImageFrameTypeSequence": frame_type,
        "MREchoSequence": {"EffectiveEchoTime": stack.echo_time or _ECHO_TIME},
    }
    frame = _dataset({name: [_dataset(group)] for name, group in groups.items()})
    if stack.b_value is not None:
        _write_b_value(frame, stack.b_value, writing.dialect)
    return frame


def _write_b_value(frame: Dataset, b_value: float, dialect: str) -> None:
    if dialect not in ("standard", "nested"):
        DIALECTS[dialect].write(frame, b_value)
        return
    _nested(frame, b_value)
    frame.MRDiffusionSequence[0].DiffusionDirectionality = "ISOTROPIC" if b_value >= 1 else "NONE"


_ECHO_TIME = 60.0  # ms, where a stack says none: the standard wants one in every frame


def _component(image_type: Sequence[str]) -> str:
    components = {"P": "PHASE", "R": "REAL", "I": "IMAGINARY"}
    return next((components[word] for word in image_type if word in components), "MAGNITUDE")


# ---------------------------------------------------------------- what lies between the images


def write_clutter(folder: Path, patient_id: str = "P1", date: str = "20200105") -> list[Path]:
    """Files that are no images, as they come on discs and from archives."""
    folder.mkdir(parents=True, exist_ok=True)
    texts = {
        "README.TXT": "This disc holds images.\r\n",
        ".DS_Store": "\0\0\0\1Bud1",
        "AUTORUN.INF": "",
        "viewer.exe": "MZ",
    }
    for name, text in texts.items():
        (folder / name).write_text(text)
    about = {name: value for name, value in series_tags(patient_id, date).items() if name in _OF_STUDY}
    report = _dataset({**about, "SOPClassUID": EnhancedSRStorage, "Modality": "SR"})
    report.SOPInstanceUID, report.SeriesInstanceUID = uid_of("report", about), uid_of("reports", about)
    report.ValueType, report.ContinuityOfContent = "CONTAINER", "SEPARATE"
    report.ConceptNameCodeSequence = [_dataset({"CodeValue": "18748-4", "CodingSchemeDesignator": "LN"})]
    save(folder / "SR000001", report)
    save(folder / "SEG00001.dcm", _segmentation(about))
    save(folder / "DICOMDIR", _directory())
    return sorted(folder.iterdir())


_OF_STUDY = ("PatientID", "PatientName", "StudyDate", "StudyTime", "StudyInstanceUID")


def _segmentation(about: Mapping[str, Any]) -> Dataset:
    dataset = _dataset({**about, "SOPClassUID": SegmentationStorage, "Modality": "SEG"})
    dataset.SOPInstanceUID, dataset.SeriesInstanceUID = uid_of("segmentation", about), uid_of("segmentations", about)
    dataset.SegmentationType, dataset.NumberOfFrames = "BINARY", 2
    dataset.Rows = dataset.Columns = 16
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 1, 1, 0, 0
    dataset.add(DataElement(0x7FE00010, "OB", bytes(64)))
    return dataset


def _directory() -> Dataset:
    dataset = _dataset({"SOPClassUID": MediaStorageDirectoryStorage, "SOPInstanceUID": uid_of("directory")})
    dataset.FileSetID = "DISC"
    dataset.DirectoryRecordSequence = [_dataset({"DirectoryRecordType": "PATIENT", "PatientID": "P1"})]
    return dataset


# ---------------------------------------------------------------- a patient as a hospital's archive hands it out


@dataclass(frozen=True)
class PatientWriting:
    """How a patient's exams become series.

    Args:
        writing: of all files.
        is_enhanced: one Enhanced MR object per series in place of classic files.
        phases_in_words: dynamic phases are told by their series' descriptions; else only by times.
        has_clutter: files that are no images lie between.
        has_maps: a diffusion map is a series too.
        comments: (0020,4000) of all images.
    """

    writing: Writing = field(default_factory=Writing)
    is_enhanced: bool = False
    phases_in_words: bool = False
    has_clutter: bool = True
    has_maps: bool = True
    comments: str | None = None


_TRACE = ("DERIVED", "PRIMARY", "DIFFUSION", "TRACEW", "ND")
_ADC = ("DERIVED", "PRIMARY", "DIFFUSION", "ADC", "ND")
_T1 = {"ScanningSequence": "GR", "MRAcquisitionType": "3D", "RepetitionTime": "4.2", "EchoTime": "1.9"}
# Start of acquisition; the contrast agent is given at 09:30.
_BOLUS = "093000"
_PHASES = {
    "T1_native": ("092600.000000", "native"),
    "T1_arterial": ("093025.000000", "arterial"),
    "T1_venous": ("093110.000000", "portal venous"),
    "T1_delayed": ("093300.000000", "delayed"),
}
# In and opposed phase at 1.5 T, ms.
_ECHOES = {"T1_out": 2.3, "T1_in": 4.6, "T2_short": 70.0, "T2_long": 160.0}


def write_patient(folder: Path, patient: Patient, how: PatientWriting | None = None) -> None:
    """Writes a patient as a DICOM tree: a study per exam; of DWI, in and out of phase, and T2 one series each.

    Images of channels with other names are not written.
    """
    how = how or PatientWriting()
    for number, exam in enumerate(patient.exams, 1):
        study = folder / f"ST{number:06d}"
        for index, (tags, stacks) in enumerate(_series_of(exam, how), 1):
            about = series_tags(patient.patient_id, f"{exam.date:%Y%m%d}", index, **tags)
            about["SeriesNumber"] = 100 * index + 1
            if how.comments is not None:
                about["ImageComments"] = how.comments
            if how.is_enhanced:
                write_enhanced(study / f"SE{index:06d}" / "IM000001", stacks, about, how.writing)
            else:
                write_stacks(study / f"SE{index:06d}", stacks, about, how.writing)
        if how.has_clutter:
            write_clutter(study, patient.patient_id, f"{exam.date:%Y%m%d}")


def _series_of(exam: Exam, how: PatientWriting) -> list[tuple[dict[str, Any], list[Stack]]]:
    """Tags and volumes of each series."""
    images = exam.images
    series: list[tuple[dict[str, Any], list[Stack]]] = []
    trace = [
        replace(_stack(images[n]), b_value=_b_value(n), image_type=_TRACE) for n in images if _b_value(n) is not None
    ]
    trace.sort(key=lambda stack: stack.b_value or 0.0)
    diffusion = {"ScanningSequence": "EP", "EchoTime": "62"}
    if trace:
        series.append(({"description": "ep2d_diff_tra_p2", **diffusion}, trace))
    if len(trace) > 1 and how.has_maps:
        series.append(({"description": "ep2d_diff_tra_p2_ADC", **diffusion}, [_adc(trace[0], trace[-1])]))
    for channel, (time, words) in _PHASES.items():
        if channel in images:
            about = {**_T1, "description": f"t1_vibe_fs_tra_bh{f' {words}' if how.phases_in_words else ''}"}
            about["AcquisitionTime"] = time
            if channel != "T1_native":
                about |= {"ContrastBolusAgent": "Gadovist", "ContrastBolusStartTime": _BOLUS}
            series.append((about, [_stack(images[channel])]))
    for channels, about in (
        (("T1_out", "T1_in"), {**_T1, "description": "t1_fl2d_opp-in_tra_bh", "MRAcquisitionType": "2D"}),
        (("T2_short", "T2_long"), {"description": "t2_tse_tra_dual_echo"}),
    ):
        echoes = [replace(_stack(images[c]), echo_time=_ECHOES[c]) for c in channels if c in images]
        if echoes:
            series.append((about, echoes))
    return series


def _stack(image: Image) -> Stack:
    return Stack(image.read(), image.grid.affine)


def _b_value(channel: str) -> float | None:
    return float(channel.removeprefix("DWI_b")) if channel.startswith("DWI_b") else None


def _adc(low: Stack, high: Stack) -> Stack:
    """The apparent diffusion coefficient, 10⁻⁶ mm²/s; none outside of what gives a signal."""
    weight = (high.b_value or 0.0) - (low.b_value or 0.0)
    ratio = np.maximum(low.volume, 1.0) / np.maximum(high.volume, 1.0)
    return Stack(np.clip(np.rint(np.log(ratio) / weight * 1e6), 0, 4000), low.affine, image_type=_ADC)
