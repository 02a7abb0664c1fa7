"""Cone-beam geometry: where the source, the detector and its pixels are for a view at an angle.

Patient axes are LPS in millimetres with the isocentre as origin: x right to left of the patient, y front to
back, z feet to head. A view at θ has its source at SAD·(sin θ, −cos θ, 0): 0 = AP (source in front), 90 =
source at the patient's left, 180 = PA, 270 = source at the right. Detector columns run along
(cos θ, sin θ, 0) and row 0 is the head's end.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from xr2ct.errors import UserError, nearest

VIEW_ANGLES = {"AP": 0.0, "RLAT": 90.0, "PA": 180.0, "LLAT": 270.0}
"""Radiographers' names. LLAT has the patient's left side against the detector, so its source is at 270°."""

VIEW_NAMES = {angle: name for name, angle in VIEW_ANGLES.items()}

EIGHT_ANGLES = (0.0, 45.0, 90.0, 135.0, 180.0, 225.0, 270.0, 315.0)


@dataclass(frozen=True)
class Geometry:
    """A square flat detector facing a point source across the isocentre."""

    name: str
    sad_mm: float
    """Source to isocentre."""
    sid_mm: float
    """Source to detector."""
    detector_mm: float
    """Side of the detector."""
    pixels: int = 256
    """Rows and columns of the detector."""

    def __post_init__(self) -> None:
        if not (0 < self.sad_mm < self.sid_mm and math.isfinite(self.sid_mm)):
            raise UserError(
                f"geometry {self.name!r}: needs 0 < sad_mm < sid_mm, got {self.sad_mm} and {self.sid_mm}"
            )
        if not (0 < self.detector_mm < math.inf) or self.pixels < 1:
            raise UserError(
                f"geometry {self.name!r}: needs a positive detector_mm and pixels, "
                f"got {self.detector_mm} and {self.pixels}"
            )

    @property
    def pixel_mm(self) -> float:
        """Pixel pitch on the detector."""
        return self.detector_mm / self.pixels

    @property
    def magnification(self) -> float:
        """Of an object at the isocentre, SID / SAD."""
        return self.sid_mm / self.sad_mm

    def as_attributes(self) -> dict[str, Any]:
        """What a store or a checkpoint keeps of it."""
        return asdict(self)


NAMED = {
    g.name: g
    for g in (
        Geometry("x2ct", sad_mm=541.0, sid_mm=949.0, detector_mm=500.0),
        Geometry("chest-1800", sad_mm=1600.0, sid_mm=1800.0, detector_mm=430.0),
    )
}
"""`x2ct` is the paper's (Plastimatch --sad 541 --sid 949 -z 500); `chest-1800` that of a chest radiograph."""


def named_geometry(name: str) -> Geometry:
    """Raises `UserError` with the nearest valid name."""
    if name not in NAMED:
        raise UserError(f"unknown geometry {name!r}: {nearest(name, NAMED)}")
    return NAMED[name]


def source_direction(angle_deg: float) -> tuple[float, float, float]:
    """Unit vector from the isocentre to the source, LPS."""
    t = math.radians(angle_deg)
    return (math.sin(t), -math.cos(t), 0.0)


def column_direction(angle_deg: float) -> tuple[float, float, float]:
    """Unit vector along which detector columns count up, LPS."""
    t = math.radians(angle_deg)
    return (math.cos(t), math.sin(t), 0.0)


def parse_angle(text: str) -> float:
    """Degrees in [0, 360) from a number or a view's name (AP, PA, LLAT, RLAT)."""
    if text.upper() in VIEW_ANGLES:
        return VIEW_ANGLES[text.upper()]
    try:
        angle = float(text)
    except ValueError:
        angle = math.nan
    if not math.isfinite(angle):
        raise UserError(f"angle {text!r}: expected degrees or one of {', '.join(VIEW_ANGLES)}")
    return angle % 360.0


def parse_view(text: str, flag: str) -> tuple[float, Path]:
    """Degrees and file of ``ANGLE=FILE`` or ``NAME=FILE``, as a command's `flag` was given it."""
    name, sign, file = text.partition("=")
    if not sign or not file:
        raise UserError(
            f"{flag} {text}: expected ANGLE=FILE or NAME=FILE with NAME of {', '.join(VIEW_ANGLES)}"
        )
    return parse_angle(name), Path(file)


def mirror_angle(angle_deg: float) -> float:
    """The view of a patient mirrored left to right: its columns flipped give the view at the given angle."""
    return -angle_deg % 360.0
