"""Where a radiograph's pixels lie before the detector that a model knows: view, orientation, scale.

A radiograph has the view that its header names, at a distance that its header states. What contradicts the
model's geometry is refused: `Accepted` names what may be overruled.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from scipy import ndimage

from xr2ct.errors import UserError
from xr2ct.projection.geometry import VIEW_NAMES, Geometry, column_direction

Accepted = Literal["view", "distance", "spacing"]
"""What of a header may be overruled: which view it is; how far the source was; how large a pixel is."""
ACCEPTED: tuple[Accepted, ...] = get_args(Accepted)

TOLERANCE_MM = 3.0
"""How far apart two geometries may show a point `_POINT_MM` beside the beam's axis and as far out of the
isocentre's plane, once they show that plane alike. A source at 1996 mm instead of 1800 differs by 0.6."""
_POINT_MM = 100.0
_SUPPORT_MM = 100.0
"""A chest's middle is further from the detector than this: a patient stated to be nearer to it is stated to
be as far as what it leans against (PS3.3 C.8.11.1, C.8.7.10: the support's or Bucky's side)."""
_SPACING_TOLERANCE = 0.02

_ALIKE = 0.3
"""Least cosine of two directions that are one, up to its sign: 45° are 0.7."""

_HEADER_ANGLES = {"AP": 0.0, "RL": 90.0, "PA": 180.0, "LL": 270.0}
_AXES = {"L": (1, 0, 0), "R": (-1, 0, 0), "P": (0, 1, 0), "A": (0, -1, 0), "H": (0, 0, 1), "F": (0, 0, -1)}


@dataclass(frozen=True)
class Scale:
    """A picture's pixel in the plane of the isocentre, mm along rows and along columns."""

    row_mm: float
    col_mm: float


def check_view(
    attributes: Mapping[str, Any], angle_deg: float, where: str, accept: Collection[str]
) -> list[str]:
    """`UserError` where a header contradicts the view that a picture is given as; else what was assumed."""
    told = f"{VIEW_NAMES.get(angle_deg, '')} ({angle_deg:g}°)".strip()
    view, plane = attributes["view"], attributes["plane"]
    if view:
        if _HEADER_ANGLES.get(view) == angle_deg:
            return []
        why = f"{where}: its header says view {view}, given as {told}"
        if {_HEADER_ANGLES.get(view), angle_deg} in ({0.0, 180.0}, {90.0, 270.0}):
            why += "; mirrored they differ, since what is near the source is larger"
        return _refuse_or_note(why, "view", accept)
    expected = "frontal" if angle_deg % 180 == 0 else "lateral" if angle_deg % 180 == 90 else ""
    if plane and plane != expected:
        return _refuse_or_note(f"{where}: its header says a {plane} view, given as {told}", "view", accept)
    return [f"its header names no view: taken as {told}, as given"]


def turn(picture: np.ndarray, directions: list[str], angle_deg: float, where: str) -> np.ndarray:
    """The picture with its rows from head to feet and its columns along the view's, from `directions`.

    `directions` are PatientOrientation's, along a row and along a column. Without them it lies as shown to a
    reader: the patient's right at the left of a frontal picture, the front at the left of a lateral one. That
    is what FieldOfViewRotation and HorizontalFlip cannot tell, which relate it to the detector. Raises
    `UserError` where neither way of laying it shows the view.
    """
    across = np.array(column_direction(angle_deg))
    if not directions:
        lateral = abs(across[1]) > abs(across[0])
        directions = ["P" if lateral else "L", "F"]
    along_row, along_col = (np.sum([_AXES[letter] for letter in one], axis=0) for one in directions)
    if abs(along_row[2]) > abs(along_col[2]):
        picture, along_row, along_col = picture.swapaxes(0, 1), along_col, along_row
    if not along_col[2] or abs(np.dot(along_row, across)) < _ALIKE:
        raise UserError(
            f"{where}: its PatientOrientation {chr(92).join(directions)} cannot be that of a view at "
            f"{angle_deg:g}°, whose rows run from head to feet and whose columns {_side(across)}"
        )
    if along_col[2] > 0:
        picture = picture[::-1]
    return picture if np.dot(along_row, across) > 0 else picture[:, ::-1]


def transposed(directions: list[str]) -> bool:
    """Whether a picture's rows run along the patient."""
    return bool(directions) and directions[0][0] in "HF"


