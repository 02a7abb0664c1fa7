"""Mutants in processes of their own with a time limit, so that a crash or a hang is counted and not fatal."""

from __future__ import annotations

import multiprocessing
import signal
import tempfile
import time
from collections.abc import Iterable, Iterator
from multiprocessing import connection
from tempfile import TemporaryDirectory

from mutants import Mutant, Verdict, run

LIMIT_S = 20.0


def run_all(
    mutants: Iterable[Mutant], workers: int, limit_s: float = LIMIT_S
) -> Iterator[tuple[Mutant, Verdict]]:
    """Each mutant with its verdict, as they end."""
    with TemporaryDirectory(prefix="xr2ct-fuzz-") as root:
        yield from _run_all(iter(mutants), workers, limit_s, root)


def _run_all(
    rest: Iterator[Mutant], workers: int, limit_s: float, root: str
) -> Iterator[tuple[Mutant, Verdict]]:
    busy: dict[connection.Connection, _Worker] = {}
    for _ in range(workers):
        worker = _Worker(root)
        if worker.give(next(rest, None), limit_s):
            busy[worker.pipe] = worker
    while busy:
        first = min(worker.deadline for worker in busy.values())
        ready = set(connection.wait(list(busy), max(0.0, first - time.monotonic())))
        for pipe, worker in list(busy.items()):
            if pipe not in ready and time.monotonic() < worker.deadline:
                continue
            del busy[pipe]
            mutant, verdict = worker.mutant, worker.verdict(limit_s if pipe not in ready else None)
            if not worker.process.is_alive():
                worker = _Worker(root)
            if worker.give(next(rest, None), limit_s):
                busy[worker.pipe] = worker
            yield mutant, verdict


class _Worker:
    mutant: Mutant
    deadline: float

    def __init__(self, root: str) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, far = context.Pipe()
        self.process = context.Process(target=_serve, args=(far, root), daemon=True)
        self.process.start()
        far.close()

    def give(self, mutant: Mutant | None, limit_s: float) -> bool:
        """Hand over a mutant; without one the process ends."""
        if mutant is None:
            self.pipe.close()
            return False
        # The first one waits for the imports.
        fresh = 0.0 if hasattr(self, "mutant") else 30.0
        self.mutant, self.deadline = mutant, time.monotonic() + limit_s + fresh
        self.pipe.send(mutant)
        return True

    def verdict(self, over: float | None) -> Verdict:
        """What came of it, also where that is the end of the process."""
        if over is not None:
            self.process.kill()
            self.process.join()
            return Verdict(self.mutant.mutation, "VIOLATION", f"hangs: more than {over:g} s", over, 0)
        try:
            found: Verdict = self.pipe.recv()
        except (EOFError, ConnectionResetError):
            self.process.join()
            code = self.process.exitcode or 0
            how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            return Verdict(self.mutant.mutation, "VIOLATION", f"crash: {how}", 0.0, 0)
        return found


def _serve(pipe: connection.Connection, root: str) -> None:
    tempfile.tempdir = root  # so that nothing is left of those that are killed
    while True:
        try:
            pipe.send(run(pipe.recv()))
        except EOFError:
            return
