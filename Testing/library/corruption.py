"""Good inputs of every form, damaged in 360 ways: what a reader must refuse in a sentence, or read, and never fall over.

The images are tiny; each case is a copy of a good input in a folder of its own. The same seed makes the same damage.
"""

from __future__ import annotations

import os
import random
import shutil
import stat
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import gdcm
import numpy as np
from dicom_files import PatientWriting, Writing, uid_of, write_patient
from helpers import centred_affine, make_exam, write_nifti
from pydicom import DataElement, Dataset, config, dcmread
from pydicom.encaps import generate_frames
from pydicom.sequence import Sequence as DicomSequence
from pydicom.tag import BaseTag, Tag
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from reading_trial import CHANNELS_FILE

from HCCNetLib.records import Patient

COUNT = 360
SHAPE = (16, 16, 3)
CHANNELS = ("DWI_b0", "DWI_b800")
DATES = ("2020-01-05", "2021-03-14")
PATIENT_ID = "Zq81x"  # nothing else reads like it: a message that holds it names the patient

Damage = Callable[[Path, random.Random], None]


@dataclass(frozen=True)
class Case:
    """A way to damage a good input.

    Args:
        name: unique.
        good: the input's name in ``_GOOD``.
        damage: changes the copy of it in the given folder.
    """

    name: str
    good: str
    damage: Damage


def corruptions(folder: Path, seed: int, every: int = 1) -> Iterator[tuple[str, Path]]:
    """Writes ``COUNT`` damaged inputs below ``folder``, one at a time; name and path of each input.

    Args:
        folder: they are written below it.
        seed: of the damage.
        every: only every so manyth of them is written.
    """
    good = folder / "good"
    for name, (write, _) in _GOOD.items():
        write(good / name)
    for number, case in list(enumerate(_cases(seed)))[::every]:
        copy = folder / f"{number:03d}"
        shutil.copytree(good / case.good, copy)
        case.damage(copy, random.Random(f"{seed} {case.name}"))
        yield case.name, copy / _GOOD[case.good][1]


def good_inputs(folder: Path) -> Iterator[tuple[str, Path]]:
    """The same inputs before any damage."""
    for name, (write, within) in _GOOD.items():
        write(folder / name)
        yield name, folder / name / within


def restore_permissions(folder: Path) -> None:
    """Lets whoever made the cases delete them."""
    for path in folder.rglob("*"):
        if not path.is_symlink() and path.is_dir():
            path.chmod(0o755)


# ---------------------------------------------------------------- good inputs


def _patient() -> Patient:
    affine = centred_affine(SHAPE, (20.0, 18.0, 19.0), np.diag([-1.0, -1.0, 1.0]))
    return Patient(PATIENT_ID, tuple(make_exam(date, SHAPE, affine, CHANNELS) for date in DATES))


def _write_dicom(folder: Path, how: PatientWriting) -> None:
    write_patient(folder, _patient(), how)


def _write_explicit(folder: Path) -> None:
    _write_dicom(folder, PatientWriting(Writing(ExplicitVRLittleEndian), has_clutter=False, has_maps=False))


def _write_implicit(folder: Path) -> None:
    _write_dicom(folder, PatientWriting(Writing(ImplicitVRLittleEndian), has_clutter=False, has_maps=False))


def _write_compressed(folder: Path, syntax: int) -> None:
    """As the explicit form; ``syntax`` is a number of GDCM's."""
    _write_explicit(folder)
    for path in _files(folder):
        reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
        reader.SetFileName(str(path))
        assert reader.Read()
        change.SetTransferSyntax(gdcm.TransferSyntax(syntax))
        change.SetInput(reader.GetImage())
        assert change.Change()
        writer.SetFile(reader.GetFile())
        writer.SetImage(change.GetOutput())
        writer.SetFileName(str(path))
        assert writer.Write()


def _write_enhanced(folder: Path) -> None:
    _write_dicom(folder, PatientWriting(is_enhanced=True, has_clutter=False, has_maps=False))


