"""NRRD images: header checks first, voxels when they are asked for.

pynrrd reads the header's fields; it is an extra of the package and imported with the first image. The data are read
here, because what a header promises is compared with the file before memory is taken for it.
"""

from __future__ import annotations

import bz2
import gzip
import hashlib
import math
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from HCCNetLib.readers.nifti import FileImage, check_affine, refuse_unusable_voxels, unnamed_volumes
from HCCNetLib.records import PHANTOM_MARK, Affine, Grid, Problem, Refusal

SUFFIXES = (".nrrd", ".nhdr")

# Space → the sign of its x and y against RAS+; spaces of the scanner or of nothing say nothing about the patient.
_SPACES = {
    "right-anterior-superior": (1, 1),
    "ras": (1, 1),
    "left-anterior-superior": (-1, 1),
    "las": (-1, 1),
    "left-posterior-superior": (-1, -1),
    "lps": (-1, -1),
}
_TYPES = {
    "i1": ("signed char", "int8", "int8_t"),
    "u1": ("uchar", "unsigned char", "uint8", "uint8_t"),
    "i2": ("short", "short int", "signed short", "signed short int", "int16", "int16_t"),
    "u2": ("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"),
    "i4": ("int", "signed int", "int32", "int32_t"),
    "u4": ("uint", "unsigned int", "uint32", "uint32_t"),
    "i8": ("longlong", "long long", "long long int", "signed long long", "signed long long int", "int64", "int64_t"),
    "u8": ("ulonglong", "unsigned long long", "unsigned long long int", "uint64", "uint64_t"),
    "f4": ("float",),
    "f8": ("double",),
}
_GZIP, _BZIP2 = ("gzip", "gz"), ("bzip2", "bz2")
_TEXT = ("ascii", "text", "txt")
_MILLIMETRES = ("mm", "millimeter", "millimeters", "millimetre", "millimetres")

_LARGEST_HEADER = 2**20  # bytes
_LARGEST_DATA = 2**30  # bytes, as stored and as a volume of single precision
_ROUNDED_TO = 5.0  # s/mm²: gradients are written with few digits, and b-values come from them


@dataclass(frozen=True)
class NrrdHeader:
    """What a header says.

    Args:
        fields: the format's own, as pynrrd reads them.
        notes: key/value pairs, which programs add.
        sizes: of the axes, the fastest first.
        data_offset: bytes before the data, where they follow the header.
    """

    fields: Mapping[str, Any]
    notes: Mapping[str, str]
    sizes: tuple[int, ...]
    data_offset: int

    @property
    def kinds(self) -> tuple[str, ...]:
        """What each axis is, lower case; empty where the header does not say."""
        kinds = tuple(str(kind).lower() for kind in self.fields.get("kinds", ()))
        return kinds if len(kinds) == len(self.sizes) else ("",) * len(self.sizes)

    @cached_property
    def directions(self) -> tuple[NDArray[np.float64] | None, ...]:
        """Per axis the step from voxel to voxel in space, None for an axis that lies in no space."""
        rows = self.fields.get("space directions")
        if rows is None or len(rows) != len(self.sizes):
            return (None,) * len(self.sizes)
        return tuple(None if row is None or np.isnan(row).all() else np.asarray(row, dtype=np.float64) for row in rows)

    @property
    def spatial_axes(self) -> tuple[int, ...]:
        """The axes that lie in space, at most three."""
        axes = [axis for axis, direction in enumerate(self.directions) if direction is not None]
        if not axes:
            axes = [axis for axis, kind in enumerate(self.kinds) if kind in ("domain", "space", "")]
        return tuple(axes[:3])

    @property
    def volume_axes(self) -> tuple[int, ...]:
        """The other axes, as far as they have more than one entry."""
        return tuple(axis for axis, n in enumerate(self.sizes) if axis not in self.spatial_axes and n > 1)

    @property
    def volume_count(self) -> int | None:
        """How many volumes there are along a 4th axis; None of a 3D image."""
        others = len(self.sizes) - len(self.spatial_axes)
        return math.prod(self.sizes[axis] for axis in self.volume_axes) if others else None

    def field(self, *names: str) -> Any:
        """The first of several spellings of a field that is there, or None."""
        return next((self.fields[name] for name in names if name in self.fields), None)


