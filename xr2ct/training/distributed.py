"""How the ranks find each other, and which device each works on.

They meet where XR2CT_RENDEZVOUS says: a path that all ranks see and no other attempt shares. Rank 0 takes a
free port, and publishes ``host:port`` there by a rename. A port agreed in advance may be taken, and a requeue
would find the last attempt's; a `FileStore` would need locks, which network file systems often lack. Without
that variable MASTER_ADDR and MASTER_PORT serve, as usual.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Literal

import torch
import torch.distributed as dist

from xr2ct.errors import UserError, WorkFailed
from xr2ct.run import write_atomically
from xr2ct.training.environment import on_one_machine, rank_of

log = logging.getLogger(__name__)

_PATIENCE = timedelta(minutes=10)


@dataclass(frozen=True)
class Ranks:
    """This process among those that train together."""

    rank: int
    world_size: int
    local_rank: int
    device: torch.device
    store: dist.Store | None = field(default=None, repr=False, compare=False)
    """Where they met, and where a rank that fails alone leaves word; None where the launcher made it."""


def start_distributed(device: Literal["auto", "cpu", "cuda"] = "auto") -> Ranks:
    """Join the default process group; one process alone gets a group of its own.

    Gloo carries CPU tensors and NCCL CUDA ones. Raises `UserError` where ranks have no way to meet, and
    `WorkFailed` where the others do not come.
    """
    rank, world_size, local_rank = rank_of(os.environ)
    where = _device(device, local_rank)
    store: dist.Store | None = None
    backend = "cpu:gloo,cuda:nccl" if where.type == "cuda" else "gloo"
    if world_size > 1 and "XR2CT_RENDEZVOUS" not in os.environ:
        if "MASTER_ADDR" not in os.environ or "MASTER_PORT" not in os.environ:
            raise UserError(
                f"{world_size} ranks and no way to meet: "
                "set XR2CT_RENDEZVOUS to a path that all of them see, or MASTER_ADDR and MASTER_PORT"
            )
        dist.init_process_group(backend, rank=rank, world_size=world_size)
    else:
        store = dist.HashStore() if world_size == 1 else _meet(rank, world_size)
        dist.init_process_group(backend, store=store, rank=rank, world_size=world_size)
    # DeepSpeed reads both: it would build for the wrong device, or pick another card than this rank's.
    os.environ["DS_ACCELERATOR"] = where.type
    os.environ["LOCAL_RANK"] = str(where.index or 0) if where.type == "cuda" else str(local_rank)
    log.info("rank %d of %d on %s", rank, world_size, where)
    return Ranks(rank, world_size, local_rank, where, store)


def _device(name: str, local_rank: int) -> torch.device:
    if os.environ.get("XR2CT_REQUIRE_GPU") == "1":
        _refuse_cpu(name)
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    visible = torch.cuda.device_count()
    if visible == 0:
        raise UserError("training.device: cuda, but no CUDA device is visible here; use cpu or auto")
    # A launcher that shows each task one card numbers it 0, whatever the local rank.
    index = local_rank if visible > 1 else 0
    if index >= visible:
        raise UserError(f"local rank {local_rank} has no card: {visible} are visible; start one task a card")
    device = torch.device("cuda", index)
    torch.cuda.set_device(device)
    return device


def _refuse_cpu(name: str) -> None:
    """A job that was given GPUs trains on one or not at all."""
    if name == "cpu":
        raise UserError("training.device: cpu, but the profile asks for GPUs (gpus_per_node); use auto")
    if not torch.cuda.is_available():
        raise WorkFailed(
            f"node {socket.gethostname()}: no CUDA device is visible, though the profile asks for GPUs "
            "(gpus_per_node); nothing is trained on the CPU, and `xr2ct doctor` says what is wrong"
        )


def _meet(rank: int, world_size: int) -> dist.Store:
    path = Path(os.environ["XR2CT_RENDEZVOUS"])
    if rank == 0:
        # On one machine no name has to resolve.
        host = "127.0.0.1" if on_one_machine(os.environ, world_size) else socket.gethostname()
        store = dist.TCPStore(host, 0, world_size, is_master=True, timeout=_PATIENCE, wait_for_workers=False)
        try:
            write_atomically(path, f"{host}:{store.port}\n")
        except OSError as error:
            raise WorkFailed(f"{path}: cannot be written, so the ranks cannot meet: {error}") from error
        return store
    deadline = time.monotonic() + _PATIENCE.total_seconds()
    while time.monotonic() < deadline:
        # What stands there may be left from a process that died: so look again after each refusal.
        if path.is_file():
            host, _, port = path.read_text(encoding="utf-8").strip().rpartition(":")
            try:
                socket.create_connection((host, int(port)), timeout=5).close()
                return dist.TCPStore(host, int(port), world_size, timeout=_PATIENCE)
            except OSError:
                log.debug("rank %d: nobody answers at %s:%s yet", rank, host, port)
        time.sleep(0.2)
    raise WorkFailed(f"rank 0 of {world_size} did not come to {path} within {_PATIENCE}")
