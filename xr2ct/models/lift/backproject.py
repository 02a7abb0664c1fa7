"""Exact placement: each voxel reads the view where its own cone-beam ray meets the detector."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from xr2ct.models.lift.base import Lift, Windows, resampling
from xr2ct.projection.geometry import Geometry, column_direction, source_direction

_BLOCK = 1 << 21
"""Voxels whose places on the detector are held at a time: 16 MiB in float32."""


class BackprojectLift(Lift):
    """Each voxel's value is the view's where the ray from the source through the voxel meets the detector.

    Bilinear between pixels; 0 where the ray passes beside the detector. Where voxels are coarser than pixels
    the view is filtered once before it is read, by a triangle whose half base is a voxel's pitch in the
    isocentre's plane, as `repeat` filters it; nearer to the source a voxel's shadow is the larger one (by a
    third 140 mm off in geometry `x2ct`) and further from it the smaller.

    Places on the detector are computed slab by slab in float32 (float64 for such views), never in half
    precision: they would be off by pixels.
    """

    CUTS = True

    def __init__(self, angles: Sequence[float], geometry: Geometry, cube_mm: float, size: int) -> None:
        super().__init__(angles, geometry, cube_mm, size)
        pixel = geometry.pixel_mm
        width = max(cube_mm / size * geometry.magnification, pixel)
        self.filter: Tensor
        weights = resampling(geometry.pixels, pixel, geometry.pixels, pixel, width)
        self.register_buffer("filter", weights, persistent=False)

    def lifted(self, views: Tensor, seeds: Tensor | None, windows: Windows | None) -> Tensor:
        dtype = torch.promote_types(views.dtype, torch.float32)
        weights = self.filter.to(dtype)
        filtered = weights @ views.to(dtype) @ weights.T
        if windows is None:
            volume = self._read(filtered, *[torch.arange(self.size, device=views.device)] * 3)
        else:
            # Sample by sample: each has rays of its own.
            axes = zip(*(windows.along(axis) for axis in range(3)), strict=True)
            parts = [self._read(own[None], *at) for own, at in zip(filtered, axes, strict=True)]
            volume = torch.cat(parts)
        return volume.to(views.dtype)

    def _read(self, views: Tensor, z: Tensor, y: Tensor, x: Tensor) -> Tensor:
        """(b, view, z, y, x) at the grid's indices z, y and x."""
        voxel = self.cube_mm / self.size
        at = [(index.double() - (self.size - 1) / 2) * voxel for index in (z, y, x)]
        volumes = [
            read_along_rays(view, angle, self.geometry, *at)
            for view, angle in zip(views.unbind(1), self.angles, strict=True)
        ]
        return torch.stack(volumes, dim=1)


def read_along_rays(
    view: Tensor, angle_deg: float, geometry: Geometry, z_mm: Tensor, y_mm: Tensor, x_mm: Tensor
) -> Tensor:
    """The values (b, z, y, x) of one view (b, row, col) on the rays through a grid of points.

    The grid's coordinates are float64 on the view's device, LPS millimetres from the isocentre, and may be
    any part of a volume. `view` is float32 or float64; gradients reach it.
    """
    side_x, side_y, _ = column_direction(angle_deg)
    source_x, source_y, _ = source_direction(angle_deg)
    distance = geometry.sad_mm - (x_mm * source_x + y_mm[:, None] * source_y)
    behind = distance <= 0  # the source, which sends no ray there
    # From millimetres to the detector's half side, so that its edges are at −1 and 1.
    scale = (geometry.sid_mm / distance / (geometry.detector_mm / 2)).masked_fill(behind, 0.0)
    columns = ((x_mm * side_x + y_mm[:, None] * side_y) * scale).masked_fill(behind, 2.0)
    columns, scale, heights = (t.to(view) for t in (columns, scale, z_mm))
    slab = max(1, _BLOCK // scale.numel())
    return torch.cat([_read(view, columns, -z[:, None, None] * scale) for z in heights.split(slab)], dim=1)


def _read(view: Tensor, columns: Tensor, rows: Tensor) -> Tensor:
    """(b, z, y, x) from the view (b, row, col) at columns (y, x) and rows (z, y, x) from −1 to 1."""
    columns = columns.expand_as(rows)
    places = torch.stack([columns, rows], dim=-1).flatten(1, 2)
    # The batch as channels: all its views are read at the same places.
    read = F.grid_sample(view[None], places[None], padding_mode="border", align_corners=False)[0]
    seen = (columns.abs() <= 1) & (rows.abs() <= 1)
    return read.view(len(view), *rows.shape) * seen
