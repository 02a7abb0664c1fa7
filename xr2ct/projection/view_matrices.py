"""A view of a grid as sparse matrices: one over grid columns, and one for each slab of the grid's levels.

Planes parallel to the detector cut the volume, one voxel apart along the beam. On a plane every ray has the
same magnification, so what a view sums is `Σ_plane rows_plane · plane · columns_planeᵀ`: `columns` takes grid
columns (y, x) to each plane's detector columns, `rows` takes its levels z to detector rows. Both are known
from the geometry alone, take about as long to write down as to apply, and are kept for the next volume.
"""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from xr2ct.projection.geometry import Geometry, column_direction, source_direction
from xr2ct.projection.sparse import Sparse

_CPU_SAMPLES = 1 << 21
"""Of a slab, as grid columns or on the planes: 8 MB in float32, which a processor's cache holds between one
step and the next. Thinner ones are as fast on one core, but more threads meet at the end of every step."""

_GPU_SAMPLES = 1 << 27
"""512 MB: a GPU wants few and large kernels."""

_KEPT_BYTES = 256 << 20
"""Of matrices in this process: those of an oblique view of 256³ are 4 MB, of 512³ 14 MB, and as much again
transposed, for the adjoint."""

_ROUNDING = 1e-9
"""A plane that reaches no further than this into the volume is a coordinate's rounding."""


