"""What all lifts share: which views they take, which way pictures lie, and how they are resampled."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Self

import torch
from torch import Tensor, nn

from xr2ct.autocast import without_autocast
from xr2ct.errors import UserError
from xr2ct.models.shapes import check_views
from xr2ct.projection.geometry import Geometry, column_direction, source_direction

Scale = Literal["isocentre", "stretch"]


@dataclass(frozen=True)
class Windows:
    """Of each sample a part of its volume: a sub-volume of `side`³ voxels at a place of its own."""

    origins: Tensor
    """(b, 3) int64 z, y, x: the voxel of the size³ grid at which it begins."""
    side: int

    def along(self, axis: int) -> Tensor:
        """(b, side) int64: the grid's indices along z, y or x (0, 1, 2)."""
        return self.origins[:, axis, None] + torch.arange(self.side, device=self.origins.device)


class Lift(nn.Module, ABC):
    """Views (b, view, row, col) → volumes (b, view, z, y, x), size³ voxels of cube_mm / size.

    One channel a view, in the order of `angles`; no parameters. `UserError` where there is no view.
    """

    CUTS: ClassVar[bool] = False
    """Whether it makes any window of the volume by itself, equal to that part of the whole to rounding."""

    def __init__(self, angles: Sequence[float], geometry: Geometry, cube_mm: float, size: int) -> None:
        super().__init__()
        if not angles:
            raise UserError("lift: expected at least one view")
        self.angles = tuple(angles)
        self.geometry = geometry
        self.cube_mm = cube_mm
        self.size = size

    def forward(self, views: Tensor, seeds: Tensor | None = None, windows: Windows | None = None) -> Tensor:
        """In the views' own type; seeds: `methods.base.Batch.seeds`, for what is drawn at random.

        Of each sample the whole volume, or its window (b, view, side, side, side). Raises `UserError` for
        another number or size of views.
        """
        check_views(views, len(self.angles), self.geometry.pixels)
        assert windows is None or self.CUTS, type(self)
        with without_autocast(views):
            return self.lifted(views, seeds, windows)

    @abstractmethod
    def lifted(self, views: Tensor, seeds: Tensor | None, windows: Windows | None) -> Tensor:
        """`forward`, of views of the right shape."""

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        # Moves with the network around it, but is not rounded with it: a row's weights must add up to 1.
        return super()._apply(lambda t: t.to(fn(t).device), recurse)


class PictureLift(Lift):
    """Of lifts that place whole pictures: each view resampled to the cube's (z, lateral) grid, anti-aliased.

    `isocentre` takes a pixel for its pitch in the isocentre's plane and leaves voxels outside of the beam at
    0; `stretch` fits the picture to the cube, as the paper does. `ascend` says of each view whether its
    columns count up with the lateral axis; where unset, with that across the grid axis nearest its beam.
    """

    def __init__(
        self,
        angles: Sequence[float],
        geometry: Geometry,
        cube_mm: float,
        size: int,
        scale: Scale = "isocentre",
        ascend: Sequence[bool] | None = None,
    ) -> None:
        super().__init__(angles, geometry, cube_mm, size)
        isocentre = geometry.pixel_mm / geometry.magnification
        pitch = isocentre if scale == "isocentre" else cube_mm / geometry.pixels
        voxel = cube_mm / size
        up = resampling(size, voxel, geometry.pixels, pitch, max(voxel, pitch))
        # Rows count from the head down and z upwards; columns as they run along the lateral axis.
        lateral = torch.stack(
            [up if with_axis else up.flip(1) for with_axis in ascend or map(columns_ascend, angles)]
        )
        self.rows: Tensor
        self.columns: Tensor
        self.register_buffer("rows", up.flip(1), persistent=False)
        self.register_buffer("columns", lateral.transpose(1, 2).contiguous(), persistent=False)

    def pictures(self, views: Tensor, windows: Windows | None = None) -> Tensor:
        """(b, view, row, col) → (b, view, z, lateral), of the whole cube or of each sample's window."""
        rows, columns = self.rows.to(views.dtype), self.columns.to(views.dtype)
        if windows is None:
            return rows @ views @ columns
        # (b, 1, side, row) and (b, view, col, side): a window needs only its part of each picture.
        own_rows = rows[windows.along(0)][:, None]
        own_columns = [
            column.T[windows.along(1 if is_lateral(angle) else 2)]
            for column, angle in zip(columns, self.angles, strict=True)
        ]
        return own_rows @ views @ torch.stack(own_columns, dim=1).transpose(2, 3)


def is_lateral(angle_deg: float) -> bool:
    """Whether the grid axis nearest a view's beam is x (patient's left to right) rather than y."""
    x, y, _ = source_direction(angle_deg)
    return abs(x) > abs(y) + 1e-9  # 45° and the like are as near to y, and go with the frontal view


def columns_ascend(angle_deg: float) -> bool:
    """Whether detector columns count up with the lateral axis, rather than against it."""
    return column_direction(angle_deg)[1 if is_lateral(angle_deg) else 0] > 0


def resampling(places: int, spacing_mm: float, pixels: int, pitch_mm: float, width_mm: float) -> Tensor:
    """(place, pixel) weights, from a row of pixels to a row of places with the same centre.

    A triangle whose half base is `width_mm`: interpolation where that is the pixels' pitch, and an
    anti-aliasing filter where it is more. A place outside of the picture weighs nothing; of all others the
    weights add up to 1.
    """
    at = (torch.arange(places, dtype=torch.float64) - (places - 1) / 2) * spacing_mm
    centres = (torch.arange(pixels, dtype=torch.float64) - (pixels - 1) / 2) * pitch_mm
    weights = (1 - (at[:, None] - centres).abs() / width_mm).clamp(min=0)
    weights = weights / weights.sum(1, keepdim=True).clamp(min=math.ulp(1.0))
    seen = at.abs() <= pixels * pitch_mm / 2
    return (weights * seen[:, None]).float()
