"""Tasks for what is missing of a store, worked through until every scan is in its row or refused."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path

from xr2ct.cohorts.catalogue import cohort as catalogue_entry
from xr2ct.cohorts.plan import CohortPlan
from xr2ct.cohorts.pseudonyms import Names
from xr2ct.cohorts.refused import Refusal
from xr2ct.cohorts.series import Source
from xr2ct.errors import UserError
from xr2ct.ingest.pictures import assign_pictures
from xr2ct.ingest.plan import Plan, row_key
from xr2ct.ingest.pool import run_tasks
from xr2ct.ingest.prepare import Wanted, Wish, sources_by_key
from xr2ct.ingest.repair import Damaged
from xr2ct.ingest.report import Renaming, Truncation
from xr2ct.ingest.task import Outcome, Task
from xr2ct.store import layout, write

log = logging.getLogger(__name__)


@dataclass
class Job:
    """One call of `ingest`, once it knows what it has to do."""

    store: Path
    names: Names
    found: CohortPlan
    renaming: Renaming
    workers: int | None
    repair: bool
    damaged: Damaged
    """Chunks to be written again; empty unless `repair`."""
    refused: list[Refusal] = field(default_factory=list)
    worked: set[str] = field(default_factory=set)
    """Cases that were written."""
    costs: list[tuple[float, int]] = field(default_factory=list)
    """Seconds and bytes of each."""
    begun: Callable[[Task], None] = lambda task: None
    """Told of every scan that is begun."""
    ended: Callable[[Task, Outcome], None] = lambda task, outcome: None
    """Told how it ended."""

    def missing(self, plan: Plan, case: str) -> set[str]:
        """Arrays of the plan that a case has no whole chunk of."""
        held = set(write.read_case(self.store, case).get("checksums", {}))
        return set(plan.arrays) - (held - set(self.damaged.get(case, ())) - stale_arrays(self.store, plan))


def stale_arrays(store: Path, plan: Plan) -> set[str]:
    """X-rays that the plan wants with more views than their array was laid out for."""
    return {
        array
        for xray in plan.xrays
        if (store / (array := layout.xray_array(xray.geometry.name)) / "zarr.json").is_file()
        and layout.xray_set(store, xray.geometry.name).angles != xray.angles
    }


def scan_tasks(job: Job, wish: Wish) -> list[Task]:
    """What is left to do of the scans, a task a row.

    Raises `UserError` where a finished case would need a source that is not here; a repair goes on without.
    """
    wanted = {w.index: w for w in wish.wanted}
    by_key = sources_by_key(job.found, job.names)
    tasks, orphans = [], []
    for index, row in enumerate(wish.plan.rows):
        missing = job.missing(wish.plan, row.case)
        if not missing:
            continue
        source = wanted[index].source if index in wanted else None
        filled = layout.case_file(job.store, row.case).is_file()
        if source is None and filled:
            source = by_key.get(row.key)
        if source is not None:
            tasks.append(_task(job, wish.plan, index, source, missing))
        elif filled:
            orphans.append(f"{row.case} ({', '.join(sorted(missing))})")
    if orphans and not job.repair:
        raise UserError(
            f"{job.store}: {len(orphans)} of its cases need their source for what is to be added, and it is "
            f"not here: {', '.join(orphans[:3])}{' …' if len(orphans) > 3 else ''}"
        )
    return tasks


def fill_scans(job: Job, wish: Wish, tasks: Sequence[Task], ended: Mapping[int, Outcome]) -> None:
    """Work through the tasks; where a series is refused the patient's next one takes the row.

    `ended` are the outcomes, by row, of tasks that were done elsewhere.
    """
    wanted = {w.index: w for w in wish.wanted}
    elsewhere = [(task, ended[task.index]) for task in tasks if task.index in ended]
    tasks = [task for task in tasks if task.index not in ended]
    while tasks or elsewhere:
        again = []
        for task, outcome in chain(elsewhere, _run(job, tasks)):
            if outcome.reason:
                again += _refused(job, wish, task, outcome, wanted.get(task.index))
                continue
            _kept(job, task, outcome)
            if outcome.changed:
                log.warning(
                    "%s: written again, its %s came out other than before: its source changed, or what "
                    "computes it; all its arrays are of now",
                    task.row.case,
                    ", ".join(outcome.changed),
                )
        tasks, elsewhere = again, []


def _run(job: Job, tasks: Sequence[Task]) -> Iterator[tuple[Task, Outcome]]:
    for task, outcome in run_tasks(tasks, job.workers, begun=job.begun):
        job.ended(task, outcome)
        yield task, outcome


def fill_pictures(job: Job, plan: Plan) -> list[Refusal]:
    """Radiographs to the cases that are in the store; the series of those patients who have none."""
    by_key = sources_by_key(job.found, job.names)
    scans: dict[str, dict[str, Source | None]] = {}
    index_of = {}
    for index, row in enumerate(plan.rows):
        if layout.case_file(job.store, row.case).is_file():
            scans.setdefault(row.patient, {})[row.case] = by_key.get(row.key)
            index_of[row.case] = index
    todo, alone = assign_pictures(job.store, job.found.radiographs, scans, job.names, job.damaged)
    if todo:
        write.lay_out_radiographs(job.store)
    tasks = [
        Task(
            job.store,
            index_of[case],
            plan.rows[index_of[case]],
            scans[plan.rows[index_of[case]].patient][case],
            job.names,
            plan.cube_mm,
            radiographs=tuple(sources),
            expected={a: c for a, c in job.damaged.get(case, {}).items() if a.startswith("radiograph/")},
        )
        for case, sources in sorted(todo.items())
    ]
    for task, outcome in run_tasks(tasks, job.workers):
        refusals = outcome.radiographs
        if outcome.reason:
            refusals = tuple(Refusal(s.patient, s.series, outcome.reason) for s in task.radiographs)
        for one in map(job.renaming.not_taken, refusals):
            log.warning("%s: radiograph refused: %s", task.row.case, one.reason)
        if outcome.changed:
            log.warning("%s: its radiographs are not what they were: the source changed", task.row.case)
        job.refused += refusals
        if outcome.pictures:
            log.info("%s: %d radiographs", task.row.case, outcome.pictures)
            job.worked.add(task.row.case)
    return [Refusal(s.patient, s.series, "radiograph of a patient without a CT in the store") for s in alone]


def _task(job: Job, plan: Plan, index: int, source: Source, missing: Collection[str]) -> Task:
    row = plan.rows[index]
    damaged = job.damaged.get(row.case, {})
    return Task(
        job.store,
        index,
        row,
        source,
        job.names,
        plan.cube_mm,
        tuple(s for s in plan.sizes if layout.ct_array(s) in missing),
        tuple(x for x in plan.xrays if layout.xray_array(x.geometry.name) in missing),
        catalogue_entry(plan.cohort).rule.min_lung_coverage,
        plan.remove_table,
        expected={a: c for a, c in damaged.items() if a in missing},
    )


def _refused(job: Job, wish: Wish, task: Task, outcome: Outcome, wanted: Wanted | None) -> list[Task]:
    """Note it; the task of the spare that takes the row, saved in the plan first, where there is one."""
    assert task.source is not None
    refusal = Refusal(task.source.patient, task.source.series, outcome.reason, outcome.where)
    job.refused.append(refusal)
    log.warning("%s: refused: %s", task.row.case, job.renaming.not_taken(refusal).reason)
    if wanted is None or wanted.settled or not wish.spares.get(wanted.group):
        return []
    wanted.source = wish.spares[wanted.group].popleft().source
    wanted.instead_of.append(refusal)
    wish.plan = wish.plan.with_series(task.index, row_key(wanted.source, job.names))
    wish.plan.save(job.store)
    log.info("%s: another series of the patient takes its place", wish.plan.rows[task.index].case)
    spare = _task(job, wish.plan, task.index, wanted.source, wish.plan.arrays)
    return [replace(spare, instead_of=job.renaming.all(wanted.instead_of))]


def _kept(job: Job, task: Task, outcome: Outcome) -> None:
    case = task.row.case
    job.worked.add(case)
    if outcome.seconds:  # unknown of what a job did that could not say so any more
        job.costs.append((outcome.seconds, outcome.peak_bytes))
    log.info(
        "%s: kept in %.1f s, %.2f GB; %s",
        case,
        outcome.seconds,
        outcome.peak_bytes / 1e9,
        Truncation.of(write.read_case(job.store, case)),
    )
