"""Whether a DICOM file holds the pixels that its header announces, told before a decoder asks for memory."""

from __future__ import annotations

import os
import struct
from typing import BinaryIO

from pydicom.dataset import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian

from xr2ct.cohorts.headers import Unreadable

_UNDEFINED = 0xFFFFFFFF
_ITEM = (0xFFFE, 0xE000)


def check_pixel_data(file: BinaryIO, header: Dataset) -> None:
    """Raise `Unreadable` unless `file`, at the element after `header`, holds one frame's pixels and no other.

    Uncompressed ones have as many bytes as rows, columns and bits need: decoders cut and fill without a word.
    Compressed ones lie in items that end inside the file: decoders reserve whatever an item claims.
    """
    syntax = str(header.file_meta.get("TransferSyntaxUID", ""))
    if syntax == DeflatedExplicitVRLittleEndian:
        return  # the file itself holds no elements
    order = ">" if syntax == ExplicitVRBigEndian else "<"
    end = os.fstat(file.fileno()).st_size
    start = file.read(8)
    if len(start) < 8 or struct.unpack(order + "HH", start[:4]) != (0x7FE0, 0x0010):
        raise Unreadable("no pixels")
    if header.is_implicit_VR:
        (length,) = struct.unpack(order + "I", start[4:])
    else:
        (length,) = struct.unpack(order + "I", file.read(4).ljust(4, b"\0"))
    if length == _UNDEFINED:
        _check_items(file, end)
        return
    if file.tell() + length > end:
        raise Unreadable("pixels cannot be read (truncated or damaged)")
    expected = _bytes(header)
    if length - expected not in (0, expected % 2):
        raise Unreadable(f"{length} bytes of pixels where its header says {expected}")


def _check_items(file: BinaryIO, end: int) -> None:
    """Walk over the items of compressed pixels; always little endian."""
    items = 0
    while len(start := file.read(8)) == 8:
        group, element, length = struct.unpack("<HHI", start)
        if (group, element) != _ITEM:
            break
        if file.tell() + length > end:
            raise Unreadable("pixels cannot be read (truncated or damaged)")
        file.seek(length, os.SEEK_CUR)
        items += 1
    if items < 2:  # the table of offsets, and a fragment
        raise Unreadable("pixels cannot be read (truncated or damaged)")


def _bytes(header: Dataset) -> int:
    """Of one frame without compression; −1 where the header does not say."""
    try:
        return int(header.Rows) * int(header.Columns) * int(header.BitsAllocated) // 8
    except (AttributeError, TypeError, ValueError):
        return -1
