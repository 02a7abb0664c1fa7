"""Whether the ranks meet, see each other's files and locks, and hear a signal."""

from __future__ import annotations

import time
from typing import Any

from launch.check import SIGNAL_WAIT_S, Failed, Rank, Skipped
from xr2ct.locks import alone

READY = "ready"
"""Rank 0 makes this file in FOLDER once all ranks wait for a signal."""
_SKEW_S = 5.0
_VISIBLE_S = 30.0


def rendezvous(rank: Rank) -> str:
    from xr2ct.training.distributed import start_distributed

    if rank.profile.gpus_per_node:
        import torch

        if not torch.cuda.is_available():
            raise Skipped("no GPU")
    began = time.monotonic()
    rank.group = start_distributed("cuda" if rank.profile.gpus_per_node else "cpu")
    return f"{rank.world_size} ranks met in {time.monotonic() - began:.1f} s"


def all_reduce(rank: Rank) -> str:
    import torch
    import torch.distributed as dist

    _needs_group(rank)
    devices = ["cpu"] if rank.group.device.type == "cpu" else ["cpu", str(rank.group.device)]
    expected = rank.world_size * (rank.world_size + 1) / 2
    told = []
    for device in devices:
        numbers = torch.full((1 << 20,), rank.rank + 1.0, device=device)
        began = time.monotonic()
        dist.all_reduce(numbers)
        found = float(numbers[-1])
        seconds = time.monotonic() - began
        if found != expected:
            raise Failed(f"the sum over the ranks is {found} on {device}, not {expected}")
        told.append(f"{'gloo' if device == 'cpu' else 'nccl'} 4 MB in {seconds * 1000:.0f} ms")
    nodes = _gathered(rank, rank.node)
    return f"{', '.join(told)} between {', '.join(dict.fromkeys(nodes))}"


def between_ranks(rank: Rank) -> str:
    """Locks and new files of one node, seen from the others."""
    _needs_group(rank)
    if rank.world_size == 1:
        raise Skipped("one rank alone")
    shared, seen = rank.folder / "shared.lock", rank.folder / "seen"
    told: list[str] = []
    if rank.rank == 0:
        with alone(shared):
            _gathered(rank, "held")
            _gathered(rank, "tried")
        seen.write_text("here", encoding="utf-8")
        _gathered(rank, time.time())
        delays = _gathered(rank, 0.0)
    else:
        _gathered(rank, "held")
        kept_out = False
        try:
            with alone(shared):
                pass
        except TimeoutError:
            kept_out = True
        except OSError as error:
            told.append(f"no locks there ({error.strerror})")
        _gathered(rank, "tried")
        _gathered(rank, None)
        began = time.monotonic()
        while not seen.exists() and time.monotonic() - began < _VISIBLE_S:
            time.sleep(0.05)
        delays = _gathered(rank, time.monotonic() - began)
        if not kept_out:
            told.append(f"rank {rank.rank} on {rank.node} could take the lock that rank 0 held")
    if told:
        raise Failed("; ".join(told))
    if max(delays) >= _VISIBLE_S:
        raise Failed(f"a file of rank 0 was not seen by every rank within {_VISIBLE_S:.0f} s")
    return f"one rank's lock keeps the others out, its files are seen within {max(delays):.1f} s"


def clocks(rank: Rank) -> str:
    _needs_group(rank)
    _gathered(rank, None)  # so that all read their clocks within a message's time
    times = _gathered(rank, time.time())
    skew = max(times) - min(times)
    if skew > _SKEW_S:
        raise Failed(f"the nodes' clocks differ by {skew:.1f} s")
    return f"within {skew:.2f} s"


def signal_heard(rank: Rank) -> str:
    """Waits for USR1, which the host script passes on to every rank as at the end of a time limit."""
    if rank.group is not None:
        _gathered(rank, None)
    if rank.rank == 0:
        (rank.folder / READY).touch()
    deadline = time.monotonic() + SIGNAL_WAIT_S
    while not rank.signals:
        if time.monotonic() > deadline:
            raise Failed(f"none reached rank {rank.rank} on {rank.node} within {SIGNAL_WAIT_S:.0f} s")
        time.sleep(0.1)
    return f"{rank.signals[0]} reached every rank"


def _needs_group(rank: Rank) -> None:
    if rank.group is None:
        raise Skipped("the ranks have not met")


def _gathered(rank: Rank, value: Any) -> list[Any]:
    """Every rank's value; a barrier too."""
    import torch.distributed as dist

    values: list[Any] = [value] * rank.world_size
    if rank.world_size > 1:
        dist.all_gather_object(values, value)
    return values
