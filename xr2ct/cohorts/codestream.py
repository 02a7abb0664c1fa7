"""The size that a compressed picture gives itself: a decoder goes by it, whatever headers say."""

from __future__ import annotations

import struct

_JPEG_2000 = b"\xff\x4f\xff\x51"
_JPEG = b"\xff\xd8\xff"
_NO_FRAME = {0xC4, 0xC8, 0xCC}
"""Markers among those of frames that begin none: tables, an extension, arithmetic conditioning."""
_JPEG_LS_FRAME = 0xF7


def frame_size(data: bytes) -> tuple[int, int] | None:
    """Rows and columns from the head of a JPEG, JPEG-LS or JPEG 2000 codestream; None where it has none.

    ITU-T T.800 A.5.1 (SIZ), T.81 B.2.2 (SOF), T.87 C.2.2 (SOF55).
    """
    start = data.find(_JPEG_2000, 0, 1024)  # behind the boxes of a JP2 file, where there are some
    if start >= 0:
        return _jpeg_2000_size(data[start + 8 : start + 24])
    return _jpeg_size(data) if data.startswith(_JPEG) else None


def rle_holds(data: bytes, segments: int, size: int) -> bool:
    """Whether an RLE frame is of so many segments, each of which decodes to `size` bytes (PS3.5 annex G).

    Zeros after them are padding.
    """
    count, *offsets = struct.unpack("<16I", data[:64].ljust(64, b"\0"))
    ends = [*offsets[1:segments], len(data)]
    return count == segments and all(
        _run_lengths(data[start:end], size) for start, end in zip(offsets[:segments], ends, strict=True)
    )


def _run_lengths(packets: bytes, size: int) -> bool:
    """Whether PackBits end at `size` bytes: a head n copies the n + 1 bytes after it, 257 − n repeats one
    n times."""
    place = decoded = 0
    while decoded < size and place < len(packets):
        head = packets[place]
        decoded += head + 1 if head < 128 else 257 - head if head > 128 else 0
        place += head + 2 if head < 128 else 2 if head > 128 else 1
    return decoded == size and place <= len(packets) and not any(packets[place:])


def _jpeg_2000_size(siz: bytes) -> tuple[int, int] | None:
    if len(siz) < 16:
        return None
    right, bottom, left, top = struct.unpack(">4I", siz)
    return bottom - top, right - left


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    place = 2
    while place + 9 <= len(data) and data[place] == 0xFF:
        marker = data[place + 1]
        if marker == 0xFF:  # a fill byte
            place += 1
            continue
        if (0xC0 <= marker <= 0xCF and marker not in _NO_FRAME) or marker == _JPEG_LS_FRAME:
            rows, columns = struct.unpack(">HH", data[place + 5 : place + 9])
            return rows, columns
        place += 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    return None
