"""An ingest cut into parts that jobs work at, and put together again by one that finishes it.

STORE-ingest/lease.json         whose jobs may fill the store (`ingest.lease`)
STORE-ingest/private/           for its owner alone, since sources have names; gone once all is done
    shared.pickle               what was found and what is wanted
    parts/0000.pickle           the tasks of one job
    journals/0000.….jsonl       what a job began and how it ended (`ingest.journal`)
STORE-ingest/report.json, .txt  what became of it

The salt of a private cohort is in none of these: a job reads it where the laboratory keeps it.
"""

from __future__ import annotations

import json
import logging
import pickle
import shutil
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any

from xr2ct.cohorts.plan import CohortPlan
from xr2ct.cohorts.pseudonyms import Names, names_for
from xr2ct.errors import Stopped, UserError
from xr2ct.ingest import journal, lease
from xr2ct.ingest.command import alone, finished, kept_some
from xr2ct.ingest.fill import Job
from xr2ct.ingest.journal import History, Journal
from xr2ct.ingest.lease import folder_of, private_folder
from xr2ct.ingest.pool import run_tasks
from xr2ct.ingest.prepare import Wish
from xr2ct.ingest.report import IngestReport, Renaming
from xr2ct.ingest.request import Request
from xr2ct.ingest.task import Outcome, Task
from xr2ct.run import write_atomically
from xr2ct.store import layout
from xr2ct.store import write as case_files
from xr2ct.training.stopping import SIGNALS

log = logging.getLogger(__name__)

CASES_A_WORKER = 8
"""So many at least are worth a job: minutes of work, against the seconds that it takes to start."""


@dataclass(frozen=True)
class _Shared:
    request: Request
    salt_id: str
    found: CohortPlan
    wish: Wish


def cut(tasks: Sequence[Task], workers: int, most: int) -> list[list[Task]]:
    """Parts for at most `most` jobs of so many workers; neighbours go to different jobs, since patients of
    one scanner, with scans as large, follow each other."""
    jobs = min(most, -(-len(tasks) // (workers * CASES_A_WORKER)))
    return [list(tasks[first::jobs]) for first in range(jobs)]


def write(request: Request, job: Job, wish: Wish, parts: Sequence[Sequence[Task]]) -> None:
    """All that the jobs need, in place of what an earlier ingest left."""
    private = private_folder(request.store)
    if private.exists():
        shutil.rmtree(private)
    private.mkdir(parents=True, mode=0o700)
    for name in ("report.json", "report.txt"):
        (folder_of(request.store) / name).unlink(missing_ok=True)
    (private / "parts").mkdir()
    unsalted = Names(job.names.public, job.names.salt_id)
    for number, part in enumerate(parts):
        _dump(_part_file(request.store, number), [replace(task, names=unsalted) for task in part])
    _dump(_shared_file(request.store), _Shared(request, job.names.salt_id, job.found, wish))


def count(store: Path) -> int:
    """Parts that `write` cut."""
    return len(list((private_folder(store) / "parts").iterdir()))


def work_part(store: Path, token: str, number: int, workers: int) -> None:
    """Do what is left of one part. Failures are noted, and left to `finish`, but for what failed before.

    Raises `Stopped` when told to stop, `Superseded` where the store is another submission's, `UserError` for
    another salt than it was planned with, and `WorkFailed` where the store cannot be written.
    """
    lease.check(store, token)
    shared: _Shared = _load(_shared_file(store))
    tasks: list[Task] = _load(_part_file(store, number))
    todo, _ = _left(store, tasks, _names(shared))
    with _journal(store, f"{number:04d}") as noted:
        for task, outcome in run_tasks(todo, workers, begun=noted.begun, retry=False):
            noted.ended(task, outcome)
            log.info("%s: %s", task.row.case, outcome.reason or f"kept in {outcome.seconds:.1f} s")


def finish(store: Path, token: str, workers: int) -> IngestReport:
    """Retry once what failed or was never done, take spares and radiographs, make all visible, and report.

    Raises as `work_part`, and `WorkFailed` where no case could be kept.
    """
    lease.check(store, token)
    shared: _Shared = _load(_shared_file(store))
    names = _names(shared)
    files = sorted((private_folder(store) / "parts").iterdir())
    tasks = sorted((task for file in files for task in _load(file)), key=lambda task: task.index)
    with alone(store):
        todo, ended = _left(store, tasks, names)
        with _journal(store, "finish") as noted:
            renaming = Renaming(shared.found, names)
            job = Job(store, names, shared.found, renaming, workers, False, {})
            job.begun, job.ended = noted.begun, noted.ended
            report = finished(job, shared.wish, [*todo, *(t for t in tasks if t.index in ended)], ended)
        folder = folder_of(store)
        write_atomically(folder / "report.txt", f"{report}\n")
        write_atomically(folder / "report.json", json.dumps(report.as_dict(), indent=2) + "\n")
        lease.end(store)
    return kept_some(shared.request.source, report)


def _left(store: Path, tasks: Sequence[Task], names: Names) -> tuple[list[Task], dict[int, Outcome]]:
    """Tasks that are to be done, as last attempts where one failed, and how the others ended, by row."""
    histories = journal.read(private_folder(store) / "journals")
    todo, ended = [], {}
    for task in tasks:
        history = histories.get(task.index, History())
        if history.settled:
            ended[task.index] = history.settled
        elif _is_done(task):  # and its job died before it could say so
            ended[task.index] = Outcome()
        else:
            todo.append(replace(task, names=names, tried=history.tries > 0))
    return todo, ended


def _is_done(task: Task) -> bool:
    arrays = {*map(layout.ct_array, task.sizes), *(layout.xray_array(x.geometry.name) for x in task.xrays)}
    return arrays <= set(case_files.read_case(task.store, task.row.case).get("checksums", {}))


@contextmanager
def _journal(store: Path, name: str) -> Iterator[Journal]:
    """A journal, and meanwhile `Stopped` where the cluster wants its node back.

    What is finished then is on disk, and no case that was being worked on has failed.
    """
    noted = Journal(private_folder(store) / "journals", name)

    def stop(number: int, frame: FrameType | None) -> None:
        for told in SIGNALS:  # once is enough: nothing may disturb the way out
            signal.signal(told, signal.SIG_IGN)
        raise Stopped(f"told to stop ({signal.Signals(number).name}): what is finished is kept")

    before = {number: signal.signal(number, stop) for number in SIGNALS}
    try:
        yield noted
    except Stopped:
        noted.stopped()
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _names(shared: _Shared) -> Names:
    names = names_for(shared.request.cohort, shared.request.salt)
    if names.salt_id != shared.salt_id:
        raise UserError(f"{shared.request.salt}: another salt than when the ingest was submitted")
    return names


def _shared_file(store: Path) -> Path:
    return private_folder(store) / "shared.pickle"


def _part_file(store: Path, number: int) -> Path:
    return private_folder(store) / "parts" / f"{number:04d}.pickle"


def _dump(file: Path, values: object) -> None:
    file.write_bytes(pickle.dumps(values))


def _load(file: Path) -> Any:
    return pickle.loads(file.read_bytes())
