"""What ranks must agree on before they go on: decisions of rank 0, and how they share a machine's cores."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, TypeVar

import torch
import torch.distributed as dist

from xr2ct.errors import UserError, WorkFailed
from xr2ct.training.distributed import Ranks, start_distributed

T = TypeVar("T")


def from_rank_0(ranks: Ranks, decide: Callable[[], T]) -> T:
    """What `decide` returns on rank 0, on every rank; so too the `UserError` or `WorkFailed` it raises."""
    outcome: list[Any] = [None, None]
    if ranks.rank == 0:
        try:
            outcome[0] = decide()
        except (UserError, WorkFailed) as error:
            outcome[1] = error
    if ranks.world_size > 1:
        dist.broadcast_object_list(outcome, src=0)
    if outcome[1] is not None:
        raise outcome[1]
    return outcome[0]


def wait_for_all(ranks: Ranks) -> None:
    """Until every rank is here."""
    if ranks.world_size > 1:
        dist.all_reduce(torch.zeros(1))  # a barrier by way of gloo: NCCL's would want a card to be named


@contextmanager
def together(device: Literal["auto", "cpu", "cuda"]) -> Iterator[Ranks]:
    """Among the ranks that train together; left so that this process may train again."""
    ranks = start_distributed(device)
    try:
        yield ranks
    except UserError:
        # A refusal is every rank's, and comes before there are engines. After any other error the rest may
        # not be there to part from.
        dist.destroy_process_group()
        raise
    import deepspeed.comm  # only once DS_ACCELERATOR is set

    deepspeed.comm.destroy_process_group()  # torch's own would leave DeepSpeed's groups behind


def threads_per_rank(ranks: Ranks) -> int:
    """This rank's part of the cores it may run on; ranks bound to the same cores share them."""
    mine = (socket.gethostname(), tuple(sorted(os.sched_getaffinity(0))))
    everyone: list[Any] = [mine] * ranks.world_size
    if ranks.world_size > 1:
        dist.all_gather_object(everyone, mine)
    return max(1, len(mine[1]) // everyone.count(mine))
