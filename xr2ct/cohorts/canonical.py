"""The canonical volume: a cube of fixed size about the lungs, at one or more resolutions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from xr2ct.cohorts.coverage import lung_ends
from xr2ct.cohorts.lungs import coarse, find_body_and_lungs
from xr2ct.cohorts.refused import Refused
from xr2ct.cohorts.resample import resample
from xr2ct.cohorts.table import clear_table
from xr2ct.cohorts.volume import NativeVolume


@dataclass(frozen=True)
class Canonical:
    """A patient's cube."""

    cubes: dict[int, np.ndarray]
    """Size → (size, size, size) int16 HU, axes (z, y, x)."""
    centre_mm: tuple[float, float, float]
    """(z, y, x) of the cube's centre, from the centre of the native volume's first voxel."""
    body_outside_cube: float
    """Fraction of the volume of the body in the scan that the cube leaves out."""


def canonical_cubes(
    native: NativeVolume,
    sizes: Sequence[int],
    cube_mm: float = 320.0,
    *,
    min_lung_coverage: float = 0.0,
    remove_table: bool = False,
) -> Canonical:
    """The cube of side `cube_mm` centred on the lungs' bounding box, at each of `sizes` voxels a side.

    A scan that is a cube already keeps its centre, and its voxels where that size is asked for.
    Every other is resampled once, straight from the native slices, anti-aliased (see `resample`); outside
    the scan is air, −1024, and with `remove_table` everything off the patient too: `native.hu` is changed in
    place (see `clear_table`). Raises `Refused` where there are no lungs, or where the scan's ends cut them so
    far that their coverage is below `min_lung_coverage` (see `lung_coverage`).
    """
    blocks, block_mm = coarse(native.hu, native.spacing_mm)
    body, lungs = find_body_and_lungs(blocks, block_mm)
    if not lungs.any():
        raise Refused("no lungs found")
    ends = lung_ends(lungs, native)
    if ends.coverage < min_lung_coverage:
        raise Refused(f"the scan cuts the lungs: {ends.cut()}")
    if remove_table:
        clear_table(native.hu, blocks, body, native.spacing_mm)
    # The first block's centre lies half a block, less half a voxel, inside the first voxel's centre.
    shift = [0.5 * (block - voxel) for block, voxel in zip(block_mm, native.spacing_mm, strict=True)]
    z, y, x = native.centre_mm or (
        middle * step + offset for middle, step, offset in zip(_middle(lungs), block_mm, shift, strict=True)
    )
    edges = [c - cube_mm / 2 for c in (z, y, x)]
    outside = 1 - _fraction_inside(
        body, block_mm, [e - s for e, s in zip(edges, shift, strict=True)], cube_mm
    )
    cubes = {
        size: np.rint(native.hu).astype(np.int16)
        if _is_the_cube(native, cube_mm, size)
        else resample(native.hu, native.spacing_mm, edges, cube_mm / size, size)
        for size in sizes
    }
    return Canonical(cubes, (z, y, x), outside)


def _is_the_cube(native: NativeVolume, cube_mm: float, size: int) -> bool:
    """Whether a scan is the very cube that is wanted: filtering it once more would only blur it."""
    same = native.hu.shape == (size,) * 3 and np.allclose(native.spacing_mm, cube_mm / size, rtol=1e-6)
    return native.centre_mm is not None and same


def _middle(mask: np.ndarray) -> list[float]:
    """The middle of a mask's extent on each axis, in voxels; a hundredth of it may stick out on each side."""
    middles = []
    for axis in range(3):
        others = tuple(a for a in range(3) if a != axis)
        cumulative = np.cumsum(mask.sum(axis=others))
        low, high = np.searchsorted(cumulative, [0.01 * cumulative[-1], 0.99 * cumulative[-1]])
        middles.append(0.5 * float(low + high))
    return middles


def _fraction_inside(
    mask: np.ndarray, spacing_mm: Sequence[float], edges_mm: Sequence[float], cube_mm: float
) -> float:
    """Of a mask's volume, the part inside a cube with lower faces at `edges_mm` from the first centre."""
    inside = mask.astype(np.float64)
    for axis in (2, 1, 0):
        step, edge = spacing_mm[axis], edges_mm[axis]
        low = (np.arange(mask.shape[axis]) - 0.5) * step
        overlap = np.minimum(low + step, edge + cube_mm) - np.maximum(low, edge)
        inside = inside @ np.clip(overlap / step, 0.0, 1.0)
    return float(inside / mask.sum())
