"""What a radiograph's header says of its geometry and values: numbers and terms of fixed lists alone."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from xr2ct.cohorts.refused import Refused
from xr2ct.cohorts.vocabulary import manufacturer

_EDGES = ("Shape", "LeftVerticalEdge", "RightVerticalEdge", "UpperHorizontalEdge", "LowerHorizontalEdge")
_ROUND = ("CenterOfCircular", "RadiusOfCircular", "VerticesOfThePolygonal")

ATTRIBUTES = [
    "Modality",
    "PresentationIntentType",
    "PhotometricInterpretation",
    "BitsStored",
    "PixelRepresentation",
    "ViewPosition",
    "ViewCodeSequence",
    "PatientOrientation",
    "PixelSpacing",
    "ImagerPixelSpacing",
    "NominalScannedPixelSpacing",
    "PixelSpacingCalibrationType",
    "EstimatedRadiographicMagnificationFactor",
    "DistanceSourceToDetector",
    "DistanceSourceToPatient",
    "RescaleSlope",
    "RescaleIntercept",
    "RescaleType",
    "ModalityLUTSequence",
    "WindowCenter",
    "WindowWidth",
    "VOILUTFunction",
    "VOILUTSequence",
    "PresentationLUTShape",
    "PixelIntensityRelationship",
    "PixelIntensityRelationshipSign",
    "PixelPaddingValue",
    "PixelPaddingRangeLimit",
    "FieldOfViewRotation",
    "FieldOfViewHorizontalFlip",
    *(f"{blade}{end}" for blade in ("Shutter", "Collimator") for end in _EDGES),
    *(f"{start}{blade}" for blade in ("Shutter", "Collimator") for start in _ROUND),
    "Grid",
    "DetectorType",
    "KVP",
    "ExposureInuAs",
    "Exposure",
    "ExposureIndex",
    "LossyImageCompression",
    "LossyImageCompressionRatio",
    "Manufacturer",
]
"""Elements read by `attributes_of`."""

_VIEWS = {
    **{view: view for view in ("PA", "AP", "LL", "RL", "LLD", "RLD", "LLO", "RLO")},
    "POSTERO-ANTERIOR": "PA",
    "POSTEROANTERIOR": "PA",
    "ANTERO-POSTERIOR": "AP",
    "ANTEROPOSTERIOR": "AP",
    "LEFT LATERAL": "LL",
    "RIGHT LATERAL": "RL",
    "LLAT": "LL",
    "RLAT": "RL",
}
"""Terms of ViewPosition and what is written in their place."""
_VIEW_CODES = {
    **dict.fromkeys(["272479007", "R-10214", "R-40888"], "PA"),
    **dict.fromkeys(["399348003", "R-10206"], "AP"),
    **dict.fromkeys(["399173006", "R-10236"], "LL"),
    **dict.fromkeys(["399198007", "R-10232"], "RL"),
}
"""SNOMED CT and SNOMED RT codes of DICOM's context group 4010."""
_PLANES = {"PA": "frontal", "AP": "frontal", "LL": "lateral", "RL": "lateral"}
_PLANE_CODES = {
    **dict.fromkeys(["399033003", "R-10202"], "frontal"),
    **dict.fromkeys(["399067008", "R-102CD"], "lateral"),
}
_PLANE_WORDS = {"LAT": "lateral", "LATERAL": "lateral", "FRONTAL": "frontal"}
_DIRECTIONS = re.compile(r"[APRLHF]{1,3}")
_TERMS = {
    "Modality": {"DX", "CR"},
    "PresentationIntentType": {"FOR PRESENTATION", "FOR PROCESSING"},
    "PhotometricInterpretation": {"MONOCHROME1", "MONOCHROME2"},
    "PixelSpacingCalibrationType": {"GEOMETRY", "FIDUCIAL"},
    "RescaleType": {"OD", "HU", "US", "MGML", "Z_EFF", "ED", "EDW", "HU_MOD", "PCT", "PVAL"},
    "ModalityLUTType": {"OD", "HU", "US", "MGML", "Z_EFF", "ED", "EDW", "HU_MOD", "PCT", "PVAL"},
    "VOILUTFunction": {"LINEAR", "LINEAR_EXACT", "SIGMOID"},
    "PresentationLUTShape": {"IDENTITY", "INVERSE"},
    "PixelIntensityRelationship": {"LIN", "LOG", "DISP"},
    "FieldOfViewHorizontalFlip": {"YES", "NO"},
    "Grid": {"FIXED", "FOCUSED", "RECIPROCATING", "PARALLEL", "CROSSED", "NONE"},
    "DetectorType": {"DIRECT", "SCINTILLATOR", "STORAGE", "FILM"},
}
"""Defined terms of each coded element (DICOM PS3.3 C.7.6, C.8.11, C.11); all else is dropped."""