@dataclass(frozen=True)
class NrrdImage(FileImage):
    """An image in an NRRD file; volumes lie along the first or the last axis."""

    @cached_property
    def header(self) -> NrrdHeader:
        """The header; raises Refusal where it can't be read."""
        return open_nrrd(self.path, self.shown)

    @cached_property
    def grid(self) -> Grid:
        """Shape and affine; raises Refusal where the header can't be trusted."""
        shape = _spatial_shape(self.header, self.shown, self.volume is not None)
        affine = _affine(self.header, self.shown)
        check_affine(affine, self.shown)
        _refuse_too_large(self.header, shape, self.shown)
        return Grid(shape, affine)

    @cached_property
    def is_phantom(self) -> bool:
        """Whether the header says that the image was generated; one that can't be read does not."""
        try:
            return self.header.fields.get("content") == PHANTOM_MARK
        except Refusal:
            return False

    def header_problems(self) -> list[Problem]:
        """None: a header that can be used says everything once. Raises Refusal where it can't."""
        _ = self.grid
        return []

    def fingerprint(self) -> str:
        """SHA-256 of the file, of the one that its data lie in, and the volume's number."""
        digest = hashlib.sha256()
        try:
            for path in (self.path, _data_file(self.header, self.path, self.shown)):
                with path.open("rb") as file:
                    digest.update(hashlib.file_digest(file, "sha256").digest())
        except OSError as error:
            raise Refusal("unreadable_file", f"{self.shown} can't be read any more. Check that it is there.") from error
        digest.update(f"volume {self.volume}".encode())
        return digest.hexdigest()

    def read(self) -> NDArray[np.float32]:
        """Voxels (X, Y, Z).

        Raises:
            Refusal: truncated, unreadable, not finite, or beyond what a scanner makes.
        """
        header, grid = self.header, self.grid
        dtype = _dtype(header, self.shown)
        path = _data_file(header, self.path, self.shown)
        try:
            stored = _stored(header, dtype, path).reshape(header.sizes, order="F")
        except FileNotFoundError as error:
            raise _missing_data(self.shown, path) from error
        except (OSError, EOFError, zlib.error, ValueError, OverflowError, MemoryError) as error:
            message = f"{self.source} is damaged or incomplete: its voxels can't be read. Export it again."
            raise Refusal("unreadable_file", message) from error
        where: list[slice | int] = [0] * len(header.sizes)
        for axis in header.spatial_axes:
            where[axis] = slice(None)
        for axis in header.volume_axes:
            where[axis] = self.volume or 0
        data = stored[tuple(where)].astype(np.float32, order="F").reshape(grid.shape)
        refuse_unusable_voxels(data, self.source)
        return data


# ---------------------------------------------------------------- the header


def open_nrrd(path: Path, shown: str) -> NrrdHeader:
    """Reads an NRRD file's header.

    Raises:
        Refusal: not there, no permission, not NRRD, a header that contradicts itself, or pynrrd is not installed.
    """
    lines, data_offset = _header_lines(path, shown)
    # Programs may call a key as a field is called (`space:=…` beside `space: …`), so they are kept apart.
    notes = dict(line.split(":=", 1) for line in lines if _is_note(line))
    nrrd = _pynrrd(shown)
    try:
        fields = nrrd.read_header([line for line in lines if not _is_note(line)])
        header = NrrdHeader(fields, notes, tuple(int(n) for n in fields["sizes"]), data_offset)
        usable = min(header.sizes) > 0 and len(header.sizes) == fields["dimension"] and len(header.directions) > 0
    except (nrrd.reader.NRRDError, ValueError, LookupError, TypeError, OverflowError) as error:
        raise _not_readable(shown) from error
    if not usable:
        raise _not_readable(shown)
    return header


def _pynrrd(shown: str) -> ModuleType:
    try:
        import nrrd
        import nrrd.reader
    except ImportError as error:
        message = f"{shown} is an NRRD image; reading it needs the package pynrrd: pip install pynrrd."
        raise Refusal("missing_package", message) from error
    return nrrd


def _header_lines(path: Path, shown: str) -> tuple[list[str], int]:
    """The header's lines without comments, and how many bytes it takes with the empty line that ends it."""
    try:
        if path.exists() and not path.is_file():
            raise FileNotFoundError(path)
        with path.open("rb") as file:
            start = file.read(_LARGEST_HEADER)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise Refusal("missing_file", f"{shown} does not exist. Check the name and the folder.") from error
    except PermissionError as error:
        raise Refusal("no_permission", f"{shown} can't be opened: no permission to read it.") from error
    except OSError as error:
        raise _not_readable(shown) from error
    end = re.search(rb"\r?\n\r?\n", start)
    if not start.startswith(b"NRRD000") or (end is None and len(start) == _LARGEST_HEADER):
        raise _not_readable(shown)
    text = start[: end.start() if end else None].decode("utf-8", "replace")
    lines = [line.rstrip() for line in text.split("\n") if line.strip() and not line.startswith("#")]
    return lines, end.end() if end else len(start)


def _is_note(line: str) -> bool:
    """Whether a line is a key and its value, ``key:=value``, and no field, ``field: value``."""
    return line.partition(":")[2].startswith("=")


