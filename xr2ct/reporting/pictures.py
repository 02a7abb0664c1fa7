"""Volumes and X-rays as pictures: which planes, on which windows, in which colours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

DISPLAY_HU = (-1000.0, 400.0)
"""Window of the grey planes: lung and soft tissue at once."""
DIFFERENCE_HU = 500.0
"""Largest difference that has a colour of its own."""

MOST_PIXELS = 128
"""Of an X-ray in a figure: a tile shows no more."""

Colours = Literal["grey", "signed", "heat"]
MAPS: dict[Colours, str] = {"grey": "gray", "signed": "RdBu_r", "heat": "inferno"}
"""Matplotlib's names. `signed` is blue below the window's middle, white at it, red above."""


@dataclass(frozen=True, eq=False)
class Picture:
    """One picture on its window."""

    shares: np.ndarray
    """float16 (row, col): 0 at the window's lower end, 1 at its upper one. Finer than any screen shows, and
    small enough to keep beside a figure."""
    low: float
    high: float
    colours: Colours = "grey"
    note: str = ""
    """Said under it."""


def grey(pixels: np.ndarray, low: float, high: float, note: str = "") -> Picture:
    """Grey levels of `pixels` (row, col): black at `low`, white at `high`."""
    return Picture(_shares(pixels, low, high), low, high, "grey", note)


def signed(pixels: np.ndarray, limit: float, note: str = "") -> Picture:
    """Differences (row, col): blue below zero, red above, white at it."""
    return Picture(_shares(pixels, -limit, limit), -limit, limit, "signed", note)


def heat(pixels: np.ndarray, high: float, note: str = "") -> Picture:
    """Magnitudes (row, col): black at 0, light yellow at `high`."""
    return Picture(_shares(pixels, 0.0, high), 0.0, high, "heat", note)


def planes(volume: np.ndarray) -> dict[str, np.ndarray]:
    """The three middle planes of a volume (z, y, x) as a radiologist hangs them.

    Axial: front at the top, the patient's right on the left. Coronal and sagittal: head at the top; the
    sagittal plane has the front on the left.
    """
    z, y, x = (n // 2 for n in volume.shape)
    return {"axial": volume[z], "coronal": volume[::-1, y], "sagittal": volume[::-1, :, x]}


def coarser(pixels: np.ndarray, most: int = MOST_PIXELS) -> np.ndarray:
    """A square picture by means over blocks, of at most so many pixels a side; as it is where they do not
    divide it."""
    side = pixels.shape[0]
    by = -(-side // most)
    if by == 1 or pixels.shape != (side, side) or side % by:
        return pixels
    return pixels.reshape(side // by, by, side // by, by).mean((1, 3))


def _shares(pixels: np.ndarray, low: float, high: float) -> np.ndarray:
    """Held to a window on either side of its own, where float16 has no infinity."""
    shares = (np.asarray(pixels, np.float64) - low) / ((high - low) or 1.0)
    return shares.clip(-1, 2).astype(np.float16)
