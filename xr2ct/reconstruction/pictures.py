"""The X-rays that a reconstruction is given, as files, and what they become."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from xr2ct.config import Experiment
from xr2ct.errors import UserError
from xr2ct.projection.geometry import VIEW_ANGLES, Geometry, parse_angle
from xr2ct.projection.views import read_view
from xr2ct.reconstruction.beams import XRays


@dataclass(frozen=True)
class Pictures:
    """X-rays of one patient, in the order of the mapper's channels."""

    files: dict[float, Path]
    """By angle in degrees."""
    xrays: XRays
    notes: tuple[str, ...] = ()
    """What had to be assumed of them or was done to them, a line each."""


def read_pictures(
    views: Sequence[str],
    experiment: Experiment,
    geometry: Geometry,
    *,
    png_scale: float | None = None,
) -> Pictures:
    """The X-rays ``ANGLE=FILE`` or ``NAME=FILE`` that `experiment`'s mapper takes, seen by `geometry`.

    A .mha, .npy or .png holds line integrals (`views.read_view`); a .png needs `png_scale`, the line integral
    of its brightest grey level. Raises `UserError` for views other than the mapper's, and for a file that is
    not what it should be.
    """
    files = _by_angle(views, experiment.data.views)
    stack = [read_view(file, angle, geometry, png_scale) for angle, file in files.items()]
    return Pictures(files, XRays(torch.from_numpy(np.stack(stack))))


def _by_angle(views: Sequence[str], trained: Sequence[float]) -> dict[float, Path]:
    """Files in the order of the mapper's channels."""
    given: dict[float, Path] = {}
    for view in views:
        name, sign, file = view.partition("=")
        if not sign or not file:
            raise UserError(
                f"--view {view}: expected ANGLE=FILE or NAME=FILE with NAME of {', '.join(VIEW_ANGLES)}"
            )
        angle = parse_angle(name)
        if angle in given:
            raise UserError(f"--view {view}: {angle:g}° is given twice")
        given[angle] = Path(file)
    if set(given) != set(trained):
        raise UserError(
            f"--view: this checkpoint was trained for {_degrees(trained)}, got {_degrees(given) or 'none'}"
        )
    return {angle: given[angle] for angle in trained}


def _degrees(angles: Collection[float]) -> str:
    return ", ".join(f"{a:g}°" for a in angles)
