"""Tasks in processes of their own, none of which outlives the command."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import connection

from tqdm import tqdm

from xr2ct.errors import WorkFailed
from xr2ct.ingest.prepare import Task

log = logging.getLogger(__name__)


def run_tasks(tasks: Sequence[Task], workers: int | None) -> Iterator[tuple[Task, str | None]]:
    """Each task once it has ended, with the reason where its case was refused.

    `workers` is the number of processes, one a core where None. Raises `WorkFailed` where one was killed or
    could not write.
    """
    if not tasks:
        return
    count = min(workers or len(os.sched_getaffinity(0)), len(tasks))
    # Forked from a clean server: a fork of this process, in which torch or zarr may have threads, can hang,
    # and spawned workers would each import torch for themselves.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["xr2ct.ingest.case"])
    pool = ProcessPoolExecutor(count, context, start_worker)
    continues = "what is finished is kept, and the same command continues"
    try:
        futures = {pool.submit(work, task): task for task in tasks}
        for future in tqdm(as_completed(futures), total=len(futures), unit="case", disable=None):
            yield futures[future], future.result()
    except BrokenProcessPool:
        raise WorkFailed(
            f"a worker was killed, perhaps for want of memory (fewer --workers need less); {continues}"
        ) from None
    except OSError as error:
        raise WorkFailed(f"{error}; {continues}") from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def start_worker() -> None:
    """One thread a worker, for the same bits whatever the machine; interrupted by the parent's end alone."""
    import torch  # here and below: the parent need not wait for it

    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_follow_parent, daemon=True).start()


def work(task: Task) -> str | None:
    """`case.work` in a worker."""
    from xr2ct.ingest import case

    return case.work(task)


def _follow_parent() -> None:
    """Leave as soon as the parent is gone, however it went: the next command owns these rows."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os._exit(1)
