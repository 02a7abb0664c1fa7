"""Which rank this process is, by what started it. Without torch, so that it is known from the first moment.

Ranks come from torchrun's variables (RANK, WORLD_SIZE, LOCAL_RANK), else from submitit's local executor,
which may itself run within a Slurm step, else from that step; else there is one.
"""

from __future__ import annotations

from collections.abc import Mapping

_SOURCES = (
    ("RANK", "WORLD_SIZE", "LOCAL_RANK"),
    ("SUBMITIT_LOCAL_GLOBALID", "SUBMITIT_LOCAL_NTASKS", "SUBMITIT_LOCAL_LOCALID"),
    # SLURM_STEP_NUM_TASKS stands only in what srun started: a batch script outside it is one rank.
    ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID"),
)


def rank_of(environment: Mapping[str, str]) -> tuple[int, int, int]:
    """rank, world size and local rank."""
    for rank, world_size, local_rank in _SOURCES:
        if rank in environment and world_size in environment:
            return int(environment[rank]), int(environment[world_size]), int(environment.get(local_rank, 0))
    return 0, 1, 0


def on_one_machine(environment: Mapping[str, str], world_size: int) -> bool:
    """Whether no rank is on another machine than this one."""
    return (
        environment.get("LOCAL_WORLD_SIZE") == str(world_size)
        or environment.get("SLURM_STEP_NUM_NODES") == "1"
        or "SUBMITIT_LOCAL_NTASKS" in environment
    )
