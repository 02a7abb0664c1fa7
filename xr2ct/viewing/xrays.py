"""The X-rays that came in beside what the volume would look like to the same machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import torch

from xr2ct.cohorts.itk import itk_name
from xr2ct.errors import UserError
from xr2ct.evaluation.reprojection import COLUMNS, reprojection_error
from xr2ct.projection.geometry import NAMED, VIEW_ANGLES, Geometry, parse_angle
from xr2ct.projection.projector import attenuation, project
from xr2ct.projection.views import read_view
from xr2ct.viewing.volumes import Volume

SHOWN = (VIEW_ANGLES["AP"], VIEW_ANGLES["RLAT"])
"""Degrees at which a volume is projected beside the X-rays that came in."""


@dataclass(frozen=True, eq=False)
class View:
    """A volume seen from an angle, and the X-ray that was taken there."""

    angle_deg: float
    geometry: Geometry
    made: np.ndarray
    """(row, col) float32 line integrals of the volume, its middle at the isocentre."""
    taken: np.ndarray | None = None
    """The X-ray that came in, the same pixels; None where there was none."""
    relative_l2: float | None = None
    """‖made − taken‖ / ‖taken‖."""
    floor: float | None = None
    """The same of the true CT on this grid, which lacks what is finer than its voxels."""

    @property
    def name(self) -> str:
        """The radiographer's, or degrees."""
        return next(
            (n for n, angle in VIEW_ANGLES.items() if angle == self.angle_deg), f"{self.angle_deg:g}°"
        )


def views_of(
    volume: Volume,
    xrays: Sequence[str],
    geometry: Geometry | None = None,
    *,
    png_scale: float | None = None,
    truth: Volume | None = None,
) -> list[View]:
    """The volume from the angle of each of `xrays` (``ANGLE=FILE`` or ``NAME=FILE``), frontal and lateral.

    Each X-ray's geometry is `geometry` where that is stated, else what its .mha says; the other views have
    the first X-ray's, or `x2ct`. Raises `UserError` for an X-ray without a geometry, given twice, or that
    contradicts what is stated, as `projection.views.read_view` finds it.
    """
    found: list[View] = []
    for given in xrays:
        angle, file = _split(given)
        if any(view.angle_deg == angle for view in found):
            raise UserError(f"--xray {given}: {angle:g}° is given twice")
        seen_by = geometry or _geometry_in(file)
        taken = read_view(file, angle, seen_by, png_scale)
        made = project_view(volume, seen_by, angle)
        floor = None if truth is None else _error(project_view(truth, seen_by, angle), taken)
        found.append(View(angle, seen_by, made, taken, _error(made, taken), floor))
    beside = geometry or (found[0].geometry if found else NAMED["x2ct"])
    angles = {view.angle_deg for view in found}
    return found + [
        View(angle, beside, project_view(volume, beside, angle)) for angle in SHOWN if angle not in angles
    ]


def _split(given: str) -> tuple[float, Path]:
    name, sign, file = given.partition("=")
    if not sign or not file:
        raise UserError(
            f"--xray {given}: expected ANGLE=FILE or NAME=FILE with NAME of {', '.join(VIEW_ANGLES)}"
        )
    return parse_angle(name), Path(file)


def _geometry_in(path: Path) -> Geometry:
    """What a .mha says of the machine, as `xr2ct project` writes it."""
    keys = ("sad_mm", "sid_mm", "detector_mm")
    stated = "expected --geometry NAME, or --sad, --sid, --detector-mm and --pixels"
    if not path.is_file():
        raise UserError(f"{path}: there is no such file")
    if path.suffix.lower() != ".mha":
        raise UserError(f"{path}: does not say how the X-ray was taken; {stated}")
    try:
        with itk_name(path) as name:
            reader = sitk.ImageFileReader()
            reader.SetFileName(name)
            reader.ReadImageInformation()
    except (RuntimeError, OSError):
        raise UserError(f"{path}: cannot be read as a .mha picture") from None
    lacking = [key for key in keys if not reader.HasMetaDataKey(key)]
    if lacking:
        raise UserError(f"{path}: its header has no {', '.join(lacking)}; {stated}")
    try:
        sad, sid, detector = (float(reader.GetMetaData(key)) for key in keys)
    except ValueError:
        raise UserError(f"{path}: {', '.join(keys)} in its header are not all numbers; {stated}") from None
    return Geometry(path.name, sad, sid, detector, reader.GetSize()[0])


def project_view(volume: Volume, geometry: Geometry, angle_deg: float) -> np.ndarray:
    mu = attenuation(torch.from_numpy(volume.values))
    return project(mu[None], volume.spacing_mm, geometry, (angle_deg,))[0, 0].numpy()


def _error(made: np.ndarray, taken: np.ndarray) -> float:
    """The relative one; an X-ray that is nowhere above 0 makes it infinite."""
    return reprojection_error(torch.from_numpy(made), torch.from_numpy(taken))[COLUMNS[0]]