def _write_images(folder: Path, place: str) -> None:
    for exam in _patient().exams:
        for channel, image in exam.images.items():
            path = place.format(date=exam.date, compact=f"{exam.date:%Y%m%d}", channel=channel)
            write_nifti(folder / path, image.read(), image.grid.affine)


def _write_nifti(folder: Path) -> None:
    _write_images(folder, "{date}/{channel}.nii.gz")


def _write_plain_nifti(folder: Path) -> None:
    _write_images(folder, "{date}/{channel}.nii")


def _write_nrrd(folder: Path) -> None:
    for exam in _patient().exams:
        for channel, image in exam.images.items():
            affine = np.diag([-1.0, -1, 1, 1]) @ image.grid.affine
            vectors = " ".join("({:g},{:g},{:g})".format(*affine[:3, axis]) for axis in range(3))
            lines = [
                *("NRRD0004", "type: float", "dimension: 3", "space: left-posterior-superior"),
                *(f"sizes: {' '.join(map(str, SHAPE))}", f"space directions: {vectors}", "endian: little"),
                *("encoding: raw", "space origin: ({:g},{:g},{:g})".format(*affine[:3, 3]), "", ""),
            ]
            path = folder / exam.date.isoformat() / f"{channel}.nrrd"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes("\n".join(lines).encode() + image.read().astype("<f4").tobytes(order="F"))


def _write_table(folder: Path) -> None:
    _write_images(folder, "images/{date}_{channel}.nii.gz")
    rows = [
        f"{PATIENT_ID},e{n},{d}," + ",".join(f"images/{d}_{c}.nii.gz" for c in CHANNELS) for n, d in enumerate(DATES)
    ]
    header = ",".join(("patient_id", "exam_id", "exam_date", *CHANNELS))
    (folder / "cohort.csv").write_text("\n".join([header, *rows]) + "\n")
    outcomes = f"patient_id,diagnosis_date,last_seen_date\n{PATIENT_ID},2022-01-01,2023-01-01\n"
    (folder / "outcomes.csv").write_text(outcomes)


_SCAN = "a scan of the upper abdomen in free breathing "


def _write_channels(folder: Path) -> None:
    """Images with names of nobody's making, and the table that says which channel each is."""
    _write_images(folder, f"patient/{{date}}/{_SCAN}{{channel}}.nii.gz")
    rows = [f"patient,{d},{_SCAN}{c},{c}" for d in DATES for c in CHANNELS]
    (folder / CHANNELS_FILE).write_text("\n".join(["patient_id,exam,image,channel", *rows]) + "\n")


def _write_bids(folder: Path) -> None:
    subject = f"sub-{PATIENT_ID}"
    _write_images(folder, f"{subject}/ses-{{compact}}/anat/{subject}_ses-{{compact}}_{{channel}}.nii.gz")
    sessions = [f"ses-{date.replace('-', '')}\t{date}T09:00:00" for date in DATES]
    (folder / subject / f"{subject}_sessions.tsv").write_text("\n".join(["session_id\tacq_time", *sessions]) + "\n")
    people = f"participant_id\tdiagnosis_date\tlast_seen_date\n{subject}\t2022-01-01\t2023-01-01\n"
    (folder / "participants.tsv").write_text(people)
    (folder / "dataset_description.json").write_text('{"Name": "made for a test", "BIDSVersion": "1.8.0"}\n')


_COMPRESSED: dict[str, int] = {
    "RLE": gdcm.TransferSyntax.RLELossless,
    "JPEG lossless": gdcm.TransferSyntax.JPEGLosslessProcess14_1,
    "JPEG-LS": gdcm.TransferSyntax.JPEGLSLossless,
    "JPEG 2000": gdcm.TransferSyntax.JPEG2000Lossless,
}
# Name → how it is written, and what of it is the input.
_GOOD: dict[str, tuple[Callable[[Path], None], str]] = {
    "explicit": (_write_explicit, ""),
    "implicit": (_write_implicit, ""),
    "enhanced": (_write_enhanced, ""),
    **{name: (partial(_write_compressed, syntax=syntax), "") for name, syntax in _COMPRESSED.items()},
    "nifti": (_write_nifti, ""),
    "plain nifti": (_write_plain_nifti, ""),
    "nrrd": (_write_nrrd, ""),
    "table": (_write_table, "cohort.csv"),
    "channels": (_write_channels, "patient"),
    "bids": (_write_bids, ""),
}
_TABLES = {
    "table": ("cohort.csv", "outcomes.csv"),
    "channels": (CHANNELS_FILE,),
    "bids": ("participants.tsv", f"sub-{PATIENT_ID}/sub-{PATIENT_ID}_sessions.tsv"),
}


