"""Which files of a folder are DICOM, and their headers, without a word of theirs getting into a log."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import stat
import struct
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from HCCNetLib.records import Refusal

if TYPE_CHECKING:
    from pydicom.dataset import FileDataset

_PREAMBLE, _MARK = 128, b"DICM"
# A file without preamble begins with an element of group 0002 or 0008; the second byte of the group is 0 in either order.
_FIRST_GROUPS = (b"\x08\x00", b"\x02\x00", b"\x00\x08", b"\x00\x02")
_PLACES_OF_A_LENGTH = 12
_DEEPEST = 200  # folders in folders; a path of more is a loop that no inode tells of
OTHER_IMAGES = (".nii", ".nii.gz", ".nrrd", ".nhdr")
_NOT_DICOM = (
    *OTHER_IMAGES,
    *(".json", ".csv", ".tsv", ".txt", ".xml", ".html", ".pdf", ".png", ".jpg"),
)


def walk(folder: Path) -> Iterator[Path]:
    """Every regular file below a folder, in the order of names; links are followed, each folder is entered once.

    Raises:
        Refusal: the folder itself can't be opened.
    """
    seen: set[tuple[int, int]] = set()
    try:
        first = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        raise Refusal("no_permission", "The folder can't be opened: no permission to read it.") from error
    stack: list[list[os.DirEntry[str]]] = [first[::-1]]
    with contextlib.suppress(OSError):
        seen.add(_identity(folder.stat()))
    while stack:
        if not stack[-1]:
            stack.pop()
            continue
        entry = stack[-1].pop()
        if entry.name.startswith("."):
            continue
        try:
            found = entry.stat()
            if stat.S_ISREG(found.st_mode):
                yield Path(entry.path)
            elif stat.S_ISDIR(found.st_mode) and _identity(found) not in seen and len(stack) < _DEEPEST:
                seen.add(_identity(found))
                stack.append(sorted(os.scandir(entry.path), key=lambda e: e.name, reverse=True))
        except OSError:  # a link to nowhere, or a folder without permission: there is nothing to be read in it
            continue


def _identity(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino


def is_dicom(path: Path) -> bool:
    """Whether a file looks like DICOM: by its mark, or, without one, by how its first element begins."""
    try:
        with path.open("rb") as file:
            start = file.read(_PREAMBLE + len(_MARK))
    except OSError:
        return False
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
    for path in walk(folder):
        if path.name.lower().endswith(OTHER_IMAGES):
            return False
        found = found or is_dicom(path)
    return found


def holds_dicom(folder: Path) -> bool:
    """Whether any file below a folder is DICOM."""
    return any(map(is_dicom, walk(folder)))


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
            "These are DICOM files, and the package pydicom is not installed. Install it: pip install 'hccnet[dicom]'."
        )
        raise Refusal("missing_package", message) from error
    if int(pydicom.__version__.split(".")[0]) < 3:
        message = (
            f"Reading DICOM needs pydicom 3; {pydicom.__version__} is installed. Update it: pip install 'pydicom>=3'."
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


def read_header(path: Path, tags: list[Any]) -> Header | None:
    """The header of a file, only ``tags`` of it; None where it can't be read. To be called within ``quietly``."""
    from pydicom import dcmread

    try:
        return Header(path, dcmread(path, stop_before_pixels=True, specific_tags=tags, force=True))
    except signs_of_damage():
        return None
