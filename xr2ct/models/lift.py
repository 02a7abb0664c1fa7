"""Repeat-and-concatenate: each view becomes a volume by repetition along its beam, one channel a view."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from xr2ct.config import Experiment
from xr2ct.errors import UserError
from xr2ct.projection.geometry import Geometry, column_direction, source_direction


class RepeatLift(nn.Module):
    """Views (b, view, row, col) → volumes (b, view, z, y, x), size³ voxels of cube_mm / size.

    A view is resampled to the cube's (z, lateral) grid, anti-aliased, and copied along the grid axis nearest
    its beam; obliques halfway between two go like the frontal view. `isocentre` takes a pixel for its pitch
    in the isocentre's plane and leaves voxels outside of the beam at 0; `stretch` fits the picture to the
    cube, as the paper does. The beam diverges and copies do not: 100 mm deep and 100 mm lateral in geometry
    `x2ct`, a voxel lies up to 23 mm beside its ray (38 mm stretched).

    It has no parameters. The copies along the beam are written once, into the output.
    """

    def __init__(
        self,
        angles: Sequence[float],
        geometry: Geometry,
        cube_mm: float,
        size: int,
        scale: Literal["isocentre", "stretch"] = "isocentre",
    ) -> None:
        super().__init__()
        if not angles:
            raise UserError("lift: expected at least one view")
        self.angles = tuple(angles)
        self.pixels = geometry.pixels
        self.size = size
        pitch = geometry.pixel_mm / geometry.magnification if scale == "isocentre" else cube_mm / self.pixels
        up = _resampling(size, cube_mm, self.pixels, pitch)
        # Rows count from the head down and z upwards; columns as they run along the lateral axis.
        lateral = torch.stack([up if columns_ascend(angle) else up.flip(1) for angle in self.angles])
        self.rows: Tensor
        self.columns: Tensor
        self.register_buffer("rows", up.flip(1), persistent=False)
        self.register_buffer("columns", lateral.transpose(1, 2).contiguous(), persistent=False)

    def forward(self, views: Tensor, seeds: Tensor | None = None) -> Tensor:
        """Raises `UserError` for another number or size of views."""
        expected = (len(self.angles), self.pixels, self.pixels)
        if views.ndim != 4 or views.shape[1:] != expected:
            wanted = ", ".join(map(str, expected))
            raise UserError(f"views: expected (batch, {wanted}), got {tuple(views.shape)}")
        with torch.autocast(views.device.type, enabled=False):
            pictures = self.rows.to(views.dtype) @ views @ self.columns.to(views.dtype)
        copies = [
            picture.unsqueeze(-1 if is_lateral(angle) else -2).expand(-1, *(self.size,) * 3)
            for picture, angle in zip(pictures.unbind(1), self.angles, strict=True)
        ]
        return torch.stack(copies, dim=1)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> RepeatLift:
        # Moves with the network around it, but is not rounded with it: a row's weights must add up to 1.
        return super()._apply(lambda t: t.to(fn(t).device), recurse)


def build_lift(experiment: Experiment, geometry: Geometry, cube_mm: float) -> RepeatLift:
    """The lift that an experiment names: (b, view, row, col) → (b, view, z, y, x)."""
    data, lift = experiment.data, experiment.lift
    return RepeatLift(data.views, geometry, cube_mm, data.size, lift.scale)


def is_lateral(angle_deg: float) -> bool:
    """Whether the grid axis nearest a view's beam is x (patient's left to right) rather than y."""
    x, y, _ = source_direction(angle_deg)
    return abs(x) > abs(y) + 1e-9  # 45° and the like are as near to y, and go with the frontal view


def columns_ascend(angle_deg: float) -> bool:
    """Whether detector columns count up with the lateral axis, rather than against it."""
    return column_direction(angle_deg)[1 if is_lateral(angle_deg) else 0] > 0


def _resampling(size: int, cube_mm: float, pixels: int, pitch_mm: float) -> Tensor:
    """(voxel, pixel) weights from a row of pixels to a row of voxels with the same centre.

    A triangle as wide as the coarser of the two grids: interpolation where voxels are the smaller, an
    anti-aliasing filter where pixels are. A voxel whose centre lies outside of the picture weighs nothing.
    """
    voxel_mm = cube_mm / size
    voxels = (torch.arange(size, dtype=torch.float64) - (size - 1) / 2) * voxel_mm
    centres = (torch.arange(pixels, dtype=torch.float64) - (pixels - 1) / 2) * pitch_mm
    distance = (voxels[:, None] - centres).abs()
    weights = (1 - distance / max(voxel_mm, pitch_mm)).clamp(min=0)
    weights = weights / weights.sum(1, keepdim=True).clamp(min=math.ulp(1.0))
    seen = voxels.abs() <= pixels * pitch_mm / 2
    return (weights * seen[:, None]).float()
