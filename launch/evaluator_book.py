"""What evaluators and their scoring tasks know of each other: claims, failed attempts, what is queued, rates.

RUN/evaluations/.claims/PAIR.json       the job at work on it: made by that job, exclusively, before its work
RUN/evaluations/.failed/PAIR/JOB.json   an attempt that failed, and why; a job counts once
RUN_ROOT/.evaluator/arrays/NAME.json    a submitted array: its tasks' pairs, its jobs once Slurm has said them
RUN_ROOT/.evaluator/tasks/NAME-T.jsonl  what task T did
RUN_ROOT/.evaluator/rates.json          seconds a patient and checkpoint, by run
RUN_ROOT/.evaluator/logs/               of scoring tasks
RUN_ROOT/.evaluator/rounds/             of the chain's rounds

A claim is the job's own, so it names the job from the first moment on, and a job that was queued twice finds
it and leaves the pair alone. Only an evaluator takes claims away, when Slurm says that the job is gone.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from launch import slurm
from launch.submitted import process_lives
from xr2ct.evaluation import once
from xr2ct.evaluation.pending import PendingPair
from xr2ct.run import Run, write_atomically

ATTEMPTS = 3
"""How often a pair may fail before it is left alone."""

BLAMELESS = frozenset(
    ("BOOT_FAIL", "CANCELLED", "COMPLETED", "LAUNCH_FAILED", "LOST", "NODE_FAIL", "PREEMPTED",
     "RECONFIG_FAIL", "REVOKED")
)  # fmt: skip
"""Ends of a job that say nothing against what it was at work on."""
FORGOTTEN = "ended, how nobody remembers"
"""Where a site has no accounting, some minutes after a job."""


@dataclass(frozen=True)
class Job:
    """One array member, or a process of one machine."""

    id: str
    host: str

    @classmethod
    def here(cls) -> Job:
        """The job that this process is a task of."""
        return cls(os.environ["XR2CT_JOB"], socket.gethostname())

    @property
    def on_slurm(self) -> bool:
        return "_" in self.id


@dataclass(frozen=True)
class Work:
    """A pair of one run."""

    run: Path
    pair: PendingPair


def ended(jobs: Collection[Job]) -> dict[Job, str]:
    """How those that have ended did, by Slurm's word; raises `WorkFailed` where Slurm does not answer.

    A process of another machine cannot be asked, so it has not.
    """
    on_slurm = {job for job in jobs if job.on_slurm}
    states = slurm.job_states({job.id for job in on_slurm}) if on_slurm else {}
    found = {}
    for job in on_slurm:
        state = states.get(job.id)
        if state is None or not state.alive:
            found[job] = state.state if state else FORGOTTEN
    for job in set(jobs) - on_slurm:
        if job.host == socket.gethostname() and not process_lives(int(job.id)):
            found[job] = "FAILED"
    return found


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


# Claims


def claim(run: Run, pair: PendingPair, job: Job) -> bool:
    """Whether the pair is this job's to score: nobody is at it, or this job was before it was requeued."""
    file = _claims(run) / f"{pair.name}.json"
    told = {"pair": [pair.source, pair.cohort, pair.split], **asdict(job), "since": now()}
    return once.create(file, json.dumps(told)) or _claimed_by(file) == job.id


def release(run: Run, pair: PendingPair, job_id: str) -> None:
    """Give a claim of that job back; another's stays."""
    once.remove_if(_claims(run) / f"{pair.name}.json", lambda file: _claimed_by(file) == job_id)


def claims(run: Run) -> dict[PendingPair, Job]:
    """Who is at work on which pair, as far as anybody has said."""
    found = {}
    for file in _claims(run).glob("[!.]*.json"):
        with suppress(OSError, ValueError, KeyError):  # released meanwhile
            told = json.loads(file.read_text(encoding="utf-8"))
            found[PendingPair(*told["pair"])] = Job(told["id"], told["host"])
    return found


def _claims(run: Run) -> Path:
    return run.evaluations / ".claims"


def _claimed_by(file: Path) -> str | None:
    with suppress(OSError, ValueError):
        return str(json.loads(file.read_text(encoding="utf-8"))["id"])
    return None


# Failed attempts


