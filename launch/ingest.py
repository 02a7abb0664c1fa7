"""`xr2ct ingest --cluster`: an array that fills a store, and a job after it that finishes it.

STORE-ingest/code/              what the jobs run, whatever becomes of the checkout
STORE-ingest/submissions/       what was submitted
STORE-ingest/logs/              what the jobs say
STORE-ingest/report.txt, .json  in the end
"""

from __future__ import annotations

import socket
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from launch import slurm
from launch.executor import submit_array
from launch.freeze import freeze
from launch.layout import Call
from launch.layout import Request as Job
from launch.profiles import Profile
from launch.submitted import process_lives
from xr2ct.cohorts import processes
from xr2ct.cohorts.pseudonyms import default_salt
from xr2ct.errors import UserError, WorkFailed
from xr2ct.ingest import lease, parts
from xr2ct.ingest.command import begun
from xr2ct.ingest.lease import Lease, folder_of
from xr2ct.ingest.request import Request
from xr2ct.ingest.task import Task
from xr2ct.store import layout

WORKERS = 4
"""Of a job, where neither the request nor the profile says how many cores it has."""
_POLL_S = 5.0


@dataclass(frozen=True)
class Submitted:
    """An ingest on its way."""

    store: Path
    jobs: tuple[str, ...]
    """The array's members, and last the job that finishes."""
    cases: int
    """To be worked on."""

    @property
    def report(self) -> Path:
        """What became of it, once it has ended; the same beside it in JSON."""
        return folder_of(self.store) / "report.txt"

    @property
    def logs(self) -> Path:
        return folder_of(self.store) / "logs"


def submit(request: Request, profile: Profile, cluster: str) -> Submitted:
    """Fix rows and shapes here, submit the work, and return at once.

    Raises what `ingest` raises for a wrong request, `UserError` for what Slurm refuses, and `WorkFailed`
    where jobs of an earlier call are still at the store; nothing is left submitted then.
    """
    if request.repair:
        raise UserError("--repair with --cluster: a repair looks at every file itself; leave out --cluster")
    request = replace(
        request,
        source=request.source.absolute(),
        store=request.store.absolute(),
        salt=(request.salt or default_salt()).absolute(),
    )
    with begun(request, living) as (job, wish, tasks):
        workers, mem_gb = _workers(request, profile)
        token, host = uuid.uuid4().hex, socket.gethostname() if profile.executor == "local" else ""
        parts.write(request, job, wish, _cut(tasks, workers, profile))
        lease.write(request.store, Lease(token, cluster, host))
        try:
            jobs = _start(request, profile, token, workers, mem_gb)
        except BaseException:
            lease.end(request.store)
            raise
        lease.write(request.store, Lease(token, cluster, host, tuple(jobs)))
    return Submitted(request.store, tuple(jobs), len(tasks))


def living(held: Lease) -> bool:
    """Whether jobs of a lease may still fill its store; `WorkFailed` where Slurm does not answer."""
    if not held.host:
        return bool(slurm.alive(held.jobs))
    return held.host != socket.gethostname() or any(process_lives(int(job)) for job in held.jobs)


def follow(submitted: Submitted, tell: Callable[[str], None], poll_s: float = _POLL_S) -> None:
    """Wait for the end, telling how far it is; `WorkFailed` with the place of the logs where it failed."""
    held, said = lease.read(submitted.store), ""
    while held and living(held):
        done = len(layout.case_files(submitted.store))
        if (line := f"{done} cases in {submitted.store}") != said:
            tell(line)
        said = line
        time.sleep(poll_s)
    if not submitted.report.is_file():
        raise WorkFailed(
            f"{submitted.store}: the ingest did not come to its end; see {submitted.logs}\n"
            "what is finished is kept, and the same command continues"
        )


def part_task(store: Path, token: str, number: int, workers: int) -> None:
    """One member of the array."""
    parts.work_part(store, token, number, workers)


def finish_task(store: Path, token: str, workers: int) -> None:
    """The job after it."""
    print(parts.finish(store, token, workers), flush=True)


def _workers(request: Request, profile: Profile) -> tuple[int, float]:
    """Of a job: its worker processes, as many as the profile's memory holds, and GB for them."""
    each = 1.5 + 12e-9 * max(*request.sizes, round(request.cube_mm)) ** 3
    wanted = request.workers or profile.cpus_per_task or WORKERS
    if profile.executor == "local":
        wanted = request.workers or processes.cores()
    fit = wanted if profile.mem_gb is None else int((profile.mem_gb - 1) / each)
    workers = max(1, min(wanted, fit))
    return workers, 1 + workers * each


def _cut(tasks: Sequence[Task], workers: int, profile: Profile) -> list[list[Task]]:
    if profile.executor == "local":
        return parts.cut(tasks, workers, 1)
    room = slurm.submission_room(profile.account, profile.qos)
    most = min(slurm.max_array_size(), room - 1)  # one is the job after the array
    if most < 1:
        raise WorkFailed("Slurm takes no two further jobs of yours now; wait for some to end")
    return parts.cut(tasks, workers, most)


def _start(request: Request, profile: Profile, token: str, workers: int, mem_gb: float) -> list[str]:
    """Submit the array and the job after it; ids in this order. Locally that job does it all."""
    folder = folder_of(request.store)
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
    resources = Job(
        name=f"ingest-{request.cohort}",
        nodes=1,
        tasks_per_node=1,
        gpus_per_node=0,
        cpus_per_task=workers,
        mem_gb=mem_gb,
        minutes=profile.time_limit_min,
        parallel=profile.array_parallel,
    )
    code = freeze(folder, refresh=True)
    last = Call(finish_task, (request.store, token, workers), folder / "logs", code)
    if profile.executor == "local":
        return submit_array(profile, resources, [last], folder / "submissions" / stamp)
    calls = [
        Call(part_task, (request.store, token, number, workers), folder / "logs", code)
        for number in range(parts.count(request.store))
    ]
    array: list[str] = []
    if calls:
        array = submit_array(profile, resources, calls, folder / "submissions" / stamp)
        resources = replace(resources, dependency=f"afterany:{array[0].split('_')[0]}")
    try:
        return [*array, *submit_array(profile, resources, [last], folder / "submissions" / f"{stamp}-finish")]
    except BaseException:
        if array:
            with suppress(WorkFailed):
                slurm.cancel({job.split("_")[0] for job in array})
        raise
