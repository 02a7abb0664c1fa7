"""Tasks long enough, short enough, a checkpoint in one of them, one version of the code in each."""

from __future__ import annotations

from pathlib import Path

import pytest

from launch.evaluator_book import Work
from launch.evaluator_packing import LIMIT_SHARE, START_MIN, pack
from xr2ct.evaluation.pending import PendingPair

COHORTS = [("lidc-idri", "val"), ("lidc-idri", "test"), ("lctsc", "test"), ("anti-pd-1", "test")]


def work(runs: int, steps: int) -> list[Work]:
    """Every checkpoint of every run on four splits, validation first."""
    found = [
        Work(Path(f"/runs/{run}"), PendingPair(f"step-{step:06d}", *split, patients=10))
        for run in range(runs)
        for step in range(steps)
        for split in COHORTS
    ]
    return sorted(found, key=lambda one: one.pair.split != "val")


def packed(
    todo: list[Work], minutes: float, *, limit: float = 120, most: int = 1000, codes: int = 1
) -> list[list[Work]]:
    """Where each pair takes so many minutes."""
    return pack(
        todo,
        lambda one: minutes * 60,
        lambda one: int(one.run.name) % codes,
        task_min=15,
        limit_min=limit,
        max_tasks=most,
    )


def models(task: list[Work]) -> set[tuple[Path, str]]:
    return {(one.run, one.pair.source) for one in task}


@pytest.mark.parametrize("minutes", [0.1, 1, 3, 5, 20])
@pytest.mark.parametrize("runs", [1, 4])
def test_everything_once_in_tasks_of_a_quarter_of_an_hour(minutes: float, runs: int) -> None:
    todo = work(runs, steps=6)
    tasks = packed(todo, minutes)
    assert {one for task in tasks for one in task} == set(todo)
    assert sum(map(len, tasks)) == len(todo)
    assert all(len(task) * minutes >= 15 for task in tasks) or len(tasks) == 1
    assert all(len(task) * minutes + START_MIN <= 120 * LIMIT_SHARE for task in tasks)
    seen = [model for task in tasks for model in models(task)]
    assert len(seen) == len(set(seen)), "a model is loaded in one task alone"


def test_a_model_whose_pairs_exceed_the_limit_is_split() -> None:
    tasks = packed(work(1, steps=1), 20, limit=60)
    assert [len(task) for task in tasks] == [2, 2]
    assert [len(task) for task in packed(work(1, steps=1), 100, limit=60)] == [1, 1, 1, 1]


def test_rows_without_a_checkpoint_go_together() -> None:
    todo = [
        Work(Path("/runs/0"), PendingPair(source, *split, patients=10))
        for split in COHORTS
        for source in ("truth", "prior-mean", "prior-nearest")
    ]
    assert len(packed(todo, 2)) == 1


def test_fewer_longer_tasks_where_the_site_takes_no_more() -> None:
    todo = work(4, steps=6)
    tasks = packed(todo, 5, most=8)
    assert len(tasks) == 8
    assert {one for task in tasks for one in task} == set(todo)
    few = packed(todo, 5, most=2)
    assert len(few) == 2, "the rest is a later round's"
    assert all(len(task) * 5 + START_MIN <= 120 * LIMIT_SHARE for task in few)
    assert packed(todo, 5, most=0) == [] == packed([], 5)


def test_versions_of_the_code_are_kept_apart() -> None:
    tasks = packed(work(4, steps=6), 1, codes=2)
    assert all(len({int(one.run.name) % 2 for one in task}) == 1 for task in tasks)
    assert len(tasks) > 1


def test_validation_comes_first() -> None:
    tasks = packed(work(1, steps=2), 0.1)
    assert tasks[0][0].pair.split == "val"
