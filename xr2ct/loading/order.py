"""The endless sequence of training samples: which case stands where, and how its pictures are changed.

All of it is a function of (seed, position), so a resumed run and another number of ranks see the same data.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from xr2ct.config import Augmentation
from xr2ct.errors import UserError
from xr2ct.seeds import derive_seed, generator


@dataclass(frozen=True)
class Sample:
    """One place in the sequence."""

    position: int
    case: int
    """Index among the cases."""
    contrast: float = 1.0
    """Factor about each picture's mean."""
    angle_deg: float = 0.0
    """Rotation of the pictures, counter-clockwise as they are looked at (row 0 on top)."""
    flip: bool = False
    origin: tuple[int, int, int] | None = None
    """The voxel z, y, x at which its sub-volume begins in the volume as the network sees it, flipped where
    `flip` says so; None for the whole."""
    machine: int | None = None
    """Seed of the pose and detector with which its X-rays are taken; None for line integrals as stored."""


@dataclass(frozen=True)
class Places:
    """Where sub-volumes may begin: every `step` voxels along each axis, so long as they lie whole within."""

    size: int
    """Voxels along each side of the volume."""
    side: int
    """Of the sub-volume."""
    step: int = 1

    def draw(self, noise: np.random.Generator) -> tuple[int, int, int]:
        """z, y, x in voxels, each place as likely as any other."""
        z, y, x = noise.integers((self.size - self.side) // self.step + 1, size=3) * self.step
        return int(z), int(y), int(x)


class Order:
    """The sample at global position p: epoch p // N, case permutation_epoch[p % N], its own augmentation and,
    where there are `places`, its own sub-volume."""

    def __init__(
        self, cases: int, seed: int, augmentation: Augmentation, places: Places | None = None
    ) -> None:
        if cases < 1:
            raise UserError("training needs at least one case: the cohort's train split is empty")
        self._cases = cases
        self._seed = seed
        self._augmentation = augmentation
        self._places = places

    def sample(self, position: int) -> Sample:
        """The sample at a global position, counted from 0 over all epochs."""
        epoch, place = divmod(position, self._cases)
        case = int(_permutation(self._seed, epoch, self._cases)[place])
        told = self._augmentation
        # Four draws whatever is switched on: switching one off leaves the others as they were.
        contrast, rotated, angle, flipped = generator(self._seed, "augment", position).random(4)
        low, high = told.contrast or (1.0, 1.0)
        places = self._places
        otherwise = told.pose.on or told.detector.on
        return Sample(
            position,
            case,
            contrast=low + (high - low) * contrast,
            angle_deg=told.rotation_deg * (2 * angle - 1) if rotated < told.rotation_probability else 0.0,
            flip=told.flip != "none" and flipped < told.flip_probability,
            origin=places.draw(generator(self._seed, "window", position)) if places else None,
            machine=derive_seed(self._seed, "machine", position) if otherwise else None,
        )

    def share(self, step: int, batch: int, rank: int, world_size: int) -> list[Sample]:
        """A rank's samples of global batch `step`: the contiguous slice [rank·B/W, (rank+1)·B/W) of it."""
        each = batch // world_size
        first = step * batch + rank * each
        return [self.sample(p) for p in range(first, first + each)]


def check_batch(batch: int, world_size: int, accumulation: int) -> None:
    """`UserError` with the nearest sizes that do, where a global batch cannot be shared out equally."""
    parts = world_size * accumulation
    if batch % parts == 0:
        return
    below = batch // parts * parts
    valid = f"{below} or {below + parts}" if below else f"{parts}"
    raise UserError(
        f"training.batch: {batch} samples do not divide over {world_size} ranks × {accumulation} "
        f"accumulation steps; nearest: {valid}"
    )


@lru_cache(maxsize=4)
def _permutation(seed: int, epoch: int, cases: int) -> np.ndarray:
    return generator(seed, "order", epoch).permutation(cases)
