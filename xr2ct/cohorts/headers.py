"""DICOM headers: which file is an image of which series, and what is no slice of a chest CT."""

from __future__ import annotations

import math
import re
import stat
import struct
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage, EnhancedCTImageStorage, MediaStorageDirectoryStorage

from xr2ct.cohorts import vocabulary

_DICOM_SUFFIXES = {".dcm", ".dicom", ".ima"}
_SECONDARY_CAPTURES = "1.2.840.10008.5.1.4.1.1.7"
_NO_SLICE = (
    (re.compile(r"DOSE"), "dose page"),
    (re.compile(r"SCREEN"), "screen save"),
    (re.compile(r"PROT"), "protocol page"),
    (re.compile(r"(?<![A-Z])M(AX|IN)?IP(?![A-Z])|PROJECTION"), "projection"),
    (re.compile(r"VRT|RENDER"), "rendering"),
)
"""Words of ImageType, and what they stand for."""
_IDENTITY = ["PatientID", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"]
_KIND = ["Modality", "ImageType", "SamplesPerPixel", "AcquisitionNumber"]
_PLACE = ["Rows", "Columns", "PixelSpacing", "ImagePositionPatient", "ImageOrientationPatient"]
_MADE = ["GantryDetectorTilt", "SliceThickness", "ConvolutionKernel"]
_CONTRAST_SIGNS = [
    "ContrastBolusRoute",
    "ContrastBolusVolume",
    "ContrastBolusTotalDose",
    "ContrastBolusStartTime",
]
_CONTRAST = ["ContrastBolusAgent", "ContrastBolusAgentSequence", *_CONTRAST_SIGNS]
_DATES = ["AcquisitionDate", "ContentDate", "SeriesDate", "StudyDate"]
_NO_CONTRAST = {"NO", "NONE", "N", "NON", "0", "WITHOUT", "W/O", "NO CONTRAST", "OHNE", "SANS"}


class Unreadable(Exception):
    """A file that is, or calls itself, DICOM and cannot be read."""


@dataclass(frozen=True)
class Identity:
    """Where an image belongs and how it was made: the same of most slices of a series."""

    patient: str
    study: str
    series: str
    derived: bool
    """Marked DERIVED\\SECONDARY: made from other slices."""
    left_out: str
    """Why this is no slice of a CT scan; empty for one that is."""
    modality: str
    kernel: str
    contrast: bool | None
    thickness_mm: float | None
    acquisition: int | None
    date: str
    """yyyymmdd, "" where unknown."""
    shape: tuple[int, int] | None
    """Rows and columns."""
    pixel_mm: tuple[float, ...] | None
    """Between rows, between columns."""
    orientation: tuple[float, ...] | None
    """Six direction cosines, as in ImageOrientationPatient."""
    tilt_deg: float


@dataclass(frozen=True)
class Image:
    """One DICOM image."""

    identity: Identity
    instance: str
    """SOPInstanceUID."""
    position: tuple[float, ...] | None
    """LPS millimetres of the first pixel's centre."""


def read_header(
    path: Path, tags: Sequence[str], at_pixels: Callable[[BinaryIO, Dataset], None] | None = None
) -> Dataset | None:
    """The named elements of a DICOM file and its SOP class, pixels left alone; None where it is not DICOM.

    A file without preamble is known by its first element and its SOP class. `at_pixels` is called with the
    file where its pixels begin, and may raise `Unreadable`. Raises `Unreadable`.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # a pipe would never end
            return None
        with path.open("rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            start = file.read(132)
            claims = start[128:] == b"DICM" or path.suffix.lower() in _DICOM_SUFFIXES
            if start[128:] != b"DICM" and not _bare_data_set(start):
                if claims:
                    raise Unreadable("not DICOM" if start else "empty file")
                return None
            file.seek(0)
            header = pydicom.dcmread(
                file, stop_before_pixels=True, specific_tags=["SOPClassUID", *tags], force=True
            )
            _drop_nonsense(header)
            if at_pixels:
                at_pixels(file, header)
    except Unreadable:
        raise
    except OSError as error:
        raise Unreadable(f"cannot be read ({error.strerror})") from error
    except Exception as error:  # pydicom raises whatever its parser trips over
        if not claims:
            return None
        raise Unreadable(f"not readable as DICOM ({type(error).__name__})") from error
    if not claims and not _text(header, "SOPClassUID"):
        return None  # bytes that only began like a data set
    return header


def _drop_nonsense(header: Dataset) -> None:
    """Leave out elements whose bytes are no value of their kind: pydicom decodes one when it is asked for."""
    for part in (header, header.file_meta):
        for tag in list(part.keys()):
            try:
                str(part[tag].value)
            except Exception:  # whatever its decoders trip over
                del part[tag]


def identify(path: Path) -> Image | None:
    """Which image of which series the file is; None where it is no DICOM image. Raises `Unreadable`."""
    header = read_header(path, [*_IDENTITY, *_KIND, *_PLACE, *_MADE, *_CONTRAST, *_DATES])
    if header is None or _text(header.file_meta, "MediaStorageSOPClassUID") == MediaStorageDirectoryStorage:
        return None
    series = _text(header, "SeriesInstanceUID")
    if not series or not (_text(header, "SOPClassUID") or _text(header, "Modality")):
        raise Unreadable("its header ends before the series is named")
    image_type = _image_type(header)
    rows, columns, acquisition = (_numbers(header, k, 1) for k in ("Rows", "Columns", "AcquisitionNumber"))
    identity = Identity(
        patient=_text(header, "PatientID"),
        study=_text(header, "StudyInstanceUID"),
        series=series,
        derived=image_type[:2] == ["DERIVED", "SECONDARY"],
        left_out=_left_out(header, image_type),
        modality=vocabulary.modality(_text(header, "Modality")),
        kernel=vocabulary.kernel("\\".join(_words(header, "ConvolutionKernel"))),
        contrast=_contrast(header),
        thickness_mm=(_numbers(header, "SliceThickness", 1) or (None,))[0],
        acquisition=int(acquisition[0]) if acquisition else None,
        date=next((date for date in (_date(header, k) for k in _DATES) if date), ""),
        shape=(int(rows[0]), int(columns[0])) if rows and columns else None,
        pixel_mm=_numbers(header, "PixelSpacing", 2),
        orientation=_numbers(header, "ImageOrientationPatient", 6),
        tilt_deg=(_numbers(header, "GantryDetectorTilt", 1) or (0.0,))[0],
    )
    return Image(identity, _text(header, "SOPInstanceUID"), _numbers(header, "ImagePositionPatient", 3))


def _contrast(header: Dataset) -> bool | None:
    """Whether contrast medium was given. The standard wants its elements where it was, so without any it was
    not; an element left empty says nothing: de-identification empties it."""
    agent = _text(header, "ContrastBolusAgent").upper()
    if agent:
        return agent not in _NO_CONTRAST
    if header.get("ContrastBolusAgentSequence") or any(_text(header, sign) for sign in _CONTRAST_SIGNS):
        return True
    return None if any(keyword in header for keyword in _CONTRAST) else False


def _date(header: Dataset, keyword: str) -> str:
    digits = re.sub(r"\D", "", _text(header, keyword))[:8]
    return digits if len(digits) == 8 else ""


def _numbers(header: Dataset, keyword: str, count: int) -> tuple[float, ...] | None:
    """Finite numbers, this many of them; None where the element is absent or anything else."""
    try:
        values = tuple(float(word) for word in _words(header, keyword))
    except ValueError:
        return None
    return values if len(values) == count and all(map(math.isfinite, values)) else None


def _left_out(header: Dataset, image_type: list[str]) -> str:
    sop_class = _text(header, "SOPClassUID")
    modality = _text(header, "Modality")
    if sop_class.startswith(_SECONDARY_CAPTURES):
        return "secondary capture"
    if modality != "CT" and sop_class != CTImageStorage:
        return f"modality {vocabulary.modality(modality) or 'not given'}"
    if "LOCALIZER" in image_type:
        return "localizer"
    if sop_class == EnhancedCTImageStorage:
        return "enhanced multi-frame CT"
    if sop_class and sop_class != CTImageStorage:
        known = sop_class in pydicom.uid.UID_dictionary
        return f"no CT image ({pydicom.uid.UID(sop_class).name if known else 'unknown SOP class'})"
    page = next((page for pattern, page in _NO_SLICE if any(map(pattern.search, image_type[2:]))), None)
    if page:
        return page
    flat = "ImagePositionPatient" not in header or _text(header, "SamplesPerPixel") not in ("", "1")
    if flat and image_type[:2] == ["DERIVED", "SECONDARY"]:
        return "screen save"
    return ""


def _image_type(header: Dataset) -> list[str]:
    return [word.upper() for word in _words(header, "ImageType")]


def _words(header: Dataset, keyword: str) -> list[str]:
    """The values of an element as text."""
    value = header.get(keyword)
    if value is None or value == "":
        return []
    many = isinstance(value, Sequence) and not isinstance(value, str | bytes)
    return [str(word).strip() for word in (value if many else [value])]


def _text(header: Dataset, keyword: str) -> str:
    return str(header.get(keyword) or "").strip()


def _bare_data_set(start: bytes) -> bool:
    """Whether bytes begin a data set without preamble: group 0002 or 0008, then a VR or a short length."""
    if len(start) < 16:
        return False
    group, element, length = struct.unpack("<HHI", start[:8])
    explicit = start[4:6].isalpha() and start[4:6].isupper()
    return group in (0x0002, 0x0008) and element < 0x0100 and (explicit or length <= 256)
