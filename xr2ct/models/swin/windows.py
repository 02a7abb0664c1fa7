"""Which token stands where when a volume is cut into windows: rows to take, and where to put them back.

Tokens are rows (b·z·y·x, channels). A volume that no whole number of windows fills is padded at its far ends,
and shifted windows begin `shift` tokens in and go round at the ends (Liu et al. 2021), so that the last ones
along an axis hold tokens from both ends, which must not see each other.
"""

from __future__ import annotations

from itertools import product
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

Three = tuple[int, int, int]
CUT = -100.0
"""Added to the logits of two tokens from different ends, as in MONAI's."""


class Rows(NamedTuple):
    """Of a batch. Windows of one kind lie together, and a window's copies of all samples too."""

    take: Tensor
    """(windows·b, n) row of each slot; b·z·y·x where it is padding."""
    back: Tensor
    """(b·z·y·x,) the slot of each row, counted through all windows."""
    padding: Tensor
    """The slots that are padding."""


class Windows(nn.Module):
    """Of one stage's volumes `dims` (z, y, x). An axis no longer than `window` is one window, not shifted."""

    take: Tensor
    back: Tensor
    padding: Tensor
    masks: Tensor

    def __init__(self, dims: Three, window: int, shift: int) -> None:
        super().__init__()
        self.dims = dims
        sides = tuple(min(window, d) for d in dims)
        shifts = tuple(shift if d > window else 0 for d in dims)
        take, kinds = _places(dims, sides, shifts)
        used, counts = np.unique(kinds, return_counts=True)
        take = take[np.argsort(kinds, kind="stable")]
        tokens = int(np.prod(dims))
        real = np.flatnonzero(take < tokens)
        back = np.empty(tokens, np.int64)
        back[take.reshape(-1)[real]] = real
        self.counts: tuple[int, ...] = tuple(counts.tolist())
        """Windows of each kind; those of a kind have the same mask."""
        arrays = {
            "take": take,
            "back": back,
            "padding": np.flatnonzero(take == tokens).astype(np.int64),
            "masks": np.stack([_mask(int(kind), sides, shifts) for kind in used]),
        }
        for name, array in arrays.items():
            self.register_buffer(name, torch.from_numpy(array), persistent=False)

    @property
    def padded(self) -> bool:
        return self.padding.numel() > 0

    def rows(self, batch: int) -> Rows:
        """Of a batch of volumes, one after the other."""
        count, n = self.take.shape
        tokens = self.back.numel()
        samples = torch.arange(batch, device=self.take.device)
        taken = self.take[:, None]
        taken = torch.where(taken == tokens, batch * tokens, taken + tokens * samples[:, None])

        def of_all(slots: Tensor) -> Tensor:
            window = slots.div(n, rounding_mode="floor")
            return ((window * batch + samples[:, None]) * n + slots % n).flatten()

        return Rows(taken.reshape(count * batch, n), of_all(self.back), of_all(self.padding))


def _places(dims: Three, sides: tuple[int, ...], shifts: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """(windows, n) the token of each slot, tokens·1 where it is padding, and each window's kind.

    A kind has a bit for each axis along which the window is the last of shifted ones.
    """
    counts = [-(-d // w) for d, w in zip(dims, sides, strict=True)]
    lengths = [c * w for c, w in zip(counts, sides, strict=True)]
    sources = [(np.arange(n) + s) % n for n, s in zip(lengths, shifts, strict=True)]
    z, y, x = np.meshgrid(*sources, indexing="ij")
    inside = (z < dims[0]) & (y < dims[1]) & (x < dims[2])
    token = np.where(inside, (z * dims[1] + y) * dims[2] + x, np.prod(dims)).astype(np.int64)
    split = token.reshape([n for pair in zip(counts, sides, strict=True) for n in pair])
    take = split.transpose(0, 2, 4, 1, 3, 5).reshape(np.prod(counts), -1)
    lasts = [(np.arange(c) == c - 1) & (s > 0) for c, s in zip(counts, shifts, strict=True)]
    kinds = sum(
        bit.reshape([-1 if a == axis else 1 for a in range(3)]).astype(np.int64) << axis
        for axis, bit in enumerate(lasts)
    )
    return take, np.broadcast_to(kinds, counts).reshape(-1)


def _mask(kind: int, sides: tuple[int, ...], shifts: tuple[int, ...]) -> np.ndarray:
    """(n, n): which slots of a window of that kind lie at different ends of the volume."""
    ends = [
        (np.arange(w) >= w - s) & bool(kind >> axis & 1)
        for axis, (w, s) in enumerate(zip(sides, shifts, strict=True))
    ]
    region = np.array([a << 2 | b << 1 | c for a, b, c in product(*(e.astype(int) for e in ends))])
    return region[:, None] != region
