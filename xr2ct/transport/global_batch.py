"""The batch that all ranks hold together."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor


@dataclass
class Supposed:
    """Ranks that are not there, and what this one would have sent them."""

    ranks: int
    sent_bytes: int = 0


_supposed: Supposed | None = None


@contextmanager
def supposing(ranks: int) -> Iterator[Supposed]:
    """Inside, a global batch is as large as one of so many ranks, all of them like this one.

    For what is counted on tensors without data, whose ranks are not there.
    """
    global _supposed
    _supposed = Supposed(ranks)
    try:
        yield _supposed
    finally:
        _supposed = None


def world_size() -> int:
    """Ranks that share a global batch; 1 where no process group was started."""
    if _supposed is not None:
        return _supposed.ranks
    return dist.get_world_size() if dist.is_initialized() else 1


def gather(own: Tensor) -> Tensor:
    """(b, …) of each rank → (ranks·b, …) in rank order, on every rank. Without gradient."""
    if world_size() == 1:
        return own
    own = own.detach().contiguous()
    parts = [torch.empty_like(own) for _ in range(world_size())]
    dist.all_gather(parts, own)
    return torch.cat(parts)


def total(own: Tensor) -> Tensor:
    """Sum over ranks, without gradient."""
    summed = own.detach().clone()
    if world_size() > 1 and _supposed is None:
        dist.all_reduce(summed)
    return summed


def to_slices(own: Tensor) -> Tensor:
    """(b, features) of each rank → (ranks·b, features / ranks, rounded up): of every rank's samples, in rank
    order, this rank's slice of the features, with zeros where they end. Without gradient.

    A sum over features so becomes a sum over ranks, and each sends what it has once, however many they are;
    gathered whole, every rank would send and hold it as often as there are ranks.
    """
    ranks = world_size()
    if ranks == 1:
        return own
    samples, features = own.shape
    each = -(-features // ranks)
    padded = F.pad(own.detach(), (0, ranks * each - features))
    return _exchange(padded.view(samples, ranks, each).transpose(0, 1)).flatten(0, 1)


def from_slices(sliced: Tensor, features: int) -> Tensor:
    """The inverse of `to_slices`: (ranks·b, …) → this rank's samples, (b, features)."""
    ranks = world_size()
    if ranks == 1:
        return sliced
    mine = _exchange(sliced.view(ranks, -1, sliced.shape[1]))
    return mine.transpose(0, 1).flatten(1)[:, :features]


def _exchange(parts: Tensor) -> Tensor:
    """(ranks, …): part i goes to rank i → part i is what rank i has sent."""
    parts = parts.contiguous()
    received = torch.empty_like(parts)
    if _supposed is not None:
        _supposed.sent_bytes += parts.nbytes * (_supposed.ranks - 1) // _supposed.ranks
    else:
        dist.all_to_all_single(received, parts)
    return received
