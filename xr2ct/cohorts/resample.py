"""Resampling to larger or smaller voxels in one separable, anti-aliased pass."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from scipy import sparse

from xr2ct.cohorts.volume import AIR_HU


def resample(
    hu: np.ndarray,
    spacing_mm: Sequence[float],
    first_edge_mm: Sequence[float],
    voxel_mm: float,
    size: int,
) -> np.ndarray:
    """A cube of `size`³ int16 HU, straight from (z, y, x) `hu`; air (−1024) where the scan has nothing.

    `first_edge_mm` (z, y, x): the cube's lower faces, from the centre of the scan's first voxel. Each new
    voxel is the mean, over its own extent, of the scan interpolated linearly: a box filter as wide as the
    new voxel, so pattern finer than it averages out, whatever the ratio on each axis, and a refinement is
    plain linear interpolation. A box rather than a Gaussian: it is what a scanner with such voxels would
    measure, it keeps the mean HU and the total mass exactly, and it blurs least.
    """
    z, y, x = (
        axis_weights(count, step, edge, voxel_mm, size)
        for count, step, edge in zip(hu.shape, spacing_mm, first_edge_mm, strict=True)
    )
    cube = np.empty((size, size, size), np.int16)
    total, term = np.empty((2, size, size), np.float32)
    pictures: dict[int, np.ndarray] = {}
    # Relative to air, so that weights missing beyond the scan's border stand for air. Slice by slice into the
    # cube: the scan is never held a second time, and of its slices only those that the next one sees too.
    for place, (first, last) in zip(cube, pairwise(z.indptr), strict=True):
        total[:] = 0
        seen = z.indices[first:last]
        pictures = {i: pictures[i] if i in pictures else _in_plane(hu[i], y, x) for i in seen}
        for index, weight in zip(seen, z.data[first:last], strict=True):
            total += np.multiply(pictures[index], weight, out=term)
        total += AIR_HU
        place[:] = np.rint(total, out=total)
    return cube


def _in_plane(hu: np.ndarray, y: sparse.csr_array, x: sparse.csr_array) -> np.ndarray:
    """A slice (y, x) above air, float32, on the cube's rows and columns."""
    across = y @ (hu.astype(np.float32) - AIR_HU)
    return np.ascontiguousarray((x @ across.T).T)


def axis_weights(
    count: int, spacing_mm: float, first_edge_mm: float, voxel_mm: float, size: int
) -> sparse.csr_array:
    """(size, count) weights of samples `spacing_mm` apart (the first at 0) in each new voxel's mean.

    Voxel k spans [edge, edge + voxel_mm], edge = first_edge_mm + k·voxel_mm. Sample i weighs the mean over
    that span of the tent Λ(t/spacing − i) of linear interpolation, which is its integral in closed form.
    """
    low = (first_edge_mm + voxel_mm * np.arange(size)) / spacing_mm
    width = voxel_mm / spacing_mm
    reach = int(np.ceil(width)) + 2  # samples that a voxel can see
    columns = np.floor(low).astype(np.int64)[:, None] + np.arange(reach)[None]
    offsets = columns - low[:, None]
    weights = (_tent_integral(width - offsets) - _tent_integral(-offsets)) / width
    keep = (columns >= 0) & (columns < count) & (weights > 0)
    rows = np.broadcast_to(np.arange(size)[:, None], columns.shape)
    entries = (weights[keep].astype(np.float32), (rows[keep], columns[keep]))
    return sparse.csr_array(entries, shape=(size, count))


def _tent_integral(t: np.ndarray) -> np.ndarray:
    """∫ of the unit tent from −∞ to t."""
    t = np.clip(t, -1.0, 1.0)
    return np.where(t < 0, 0.5 * (t + 1) ** 2, 1 - 0.5 * (1 - t) ** 2)
