"""Large tensors on the CPU out of memory that was used before."""

from __future__ import annotations

import math
import weakref
from collections import defaultdict, deque
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

KEPT = 4
"""Blocks of a size that wait to be used again: a training step holds on to few batches at a time."""


class Memory:
    """Lends memory out as tensors, and lends it again once nothing refers to a tensor of it any more.

    The system hands out pages one at a time and cleared: for a batch of four volumes of 128³ that takes four
    times as long as turning them from HU into numbers on the unit interval.
    """

    def __init__(self) -> None:
        self._free: defaultdict[int, deque[memoryview]] = defaultdict(lambda: deque(maxlen=KEPT))

    def tensor(self, shape: Sequence[int]) -> Tensor:
        """float32 of `shape`, contiguous, holding anything."""
        count = math.prod(shape)
        free = self._free[count]
        block = free.pop() if free else np.empty(count, np.float32).data
        # Not a view of another array: NumPy's views, and so torch's, then refer to this very one while they
        # live, and it ends after the last of them.
        lent = np.frombuffer(block, np.float32)
        weakref.finalize(lent, free.append, block).atexit = False
        return torch.from_numpy(lent).view(*shape)
