"""How runs are: the job, how far and how fast training is, what is saved, the best score, what is to score.

    print(format_status(read_status([Path("runs")])))

From the run's own files, and from Slurm or this machine's processes; nothing here changes anything.
"""

from __future__ import annotations

import json
import math
import os
import statistics
import time
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from launch import slurm
from launch.logs import last_words, stops
from launch.slurm import JobState
from launch.submitted import Submitted, find_runs, read_submission, states
from launch.units import format_seconds
from xr2ct.errors import WorkFailed
from xr2ct.run import Run

_TAIL_BYTES = 64_000
_RATE_STEPS = 20
"""Outer steps that the rate is the median of."""


@dataclass(frozen=True)
class Status:
    """One run. Times in seconds; None where it is not known, or does not apply."""

    run: str
    job: str | None
    """The array member, or a process's id."""
    state: str
    """``done``, ``not submitted``, ``unknown``, or Slurm's word."""
    reason: str
    """Why it waits, or why it ended without being done; empty where there is none."""
    node: str
    step: int
    """Outer steps done, as metrics.jsonl has them."""
    steps: int | None
    seconds_per_step: float | None
    samples_per_second: float | None
    limit_left_s: float | None
    """Until the job's time limit."""
    training_left_s: float | None
    """Until the last step at this rate, checkpoints left out."""
    checkpoint_step: int | None
    checkpoint_age_s: float | None
    restarts: int
    best_step: int | None
    best_psnr_db: float | None
    """Honest PSNR on the validation split."""
    to_score: int | None
    """Pairs of a checkpoint and a split that the evaluator has yet to score."""
    being_scored: int | None
    given_up: int | None
    """Those that failed as often as the evaluator tries."""
    given_up_why: tuple[str, ...]
    """The last reason of each."""


@dataclass(frozen=True)
class Scoring:
    """What the evaluator has yet to do of a run; see `Status`."""

    to_score: int | None = None
    being_scored: int | None = None
    given_up: int | None = None
    given_up_why: tuple[str, ...] = ()


def read_status(paths: Sequence[Path]) -> tuple[list[Status], str]:
    """Every run that a path is or holds, and why Slurm's part is missing (empty where it is not).

    Raises `UserError` for a path without a run.
    """
    runs = find_runs(paths)
    submissions = {run.path: read_submission(run) for run in runs}
    found, trouble = _job_states([s for s in submissions.values() if s])
    scores = _evaluator(runs)
    told = [
        _status(
            run, submissions[run.path], found.get(run.path), bool(trouble), scores.get(run.path, Scoring())
        )
        for run in runs
    ]
    return told, trouble