def attributes_of(header: Dataset) -> dict[str, Any]:
    """Everything needed to read a stored picture without its file.

    The chain of PS3.3 C.11 and PS3.4 N.2: stored value → `rescale` or `modality_lut` → one of `windows` (by
    `voi_function`) or of `voi_luts` → `photometric`. Lengths in mm. Raises `Refused` where an element of that
    chain is damaged.
    """
    imager = _pair(header, "ImagerPixelSpacing")
    pixel = _pair(header, "PixelSpacing")
    film = _pair(header, "NominalScannedPixelSpacing")
    spacing, spacing_from = _spacing(imager, pixel, film)
    return {
        "modality": _term(header, "Modality"),
        "intent": _term(header, "PresentationIntentType").removeprefix("FOR ").lower(),
        **_view(header),
        "spacing_mm": spacing,
        "spacing_from": spacing_from,
        "pixel_spacing_mm": pixel,
        "pixel_spacing_calibration": _term(header, "PixelSpacingCalibrationType").lower(),
        "magnification": _positive(header, "EstimatedRadiographicMagnificationFactor"),
        "sid_mm": _positive(header, "DistanceSourceToDetector"),
        "source_to_patient_mm": _positive(header, "DistanceSourceToPatient"),
        "field_of_view_rotation_deg": _number(header, "FieldOfViewRotation"),
        "field_of_view_flipped": _term(header, "FieldOfViewHorizontalFlip") == "YES",
        "openings": [*_openings(header, "Shutter"), *_openings(header, "Collimator")],
        **_values(header),
        "grid": [term for term in words(header, "Grid") if term in _TERMS["Grid"]],
        "detector": _term(header, "DetectorType").lower(),
        "kvp": _positive(header, "KVP"),
        "exposure_mas": _exposure_mas(header),
        "exposure_index": _positive(header, "ExposureIndex"),
        "lossy": words(header, "LossyImageCompression") == ["01"],
        "lossy_ratio": _positive(header, "LossyImageCompressionRatio"),
        "manufacturer": manufacturer(" ".join(words(header, "Manufacturer"))),
    }


def words(header: Dataset, keyword: str) -> list[str]:
    """An element's values as text in capitals; none where it is empty or unreadable."""
    value = _value(header, keyword)
    values = value if isinstance(value, MultiValue | list | tuple) else [value]
    return [str(one).strip().upper() for one in values if one not in (None, "")]


def _values(header: Dataset) -> dict[str, Any]:
    """What turns stored values into a picture, see `attributes_of`."""
    signed = _value(header, "PixelRepresentation") == 1
    bits = int(_value(header, "BitsStored"))
    return {
        "photometric": _term(header, "PhotometricInterpretation"),
        "bits_stored": bits,
        "rescale": _rescale(header),
        "modality_lut": next(iter(_luts(header, "ModalityLUTSequence", signed)), None),
        "windows": _windows(header),
        "voi_function": _term(header, "VOILUTFunction") or "LINEAR",
        "voi_luts": _luts(header, "VOILUTSequence", signed),
        "presentation_lut": _term(header, "PresentationLUTShape"),
        "intensity_relationship": _term(header, "PixelIntensityRelationship"),
        "intensity_sign": _sign(header),
        "padding": _padding(header, bits, signed),
    }


