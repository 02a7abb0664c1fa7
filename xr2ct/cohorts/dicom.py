"""One DICOM series: slices in the order of their positions, pixels by GDCM, a case refused where they lie."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from pydicom.dataset import Dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from xr2ct.cohorts import vocabulary
from xr2ct.cohorts.facts import SAME_PLACE_MM
from xr2ct.cohorts.headers import Unreadable, read_header
from xr2ct.cohorts.itk import read_itk
from xr2ct.cohorts.pixel_data import check_frame, check_pixel_data
from xr2ct.cohorts.refused import Refused
from xr2ct.cohorts.series import MIN_SLICES
from xr2ct.cohorts.volume import AIR_HU, SPACING_MM, NativeVolume, clip_hu, patient_axes

TILT_DEG = 0.5
"""Largest angle between the slices' normal and the line on which they are stacked."""
SIDEWAYS_MM = 1.0
"""Furthest that a slice may lie off that line."""
GAP_TOLERANCE = 0.1
"""Largest departure of a gap from the series' median gap, as a part of it."""
ROUNDING_MM = 0.11
"""What a gap may be off anyway: some scanners write positions to a tenth of a millimetre."""
TISSUE_HU = -900.0
"""From here up a padding value could be a patient's."""

SIDE = (16, 4096)
"""Fewest and most pixels of a slice a side; no scanner makes more than 2048."""
HIGHEST_HU = 131072
"""Beyond what 16 bits and a slope of 2 can mean."""
MOST_VOXELS = 400_000_000
"""Of a scan as it is held, 0.8 GB; of a larger one neighbours are averaged as it is read."""

_REQUIRED = {
    "Rows": 1,
    "Columns": 1,
    "PixelSpacing": 2,
    "ImagePositionPatient": 3,
    "ImageOrientationPatient": 6,
    "RescaleSlope": 1,
    "RescaleIntercept": 1,
    "BitsAllocated": 1,
    "BitsStored": 1,
    "PixelRepresentation": 1,
}
"""Elements that a slice must have, and how many numbers each is."""
_OPTIONAL = [
    "SamplesPerPixel",
    "NumberOfFrames",
    "GantryDetectorTilt",
    "PixelPaddingValue",
    "PixelPaddingRangeLimit",
    "ConvolutionKernel",
    "ContrastBolusAgent",
    "SliceThickness",
    "KVP",
    "Manufacturer",
]


_PLAIN = {
    ImplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
}
"""Transfer syntaxes of pixels that are not compressed."""


@dataclass(frozen=True)
class Slice:
    """What a slice's header says of its place and its values."""

    path: Path
    shape: tuple[int, int]
    spacing_mm: tuple[float, float]
    """Between rows, between columns."""
    position: np.ndarray
    """(3,) LPS millimetres of the first pixel's centre."""
    orientation: np.ndarray
    """(2, 3) unit vectors along which columns and rows count up."""
    tilt_deg: float
    slope: float
    intercept: float
    padding: tuple[tuple[float, float], ...]
    """Ranges of HU that stand for "no pixel"."""
    compressed: bool = False

    @property
    def normal(self) -> np.ndarray:
        """Unit vector across the slice."""
        return np.cross(self.orientation[0], self.orientation[1])


def read_series(files: Sequence[Path]) -> NativeVolume:
    """The series as (z, y, x) int16 HU in patient axes.

    Raises `Refused` with the reason: slices missing, doubled, unevenly spaced, tilted, unlike each other,
    oblique to the patient by more than 2°, or a file that cannot be read. `SpacingBetweenSlices` and file
    names play no part: positions alone say where slices lie.
    """
    slices, gap_mm, header = _stacked(files)
    return _volume(slices, gap_mm, header)


def read_sampled(files: Sequence[Path], count: int) -> NativeVolume:
    """Of the series at most `count` slices, evenly spaced, the first and the last among them.

    Every header is read, and checked as in `read_series`.
    """
    slices, gap_mm, header = _stacked(files)
    places = np.unique(np.linspace(0, len(slices) - 1, min(count, len(slices))).round().astype(int))
    step = gap_mm * (len(slices) - 1) / (len(places) - 1)
    return _volume([slices[place] for place in places], step, header)


