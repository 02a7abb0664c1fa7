"""The batch that all ranks hold together, as autograd sees it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

_supposed: int | None = None


@contextmanager
def supposing(ranks: int) -> Iterator[None]:
    """Inside, a global batch is as large as one of so many ranks, all of them like this one.

    For what is counted on tensors without data, whose ranks are not there.
    """
    global _supposed
    _supposed = ranks
    try:
        yield
    finally:
        _supposed = None


def world_size() -> int:
    """Ranks that share a global batch; 1 where no process group was started."""
    if _supposed is not None:
        return _supposed
    return dist.get_world_size() if dist.is_initialized() else 1


def gather(own: Tensor) -> Tensor:
    """(b, …) of each rank → (ranks·b, …) in rank order, on every rank.

    Backward is the exact adjoint, the sum over ranks of the gradients that each has for this rank's part.
    A loss of the global batch, formed alike on every rank, so gets ranks × its gradient: what averaging
    parameter gradients over ranks, as DeepSpeed does, makes exact again.
    """
    if world_size() == 1:
        return own
    if _supposed is not None:
        return torch.cat([own] * _supposed)
    gathered: Tensor = _Gather.apply(own)
    return gathered


def total(own: Tensor) -> Tensor:
    """Sum over ranks, without gradient."""
    summed = own.detach().clone()
    if world_size() > 1:
        dist.all_reduce(summed)
    return summed


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, own: Tensor) -> Tensor:
        own = own.contiguous()
        parts = [torch.empty_like(own) for _ in range(world_size())]
        dist.all_gather(parts, own)
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (gradient,) = gradients
        summed = gradient.contiguous().clone()
        dist.all_reduce(summed)
        return summed.chunk(world_size())[dist.get_rank()]
