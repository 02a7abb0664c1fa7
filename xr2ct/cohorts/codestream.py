"""The size that a compressed picture gives itself: a decoder goes by it, whatever headers say."""

from __future__ import annotations

import struct
from typing import NamedTuple

MOST_BITS = 16
"""DICOM has no more of integers that are compressed by these (PS3.5 section 8.2)."""

_JPEG_2000 = b"\xff\x4f\xff\x51"
_JPEG = b"\xff\xd8\xff"
_NO_FRAME = {0xC4, 0xC8, 0xCC}
"""Markers among those of frames that begin none: tables, an extension, arithmetic conditioning."""
_JPEG_LS_FRAME = 0xF7


class Frame(NamedTuple):
    """What a codestream says it holds."""

    rows: int
    columns: int
    samples: int
    """A pixel: one of grey."""
    bits: int
    """A sample."""

    def misfit(self, rows: int, columns: int) -> str:
        """Why it is not a grey picture of that size; empty where it is. Decoders have died of others."""
        if (self.rows, self.columns) != (rows, columns):
            return f"compressed pixels are {self.rows} rows of {self.columns}, not {rows} of {columns}"
        if self.samples != 1 or self.bits > MOST_BITS:
            return f"compressed pixels are of {self.samples} samples of {self.bits} bits"
        return ""


def read_frame(data: bytes) -> Frame | None:
    """From the head of a JPEG, JPEG-LS or JPEG 2000 codestream; None where it has none.

    ITU-T T.800 A.5.1 (SIZ), T.81 B.2.2 (SOF), T.87 C.2.2 (SOF55).
    """
    start = data.find(_JPEG_2000, 0, 1024)  # behind the boxes of a JP2 file, where there are some
    if start >= 0:
        return _jpeg_2000_frame(data[start + 8 : start + 43])
    return _jpeg_frame(data) if data.startswith(_JPEG) else None


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


def _jpeg_2000_frame(siz: bytes) -> Frame | None:
    if len(siz) < 35:
        return None
    right, bottom, left, top, samples, depth = struct.unpack(">4I16xHB", siz)
    return Frame(bottom - top, right - left, samples, (depth & 0x7F) + 1)


def _jpeg_frame(data: bytes) -> Frame | None:
    place = 2
    while place + 10 <= len(data) and data[place] == 0xFF:
        marker = data[place + 1]
        if marker == 0xFF:  # a fill byte
            place += 1
            continue
        if (0xC0 <= marker <= 0xCF and marker not in _NO_FRAME) or marker == _JPEG_LS_FRAME:
            bits, rows, columns, samples = struct.unpack(">BHHB", data[place + 4 : place + 10])
            return Frame(rows, columns, samples, bits)
        place += 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    return None
