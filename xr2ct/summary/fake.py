"""A method's networks, engines and batches as torch's "meta" tensors, so that updates run at any size."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from xr2ct.config import Experiment
from xr2ct.methods.base import Batch, Method
from xr2ct.projection.geometry import Geometry


class FakeEngine:
    """An engine as a method sees it (`methods.base.Engine`), that updates nothing.

    Parameter gradients are dropped as they come: they are part of what a rank holds all the time, which
    depends on the ZeRO stage and not on the update.
    """

    def __init__(self, network: nn.Module, accumulation: int) -> None:
        self.module = network
        self.accumulation = accumulation
        self.updates = 0
        for parameter in network.parameters():
            parameter.register_post_accumulate_grad_hook(_drop)

    def __call__(self, *inputs: Tensor | None) -> Tensor:
        output: Tensor = self.module(*inputs)
        return output

    @contextmanager
    def held(self) -> Iterator[nn.Module]:
        self.module.requires_grad_(False)
        yield self.module
        self.module.requires_grad_(True)

    def backward(self, output: Tensor, gradient: Tensor) -> None:
        """As the real one does."""
        (output.to(gradient.dtype) * gradient).sum().backward()

    def step(self) -> None:
        """Only counted: what an optimizer moves follows from the number of parameters."""
        self.updates += 1


def _drop(parameter: Tensor) -> None:
    parameter.grad = None


def without_data(method: Method, dtype: torch.dtype) -> None:
    """Take the data from a method's networks; trained ones get weights of that type.

    What has no weights, but was measured, keeps its data: 1 where it is not measured yet. On "meta" networks
    take the way that they take on a GPU. What a CPU does slab by slab it does there at once, and keeps the
    same for the way back.
    """
    for network in method.networks.values():
        network.to(dtype).train()
    for network in [*method.networks.values(), *method.fixed.values()]:
        if any(True for _ in network.parameters()):
            network.to("meta")
        else:
            for buffer in network.buffers():
                buffer.nan_to_num_(1.0)


def batch_without_data(experiment: Experiment, geometry: Geometry, samples: int) -> Batch:
    """A rank's share of a batch."""
    data = experiment.data

    def cubes(side: int) -> Tensor:
        return torch.empty(samples, 1, side, side, side, device="meta")

    context = experiment.context_side
    return Batch(
        ct=cubes(data.side),
        views=torch.empty(samples, len(data.views), geometry.pixels, geometry.pixels, device="meta"),
        positions=tuple(range(samples)),
        cases=("a case",) * samples,
        origins=None if data.window is None else torch.zeros(samples, 3, dtype=torch.int64, device="meta"),
        coarse=None if experiment.coarse is None else cubes(experiment.coarse.size),
        context=None if context is None else cubes(context),
    )
