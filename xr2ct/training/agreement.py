"""What ranks must agree on before they go on: decisions of rank 0, and how they share a machine's cores."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Literal, TypeVar

import torch
import torch.distributed as dist

from xr2ct.errors import PeerLost, Stopped, UserError, WorkFailed, first_line
from xr2ct.training.distributed import Ranks, start_distributed

T = TypeVar("T")

_LOST = re.compile(r"gloo/|Connection closed by peer|Connection reset by peer|NCCL|Broken pipe")
_WORD = "xr2ct/gone"
"""Key in the ranks' store of what the first rank to fail alone said."""


def from_rank_0(ranks: Ranks, decide: Callable[[], T]) -> T:
    """What `decide` returns on rank 0, on every rank; so too a `UserError`, `WorkFailed` or `OSError`."""
    outcome: list[Any] = [None, None]
    if ranks.rank == 0:
        try:
            outcome[0] = decide()
        except (UserError, WorkFailed, OSError) as error:
            outcome[1] = error
    if ranks.world_size > 1:
        dist.broadcast_object_list(outcome, src=0)
    if outcome[1] is not None:
        raise outcome[1]
    return outcome[0]


def largest(ranks: Ranks, number: int) -> int:
    """The largest of the ranks' numbers."""
    if ranks.world_size == 1:
        return number
    told = torch.tensor([number])
    dist.all_reduce(told, op=dist.ReduceOp.MAX)
    return int(told)


def wait_for_all(ranks: Ranks) -> None:
    """Until every rank is here."""
    if ranks.world_size > 1:
        dist.all_reduce(torch.zeros(1))  # a barrier by way of gloo: NCCL's would want a card to be named


@contextmanager
def together(device: Literal["auto", "cpu", "cuda"]) -> Iterator[Ranks]:
    """Among the ranks that train together; left so that this process may train again.

    Where another rank is gone, `PeerLost` says which and why, as far as that is known.
    """
    ranks = start_distributed(device)
    try:
        yield ranks
    except UserError:
        # A refusal is every rank's, and comes before there are engines. After any other error the rest may
        # not be there to part from.
        dist.destroy_process_group()
        raise
    except Stopped:
        with suppress(RuntimeError):  # one that is gone already has nothing more to lose
            wait_for_all(ranks)  # the first to end may take the others down, so each ends its work before
        raise
    except Exception as error:
        lost = ranks.world_size > 1 and lost_another(error)
        told = _who_is_gone(ranks, error) if lost else ""
        if not lost:
            _leave_word(ranks, error)
        if ranks.device.type == "cpu":
            # Gloo parts without a word to the others. Left to the interpreter's end, its threads may be found
            # running then, and the process aborts (134) in place of the code that says what happened.
            dist.destroy_process_group()
        if lost:
            raise PeerLost(told) from error
        raise
    import deepspeed.comm  # only once DS_ACCELERATOR is set

    deepspeed.comm.destroy_process_group()  # torch's own would leave DeepSpeed's groups behind


def lost_another(error: BaseException) -> bool:
    """Whether this is a collective's error, since another rank has ended or does not answer."""
    return isinstance(error, dist.DistError) or (
        isinstance(error, RuntimeError) and bool(_LOST.search(str(error)))
    )


def _leave_word(ranks: Ranks, error: Exception) -> None:
    """For the other ranks, which wait for this one in vain."""
    if ranks.store is not None and ranks.world_size > 1:
        with suppress(RuntimeError):  # a rank that does not answer has nothing to say
            if not ranks.store.check([_WORD]):
                ranks.store.set(_WORD, f"rank {ranks.rank} is gone: {_said(error)}")


def _who_is_gone(ranks: Ranks, error: Exception) -> str:
    told = "another rank is gone" if ranks.world_size > 2 else f"rank {1 - ranks.rank} is gone"
    if ranks.store is not None:
        try:
            if ranks.store.check([_WORD]):
                return f"{ranks.store.get(_WORD).decode(errors='replace')}; see its log"
        except RuntimeError:
            told = "rank 0 is gone"  # the store was its
    return f"{told}; see its log ({_said(error)})"


def _said(error: Exception) -> str:
    return first_line(error) or type(error).__name__


def threads_per_rank(ranks: Ranks) -> int:
    """This rank's part of the cores it may run on; ranks bound to the same cores share them."""
    mine = (socket.gethostname(), tuple(sorted(os.sched_getaffinity(0))))
    everyone: list[Any] = [mine] * ranks.world_size
    if ranks.world_size > 1:
        dist.all_gather_object(everyone, mine)
    return max(1, len(mine[1]) // everyone.count(mine))
