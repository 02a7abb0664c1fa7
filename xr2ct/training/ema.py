"""An exponential moving average of a network's weights, on the CPU in fp32."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


class MovingAverage:
    """a ← decay·a + (1 − decay)·w for every floating tensor of a state dictionary; others are copied."""

    def __init__(self, weights: Mapping[str, Tensor], decay: float) -> None:
        self.decay = decay
        self.weights = {name: tensor.detach().cpu().clone() for name, tensor in weights.items()}

    @torch.no_grad()
    def update(self, weights: Mapping[str, Tensor]) -> None:
        """Move towards `weights`, which have the names and shapes of those at the start."""
        assert weights.keys() == self.weights.keys()
        for name, average in self.weights.items():
            now = weights[name].detach().to("cpu")
            if average.is_floating_point():
                average.mul_(self.decay).add_(now, alpha=1 - self.decay)
            else:
                average.copy_(now)
