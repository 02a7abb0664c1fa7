"""`xr2ct doctor`: a job of at most ten minutes that finds out what training will miss on a cluster.

The job is submitted as training's are, by the same host script, into the same container, with as many ranks
a node, on two nodes where there are two. Each of its ranks does `launch.checks`; here is what asks for it,
sends it the signal, waits, and puts the ranks' outcomes together.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from launch import slurm
from launch.check_ranks import READY
from launch.checks import CHECKS, check_task, submit_from_task
from launch.executor import submit_array
from launch.layout import Call, Request
from launch.profiles import Profile
from launch.slurm import JobState
from launch.submitted import process_lives, signal_process
from xr2ct.errors import WorkFailed

MINUTES = 10
_POLL_S = 2.0
_KEYS = {
    "job": "partition, qos, account, constraint, nodes, mem_gb or gpus_per_node",
    "python": "python, modules, setup or container",
    "packages": "python, modules or container",
    "gpu": "gpus_per_node, partition, constraint or container",
    "dali": "python or container",
    "rendezvous": "environment: GLOO_SOCKET_IFNAME, or nodes: 1",
    "all-reduce": "environment: GLOO_SOCKET_IFNAME or NCCL_SOCKET_IFNAME, or nodes: 1",
    "scratch": "scratch, or container.mounts",
    "scratch locks": "scratch",
    "run root": "container.mounts; or run_root of the configuration, on another file system",
    "between ranks": "none; put run_root of the configuration on a file system that all nodes share",
    "clocks": "sbatch: exclude",
    "local disk": "local_disk, or container.mounts",
    "mlflow": "environment: MLFLOW_TRACKING_URI",
    "signal": "setup, container or signal_lead_s",
    "requeue": "sbatch or partition: the site must let its users requeue jobs (JobRequeue in slurm.conf)",
    "submit from": "submit_from: login, with evaluator.schedule: watch",
}
"""What in the profile mends a check that failed."""


@dataclass(frozen=True)
class Outcome:
    """What one check found over all ranks."""

    check: str
    outcome: str
    """OK, FAILED or SKIPPED."""
    told: str
    key: str | None
    """The profile's key that mends it, where it failed."""


@dataclass
class _Job:
    """Doctor's job, and the one that asks whether jobs may submit jobs."""

    profile: Profile
    folder: Path
    """Outcomes and logs."""
    ranks: int
    id: str = ""
    side_id: str | None = None
    state: JobState | None = None
    signalled: bool = False
    timed_out: bool = False
    lines: list[dict[str, Any]] = field(default_factory=list)


def examine(profile: Profile, root: Path, timeout_s: float, tell: Callable[[str], None]) -> list[Outcome]:
    """Submit doctor's job, wait for it, and return what each check found.

    root: the run root that training will write to. tell: is given a line whenever something is new. Logs
    stay in root/.doctor where something failed. Raises `UserError` for a job that Slurm refuses, `WorkFailed`
    where Slurm does not answer.
    """
    job = _submit(profile, root)
    tell(f"job {job.id}: {job.ranks} ranks; logs in {job.folder}")
    try:
        _wait(job, timeout_s, tell)
    finally:
        _end(job)
    outcomes = _outcomes(job)
    if not any(o.outcome == "FAILED" for o in outcomes):
        for folder in (job.folder, *root.glob(f".submissions/doctor-{job.folder.name}*")):
            shutil.rmtree(folder, ignore_errors=True)
    return outcomes


def format_outcomes(outcomes: Sequence[Outcome]) -> str:
    """A line each, and with a failed one the key that mends it."""
    width = max(len(o.check) for o in outcomes)
    lines = []
    for o in outcomes:
        lines.append(f"{o.outcome:<7}  {o.check:<{width}}  {o.told}".rstrip())
        if o.key:
            lines.append(f"{'':<7}  {'':<{width}}  → profile key {o.key}")
    return "\n".join(lines)


