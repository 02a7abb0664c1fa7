"""Signed distances (mm, negative inside) of the shapes that organs are made of, and soft unions of them."""

from __future__ import annotations

import numpy as np

from xr2ct.cohorts.phantom.grid import Array, Region, Triple
from xr2ct.cohorts.phantom.tubes import Tubes

FAR = np.float32(1e3)


def superellipse(dx: Array, dy: Array, half_width: Array | float, half_depth: Array | float) -> Array:
    """Distance along the radius to an outline between an ellipse and a rectangle (exponent about 2.5)."""
    u, v = (dx / half_width) ** 2, (dy / half_depth) ** 2
    level = np.sqrt(np.sqrt(u * u + v * v + np.float32(1.2) * u * v)) + np.float32(1e-3)
    return np.sqrt(dx * dx + dy * dy) * (1 - 1 / level)


def ellipsoid(
    region: Region, centre: Triple | Array, radii: Triple | Array, axes: Array | None = None
) -> Array:
    """`axes` (3, 3) holds the unit vectors of the three radii in its rows; the patient's axes where None."""
    offset = (
        region.x - np.float32(centre[0]),
        region.y - np.float32(centre[1]),
        region.z - np.float32(centre[2]),
    )
    if axes is not None:
        a = axes.astype(np.float32)
        offset = tuple(a[k, 0] * offset[0] + a[k, 1] * offset[1] + a[k, 2] * offset[2] for k in range(3))
    level2 = sum((o / np.float32(r)) ** 2 for o, r in zip(offset, radii, strict=True))
    # first-order distance f / |∇f| of the implicit function f = |p/r| − 1
    slope2 = sum((o / np.float32(r * r)) ** 2 for o, r in zip(offset, radii, strict=True))
    tiny = np.float32(1e-5)  # in the middle, where both vanish, their ratio is the smallest radius
    level = np.sqrt(np.asarray(level2, np.float32)) + tiny
    return (level - 1) * level / (np.sqrt(np.asarray(slope2, np.float32)) + tiny / np.float32(min(radii)))


def capsules(region: Region, tubes: Tubes, reach_mm: float = 12.0) -> Array:
    """Distance to the nearest of many tapering segments, right out to `reach_mm` from them, then `FAR`."""
    distance = np.full(region.shape, FAR, np.float32)
    ends = np.stack([tubes.start, tubes.end])
    pad = np.maximum(tubes.start_radius, tubes.end_radius)[:, None] + reach_mm
    for n, bounds in enumerate(region.grid.boxes(ends.min(0) - pad, ends.max(0) + pad)):
        box, local = region.cut(tuple(slice(int(first), int(last)) for first, last in bounds))
        if 0 in box.shape:
            continue
        a, b, ra, rb = tubes.start[n], tubes.end[n], tubes.start_radius[n], tubes.end_radius[n]
        along = b - a
        px, py, pz = box.x - np.float32(a[0]), box.y - np.float32(a[1]), box.z - np.float32(a[2])
        d = along.astype(np.float32)
        t = np.clip((px * d[0] + py * d[1] + pz * d[2]) / np.float32(max(along @ along, 1e-6)), 0, 1)
        px, py, pz = px - t * d[0], py - t * d[1], pz - t * d[2]
        here = np.sqrt(px * px + py * py + pz * pz) - (np.float32(ra) + t * np.float32(rb - ra))
        np.minimum(distance[local], here, out=distance[local])
    return distance


def union(a: Array, b: Array, blend_mm: float) -> Array:
    """Smooth minimum: two shapes grown together over `blend_mm` (Quilez's polynomial)."""
    h = np.maximum(np.float32(blend_mm) - np.abs(a - b), 0)
    return np.minimum(a, b) - h * h / np.float32(4 * blend_mm)


def intersection(a: Array, b: Array, blend_mm: float) -> Array:
    """Smooth maximum."""
    return -union(-a, -b, blend_mm)
