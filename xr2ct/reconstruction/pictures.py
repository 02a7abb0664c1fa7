"""The X-rays that a reconstruction is given, as files, and what they become."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from xr2ct.config import Experiment
from xr2ct.errors import UserError, nearest
from xr2ct.projection.geometry import Geometry, parse_view
from xr2ct.projection.placing import ACCEPTED
from xr2ct.projection.radiograph import RadiographView, is_dicom, read_radiograph
from xr2ct.projection.views import read_view, scale_views
from xr2ct.reconstruction.beams import XRays
from xr2ct.reconstruction.familiar import FILE, Familiar, Familiarity


@dataclass(frozen=True)
class Pictures:
    """X-rays of one patient, in the order of the mapper's channels."""

    files: dict[float, Path]
    """By angle in degrees."""
    xrays: XRays
    notes: tuple[str, ...] = ()
    """What had to be assumed of them or was done to them, and which lie far from the training X-rays."""
    familiarity: tuple[Familiarity, ...] = ()
    """How far each view lies from the training X-rays; empty where the checkpoint does not say what these
    look like."""


def read_pictures(
    views: Sequence[str],
    experiment: Experiment,
    geometry: Geometry,
    *,
    png_scale: float | None = None,
    detector_mm: float | None = None,
    accept: Collection[str] = (),
    familiar: Familiar | None = None,
) -> Pictures:
    """The X-rays ``ANGLE=FILE`` or ``NAME=FILE`` that `experiment`'s mapper takes, seen by `geometry`.

    A .mha, .npy or .png holds line integrals (`views.read_view`); a .png needs `png_scale`, the line integral
    of its brightest grey level. A DICOM file holds a radiograph (`radiograph.read_radiograph`, which takes
    `detector_mm` and `accept`); its largest line integral is taken to be that of the training X-rays.
    `familiar` is what these look like (`familiar.load_familiar`). Raises `UserError` for views other than the
    mapper's, for a file that is not what it should be, for an `accept` that is none, and for a radiograph
    where `data.xray_scale` is a line integral and nothing tells those of training.
    """
    for name in accept:
        if name not in ACCEPTED:
            raise UserError(f"--accept {name}: {nearest(name, ACCEPTED)}")
    assert experiment.resolved is not None
    cube_mm = experiment.resolved.cube_mm
    files = _by_angle(views, experiment.data.views)
    read: list[RadiographView] = []
    notes: list[str] = []
    calibrated = True
    for place, (angle, file) in enumerate(files.items()):
        if not is_dicom(file):
            read.append(_all_seen(read_view(file, angle, geometry, png_scale)))
            continue
        calibrated = False
        view = read_radiograph(file, angle, geometry, cube_mm=cube_mm, detector_mm=detector_mm, accept=accept)
        notes += [f"{file}: {note}" for note in view.notes]
        read.append(as_in_training(view, place, str(file), experiment, familiar))
    line_integrals = np.stack([view.line_integrals for view in read])
    seen = None if calibrated else torch.from_numpy(np.stack([view.seen for view in read]))
    found = _compare(line_integrals, experiment, familiar)
    notes += [str(one) for one in found if one.far]
    if not calibrated and familiar is None:
        notes.append("the checkpoint does not say what the X-rays looked like that it learnt from")
    return Pictures(files, XRays(torch.from_numpy(line_integrals), seen, calibrated), tuple(notes), found)


def as_in_training(
    view: RadiographView, place: int, where: str, experiment: Experiment, familiar: Familiar | None
) -> RadiographView:
    """A radiograph made like the training X-rays of the view at `place`, as far as that can be.

    It has their largest line integral, it fades out where they do, and where its values went through an
    unknown tone curve it has their grey levels. Where they are not known and their scale is their own
    maximum, that of the radiograph stays 1; `UserError` naming it as `where` if their scale is another.
    """
    lines = view.line_integrals
    if familiar is None and experiment.data.xray_scale != "max":
        raise UserError(
            f"{where}: a radiograph's gain is unknown, and this checkpoint's X-rays are scaled by a line "
            f"integral (data.xray_scale {experiment.data.xray_scale:g}); it needs {FILE} of its run"
        )
    if familiar is not None:
        if not view.proportional:
            lines = familiar.standardised(place, lines, view.seen)
        lines = lines * np.float32(familiar.maximum[place])
    if view.depth is not None:
        lines = lines * view.depth
    return replace(view, line_integrals=lines)


def _all_seen(line_integrals: np.ndarray) -> RadiographView:
    return RadiographView(line_integrals, np.ones(line_integrals.shape, bool), ())


def _compare(
    line_integrals: np.ndarray, experiment: Experiment, familiar: Familiar | None
) -> tuple[Familiarity, ...]:
    if familiar is None:
        return ()
    return tuple(familiar.compare(scale_views(line_integrals, experiment.data.xray_scale)))


def _by_angle(views: Sequence[str], trained: Sequence[float]) -> dict[float, Path]:
    """Files in the order of the mapper's channels."""
    given: dict[float, Path] = {}
    for view in views:
        angle, file = parse_view(view, "--view")
        if angle in given:
            raise UserError(f"--view {view}: {angle:g}° is given twice")
        given[angle] = file
    if set(given) != set(trained):
        raise UserError(
            f"--view: this checkpoint was trained for {_degrees(trained)}, got {_degrees(given) or 'none'}"
        )
    return {angle: given[angle] for angle in trained}


def _degrees(angles: Collection[float]) -> str:
    return ", ".join(f"{a:g}°" for a in angles)
