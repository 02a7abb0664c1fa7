"""The Sinkhorn iterations of all layers at once, on cost matrices of the batch's size.

As many for every layer as the widest features that are expected need, the surplus masked: nothing depends on
what the numbers are, so nothing waits for a device, and a GPU replays all of it as one graph.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor


@dataclass(frozen=True)
class Schedule:
    """How ε falls in each layer: from the diameter², by `scaling`² from one iteration to the next, to blur²;
    each of the two ends once more (geomloss's `epsilon_schedule`)."""

    blurs: tuple[float, ...]
    widest: tuple[float, ...]
    """The largest diameter that ε begins at; it says how many iterations are made."""
    scaling: float

    @property
    def iterations(self) -> int:
        ratios = [max(1.0, wide / blur) for wide, blur in zip(self.widest, self.blurs, strict=True)]
        return 2 + math.ceil(math.log(max(ratios)) / -math.log(self.scaling))


def solve(costs: Tensor, diameters: Tensor, schedule: Schedule) -> tuple[Tensor, Tensor]:
    """Divergences (layer) and, for their gradient, weights (layer, b, 2b) of the points of x and of y.

    costs: (layer, problem, b, b), the problems x to y, y to x, x to x and y to y. diameters: (layer). fp64.
    """
    if costs.is_cuda and type(costs) is Tensor and not torch.cuda.is_current_stream_capturing():
        return _graph(costs.shape, costs.device, schedule)(costs, diameters)
    return iterate(costs, diameters, schedule)


def iterate(costs: Tensor, diameters: Tensor, schedule: Schedule) -> tuple[Tensor, Tensor]:
    """As `solve`, one operation after the other."""
    # Filled, not copied: a copy from the host would wait for the device, and cannot be part of a graph.
    blur, widest = (
        torch.stack([costs.new_full((), value) for value in values])
        for values in (schedule.blurs, schedule.widest)
    )
    # A diameter of nothing has no logarithm; all costs are nothing then, and any start will do.
    tiny = torch.finfo(costs.dtype).tiny ** 0.25
    start = 2 * torch.minimum(diameters.clamp(min=tiny), widest).log()
    step = 2 * math.log(schedule.scaling)
    falls = ((2 * blur.log() - start) / step).ceil().clamp(min=0)
    potentials = _softmin(start.exp(), torch.zeros_like(costs[..., 0]), costs)
    for i in range(schedule.iterations):
        falling = (start + max(0, i - 1) * step).exp()
        epsilon = torch.where(falls >= i, falling, blur.square()) if i else falling
        updated = (potentials + _softmin(epsilon, _opposite(potentials), costs)) / 2
        potentials = torch.where((falls + 1 >= i)[:, None, None], updated, potentials)
    epsilon, opposite = blur.square(), _opposite(potentials)
    x_to_y, y_to_x, x_to_x, y_to_y = _softmin(epsilon, opposite, costs).mean(-1).unbind(1)
    plans = ((opposite[:, :, None, :] - costs) / epsilon[:, None, None, None])[:, ::2].softmax(-1)
    weights = torch.cat([plans[:, 1], -plans[:, 0]], dim=-1) / costs.shape[-1]
    return x_to_y - x_to_x + y_to_x - y_to_y, weights


def _softmin(epsilon: Tensor, opposite: Tensor, costs: Tensor) -> Tensor:
    """−ε log mean_j exp((opposite_j − cost_ij)/ε): (layer, problem, b)."""
    exponents = (opposite[:, :, None, :] - costs) / epsilon[:, None, None, None]
    return -epsilon[:, None, None] * (exponents.logsumexp(-1) - math.log(costs.shape[-1]))


def _opposite(potentials: Tensor) -> Tensor:
    """What each problem's next potential follows from: x to y and y to x from each other's."""
    x_to_y, y_to_x, own = potentials.split([1, 1, 2], 1)
    return torch.cat([y_to_x, x_to_y, own], 1)


class _Graph:
    """`iterate` for one shape and schedule: some three hundred small kernels launched as one."""

    def __init__(self, shape: torch.Size, device: torch.device, schedule: Schedule) -> None:
        self._costs = torch.zeros(shape, dtype=torch.float64, device=device)
        self._diameters = torch.ones(shape[0], dtype=torch.float64, device=device)
        beside = torch.cuda.Stream(device)
        beside.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(beside):  # kernels load at their first launch, which no graph can hold
            iterate(self._costs, self._diameters, schedule)
        torch.cuda.current_stream(device).wait_stream(beside)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._out = iterate(self._costs, self._diameters, schedule)

    def __call__(self, costs: Tensor, diameters: Tensor) -> tuple[Tensor, Tensor]:
        self._costs.copy_(costs)
        self._diameters.copy_(diameters)
        self._graph.replay()
        divergences, weights = self._out
        return divergences.clone(), weights.clone()  # the next replay overwrites them


@lru_cache(maxsize=8)
def _graph(shape: torch.Size, device: torch.device, schedule: Schedule) -> _Graph:
    return _Graph(shape, device, schedule)
