"""What of a radiograph is a measurement, and at which level the beam is unattenuated.

A collimator's blades, and the shutters that mask them, are flat up to a straight edge. So is the beam beside
the patient, but for its noise and the patient's outline, which is not straight. Both are looked for in the
picture, since headers say little of them and are wrong at times: a Philips Thoravision states the edges in
millimetres, where DICOM has pixels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from scipy import ndimage, stats

COARSE = 384
"""Pixels along the long side of the picture that is looked at."""
_FLAT = 0.04
"""Of the picture's range: within this of its outermost pixels, a blade is the same."""
_STRAIGHT = 0.012
"""Of a side: how far from a line an edge may lie."""
_AGREE = 0.6
"""The part of an edge that has to lie so near."""
_TILT_DEG = 8.0
_LEAST_OPEN = 0.5
"""Of each side, that what a header calls the opening leaves; less is another unit or another frame."""
_THIN = 0.1
"""Of the range above the lowest: pixels that may be unattenuated."""
_LOWEST = 0.035
"""Of the range above the lowest, the middle of these: where it lies higher they are lung."""
_LEAST_AIR = 0.005
"""Of the field, that hangs together at its border: less tells no level."""


def measured(
    picture: np.ndarray, valid: np.ndarray, openings: Sequence[Mapping[str, Sequence[float]]]
) -> np.ndarray:
    """(row, col) bool: what lies inside the field, of a picture that grows with the line integral.

    `valid`: pixels with a value at all. `openings`: as `radiograph_header.attributes_of` has them.
    """
    seen = valid.copy()
    for opening in openings:
        inside = _inside(picture.shape, opening)
        sides = [inside.any(axis=axis).mean() for axis in (0, 1)]
        if min(sides) >= _LEAST_OPEN:
            seen &= inside
    coarse, mask, factor = _coarse(picture, seen)
    found = _between_blades(coarse, mask)
    rows, cols = (
        np.minimum(np.arange(n) // factor, limit - 1)
        for n, limit in zip(picture.shape, found.shape, strict=True)
    )
    return seen & found[np.ix_(rows, cols)]


def unattenuated(picture: np.ndarray, seen: np.ndarray) -> float | None:
    """The level beside the patient; None where the field shows nothing but patient."""
    coarse, mask, _ = _coarse(picture, seen)
    if not mask.any():
        return None
    low, high = np.percentile(coarse[mask], (0.5, 99))
    thin = mask & (coarse <= low + _THIN * (high - low))
    border = mask & ~ndimage.binary_erosion(mask)
    pieces, _ = ndimage.label(thin)
    touching = np.setdiff1d(pieces[border], [0])
    air = np.isin(pieces, touching)
    if air.sum() < _LEAST_AIR * mask.sum():
        return None
    level = float(np.median(coarse[air]))
    return level if level <= low + _LOWEST * (high - low) else None


def _coarse(picture: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """Means over square blocks, where all of a block is in the mask, and the side of a block."""
    factor = max(1, math.ceil(max(picture.shape) / COARSE))
    rows, cols = (n // factor for n in picture.shape)
    blocks = (rows, factor, cols, factor)
    cut = slice(rows * factor), slice(cols * factor)
    return (
        picture[cut].reshape(blocks).mean(axis=(1, 3), dtype=np.float64),
        mask[cut].reshape(blocks).min(axis=(1, 3)),
        factor,
    )


def _between_blades(picture: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """(row, col) bool: without what lies beyond a straight edge at each of the four sides."""
    if not mask.any():
        return mask
    low, high = np.percentile(picture[mask], (1, 99))
    open_ = np.ones_like(mask)
    for turns in range(4):
        blade = _left_blade(np.rot90(picture, turns), low, high)
        open_ &= ~np.rot90(blade, -turns)
    return open_


def _left_blade(picture: np.ndarray, low: float, high: float) -> np.ndarray:
    """(row, col) bool: what a blade at the left covers; nothing where there is none."""
    rows, cols = picture.shape
    nothing = np.zeros(picture.shape, bool)
    level = float(np.median(picture[:, 0]))
    flat = np.abs(picture - level) <= _FLAT * (high - low)
    reach = np.where(flat.all(axis=1), cols, flat.argmin(axis=1)).astype(float)
    at = np.flatnonzero(reach < cols)  # a row that is flat throughout is another blade's
    if len(at) < _AGREE * rows or np.median(reach[at]) < 1:
        return nothing
    slope, first, *_ = stats.theilslopes(reach[at], at)
    edge = first + slope * np.arange(rows)
    near = np.abs(reach - edge) <= max(1.5, _STRAIGHT * cols)
    if (
        abs(slope) > math.tan(math.radians(_TILT_DEG))
        or near[at].mean() < _AGREE
        or np.median(edge) > 0.45 * cols
    ):
        return nothing
    covered = np.arange(cols) < edge[:, None] + 1
    beam = level < low + 2 * _THIN * (high - low)
    if beam and np.ptp(picture[covered & flat]) > 1e-3 * (high - low):
        return nothing  # not masked: the beam itself, whose level is needed
    return covered


def _inside(shape: tuple[int, ...], opening: Mapping[str, Sequence[float]]) -> np.ndarray:
    """(row, col) bool of one opening; rows and columns count from 1."""
    row, col = np.mgrid[1 : shape[0] + 1, 1 : shape[1] + 1].astype(np.float32)
    if "edges" in opening:
        left, right, upper, lower = opening["edges"]
        return (col > left) & (col < right) & (row > upper) & (row < lower)
    if "circle" in opening:
        y, x, radius = opening["circle"]
        return (row - y) ** 2 + (col - x) ** 2 <= radius**2
    inside = np.zeros(shape, bool)
    points = list(zip(opening["polygon"][::2], opening["polygon"][1::2], strict=True))
    for (y, x), (y2, x2) in zip(points, [*points[1:], points[0]], strict=True):
        if y != y2:  # the even-odd rule
            inside ^= ((row < y) != (row < y2)) & (col < x + (x2 - x) * (row - y) / (y2 - y))
    return inside
