"""Workers that die, hang or fail: the culprit is refused, and the others go on."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest

from xr2ct.cohorts.pseudonyms import names_for
from xr2ct.errors import WorkFailed
from xr2ct.ingest.plan import Row
from xr2ct.ingest.pool import run_tasks
from xr2ct.ingest.task import Outcome, Task


def _tasks(folder: Path, fates: list[str]) -> list[Task]:
    """What is to happen stands in the row's series, and in `store` what has happened is noted."""
    names = names_for("lidc-idri")
    rows = [Row(f"case-{n}", f"p-{n}", "study", fate, "test") for n, fate in enumerate(fates)]
    return [Task(folder, n, row, None, names, 320.0) for n, row in enumerate(rows)]


def meet_fate(task: Task) -> Outcome:
    fate = task.row.series
    (task.store / f"{task.row.case}.{time.monotonic_ns()}").touch()
    if fate == "sleeps":
        time.sleep(600)
    if fate == "full disk":
        raise OSError(28, "No space left on device")
    if fate.startswith("away"):
        name, _, once = fate.partition(" ")
        if not once or _tries(task.store, task.row.case) == 1:
            return Outcome("cannot be read (Input/output error)", failed=True)
    if fate == "fault":
        raise ZeroDivisionError("a fault of ours")
    if fate.startswith("SIG"):
        name, _, once = fate.partition(" ")
        if not once or len(list(task.store.glob(f"{task.row.case}.*"))) == 1:
            os.kill(os.getpid(), signal.Signals[name])
    return Outcome("too few slices" if fate == "refused" else "")


def _tries(folder: Path, case: str) -> int:
    return len(list(folder.glob(f"{case}.*")))


@pytest.mark.parametrize("workers", [1, 2])
def test_the_culprits_are_refused_and_the_others_go_on(tmp_path, workers):
    fates = [
        "",
        "SIGSEGV",
        "refused",
        "away",
        "SIGKILL",
        "SIGKILL once",
        "sleeps",
        "",
        "SIGABRT",
        "away once",
    ]
    tasks = _tasks(tmp_path, fates)
    ended = {t.index: o.reason for t, o in run_tasks(tasks, workers, limit_s=4.0, do=meet_fate)}
    assert ended == {
        **dict.fromkeys([0, 5, 7, 9], ""),
        1: "the reader crashed (SIGSEGV), twice",
        2: "too few slices",
        3: "cannot be read (Input/output error), twice",
        4: "its worker was killed, perhaps for want of memory (fewer --workers need less), twice",
        6: "took longer than 0.0666667 minutes, twice",
        8: "the reader crashed (SIGABRT), twice",
    }
    assert [_tries(tmp_path, f"case-{n}") for n in range(10)] == [1, 2, 1, 2, 2, 2, 2, 1, 2, 2]


def test_without_a_retry_failures_are_told_and_an_earlier_one_counts(tmp_path):
    once, before, fit = _tasks(tmp_path, ["SIGKILL", "SIGKILL", ""])
    begun: list[int] = []
    results = run_tasks(
        [once, replace(before, tried=True), fit],
        2,
        do=meet_fate,
        begun=lambda task: begun.append(task.index),
        retry=False,
    )
    ended = {task.index: outcome for task, outcome in results}
    assert ended[0].failed and not ended[0].reason.endswith("twice")
    assert not ended[1].failed and ended[1].reason.endswith("twice")
    assert ended[2] == Outcome("")
    assert sorted(begun[:2]) == [0, 2] and begun[2:] == [1], "a case that failed before is done last, alone"


def test_a_disk_that_is_full_ends_the_work(tmp_path):
    with pytest.raises(WorkFailed, match=r"No space left on device; what is finished is kept"):
        list(run_tasks(_tasks(tmp_path, ["", "full disk"]), 1, do=meet_fate))


def test_a_fault_of_the_programs_own_is_named_without_its_text_and_the_others_go_on(tmp_path):
    ended = {task.row.case: out for task, out in run_tasks(_tasks(tmp_path, ["fault", ""]), 1, do=meet_fate)}
    told = ended["case-0"].reason
    assert told.startswith("a fault of this program: ZeroDivisionError in test_pool.meet_fate, line ")
    assert "of ours" not in told and ended["case-1"].reason == ""


def test_no_worker_is_left_when_the_caller_stops_early(tmp_path):
    ended = run_tasks(_tasks(tmp_path, [""] * 6), 2, do=meet_fate)
    next(ended)
    ended.close()
    tried = len(list(tmp_path.iterdir()))
    time.sleep(0.3)
    assert len(list(tmp_path.iterdir())) == tried < 6
