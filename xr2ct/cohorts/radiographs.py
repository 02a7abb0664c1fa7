"""Radiographs that came along with a CT: DX and CR pictures as stored, and what is needed to read them.

Pixels are the stored values themselves: no modality or VOI LUT is applied and MONOCHROME1 is not inverted.
What applies or undoes these stands in the attributes.
"""

from __future__ import annotations

import math
import re
import warnings
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import numpy as np
import pydicom
import SimpleITK as sitk
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import generate_fragments
from pydicom.uid import (
    JPEG2000,
    UID,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSTransferSyntaxes,
    JPEGTransferSyntaxes,
    MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
    RLELossless,
)

from xr2ct.cohorts.burned_in import burned_in_text
from xr2ct.cohorts.codestream import read_frame
from xr2ct.cohorts.headers import Unreadable, read_header
from xr2ct.cohorts.radiograph_header import ATTRIBUTES, attributes_of, words
from xr2ct.cohorts.refused import Refused
from xr2ct.cohorts.series import Source

MAX_PIXELS = 64_000_000
"""Of all frames of a file; the largest detectors have 19 million (4320×4320)."""
MIN_SIDE = 64
"""Fewer rows or columns show no chest."""

_DATES = ["AcquisitionDate", "ContentDate", "SeriesDate", "StudyDate"]
_PIXELS = [
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "Rows",
    "Columns",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
]
_WHAT_IT_SHOWS = [
    "ImageType",
    "BodyPartExamined",
    "SeriesDescription",
    "AcquisitionDeviceProcessingDescription",
    "QualityControlImage",
    "BurnedInAnnotation",
]
_CHEST = re.compile(r"CHEST|THORA[XC]|TORAX|TORACE|LUNG|PULM|BRUST|\bCXR\b|RIBS?\b")
_OTHER_PARTS = re.compile(
    "ABDOMEN|ANKLE|ARM|BREAST|CALCANEUS|CLAVICLE|COCCYX|[CLST]?SPINE|ELBOW|EXTREMITY|FEMUR|FINGER|FOOT|FOREARM"
    "|HAND|HEAD|HIP|HUMERUS|JAW|KNEE|LEG|NECK|PELVIS|SACRUM|SCAPULA|SHOULDER|SKULL|TOE|WRIST|ZYGOMA"
)
"""Terms of DICOM PS3.16 annex L that may be written down; any other is free text."""
_SUBTRACTED = re.compile(r"SUBTRACT|SUPPRESS|DUAL.?ENERGY|\bDES\b")
_DECODED = {*JPEGTransferSyntaxes, *JPEGLSTransferSyntaxes, JPEG2000, JPEG2000Lossless, RLELossless}
"""Compressed transfer syntaxes that GDCM decodes."""
_NO_RADIOGRAPH = re.compile(r"LOCALIZER|SCOUT|TOMO")


@dataclass(frozen=True)
class Radiograph:
    """One picture, as decoded."""

    pixels: np.ndarray
    """(row, column) uint16 or int16 stored values."""
    attributes: dict[str, Any]
    """See `attributes_of`; nothing that names a patient, a day or a place."""
    date: str
    """yyyymmdd of the exposure, empty where unknown. It is not to be stored."""
    burned_in: str
    """Why text is taken to stand in the picture; empty where there is none."""


def read_radiographs(source: Source) -> list[Radiograph]:
    """Every picture of a series, one a frame, in the order of their SOP instance UIDs.

    A copy of an instance under another file name is taken once. Raises `Refused` with the reason: no chest,
    subtracted, in colour, larger than any detector, damaged.
    """
    by_instance: dict[str, tuple[Path, Dataset]] = {}
    for path in source.files:
        header = _header(path)
        by_instance.setdefault(str(header.get("SOPInstanceUID") or path), (path, header))
    return [
        radiograph
        for _, (path, header) in sorted(by_instance.items(), key=lambda one: one[0])
        for radiograph in _read(path, header)
    ]


def _read(path: Path, header: Dataset) -> list[Radiograph]:
    try:
        _check_shows_a_chest(header)
        frames = _check_pixels(header)
        attributes = attributes_of(header)
        pixels = _stored_values(path, header, frames)
    except Refused as refused:
        raise Refused(refused.reason, where=path.name) from refused
    said = "BurnedInAnnotation is YES" if words(header, "BurnedInAnnotation") == ["YES"] else ""
    return [
        Radiograph(
            picture,
            {**attributes, "frame": number} if frames > 1 else attributes,
            _date(header),
            said or burned_in_text(picture),
        )
        for number, picture in enumerate(pixels, 1)
    ]


def _header(path: Path) -> Dataset:
    tags = ["SOPInstanceUID", "NumberOfFrames", *_DATES, *_PIXELS, *_WHAT_IT_SHOWS, *ATTRIBUTES]
    try:
        header = read_header(path, tags)
    except Unreadable as error:
        raise Refused(str(error), where=path.name) from error
    if header is None:
        raise Refused("not DICOM", where=path.name)
    return header


