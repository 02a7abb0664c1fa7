"""What runs inside a job's task: submitit's environment made the one that `torch.distributed` reads."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path

import submitit

from xr2ct.config import Experiment, run_path


def train_task(experiment: Experiment, overrides: Sequence[str]) -> None:
    """One rank of a training job."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s")
    export_ranks(submitit.JobEnvironment(), run_path(experiment, overrides) / "slurm")
    from xr2ct.training.loop import train  # torch and DeepSpeed only where they are used

    train(experiment, overrides)


def export_ranks(job: submitit.JobEnvironment, folder: Path) -> None:
    """RANK, WORLD_SIZE and their like, and a rendezvous that no other attempt of any job shares."""
    local_size = job.num_tasks // job.num_nodes
    attempt = os.environ.get("SLURM_RESTART_COUNT", "0")
    os.environ.update(
        RANK=str(job.global_rank),
        WORLD_SIZE=str(job.num_tasks),
        LOCAL_RANK=str(job.local_rank),
        LOCAL_WORLD_SIZE=str(local_size),
        XR2CT_RENDEZVOUS=str(folder.resolve() / f"rendezvous-{job.job_id}-{attempt}"),
    )