# ---------------------------------------------------------------- the cases


def _cases(seed: int) -> list[Case]:
    """Every way that has a name, filled up to ``COUNT`` with damage at random places."""
    named = [*_missing_elements(), *_nonsense_values(), *_wrong_lengths(), *_deep()]
    named += [*_code_streams(), *_tables(), *_file_system()]
    assert len({case.name for case in named}) == len(named)
    assert len(named) <= COUNT - len(_RANDOM) * len(_GOOD)  # every form is damaged in every random way
    rng = random.Random(seed)
    ways = list(_RANDOM.items())
    inputs = list(_GOOD)
    for number in range(COUNT - len(named)):
        way, damage = ways[number // len(inputs) % len(ways)]
        good = inputs[number % len(inputs)]
        named.append(Case(f"{good}: {way} ({number}, {rng.randrange(1000)})", good, damage))
    return named


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _any_file(folder: Path, rng: random.Random) -> Path:
    return rng.choice(_files(folder))


def _truncate(folder: Path, rng: random.Random) -> None:
    path = _any_file(folder, rng)
    content = path.read_bytes()
    path.write_bytes(content[: rng.randrange(1, len(content))])


def _truncate_head(folder: Path, rng: random.Random) -> None:
    """Ends within the header, of every file."""
    for path in _files(folder):
        path.write_bytes(path.read_bytes()[: rng.randrange(100, 700)])


def _empty(folder: Path, rng: random.Random) -> None:
    _any_file(folder, rng).write_bytes(b"")


def _swap(folder: Path, rng: random.Random) -> None:
    """Pairs of bytes change places from somewhere on, as if of the other byte order."""
    path = _any_file(folder, rng)
    content = bytearray(path.read_bytes())
    start = rng.randrange(0, len(content) // 2) * 2
    end = start + (len(content) - start) // 2 * 2
    content[start:end:2], content[start + 1 : end : 2] = content[start + 1 : end : 2], content[start:end:2]
    path.write_bytes(content)


def _overwrite(folder: Path, rng: random.Random) -> None:
    """Bytes near the beginning, where headers lie, of every file."""
    for path in _files(folder):
        content = bytearray(path.read_bytes())
        for _ in range(12):
            content[rng.randrange(min(len(content), 1500))] = rng.randrange(256)
        path.write_bytes(content)


def _insert(folder: Path, rng: random.Random) -> None:
    path = _any_file(folder, rng)
    content = path.read_bytes()
    at = rng.randrange(len(content))
    path.write_bytes(content[:at] + rng.randbytes(rng.randrange(1, 40)) + content[at:])


def _repeat(folder: Path, rng: random.Random) -> None:
    path = _any_file(folder, rng)
    content = path.read_bytes()
    path.write_bytes(content[: rng.randrange(len(content))] + content)


_RANDOM: dict[str, Damage] = {
    "cut off": _truncate,
    "headers cut off": _truncate_head,
    "empty": _empty,
    "bytes swapped": _swap,
    "bytes overwritten": _overwrite,
    "bytes inserted": _insert,
    "written twice": _repeat,
}


# ---------------------------------------------------------------- elements of DICOM

_REQUIRED = (
    *("SOPClassUID", "SOPInstanceUID", "StudyDate", "Modality", "PatientID", "StudyInstanceUID", "SeriesInstanceUID"),
    *("InstanceNumber", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "Rows", "Columns"),
    *(
        "BitsAllocated",
        "BitsStored",
        "PixelRepresentation",
        "SamplesPerPixel",
        "PhotometricInterpretation",
        "PixelData",
    ),
)
_OF_ONE_FILE = (
    "PatientID",
    "StudyDate",
    "SeriesInstanceUID",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelData",
)
_OF_FRAMES = (
    *("PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence", "NumberOfFrames", "PlanePositionSequence"),
    *(
        "PlaneOrientationSequence",
        "PixelMeasuresSequence",
        "FrameContentSequence",
        "MRDiffusionSequence",
        "Rows",
        "PixelData",
    ),
    *("MRImageFrameTypeSequence", "PixelValueTransformationSequence", "ImagePositionPatient", "PixelSpacing"),
)

_HUGE, _TINY = "9" * 15, "1e-300"
# Keyword → values, as text for DS and IS, that no scanner writes.
_NONSENSE: dict[str, tuple[Any, ...]] = {
    "ImagePositionPatient": ("nan\\nan\\nan", "inf\\0\\0", "1\\2", "", "a\\b\\c", f"{_HUGE}\\0\\0", "0\\0\\0"),
    "ImageOrientationPatient": (
        "0\\0\\0\\0\\0\\0",
        "1\\0\\0\\1\\0\\0",
        "nan\\0\\0\\0\\1\\0",
        "1\\0\\0",
        "",
        "2\\0\\0\\0\\2\\0",
    ),
    "PixelSpacing": ("0\\0", "-1\\-1", "abc", "1", "", "nan\\nan", f"{_TINY}\\{_TINY}", f"{_HUGE}\\{_HUGE}"),
    "RescaleSlope": ("abc", "nan", "0", "inf", f"{_HUGE}e99"),
    "InstanceNumber": ("abc", "1.5", "99999999999999"),
    "StudyDate": ("abc", "20201345", "", "2020-01-05", "00000000", "99991231"),
    "SeriesInstanceUID": ("", "abc", "1" * 300, "../../etc/passwd", "a\0b"),
    "PatientID": ("", "../../etc/passwd", "a\0b", "/", "x" * 5000),
    "ImageType": ("", "\\\\\\", "ADC"),
    "AcquisitionTime": ("abc", "256199"),
    "EchoTime": ("abc", "-1", "nan"),
}
_NONSENSE_NUMBERS: dict[str, tuple[int, ...]] = {
    "Rows": (0, 65535, 17),
    "Columns": (0, 65535),
    "BitsAllocated": (0, 1, 7, 64, 65535),
    "BitsStored": (0, 65535),
    "PixelRepresentation": (7,),
    "SamplesPerPixel": (0, 3, 65535),
}


def _missing_elements() -> Iterator[Case]:
    for keyword in _REQUIRED:
        yield Case(f"every file lacks {keyword}", "explicit", _without(keyword, everywhere=True))
    for keyword in _OF_ONE_FILE:
        yield Case(f"one file lacks {keyword}", "implicit", _without(keyword, everywhere=False))
    for keyword in _OF_FRAMES:
        yield Case(f"enhanced objects lack {keyword}", "enhanced", _without(keyword, everywhere=True))


def _without(keyword: str, everywhere: bool) -> Damage:
    tag = Tag(keyword)
    return _edit(lambda dataset: _delete(dataset, tag), everywhere)


def _delete(dataset: Dataset, tag: BaseTag) -> None:
    """Deletes an element here and in all sequences."""
    if tag in dataset:
        del dataset[tag]
    for element in dataset:
        if element.VR == "SQ":
            for item in element.value:
                _delete(item, tag)


def _edit(change: Callable[[Dataset], None], everywhere: bool = True) -> Damage:
    """Changes one file or all, and writes them as they then are, however wrong."""

    def damage(folder: Path, rng: random.Random) -> None:
        for path in _files(folder) if everywhere else [_any_file(folder, rng)]:
            with config.disable_value_validation():
                dataset = dcmread(path)
                change(dataset)
                dataset.save_as(path, enforce_file_format=False)

    return damage


def _nonsense_values() -> Iterator[Case]:
    for keyword, values in _NONSENSE.items():
        for number, value in enumerate(values):
            # Without types in the file (implicit VR) any text can stand as a number.
            yield Case(f"{keyword} is {value[:20]!r} ({number})", "implicit", _edit(_putting(keyword, "LT", value)))
    for keyword, numbers in _NONSENSE_NUMBERS.items():
        for value in numbers:
            yield Case(f"{keyword} is {value}", "explicit", _edit(_putting(keyword, "US", value)))
    for frames in ("-1", "0", "2147483648", "99999999999", "abc", ""):
        yield Case(f"NumberOfFrames is {frames!r}", "enhanced", _edit(_putting("NumberOfFrames", "LT", frames)))
    for rows in (0, 65535):
        yield Case(f"Rows of an enhanced object are {rows}", "enhanced", _edit(_putting("Rows", "US", rows)))
    yield Case("all dimensions are the largest", "enhanced", _edit(_largest))
    yield Case("all slices lie at one place", "explicit", _edit(_putting("ImagePositionPatient", "DS", [1, 2, 3])))
    yield Case("all files are one instance", "explicit", _edit(_putting("SOPInstanceUID", "UI", uid_of("the same"))))
    yield Case("all files are one series", "explicit", _edit(_putting("SeriesInstanceUID", "UI", uid_of("the same"))))


def _putting(keyword: str, vr: str, value: Any) -> Callable[[Dataset], None]:
    def change(dataset: Dataset) -> None:
        dataset[keyword] = DataElement(Tag(keyword), vr, value)

    return change


def _largest(dataset: Dataset) -> None:
    dataset.Rows = dataset.Columns = 65535
    dataset["NumberOfFrames"] = DataElement(Tag("NumberOfFrames"), "IS", 2**31 - 1)


def _wrong_lengths() -> Iterator[Case]:
    for length in (0xFFFFFFFF, 0xFFFFFFFE, 0x7FFFFFFF, 1):
        yield Case(f"length of PixelData is {length:#x}", "explicit", _relength("PixelData", length, 4, 8))
    for length in (0xFFFF, 3):
        yield Case(
            f"length of ImagePositionPatient is {length:#x}",
            "explicit",
            _relength("ImagePositionPatient", length, 2, 6),
        )
    for length in (0xFFFFFFFF, 0x7FFFFFFE, 5):
        yield Case(
            f"length of SeriesInstanceUID is {length:#x}", "implicit", _relength("SeriesInstanceUID", length, 4, 4)
        )
        groups = "PerFrameFunctionalGroupsSequence"
        yield Case(f"length of the frames' groups is {length:#x}", "enhanced", _relength(groups, length, 4, 8))


def _relength(keyword: str, length: int, size: int, offset: int) -> Damage:
    """Writes another length of ``size`` bytes where it stands after the element's tag."""

    def damage(folder: Path, _: random.Random) -> None:
        tag = Tag(keyword)
        for path in _files(folder):
            content = bytearray(path.read_bytes())
            at = content.rindex(struct.pack("<HH", tag.group, tag.element)) + offset
            content[at : at + size] = struct.pack("<I" if size == 4 else "<H", length)
            path.write_bytes(content)

    return damage


_DEPTH = 5000


def _deep() -> Iterator[Case]:
    for good in ("explicit", "implicit"):
        yield Case(f"sequences {_DEPTH} deep without end, {good}", good, _nested(is_closed=False))
        yield Case(f"sequences {_DEPTH} deep with their ends, {good}", good, _nested(is_closed=True))
    yield Case("a thousand sequences that look alike", "explicit", _edit(_alike))


def _nested(is_closed: bool) -> Damage:
    """(0008,1140) within itself, before all that follows in the file; of undefined lengths."""

    def damage(folder: Path, _: random.Random) -> None:
        for path in _files(folder):
            content = path.read_bytes()
            syntax = dcmread(path, stop_before_pixels=True).file_meta.TransferSyntaxUID
            vr = b"" if syntax.is_implicit_VR else b"SQ\0\0"
            start = (
                struct.pack("<HH", 0x0008, 0x1140) + vr + b"\xff" * 4 + struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
            )
            end = struct.pack("<HHIHHI", 0xFFFE, 0xE00D, 0, 0xFFFE, 0xE0DD, 0) if is_closed else b""
            at = content.index(struct.pack("<HH", 0x0010, 0x0010))
            path.write_bytes(content[:at] + start * _DEPTH + end * _DEPTH + content[at:])

    return damage


def _alike(dataset: Dataset) -> None:
    item = Dataset()
    item.ReferencedSOPInstanceUID = uid_of("the same")
    dataset.ReferencedImageSequence = DicomSequence([item] * 1000)


# ---------------------------------------------------------------- code streams of compressed pixels


def _code_streams() -> Iterator[Case]:
    for good in _COMPRESSED:
        for way, change in _STREAM_DAMAGE.items():
            yield Case(f"{good}: {way}", good, _restreamed(change))
    for good, ways in _LARGER.items():
        for size in (0, 17, 4096, 65535):
            yield Case(f"{good}: the code stream says {size}", good, _restreamed(partial(_resized, ways, size=size)))
    for count in (0, 1, 3, 2**31 - 1, 2**32 - 1):
        yield Case(f"RLE: the code stream says {count} segments", "RLE", _restreamed(partial(_segmented, count)))


def _restreamed(change: Callable[[bytearray, random.Random], bytes]) -> Damage:
    """Changes every file's code stream; all around it fits."""

    def damage(folder: Path, rng: random.Random) -> None:
        item = struct.Struct("<HHL")
        for path in _files(folder):
            content = path.read_bytes()
            at = content.rindex(b"\xe0\x7f\x10\x00OB\0\0\xff\xff\xff\xff") + 12  # behind the head of the pixels
            (stream,) = generate_frames(content[at:], number_of_frames=1)
            damaged = change(bytearray(stream), rng)
            damaged += bytes(len(damaged) % 2)
            no_offsets, of_frame, end = (
                item.pack(0xFFFE, *rest) for rest in ((0xE000, 0), (0xE000, len(damaged)), (0xE0DD, 0))
            )
            path.write_bytes(content[:at] + no_offsets + of_frame + damaged + end)

    return damage


def _overwritten(stream: bytearray, rng: random.Random, within: int) -> bytes:
    for _ in range(6):
        stream[rng.randrange(min(within, len(stream)))] = rng.randrange(256)
    return bytes(stream)


_STREAM_DAMAGE: dict[str, Callable[[bytearray, random.Random], bytes]] = {
    "a code stream of nothing": lambda _, rng: b"",
    "a code stream of noise": lambda stream, rng: rng.randbytes(len(stream)),
    "a code stream of zeros": lambda stream, _: bytes(len(stream)),
    "the code stream ends in its header": lambda stream, rng: bytes(stream[: rng.randrange(2, 40)]),
    "the code stream ends early": lambda stream, rng: bytes(stream[: rng.randrange(len(stream) // 2, len(stream) - 8)]),
    "the code stream's header is overwritten": partial(_overwritten, within=64),
    "the code stream's header is overwritten again": partial(_overwritten, within=100),
    "the code stream is overwritten": partial(_overwritten, within=100_000),
    "the code stream is overwritten again": partial(_overwritten, within=100_000),
    "the code stream lacks its begin": lambda stream, _: bytes(stream[20:]),
    "the code stream is there twice": lambda stream, _: bytes(stream + stream),
}
# The marker before which sizes stand, how far behind it, and how they are written.
_LARGER: dict[str, tuple[bytes, int, str]] = {
    "JPEG lossless": (b"\xff\xc3", 5, ">HH"),
    "JPEG-LS": (b"\xff\xf7", 5, ">HH"),
    "JPEG 2000": (b"\xff\x51", 6, ">LL"),
}


def _resized(ways: tuple[bytes, int, str], stream: bytearray, _: random.Random, size: int) -> bytes:
    marker, offset, form = ways
    struct.pack_into(form, stream, stream.index(marker) + offset, size, size)
    return bytes(stream)


def _segmented(count: int, stream: bytearray, _: random.Random) -> bytes:
    struct.pack_into("<L", stream, 0, count)
    return bytes(stream)


# ---------------------------------------------------------------- tables

_PATHS = (
    *(
        "../../../../../../etc/passwd",
        "/etc/passwd",
        "../../../../../../etc/passwd.nii.gz",
        "/dev/zero",
        "/dev/zero.nii.gz",
    ),
    *("a\0b.nii.gz", "images", ".", "~/x.nii.gz", "x" * 5000 + ".nii.gz", "file:///etc/passwd.nii", "\udcff.nii.gz"),
)


def _tables() -> Iterator[Case]:
    for number, path in enumerate(_PATHS):
        yield Case(
            f"a table's path is {path[:30]!r} ({number})",
            "table",
            _replaced("cohort.csv", f"images/{DATES[0]}_DWI_b0.nii.gz", path),
        )
    wildcards = "*?" * 12 + "*x"
    yield Case("channels.csv: has a cell of wildcards", "channels", _replaced(CHANNELS_FILE, _SCAN, wildcards))
    for good, names in _TABLES.items():
        for name in names:
            for way, change in _TABLE_DAMAGE.items():
                yield Case(f"{Path(name).name}: {way}", good, _rewritten(name, change))


def _replaced(table: str, old: str, new: str) -> Damage:
    return _rewritten(table, lambda content: content.replace(old.encode(), new.encode("utf-8", "surrogateescape")))


def _rewritten(table: str, change: Callable[[bytes], bytes]) -> Damage:
    def damage(folder: Path, _: random.Random) -> None:
        (folder / table).write_bytes(change((folder / table).read_bytes()))

    return damage


_TABLE_DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "has a NUL in every row": lambda content: content.replace(b"\n", b"\0\n"),
    "is UTF-16": lambda content: content.decode().encode("utf-16"),
    "has a quotation mark without its partner": lambda content: content.replace(b"\n", b'\n"', 1),
    "has a cell of a megabyte": lambda content: content.replace(b"\n", b"\n" + b"x" * 1_000_000, 1),
}


# ---------------------------------------------------------------- what a file system can hold


def _file_system() -> Iterator[Case]:
    for good in ("explicit", "nifti"):
        yield Case(f"{good}: a link to the folder above", good, _loop)
        yield Case(f"{good}: links to each other", good, _links_to_each_other)
        yield Case(f"{good}: a file is a pipe that nobody writes to", good, _pipe)
        yield Case(f"{good}: a file is a link to an endless device", good, _endless)
        yield Case(f"{good}: a file may not be read", good, _forbidden_file)
        yield Case(f"{good}: a folder may not be opened", good, _forbidden_folder)
        yield Case(f"{good}: a file is a folder", good, _folder_for_file)
        yield Case(f"{good}: a name is no text", good, _unreadable_name)


def _loop(folder: Path, _: random.Random) -> None:
    for inside in [path for path in folder.rglob("*") if path.is_dir()]:
        (inside / "again").symlink_to(folder, target_is_directory=True)


def _links_to_each_other(folder: Path, rng: random.Random) -> None:
    path = _any_file(folder, rng)
    path.unlink()
    other = path.with_name(f"other-{path.name}")
    path.symlink_to(other)
    other.symlink_to(path)


def _pipe(folder: Path, rng: random.Random) -> None:
    path = _any_file(folder, rng)
    path.unlink()
    os.mkfifo(path)


def _endless(folder: Path, rng: random.Random) -> None:
    path = _any_file(folder, rng)
    path.unlink()
    path.symlink_to("/dev/zero")


def _forbidden_file(folder: Path, rng: random.Random) -> None:
    _any_file(folder, rng).chmod(0)


def _forbidden_folder(folder: Path, rng: random.Random) -> None:
    _any_file(folder, rng).parent.chmod(stat.S_IWUSR)


def _folder_for_file(folder: Path, rng: random.Random) -> None:
    path = _any_file(folder, rng)
    path.unlink()
    path.mkdir()


def _unreadable_name(folder: Path, rng: random.Random) -> None:
    path = _any_file(folder, rng)
    path.rename(path.with_name(os.fsdecode(b"\xff\xfe") + path.name))