def _check_shows_a_chest(header: Dataset) -> None:
    """`Refused` for another part of the body and for pictures that are computed from several."""
    part = " ".join(words(header, "BodyPartExamined"))
    if part and not _CHEST.search(part):
        raise Refused(f"no chest: {part if _OTHER_PARTS.fullmatch(part) else 'another part of the body'}")
    kind = " ".join(words(header, "ImageType"))
    if _NO_RADIOGRAPH.search(kind):
        raise Refused("no radiograph: a localizer or a tomographic picture")
    described = words(header, "SeriesDescription") + words(header, "AcquisitionDeviceProcessingDescription")
    if _SUBTRACTED.search(" ".join([kind, *described])):
        raise Refused("a subtracted picture: bone or soft tissue alone")
    if words(header, "QualityControlImage") == ["YES"]:
        raise Refused("a quality-control picture")


def _check_pixels(header: Dataset) -> int:
    """The number of frames; `Refused` where the header promises what is no grey picture of sensible size."""
    frames = _whole(header, "NumberOfFrames", default=1)
    samples, rows, columns = (_whole(header, k) for k in ("SamplesPerPixel", "Rows", "Columns"))
    allocated, stored, high = (_whole(header, k) for k in ("BitsAllocated", "BitsStored", "HighBit"))
    photometric = " ".join(words(header, "PhotometricInterpretation"))
    if samples != 1 or photometric not in ("MONOCHROME1", "MONOCHROME2"):
        raise Refused("no grey picture: expected MONOCHROME1 or MONOCHROME2, one sample a pixel")
    if min(rows, columns) < MIN_SIDE or frames < 1 or frames * rows * columns > MAX_PIXELS:
        raise Refused(f"{rows}×{columns} pixels in {frames} frames: no size of a radiograph")
    if allocated not in (8, 16) or not 1 < stored <= allocated or high != stored - 1:
        raise Refused(f"{stored} bits stored of {allocated}, the highest at {high}: not taken")
    if _whole(header, "PixelRepresentation") not in (0, 1):
        raise Refused("its PixelRepresentation is neither 0 nor 1")
    return frames


def _whole(header: Dataset, keyword: str, default: int | None = None) -> int:
    value = header.get(keyword)
    if value in (None, ""):
        value = default
    if not isinstance(value, int):
        raise Refused(f"its header has no {keyword} that is a whole number")
    return int(value)


def _stored_values(path: Path, header: Dataset, frames: int) -> np.ndarray:
    """(frame, row, column) uint16 or int16, by GDCM.

    GDCM inverts MONOCHROME1 and applies the modality LUT where the header has them, so it is given the pixels
    with nothing of their header but shape and type.
    """
    expected = (frames, _whole(header, "Rows"), _whole(header, "Columns"))
    image = _decode(_pixels_alone(path, header, math.prod(expected) * _whole(header, "BitsAllocated") // 8))
    if image.shape != expected or image.dtype.kind not in "iu":
        raise Refused(f"holds {image.shape} pixels where its header says {expected}")
    return image.astype(np.int16 if image.dtype.kind == "i" else np.uint16)


def _pixels_alone(path: Path, header: Dataset, length: int) -> Dataset:
    """A data set of the pixels and their type; `Refused` where native ones are fewer than `length` bytes."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tags = [*_PIXELS, "NumberOfFrames", "PixelData"]
            data = pydicom.dcmread(path, specific_tags=tags, force=True)
            pixels = data["PixelData"]
            syntax = data.file_meta.get("TransferSyntaxUID")
    except Exception as error:  # pydicom raises whatever its parser trips over
        raise Refused("its pixels cannot be read (truncated or damaged)") from error
    syntax = syntax or (ImplicitVRLittleEndian if data.original_encoding[0] else ExplicitVRLittleEndian)
    if UID(syntax).is_encapsulated:
        if syntax not in _DECODED:
            raise Refused(f"its pixels are compressed as {UID(syntax).name}, which is not decoded here")
        _check_codestreams(pixels.value, header)
    elif len(pixels.value) < length:
        raise Refused(f"{len(pixels.value)} bytes of pixels where its header says {length} (truncated?)")
    data.PhotometricInterpretation = "MONOCHROME2"
    data.SOPClassUID = MultiFrameGrayscaleWordSecondaryCaptureImageStorage
    data.SOPInstanceUID = "2.25.1"
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = syntax
    return data


def _check_codestreams(value: bytes, header: Dataset) -> None:
    """`Refused` for a compressed picture of another size than the header says: it is decoded at its own."""
    rows, columns = _whole(header, "Rows"), _whole(header, "Columns")
    try:
        frames = [frame for frame in map(read_frame, generate_fragments(value)) if frame]
    except ValueError as error:
        raise Refused("its pixels cannot be read (truncated or damaged)") from error
    for frame in frames:
        if misfit := frame.misfit(rows, columns):
            raise Refused(f"its {misfit}")


def _decode(data: Dataset) -> np.ndarray:
    """(frame, row, column) of a data set, by GDCM, which reads files alone."""
    with NamedTemporaryFile(suffix=".dcm") as file:
        try:
            data.save_as(file, enforce_file_format=True)
            file.flush()
            image = sitk.ReadImage(file.name, imageIO="GDCMImageIO")
        except Exception as error:  # pydicom's writer and SimpleITK's reader raise what they like
            raise Refused("its pixels cannot be decoded (truncated or damaged)") from error
        return sitk.GetArrayFromImage(image)


def _date(header: Dataset) -> str:
    """The first date that is one, of the exposure before that of the examination."""
    for keyword in _DATES:
        value = str(header.get(keyword) or "").strip()
        try:
            if datetime.strptime(value, "%Y%m%d"):
                return value
        except ValueError:
            continue
    return ""