def pixel_scale(
    shape: tuple[int, int],
    attributes: Mapping[str, Any],
    geometry: Geometry,
    detector_mm: float | None,
    where: str,
    accept: Collection[str],
) -> tuple[Scale, list[str]]:
    """A pixel's size at the isocentre, and what was assumed.

    Spacings hold on the detector, unless PixelSpacing alone is there and calibrated for the patient. Raises
    `UserError` where there is none and the picture's long side `detector_mm` is not stated, and where the
    distances that the header states are not the geometry's (`TOLERANCE_MM`).
    """
    magnification, notes = _magnification(attributes, geometry, where, accept)
    spacing, held = attributes["spacing_mm"], attributes["spacing_from"]
    if spacing and detector_mm is not None:
        side = max(n * mm for n, mm in zip(shape, spacing, strict=True))
        if not math.isclose(side, detector_mm, rel_tol=_SPACING_TOLERANCE):
            why = f"{where}: its long side is {side:.0f} mm by its header, {detector_mm:g} mm as stated"
            notes += _refuse_or_note(why, "spacing", accept)
            spacing = None
    if not spacing:
        if detector_mm is None:
            raise UserError(
                f"{where}: its header has no pixel spacing; state the length in mm of its long side on the "
                "detector with --detector-mm"
            )
        spacing, held = [detector_mm / max(shape)] * 2, "detector"
    if held == "unstated" and attributes["pixel_spacing_calibration"]:
        return Scale(*spacing), notes
    if held == "unstated":
        notes.append("its PixelSpacing is taken as the detector's")
    return Scale(*(mm / magnification for mm in spacing)), notes


def resample(
    picture: np.ndarray, seen: np.ndarray, scale: Scale, geometry: Geometry
) -> tuple[np.ndarray, np.ndarray]:
    """The picture on the geometry's detector, float32, and where that holds a measurement.

    The isocentre's plane is shown alike. Both middles are the same point; what the picture does not reach is
    0. Averaged over the detector's pixels, seen ones alone.
    """
    pitch = geometry.pixel_mm / geometry.magnification
    steps = np.array([pitch / scale.row_mm, pitch / scale.col_mm])
    # Whole blocks first, which is cheap, then a Gaussian: neither lets what lies between samples fold back.
    block = max(1, int(steps.min() / 2))
    middle = (np.array(picture.shape) - block) / 2 / block
    steps /= block
    offset = middle - steps * (geometry.pixels - 1) / 2
    sums, weights = (
        ndimage.affine_transform(
            ndimage.gaussian_filter(_blocks(values, block), np.maximum(0, (steps - 1) / 2), mode="constant"),
            steps, offset, (geometry.pixels,) * 2, order=1, mode="constant",
        )
        for values in (np.where(seen, picture, 0), seen)
    )  # fmt: skip
    measured = weights > 0.5
    return np.where(measured, sums / np.where(measured, weights, 1), 0).astype(np.float32), measured


def _blocks(picture: np.ndarray, side: int) -> np.ndarray:
    """float32 means over squares of pixels; an incomplete last one is left out."""
    rows, cols = (n // side for n in picture.shape)
    cut = picture[: rows * side, : cols * side]
    return cut.reshape(rows, side, cols, side).mean(axis=(1, 3), dtype=np.float32)


def _magnification(
    attributes: Mapping[str, Any], geometry: Geometry, where: str, accept: Collection[str]
) -> tuple[float, list[str]]:
    """Of what lies in the isocentre's plane."""
    sid, sod = attributes["sid_mm"], attributes["source_to_patient_mm"]
    if sid is None:
        note = f"its header states no distance from the source: {geometry.sid_mm:g} mm, as trained, is taken"
        return attributes["magnification"] or geometry.magnification, [note]
    if sod is None and attributes["magnification"]:
        sod = sid / attributes["magnification"]
    if sod is None or not sid / 2 < sod < sid - _SUPPORT_MM:
        sod = sid - (geometry.sid_mm - geometry.sad_mm)
    apart = math.inf if sod <= _POINT_MM else max(
        _POINT_MM * abs(sod / (sod + depth) - geometry.sad_mm / (geometry.sad_mm + depth))
        for depth in (-_POINT_MM, _POINT_MM)
    )  # fmt: skip
    if apart > TOLERANCE_MM:
        why = (
            f"{where}: its header says {sid:g} mm from source to detector (about {sod:.0f} to the patient), "
            f"the checkpoint was trained with {geometry.sid_mm:g} ({geometry.sad_mm:g}): {_POINT_MM:g} mm "
            f"off the middle they are {apart:.1f} mm apart, {TOLERANCE_MM:g} mm at most are taken"
        )
        return sid / sod, _refuse_or_note(why, "distance", accept)
    return sid / sod, []


def _refuse_or_note(why: str, what: Accepted, accept: Collection[str]) -> list[str]:
    if what in accept:
        return [f"accepted: {why}"]
    raise UserError(f"{why} (`--accept {what}` overrules the header)")


def _side(across: np.ndarray) -> str:
    letters = {1: "LP", -1: "RA"}
    axis = int(np.abs(across).argmax())
    return f"towards {letters[int(np.sign(across[axis]))][axis]}"
