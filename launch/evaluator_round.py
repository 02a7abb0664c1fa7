"""A round of the evaluator: what became of earlier tasks, what is to be scored, an array of it, the rest.

Any number of rounds may come, one after another or at once, killed at any moment: each works from the files
alone. A lock keeps rounds of one run root apart where the file system has locks; where it has none, the
claims of the scoring tasks still keep two jobs from one pair.
"""

from __future__ import annotations

import hashlib
import logging
import socket
import statistics
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from launch import slurm
from launch.evaluator_book import (
    BLAMELESS,
    Array,
    Book,
    Job,
    Work,
    claims,
    ended,
    given_up,
    note_failure,
    plain_of,
    release,
)
from launch.evaluator_finish import finish
from launch.evaluator_packing import UNKNOWN_S, estimate_min, pack
from launch.executor import Call, Request, submit_array
from launch.freeze import code_folder
from launch.profiles import Profile
from launch.score import score_task
from launch.submitted import find_runs, is_finished, living, read_submission
from xr2ct.errors import UserError, WorkFailed
from xr2ct.evaluation.pairs import Stores
from xr2ct.evaluation.pending import PendingPair, pending
from xr2ct.locks import alone
from xr2ct.run import Run

log = logging.getLogger(__name__)

SUBMITTING_S = 300.0
"""How long an array may be without jobs before it counts as never submitted."""


@dataclass
class Outcome:
    """What a round found and did."""

    submitted: list[str] = field(default_factory=list)
    """Ids of the scoring tasks."""
    to_score: int = 0
    """Pairs that are neither scored nor given up, those queued among them."""
    at_work: int = 0
    """Pairs that are queued or being scored, without those of this round."""
    failed: int = 0
    """Pairs given up."""
    told: list[str] = field(default_factory=list)
    """What a person should know."""
    finished: bool = False
    """Training has ended and everything is scored or given up."""

    def __str__(self) -> str:
        parts = [f"{self.to_score} pairs to score"]
        parts += [f"{self.at_work} of them queued or at work"] if self.at_work else []
        parts += [f"{len(self.submitted)} tasks submitted ({self.submitted[0]} …)"] if self.submitted else []
        parts += [f"{self.failed} given up"] if self.failed else []
        return "; ".join(["evaluator: " + ", ".join(parts), *self.told])


def evaluation_round(root: Path, profile: Profile, named: Sequence[Path] = ()) -> Outcome:
    """Look at every submitted run in `root`, an absolute path, or at the `named` ones, once.

    Raises `WorkFailed` where Slurm does not answer, `UserError` where no run is there.
    """
    book = Book(root)
    outcome = Outcome()
    runs = served(root, named)
    with in_turn(book):
        live = training_lives(runs)
        lacking, at_work = _look(book, runs, outcome)
        todo = _todo(lacking, at_work, outcome)
        if todo:
            _submit(book, profile, todo, live, outcome)
    # A task may still be at its end after the last pair is scored.
    over = not live and not outcome.to_score and not any(book.arrays())
    best = [run.best_step() for run in runs]
    settled = finish(book, runs, outcome.told, last=over)
    # Of the best checkpoint more may be asked (`evaluation.ways`): one that has just come to be so needs a
    # further look.
    outcome.finished = over and settled and best == [run.best_step() for run in runs]
    book.write("last", {"time": time.time(), "told": str(outcome), "finished": outcome.finished})
    return outcome


@contextmanager
def in_turn(book: Book, wait_s: float = 300.0) -> Iterator[None]:
    """Keep others from deciding for the same run root meanwhile; `WorkFailed` where one does for too long."""
    with ExitStack() as held:
        try:
            held.enter_context(alone(book.folder / "lock", wait_s))
        except TimeoutError:
            raise WorkFailed(f"{book.root}: another evaluator is at work on it") from None
        except OSError as error:
            log.warning("%s: cannot be locked against a second evaluator (%s)", book.root, error.strerror)
        yield


def served(root: Path, named: Sequence[Path] = ()) -> list[Run]:
    """The runs of a root that were submitted, or those named, in their order."""
    here = [run for run in find_runs([root]) if run.path.resolve().parent == root.resolve()]
    if named:
        chosen = {path.resolve() for path in named}
        return [run for run in here if run.path.resolve() in chosen]
    return [run for run in here if read_submission(run) is not None]


