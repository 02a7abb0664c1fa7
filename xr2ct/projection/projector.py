"""A differentiable cone-beam projector: line integrals of a volume, and its exact adjoint.

Planes parallel to the detector cut the volume, one voxel apart along the beam, and a ray is the sum of the
volume at its crossings, interpolated linearly, times its length between two planes. On such a plane every
ray has the same magnification, so a view is two sparse matrices a plane: one takes grid columns (y, x) to
detector columns, the other z to detector rows. Where the beam lies along a grid axis the planes are the
grid's own and this is Joseph's method (IEEE Trans. Med. Imaging 1:192–196, 1982). The adjoint applies the
same two matrices transposed, so it is exact to rounding, and each operator is the other's gradient.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from xr2ct.projection.geometry import Geometry, column_direction, source_direction

WATER_PER_MM = 0.02
"""Attenuation of water, 1/mm."""

_BLOCK = 1 << 21
"""Samples held at a time: a few megabytes, which a core's cache holds between one step and the next."""

_ROUNDING = 1e-9
"""An interpolation weight below this is a coordinate's rounding, not a neighbour."""


def project(
    mu: Tensor, spacing_mm: tuple[float, float, float], geometry: Geometry, angles_deg: Sequence[float]
) -> Tensor:
    """Line integrals from the source to every detector pixel, (b, view, row, col), of `mu` (b, z, y, x).

    `mu` is float32 or float64, in 1/mm, its axes those of the patient (z feet to head, y front to back, x
    right to left), its centre the isocentre, nothing outside; `spacing_mm` is z, y, x. Row 0 is the head's
    end and columns run along (cos θ, sin θ, 0). Raises `ValueError` for another shape or type.
    """
    if mu.ndim != 4:
        raise ValueError(f"mu: expected (batch, z, y, x), got {tuple(mu.shape)}")
    z, y, x = mu.shape[1:]
    return _Project.apply(mu, _Rays((z, y, x), spacing_mm, geometry, tuple(angles_deg), mu))


def backproject(
    images: Tensor,
    shape: tuple[int, int, int],
    spacing_mm: tuple[float, float, float],
    geometry: Geometry,
    angles_deg: Sequence[float],
) -> Tensor:
    """The adjoint of `project`: (b, view, row, col) → (b, z, y, x) of `shape`, in the images' unit × mm."""
    expected = (len(angles_deg), geometry.pixels, geometry.pixels)
    if images.ndim != 4 or images.shape[1:] != expected:
        raise ValueError(
            f"images: expected (batch, {', '.join(map(str, expected))}), got {tuple(images.shape)}"
        )
    return _Backproject.apply(images, _Rays(shape, spacing_mm, geometry, tuple(angles_deg), images))


def attenuation(hu: Tensor) -> Tensor:
    """HU to 1/mm: 0.02 · max(0, 1 + HU/1000), float64 where `hu` is, float32 otherwise."""
    hu = hu if hu.dtype == torch.float64 else hu.float()
    return WATER_PER_MM * (1 + hu / 1000).clamp(min=0)


def outside_beam(
    body: Tensor,
    spacing_mm: tuple[float, float, float],
    geometry: Geometry,
    angles_deg: Sequence[float],
    isocentre_mm: tuple[float, float, float] | None = None,
) -> tuple[float, ...]:
    """For each view the fraction of the body's volume that projects beside the detector.

    `body` is a mask (z, y, x) on a grid of `spacing_mm`. `isocentre_mm` (z, y, x) counts from the centre of
    the first voxel; the volume's centre where unset. Raises `ValueError` for an empty mask.
    """
    body = torch.as_tensor(body) != 0
    total = int(body.sum())
    if body.ndim != 3 or not total:
        raise ValueError(f"body: expected a mask (z, y, x) that is not empty, got {tuple(body.shape)}")
    centre = isocentre_mm or tuple((n - 1) / 2 * d for n, d in zip(body.shape, spacing_mm, strict=True))
    z, y, x = (
        torch.arange(n, dtype=torch.float64, device=body.device) * d - c
        for n, d, c in zip(body.shape, spacing_mm, centre, strict=True)
    )
    fractions = []
    for angle in angles_deg:
        along, across = _beam_axes(angle)
        depth = y[:, None] * along[1] + x * along[0]
        lateral = y[:, None] * across[1] + x * across[0]
        reach = geometry.detector_mm / 2 * (geometry.sad_mm + depth) / geometry.sid_mm
        seen = (lateral.abs() <= reach) & (depth < geometry.sid_mm - geometry.sad_mm)
        inside = (z[:, None, None].abs() <= torch.where(seen, reach, -1.0)) & body
        fractions.append(1 - int(inside.sum()) / total)
    return tuple(fractions)


