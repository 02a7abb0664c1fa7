"""Submitting again what failed, and nothing else: with the code that each run was submitted with."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from launch import evaluator, submit
from launch.profiles import load_profile
from launch.submitted import Submitted, find_runs, is_finished, living, read_submission
from xr2ct.run import Run


def resubmit(paths: Sequence[Path], cluster: str | None = None, refresh_code: bool = False) -> list[str]:
    """Submit anew every run that a path is or holds whose job has ended before training had; a line a run.

    One array for each cluster that they were on, or one for all on `cluster`. Runs that live or are done are
    left alone. They run the code that they were submitted with, today's where `refresh_code`. Pairs that the
    evaluator had given up are tried again. Raises `UserError` for a path without a run and for what `submit`
    refuses, `WorkFailed` where Slurm does not answer: what lives could be submitted twice then.
    """
    runs = find_runs(paths)
    submissions = {run.path: s for run in runs if (s := read_submission(run))}
    live = living(submissions.values())
    told: list[str] = []
    failed: defaultdict[str, list[Submitted]] = defaultdict(list)
    for run in runs:
        submitted = submissions.get(run.path)
        if submitted is None:
            told.append(f"{run.path}: left alone, no job was ever submitted for it (`xr2ct submit` does)")
        elif run.path in live:
            told.append(f"{run.path}: left alone, its job {submitted.job} lives")
        elif is_finished(run):
            told.append(f"{run.path}: left alone, it is done")
        else:
            failed[cluster or submitted.cluster].append(submitted)
    for name, ended in failed.items():
        told += _submit(name, ended, refresh_code)
    return told + _score_again(runs, submissions, cluster)


def _submit(cluster: str, ended: Sequence[Submitted], refresh_code: bool) -> list[str]:
    """One array of runs whose jobs are gone by Slurm's word: a survivor on a lost node is taken over from."""
    takes_over = {s.run: s.job for s in ended if s.executor == "slurm"}
    new = submit.resubmit([s.run for s in ended], load_profile(cluster), cluster, takes_over, refresh_code)
    told = [f"job {submitted.job}: {submitted.run}" for submitted in new]
    return told + _start_evaluators(cluster, [submitted.run for submitted in new])


def _score_again(runs: Sequence[Run], submissions: dict[Path, Submitted], cluster: str | None) -> list[str]:
    """Have the evaluator try again what it had given up."""
    told = []
    again: defaultdict[str, list[Path]] = defaultdict(list)
    for run in runs:
        submitted = submissions.get(run.path)
        if submitted is not None and (pairs := evaluator.reset_attempts(run)):
            told.append(f"{run.path}: {pairs} pairs that could not be scored are tried again")
            again[cluster or submitted.cluster].append(run.path)
    for name, paths in again.items():
        told += _start_evaluators(name, paths)
    return told


def _start_evaluators(cluster: str, runs: Sequence[Path]) -> list[str]:
    """A line for each run root with the id of its evaluator, also where one goes on already."""
    profile = load_profile(cluster)
    of_root: defaultdict[Path, list[Path]] = defaultdict(list)
    for run in runs:
        of_root[run.resolve().parent].append(run)
    started = {root: evaluator.start(profile, root, of) for root, of in of_root.items()}
    return [f"evaluator {id}: {root}" for root, id in started.items() if id is not None]