def training_lives(runs: Sequence[Run]) -> set[Path]:
    """Runs that may still bring checkpoints. `WorkFailed` where Slurm does not answer."""
    submissions = {run.path: read_submission(run) for run in runs}
    live = living([s for s in submissions.values() if s])
    by_hand = {run.path for run in runs if submissions[run.path] is None and not is_finished(run)}
    return live | by_hand


def lacking_pairs(runs: Sequence[Run], told: list[str]) -> dict[Path, list[PendingPair]]:
    """By run; why a run cannot be evaluated at all is added to `told`."""
    stores = Stores()
    damaged: dict[str, str] = {}
    found: dict[Path, list[PendingPair]] = {}
    for run in runs:
        try:
            found[run.path] = pending(run, stores, damaged)
        except (UserError, WorkFailed) as error:
            found[run.path] = []
            told.append(f"{run.path}: cannot be evaluated: {error}")
    told += damaged.values()
    return found


def _look(
    book: Book, runs: Sequence[Run], outcome: Outcome
) -> tuple[dict[Path, list[PendingPair]], set[Work]]:
    """What is not scored, by run, and what of it a job has; clears up after jobs that are gone.

    Jobs are asked about before results are looked at, so that what a job left unscored is known to be so.
    """
    arrays = [_with_ids(array) for array in book.arrays()]
    held = {run.path: claims(run) for run in runs}
    jobs = {job for of_run in held.values() for job in of_run.values()}
    jobs |= {Job(id, array.host) for array in arrays for id in array.ids}
    over = ended(jobs)
    lacking = lacking_pairs(runs, outcome.told)
    at_work: set[Work] = set()
    for run in runs:
        for pair, job in held[run.path].items():
            if job not in over:
                at_work.add(Work(run.path, pair))
                continue
            if pair in lacking[run.path] and over[job] not in BLAMELESS:
                _blame(book, run, pair, job, f"{over[job]} while it was scored")
            release(run, pair, job.id)
    for array in arrays:
        at_work |= _account(book, array, over)
    return lacking, at_work


def _with_ids(array: Array) -> Array:
    """The evaluator may have died before it wrote them down: Slurm knows the array by its name."""
    if array.ids or array.executor == "local":
        return array
    found = slurm.array_named(array.name)
    return replace(array, ids=[f"{found}_{i}" for i in range(len(array.tasks))] if found else [])


def _account(book: Book, array: Array, over: Mapping[Job, str]) -> set[Work]:
    """What of an array is still to come; tasks that ended before they began are noted, an array then over
    is forgotten."""
    jobs = [Job(id, array.host) for id in array.ids]
    if not jobs and time.time() - array.written < SUBMITTING_S:
        return {work for task in array.tasks for work in task}
    left: set[Work] = set()
    for index, job in enumerate(jobs):
        if job not in over:
            left |= set(array.tasks[index])
        elif not book.task_events(array.task_name(index)) and over[job] not in BLAMELESS - {"COMPLETED"}:
            for work in array.tasks[index]:
                _blame(book, Run(work.run), work.pair, job, f"{over[job]} before it was begun on")
    if not left:
        _keep_rates(book, array)
        book.remove_array(array)
    return left


def _blame(book: Book, run: Run, pair: PendingPair, job: Job, how: str) -> None:
    note_failure(run, pair, job.id, f"{pair}: job {job.id} ended, {how}; see {book.logs}/{job.id}-rank-0.out")


def _keep_rates(book: Book, array: Array) -> None:
    rates: dict[str, Any] = book.read("rates")
    events = [e for i in range(len(array.tasks)) for e in book.task_events(array.task_name(i))]
    for event in events:
        if event.get("scored"):
            rates[event["run"]] = event["seconds"] / event["scored"]
    book.write("rates", rates)


def _todo(lacking: Mapping[Path, Sequence[PendingPair]], at_work: set[Work], outcome: Outcome) -> list[Work]:
    """What nobody is at, validation first: `best` is chosen by it."""
    found: list[Work] = []
    for path, pairs in lacking.items():
        abandoned = given_up(Run(path))
        failed = [pair for pair in pairs if pair in abandoned]
        outcome.failed += len(failed)
        outcome.told += [f"{path}: given up: {abandoned[pair]}" for pair in failed]
        wanted = [Work(path, pair) for pair in pairs if pair not in abandoned]
        outcome.to_score += len(wanted)
        outcome.at_work += sum(work in at_work for work in wanted)
        found += [work for work in wanted if work not in at_work]
    return sorted(found, key=lambda work: work.pair.split != "val")