def note_failure(run: Run, pair: PendingPair, job_id: str, reason: str) -> None:
    """An attempt of that job; it counts once however often it is told."""
    told = {"pair": [pair.source, pair.cohort, pair.split], "reason": reason, "job": job_id, "time": now()}
    once.create(_failed(run) / pair.name / f"{job_id}.json", json.dumps(told))


def failures(run: Run) -> dict[PendingPair, list[str]]:
    """Why attempts failed, by pair, in their order."""
    found: dict[PendingPair, list[str]] = {}
    told = [json.loads(f.read_text(encoding="utf-8")) for f in _failed(run).glob("*/[!.]*.json")]
    for one in sorted(told, key=lambda one: one["time"]):
        found.setdefault(PendingPair(*one["pair"]), []).append(one["reason"])
    return found


def given_up(run: Run) -> dict[PendingPair, str]:
    """The pairs that failed as often as they may, and why they did last."""
    return {pair: why[-1] for pair, why in failures(run).items() if len(why) >= ATTEMPTS}


def reset_attempts(run: Run) -> int:
    """Forget every failed attempt of a run, so that it is tried anew; how many pairs had been given up."""
    count = len(given_up(run))
    with suppress(FileNotFoundError):
        shutil.rmtree(_failed(run))
    return count


def _failed(run: Run) -> Path:
    return run.evaluations / ".failed"


# What is queued


@dataclass(frozen=True)
class Array:
    """Scoring tasks submitted together."""

    name: str
    """The Slurm job's name too, by which it is found where the ids were not written down any more."""
    tasks: Sequence[Sequence[Work]]
    ids: Sequence[str]
    """Empty until Slurm has said them."""
    host: str
    submission: Path
    executor: str
    written: float = 0.0
    """When the file was, s since the epoch."""

    def task_name(self, index: int) -> str:
        return f"{self.name}-{index}"


class Book:
    """RUN_ROOT/.evaluator."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folder = root / ".evaluator"
        self.logs = self.folder / "logs"

    def write_array(self, array: Array) -> None:
        told = {
            "ids": list(array.ids),
            "host": array.host,
            "submission": str(array.submission),
            "executor": array.executor,
            "tasks": [[plain_of(work) for work in task] for task in array.tasks],
        }
        write_atomically(self._array_file(array.name), json.dumps(told))

    def arrays(self) -> Iterator[Array]:
        for file in sorted((self.folder / "arrays").glob("[!.]*.json")):
            told = json.loads(file.read_text(encoding="utf-8"))
            tasks = [[work_of(plain) for plain in task] for task in told["tasks"]]
            folder, executor = Path(told["submission"]), told["executor"]
            written = file.stat().st_mtime
            yield Array(file.stem, tasks, told["ids"], told["host"], folder, executor, written)

    def remove_array(self, array: Array) -> None:
        """Of which every task is accounted for."""
        for index in range(len(array.tasks)):
            self.task_file(array.task_name(index)).unlink(missing_ok=True)
        shutil.rmtree(array.submission, ignore_errors=True)
        self._array_file(array.name).unlink(missing_ok=True)

    def task_file(self, task: str) -> Path:
        return self.folder / "tasks" / f"{task}.jsonl"

    def task_events(self, task: str) -> list[dict[str, Any]]:
        """What a task did; empty where it never came to its first line."""
        with suppress(FileNotFoundError):
            lines = self.task_file(task).read_text(encoding="utf-8").split("\n")[:-1]
            return [json.loads(line) for line in lines]
        return []

    def read(self, name: str) -> dict[str, Any]:
        """A small file of the evaluator's; empty where there is none."""
        with suppress(FileNotFoundError):
            return dict(json.loads((self.folder / f"{name}.json").read_text(encoding="utf-8")))
        return {}

    def write(self, name: str, values: Mapping[str, Any]) -> None:
        write_atomically(self.folder / f"{name}.json", json.dumps(values, indent=1))

    def _array_file(self, name: str) -> Path:
        return self.folder / "arrays" / f"{name}.json"


def plain_of(work: Work) -> list[str]:
    return [str(work.run), work.pair.source, work.pair.cohort, work.pair.split]


def work_of(plain: Sequence[str]) -> Work:
    """As it was written into an array's file, or into a job's arguments."""
    run, source, cohort, split = plain
    return Work(Path(run), PendingPair(source, cohort, split))
