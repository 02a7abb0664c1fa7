"""RUN/slurm/job.json: how a run was last submitted, and whether that job still lives."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from launch import slurm
from launch.slurm import JobState
from xr2ct.errors import UserError, WorkFailed
from xr2ct.run import Run


@dataclass(frozen=True)
class Submitted:
    """The last submission of one run."""

    run: Path
    cluster: str
    """Name or path of the profile."""
    executor: Literal["slurm", "local"]
    job: str
    """The array member, ``123_0``; for `local` the id of a process."""
    host: str
    """Where it was submitted: a process's id means nothing elsewhere."""
    submission: Path
    config: Path
    overrides: tuple[str, ...]
    profile: Mapping[str, Any]
    """As it was resolved then."""
    submitted: str
    """ISO 8601, UTC."""


def read_submission(run: Run) -> Submitted | None:
    """None for a run that no job was ever submitted for; `WorkFailed` where its job.json cannot be read."""
    path = job_file(run)
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        return Submitted(
            run=run.path,
            cluster=told["cluster"],
            executor=told["executor"],
            job=str(told["job"]),
            host=told.get("host", ""),
            submission=Path(told["submission"]),
            config=Path(told["config"]),
            overrides=tuple(told["overrides"]),
            profile=told["profile"],
            submitted=told["submitted"],
        )
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise WorkFailed(f"{path}: cannot be read ({type(error).__name__}: {error})") from None


def job_file(run: Run) -> Path:
    return run.path / "slurm" / "job.json"


def find_runs(paths: Iterable[Path]) -> list[Run]:
    """Every run that a path is, or that is below it; `UserError` for a path without one.

    A run is a folder with a job.json or a config.yaml beside metrics; one that was submitted and waits in the
    queue has only the first.
    """
    found: dict[Path, Run] = {}
    for path in paths:
        if not path.is_dir():
            raise UserError(f"{path}: no such folder (expected a run, or a folder of runs)")
        below = list(_below(path))
        if not below:
            raise UserError(f"{path}: neither a run nor a folder with runs in it")
        found |= {run.path.resolve(): run for run in below}
    return sorted(found.values(), key=lambda run: _natural(str(run.path)))


def states(submissions: Collection[Submitted]) -> dict[Path, JobState]:
    """What became of each run's job, by the run's folder; absent where nobody remembers.

    Raises `WorkFailed` where Slurm does not answer.
    """
    on_slurm = {s.job: s for s in submissions if s.executor == "slurm"}
    known = slurm.job_states(on_slurm.keys()) if on_slurm else {}
    found = {on_slurm[id].run: state for id, state in known.items()}
    return found | {s.run: _process_state(s) for s in submissions if s.executor == "local"}


def living(submissions: Collection[Submitted]) -> set[Path]:
    """The runs whose job waits, runs, or is about to run again. `WorkFailed` where Slurm does not answer."""
    on_slurm = {s.job: s.run for s in submissions if s.executor == "slurm"}
    alive = slurm.alive(on_slurm.keys()) if on_slurm else set()
    here = {s.run for s in submissions if s.executor == "local" and _process_state(s).alive}
    return here | {on_slurm[id] for id in alive}


def is_finished(run: Run) -> bool:
    """Whether the checkpoint of the last step is there."""
    steps = run.steps()
    return bool(steps) and run.config_file.is_file() and steps[-1] >= run.experiment().training.steps


def process_lives(process: int) -> bool:
    """Whether that process is a host script: the number alone may be another program's by now."""
    try:
        command = Path(f"/proc/{process}/cmdline").read_bytes()
        state = Path(f"/proc/{process}/stat").read_bytes().rpartition(b") ")[2][:1]
    except OSError:
        return False
    # For a moment after its start a process has no command line yet; one that has ended has none either.
    beginning = not command and state not in b"ZX"
    return beginning or any(script in command for script in (b"job.sh", b"submission.sh"))


def signal_process(process: int, number: signal.Signals) -> None:
    """Send a signal to a host script, which passes it on to its ranks; nothing where it has just ended."""
    with suppress(ProcessLookupError):
        os.kill(process, number)


def _process_state(submitted: Submitted) -> JobState:
    reason = ""
    if submitted.host not in ("", socket.gethostname()):
        state, reason = "UNKNOWN", f"a process of {submitted.host}; ask there"
    elif process_lives(int(submitted.job)):
        state = "RUNNING"
    else:
        state = "COMPLETED" if is_finished(Run(submitted.run)) else "FAILED"
    return JobState(submitted.job, state, submitted.host, reason, 0, None, None, "")


def _below(path: Path) -> Iterable[Run]:
    """Runs in `path`, itself one or not; what lies inside a run is not looked at, nor hidden folders."""
    for folder, folders, files in os.walk(path):
        run = Run(Path(folder))
        trained = "config.yaml" in files and {"checkpoints", "metrics.jsonl"} & {*folders, *files}
        if trained or job_file(run).is_file():
            folders.clear()
            yield run
        folders[:] = [name for name in folders if not name.startswith(".")]


def _natural(text: str) -> list[tuple[int, str]]:
    """Runs of a sweep in the order of its values: 2 before 10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", text)]