def _submit(book: Book, profile: Profile, todo: Sequence[Work], live: set[Path], outcome: Outcome) -> None:
    rates = book.read("rates")
    usual = statistics.median(rates.values()) if rates else UNKNOWN_S

    def seconds_of(work: Work) -> float:
        return float(rates.get(str(work.run), usual)) * work.pair.patients

    wanted = profile.evaluator
    if live and estimate_min(todo, seconds_of) < wanted.task_min and _age_min(todo) < wanted.task_min:
        outcome.told.append(f"less than {wanted.task_min} min to do, waiting for more")
        return
    codes = {path: code_digest(code_of(path)) for path in {work.run for work in todo}}
    tasks = pack(
        todo,
        seconds_of,
        lambda work: codes[work.run],
        task_min=wanted.task_min,
        limit_min=wanted.time_limit_min,
        max_tasks=_room(profile, outcome),
    )
    while tasks:
        try:
            outcome.submitted = _submit_tasks(book, profile, tasks)
            return
        except UserError as refused:
            # A limit that Slurm does not tell beforehand: fewer now, the others in a later round.
            if len(tasks) == 1:
                outcome.told.append(f"nothing submitted: {refused}")
            tasks = tasks[: len(tasks) // 2]


def _submit_tasks(book: Book, profile: Profile, tasks: Sequence[Sequence[Work]]) -> list[str]:
    """One array; what it is to do is written down before Slurm has it, its ids once Slurm said them."""
    name = f"xr2ct-score-{uuid.uuid4().hex[:12]}"
    folder = book.root / ".submissions" / name
    array = Array(name, tasks, (), socket.gethostname(), folder, profile.executor)
    calls = [
        Call(
            score_task,
            (str(book.root), array.task_name(index), [plain_of(work) for work in task]),
            book.logs,
            code_of(task[0].run),
        )
        for index, task in enumerate(tasks)
    ]
    book.write_array(array)
    try:
        ids = submit_array(profile, scoring_request(profile, name), calls, array.submission)
    except (UserError, WorkFailed):
        book.remove_array(array)
        raise
    book.write_array(replace(array, ids=ids))
    return ids


def scoring_request(profile: Profile, name: str) -> Request:
    """One rank on its own; not requeued by the host script, since a later round takes up what is left."""
    wanted = profile.evaluator
    gpus = min(1, profile.gpus_per_node) if wanted.gpus_per_node is None else wanted.gpus_per_node
    share = profile.mem_gb / profile.tasks_per_node if profile.mem_gb else None
    return Request(
        name=name,
        nodes=1,
        tasks_per_node=1,
        gpus_per_node=gpus,
        cpus_per_task=wanted.cpus_per_task or profile.cpus_per_task,
        mem_gb=wanted.mem_gb or share,
        minutes=wanted.time_limit_min,
        requeue=False,
        overrides={"partition": wanted.partition} if wanted.partition else {},
    )


def _room(profile: Profile, outcome: Outcome) -> int:
    """Tasks that the site takes in one array now."""
    if profile.executor == "local":
        return 1000
    room = min(slurm.max_array_size(), slurm.submission_room(profile.account, profile.qos))
    if room < 1:
        outcome.told.append("nothing submitted: the site takes no more jobs of this user for now")
    return room


def _age_min(todo: Sequence[Work]) -> float:
    """Of the oldest checkpoint that is to be scored; of the run's first where it is a row without one."""
    oldest = time.time()
    for work in todo:
        run = Run(work.run)
        step = work.pair.step if work.pair.step is not None else min(run.steps(), default=0)
        with suppress(FileNotFoundError):  # removed meanwhile
            oldest = min(oldest, (run.checkpoint(step) / "COMPLETE").stat().st_mtime)
    return (time.time() - oldest) / 60


def code_of(run: Path) -> Path | None:
    """The run's frozen code; None for one that was trained by hand."""
    code = code_folder(run)
    return code if (code / "launch").is_dir() else None


def code_digest(code: Path | None) -> str:
    """The same for copies of the same code, however many runs have one."""
    if code is None:
        return ""
    found = hashlib.sha256()
    for file in sorted(p for part in ("xr2ct", "launch") for p in (code / part).rglob("*.py")):
        found.update(f"{file.relative_to(code)}\0".encode() + file.read_bytes())
    return found.hexdigest()
