"""A volume by overlapping windows with blended borders: what does not fit, or was never learnt, whole."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Tiling:
    """Windows of `side`³ voxels that cover size³, and the weight of each one's voxels in the result.

    Neighbours share at least `overlap` voxels along each axis. Of those the outermost `margin` of a window
    count nothing, for a network sees there what lies beside as nothing at all; between, one window fades
    out linearly as the other fades in. Weights add up to 1 in every voxel, so what all windows agree on has
    no seam.
    """

    size: int
    side: int
    overlap: int
    margin: int

    @classmethod
    def of(cls, size: int, side: int) -> Tiling:
        """A quarter of the side shared, of which a quarter at each end counts nothing."""
        return cls(size, min(side, size), side // 4, side // 16)

    @property
    def starts(self) -> list[int]:
        """Where windows begin along an axis: evenly, from the first voxel to the last place there is."""
        if self.side >= self.size:
            return [0]
        count = math.ceil((self.size - self.overlap) / (self.side - self.overlap))
        return [i * (self.size - self.side) // (count - 1) for i in range(count)]

    @property
    def origins(self) -> list[tuple[int, int, int]]:
        """Of every window z, y, x, x fastest."""
        return [(z, y, x) for z, y, x in itertools.product(self.starts, repeat=3)]

    def weights(self) -> dict[int, Tensor]:
        """Of the window that begins there, its voxels' weights along an axis: (side) float64.

        A window's weight in a voxel is the product of those along z, y and x.
        """
        place = torch.arange(self.side, dtype=torch.float64) + 0.5
        fade = max(self.overlap - 2 * self.margin, 1)
        rise = ((place - self.margin) / fade).clamp(0, 1)
        raw = {}
        for start in self.starts:
            weight = torch.ones(self.side, dtype=torch.float64)
            if start > 0:
                weight = torch.minimum(weight, rise)
            if start + self.side < self.size:
                weight = torch.minimum(weight, rise.flip(0))
            raw[start] = weight
        total = torch.zeros(self.size, dtype=torch.float64)
        for start, weight in raw.items():
            total[start : start + self.side] += weight
        return {start: weight / total[start : start + self.side] for start, weight in raw.items()}


def by_windows(
    predict: Callable[[Tensor], Tensor], tiling: Tiling, device: torch.device, at_once: int = 1
) -> Tensor:
    """(size, size, size) float32 on `device`: what `predict` makes of every window, blended.

    predict: (n, 3) int64 origins z, y, x on `device`, at most `at_once` of them → (n, 1, side, side, side).
    Beside one float32 volume nothing is held but the windows that are being made.
    """
    weights = {start: weight.float().to(device) for start, weight in tiling.weights().items()}
    volume = torch.zeros((tiling.size,) * 3, device=device)
    for origins in _groups(tiling.origins, at_once):
        made = predict(torch.tensor(origins, dtype=torch.int64, device=device))
        for (z, y, x), window in zip(origins, made, strict=True):
            part = window[0].float() * weights[z][:, None, None] * weights[y][:, None] * weights[x]
            volume[z : z + tiling.side, y : y + tiling.side, x : x + tiling.side] += part
    return volume


def _groups(
    origins: Sequence[tuple[int, int, int]], at_once: int
) -> Iterator[Sequence[tuple[int, int, int]]]:
    for first in range(0, len(origins), at_once):
        yield origins[first : first + at_once]
