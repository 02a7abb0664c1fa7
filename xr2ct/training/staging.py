"""Training data on each node's own disk, where the cluster's profile names one (XR2CT_STAGE)."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

from xr2ct.config import Data
from xr2ct.errors import Stopped
from xr2ct.store import Case, Store
from xr2ct.store.stage import staged
from xr2ct.training.distributed import Ranks
from xr2ct.training.stopping import Listener
from xr2ct.training.watchdog import alive

_LONGEST = timedelta(days=1)
_POLL_S = 0.2


class _Asked(Exception):
    """To stop, in the middle of copying."""


def on_this_node(
    store: Store,
    cases: Sequence[Case],
    data: Data,
    ranks: Ranks,
    listener: Listener,
    context_side: int | None = None,
) -> Store:
    """The store to read from: this node's copy, made by its first rank, or the store itself; collective.

    Raises `Stopped` on every rank where a signal came meanwhile: nothing is lost, and the next start goes on
    copying. Raises `WorkFailed` where the copy cannot be made.
    """
    folder = os.environ.get("XR2CT_STAGE")
    if not folder:
        return store

    def tick() -> None:
        alive()
        if listener.heard:
            raise _Asked

    # Of its own, since copying takes longer than any other wait.
    group = dist.new_group(backend="gloo", timeout=_LONGEST) if ranks.world_size > 1 else None
    copy = [""]
    if ranks.local_rank == 0:
        with suppress(_Asked):
            ids = [case.id for case in cases]
            told = (data.size, data.geometry, ids, tick)
            copy[0] = str(staged(store.path, Path(folder), *told, context_side=context_side))
    code = torch.tensor([listener.heard])
    if group is not None:
        work = dist.all_reduce(code, op=dist.ReduceOp.MAX, group=group, async_op=True)
        while not work.is_completed():
            alive()
            time.sleep(_POLL_S)
        work.wait()
    if code:
        listener.heard = int(code)
        name = signal.Signals(int(code)).name
        raise Stopped(
            f"{store.path}: stopped while it was copied to {folder}, as {name} asked; nothing is lost"
        )
    if group is not None:
        dist.broadcast_object_list(copy, src=0)  # the same path on every node
    return Store.open(Path(copy[0]))
