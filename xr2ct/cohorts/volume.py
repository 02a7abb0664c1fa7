"""A chest CT between its files and its canonical cube."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from xr2ct.cohorts.refused import Refused

AIR_HU = -1024
"""Lowest HU kept, and what stands where a scan has no pixels."""

SPACING_MM = (0.02, 50.0)
"""Smallest and largest millimetres between pixels or slices."""

OBLIQUE_DEG = 2.0
"""Largest angle between a scan's axes and the patient's; a patient lies less straight than this."""


@dataclass(frozen=True)
class NativeVolume:
    """One scan on its own grid, in patient axes."""

    hu: np.ndarray
    """(z, y, x) int16 or float32 HU: z feet to head, y front to back, x right to left of the patient."""
    spacing_mm: tuple[float, float, float]
    """z, y, x."""
    attributes: dict[str, Any]
    """Kernel, contrast, thickness_mm, manufacturer …; nothing that identifies a patient."""
    centre_mm: tuple[float, float, float] | None = None
    """z, y, x of the cube's centre from the centre of the first voxel, where the scan is a cube already; else
    the lungs are found and centred on."""


def clip_hu(hu: np.ndarray) -> np.ndarray:
    """HU from −1024 to what int16 holds: integers as int16, anything else as float32.

    Below −1024 lie only a scanner's padding (−2000, −3024) and the ringing of lossy compression.
    """
    clipped = np.empty(hu.shape, np.int16 if np.issubdtype(hu.dtype, np.integer) else np.float32)
    slices = zip(clipped, hu, strict=True) if hu.ndim > 2 else [(clipped, hu)]
    for place, one in slices:  # slice by slice: a volume is held once more, not twice
        place[...] = np.clip(one, AIR_HU, np.iinfo(np.int16).max)
    return clipped


def to_patient_axes(
    array: np.ndarray, directions: np.ndarray, spacing_mm: Sequence[float]
) -> tuple[np.ndarray, tuple[float, float, float]]:
    """An array turned, by transposition and flips alone, into (z, y, x): feet→head, front→back, right→left;
    a view of it.

    `directions` (3, 3): for each axis of the array the unit vector (LPS x, y, z) along which its index
    counts up. Raises `Refused` where an axis is more than 2° from every axis of the patient: turning it
    would resample the scan once more.
    """
    turn = patient_axes(directions)
    z, y, x = (float(spacing_mm[source]) for source in turn.order)
    return turn.apply(array), (z, y, x)


@dataclass(frozen=True)
class Turn:
    """How an array's axes become z, y, x of the patient: a transposition, then flips."""

    order: tuple[int, int, int]
    flipped: tuple[bool, bool, bool]
    """Of z, y, x."""

    def apply(self, array: np.ndarray) -> np.ndarray:
        """The array in patient axes: a view, nothing is copied."""
        return array.transpose(self.order)[self._flips()]

    def undo(self, array: np.ndarray) -> np.ndarray:
        """An array in patient axes as the scan's own axes count: a view, through which it can be filled."""
        own: tuple[int, ...] = tuple(int(axis) for axis in np.argsort(self.order))
        return array[self._flips()].transpose(own)

    def _flips(self) -> tuple[slice, ...]:
        return tuple(slice(None, None, -1 if flip else 1) for flip in self.flipped)


def patient_axes(directions: np.ndarray) -> Turn:
    """The turn of an array with such `directions`; see `to_patient_axes`."""
    along = np.abs(directions)
    patient_axis = along.argmax(axis=1)
    angle = math.degrees(math.acos(min(1.0, float(along.max(axis=1).min()))))
    if angle > OBLIQUE_DEG or sorted(patient_axis) != [0, 1, 2]:
        raise Refused(
            f"oblique: its axes are {angle:.1f}° from the patient's, at most {OBLIQUE_DEG:.0f}° is taken"
        )
    z, y, x = (int(np.flatnonzero(patient_axis == axis)[0]) for axis in (2, 1, 0))
    down = [bool(directions[source, patient_axis[source]] < 0) for source in (z, y, x)]
    return Turn((z, y, x), (down[0], down[1], down[2]))
