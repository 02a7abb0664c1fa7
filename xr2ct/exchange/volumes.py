"""A cube as a file that opens where the patient lay, and that says where it came from.

NAME.mha         the header's own lines, ``key = value``
NAME.nii.gz      an extension of the header (code 6, text), JSON
NAME.npy         NAME.npy.json beside it, for the format has no room
"""

from __future__ import annotations

import gzip
import json
import re
import struct
import uuid
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from xr2ct.errors import UserError
from xr2ct.run import write_atomically

_HEADER = 348
"""Bytes of a NIfTI-1 header; four follow that say whether there are extensions (nifti1.h)."""
_OFFSET_AT = 108
"""Where the header holds the place of the first voxel, float32."""
_TEXT = 6
"""NIFTI_ECODE_COMMENT."""
_CHUNK = 2**22


def write_volume(hu: np.ndarray, cube_mm: float, out: Path, header: Mapping[str, str]) -> None:
    """A cube (z, y, x), of HU or of what else there is of each voxel, centred on the origin of LPS, with its
    spacing, origin and direction; `volume_header` reads `header` again."""
    out.parent.mkdir(parents=True, exist_ok=True)
    told = {key: re.sub(r"\s+", " ", value).strip() for key, value in header.items()}
    if out.suffix == ".npy":
        np.save(out, hu)
        if told:
            write_atomically(_beside(out), json.dumps(told, indent=1) + "\n")
        return
    image = sitk.GetImageFromArray(hu)
    spacing = cube_mm / hu.shape[0]
    image.SetSpacing((spacing,) * 3)
    image.SetOrigin((-(cube_mm - spacing) / 2,) * 3)
    if out.name.endswith(".nii.gz"):
        _write_nifti(image, out, told)
        return
    for key, value in told.items():
        image.SetMetaData(key, value)
    sitk.WriteImage(image, str(out), useCompression=True)


def volume_header(path: Path) -> dict[str, str]:
    """What `write_volume` was given beside the voxels; empty where a file says nothing.

    Raises `UserError` for a file that cannot be read.
    """
    try:
        if path.suffix == ".npy":
            found = json.loads(_beside(path).read_text(encoding="utf-8")) if _beside(path).is_file() else {}
        elif path.name.endswith(".nii.gz"):
            found = _read_nifti(path)
        else:
            reader = sitk.ImageFileReader()
            reader.SetFileName(str(path))
            reader.ReadImageInformation()
            found = {key: reader.GetMetaData(key) for key in reader.GetMetaDataKeys()}
    except (OSError, RuntimeError, ValueError, EOFError, struct.error):
        raise UserError(f"{path}: its header cannot be read") from None
    texts = found.items() if isinstance(found, dict) else ()
    return {key: value for key, value in texts if isinstance(value, str) and key.startswith("xr2ct_")}


def _beside(out: Path) -> Path:
    return out.with_name(f"{out.name}.json")


def _write_nifti(image: sitk.Image, out: Path, header: Mapping[str, str]) -> None:
    """ITK's file with an extension put between its header and its voxels."""
    plain = out.with_name(f".{uuid.uuid4().hex}.nii")
    try:
        sitk.WriteImage(image, str(plain))
        with (
            plain.open("rb") as whole,
            out.open("wb") as raw,
            gzip.GzipFile("", "wb", compresslevel=6, fileobj=raw, mtime=0) as packed,
        ):
            head = bytearray(whole.read(_HEADER + 4))
            (offset,) = struct.unpack_from("<f", head, _OFFSET_AT)
            extension = _extension(json.dumps(header)) if header else b""
            struct.pack_into("<f", head, _OFFSET_AT, _HEADER + 4 + len(extension))
            head[_HEADER] = bool(extension)
            packed.write(head + extension)
            whole.seek(int(offset))
            while chunk := whole.read(_CHUNK):
                packed.write(chunk)
    finally:
        plain.unlink(missing_ok=True)


def _extension(text: str) -> bytes:
    """Its size and code, and the text; the size is a multiple of 16."""
    content = text.encode("ascii")
    size = -(-(8 + len(content)) // 16) * 16
    return struct.pack("<ii", size, _TEXT) + content.ljust(size - 8, b"\0")


def _read_nifti(path: Path) -> object:
    """The JSON of the first extension that holds some."""
    with gzip.open(path) as file:
        head = file.read(_HEADER + 4)
        order = "<" if head[:4] == struct.pack("<i", _HEADER) else ">"
        (offset,) = struct.unpack_from(f"{order}f", head, _OFFSET_AT)
        extensions = file.read(max(0, min(int(offset), _CHUNK) - len(head))) if head[_HEADER] else b""
    place = 0
    while place + 8 <= len(extensions):
        size, code = struct.unpack_from(f"{order}ii", extensions, place)
        if code == _TEXT:
            return json.loads(extensions[place + 8 : place + size].rstrip(b"\0"))
        place += max(size, 16)
    return {}
