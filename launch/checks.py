"""What `xr2ct doctor` looks at from inside a job: each check in each rank, its outcome a line in a file.

    FOLDER/rank-R.jsonl     {"check": "scratch", "outcome": "OK", "told": "…", "rank": 0, "node": "n1"}

An outcome is OK, FAILED or SKIPPED; BEGUN stands there until it is known, so that a check that never ends or
takes its process along is seen too. A rank on which a check failed goes on with the next one it can do.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from launch import check_files, check_ranks, check_software
from launch.check import Rank, run_check
from launch.profiles import Profile
from xr2ct.errors import Stopped
from xr2ct.training.environment import rank_of
from xr2ct.training.stopping import SIGNALS

CHECKS: dict[str, Callable[[Rank], str]] = {
    "packages": check_software.packages,
    "gpu": check_software.gpu,
    "dali": check_software.dali,
    "rendezvous": check_ranks.rendezvous,
    "all-reduce": check_ranks.all_reduce,
    "scratch": check_files.scratch,
    "scratch locks": check_files.scratch_locks,
    "run root": check_files.run_root,
    "between ranks": check_ranks.between_ranks,
    "clocks": check_ranks.clocks,
    "local disk": check_files.local_disk,
    "mlflow": check_software.mlflow,
    "signal": check_ranks.signal_heard,
}
"""In the order they are done."""


def check_task(profile: Profile, folder: Path) -> None:
    """One rank of doctor's job; brought back after the signal, it only notes that it was."""
    number, world_size, _ = rank_of(os.environ)
    node = os.environ.get("SLURMD_NODENAME") or socket.gethostname()
    rank = Rank(profile, folder, number, world_size, node)
    if restart := int(os.environ["XR2CT_RESTART"]):
        rank.record("requeue", "OK", f"came back as attempt {restart}")
        return
    _listen(rank)
    for name, check in CHECKS.items():
        run_check(rank, name, check)
    if rank.signals:
        raise Stopped(f"stopped as {rank.signals[0]} asked")


def submit_from_task(folder: Path) -> None:
    """Whether a job may submit jobs: asked of sbatch on the host, as the evaluator's chain does it."""
    rank = Rank(
        Profile(executor="slurm"), folder, 0, 1, os.environ.get("SLURMD_NODENAME", socket.gethostname())
    )
    run_check(rank, "submit from", check_software.submit_from)


def _listen(rank: Rank) -> None:
    def heard(number: int, _: FrameType | None) -> None:
        rank.signals.append(signal.Signals(number).name)

    for number in SIGNALS:
        signal.signal(number, heard)