def _stacked(files: Sequence[Path]) -> tuple[list[Slice], float, Dataset]:
    """The slices in their order, the millimetres from one to the next, and the first file's header."""
    if len(files) < MIN_SLICES:
        raise Refused(f"too few slices: {len(files)}, at least {MIN_SLICES} are needed")
    first = _header(files[0])
    slices = [_slice(path, _header(path) if place else first) for place, path in enumerate(files)]
    check_alike(slices)
    return *stack(slices), first


def _volume(slices: Sequence[Slice], gap_mm: float, header: Dataset) -> NativeVolume:
    """Filled slice by slice in patient axes: the volume is held once, and never twice."""
    first = slices[0]
    turn = patient_axes(np.stack([first.normal, first.orientation[1], first.orientation[0]]))
    shape, steps = (len(slices), *first.shape), (gap_mm, *first.spacing_mm)
    together = _averaged(shape)
    hu = np.empty([shape[axis] // together[axis] for axis in turn.order], np.int16)
    for number, place in enumerate(turn.undo(hu)):
        place[:] = _mean(slices[number * together[0] : (number + 1) * together[0]], together[1])
    z, y, x = (steps[axis] for axis in turn.order)
    attributes = _attributes(header, shape[turn.order[0]], (z, y, x))
    if max(together) > 1:
        attributes["averaged"] = [together[axis] for axis in turn.order]
    z, y, x = (steps[axis] * together[axis] for axis in turn.order)
    return NativeVolume(hu, (z, y, x), attributes)


def _averaged(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """How many slices, rows and columns become one, so that at most `MOST_VOXELS` are held: pixels of a
    matrix above 512² first, slices then."""
    pixels = 1
    while math.prod(shape) > MOST_VOXELS * pixels**2 and min(shape[1:]) // (pixels + 1) >= 512:
        pixels += 1
    slices = -(-math.prod(shape) // (MOST_VOXELS * pixels**2))
    return slices, pixels, pixels


def _mean(slices: Sequence[Slice], pixels: int) -> np.ndarray:
    """The mean of slices that become one, over squares of `pixels`; what is left over at the far end goes."""
    if len(slices) == pixels == 1:
        return _pixels(slices[0])
    rows, columns = (side // pixels for side in slices[0].shape)
    total = np.zeros((rows, columns), np.float32)
    for one in slices:
        part = _pixels(one)[: rows * pixels, : columns * pixels]
        total += part.reshape(rows, pixels, columns, pixels).sum(axis=(1, 3), dtype=np.float32)
    return np.rint(total / (len(slices) * pixels**2)).astype(np.int16)


def stack(slices: Sequence[Slice]) -> tuple[list[Slice], float]:
    """The slices along their normal, and the millimetres from one to the next; `Refused` if uneven."""
    normal = slices[0].normal
    ordered = sorted(slices, key=lambda one: float(one.position @ normal))
    positions = np.stack([one.position for one in ordered])
    along = (positions - positions[0]) @ normal
    gaps = np.diff(along)
    _check_upright(ordered, positions - positions[0], along)
    doubled = int((gaps < SAME_PLACE_MM).sum())
    if doubled:
        raise Refused(f"duplicated slices: {doubled} of {len(slices)} lie where another does")
    usual = float(np.median(gaps))
    if usual > SPACING_MM[1]:
        raise Refused(f"slices lie {usual:g} mm apart")
    tolerance = max(GAP_TOLERANCE * usual, ROUNDING_MM)
    if np.abs(gaps - usual).max() > tolerance:
        missing = np.rint(gaps / usual) - 1
        if np.abs(gaps - (missing + 1) * usual).max() <= tolerance:
            raise Refused(
                f"missing slices: {int(missing.sum())} between the others "
                f"(a gap of {gaps.max():.2f} mm where {usual:.2f} is usual)"
            )
        raise Refused(f"irregular gaps between slices: {gaps.min():.2f} to {gaps.max():.2f} mm")
    return ordered, float(along[-1] / len(gaps))


def _check_upright(slices: Sequence[Slice], offsets: np.ndarray, along: np.ndarray) -> None:
    """Refuse a stack that leans: the slices' normal must be the line on which they are stacked."""
    sideways = offsets - along[:, None] * slices[0].normal
    lean = math.degrees(math.atan2(float(np.linalg.norm(sideways[-1])), float(along[-1])))
    tilt = max(lean, *(abs(one.tilt_deg) for one in slices))
    if tilt > TILT_DEG:
        raise Refused(f"gantry tilt of {tilt:.1f}°: the slices do not stand upright on each other")
    line = np.outer(along / along[-1], sideways[-1]) if along[-1] else 0.0
    if np.linalg.norm(sideways - line, axis=1).max() > SIDEWAYS_MM:
        raise Refused(f"slices lie up to {np.linalg.norm(sideways, axis=1).max():.1f} mm aside of each other")


def check_alike(slices: Sequence[Slice]) -> None:
    """`Refused` where slices differ in shape, pixels or orientation."""
    first = slices[0]
    for one in slices[1:]:
        if one.shape != first.shape:
            what = f"{one.shape[0]}×{one.shape[1]} and {first.shape[0]}×{first.shape[1]} pixels"
        elif not np.allclose(one.spacing_mm, first.spacing_mm, rtol=1e-3):
            what = f"pixels of {one.spacing_mm[0]:g} and {first.spacing_mm[0]:g} mm"
        elif not np.allclose(one.orientation, first.orientation, atol=1e-3):
            what = "orientations"
        else:
            continue
        raise Refused(f"slices differ in one series: {what}")


def _header(path: Path) -> Dataset:
    try:
        header = read_header(path, [*_REQUIRED, *_OPTIONAL], check_pixel_data)
    except Unreadable as error:
        raise Refused(str(error), where=path.name) from error
    if header is None:
        raise Refused("not DICOM", where=path.name)
    missing = [keyword for keyword in _REQUIRED if header.get(keyword) in (None, "")]
    if missing:
        more = f" and {len(missing) - 1} more elements (truncated?)" if len(missing) > 1 else ""
        raise Refused(f"its header has no {missing[0]}{more}", where=path.name)
    return header


def _slice(path: Path, header: Dataset) -> Slice:
    numbers = {keyword: _numbers(path, header, keyword, count) for keyword, count in _REQUIRED.items()}
    shape = (int(numbers["Rows"][0]), int(numbers["Columns"][0]))
    _check_pixels(path, header, shape)
    slope, intercept = float(numbers["RescaleSlope"][0]), float(numbers["RescaleIntercept"][0])
    if slope <= 0:
        raise Refused(f"RescaleSlope is {slope:g}", where=path.name)
    spacing = numbers["PixelSpacing"]
    if spacing.min() < SPACING_MM[0] or spacing.max() > SPACING_MM[1]:
        raise Refused(f"PixelSpacing is {spacing[0]:g}, {spacing[1]:g}", where=path.name)
    orientation = numbers["ImageOrientationPatient"].reshape(2, 3)
    if not np.allclose(orientation @ orientation.T, np.eye(2), atol=1e-2):
        raise Refused("ImageOrientationPatient is no pair of perpendicular unit vectors", where=path.name)
    tilt = header.get("GantryDetectorTilt")
    return Slice(
        path=path,
        shape=shape,
        spacing_mm=(float(spacing[0]), float(spacing[1])),
        position=numbers["ImagePositionPatient"],
        orientation=orientation,
        tilt_deg=float(_numbers(path, header, "GantryDetectorTilt", 1)[0]) if tilt not in (None, "") else 0.0,
        slope=slope,
        intercept=intercept,
        padding=_padding(header, slope, intercept),
        compressed=header.file_meta.get("TransferSyntaxUID", ImplicitVRLittleEndian) not in _PLAIN,
    )


def _check_pixels(path: Path, header: Dataset, shape: tuple[int, int]) -> None:
    """Refuse what no slice is before memory is asked for it."""
    if min(shape) < SIDE[0] or max(shape) > SIDE[1]:
        raise Refused(
            f"{shape[0]}×{shape[1]} pixels, expected from {SIDE[0]} to {SIDE[1]} a side", where=path.name
        )
    for keyword in ("SamplesPerPixel", "NumberOfFrames"):
        if header.get(keyword) not in (None, "", 1):
            raise Refused(f"{keyword} is not 1", where=path.name)
    allocated, stored = header.BitsAllocated, header.BitsStored
    fits = allocated in (8, 16, 32) and 1 <= stored <= allocated
    if not fits or header.PixelRepresentation not in (0, 1):
        raise Refused(f"pixels of {stored} bits in {allocated}, which no CT has", where=path.name)


def _numbers(path: Path, header: Dataset, keyword: str, count: int) -> np.ndarray:
    try:
        values = np.atleast_1d(np.asarray(header[keyword].value, np.float64))
    except (TypeError, ValueError) as error:
        raise Refused(f"{keyword} is not a number", where=path.name) from error
    if values.shape != (count,) or not np.isfinite(values).all():
        raise Refused(f"{keyword} is not {count} finite numbers", where=path.name)
    return values


def _padding(header: Dataset, slope: float, intercept: float) -> tuple[tuple[float, float], ...]:
    """Padding as ranges of HU. Its VR often disagrees with the pixels' (63536 for −2000), and unused high
    bits are masked on decoding, so the value is read in the pixels' own bits, allocated and stored."""
    value = header.get("PixelPaddingValue")
    if not isinstance(value, int):
        return ()
    limit = header.get("PixelPaddingRangeLimit")
    ends = (value, limit if isinstance(limit, int) else value)
    signed = header.PixelRepresentation == 1
    ranges = set()
    for bits in (header.BitsAllocated, header.BitsStored):
        hu = sorted(_in_bits(end, bits, signed) * slope + intercept for end in ends)
        ranges.add((hu[0] - abs(slope) / 2, hu[1] + abs(slope) / 2))
    return tuple(sorted(ranges))


def _in_bits(value: int, bits: int, signed: bool) -> int:
    value &= (1 << bits) - 1
    return value - (1 << bits) if signed and value >= 1 << (bits - 1) else value


def _pixels(one: Slice) -> np.ndarray:
    """(row, column) int16 HU; GDCM decompresses and rescales."""
    try:
        if one.compressed:
            read_header(one.path, ["Rows", "Columns", "BitsAllocated"], check_frame)
        image = read_itk(one.path, "GDCMImageIO")
    except Unreadable as error:
        raise Refused(str(error), where=one.path.name) from error
    except (RuntimeError, OSError, MemoryError) as error:
        raise Refused("pixels cannot be read (truncated or damaged)", where=one.path.name) from error
    array = sitk.GetArrayViewFromImage(image)
    if array.shape != (1, *one.shape):
        found, expected = ("×".join(map(str, shape)) for shape in (array.shape, (1, *one.shape)))
        raise Refused(f"holds {found} pixels where its header says {expected}", where=one.path.name)
    if not -HIGHEST_HU <= float(array.min()) <= float(array.max()) <= HIGHEST_HU:  # or not a number
        raise Refused(f"pixels from {array.min():g} to {array.max():g} HU", where=one.path.name)
    hu = array[0] if np.issubdtype(array.dtype, np.integer) else np.rint(array[0])
    hu = hu.astype(np.int32)
    for low, high in one.padding:
        mask = (array[0] >= low) & (array[0] <= high)
        if high > TISSUE_HU:
            # A wrong header must not drill holes into tissue: padding reaches the picture's border.
            inner = sitk.BinaryGrindPeak(sitk.GetImageFromArray(mask.astype(np.uint8)), foregroundValue=1)
            mask = sitk.GetArrayViewFromImage(inner).astype(bool)
        hu[mask] = AIR_HU
    return clip_hu(hu)


def _attributes(header: Dataset, slices: int, spacing_mm: tuple[float, float, float]) -> dict[str, Any]:
    """What a reader of the store may want to sort by; nothing that names a patient, a day or a place."""
    agent = _text(header, "ContrastBolusAgent").upper()
    return {
        "format": "dicom",
        "slices": slices,
        "spacing_mm": [round(value, 6) for value in spacing_mm],
        "thickness_mm": _optional_number(header, "SliceThickness"),
        "kernel": vocabulary.kernel(_text(header, "ConvolutionKernel")) or None,
        "contrast": agent not in ("", "NO", "NONE", "N"),
        "kvp": _optional_number(header, "KVP"),
        "manufacturer": vocabulary.manufacturer(_text(header, "Manufacturer")) or None,
    }


def _text(header: Dataset, keyword: str) -> str:
    value = header.get(keyword)
    return (
        "/".join(map(str, value))
        if isinstance(value, Sequence) and not isinstance(value, str)
        else str(value or "")
    )


def _optional_number(header: Dataset, keyword: str) -> float | None:
    try:
        number = float(header.get(keyword))
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None