def _submit(profile: Profile, root: Path) -> _Job:
    stamp = f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{os.getpid()}"
    folder = root.absolute() / ".doctor" / stamp
    submission = root.absolute() / ".submissions" / f"doctor-{stamp}"
    local = profile.executor == "local"
    nodes = 1 if local else max(profile.nodes, min(2, slurm.nodes_of(profile.partition)))
    request = Request(
        name="xr2ct-doctor",
        nodes=nodes,
        tasks_per_node=profile.tasks_per_node,
        gpus_per_node=profile.gpus_per_node,
        cpus_per_task=profile.cpus_per_task,
        mem_gb=profile.mem_gb,
        minutes=MINUTES,
        # The profile's lead may be longer than this job; its signal is sent by hand.
        overrides={} if local else {"signal": "B:USR1@30"},
    )
    call = Call(check_task, (profile, folder), folder)
    job = _Job(profile, folder, nodes * profile.tasks_per_node)
    try:
        (job.id,) = submit_array(profile, request, [call], submission)
        if not local and profile.submit_from == "anywhere":
            job.side_id = _ask_from_a_node(profile, folder, submission)
    except BaseException:
        _end(job)
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return job


def _ask_from_a_node(profile: Profile, folder: Path, submission: Path) -> str:
    """A small job outside the container, where the evaluator's rounds run too."""
    request = Request(
        name="xr2ct-doctor-submit", nodes=1, tasks_per_node=1, gpus_per_node=0, cpus_per_task=1, mem_gb=1,
        minutes=5, requeue=False, container=False, overrides={"signal": "B:USR1@30"},
    )  # fmt: skip
    side = folder / "submit-from"
    call = Call(submit_from_task, (side,), side)
    return submit_array(profile, request, [call], submission.with_name(submission.name + "-submit"))[0]


def _wait(job: _Job, timeout_s: float, tell: Callable[[str], None]) -> None:
    """Until the job has ended, telling outcomes and states as they come."""
    began = time.monotonic()
    told: set[str] = set()

    def tell_once(line: str) -> None:
        if line not in told:
            told.add(line)
            tell(line)

    while True:
        ended = not _alive(job)
        job.lines = _read(job.folder)
        for check in CHECKS:
            if outcome := _known(job, check):
                tell_once(f"  {check}: {outcome}")
        if job.state is not None:
            waits = f" ({job.state.reason})" if job.state.reason else ""
            tell_once(f"job {job.id}: {job.state.state}{waits}, attempt {job.state.restarts}")
        if ended:
            return
        if (job.folder / READY).exists() and not job.signalled:
            _send_signal(job)
        if time.monotonic() - began > timeout_s:
            job.timed_out = True
            return
        time.sleep(_POLL_S)


def _known(job: _Job, check: str) -> str | None:
    """A check's outcome once every rank has it."""
    last = {line["rank"]: line["outcome"] for line in job.lines if line["check"] == check}
    if len(last) < job.ranks or "BEGUN" in last.values():
        return None
    return "FAILED" if "FAILED" in last.values() else next(iter(last.values()))


def _alive(job: _Job) -> bool:
    if job.profile.executor == "local":
        return process_lives(int(job.id))
    ids = [id for id in (job.id, job.side_id) if id]
    states = slurm.queued(ids)
    job.state = states.get(job.id, job.state)
    return any(state.alive for state in states.values())


def _send_signal(job: _Job) -> None:
    job.signalled = True
    if job.profile.executor == "local":
        signal_process(int(job.id), signal.SIGUSR1)
        return
    with suppress(WorkFailed):  # it has ended meanwhile, and that is seen
        slurm.signal_host(job.id, "USR1")


def _end(job: _Job) -> None:
    """Leave nothing running: this is also how an interrupt and a timeout end."""
    if job.profile.executor == "local":
        if job.id and process_lives(int(job.id)):
            signal_process(int(job.id), signal.SIGTERM)
        return
    with suppress(WorkFailed):
        if ids := slurm.alive([id for id in (job.id, job.side_id) if id]):
            slurm.forbid_requeue(ids)
            slurm.cancel(ids)


def _outcomes(job: _Job) -> list[Outcome]:
    found: list[Outcome] = []
    if job.timed_out:
        state = job.state
        waits = f"{state.state}{f' ({state.reason})' if state.reason else ''}" if state else "still running"
        found.append(_failed("job", f"{waits} when the time was over; cancelled"))
    started = bool(job.lines)
    if not started and not job.timed_out:
        found.append(_failed("python", f"no rank began: {_last_words(job)}"))
    if started:
        found.append(Outcome("python", "OK", "every rank's tasks begin" if _ranks(job.lines) == job.ranks else
                             f"{_ranks(job.lines)} of {job.ranks} ranks began", None))  # fmt: skip
    for check in CHECKS:
        found.append(_over_ranks(job, check, [line for line in job.lines if line["check"] == check]))
    found += [_requeue(job, signalled=found[-1].outcome == "OK"), _submit_from(job)]
    return found


