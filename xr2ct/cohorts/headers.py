"""DICOM headers: which file is an image of which series, and what is no slice of a chest CT."""

from __future__ import annotations

import re
import struct
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage, EnhancedCTImageStorage, MediaStorageDirectoryStorage

_DICOM_SUFFIXES = {".dcm", ".dicom", ".ima"}
_SECONDARY_CAPTURES = "1.2.840.10008.5.1.4.1.1.7"
_NO_SLICE = re.compile(r"DOSE|SCREEN|PROT|VRT|\bM(AX|IN)?IP\b|PROJECTION|RENDER", re.IGNORECASE)
_IDENTITY = [
    "PatientID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "Modality",
    "ImageType",
    "ImagePositionPatient",
    "SamplesPerPixel",
]


class Unreadable(Exception):
    """A file that is, or calls itself, DICOM and cannot be read."""


@dataclass(frozen=True)
class Identity:
    """Where an image belongs."""

    patient: str
    study: str
    series: str
    derived: bool
    """Marked DERIVED\\SECONDARY: made from other slices."""
    left_out: str
    """Why this is no slice of a CT scan; empty for one that is."""


def read_header(path: Path, tags: Sequence[str]) -> Dataset | None:
    """The named elements of a DICOM file and its SOP class, pixels left alone; None where it is not DICOM.

    A file without preamble is known by its first element and its SOP class. Raises `Unreadable`.
    """
    try:
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


def identify(path: Path) -> Identity | None:
    """Where the file belongs; None where it is no DICOM image. Raises `Unreadable`."""
    header = read_header(path, _IDENTITY)
    if header is None or _text(header.file_meta, "MediaStorageSOPClassUID") == MediaStorageDirectoryStorage:
        return None
    series = _text(header, "SeriesInstanceUID")
    if not series or not (_text(header, "SOPClassUID") or _text(header, "Modality")):
        raise Unreadable("its header ends before the series is named")
    image_type = _image_type(header)
    return Identity(
        patient=_text(header, "PatientID"),
        study=_text(header, "StudyInstanceUID"),
        series=series,
        derived=image_type[:2] == ["DERIVED", "SECONDARY"],
        left_out=_left_out(header, image_type),
    )


def _left_out(header: Dataset, image_type: list[str]) -> str:
    sop_class = _text(header, "SOPClassUID")
    modality = _text(header, "Modality")
    if sop_class.startswith(_SECONDARY_CAPTURES):
        return "secondary capture"
    if modality != "CT" and sop_class != CTImageStorage:
        return f"modality {modality or 'not given'}"
    if "LOCALIZER" in image_type:
        return "localizer"
    if sop_class == EnhancedCTImageStorage:
        return "enhanced multi-frame CT"
    if sop_class and sop_class != CTImageStorage:
        return f"no CT image ({pydicom.uid.UID(sop_class).name})"
    word = next((word for word in image_type[2:] if _NO_SLICE.search(word)), None)
    if word:
        return f"{word.lower()} page"
    flat = "ImagePositionPatient" not in header or _text(header, "SamplesPerPixel") not in ("", "1")
    if flat and image_type[:2] == ["DERIVED", "SECONDARY"]:
        return "screen save"
    return ""


def _image_type(header: Dataset) -> list[str]:
    value = header.get("ImageType") or []
    return [str(word).strip().upper() for word in ([value] if isinstance(value, str) else value)]


def _text(header: Dataset, keyword: str) -> str:
    return str(header.get(keyword) or "").strip()


def _bare_data_set(start: bytes) -> bool:
    """Whether bytes begin a data set without preamble: group 0002 or 0008, then a VR or a short length."""
    if len(start) < 16:
        return False
    group, element, length = struct.unpack("<HHI", start[:8])
    explicit = start[4:6].isalpha() and start[4:6].isupper()
    return group in (0x0002, 0x0008) and element < 0x0100 and (explicit or length <= 256)
