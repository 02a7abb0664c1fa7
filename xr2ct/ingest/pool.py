"""Tasks in processes of their own, none of which outlives the command, and none of which ends it by dying."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import signal
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from multiprocessing import connection
from multiprocessing.context import ForkServerContext
from pathlib import Path

from tqdm import tqdm

from xr2ct.cohorts import processes
from xr2ct.errors import WorkFailed
from xr2ct.ingest.task import Outcome, Task

log = logging.getLogger(__name__)

TIME_LIMIT_S = 1800.0
"""Of a case: hundreds of times what one takes from a slow network disk."""

_CONTINUES = "what is finished is kept, and the same command continues"


def work(task: Task) -> Outcome:
    """`case.work` in a worker."""
    from xr2ct.ingest import case  # here and below torch: the parent need not wait for it

    return case.work(task)


def run_tasks(
    tasks: Sequence[Task],
    workers: int | None,
    limit_s: float = TIME_LIMIT_S,
    do: Callable[[Task], Outcome] = work,
    begun: Callable[[Task], None] = lambda task: None,
    retry: bool = True,
) -> Iterator[tuple[Task, Outcome]]:
    """Each task once it has ended, and how.

    `workers` is the number of processes, one a core where None. A case fails where its worker dies (for want
    of memory, or by a fault in a reader's native code), where the operating system cannot read its files, and
    where it takes longer than `limit_s`: it is done again after all others and alone, and refused where it
    fails twice. Without `retry` a first failure is an outcome like others. `begun` is called before each
    attempt. Raises `WorkFailed` where a worker could not write.
    """
    if not tasks:
        return
    again = [task for task in tasks if task.tried]
    fresh = [task for task in tasks if not task.tried]
    count = min(workers or processes.cores(), len(tasks))
    with tqdm(total=len(tasks), unit="case", disable=None) as bar:
        for task, outcome in _through(fresh, count, limit_s, do, begun):
            if outcome.failed and retry:
                log.warning("%s: %s; done again at the end", task.row.case, outcome.reason)
                again.append(task)
                continue
            bar.update()
            yield task, outcome
        for task, outcome in _through(again, 1, limit_s, do, begun):
            bar.update()
            if outcome.failed:
                outcome = replace(outcome, reason=f"{outcome.reason}, twice", failed=False)
            yield task, outcome


def _through(
    tasks: Sequence[Task],
    count: int,
    limit_s: float,
    do: Callable[[Task], Outcome],
    begun: Callable[[Task], None],
) -> Iterator[tuple[Task, Outcome]]:
    """Tasks as they end, one attempt each."""
    if not tasks:
        return
    # Forked from a clean server: a fork of this process, in which torch or zarr may have threads, can hang,
    # and spawned workers would each import torch for themselves.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["xr2ct.ingest.case"])
    waiting = deque(tasks)
    idle: list[_Worker] = []
    busy: dict[connection.Connection, _Worker] = {}
    try:
        while waiting or busy:
            while waiting and len(busy) < count:
                worker = idle.pop() if idle else _Worker(context, do)
                begun(waiting[0])
                worker.start(waiting.popleft(), limit_s)
                busy[worker.pipe] = worker
            first = min(worker.deadline for worker in busy.values())
            ready = set(connection.wait(list(busy), max(0.0, first - time.monotonic())))
            for pipe, worker in list(busy.items()):
                if pipe not in ready and time.monotonic() < worker.deadline:
                    continue
                del busy[pipe]
                ended = worker.answer() if pipe in ready else worker.stop(limit_s)
                if worker.alive:
                    idle.append(worker)
                yield worker.task, ended
    finally:
        for worker in idle:
            worker.dismiss()
        for worker in busy.values():  # stopped early: a case that is not whole is done again
            worker.kill()


class _Worker:
    """A process with one task at a time, so that whichever task it dies of is known."""

    task: Task
    deadline: float
    """When the task is to be over, by the monotonic clock."""

    def __init__(self, context: ForkServerContext, do: Callable[[Task], Outcome]) -> None:
        self.pipe, far = context.Pipe()
        self.alive = True
        self._ready = False
        self._process = context.Process(target=_serve, args=(far, do), daemon=True)
        self._process.start()
        far.close()  # held by the process alone, so that its end is the pipe's end

    def start(self, task: Task, limit_s: float) -> None:
        """Hand over a task, once the process has begun: what it imports first is not the case's time."""
        if not self._ready:
            with contextlib.suppress(EOFError, ConnectionResetError):  # dead already, which `answer` will say
                self._ready = self.pipe.recv()
        self.task, self.deadline = task, time.monotonic() + limit_s
        try:
            self.pipe.send(task)
        except BrokenPipeError:
            log.debug("a worker died between two tasks")  # which `answer` will say

    def answer(self) -> Outcome:
        """What came of the task once the pipe has something; raises what the task raised."""
        try:
            answer = self.pipe.recv()
        except (EOFError, ConnectionResetError):
            self._process.join()
            self.alive = False
            return Outcome(_death(self._process.exitcode or 0), failed=True)
        if isinstance(answer, OSError):
            raise WorkFailed(f"{answer}; {_CONTINUES}") from answer
        return answer

    def stop(self, limit_s: float) -> Outcome:
        """Kill the process in the midst of a task that takes too long."""
        self.kill()
        return Outcome(f"took longer than {limit_s / 60:g} minutes", failed=True)

    def kill(self) -> None:
        self._process.kill()
        self._process.join()
        self.alive = False

    def dismiss(self) -> None:
        """Let an idle process end."""
        self.pipe.close()
        self._process.join()


def _serve(pipe: connection.Connection, do: Callable[[Task], Outcome]) -> None:
    """The life of a worker: tasks until the pipe ends."""
    start_worker()
    pipe.send(True)
    while True:
        try:
            task = pipe.recv()
        except EOFError:
            return
        try:
            answer: Outcome | OSError = do(task)
        except OSError as error:  # the store's disk: no other case could be written either
            answer = error
        except Exception as error:
            # A thousand other cases must not wait for somebody to mend this program for one of them.
            answer = Outcome(_fault(error))
        try:
            pipe.send(answer)
        except BrokenPipeError:
            return


def start_worker() -> None:
    """One thread a worker, for the same bits whatever the machine, and no life after the parent's."""
    import torch

    torch.set_num_threads(1)
    for warning in (signal.SIGUSR1, signal.SIGUSR2):  # a cluster's, to every process; the parent decides
        signal.signal(warning, signal.SIG_IGN)
    processes.start_worker()


def _fault(error: Exception) -> str:
    """What failed and where; not the error's text, which may quote a header."""
    log.debug("in a worker", exc_info=error)
    place = traceback.extract_tb(error.__traceback__)[-1]
    name = f"{Path(place.filename).stem}.{place.name}, line {place.lineno}"
    return f"a fault of this program: {type(error).__name__} in {name}"


def _death(code: int) -> str:
    """An exit code in words; a negative one is a signal's."""
    if code == -signal.SIGKILL:
        return "its worker was killed, perhaps for want of memory (fewer --workers need less)"
    how = signal.Signals(-code).name if -code in set(signal.Signals) else f"exit code {code}"
    return f"the reader crashed ({how})"
