"""A real radiograph made comparable with the X-rays that a model was trained on.

A radiograph's line integral is known up to a gain and an offset: exposure, detector and processing are in it.
Here the unattenuated beam is 0 and the thickest part 1, so that a model whose X-rays are divided by their own
maximum meets the scale that it knows.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from xr2ct.cohorts.radiographs import read_radiographs
from xr2ct.cohorts.refused import Refused
from xr2ct.cohorts.series import Source
from xr2ct.errors import UserError
from xr2ct.projection.collimation import measured, unattenuated
from xr2ct.projection.exposure import attenuation_like, no_pixel
from xr2ct.projection.geometry import Geometry
from xr2ct.projection.placing import check_view, pixel_scale, resample, transposed, turn

THICKEST = 99.8
"""Percentile of what is seen that stands for the thickest part: markers of lead lie above it."""
THINNEST = 0.25
"""Of the thickest, the thinnest part (2nd percentile) of a chest that fills its picture: where no beam passes
beside it, this places 0."""


@dataclass(frozen=True)
class RadiographView:
    """One view, on the detector that the model knows."""

    line_integrals: np.ndarray
    """(row, col) float32 up to a gain: 0 for the unattenuated beam, 1 at most; 0 too where it is not seen."""
    seen: np.ndarray
    """(row, col) bool."""
    notes: tuple[str, ...]
    """What was assumed or found, a line each."""


def is_dicom(path: Path) -> bool:
    """By its first bytes, whatever it is called, or by its name."""
    if path.suffix.lower() in (".dcm", ".dicom"):
        return True
    try:
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def read_radiograph(
    path: Path,
    angle_deg: float,
    geometry: Geometry,
    *,
    detector_mm: float | None = None,
    accept: Collection[str] = (),
) -> RadiographView:
    """The view at an angle from a DICOM file of a DX or CR picture.

    detector_mm: length of the picture's long side on the detector, where the header has no spacing. accept:
    which statements of the header to overrule (`placing.Accepted`). Raises `UserError` naming the file for
    what is no readable radiograph of a chest, and where its header contradicts view, geometry or size.
    """
    if not path.is_file():
        raise UserError(f"{path}: there is no such file")
    try:
        pictures = read_radiographs(Source("", "", "", "radiograph", (path,)))
    except Refused as refused:
        raise UserError(f"{path}: {refused.reason}") from None
    if len(pictures) != 1:
        raise UserError(f"{path}: expected one picture, found {len(pictures)} frames")
    (picture,) = pictures
    view = to_view(
        picture.pixels,
        picture.attributes,
        angle_deg,
        geometry,
        str(path),
        detector_mm=detector_mm,
        accept=accept,
    )
    if picture.burned_in:
        note = f"text is burned into the picture ({picture.burned_in}): it is taken for patient"
        view = replace(view, notes=(*view.notes, note))
    return view


def to_view(
    pixels: np.ndarray,
    attributes: Mapping[str, Any],
    angle_deg: float,
    geometry: Geometry,
    where: str,
    *,
    detector_mm: float | None = None,
    accept: Collection[str] = (),
) -> RadiographView:
    """As `read_radiograph`, of stored values (row, col) and what `attributes_of` says of them.

    `where` names the picture in messages.
    """
    notes = check_view(attributes, angle_deg, where, accept)
    scale, more = pixel_scale(pixels.shape, attributes, geometry, detector_mm, where, accept)
    values, assumed = attenuation_like(pixels, attributes)
    seen = measured(values, ~no_pixel(pixels, attributes), attributes.get("openings", ()))
    notes += more + assumed
    if not seen.any():
        raise UserError(f"{where}: shows nothing that is a measurement")
    level = unattenuated(values, seen)
    directions = attributes["patient_orientation"]
    values, seen_there = (turn(picture, directions, angle_deg, where) for picture in (values, seen))
    if transposed(directions):
        scale = type(scale)(scale.col_mm, scale.row_mm)
    line_integrals, on_detector = resample(values, seen_there, scale, geometry)
    if not on_detector.any():
        raise UserError(f"{where}: nothing of it lies on the detector of geometry {geometry.name!r}")
    if not directions:
        notes.append("its header does not say how the patient lies in it: taken as shown to a reader")
    if not seen.all():
        notes.append(f"{100 * (1 - seen.mean()):.0f} % of the picture is collimated or masked")
    if level is None:
        notes.append("no beam passes beside the patient: zero is placed below the thinnest part")
    return RadiographView(_from_zero_to_one(line_integrals, on_detector, level), on_detector, tuple(notes))


def _from_zero_to_one(values: np.ndarray, seen: np.ndarray, level: float | None) -> np.ndarray:
    thin, thick = (float(v) for v in np.percentile(values[seen], (2, THICKEST)))
    if level is None:
        level = (thin - THINNEST * thick) / (1 - THINNEST)
    span = thick - level
    if not span > 0:
        return np.zeros_like(values)
    return np.where(seen, ((values - level) / span).clip(0, 1), 0).astype(np.float32)
