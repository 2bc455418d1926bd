"""A volume whose slices lie in DICOM files; voxels are read when they are asked for."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from HCCNetLib.readers.dicom.files import quietly, require_pydicom, signs_of_damage
from HCCNetLib.readers.dicom.frames import Frame
from HCCNetLib.readers.dicom.pixels import UnreadableSyntax, decoded_frames
from HCCNetLib.readers.nifti import refuse_unusable_voxels
from HCCNetLib.records import Grid, Problem, Refusal


@dataclass(frozen=True)
class Slice:
    """Where one slice's pixels are, and what its stored values mean: slope · stored + intercept."""

    path: Path
    index: int
    slope: float
    intercept: float


@dataclass(frozen=True)
class DicomImage:
    """One volume of a series.

    Args:
        shown: how messages call it, e.g. ``series 8, b 400``: never a file's name, which may be a patient's.
        grid: where its voxels lie.
        slices: along the third axis.
        is_phantom: whether every file says that it was generated.
    """

    shown: str
    grid: Grid
    slices: tuple[Slice, ...]
    is_phantom: bool = False

    @property
    def source(self) -> str:
        """What messages call this image."""
        return self.shown

    def header_problems(self) -> list[Problem]:
        """None: what is wrong with the headers was found when the slices were put in order."""
        return []

    def fingerprint(self) -> str:
        """SHA-256 of the files, in the order of the slices, and the frames used of each."""
        digest = hashlib.sha256()
        for path, slices in _by_file(self.slices):
            try:
                with path.open("rb") as file:
                    digest.update(hashlib.file_digest(file, "sha256").digest())
            except OSError as error:
                message = f"{self.shown} can't be read any more. Check that its files are there."
                raise Refusal("unreadable_file", message) from error
            digest.update(repr([(number, part.index) for number, part in slices]).encode())
        digest.update(self.grid.affine.tobytes())
        return digest.hexdigest()

    def read(self) -> NDArray[np.float32]:
        """Voxels (X, Y, Z), each slice's slope and intercept applied.

        Raises:
            Refusal: pixels missing, damaged, compressed in a way that nothing installed reads, or not finite.
        """
        require_pydicom()
        columns, rows, count = self.grid.shape
        data = np.empty((columns, rows, count), dtype=np.float32)
        with quietly():
            for path, slices in _by_file(self.slices):
                frames = self._frames(path, [part.index for _, part in slices], slices[0][0])
                for (number, part), pixels in zip(slices, frames, strict=True):
                    if pixels.shape != (rows, columns):
                        raise self._damaged(number)
                    data[:, :, number] = pixels.T * np.float32(part.slope) + np.float32(part.intercept)
        refuse_unusable_voxels(data, self.shown)
        return data

    def _frames(self, path: Path, indices: list[int], number: int) -> Iterator[NDArray[Any]]:
        """Stored values (rows, columns) of a file's frames."""
        try:
            yield from decoded_frames(path, indices)
        except UnreadableSyntax as error:
            message = (
                f"{self.shown} is compressed ({error.name}), and nothing installed can read that. Install the decoders: "
                f"pip install {error.package}, or decompress the files."
            )
            raise Refusal("no_decoder", message) from error
        except signs_of_damage() as error:
            raise self._damaged(number) from error

    def _damaged(self, number: int) -> Refusal:
        message = (
            f"{self.shown}: the pixels of slice {number + 1} of {len(self.slices)} are damaged, incomplete or missing. "
            f"Export the series again."
        )
        return Refusal("unreadable_file", message)


def _by_file(slices: Sequence[Slice]) -> list[tuple[Path, list[tuple[int, Slice]]]]:
    """Slices with their number by the file they lie in; a file with many frames is opened once."""
    files: dict[Path, list[tuple[int, Slice]]] = {}
    for number, part in enumerate(slices):
        files.setdefault(part.path, []).append((number, part))
    return list(files.items())


def image_of(frames: Sequence[Frame], grid: Grid, shown: str) -> DicomImage:
    """The image of frames that are in the order of their places."""
    slices = tuple(Slice(frame.path, frame.index, frame.slope, frame.intercept) for frame in frames)
    return DicomImage(shown, grid, slices, all(frame.is_phantom for frame in frames))
