"""How unlike its cohort a case is, from the store alone: HU, lungs, orientation, what is cut off.

Each measure becomes a robust z-score, (value − median) / (1.4826 · MAD), as in Iglewicz and Hoaglin, How to
Detect and Handle Outliers (ASQC 1993), whose bound of 3.5 is `UNUSUAL`. A case's score is its largest. The
spread of a measure is never taken for smaller than what sound chests differ by, so neither a handful of cases
nor cases much alike make outliers of each other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from xr2ct.cohorts.lungs import coarse, find_body_and_lungs

UNUSUAL = 3.5
"""Scores from here on come with a reason."""
WORKING_SIZE = 64
"""Volumes of this size are measured, or of the nearest that the store has."""
_BIN_HU = 25.0
_HU = (-1100.0, 1500.0)
_SMALL = 32
_SMALL_HU = (-1000.0, 400.0)
_SCANNED_HU = -900.0
"""Beyond a scan's ends the cube is air."""


@dataclass(frozen=True)
class Measure:
    """One of the figures that are compared."""

    name: str
    sign: int
    """Whether values above the cohort's median count (1), below it (−1) or both (0)."""
    least_spread: float
    """A standard deviation that sound chests have anyway."""
    told: str
    """Words with places for `value`, `low` and `high`, the cohort's 5 % and 95 % quantiles, and `flip`."""
    scale: float = 1.0
    """What those figures are multiplied with."""
    bound: float = np.inf
    """Only values below count."""


MEASURES = (
    Measure("histogram", 1, 20.0, "HU {value:.0f} away from the cohort's, usually {low:.0f}–{high:.0f}"),
    Measure("tissue", 0, 12.0, "soft tissue at {value:.0f} HU, cohort {low:.0f} to {high:.0f}"),
    Measure("lung_hu", 0, 25.0, "lungs at {value:.0f} HU, cohort {low:.0f} to {high:.0f}"),
    Measure("lungs", 0, 0.015, "lungs {value:.0f} % of the cube, cohort {low:.0f}–{high:.0f} %", 100),
    Measure(
        "lungs_cut", 1, 0.05, "lungs cut at {value:.0f} % of their widest, cohort {low:.0f}–{high:.0f} %", 100
    ),
    Measure(
        "body_cut", 1, 0.05, "{value:.0f} % of the body outside the cube, cohort {low:.0f}–{high:.0f} %", 100
    ),
    Measure("likeness", -1, 0.03, "likeness to the mean chest {value:.2f}, cohort {low:.2f}–{high:.2f}"),
    Measure("upright", -1, 0.03, "{flip}", bound=0.0),
    Measure(
        "heart", -1, 0.15, "left and right swapped?: the heart lies as in a mirror; only its side shows that",
        bound=0.0,
    ),
)  # fmt: skip
_FLIPS: Mapping[tuple[int, ...], str] = {
    (0,): "upside down?: matches the mean chest better when flipped head to feet",
    (1,): "back to front?: matches the mean chest better when flipped front to back",
    (0, 1): "turned over?: matches the mean chest better when flipped head to feet and front to back",
}


@dataclass(frozen=True)
class Measured:
    """What is kept of one volume."""

    histogram: np.ndarray
    """(bin,) parts of the cube by HU."""
    small: np.ndarray
    """uint8 (z, y, x), at most 32³: lung black, bone white."""
    values: Mapping[str, float]
    """By measure; NaN where it is not to be had."""


@dataclass(frozen=True)
class Verdict:
    """How unusual a case is."""

    score: float
    reasons: tuple[str, ...]
    """In words, the weightiest first; none below `UNUSUAL`."""
    values: Mapping[str, float]
    """By measure; NaN where it is not to be had."""


def measure(hu: np.ndarray, cube_mm: float, body_outside_cube: float) -> Measured:
    """Measure one volume: int16 HU (z, y, x) of a cube of side `cube_mm`."""
    spacing = (cube_mm / hu.shape[0],) * 3
    blocks, block_mm = coarse(hu, spacing)
    body, lungs = find_body_and_lungs(blocks, block_mm)
    edges = np.arange(_HU[0], _HU[1] + 1, _BIN_HU)
    tissue = blocks[body & ~lungs & (blocks > -300)]
    values = {
        "tissue": float(np.median(tissue)) if tissue.size else np.nan,
        "lung_hu": float(np.median(blocks[lungs])) if lungs.any() else np.nan,
        "lungs": float(lungs.mean()),
        "lungs_cut": _lungs_cut(blocks, lungs),
        "body_cut": body_outside_cube,
    }
    counts, _ = np.histogram(np.clip(hu, edges[0], edges[-1]), edges)
    return Measured((counts / hu.size).astype(np.float32), _shrunk(hu), values)