def _not_readable(shown: str) -> Refusal:
    message = f"{shown} is not a readable NRRD file: damaged, incomplete, or of another format. Export it again."
    return Refusal("unreadable_file", message)


def _spatial_shape(header: NrrdHeader, shown: str, has_named_volumes: bool) -> tuple[int, int, int]:
    """The shape (X, Y, Z); refuses colour, complex, 2D and 4D images whose volumes have no names."""
    others = [kind for axis, kind in enumerate(header.kinds) if axis not in header.spatial_axes]
    if any("color" in kind for kind in others) or header.fields.get("type") == "block":
        raise Refusal("colour_image", f"{shown} is a colour image. Use the scanner's greyscale series.")
    if "complex" in others:
        raise Refusal("complex_image", f"{shown} has complex voxels. Use the magnitude image.")
    if header.volume_axes and not has_named_volumes:
        raise unnamed_volumes(shown, header.volume_count or 0, Path(shown).suffix)
    shape = tuple(header.sizes[axis] for axis in header.spatial_axes)
    if len(shape) < 3 or min(shape) < 2 or len(header.volume_axes) > 1:
        text = " × ".join(map(str, header.sizes))
        message = f"{shown} is not a 3D volume ({text} voxels). Use the whole series, not one slice of it."
        raise Refusal("not_3d", message)
    return shape[0], shape[1], shape[2]


def _affine(header: NrrdHeader, shown: str) -> Affine:
    """From voxel indices to patient space; raises Refusal where the header does not tell how the image lies in it."""
    space = header.fields.get("space")
    origin = header.fields.get("space origin")
    columns = [header.directions[axis] for axis in header.spatial_axes]
    if space is None or origin is None or any(column is None for column in columns):
        missing = "space" if space is None else "space directions" if origin is not None else "space origin"
        message = (
            f"{shown} does not say how it lies in the patient (the header has no '{missing}'): left and right would be a "
            f"guess. Convert the original images again with a tool that keeps the orientation."
        )
        raise Refusal("unknown_orientation", message)
    if str(space).lower() not in _SPACES:
        message = (
            f"{shown} does not say how it lies in the patient: its space, {_shown(space)}, is none of right-anterior-superior, "
            f"left-anterior-superior and left-posterior-superior. Convert the original images again."
        )
        raise Refusal("unknown_orientation", message)
    units = header.fields.get("space units", ())
    if any(str(unit).lower() not in _MILLIMETRES for unit in units):
        message = (
            f"{shown}: its space is measured in {_shown(', '.join(map(str, units)))}, not in mm. Convert it first."
        )
        raise Refusal("implausible_spacing", message)
    vectors = [np.asarray(vector, dtype=np.float64) for vector in (*columns, origin)]
    if any(vector.shape != (3,) for vector in vectors):
        raise _not_readable(shown)
    affine = np.eye(4)
    affine[:3] = np.column_stack(vectors)
    affine[:2] *= np.array(_SPACES[str(space).lower()])[:, None]
    return affine


def _shown(value: object) -> str:
    """What a header says, as it can be printed in a sentence."""
    return "".join(c for c in str(value)[:60] if c.isprintable())


def _refuse_too_large(header: NrrdHeader, shape: tuple[int, ...], shown: str) -> None:
    """A header that was spoilt may promise any size; no exam's image has a gigabyte."""
    stored = math.prod(header.sizes) * _dtype(header, shown).itemsize
    if max(stored, math.prod(shape) * 4) > _LARGEST_DATA:
        text = " × ".join(map(str, header.sizes))
        message = f"{shown} is larger than can be read here ({text} voxels). Check it, or split it into single volumes."
        raise Refusal("too_large", message)


def _dtype(header: NrrdHeader, shown: str) -> np.dtype[Any]:
    """How a voxel is stored; raises Refusal where that is not said, or is said of no number."""
    name = str(header.fields.get("type", "")).lower()
    code = next((code for code, names in _TYPES.items() if name in names), None)
    order = {"little": "<", "big": ">"}.get(str(header.fields.get("endian")).lower())
    needs_no_order = code in ("i1", "u1") or str(header.fields.get("encoding")).lower() in _TEXT
    if code is None or (order is None and not needs_no_order):
        raise _not_readable(shown)
    return np.dtype(f"{order or '='}{code}")