def _over_ranks(job: _Job, check: str, lines: Sequence[dict[str, Any]]) -> Outcome:
    """One check's outcome, from the last word of each rank."""
    if not lines:
        return Outcome(check, "SKIPPED", "the job did not come to it", None)
    last = {line["rank"]: line for line in lines}
    failed = [line for line in last.values() if line["outcome"] == "FAILED"]
    if failed:
        others = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
        return _failed(check, f"rank {failed[0]['rank']} on {failed[0]['node']}: {failed[0]['told']}{others}")
    open_ended = [line for line in last.values() if line["outcome"] == "BEGUN"]
    if open_ended:
        line = open_ended[0]
        return _failed(
            check, f"rank {line['rank']} on {line['node']} ended in it: {_last_words(job, line['rank'])}"
        )
    if missing := sorted({*range(job.ranks)} - last.keys()):
        return _failed(check, f"rank {missing[0]} did not come to it: {_last_words(job, missing[0])}")
    first = last[min(last)]
    return Outcome(check, first["outcome"], first["told"], None)


def _requeue(job: _Job, signalled: bool) -> Outcome:
    if job.profile.executor == "local":
        return Outcome("requeue", "SKIPPED", "on this machine a stop that was asked for is final", None)
    back = [line for line in job.lines if line["check"] == "requeue"]
    if not signalled and not back:
        return Outcome("requeue", "SKIPPED", "the signal did not stop the job", None)
    if len(back) == job.ranks:
        return Outcome("requeue", "OK", back[0]["told"], None)
    return _failed("requeue", f"{len(back)} of {job.ranks} ranks came back: {_host_words(job)}")


def _submit_from(job: _Job) -> Outcome:
    if job.profile.executor == "local":
        return Outcome("submit from", "SKIPPED", "executor: local", None)
    if job.side_id is None:
        return Outcome("submit from", "SKIPPED", f"submit_from: {job.profile.submit_from}", None)
    lines = _read(job.folder / "submit-from")
    if not lines and not job.lines:
        return Outcome("submit from", "SKIPPED", "the job did not come to it", None)
    if not lines or lines[-1]["outcome"] == "BEGUN":
        return _failed("submit from", "the job that should ask sbatch did not come to it")
    last = lines[-1]
    return _failed("submit from", last["told"]) if last["outcome"] == "FAILED" else Outcome(
        "submit from", last["outcome"], last["told"], None
    )  # fmt: skip


def _failed(check: str, told: str) -> Outcome:
    return Outcome(check, "FAILED", told, _KEYS[check])


def _ranks(lines: Iterable[dict[str, Any]]) -> int:
    return len({line["rank"] for line in lines})


def _read(folder: Path) -> list[dict[str, Any]]:
    """Every rank's outcomes so far; a torn last line is left out."""
    lines = []
    for path in sorted(folder.glob("rank-*.jsonl")):
        text = path.read_text(encoding="utf-8").splitlines(keepends=True)
        lines += [json.loads(line) for line in text if line.endswith("\n")]
    return lines


def _last_words(job: _Job, rank: int | None = None) -> str:
    """The end of a rank's log, else of the host script's.

    A rank whose step was cancelled because another could not begin says nothing of the reason, so what Slurm
    says of the cancelling comes after everything else.
    """
    pattern = f"*-rank-{'*' if rank is None else rank}.out"
    logs = [
        path.read_text(encoding="utf-8", errors="replace").splitlines()
        for path in sorted(job.folder.glob(pattern))
    ]
    ends = [lines[-1][:300] for lines in ([line for line in log if line.strip()] for log in logs) if lines]
    return next(iter(sorted(ends, key=_is_cancelling)), "") or _host_words(job)


def _is_cancelling(line: str) -> bool:
    """``slurmstepd-n1: error: *** STEP 21.0 ON n1 CANCELLED AT … ***``"""
    return "*** STEP" in line or "*** JOB" in line


def _host_words(job: _Job) -> str:
    for path in sorted(job.folder.glob("host-*.out")):
        lines = path.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        if lines:
            return " | ".join(lines[-3:])[:500]
    state = f", job {job.id} is {job.state.state}" if job.state else ""
    return f"nothing was logged{state}; see {job.folder}"