def judge(cases: Sequence[Measured]) -> list[Verdict]:
    """Score the cases of a cohort against each other, in their order."""
    if not cases:
        return []
    histogram, orientation = _histogram_distances(cases), _orientations(cases)
    values = [
        {**case.values, "histogram": distance, "likeness": o.likeness, "upright": o.upright, "heart": o.heart}
        for case, distance, o in zip(cases, histogram, orientation, strict=True)
    ]
    found: list[list[tuple[float, str]]] = [[] for _ in cases]
    for one in MEASURES:
        column = np.array([of_case[one.name] for of_case in values])
        known = column[np.isfinite(column)]
        if not known.size:
            continue
        middle = np.median(known)
        z = (column - middle) / max(1.4826 * float(np.median(np.abs(known - middle))), one.least_spread)
        z = np.abs(z) if one.sign == 0 else one.sign * z
        low, high = one.scale * np.quantile(known, (0.05, 0.95))
        for i in np.flatnonzero((z > 0) & (column < one.bound)):
            told = one.told.format(value=one.scale * column[i], low=low, high=high, flip=orientation[i].flip)
            found[i].append((float(z[i]), told))
    return [_verdict(scores, of_case) for scores, of_case in zip(found, values, strict=True)]


def _verdict(scores: list[tuple[float, str]], values: Mapping[str, float]) -> Verdict:
    ranked = sorted(scores, key=lambda scored: -scored[0])
    reasons = tuple(told for z, told in ranked if z >= UNUSUAL)
    return Verdict(ranked[0][0] if ranked else 0.0, reasons, values)


def _lungs_cut(hu: np.ndarray, lungs: np.ndarray) -> float:
    """The lungs' larger cross-section at an end of the scan, or of the cube, over the largest; NaN without.

    The outermost plane of a scan may be half air, so that of two counts that shows more.
    """
    if not lungs.any():
        return np.nan
    sections = lungs.sum(axis=(1, 2))
    scanned = np.flatnonzero(hu.max(axis=(1, 2)) > _SCANNED_HU)
    first, last = int(scanned[0]), int(scanned[-1])
    ends = max(sections[first : first + 2].max(), sections[max(0, last - 1) : last + 1].max())
    return float(ends / sections.max())


def _shrunk(hu: np.ndarray) -> np.ndarray:
    """uint8 block means over the window `_SMALL_HU`, at most 32 a side."""
    low, high = _SMALL_HU
    size = hu.shape[0]
    side = min(size, _SMALL)
    starts = np.arange(side) * size // side
    counts = np.diff(np.append(starts, size)).astype(np.float32)
    small = np.clip(hu, low, high).astype(np.float32)
    for axis in range(3):
        shape = [1, 1, 1]
        shape[axis] = side
        small = np.add.reduceat(small, starts, axis=axis) / counts.reshape(shape)
    return np.rint((small - low) * (255 / (high - low))).astype(np.uint8)


def _histogram_distances(cases: Sequence[Measured]) -> list[float]:
    """In HU, how far each histogram has to be moved to become the cohort's median (Wasserstein-1)."""
    histograms = np.stack([case.histogram for case in cases])
    middle = np.median(histograms, axis=0)
    middle = middle / max(float(middle.sum()), 1e-9)
    return [float(np.abs(np.cumsum(one - middle)).sum() * _BIN_HU) for one in histograms]


@dataclass(frozen=True)
class _Orientation:
    """A case against the mean of the others."""

    likeness: float
    """Correlation as it lies."""
    upright: float
    """How much lower the best of the flips' correlations is."""
    flip: str
    """That flip, in words."""
    heart: float
    """Correlation of what differs between left and right. A chest's outline is the same in a mirror: its
    sides show in this alone, and a heart on the right, or pushed there, is rare but no mistake."""


def _orientations(cases: Sequence[Measured]) -> list[_Orientation]:
    if len(cases) < 2:
        return [_Orientation(np.nan, np.nan, "", np.nan)] * len(cases)
    total = np.sum([case.small for case in cases], axis=0, dtype=np.float64)
    found = []
    for case in cases:
        own = case.small.astype(np.float64)
        others = (total - own) / (len(cases) - 1)
        likeness = _correlation(own, others)
        flipped = {told: _correlation(np.flip(own, axes), others) for axes, told in _FLIPS.items()}
        flip = max(flipped, key=lambda told: flipped[told])
        heart = _correlation(own - own[:, :, ::-1], others - others[:, :, ::-1])
        found.append(_Orientation(likeness, likeness - flipped[flip], flip, heart))
    return found


def _correlation(one: np.ndarray, other: np.ndarray) -> float:
    one, other = one - one.mean(), other - other.mean()
    norm = float(np.sqrt((one * one).sum() * (other * other).sum()))
    return float((one * other).sum() / norm) if norm > 0 else 0.0
