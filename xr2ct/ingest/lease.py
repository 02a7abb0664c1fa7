"""STORE-ingest/lease.json: jobs of a cluster that were submitted to fill a store.

A lock of the kernel ends with its process and reaches one machine, or as far as the file system carries it;
these jobs wait for hours and run on many. Whoever holds the store's lock may write or end a lease. A job that
finds another lease than its own stops: its successor has taken over.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from xr2ct.errors import Superseded, WorkFailed
from xr2ct.run import write_atomically


@dataclass(frozen=True)
class Lease:
    """Who may fill the store."""

    token: str
    """Tells one submission from another."""
    cluster: str
    """Name or path of the profile."""
    host: str = ""
    """Where the jobs are processes; empty where they are Slurm's."""
    jobs: tuple[str, ...] = ()
    """Ids as the cluster gives them; empty until they are submitted."""


def folder_of(store: Path) -> Path:
    """Where an ingest by jobs keeps what it needs beside the store: STORE-ingest."""
    return store.with_name(f"{store.name}-ingest")


def lease_file(store: Path) -> Path:
    return folder_of(store) / "lease.json"


def read(store: Path) -> Lease | None:
    """None where no jobs were submitted, or those that were are done."""
    file = lease_file(store)
    try:
        told = json.loads(file.read_text(encoding="utf-8"))
        return Lease(told["token"], told["cluster"], told["host"], tuple(told["jobs"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WorkFailed(
            f"{file}: cannot be read ({error}); remove it if no job fills the store any more"
        ) from None


def write(store: Path, lease: Lease) -> None:
    write_atomically(lease_file(store), json.dumps(asdict(lease)) + "\n")


def private_folder(store: Path) -> Path:
    """What the jobs need and nobody but its owner may read."""
    return folder_of(store) / "private"


def end(store: Path) -> None:
    """The jobs are done or dead: what they shared is nobody's any more."""
    shutil.rmtree(private_folder(store), ignore_errors=True)
    lease_file(store).unlink(missing_ok=True)


def end_dead(store: Path, living: Callable[[Lease], bool]) -> None:
    """`WorkFailed` where jobs may still fill the store; a lease that dead ones left is ended."""
    lease = read(store)
    if lease is None:
        return
    if living(lease):
        ids = " ".join(sorted({job.split("_")[0] for job in lease.jobs}))
        how = f"on {lease.host} `kill {ids}`" if lease.host else f"`scancel {ids}`"
        raise WorkFailed(
            f"{store}: jobs of --cluster {lease.cluster} are filling it: wait for {ids}, or end them: {how}"
        )
    end(store)


def check(store: Path, token: str) -> None:
    """`Superseded` where the store is another submission's by now."""
    lease = read(store)
    if lease is None or lease.token != token:
        raise Superseded(f"{store}: another ingest has taken over")
