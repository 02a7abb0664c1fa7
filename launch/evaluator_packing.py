"""Pairs into tasks: long enough to be worth a job, short enough for its limit, a checkpoint in one."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

from launch.evaluator_book import Work

START_MIN = 1.0
"""What a task costs before its first pair: imports, a model."""
LIMIT_SHARE = 0.8
"""How much of a job's time limit a task may be estimated at."""
UNKNOWN_S = 2.0
"""Seconds a patient and checkpoint before any was measured."""


@dataclass(frozen=True)
class _Group:
    """What needs the same model, or a part of it that fits the limit."""

    code: Hashable
    work: Sequence[Work]
    minutes: float


def pack(
    work: Sequence[Work],
    seconds_of: Callable[[Work], float],
    code_of: Callable[[Work], Hashable],
    *,
    task_min: float,
    limit_min: float,
    max_tasks: int,
) -> list[list[Work]]:
    """Tasks of at least `task_min` minutes by estimate, where there is so much to do, in the order of `work`.

    A task runs one version of the code and stays below its limit, unless one pair alone is above it. What
    does not fit into `max_tasks` is left out, for a later round.
    """
    if not work or max_tasks < 1:
        return []
    most = limit_min * LIMIT_SHARE - START_MIN
    groups = [
        group
        for code, members in _by_model(work, code_of)
        for group in _split(code, members, seconds_of, most)
    ]
    total = sum(group.minutes for group in groups)
    # Fewer tasks than there would be room for are longer ones.
    target = min(max(task_min, total / max_tasks), most)
    tasks: list[list[_Group]] = []
    for group in groups:
        if tasks and _fits(tasks[-1], group, target, most):
            tasks[-1].append(group)
        else:
            tasks.append([group])
    tasks = _join_short(tasks, task_min, most)
    return [[one for group in task for one in group.work] for task in tasks[:max_tasks]]


def estimate_min(work: Sequence[Work], seconds_of: Callable[[Work], float]) -> float:
    """Minutes of work, without what each task costs."""
    return math.fsum(seconds_of(one) for one in work) / 60


def _by_model(work: Sequence[Work], code_of: Callable[[Work], Hashable]) -> list[tuple[Hashable, list[Work]]]:
    """Groups in the order in which they first come, those of one version of the code next to each other."""
    groups: dict[Hashable, tuple[Hashable, list[Work]]] = {}
    for one in work:
        code = code_of(one)
        # The rows without a checkpoint share what they read of the training cases.
        source = one.pair.source if one.pair.step is not None else None
        groups.setdefault((code, one.run, source), (code, []))[1].append(one)
    codes = list(dict.fromkeys(code for code, _ in groups.values()))
    return sorted(groups.values(), key=lambda group: codes.index(group[0]))


def _split(
    code: Hashable, work: Sequence[Work], seconds_of: Callable[[Work], float], most: float
) -> list[_Group]:
    parts: list[list[Work]] = [[]]
    minutes = 0.0
    for one in work:
        cost = seconds_of(one) / 60
        if parts[-1] and minutes + cost > most:
            parts.append([])
            minutes = 0.0
        parts[-1].append(one)
        minutes += cost
    return [_Group(code, part, estimate_min(part, seconds_of)) for part in parts]


def _minutes(task: Sequence[_Group]) -> float:
    return math.fsum(group.minutes for group in task)


def _fits(task: Sequence[_Group], group: _Group, target: float, most: float) -> bool:
    """Whether a task that is not long enough yet may take the group too."""
    same_code = task[0].code == group.code
    return same_code and _minutes(task) < target and _minutes(task) + group.minutes <= most


def _join_short(tasks: list[list[_Group]], task_min: float, most: float) -> list[list[_Group]]:
    """The last of each version of the code, if it is short, goes to the one before it where that has room."""
    joined: list[list[_Group]] = []
    for task in tasks:
        before = joined[-1] if joined else None
        same_code = before is not None and before[0].code == task[0].code
        if before and same_code and _minutes(task) < task_min and _minutes([*before, *task]) <= most:
            before += task
        else:
            joined.append(task)
    return joined
