"""An engine without DeepSpeed, as far as a method sees it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Plain:
    """An engine of one process: autograd and AdamW."""

    def __init__(self, network: nn.Module, accumulation: int = 1) -> None:
        self.network = network
        self.accumulation = accumulation
        self.adam = torch.optim.AdamW(network.parameters(), lr=1e-3, eps=1e-3)
        self.updates = 0

    def __call__(self, *inputs: Tensor) -> Tensor:
        return self.network(*inputs)

    @contextmanager
    def held(self) -> Iterator[nn.Module]:
        self.network.requires_grad_(False)
        yield self.network
        self.network.requires_grad_(True)

    def backward(self, output: Tensor, gradient: Tensor) -> None:
        output.backward(gradient)

    def step(self) -> None:
        self.adam.step()
        self.adam.zero_grad()
        self.updates += 1
