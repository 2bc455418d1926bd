"""Whether the code stream of a compressed frame is whole and of the size that the header tells.

It is looked at before any decoder gets it: some of them make room for whatever size it says, hang, or end the process.
Only headers are read; what they say of pixels is the decoder's.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

_JPEG, _JPEG_2000, _BOX = b"\xff\xd8", b"\xff\x4f\xff\x51", b"\x00\x00\x00\x0cjP  "
_HUFFMAN, _SCAN, _END = 0xC4, 0xDA, b"\xff\xd9"
_FRAMES = (0xC0, 0xC1, 0xC2, 0xC3, 0xF7)  # baseline, extended, progressive, lossless, JPEG-LS
_LOSSLESS, _JPEG_LS = 0xC3, 0xF7
_PARAMETERS, _OTHER_SIZES = 0xF8, b"\4"  # of JPEG-LS, where sizes may be said once more
_TILE_PART = 0x90
_MOST_TILES = 65_535


@dataclass(frozen=True)
class FrameSize:
    """What a header says of a frame: pixels, samples of each, and bits that a sample takes."""

    rows: int
    columns: int
    samples: int
    bits: int


def check_code_stream(stream: bytes, size: FrameSize) -> None:
    """Looks at a frame's code stream of JPEG, JPEG-LS or JPEG 2000.

    Raises:
        ValueError: it is none, is damaged, ends too early, or is of another size.
    """
    if stream.startswith(_BOX):
        stream = stream[max(stream.find(_JPEG_2000), 0) :]
    if stream.startswith(_JPEG_2000):
        _check_jpeg_2000(stream, size)
    else:
        _require(stream.startswith(_JPEG))
        _check_jpeg(stream, size)


def _require(condition: bool) -> None:
    if not condition:
        raise ValueError("damaged code stream")


def _unpack(form: str, stream: bytes, at: int = 0) -> tuple[Any, ...]:
    _require(at + struct.calcsize(form) <= len(stream))
    return struct.unpack_from(form, stream, at)


def _segments(stream: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Marker, place and content of each segment from the second marker on, without end."""
    at = 2
    while True:
        (prefix, marker, length) = _unpack(">BBH", stream, at)
        _require(prefix == 0xFF)
        if marker == 0xFF:  # filled up
            at += 1
            continue
        _require(length >= 2 and at + 2 + length <= len(stream))
        yield marker, at, stream[at + 4 : at + 2 + length]
        at += 2 + length


# ---------------------------------------------------------------- JPEG and JPEG-LS


def _check_jpeg(stream: bytes, size: FrameSize) -> None:
    process: int | None = None
    components: list[int] = []
    tables: set[int] = set()
    for marker, at, content in _segments(stream):
        if marker in _FRAMES:
            _require(process is None)
            process, components = marker, _components(content, size)
        elif marker == _HUFFMAN:
            tables |= set(_huffman_tables(content))
        elif marker == _SCAN:
            _require(process is not None)
            _check_scan(content, process, components, tables)
            # Within a scan no byte of ones stands before what is not a marker.
            _require(_END in stream[at:])
            return
        elif marker == _PARAMETERS:
            _require(content[:1] != _OTHER_SIZES)
        else:  # what is about colours, or for applications; another kind of frame is none that DICOM knows
            _require(marker >= 0xDB)


def _components(content: bytes, size: FrameSize) -> list[int]:
    precision, rows, columns, count = _unpack(">BHHB", content)
    _require((rows, columns, count) == (size.rows, size.columns, size.samples))
    _require(2 <= precision <= size.bits and len(content) == 6 + 3 * count)
    return list(content[6::3])


def _huffman_tables(content: bytes) -> Iterator[int]:
    """Class and number of each table."""
    while content:
        number, *counts = _unpack("17B", content)
        _require(number >> 4 <= 1 and number & 15 <= 3 and 0 < sum(counts) <= 256 and 17 + sum(counts) <= len(content))
        code = 0
        for bits, count in enumerate(counts, start=1):
            code = 2 * code + count
            _require(code <= 2**bits)
        yield number
        content = content[17 + sum(counts) :]


def _check_scan(content: bytes, process: int | None, components: list[int], tables: set[int]) -> None:
    count = _unpack("B", content)[0]
    _require(1 <= count <= len(components) and len(content) == 4 + 2 * count)
    _require(set(content[1 : 1 + 2 * count : 2]) <= set(components))
    if process != _JPEG_LS:
        _require({number >> 4 for number in content[2 : 2 + 2 * count : 2]} <= tables)
    if process == _LOSSLESS:
        _require(1 <= content[-3] <= 7)  # the predictor


# ---------------------------------------------------------------- JPEG 2000


def _check_jpeg_2000(stream: bytes, size: FrameSize) -> None:
    for marker, at, content in _segments(stream):
        if at == 2:
            _check_image_and_tiles(content, size)
        if marker == _TILE_PART:
            _check_tile_parts(stream, at)
            return


def _check_image_and_tiles(content: bytes, size: FrameSize) -> None:
    _, right, bottom, left, top, width, height, first_left, first_top, count = _unpack(">H8LH", content)
    _require((bottom - top, right - left, count) == (size.rows, size.columns, size.samples))
    _require(len(content) == 36 + 3 * count)
    for depth, across, down in struct.iter_unpack("3B", content[36:]):
        _require((depth & 127) + 1 <= size.bits and across == down == 1)
    _require(first_left <= left < first_left + width and first_top <= top < first_top + height)
    tiles = -(-(right - first_left) // width) * -(-(bottom - first_top) // height)
    _require(tiles <= _MOST_TILES)


def _check_tile_parts(stream: bytes, at: int) -> None:
    """Each tile part says how long it is: the last one ends within the stream."""
    while stream[at : at + 2] == bytes((0xFF, _TILE_PART)):
        length = _unpack(">HHHL", stream, at)[3]
        if length == 0:  # up to the end
            _require(_END in stream[at:])
            return
        _require(length >= 14 and at + length <= len(stream))
        at += length
