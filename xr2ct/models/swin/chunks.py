"""Work in pieces that fit a processor's cache, where nothing fuses operations into one pass over memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

CACHE_BYTES = 2**23
"""About a core's share of the last cache. Pieces of 1 MiB are no faster on one thread, and on more each
operation of each piece waits for the slowest thread: by several times as long where cores are shared."""
_MOST = 64
"""Pieces: each costs some microseconds of interpreter, and beyond this they are no longer what takes time."""


def in_pieces(x: Tensor) -> bool:
    """On a CPU run operation by operation. A GPU has no such cache, and a compiler fuses by itself."""
    return x.device.type == "cpu" and not torch.compiler.is_compiling()


def slabs(x: Tensor) -> Iterator[slice]:
    """Of the second dimension of (b, z, …): the whole of it, or a cache's worth at a time."""
    depth = x.shape[1]
    if not in_pieces(x):
        yield slice(0, depth)
        return
    pieces = max(1, min(depth, _MOST, x.numel() * x.element_size() // CACHE_BYTES))
    step = -(-depth // pieces)
    for start in range(0, depth, step):
        yield slice(start, start + step)


def by_slabs(make: Callable[[slice], Tensor], like: Tensor) -> Tensor:
    """What `make` gives of each slab of `like` (b, z, …), put together along that dimension."""
    each = slabs(like)
    if not in_pieces(like):
        return make(next(each))
    whole: Tensor | None = None
    for slab in each:
        piece = make(slab)
        if whole is None:
            whole = piece.new_empty((piece.shape[0], like.shape[1], *piece.shape[2:]))
        whole[:, slab] = piece
    assert whole is not None
    return whole