def _view(header: Dataset) -> dict[str, Any]:
    """The view, empty where not said; its plane; the patient's directions along a row and along a column."""
    position = " ".join(words(header, "ViewPosition"))
    codes = [" ".join(words(item, "CodeValue")) for item in _items(header, "ViewCodeSequence")]
    directions = words(header, "PatientOrientation")
    if len(directions) != 2 or not all(_DIRECTIONS.fullmatch(one) for one in directions):
        directions = []
    view = _VIEWS.get(position) or next((_VIEW_CODES[c] for c in codes if c in _VIEW_CODES), "")
    plane = (
        _PLANES.get(view)
        or _PLANE_WORDS.get(position)
        or next((_PLANE_CODES[c] for c in codes if c in _PLANE_CODES), "")
        or ("" if view else _plane(directions))
    )
    return {"view": view, "plane": plane, "patient_orientation": directions}


def _plane(directions: list[str]) -> str:
    """Frontal where rows run between the patient's sides and columns between head and feet, and so on."""
    along = "".join(one[0] for one in directions)
    if re.fullmatch(r"[LR][HF]|[HF][LR]", along):
        return "frontal"
    if re.fullmatch(r"[AP][HF]|[HF][AP]", along):
        return "lateral"
    return ""


def _spacing(
    imager: list[float] | None, pixel: list[float] | None, film: list[float] | None
) -> tuple[list[float] | None, str]:
    """The spacing to be used and where it holds.

    "detector": on the detector's surface (ImagerPixelSpacing). "unstated": PixelSpacing alone, which may be
    the detector's or already scaled into the patient. "film": of the film that was scanned.
    """
    if imager:
        return imager, "detector"
    if pixel:
        return pixel, "unstated"
    return (film, "film") if film else (None, "")


def _openings(header: Dataset, blade: str) -> list[dict[str, list[float]]]:
    """What a shutter or a collimator leaves open, in rows and columns from 1 (PS3.3 C.7.6.11, C.8.7.3).

    `edges` are the left, right, upper and lower one; `circle` its centre's row and column, and its radius;
    `polygon` rows and columns in turn. Several are to hold at once.
    """
    shapes = words(header, f"{blade}Shape")
    edges = [_numbers(header, f"{blade}{end}") for end in _EDGES[1:]]
    centre, radius, vertices = (_numbers(header, f"{start}{blade}") for start in _ROUND)
    openings = []
    if "RECTANGULAR" in shapes and all(len(edge) == 1 for edge in edges):
        openings.append({"edges": [edge[0] for edge in edges]})
    if "CIRCULAR" in shapes and len(centre) == 2 and len(radius) == 1:
        openings.append({"circle": [*centre, *radius]})
    if "POLYGONAL" in shapes and len(vertices) >= 6 and len(vertices) % 2 == 0:
        openings.append({"polygon": vertices})
    return openings


def _rescale(header: Dataset) -> dict[str, Any] | None:
    slope, intercept = (_number(header, k, strict=True) for k in ("RescaleSlope", "RescaleIntercept"))
    if slope is None and intercept is None:
        return None
    if not slope or intercept is None:
        raise Refused("its RescaleSlope and RescaleIntercept are no pair that rescales")
    return {"slope": slope, "intercept": intercept, "type": _term(header, "RescaleType")}


def _windows(header: Dataset) -> list[dict[str, float]]:
    centres, widths = (_numbers(header, k, strict=True) for k in ("WindowCenter", "WindowWidth"))
    if len(centres) != len(widths) or any(width <= 0 for width in widths):
        raise Refused("its WindowCenter and WindowWidth are no pairs")
    return [{"centre": c, "width": w} for c, w in zip(centres, widths, strict=True)]


def _luts(header: Dataset, keyword: str, signed: bool) -> list[dict[str, Any]]:
    """Lookup tables: `first` is the stored value mapped to the first of `data`, `bits` what an entry has."""
    return [_lut(item, keyword, signed) for item in _items(header, keyword)]


