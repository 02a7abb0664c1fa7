"""Every operation of a piece of training as it goes by: what it computes and moves, what memory lives."""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from torch.utils.flop_counter import flop_registry


@dataclass(frozen=True)
class Operation:
    """One kernel, about."""

    dtype: torch.dtype
    """Of its first floating tensor: what it computes in."""
    convolution: bool
    flops: int
    """Of matrix products and convolutions; 0 for all else, which memory bounds."""
    bytes_moved: int
    """Each tensor that is read or written, once."""


class Trace(TorchDispatchMode):
    """A context: counts the operations inside, and the bytes of what they make for as long as it lives.

    On tensors with data it sees what really happens, on fake ones (`FakeTensorMode`) what would, in no time
    and no memory. Not seen are what a kernel uses within itself and what an allocator keeps.
    """

    def __init__(self) -> None:
        super().__init__()
        self.operations: Counter[Operation] = Counter()
        self.live_bytes = 0
        self.peak_bytes = 0
        self._live: dict[int, weakref.ref[torch.UntypedStorage]] = {}

    @property
    def flops(self) -> int:
        return sum(operation.flops * times for operation, times in self.operations.items())

    def leave_out(self, tensors: Iterable[Tensor]) -> None:
        """Count nothing for these, which were there before."""
        for tensor in tensors:
            self._hold(tensor.untyped_storage(), 0)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        given = [t for t in tree_iter((args, kwargs)) if isinstance(t, Tensor)]
        made = [t for t in tree_iter(out) if isinstance(t, Tensor)]
        before = {t.untyped_storage()._cdata for t in given}
        new = [t for t in made if t.untyped_storage()._cdata not in before]
        for tensor in new:
            self._hold(tensor.untyped_storage(), tensor.untyped_storage().nbytes())
        if new or func._schema.is_mutable:
            self._count(func, args, kwargs, out, given, new)
        return out

    def _count(
        self, func: Any, args: Any, kwargs: Any, out: Any, given: list[Tensor], new: list[Tensor]
    ) -> None:
        formula = flop_registry.get(func._overloadpacket)
        flops = formula(*args, **kwargs, out_val=out) if formula else 0
        moved = sum(_bytes(t) for t in given + new)
        if func._schema.is_mutable and given:
            moved += _bytes(given[0])  # written as well as read
        if not given:  # an allocation alone
            moved = 0
        dtype = next((t.dtype for t in given + new if t.is_floating_point()), torch.int64)
        self.operations[Operation(dtype, "convolution" in func.__name__, flops, moved)] += 1

    def _hold(self, storage: torch.UntypedStorage, size: int) -> None:
        key = storage._cdata
        if key in self._live:
            return

        def freed(_: Any) -> None:
            del self._live[key]
            self.live_bytes -= size

        self._live[key] = weakref.ref(storage, freed)
        self.live_bytes += size
        self.peak_bytes = max(self.peak_bytes, self.live_bytes)


@contextmanager
def kept_for_backward(besides: Iterable[Tensor]) -> Iterator[dict[int, torch.UntypedStorage]]:
    """The storages that autograd keeps for backward, each once, those of `besides` left out."""
    without = {tensor.untyped_storage()._cdata for tensor in besides}
    # By address, and held: once freed, an address would come again.
    storages: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in without:
            storages[storage._cdata] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield storages


def _bytes(tensor: Tensor) -> int:
    """Of what memory is behind it: an expanded tensor is read from a cache."""
    return min(tensor.numel() * tensor.element_size(), tensor.untyped_storage().nbytes())
