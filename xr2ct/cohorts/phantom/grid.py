"""The scanner's grid laid over a patient: coordinates of sub-boxes, coverage of a shape, smooth noise.

Patient coordinates are LPS millimetres, (x, y, z), with the carina near the origin; arrays are (z, y, x).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

Array = np.ndarray
Triple = tuple[float, float, float]

SLAB_VOXELS = 500_000
TILE_NODES = 32
"""Fine noise repeats after so many nodes."""


@dataclass(frozen=True)
class Grid:
    """Voxels whose axes are turned and shifted against the patient's by the pose."""

    shape: tuple[int, int, int]
    """Slices, rows, columns."""
    spacing_mm: Triple
    """z, y, x."""
    rotation: Array
    """(3, 3): patient (x, y, z) from scanner (x, y, z)."""
    centre: Triple
    """Patient (x, y, z) of the grid's middle."""

    @property
    def edge_mm(self) -> float:
        """Width over which an edge is spread: the voxel's mean side."""
        return float(np.prod(self.spacing_mm) ** (1 / 3))

    @cached_property
    def axes(self) -> tuple[Array, Array, Array]:
        """Scanner millimetres from the grid's middle along z, y and x."""
        z, y, x = (
            ((np.arange(n) - (n - 1) / 2) * s).astype(np.float32)
            for n, s in zip(self.shape, self.spacing_mm, strict=True)
        )
        return z, y, x

    def index(self, points: Array) -> Array:
        """(n, 3) patient (x, y, z) → (n, 3) fractional (z, y, x) voxel index."""
        scanner = (np.asarray(points) - self.centre) @ self.rotation
        return scanner[:, ::-1] / self.spacing_mm + (np.array(self.shape) - 1) / 2

    def patient(self, index: Array) -> Array:
        """(n, 3) fractional (z, y, x) voxel index → (n, 3) patient (x, y, z)."""
        scanner = ((np.asarray(index) - (np.array(self.shape) - 1) / 2) * self.spacing_mm)[:, ::-1]
        return scanner @ self.rotation.T + self.centre

    def slabs(self) -> Iterator[Region]:
        """All voxels, a few slices at a time: what a tissue needs in between then stays in the cache."""
        slices, rows, columns = self.shape
        step = max(1, SLAB_VOXELS // (rows * columns))
        for z in range(0, slices, step):
            yield Region(self, (slice(z, min(z + step, slices)), slice(0, rows), slice(0, columns)))

    def boxes(self, low: Array, high: Array) -> Array:
        """(n, 3) patient corners → (n, 3, 2) first voxel and one past the last, clipped to the scan."""
        corners = np.stack([np.where([i & 1, i & 2, i & 4], high, low) for i in range(8)])
        index = self.index(corners.reshape(-1, 3)).reshape(corners.shape)
        start, stop = np.floor(index.min(0)).astype(int) - 1, np.ceil(index.max(0)).astype(int) + 2
        return np.stack([np.clip(start, 0, self.shape), np.clip(stop, 0, self.shape)], -1)

    def region(self, low: Triple | Array, high: Triple | Array) -> Region:
        """The voxels around a box given in patient (x, y, z); empty where it lies outside the scan."""
        box = self.boxes(np.asarray(low, float)[None], np.asarray(high, float)[None])[0]
        z, y, x = (slice(int(a), int(b)) for a, b in box)
        return Region(self, (z, y, x))


@dataclass(frozen=True)
class Region:
    """A box of voxels with their patient coordinates, computed when first asked for."""

    grid: Grid
    slices: tuple[slice, slice, slice]

    @property
    def shape(self) -> tuple[int, int, int]:
        z, y, x = (s.stop - s.start for s in self.slices)
        return (z, y, x)

    def _coordinate(self, k: int) -> Array:
        z, y, x = (axis[s] for axis, s in zip(self.grid.axes, self.slices, strict=True))
        row = self.grid.rotation[k].astype(np.float32)
        plane = (row[0] * x)[None, :] + (row[1] * y)[:, None]
        return plane[None] + (row[2] * z + np.float32(self.grid.centre[k]))[:, None, None]

    @cached_property
    def x(self) -> Array:
        """Right to left."""
        return self._coordinate(0)

    @cached_property
    def y(self) -> Array:
        """Front to back."""
        return self._coordinate(1)

    @cached_property
    def z(self) -> Array:
        """Feet to head."""
        return self._coordinate(2)

    def within(self, low: Triple | Array, high: Triple | Array) -> tuple[Region, tuple[slice, slice, slice]]:
        """A smaller box, and where it lies in this one's arrays."""
        return self.cut(self.grid.region(low, high).slices)

    def cut(self, slices: tuple[slice, ...]) -> tuple[Region, tuple[slice, slice, slice]]:
        """What of this box lies in another, given on the grid; and where in this one's arrays."""
        cut, local = [], []
        for mine, its in zip(self.slices, slices, strict=True):
            start = min(max(its.start, mine.start), mine.stop)
            stop = max(min(its.stop, mine.stop), start)
            cut.append(slice(start, stop))
            local.append(slice(start - mine.start, stop - mine.start))
        return Region(self.grid, (cut[0], cut[1], cut[2])), (local[0], local[1], local[2])

    def coverage(self, distance: Array) -> Array:
        """Fraction of each voxel inside a shape, from the signed distance (mm, negative inside)."""
        return np.clip(0.5 - distance / np.float32(self.grid.edge_mm), 0, 1)

    def noise(self, rng: np.random.Generator, scale_mm: float) -> Array:
        """A smooth random field of unit variance whose features are about `scale_mm` wide.

        Cubic B-spline over normal deviates at nodes half of that apart. It belongs to the grid, not the box:
        boxes that meet continue each other when drawn from generators in the same state.
        """
        step = [2 * s / scale_mm for s in self.grid.spacing_mm]
        nodes = [min(int(n * t) + 5, TILE_NODES) for n, t in zip(self.grid.shape, step, strict=True)]
        field = rng.standard_normal(nodes, dtype=np.float32)
        if 0 in self.shape:
            return np.empty(self.shape, np.float32)
        (zn, zw), (yn, yw), (xn, xw) = (_taps(s, t) for s, t in zip(self.slices, step, strict=True))
        needed = np.arange(zn[0], zn[-1] + 4)
        field = field[needed % nodes[0]]
        field = sum(np.take(field, (xn + k) % nodes[2], 2) * xw[k] for k in range(4))
        field = sum(np.take(field, (yn + k) % nodes[1], 1) * yw[k][:, None] for k in range(4))
        out = np.empty(self.shape, np.float32)
        for z, (n, w) in enumerate(zip(zn - zn[0], zw.T, strict=True)):
            np.multiply(field[n], w[0], out=out[z])
            for k in (1, 2, 3):
                out[z] += w[k] * field[n + k]
        return out


def _taps(places: slice, step: float) -> tuple[Array, Array]:
    """(n,) first node and (4, n) spline weights of unit power, for voxels `step` nodes apart."""
    position = np.arange(places.start, places.stop) * step
    first = position.astype(np.intp)
    t = position - first
    weights = np.stack([(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3])
    return first, (weights / np.sqrt((weights**2).sum(0))).astype(np.float32)


def blend(hu: Array, value: Array | float, coverage: Array) -> None:
    """Put a tissue into its voxels, in place, by the fraction of each that it fills."""
    tissue = value if isinstance(value, np.ndarray) else np.full(len(hu), value, np.float32)
    for here, new, share in zip(hu, tissue, coverage, strict=True):  # a slice at a time stays in the cache
        here += share * (new - here)
