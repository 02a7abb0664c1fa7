"""From a configuration to a job: validated first, then handed to submitit."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import submitit

from launch.job import train_task
from launch.profiles import Profile
from xr2ct.config import load_experiment, run_path
from xr2ct.errors import WorkFailed
from xr2ct.run import Run
from xr2ct.training import start


@dataclass(frozen=True)
class Submission:
    """A training job on its way."""

    run: Path
    job: submitit.Job[Any]

    @property
    def log(self) -> Path:
        """What rank 0 says."""
        return Path(self.job.paths.stderr)


def submit(config: Path, overrides: Sequence[str], profile: Profile) -> Submission:
    """Start training `config` on a cluster and return at once.

    Raises `UserError` here, not in the job, for data that is not there and a run started with other values.
    """
    experiment = load_experiment(config, overrides)
    run = run_path(experiment, overrides)
    completed = start.completed(experiment)
    start.open_training_data(completed)
    start.refuse_other_values(Run(run), completed)
    executor = submitit.LocalExecutor(run / "slurm")
    executor.update_parameters(
        tasks_per_node=profile.tasks_per_node,
        gpus_per_node=profile.gpus_per_node,
        timeout_min=profile.time_limit_min,
    )
    return Submission(run, executor.submit(train_task, experiment, list(overrides)))


def follow(submission: Submission, poll_s: float = 1.0) -> Iterator[str]:
    """Rank 0's log lines as they come, until the job ends; `WorkFailed` with the log's end if it failed."""
    seen = 0
    last: list[str] = []
    while True:
        done = submission.job.done()
        if submission.log.exists():
            with submission.log.open(encoding="utf-8", errors="replace") as log:
                log.seek(seen)
                lines = log.read()
                seen = log.tell()
            last = (last + lines.splitlines())[-3:]
            yield from lines.splitlines()
        if done:
            break
        time.sleep(poll_s)
    failed = [task for task in submission.job._sub_jobs or [submission.job] if task.exception() is not None]
    if failed:
        logs = ", ".join(str(task.paths.stderr) for task in failed)
        raise WorkFailed(f"job {submission.job.job_id} failed; see {logs}\n" + "\n".join(last))
