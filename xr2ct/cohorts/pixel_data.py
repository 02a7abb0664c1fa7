"""Whether a DICOM file holds the pixels that its header announces, told before a decoder asks for memory."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from typing import BinaryIO

from pydicom.dataset import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, RLELossless

from xr2ct.cohorts.codestream import read_frame, rle_holds
from xr2ct.cohorts.headers import Unreadable

_DAMAGED = "pixels cannot be read (truncated or damaged)"
_UNDEFINED = 0xFFFFFFFF
_LONG = {b"OB", b"OW", b"OD", b"OF", b"OL", b"OV", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"}
"""Value representations whose length takes four bytes, after two that say nothing."""
_PIXELS = (0x7FE0, 0x0010)
_NONE = (0, 0)
_ITEM = (0xFFFE, 0xE000)
_CLOSED = (0xFFFE, 0xE0DD)


def check_pixel_data(file: BinaryIO, header: Dataset) -> None:
    """Raise `Unreadable` unless `file`, at the element after `header`, holds one frame's pixels and no other.

    Uncompressed ones have as many bytes as rows, columns and bits need: decoders cut and fill without a word.
    Compressed ones lie in items that end inside the file, and so does what follows the pixels: decoders
    reserve whatever a length claims. What is in them: see `check_frame`.
    """
    syntax = str(header.file_meta.get("TransferSyntaxUID", ""))
    if syntax == DeflatedExplicitVRLittleEndian:
        return  # the file itself holds no elements
    order = ">" if syntax == ExplicitVRBigEndian else "<"
    end = os.fstat(file.fileno()).st_size
    tag, length = _element(file, order, bool(header.is_implicit_VR))
    if tag != _PIXELS:
        raise Unreadable("no pixels")
    if length == _UNDEFINED:
        for place in _items(file, end):
            _skip(file, place.stop - place.start, end)
    else:
        _skip(file, length, end)
        expected = _bytes(header)
        if expected is not None and length - expected not in (0, expected % 2):
            raise Unreadable(f"{length} bytes of pixels where its header says {expected}")
    while file.tell() < end and tag != _NONE:  # zeros, with which a file may be filled up
        tag, length = _element(file, order, bool(header.is_implicit_VR))
        if length == _UNDEFINED:
            return  # a sequence, whose end only a parser finds
        if tag != _NONE:
            _skip(file, length, end)


def _element(file: BinaryIO, order: str, implicit: bool) -> tuple[tuple[int, int], int]:
    """Tag and length of the element that begins here; `_NONE` and 0 where no more does."""
    start = file.read(8).ljust(8, b"\0")
    group, element, length = struct.unpack(order + "HHI", start)
    if implicit or group == 0xFFFE or (group, element) == _NONE:
        return (group, element), length
    if start[4:6] in _LONG:
        (length,) = struct.unpack(order + "I", file.read(4).ljust(4, b"\0"))
    else:
        (length,) = struct.unpack(order + "H", start[6:])
    return (group, element), length


def _skip(file: BinaryIO, length: int, end: int) -> None:
    if file.tell() + length > end:
        raise Unreadable(_DAMAGED)
    file.seek(length, os.SEEK_CUR)


def _items(file: BinaryIO, end: int) -> Iterator[range]:
    """Where the items of compressed pixels lie; always little endian. Whoever draws the next is behind it."""
    items = 0
    while len(start := file.read(8)) == 8:
        group, element, length = struct.unpack("<HHI", start)
        if (group, element) == _CLOSED and items >= 2:  # the table of offsets, and a fragment at least
            return
        if (group, element) != _ITEM:
            break
        yield range(file.tell(), file.tell() + length)
        items += 1
    raise Unreadable(_DAMAGED)


def check_frame(file: BinaryIO, header: Dataset) -> None:
    """Raise `Unreadable` unless compressed pixels, at the element after `header`, are of the header's size.

    Decoders cut and fill them, shift them line by line, or die. `check_pixel_data` was content with them.
    """
    end = os.fstat(file.fileno()).st_size
    _element(file, "<", implicit=False)
    _, *fragments = (file.read(len(place)) for place in _items(file, end))
    frame = b"".join(fragments)
    rows, columns, segments = int(header.Rows), int(header.Columns), int(header.BitsAllocated) // 8
    if header.file_meta.TransferSyntaxUID == RLELossless and not rle_holds(frame, segments, rows * columns):
        raise Unreadable(_DAMAGED)
    held = read_frame(frame)
    if held and (misfit := held.misfit(rows, columns)):
        raise Unreadable(f"its {misfit}")


def _bytes(header: Dataset) -> int | None:
    """Of one frame without compression; None where the header does not say, which its reader will."""
    try:
        return int(header.Rows) * int(header.Columns) * int(header.BitsAllocated) // 8
    except (AttributeError, TypeError, ValueError):
        return None
