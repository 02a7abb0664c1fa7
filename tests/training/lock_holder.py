"""A process that has taken a run's next number and lives."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess

from xr2ct.run import Run
from xr2ct.training import fence


@contextmanager
def start_holder(run: Run, environment: Mapping[str, str]) -> Iterator[SpawnProcess]:
    """The process, once it holds the run."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_hold, args=(run, dict(environment), there))
    process.start()
    assert here.recv() == "held"
    try:
        yield process
    finally:
        process.kill()
        process.join()


def _hold(run: Run, environment: dict[str, str], told: Connection) -> None:
    os.environ.update(environment)
    with fence.held(run):
        told.send("held")
        time.sleep(600)
