"""A handful of synthetic chests, coarse, from which every series of a messy tree is cut."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context

import numpy as np
from scipy import ndimage

from xr2ct.cohorts.lungs import lung_mask
from xr2ct.cohorts.names import COHORTS
from xr2ct.cohorts.phantom import synthetic_chest
from xr2ct.seeds import derive_seed, generator

SLICE_MM = 2.5
BELOW_MM, ABOVE_MM = 30.0, 20.0
"""Kept beyond the lungs' ends."""


@dataclass(frozen=True)
class Chest:
    """(z, y, x) int16 HU, feet to head."""

    hu: np.ndarray
    pixel_mm: tuple[float, float]
    lungs: tuple[int, int]
    """First slice with lung, and the one after the last."""

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        return (SLICE_MM, *self.pixel_mm)

    @property
    def widest(self) -> int:
        """A slice in which a cut leaves no doubt."""
        return sum(self.lungs) // 2


def make_chests(count: int, seed: int, workers: int) -> list[Chest]:
    """Each the same whatever their number; `workers` processes."""
    if workers == 1:
        return [make_chest(seed, number) for number in range(count)]
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        return list(pool.map(partial(make_chest, seed), range(count)))


def make_chest(seed: int, number: int) -> Chest:
    """Chest `number`: half the pixels of a synthetic one, its slices 2.5 mm apart."""
    volume = synthetic_chest(derive_seed(seed, "messy chest", number), COHORTS[number % len(COHORTS)])
    slices, rows, columns = volume.hu.shape
    rows, columns = rows // 2, columns // 2
    hu = volume.hu[:, : 2 * rows, : 2 * columns].reshape(slices, rows, 2, columns, 2).mean((2, 4))
    hu = ndimage.zoom(hu, (volume.spacing_mm[0] / SLICE_MM, 1, 1), order=1)
    pixel_mm = (2 * volume.spacing_mm[1], 2 * volume.spacing_mm[2])
    with_lung = np.flatnonzero(lung_mask(hu.astype(np.int16), (SLICE_MM, *pixel_mm)).any((1, 2)))
    first = max(0, with_lung[0] - round(BELOW_MM / SLICE_MM))
    hu = hu[first : with_lung[-1] + round(ABOVE_MM / SLICE_MM)]
    return Chest(
        np.rint(hu).astype(np.int16), pixel_mm, (int(with_lung[0] - first), int(with_lung[-1] - first) + 1)
    )


def as_another(chest: Chest, seed: int) -> Chest:
    """The same chest in another patient's dress: moved a little in the plane, with noise of its own."""
    rng = generator(seed, "dress")
    moved = np.roll(chest.hu, rng.integers(-2, 3, 2), (1, 2))
    noisy = moved + rng.normal(0, 8, moved.shape)
    return Chest(np.clip(np.rint(noisy), -1024, 3071).astype(np.int16), chest.pixel_mm, chest.lungs)


def with_abdomen(chest: Chest, length_mm: float, seed: int) -> Chest:
    """Down to the pelvis: what lies below the lungs, over and over, with bowel gas in it."""
    added = round(length_mm / SLICE_MM)
    slab = chest.hu[: max(2, chest.lungs[0] - 4)]
    below = np.pad(slab, ((added, 0), (0, 0), (0, 0)), "symmetric")[:added]
    rng = generator(seed, "gas")
    z, y, x = np.ogrid[: below.shape[0], : below.shape[1], : below.shape[2]]
    inside = ndimage.binary_erosion(below > -200, iterations=6)
    for z0, y0, x0 in rng.permutation(np.argwhere(inside))[:6]:
        gas = np.hypot(SLICE_MM * (z - z0), chest.pixel_mm[0] * np.hypot(y - y0, x - x0)) < rng.uniform(8, 18)
        below[gas] = -950
    lungs = (chest.lungs[0] + added, chest.lungs[1] + added)
    return Chest(np.concatenate([below, chest.hu]), chest.pixel_mm, lungs)