class _Project(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, mu: Tensor, rays: _Rays) -> Tensor:
        ctx.rays = rays
        return rays.project(mu)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return _Backproject.apply(gradients[0], ctx.rays), None


class _Backproject(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, images: Tensor, rays: _Rays) -> Tensor:
        ctx.rays = rays
        return rays.backproject(images)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return _Project.apply(gradients[0], ctx.rays), None


@dataclass(frozen=True)
class _Sparse:
    """A sparse matrix by rows, times a dense one: `embedding_bag` is that product, fast on CPU and GPU."""

    offsets: Tensor
    """(rows + 1) where each row's entries begin."""
    columns: Tensor
    weights: Tensor

    @classmethod
    def gather(cls, columns: Tensor, weights: Tensor, dtype: torch.dtype) -> _Sparse:
        """From (rows, entries) of columns and weights, leaving out what weighs nothing."""
        kept = weights > _ROUNDING
        offsets = F.pad(kept.sum(1).cumsum(0), (1, 0))
        return cls(offsets, columns[kept], weights[kept].to(dtype))

    def __matmul__(self, dense: Tensor) -> Tensor:
        return F.embedding_bag(
            self.columns, dense, self.offsets,
            mode="sum", per_sample_weights=self.weights, include_last_offset=True,
        )  # fmt: skip

    def transposed(self) -> tuple[_Sparse, Tensor]:
        """The transposed matrix without its empty rows, and which rows those kept are, in ascending order."""
        kept, counts = self.columns.unique(return_counts=True)
        order = self.columns.argsort(stable=True)
        rows = torch.arange(len(self.offsets) - 1, device=order.device)
        entries = rows.repeat_interleave(self.offsets.diff())[order]
        return _Sparse(F.pad(counts.cumsum(0), (1, 0)), entries, self.weights[order]), kept


@dataclass(frozen=True)
class _Block:
    """Some neighbouring planes of one view."""

    planes: int
    columns: _Sparse
    """(plane · col, y · x)."""
    rows: _Sparse
    """(row, plane · z)."""


