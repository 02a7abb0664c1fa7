"""Work spread over processes, none of which outlives the command."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from multiprocessing import connection
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

AHEAD = 4
"""Items handed out for each process: enough that none waits, few enough that none piles up."""


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


def spread(work: Callable[[T], R], items: Iterable[T], workers: int) -> Iterator[tuple[T, R | None]]:
    """Each item with what `work` made of it, as they end; None where its process died of it twice.

    `items` is drawn from as the work goes on. `work` is a function of a module that is quickly imported.
    """
    # Spawned: a fork of this process, in which other libraries have threads, can hang, and there is but one
    # forkserver, whose preloaded modules are the ingest's.
    context = multiprocessing.get_context("spawn")
    rest = iter(items)
    while True:
        unfinished: list[T] = []
        with ProcessPoolExecutor(workers, context, start_worker) as pool:
            try:
                yield from _through(pool, work, rest, workers * AHEAD, unfinished)
            except BrokenProcessPool:
                pass
            except BaseException:
                pool.shutdown(wait=True, cancel_futures=True)
                raise
        if not unfinished:
            return
        yield from _one_by_one(work, unfinished, context)


def _through(
    pool: ProcessPoolExecutor, work: Callable[[T], R], rest: Iterator[T], ahead: int, unfinished: list[T]
) -> Iterator[tuple[T, R]]:
    """Results as they come; where the pool breaks, `unfinished` holds what was handed out and not done."""
    flying: dict[Future[R], T] = {}
    try:
        while True:
            for item in islice(rest, ahead - len(flying)):
                unfinished.append(item)
                flying[pool.submit(work, item)] = item
            if not flying:
                return
            for future in wait(flying, return_when=FIRST_COMPLETED).done:
                result = future.result()
                item = flying.pop(future)
                unfinished.remove(item)
                yield item, result
    finally:
        for future in flying:
            future.cancel()


def _one_by_one(
    work: Callable[[T], R], items: Iterable[T], context: multiprocessing.context.SpawnContext
) -> Iterator[tuple[T, R | None]]:
    """Each item with nothing beside it; None where its process dies."""
    rest = iter(items)
    ended = False
    while not ended:
        with ProcessPoolExecutor(1, context, start_worker) as pool:
            for item in rest:
                try:
                    yield item, pool.submit(work, item).result()
                except BrokenProcessPool:
                    yield item, None
                    break
            else:
                ended = True


def start_worker() -> None:
    """Interrupted by the parent's end alone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_follow_parent, daemon=True).start()


def _follow_parent() -> None:
    """Leave as soon as the parent is gone, however it went: the next command does this work."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)
