"""Which files of a folder are DICOM, and their headers, without a word of theirs getting into a log."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import struct
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from HCCNetLib.readers.images import SUFFIXES
from HCCNetLib.records import Refusal

if TYPE_CHECKING:
    from pydicom.dataset import FileDataset

_PREAMBLE, _MARK = 128, b"DICM"
# A file without preamble begins with an element of group 0002 or 0008; the second byte of the group is 0 in either order.
_FIRST_GROUPS = (b"\x08\x00", b"\x02\x00", b"\x00\x08", b"\x00\x02")
_PLACES_OF_A_LENGTH = 12
_ENOUGH_FILES = 20_000  # of which none is DICOM: a disk rather than a patient
_DEEPEST = 200  # folders in folders; a path of more is a loop that no inode tells of
_DEFLATED, _START = b"1.2.840.10008.1.2.1.99", 4096
_CHUNK, _MOST_UNFOLDED = 1024**2, 512 * 1024**2  # bytes
_NOT_DICOM = (
    *SUFFIXES,
    *(".json", ".csv", ".tsv", ".txt", ".xml", ".html", ".pdf", ".png", ".jpg"),
)


def walk(folder: Path, strict: bool = True) -> Iterator[Path]:
    """Every regular file below a folder, in the order of names, and links that lead nowhere.

    Links are followed; each folder is entered once.

    Args:
        folder: where to begin.
        strict: whether a folder that can't be opened is refused; else it is passed over, for whoever only looks.

    Raises:
        Refusal: a folder can't be opened: an exam may be in it.
    """
    seen: set[tuple[int, int]] = set()
    stack = [_entries(folder, seen, strict)]
    while stack:
        if not stack[-1]:
            stack.pop()
            continue
        entry = stack[-1].pop()
        if entry.name.startswith("."):
            continue
        try:
            is_file, is_folder = entry.is_file(), entry.is_dir()
        except OSError:
            is_file = is_folder = False
        if is_file or (entry.is_symlink() and not Path(entry.path).exists()):  # whoever opens the latter finds out
            yield Path(entry.path)
        elif is_folder and len(stack) < _DEEPEST:
            stack.append(_entries(Path(entry.path), seen, strict))


def _entries(folder: Path, seen: set[tuple[int, int]], strict: bool) -> list[os.DirEntry[str]]:
    """What a folder holds, the last name first; nothing of one that was seen before."""
    try:
        found = folder.stat()
        if (found.st_dev, found.st_ino) in seen:
            return []
        seen.add((found.st_dev, found.st_ino))
        return sorted(os.scandir(folder), key=lambda entry: entry.name, reverse=True)
    except OSError as error:
        if not strict:
            return []
        message = (
            "A folder of the input can't be opened: an exam may be in it. Give yourself the permission to read it."
        )
        raise Refusal("no_permission", message) from error


def is_dicom(path: Path) -> bool:
    """Whether a file looks like DICOM; one that can't be opened does not."""
    try:
        return path.is_file() and begins_like_dicom(path)  # a pipe would be waited for
    except OSError:
        return False


def begins_like_dicom(path: Path) -> bool:
    """Whether a file has DICOM's mark, or, without one, begins as an element does; raises OSError."""
    with path.open("rb", buffering=0) as file:
        start = file.read(_PREAMBLE + len(_MARK))
    if start[_PREAMBLE:] == _MARK:
        return True
    return start[:2] in _FIRST_GROUPS and _begins_with_element(start) and not path.name.lower().endswith(_NOT_DICOM)


def _begins_with_element(start: bytes) -> bool:
    """Whether the first element has a representation in letters, or a length that is no more than a group's begin."""
    if len(start) < _PLACES_OF_A_LENGTH:
        return False
    order: Literal["little", "big"] = "little" if start[1] == 0 else "big"
    element = int.from_bytes(start[2:4], order)
    explicit = start[4:6] in (b"UL", b"UI", b"CS", b"SH", b"LO", b"OB", b"DA", b"TM")
    return element <= 0x1070 and (explicit or int.from_bytes(start[4:8], order) <= 256)


def is_dicom_folder(folder: Path) -> bool:
    """Whether a folder's images are DICOM: one of its files is, and none of them is an image of another format.

    Dated folders of NIfTI images with DICOM files beside them stay what they are.
    """
    found = False
    for number, path in enumerate(walk(folder, strict=False)):
        if path.name.lower().endswith(SUFFIXES) or (number >= _ENOUGH_FILES and not found):
            return False
        found = found or is_dicom(path)
    return found


def holds_dicom(folder: Path) -> bool:
    """Whether any file below a folder is DICOM."""
    return any(map(is_dicom, walk(folder, strict=False)))


@functools.cache
def signs_of_damage() -> tuple[type[Exception], ...]:
    """What pydicom and the decoders below it raise when they read a damaged file: nearly anything."""
    from pydicom.errors import BytesLengthException, InvalidDicomError

    return (
        *(BytesLengthException, InvalidDicomError, struct.error, zlib.error, OSError, EOFError, ValueError, TypeError),
        *(LookupError, AttributeError, NotImplementedError, OverflowError, MemoryError, RuntimeError, ArithmeticError),
        AssertionError,
    )


def require_pydicom() -> None:
    """Raises Refusal where pydicom, or one that is new enough, is not installed."""
    try:
        import pydicom
    except ImportError as error:
        message = (
            'These are DICOM files, and the package pydicom is not installed. Install it: pip install "pydicom>=3".'
        )
        raise Refusal("missing_package", message) from error
    if int(pydicom.__version__.split(".")[0]) < 3:
        message = (
            f'Reading DICOM needs pydicom 3; {pydicom.__version__} is installed. Update it: pip install "pydicom>=3".'
        )
        raise Refusal("missing_package", message)


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Keeps pydicom from warning and logging: what it quotes are a patient's values."""
    from pydicom import config

    settings, before = config.settings, config.settings.reading_validation_mode
    logger = logging.getLogger("pydicom")
    disabled = logger.disabled
    settings.reading_validation_mode = config.IGNORE
    logger.disabled = True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        settings.reading_validation_mode = before
        logger.disabled = disabled


@dataclass(frozen=True)
class Header:
    """A file's header: ``tags`` as pydicom gives them, without pixels."""

    path: Path
    tags: FileDataset


def refuse_unfolding(path: Path) -> None:
    """Raises ValueError where a deflated file is far larger unfolded: pydicom unfolds all of it to read one element."""
    with path.open("rb") as file:
        if _DEFLATED not in file.read(_START):
            return
        file.seek(_PREAMBLE + len(_MARK))
        group = file.read(_PLACES_OF_A_LENGTH)  # the length of what stands before the deflated part
        file.seek(int.from_bytes(group[8:], "little"), os.SEEK_CUR)
        unfold, size, rest = zlib.decompressobj(-zlib.MAX_WBITS), 0, b""
        while not unfold.eof and (content := rest or file.read(_CHUNK)):
            size += len(unfold.decompress(content, _CHUNK))
            rest = unfold.unconsumed_tail
            if size > _MOST_UNFOLDED:
                raise ValueError("implausible size")


def read_header(path: Path) -> Header | None:
    """The header of a file; None where it can't be read. To be called within ``quietly``."""
    from pydicom import dcmread

    try:
        refuse_unfolding(path)
        return Header(path, dcmread(path, stop_before_pixels=True, force=True))
    except signs_of_damage():
        return None