class _Rays:
    """Every ray of some views through one grid, for tensors like `like`."""

    def __init__(
        self,
        shape: tuple[int, int, int],
        spacing_mm: tuple[float, float, float],
        geometry: Geometry,
        angles_deg: tuple[float, ...],
        like: Tensor,
    ) -> None:
        if like.dtype not in (torch.float32, torch.float64):
            raise ValueError(f"projector: expected float32 or float64, got {like.dtype}")
        if len(spacing_mm) != 3 or min(spacing_mm) <= 0:
            raise ValueError(f"spacing_mm: expected three positive numbers, got {spacing_mm}")
        self.shape, self.spacing_mm, self.geometry, self.angles_deg = shape, spacing_mm, geometry, angles_deg
        self.device, self.dtype = like.device, like.dtype

    def project(self, mu: Tensor) -> Tensor:
        """(b, z, y, x) → (b, view, row, col)."""
        z = self.shape[0]
        pixels = self.geometry.pixels
        volumes = mu.flatten(2).transpose(1, 2).contiguous()
        images = mu.new_zeros(len(mu), len(self.angles_deg), pixels, pixels)
        for v, angle in enumerate(self.angles_deg):
            for block in self._blocks(angle):
                for volume, image in zip(volumes, images[:, v], strict=True):
                    fan = (block.columns @ volume).view(block.planes, pixels, z)
                    image += block.rows @ fan.transpose(1, 2).reshape(-1, pixels)
            images[:, v] *= self._lengths(angle)
        return images

    def backproject(self, images: Tensor) -> Tensor:
        """(b, view, row, col) → (b, z, y, x)."""
        z, y, x = self.shape
        pixels = self.geometry.pixels
        volumes = images.new_zeros(len(images), y * x, z)
        for v, angle in enumerate(self.angles_deg):
            weighted = images[:, v] * self._lengths(angle)
            for block in self._blocks(angle):
                rows, levels = block.rows.transposed()
                columns, touched = block.columns.transposed()
                for volume, image in zip(volumes, weighted, strict=True):
                    fan = image.new_zeros(block.planes * z, pixels)
                    fan[levels] = rows @ image
                    fan = fan.view(block.planes, z, pixels).transpose(1, 2).reshape(-1, z)
                    volume[touched] += columns @ fan
        return volumes.transpose(1, 2).reshape(-1, z, y, x)

    def _step_mm(self, angle: float) -> float:
        """Between two planes: one voxel along the beam, so that at 0° and 90° planes are the grid's own."""
        _, dy, dx = self.spacing_mm
        along, _ = _beam_axes(angle)
        return 1 / math.hypot(along[0] / dx, along[1] / dy)

    def _depths(self, angle: float) -> Tensor:
        """Millimetres behind the isocentre of each plane that meets the volume, source to detector."""
        _, ny, nx = self.shape
        _, dy, dx = self.spacing_mm
        (fx, fy), _ = _beam_axes(angle)
        step = self._step_mm(angle)
        # Interpolation reaches one voxel beyond the outermost voxels' centres, and is 0 there.
        reach = ((nx + 1) * dx * abs(fx) + (ny + 1) * dy * abs(fy)) / 2
        count = math.ceil(2 * reach / step - 1 - _ROUNDING)
        depths = self._centred(count, step)
        return depths[
            (depths > -self.geometry.sad_mm) & (depths < self.geometry.sid_mm - self.geometry.sad_mm)
        ]

    def _blocks(self, angle: float) -> Iterator[_Block]:
        (nz, ny, nx), (dz, dy, dx) = self.shape, self.spacing_mm
        (fx, fy), (ex, ey) = _beam_axes(angle)
        pixels = self.geometry.pixels
        on_detector = self._centred(pixels, self.geometry.pixel_mm)
        for depths in self._depths(angle).split(max(1, _BLOCK // (pixels * nz))):
            depth = depths[:, None]
            nearness = (self.geometry.sad_mm + depth) / self.geometry.sid_mm
            lateral = on_detector * nearness
            ix, wx = _linear((depth * fx + lateral * ex).flatten() / dx, nx)
            iy, wy = _linear((depth * fy + lateral * ey).flatten() / dy, ny)
            grid = (iy[:, :, None] * nx + ix[:, None]).flatten(1)
            columns = _Sparse.gather(grid, (wy[:, :, None] * wx[:, None]).flatten(1), self.dtype)
            # Rows count down from the head, z counts up to it.
            iz, wz = _linear(-on_detector[:, None] * nearness.T / dz, nz)
            plane = torch.arange(len(depths), device=self.device)[:, None] * nz
            yield _Block(
                len(depths), columns, _Sparse.gather((plane + iz).flatten(1), wz.flatten(1), self.dtype)
            )

    def _lengths(self, angle: float) -> Tensor:
        """(row, col) millimetres of each ray between two planes."""
        u = self._centred(self.geometry.pixels, self.geometry.pixel_mm) / self.geometry.sid_mm
        return (self._step_mm(angle) * (1 + u**2 + u[:, None] ** 2).sqrt()).to(self.dtype)

    def _centred(self, count: int, step: float) -> Tensor:
        """`count` positions `step` apart about 0."""
        return (torch.arange(count, dtype=torch.float64, device=self.device) - (count - 1) / 2) * step


def _beam_axes(angle: float) -> tuple[tuple[float, float], tuple[float, float]]:
    """(x, y) of the unit vectors from source to detector, and along the detector's columns."""
    to_source, columns = source_direction(angle), column_direction(angle)
    return (-to_source[0], -to_source[1]), (columns[0], columns[1])


def _linear(position: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Two neighbours and their weights, (…, 2), at positions in voxels from the axis' centre; 0 outside."""
    position = position + (size - 1) / 2
    below = position.floor()
    index = torch.stack([below, below + 1], -1)
    weight = (1 - (position[..., None] - index).abs()).clamp(min=0)
    weight = torch.where((index >= 0) & (index < size), weight, 0.0)
    return index.clamp(0, size - 1).long(), weight
