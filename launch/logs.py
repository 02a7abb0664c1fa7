"""What a run's job says: the log of a rank, appended over restarts, and that of the host script."""

from __future__ import annotations

import json
import logging
import math
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from launch.submitted import Submitted, living, read_submission, states
from xr2ct.errors import UserError
from xr2ct.run import Run

log = logging.getLogger(__name__)

_POLL_S = 1.0
_LINE_BYTES = 2_000
"""Of the longest lines that are shown whole: logs of weeks are not read from their start."""
_END_BYTES = 16_000
_BYSTANDERS = ("srun:", "slurmstepd:", "[rank")
"""How lines begin that follow from a failure and do not explain it."""
_ERROR = " launch.job: "
"""After the time: what `launch.job` says when a task ends with an error."""
_MISSES = re.compile(r"rank \d+ is gone")


def submission_of(run: Run) -> Submitted:
    """Of a run that a job was submitted for; `UserError` for one that was not."""
    submitted = read_submission(run)
    if submitted is None:
        raise UserError(f"{run.path}: no job was submitted for it (no slurm/job.json in it)")
    return submitted


def log_file(run: Run, rank: int | None) -> Path:
    """The log of a rank of the last job, of the host script where `rank` is None.

    It may not be there yet. `UserError` for a rank that the job does not have.
    """
    submitted = submission_of(run)
    job = submitted.job
    if rank is None:
        return run.path / "slurm" / f"host-{job}.out"
    world_size = submitted.profile["nodes"] * submitted.profile["tasks_per_node"]
    if not 0 <= rank < world_size:
        raise UserError(f"{run.path}: no rank {rank}; job {job} has ranks 0 to {world_size - 1}")
    return rank_log(run, job, rank)


def rank_log(run: Run, job: str, rank: int) -> Path:
    return run.path / "slurm" / f"{job}-rank-{rank}.out"


def ranks(run: Run, job: str) -> list[int]:
    """Ranks that have said something, ascending."""
    found = (
        re.fullmatch(r".*-rank-(\d+)\.out", p.name) for p in (run.path / "slurm").glob(f"{job}-rank-*.out")
    )
    return sorted(int(match[1]) for match in found if match)


def read_log(
    run: Run, rank: int | None, lines: int, follow: bool, ask_every_s: float = 15.0
) -> Iterator[str]:
    """The last lines of a log and, with `follow`, each one that comes until the job has ended.

    ask_every_s: how often it is asked whether the job lives, each time a question to slurmctld. A job that
    has said nothing yet is logged as such. Raises `UserError` for a rank that the job does not have,
    `WorkFailed` where Slurm does not answer.
    """
    path, submitted = log_file(run, rank), submission_of(run)
    seen = 0
    if path.exists():
        start = max(0, path.stat().st_size - lines * _LINE_BYTES)
        text = _from(path, start)
        whole = text[: text.rfind(b"\n") + 1]
        seen = start + len(whole)
        yield from _decoded(whole)[-lines:]
        if not follow:
            yield from _decoded(text[len(whole) :])
    else:
        log.warning("%s: %s", run.path, _silent(submitted))
    asked = -math.inf
    while follow:
        # Asked before the log is read, so that its end is not missed.
        ended = False
        if time.monotonic() - asked >= ask_every_s:
            ended, asked = not living([submitted]), time.monotonic()
        new = _from(path, seen)
        whole = new if ended else new[: new.rfind(b"\n") + 1]
        yield from _decoded(whole)
        seen += len(whole)
        if ended:
            return
        time.sleep(_POLL_S)


def _silent(submitted: Submitted) -> str:
    """Why there is no log."""
    state = states([submitted]).get(submitted.run)
    if state is None:
        return f"job {submitted.job} has ended, and nothing was logged"
    waits = f" ({state.reason})" if state.reason else ""
    return f"job {submitted.job}: {state.state}{waits}, nothing logged{' yet' * state.alive}"


def last_words(run: Run, job: str) -> str:
    """Why a job's last attempt ended: what the host script noted, and what the rank that failed said last.

    Empty where nobody said anything.
    """
    noted = [str(stop["why"]) for stop in stops(run) if stop["job"] == job][-1:]
    said = [text for rank in ranks(run, job) if (text := _last_said(rank_log(run, job, rank)))]
    # Where one rank fails by itself, the others only miss it.
    telling = [text for text in said if not _MISSES.search(text)] or said
    return "; ".join(dict.fromkeys(noted + telling[:1]))


def stops(run: Run) -> list[dict[str, Any]]:
    """What the host script noted of each attempt that ended; a torn last line is left out."""
    try:
        lines = (run.path / "slurm" / "stops.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    except FileNotFoundError:
        return []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def _last_said(path: Path) -> str:
    """The error that a task ended with, or else the last line that is not somebody else's."""
    lines = _decoded(_from(path, max(0, path.stat().st_size - _END_BYTES)))
    lines = [line for line in lines if line.strip() and not line.startswith(_BYSTANDERS)]
    errors = [i for i, line in enumerate(lines) if _ERROR in line]
    if errors:
        first, *more = lines[errors[-1] :]
        return " ".join(line.strip() for line in (first.partition(_ERROR)[2], *more[:1]))
    return lines[-1].strip() if lines else ""


def _from(path: Path, start: int) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(start)
            return file.read()
    except FileNotFoundError:
        return b""


def _decoded(text: bytes) -> list[str]:
    return text.decode("utf-8", errors="replace").splitlines()
