"""8-bit PNG files from arrays."""

from __future__ import annotations

import base64
import struct
import zlib

import numpy as np
from numpy.typing import NDArray

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_GRAY, _RGBA = 0, 6  # PNG's colour types


def encode(pixels: NDArray[np.uint8]) -> bytes:
    """A PNG file of (H, W) gray or (H, W, 4) RGBA pixels, row 0 on top; ValueError for other shapes and types."""
    if pixels.dtype != np.uint8 or not (pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] == 4)):
        raise ValueError(f"expected uint8 (H, W) or (H, W, 4), got {pixels.dtype} {pixels.shape}")
    height, width = pixels.shape[:2]
    if not height or not width:
        raise ValueError(f"a picture needs pixels, got {pixels.shape}")
    header = struct.pack(">IIBBBBB", width, height, 8, _GRAY if pixels.ndim == 2 else _RGBA, 0, 0, 0)
    # Each row starts with the number of its filter: 0, none.
    rows = np.pad(pixels.reshape(height, -1), ((0, 0), (1, 0)))
    return (
        _SIGNATURE + _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(rows.tobytes(), 9)) + _chunk(b"IEND", b"")
    )


def data_uri(pixels: NDArray[np.uint8]) -> str:
    """The PNG of ``pixels`` as an address that a page can hold."""
    return "data:image/png;base64," + base64.b64encode(encode(pixels)).decode("ascii")


def _chunk(kind: bytes, content: bytes) -> bytes:
    """Length, kind, content and checksum."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