def b_values_in_header(header: NrrdHeader) -> list[float] | None:
    """The volumes' b-values (s/mm²), or None where the header does not give one to each.

    By the convention for diffusion (``DWMRI_b-value``, and per volume ``DWMRI_gradient_NNNN``, whose squared length
    scales it), or by the labels of a multi-volume whose frames differ in their b-value.
    """
    count = header.volume_count or 1
    try:
        if "DWMRI_b-value" in header.notes:
            values = [_scaled(header.notes, number) for number in range(count)]
        elif "bvalue" in re.sub(
            r"[^a-z]", "", header.notes.get("MultiVolume.FrameIdentifyingDICOMTagName", "").lower()
        ):
            values = [float(label) for label in header.notes["MultiVolume.FrameLabels"].split(",")]
        else:
            return None
    except (KeyError, ValueError):
        return None
    return values if all(0 <= value < 1e5 for value in values) else None


def _scaled(notes: Mapping[str, str], number: int) -> float:
    gradient = [float(value) for value in notes[f"DWMRI_gradient_{number:04d}"].split()]
    if len(gradient) != 3:
        raise ValueError("a gradient has three numbers")
    value = float(notes["DWMRI_b-value"]) * sum(g * g for g in gradient)
    return value if value < 1 else round(value / _ROUNDED_TO) * _ROUNDED_TO


# ---------------------------------------------------------------- the data


def _data_file(header: NrrdHeader, path: Path, shown: str) -> Path:
    """The file that holds the voxels: the image itself, or the one in its folder that the header names.

    Raises:
        Refusal: the header names several files or one elsewhere: a header must not lead to any file of the machine.
    """
    name = header.field("data file", "datafile")
    if name is None:
        return path
    name = str(name).removeprefix("./")
    if name.split()[:1] == ["LIST"] or "%" in name:
        message = f"{shown} has its voxels in several files. Save it as one .nrrd file."
        raise Refusal("several_data_files", message)
    if not name or name in (".", "..") or re.search(r"[/\\\0]|^[A-Za-z]:", name):
        message = (
            f"{shown} has its voxels in a file that does not lie in its folder. Put that file beside it and let the "
            f"header name it without a path, or save both as one .nrrd file."
        )
        raise Refusal("data_file_elsewhere", message)
    return path.with_name(name)


def _missing_data(shown: str, path: Path) -> Refusal:
    message = f"{shown} has its voxels in {path.name}, which does not lie beside it. Put it there."
    return Refusal("missing_file", message)


def _stored(header: NrrdHeader, dtype: np.dtype[Any], path: Path) -> NDArray[Any]:
    """All numbers of a file in their order; raises OSError, EOFError, zlib.error or ValueError where they are not there."""
    encoding = str(header.fields.get("encoding")).lower()
    count = math.prod(header.sizes)
    if not path.is_file():
        raise FileNotFoundError(path)
    with path.open("rb") as file:
        if header.field("data file", "datafile") is None:
            file.seek(header.data_offset)
        for _ in range(header.field("line skip", "lineskip") or 0):
            if not file.readline(_LARGEST_HEADER):
                raise EOFError
        skip = header.field("byte skip", "byteskip") or 0
        if encoding in _TEXT:
            return _numbers(file, skip, count)
        return np.frombuffer(_bytes(file, encoding, skip, count * dtype.itemsize), dtype)


def _bytes(file: IO[bytes], encoding: str, skip: int, wanted: int) -> bytes:
    """Exactly as many bytes as the header promises; more or fewer mean that it is about something else."""
    if encoding == "raw":
        if skip == -1:  # the data are the file's last bytes
            skip = _remaining(file) - wanted
        if skip < 0 or _remaining(file) - skip != wanted:
            raise EOFError
        file.seek(skip, 1)
        return file.read(wanted)
    if encoding not in (*_GZIP, *_BZIP2) or skip < 0:
        raise ValueError("an encoding that is not read")
    # Read past the end, where the checksum is compared, and never further: a small file may unpack to any size.
    opened: IO[bytes] = gzip.GzipFile(fileobj=file) if encoding in _GZIP else bz2.BZ2File(file)  # type: ignore[assignment]
    with opened as unpacked:
        while skip > 0:
            passed = len(unpacked.read(min(skip, _LARGEST_HEADER)))
            if not passed:
                raise EOFError
            skip -= passed
        data = unpacked.read(wanted + 1)
    if len(data) != wanted:
        raise EOFError
    return data


def _remaining(file: IO[bytes]) -> int:
    here = file.tell()
    end = file.seek(0, 2)
    file.seek(here)
    return end - here


def _numbers(file: IO[bytes], skip: int, count: int) -> NDArray[Any]:
    """Numbers that are written as text."""
    size = _remaining(file) - skip
    if skip < 0 or not 2 * count - 1 <= size <= _LARGEST_DATA // 8:
        raise EOFError
    file.seek(skip, 1)
    numbers = np.array(file.read().split(), dtype=np.float64)
    if len(numbers) != count:
        raise EOFError
    return numbers
