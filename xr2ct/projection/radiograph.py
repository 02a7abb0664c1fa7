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
import torch

from xr2ct.cohorts.radiographs import read_radiographs
from xr2ct.cohorts.refused import Refused
from xr2ct.cohorts.series import Source
from xr2ct.errors import UserError
from xr2ct.projection.collimation import measured, unattenuated
from xr2ct.projection.exposure import attenuation_like, no_pixel
from xr2ct.projection.geometry import Geometry
from xr2ct.projection.placing import check_view, pixel_scale, resample, transposed, turn
from xr2ct.projection.projector import project

THICKEST = 99.8
"""Percentile of what is seen that stands for the thickest part: markers of lead lie above it."""
THINNEST = 0.25
"""Of the thickest, the thinnest part (2nd percentile) of a chest that fills its picture: where no beam passes
beside it, this places 0."""

_WHOLE = 0.95
"""Of the volume's side, how far a ray has to run in it to run through all of it."""


@dataclass(frozen=True)
class RadiographView:
    """One view, on the detector that the model knows."""

    line_integrals: np.ndarray
    """(row, col) float32 up to a gain: 0 for the unattenuated beam, and beyond the field; 1 at most."""
    seen: np.ndarray
    """(row, col) bool: in the field, and where rays run through the model's volume from face to face."""
    notes: tuple[str, ...]
    """What was assumed or found, a line each."""
    proportional: bool = True
    """Whether values follow the line integral; else through a display's tone curve that no header tells."""
    depth: np.ndarray | None = None
    """(row, col) how far a ray runs in the model's volume, over the volume's side, 1 at most. X-rays that are
    projected from such a volume fade out with it, whatever of the patient is there."""


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
    cube_mm: float | None = None,
    detector_mm: float | None = None,
    accept: Collection[str] = (),
) -> RadiographView:
    """The view at an angle from a DICOM file of a DX or CR picture.

    cube_mm: side of the model's volume, for the view's `depth`. detector_mm: length of the picture's long
    side on the detector, where the header has no spacing. accept: which statements of the header to overrule
    (`placing.Accepted`). Raises `UserError` naming the file for what is no readable radiograph of a chest,
    and where its header contradicts view, geometry or size.
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
        cube_mm=cube_mm,
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
    cube_mm: float | None = None,
    detector_mm: float | None = None,
    accept: Collection[str] = (),
) -> RadiographView:
    """As `read_radiograph`, of stored values (row, col) and what `attributes_of` says of them.

    `where` names the picture in messages.
    """
    notes = check_view(attributes, angle_deg, where, accept)
    scale, more = pixel_scale(pixels.shape, attributes, geometry, detector_mm, where, accept)
    values, proportional = attenuation_like(pixels, attributes)
    seen = measured(values, ~no_pixel(pixels, attributes), attributes.get("openings", ()))
    notes += more
    if not seen.any():
        raise UserError(f"{where}: shows nothing that is a measurement")
    level = unattenuated(values, seen)
    directions = attributes["patient_orientation"]
    values, seen_there = (turn(picture, directions, angle_deg, where) for picture in (values, seen))
    if transposed(directions):
        scale = type(scale)(scale.col_mm, scale.row_mm)
    picture, on_detector = resample(values, seen_there, scale, geometry)
    depth = None if cube_mm is None else _depth(cube_mm, angle_deg, geometry)
    inside = on_detector if depth is None else on_detector & (depth > _WHOLE)
    if not inside.any():
        raise UserError(f"{where}: nothing of it lies on the detector of geometry {geometry.name!r}")
    line_integrals = np.where(on_detector, _from_zero_to_one(picture, inside, level), 0).astype(np.float32)
    if not directions:
        notes.append("its header does not say how the patient lies in it: taken as shown to a reader")
    if not seen.all():
        notes.append(f"{100 * (1 - seen.mean()):.0f} % of the picture is collimated or masked")
    if level is None:
        notes.append("no beam passes beside the patient: zero is placed below the thinnest part")
    if not proportional:
        notes.append("its values were made for display, through a tone curve that no header tells")
    return RadiographView(line_integrals, inside, tuple(notes), proportional, depth)


def _depth(cube_mm: float, angle_deg: float, geometry: Geometry) -> np.ndarray:
    """As `RadiographView.depth`."""
    side = 16
    chords = project(torch.ones(1, side, side, side), (cube_mm / side,) * 3, geometry, [angle_deg])[0, 0]
    return np.asarray((chords / cube_mm).clamp(max=1))


def _from_zero_to_one(values: np.ndarray, seen: np.ndarray, level: float | None) -> np.ndarray:
    """`values` with the unattenuated beam's level, or what stands for it, at 0 and the thickest seen at 1."""
    thin, thick = (float(v) for v in np.percentile(values[seen], (2, THICKEST)))
    if level is None:
        level = (thin - THINNEST * thick) / (1 - THINNEST)
    span = thick - level
    return np.asarray(((values - level) / span).clip(0, 1)) if span > 0 else np.zeros_like(values)