def format_status(rows: Sequence[Status]) -> str:
    """A plain table, and below it why runs wait or failed."""
    head = ["run", "job", "state", "node", "step", "s/step", "samples/s", "limit in", "trained in",
            "checkpoint", "restarts", "best dB", "to score"]  # fmt: skip
    lines = [head] + [_cells(row) for row in rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    table = ["  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in lines]
    below = [f"{row.run}: {row.state}: {row.reason}" for row in rows if row.reason]
    below += [f"{row.run}: not scored: {why}" for row in rows for why in row.given_up_why]
    return "\n".join(table + below)


def _job_states(submissions: Collection[Submitted]) -> tuple[dict[Path, JobState], str]:
    """Of whom Slurm answers for; where accounting is away, still of those that slurmctld has."""
    try:
        return states(submissions), ""
    except WorkFailed as error:
        here = states([s for s in submissions if s.executor == "local"])
        of = {s.job: s.run for s in submissions if s.executor == "slurm"}
        try:
            return here | {of[id]: job for id, job in slurm.queued(of.keys()).items()}, str(error)
        except WorkFailed:
            return here, str(error)


def _evaluator(runs: Sequence[Run]) -> dict[Path, Scoring]:
    """What is to be scored, by the run's folder as it was given."""
    if not any(run.steps() for run in runs):
        return {run.path: Scoring() for run in runs}
    from launch import evaluator  # and with it torch: only where something can be scored

    found: dict[Path, dict[str, int]] = {}
    for root in sorted({run.path.resolve().parent for run in runs}):
        found |= evaluator.state(root)
    from launch.evaluator_book import given_up

    scoring = {}
    for run in runs:
        counts = found.get(run.path.resolve(), {})
        why = tuple(given_up(run).values()) if counts.get("failed") else ()
        scoring[run.path] = Scoring(counts.get("pending"), counts.get("claimed"), counts.get("failed"), why)
    return scoring


def _status(
    run: Run, submitted: Submitted | None, job: JobState | None, unsure: bool, scoring: Scoring
) -> Status:
    recent = _recent_metrics(run)
    step = int(recent[-1]["step"]) if recent else 0
    steps = run.experiment().training.steps if run.config_file.is_file() else None
    whole = run.steps()
    rate = statistics.median(record["seconds"] for record in recent) if recent else None
    samples = statistics.fmean(record["samples"] for record in recent) if recent else None
    alive = job is not None and job.alive
    state, reason = _state(run, submitted, job, unsure, done=bool(whole) and whole[-1] == steps)
    best = run.best_step()
    return Status(
        run=str(run.path),
        job=submitted.job if submitted else None,
        state=state,
        reason=reason,
        node=job.node if job else "",
        step=step,
        steps=steps,
        seconds_per_step=rate,
        samples_per_second=samples / rate if samples is not None and rate else None,
        limit_left_s=job.left_s if job else None,
        training_left_s=(steps - step) * rate if alive and steps is not None and rate is not None else None,
        checkpoint_step=whole[-1] if whole else None,
        checkpoint_age_s=_age(run.checkpoint(whole[-1])) if whole else None,
        restarts=_restarts(run, submitted, job),
        best_step=best,
        best_psnr_db=_best_psnr(run, best),
        **asdict(scoring),
    )


def _state(
    run: Run, submitted: Submitted | None, job: JobState | None, unsure: bool, done: bool
) -> tuple[str, str]:
    """A word, and a reason where one is to be told."""
    if job is not None and job.alive:
        return job.state, job.reason
    if done:
        return "done", ""
    if submitted is None:
        return "not submitted", ""
    if job is None and unsure:
        return "unknown", ""
    state = "gone" if job is None else job.state
    return state, last_words(run, submitted.job) or (job.reason if job else "")


def _restarts(run: Run, submitted: Submitted | None, job: JobState | None) -> int:
    """As Slurm counts them; a site without accounting forgets, the host script's notes do not."""
    if submitted is None:
        return 0
    noted = [stop["restart"] + bool(stop["requeued"]) for stop in stops(run) if stop["job"] == submitted.job]
    return max([job.restarts if job else 0, *noted])


def _recent_metrics(run: Run) -> list[dict[str, Any]]:
    """The last objects of metrics.jsonl, without reading all of it; a torn last line is left out."""
    try:
        with run.metrics_file.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            start = file.seek(max(0, size - _TAIL_BYTES))
            lines = file.read().splitlines(keepends=True)
    except FileNotFoundError:
        return []
    whole = [line for line in lines[1 if start else 0 :] if line.endswith(b"\n")]
    return [json.loads(line) for line in whole[-_RATE_STEPS:]]


def _age(checkpoint: Path) -> float | None:
    try:
        return max(0.0, time.time() - (checkpoint / "COMPLETE").stat().st_mtime)
    except FileNotFoundError:
        return None


def _best_psnr(run: Run, best: int | None) -> float | None:
    if best is None:
        return None
    from xr2ct.evaluation.leaderboard import read_leaderboard
    from xr2ct.evaluation.metrics import PRIMARY

    cohort = run.experiment().data.cohort
    found = [
        row[PRIMARY]
        for row in read_leaderboard(run)
        if (row["step"], row["cohort"], row["split"]) == (best, cohort, "val")
    ]
    return found[0] if found and found[0] is not None and math.isfinite(found[0]) else None


def _cells(row: Status) -> list[str]:
    def shown(value: float | int | None, form: str) -> str:
        return "–" if value is None else format(value, form)

    checkpoint = "–"
    if row.checkpoint_step is not None:
        checkpoint = f"{row.checkpoint_step}, {format_seconds(row.checkpoint_age_s)} ago"
    to_score = shown(row.to_score, "d")
    if row.being_scored:
        to_score += f", {row.being_scored} now"
    if row.given_up:
        to_score += f", {row.given_up} failed"
    return [
        row.run,
        row.job or "–",
        row.state,
        row.node or "–",
        f"{row.step} of {shown(row.steps, 'd')}",
        shown(row.seconds_per_step, ".3g"),
        shown(row.samples_per_second, ".3g"),
        format_seconds(row.limit_left_s),
        format_seconds(row.training_left_s),
        checkpoint,
        str(row.restarts),
        shown(row.best_psnr_db, ".2f")
        if row.best_step is None
        else f"{shown(row.best_psnr_db, '.2f')} at {row.best_step}",
        to_score,
    ]
