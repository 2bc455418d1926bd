"""Stored values of a file's frames; nothing that a file announces is made before what it holds was looked at."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from HCCNetLib.readers.dicom.code_streams import FrameSize, check_code_stream
from HCCNetLib.readers.dicom.files import refuse_unfolding

_MOST_SAMPLES = 2 * 1024**3
_LARGEST_FILE = 2 * 1024**3  # bytes; it is read as a whole
_JPEG_SYNTAXES = "1.2.840.10008.1.2.4."


class UnreadableSyntax(Exception):
    """A transfer syntax that no installed package decodes.

    Args:
        name: of the syntax.
        package: that would decode it, as pip is told.
    """

    def __init__(self, name: str, package: str = '"pylibjpeg[openjpeg]" python-gdcm') -> None:
        super().__init__(name)
        self.name, self.package = name, package


def decoded_frames(path: Path, indices: Sequence[int]) -> Iterator[NDArray[Any]]:
    """Stored values (rows, columns) of some frames of a file, in the order asked for. To be called within ``quietly``.

    Raises:
        UnreadableSyntax: nothing installed decodes them; else whatever pydicom and the decoders raise.
    """
    from pydicom import dcmread
    from pydicom.pixels import get_decoder
    from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEGExtended12Bit

    if path.stat().st_size > _LARGEST_FILE:
        raise ValueError("implausible size")
    refuse_unfolding(path)
    tags = dcmread(path, force=True)
    meta = tags.file_meta
    if "TransferSyntaxUID" not in meta:  # the file had no preamble; how it was read tells
        meta.TransferSyntaxUID = ImplicitVRLittleEndian if tags.original_encoding[0] else ExplicitVRLittleEndian
    syntax = meta.TransferSyntaxUID
    if not syntax.is_transfer_syntax:
        raise UnreadableSyntax(f"unknown transfer syntax {syntax}")
    count = int(tags.get("NumberOfFrames") or 1)
    _refuse_wrong_size(tags, count)
    if not syntax.is_encapsulated:
        _refuse_unused_bits(tags)
        decoder = get_decoder(syntax)
        yield from (decoder.as_array(tags, index=index, raw=True)[0] for index in indices)
        return
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError as error:
        raise UnreadableSyntax(syntax.name) from error
    if not decoder.is_available:
        raise UnreadableSyntax(syntax.name)
    if syntax == JPEGExtended12Bit and int(tags.BitsStored) > 8 and find_spec("libjpeg") is None:
        # Its licence, the GPL, is why it is not among those that are installed with us.
        raise UnreadableSyntax(f"{syntax.name}, 12 bits", "pylibjpeg-libjpeg")
    yield from _decompressed(tags, count, indices, decoder)


def _refuse_wrong_size(tags: Any, count: int) -> None:
    """Raises ValueError where the pixels that are there can't be those that the header tells of.

    To be known before anything of the announced size is made.
    """
    length, bits = len(tags.PixelData), int(tags.BitsAllocated)
    frame = int(tags.Rows) * int(tags.Columns) * int(tags.get("SamplesPerPixel") or 1)
    if frame * count > _MOST_SAMPLES or bits not in (8, 16, 32):
        raise ValueError("implausible size")
    if int(tags.get("HighBit", int(tags.BitsStored) - 1)) != int(tags.BitsStored) - 1:
        raise ValueError("stored in other bits than the standard's")
    if not tags.file_meta.TransferSyntaxUID.is_encapsulated and length < frame * count * bits // 8:
        raise ValueError("fewer pixels than told")


def _refuse_unused_bits(tags: Any) -> None:
    """Raises ValueError where values are larger than the header tells; of an overlay the higher bits may be.

    The decoder leaves them away, and what is left of a larger value would be a small one.
    """
    bits, stored = int(tags.BitsAllocated), int(tags.BitsStored)
    has_overlay = any(tags.get((group, 0x0100)) is not None for group in range(0x6000, 0x6020, 2))
    if stored >= bits or int(tags.get("PixelRepresentation") or 0) == 1 or has_overlay:
        return
    order = "<" if tags.file_meta.TransferSyntaxUID.is_little_endian else ">"
    content = tags.PixelData
    values = np.frombuffer(content[: len(content) // (bits // 8) * (bits // 8)], dtype=f"{order}u{bits // 8}")
    size = int(tags.Rows) * int(tags.Columns) * int(tags.get("NumberOfFrames") or 1)
    if values[:size].max(initial=0) >> stored:
        raise ValueError("values larger than told")


# ---------------------------------------------------------------- compressed


def _decompressed(tags: Any, count: int, indices: Sequence[int], decoder: Any) -> Iterator[NDArray[Any]]:
    """Frames of compressed pixels; the codestreams are looked for once, not from the beginning for each frame."""
    from pydicom.encaps import encapsulate, generate_frames

    wanted = set(indices)
    frames = enumerate(generate_frames(tags.PixelData, number_of_frames=count, extended_offsets=_offsets(tags)))
    streams = {index: stream for index, stream in frames if index in wanted}
    for keyword in ("ExtendedOffsetTable", "ExtendedOffsetTableLengths"):
        tags.pop(keyword, None)
    tags.NumberOfFrames = 1
    for index in indices:
        _look_at(streams[index], tags)
        tags.PixelData = encapsulate([streams[index]])
        yield decoder.as_array(tags, index=0, raw=True)[0]


def _offsets(tags: Any) -> tuple[bytes, bytes] | None:
    if "ExtendedOffsetTable" not in tags or "ExtendedOffsetTableLengths" not in tags:
        return None
    return tags.ExtendedOffsetTable, tags.ExtendedOffsetTableLengths


def _look_at(stream: bytes, tags: Any) -> None:
    """Raises ValueError where a code stream is not whole or not of the size that the header tells.

    Decoders make what a stream announces, 16 GB of a file of 2 kB, and some end the whole process if they can't.
    """
    if tags.file_meta.TransferSyntaxUID.startswith(_JPEG_SYNTAXES):  # else run lengths, which announce nothing
        samples = int(tags.get("SamplesPerPixel") or 1)
        size = FrameSize(int(tags.Rows), int(tags.Columns), samples, int(tags.BitsAllocated))
        check_code_stream(stream, size)
