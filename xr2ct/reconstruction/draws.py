"""Which of a mapper's draws: seeds of further volumes of the same X-rays."""

from __future__ import annotations

import torch
from torch import Tensor

from xr2ct.seeds import derive_seed


def seeds_of_draw(seeds: Tensor, draw: int) -> Tensor:
    """Seeds like `methods.base.Batch.seeds`, (b, 2) int64 on the same device, of the draw with that number.

    Draw 0 has the seeds themselves: it is the volume that a mapper makes when it is asked for one.
    """
    if draw == 0:
        return seeds
    numbers = [[derive_seed(number, "draw", draw) for number in pair] for pair in seeds.tolist()]
    return torch.tensor(numbers, dtype=torch.int64).to(seeds.device)
