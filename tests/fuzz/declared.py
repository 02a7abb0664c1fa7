"""What a mutation may change in a volume that is accepted all the same."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import base
import numpy as np

from xr2ct.cohorts.volume import NativeVolume

ALL = frozenset(range(base.SLICES))
ROUNDING = 6e-3
"""By how much a slice's place within the tolerance of gaps, or a pixel's spacing within its own, shows."""


@dataclass(frozen=True)
class Change:
    """Nothing, unless it says so."""

    pixels: frozenset[int] = frozenset()
    """Slices whose pixels may be others."""
    gone: frozenset[int] = frozenset()
    """Slices at an end that may be gone: that a scan should go on cannot be seen from what is left of it."""
    order: tuple[int, ...] | None = None
    """The base's slices as they lie now."""
    spacing: bool = False
    """Spacing may be another."""
    geometry: bool = False
    """Axes may be turned and spacing be another, with the same voxels in the same neighbourhood."""
    anything: bool = False
    """All that a header says, where it is the only word on it."""


def judge(found: NativeVolume, change: Change) -> tuple[str, str]:
    """("equal" or "as declared", "") or ("VIOLATION", how it differs)."""
    expected = base.base_volume()
    if found.hu.shape == expected.shape and np.array_equal(found.hu, expected) and _same_spacing(found, 1e-6):
        return "equal", ""
    flaw = _sane(found)
    if flaw:
        return "VIOLATION", flaw
    if change.anything:
        return "as declared", ""
    if change.geometry:
        kept = ALL - change.pixels
        same = kept != ALL or np.array_equal(np.sort(found.hu, axis=None), np.sort(expected, axis=None))
        return ("as declared", "") if same else ("VIOLATION", "other voxels")
    if not change.spacing and not _same_spacing(found, ROUNDING):
        return "VIOLATION", f"spacing {found.spacing_mm}"
    for order in _orders(change):
        if found.hu.shape != (len(order), base.SIDE, base.SIDE):
            continue
        firm = [place for place, index in enumerate(order) if index not in change.pixels]
        if all(np.array_equal(found.hu[place], expected[order[place]]) for place in firm):
            return "as declared", ""
    return "VIOLATION", f"a volume of {found.hu.shape} that is another"


def _orders(change: Change) -> Iterator[list[int]]:
    """Slices that may be there, in their order: with none, some or all of those gone that may be."""
    order = list(change.order or range(base.SLICES))
    low = [i for i in order if i in change.gone and i < base.SLICES // 2]
    high = [i for i in order if i in change.gone and i >= base.SLICES // 2]
    for first, last in product(range(len(low) + 1), range(len(high) + 1)):
        yield order[first : len(order) - last]


def _same_spacing(found: NativeVolume, part: float) -> bool:
    return bool(np.allclose(found.spacing_mm, base.SPACING, rtol=part, atol=0))


def _sane(found: NativeVolume) -> str:
    """Why it can be no volume at all."""
    if found.hu.ndim != 3 or found.hu.dtype not in (np.int16, np.float32):
        return f"{found.hu.dtype} of {found.hu.shape}"
    if not np.isfinite(found.hu).all() or found.hu.min() < -1024:
        return f"values from {found.hu.min()} to {found.hu.max()}"
    if not all(np.isfinite(s) and 0 < s <= 50 for s in found.spacing_mm):
        return f"spacing {found.spacing_mm}"
    return ""
