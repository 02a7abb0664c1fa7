"""What runs inside each task of a job."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence

import submitit

from xr2ct.config import Experiment, run_path


def train_task(experiment: Experiment, overrides: Sequence[str]) -> None:
    """One rank of a training job. Its ranks meet at a path that no other attempt of any job shares."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s")
    job = submitit.JobEnvironment()
    attempt = os.environ.get("SLURM_RESTART_COUNT", "0")
    folder = run_path(experiment, overrides).resolve() / "slurm"
    os.environ["XR2CT_RENDEZVOUS"] = str(folder / f"rendezvous-{job.job_id}-{attempt}")
    from xr2ct.training.loop import train  # torch and DeepSpeed only where they are used

    train(experiment, overrides)
