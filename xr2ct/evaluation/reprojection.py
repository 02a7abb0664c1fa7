"""Re-projection: what a volume would look like to the X-ray machine, against the X-ray that came in.

The stored line integrals are those of the CT at about 1 mm, so even the truth at the reconstruction's size
has an error here: its row is the floor to read the others against.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from xr2ct.projection.geometry import Geometry
from xr2ct.projection.projector import attenuation, project
from xr2ct.window import HuWindow

COLUMNS = ("reprojection/relative_l2", "reprojection/mae")


def project_unit(
    unit: Tensor, window: HuWindow, cube_mm: float, geometry: Geometry, angles_deg: Sequence[float]
) -> Tensor:
    """Line integrals (b, view, row, col) of volumes (b, z, y, x) on the unit interval, clipped to it."""
    return project_hu(window.to_hu(unit), cube_mm, geometry, angles_deg)


def project_hu(hu: Tensor, cube_mm: float, geometry: Geometry, angles_deg: Sequence[float]) -> Tensor:
    """Line integrals (b, view, row, col) of cubes in HU (b, z, y, x) with sides of `cube_mm`."""
    spacing = cube_mm / hu.shape[-1]
    return project(attenuation(hu), (spacing,) * 3, geometry, angles_deg)


def reprojection_error(line_integrals: Tensor, stored: Tensor) -> dict[str, float]:
    """Over all views (view, row, col) of a case: ‖p − q‖ / ‖q‖, and the mean of |p − q|, a line integral."""
    difference = line_integrals.double() - stored
    relative = torch.linalg.vector_norm(difference) / torch.linalg.vector_norm(stored.double())
    return dict(zip(COLUMNS, (relative.item(), difference.abs().mean().item()), strict=True))
