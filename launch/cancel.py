"""Ending runs' jobs, and the evaluator that nobody needs then."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from pathlib import Path

from launch import slurm
from launch.submitted import (
    Submitted,
    find_runs,
    is_finished,
    living,
    read_submission,
    signal_process,
)
from xr2ct.errors import UserError
from xr2ct.run import Run


def cancel(paths: Sequence[Path]) -> list[str]:
    """Cancel the jobs, waiting ones too, of every run that a path is or holds; a line for each run.

    The evaluator of a run root ends with the last run there whose job lives. What is saved stays, and
    `resubmit` goes on from it. Raises `UserError` for a path without a run, `WorkFailed` where Slurm does not
    answer.
    """
    runs = find_runs(paths)
    submissions = {run.path: s for run in runs if (s := read_submission(run))}
    live = living(submissions.values())
    told = []
    for run in runs:
        if run.path in live:
            told.append(f"{run.path}: job {submissions[run.path].job} cancelled")
        else:
            told.append(f"{run.path}: nothing to cancel, {_how(run, submissions.get(run.path))}")
    _cancel_on_slurm([submissions[path].job for path in live if submissions[path].executor == "slurm"])
    for path in live:
        if submissions[path].executor == "local":
            _cancel_here(submissions[path])
    for root in sorted({run.path.resolve().parent for run in runs}):
        told += _stop_evaluator(root, {path.resolve() for path in live})
    return told


def _cancel_on_slurm(ids: Sequence[str]) -> None:
    if not ids:
        return
    # The ranks save and stop when they are told to end, and that asks the host script for a requeue.
    slurm.forbid_requeue(ids)
    slurm.cancel(ids)


def _cancel_here(submitted: Submitted) -> None:
    """The job's own process passes it on to the ranks, which save and stop."""
    try:
        signal_process(int(submitted.job), signal.SIGTERM)
    except PermissionError:
        raise UserError(f"{submitted.run}: process {submitted.job} belongs to another user") from None


def _stop_evaluator(root: Path, cancelled: set[Path]) -> list[str]:
    """Of a run root, unless a run's job there still lives."""
    others = [
        s for run in find_runs([root]) if run.path.resolve() not in cancelled and (s := read_submission(run))
    ]
    if needed := living(others):
        return [f"{root}: its evaluator goes on for {len(needed)} other run{'s' * (len(needed) > 1)}"]
    if not (root / ".evaluator").is_dir():
        return []
    from launch import evaluator  # and with it torch: only once training's jobs are cancelled

    return [f"{root}: evaluator's job {job} cancelled" for job in evaluator.stop(root)]


def _how(run: Run, submitted: Submitted | None) -> str:
    if is_finished(run):
        return "it is done"
    return "its job has ended" if submitted else "no job was submitted for it"