class Grid(NamedTuple):
    """Voxels about the isocentre, and what their values are: all that a view's matrices depend on."""

    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    dtype: torch.dtype
    device: torch.device

    def axis(self, count: int, step: float) -> Tensor:
        """`count` positions `step` apart about 0, float64."""
        return (torch.arange(count, dtype=torch.float64, device=self.device) - (count - 1) / 2) * step

    def slabs(self, pixels: int) -> list[slice]:
        """Levels that are worked on at a time: the same for every angle, so that views share their slab."""
        nz, ny, nx = self.shape
        samples = _CPU_SAMPLES if self.device.type == "cpu" else _GPU_SAMPLES
        widest = max(ny * nx, pixels * math.ceil(math.hypot(ny, nx)))
        # Whole vectors of 16 numbers, and half of one where a level is large.
        levels = max(8, samples // widest // 16 * 16)
        return [slice(z, min(z + levels, nz)) for z in range(0, nz, levels)]


@dataclass(frozen=True)
class SlabRows:
    """What one slab's levels give to the detector."""

    rows: slice
    """Detector rows that see the slab."""
    matrix: Sparse
    """(those rows, plane · level); transposed in an adjoint."""


@dataclass(frozen=True)
class ViewMatrices:
    """A view's sums over the volume, but for the rays' lengths."""

    planes: int
    columns: Sparse
    """(plane · detector column, y · x); transposed in an adjoint."""
    slabs: tuple[SlabRows | None, ...]
    """None for a slab that no ray meets."""
    lengths: Tensor
    """(row, col) millimetres of each ray between two planes."""

    def adjoint(self) -> ViewMatrices:
        """The same with its matrices transposed."""
        slabs = (s and replace(s, matrix=s.matrix.transposed()) for s in self.slabs)
        return replace(self, columns=self.columns.transposed(), slabs=tuple(slabs))

    @property
    def nbytes(self) -> int:
        return self.columns.nbytes + self.lengths.nbytes + sum(s.matrix.nbytes for s in self.slabs if s)


_kept: OrderedDict[tuple[Grid, Geometry, float, bool], ViewMatrices] = OrderedDict()
_lock = threading.Lock()


def view_matrices(grid: Grid, geometry: Geometry, angle_deg: float, adjoint: bool = False) -> ViewMatrices:
    """A view's matrices, or their transposes, from what is kept or else anew."""
    key = (grid, geometry, angle_deg, adjoint)
    with _lock:
        if key in _kept:
            _kept.move_to_end(key)
            return _kept[key]
    # What inference mode makes could not be used outside it.
    with torch.inference_mode(False), torch.no_grad():
        made = (
            view_matrices(grid, geometry, angle_deg).adjoint()
            if adjoint
            else _build(grid, geometry, angle_deg)
        )
    with _lock:
        _kept[key] = made
        while sum(m.nbytes for m in _kept.values()) > _KEPT_BYTES:
            _kept.popitem(last=False)
    return made


def forget() -> None:
    """Drop what is kept."""
    with _lock:
        _kept.clear()


def beam_axes(angle: float) -> tuple[tuple[float, float], tuple[float, float]]:
    """(x, y) of the unit vectors from source to detector, and along the detector's columns."""
    to_source, columns = source_direction(angle), column_direction(angle)
    return (-to_source[0], -to_source[1]), (columns[0], columns[1])


def _build(grid: Grid, geometry: Geometry, angle: float) -> ViewMatrices:
    (nz, ny, nx), (dz, dy, dx) = grid.shape, grid.spacing_mm
    (fx, fy), (ex, ey) = beam_axes(angle)
    step = 1 / math.hypot(fx / dx, fy / dy)  # one voxel: at 0° and 90° the planes are the grid's own
    on_detector = grid.axis(geometry.pixels, geometry.pixel_mm)
    depth = _depths(grid, geometry, angle, step)[:, None]
    nearness = (geometry.sad_mm + depth) / geometry.sid_mm
    lateral = on_detector * nearness
    ix, wx = _linear((depth * fx + lateral * ex).flatten() / dx, nx)
    iy, wy = _linear((depth * fy + lateral * ey).flatten() / dy, ny)
    columns = Sparse.gather(
        (iy[:, :, None] * nx + ix[:, None]).flatten(1),
        (wy[:, :, None] * wx[:, None]).flatten(1),
        ny * nx,
        grid.dtype,
    )
    # Rows count down from the head, z counts up to it.
    iz, wz = _linear(-on_detector[:, None] * nearness.T / dz, nz)
    slabs = _slab_rows(grid, grid.slabs(geometry.pixels), iz, wz)
    u = on_detector / geometry.sid_mm
    lengths = (step * (1 + u**2 + u[:, None] ** 2).sqrt()).to(grid.dtype)
    return ViewMatrices(len(depth), columns, slabs, lengths)


def _depths(grid: Grid, geometry: Geometry, angle: float, step: float) -> Tensor:
    """Millimetres behind the isocentre of each plane that meets the volume, source to detector."""
    _, ny, nx = grid.shape
    _, dy, dx = grid.spacing_mm
    (fx, fy), _ = beam_axes(angle)
    # Interpolation reaches one voxel beyond the outermost voxels' centres, and is 0 there.
    reach = ((nx + 1) * dx * abs(fx) + (ny + 1) * dy * abs(fy)) / 2
    depths = grid.axis(math.ceil(2 * reach / step - 1 - _ROUNDING), step)
    return depths[(depths > -geometry.sad_mm) & (depths < geometry.sid_mm - geometry.sad_mm)]


def _slab_rows(grid: Grid, slabs: list[slice], level: Tensor, weight: Tensor) -> tuple[SlabRows | None, ...]:
    """The levels and weights (row, plane, 2) of all rays, by slab."""
    lowest = torch.where(weight > 0, level, grid.shape[0]).amin((1, 2))
    highest = torch.where(weight > 0, level, -1).amax((1, 2))
    found: list[SlabRows | None] = []
    for slab in slabs:
        seeing = ((lowest < slab.stop) & (highest >= slab.start)).nonzero()
        if not len(seeing):
            found.append(None)
            continue
        rows = slice(int(seeing[0]), int(seeing[-1]) + 1)
        thickness, planes = slab.stop - slab.start, level.shape[1]
        inside = level[rows] - slab.start
        kept = torch.where((inside >= 0) & (inside < thickness), weight[rows], 0.0)
        plane = torch.arange(planes, device=grid.device)[:, None] * thickness
        matrix = Sparse.gather((plane + inside).flatten(1), kept.flatten(1), planes * thickness, grid.dtype)
        found.append(SlabRows(rows, matrix))
    return tuple(found)


def _linear(position: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Two neighbours and their weights, (…, 2), at positions in voxels from the axis' centre; 0 outside."""
    position = position + (size - 1) / 2
    below = position.floor()
    index = torch.stack([below, below + 1], -1)
    weight = (1 - (position[..., None] - index).abs()).clamp(min=0)
    weight = torch.where((index >= 0) & (index < size), weight, 0.0)
    return index.clamp(0, size - 1).long(), weight