def _lut(item: Dataset, keyword: str, signed: bool) -> dict[str, Any]:
    descriptor = [int(value) & 0xFFFF for value in _numbers(item, "LUTDescriptor", strict=True)]
    if len(descriptor) != 3 or not 8 <= descriptor[2] <= 16:
        raise Refused(f"its {keyword} has no descriptor of three numbers")
    entries, first, bits = descriptor
    entries = entries or 1 << 16  # 65536 does not fit the element
    data = _value(item, "LUTData", strict=True)
    if isinstance(data, bytes):
        # PS3.3 C.11.1: words even where 8 bits would do; some writers pack bytes.
        table = np.frombuffer(data, "u1" if len(data) in (entries, entries + 1) else "<u2").tolist()
    else:
        table = [int(value) for value in (data if isinstance(data, MultiValue | list) else [data])]
    if len(table) - entries not in (0, 1):
        raise Refused(f"its {keyword} holds {len(table)} entries where {entries} are announced")
    return {
        "first": first - (1 << 16) if signed and first >= 1 << 15 else first,
        "bits": bits,
        "type": _term(item, "ModalityLUTType"),
        "data": table[:entries],
    }


def _padding(header: Dataset, bits: int, signed: bool) -> list[int] | None:
    """Lowest and highest stored value that stand for "no pixel"."""
    value, limit = (_value(header, k) for k in ("PixelPaddingValue", "PixelPaddingRangeLimit"))
    if not isinstance(value, int):
        return None
    ends = [one & ((1 << bits) - 1) for one in (value, limit if isinstance(limit, int) else value)]
    return sorted(one - (1 << bits) if signed and one >= 1 << (bits - 1) else one for one in ends)


def _sign(header: Dataset) -> int | None:
    """1 where more X-rays give larger values, −1 where smaller."""
    value = _value(header, "PixelIntensityRelationshipSign")
    return int(value) if value in (1, -1) else None


def _exposure_mas(header: Dataset) -> float | None:
    fine = _positive(header, "ExposureInuAs")
    return fine / 1000 if fine else _positive(header, "Exposure")


def _pair(header: Dataset, keyword: str) -> list[float] | None:
    """Two positive lengths, of rows and of columns; None where there are none (0\\0 stands for unknown)."""
    values = _numbers(header, keyword)
    return values if len(values) == 2 and min(values) > 0 else None


def _positive(header: Dataset, keyword: str) -> float | None:
    number = _number(header, keyword)
    return number if number and number > 0 else None


def _number(header: Dataset, keyword: str, strict: bool = False) -> float | None:
    return next(iter(_numbers(header, keyword, strict)), None)


def _numbers(header: Dataset, keyword: str, strict: bool = False) -> list[float]:
    """Finite numbers; none where one is not, or `Refused` if `strict`."""
    value = _value(header, keyword, strict)
    values = value if isinstance(value, MultiValue | list | tuple) else [value]
    try:
        numbers = [float(one) for one in values if one not in (None, "")]
    except (TypeError, ValueError):
        numbers = [math.nan]
    if all(map(math.isfinite, numbers)):
        return numbers
    if strict:
        raise Refused(f"its {keyword} is not a number")
    return []


def _items(header: Dataset, keyword: str) -> list[Dataset]:
    value = _value(header, keyword, strict=True)
    return [item for item in value or [] if isinstance(item, Dataset)]


def _term(header: Dataset, keyword: str) -> str:
    """A coded element's value where it is one of those defined, else empty."""
    text = " ".join(words(header, keyword))
    return text if text in _TERMS[keyword] else ""


def _value(header: Dataset, keyword: str, strict: bool = False) -> Any:
    try:
        return header.get(keyword)
    except Exception as error:  # pydicom converts when asked, and raises whatever it trips over
        if strict:
            raise Refused(f"its {keyword} is not readable") from error
        return None
