"""Plan the rows, let workers fill them, make them visible. Killed at any moment, the same call continues."""

from __future__ import annotations

import fcntl
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from xr2ct.cohorts.plan import CohortPlan, plan_cohort, read_plan
from xr2ct.cohorts.pseudonyms import Names, names_for
from xr2ct.cohorts.refused import Refusal
from xr2ct.errors import WorkFailed
from xr2ct.ingest import lease, prepare
from xr2ct.ingest import repair as repairs
from xr2ct.ingest.fill import Job, fill_pictures, fill_scans, scan_tasks, stale_arrays
from xr2ct.ingest.lease import Lease
from xr2ct.ingest.plan import Plan, row_key
from xr2ct.ingest.prepare import Wish
from xr2ct.ingest.report import Cost, IngestReport, NotTaken, Renaming, Truncation, write_refused
from xr2ct.ingest.request import FRACTIONS, LOCK, Request
from xr2ct.ingest.task import Outcome, Task
from xr2ct.projection.geometry import Geometry
from xr2ct.store import check, layout, write

log = logging.getLogger(__name__)


def ingest(
    source: Path,
    store: Path,
    cohort: str,
    sizes: Sequence[int],
    geometries: Sequence[Geometry] = (),
    angles: Sequence[float] | None = None,
    cube_mm: float = 320.0,
    seed: int = 0,
    fractions: tuple[float, float, float] = FRACTIONS,
    splits: str | Path | None = None,
    workers: int | None = None,
    *,
    salt: Path | None = None,
    remove_table: bool = False,
    repair: bool = False,
) -> IngestReport:
    """Bring `store` level with the CTs of `source`: every case at every size and geometry of the store.

    `source` is a folder, of which the cohort's rule takes its scans, or a PLAN.csv, whose lines with `yes`
    are taken; where one turns out unreadable the best `spare` of its patient (or study) takes its place.
    Radiographs of the same patients come along. What is there already is not computed again: call it again
    after it was killed, with another size, geometry or angle, or with more patients. With more angles an
    X-ray array is computed again whole, and is away meanwhile.

    `geometries` and `angles` (degrees) are those of the store where they are empty; of a new store x2ct, and
    eight views 45° apart. `splits` says who learns and who tests: `seeded`, `test`, a shipped list's name or
    a CSV of patient and split (who is in none is left out), the cohort's own where None; a patient already in
    the store keeps theirs. `salt` is the file by which cohorts that are not public are named (`names_for`).
    `remove_table` makes air of what is not the patient. `repair` checks every file of the store and writes
    again from the source what is missing or damaged.

    Raises `UserError` for a wrong request, and `WorkFailed` where no case of the source could be kept, a
    repair left something damaged, or another ingest is writing into the store.
    """
    request = Request(
        Path(source),
        Path(store),
        cohort,
        tuple(sizes),
        tuple(geometries),
        None if angles is None else tuple(angles),
        cube_mm,
        seed,
        fractions,
        splits,
        workers,
        salt,
        remove_table,
        repair,
    )
    return fulfil(request, lambda jobs: True)


def fulfil(request: Request, living: Callable[[Lease], bool]) -> IngestReport:
    """`ingest` of a request; `living` says of jobs submitted to fill the store whether they still may."""
    with begun(request, living) as (job, wish, tasks):
        report = finished(job, wish, tasks, {})
    if request.repair and (left := check.damage(request.store)):
        raise WorkFailed(_still_damaged(left))
    return kept_some(request.source, report)


@contextmanager
def begun(request: Request, living: Callable[[Lease], bool]) -> Iterator[tuple[Job, Wish, list[Task]]]:
    """What is to be done, once rows and arrays are fixed and on disk; nobody else ingests into the store
    meanwhile. Raises as `ingest` does for a wrong request."""
    request.check()
    store, names = request.store, names_for(request.cohort, request.salt)
    asked_splits = prepare.Splits.asked(request.cohort, request.splits, request.seed, request.fractions)
    found = _found(request, names)
    store.mkdir(parents=True, exist_ok=True)
    with alone(store):
        lease.end_dead(store, living)
        if request.repair:
            repairs.clear_damaged(store)
        asked = Plan(request.cohort, request.cube_mm, request.remove_table, names.salt_id)
        plan, split_of = _rows(store, asked, found, names, asked_splits, request.repair)
        xrays = prepare.wanted_xrays(plan, request.geometries, request.angles)
        plan = plan.with_arrays(store, request.sizes, xrays)
        job = Job(store, names, found, Renaming(found, names), request.workers, request.repair, {})
        if request.repair:
            repairs.check_xrays(store, plan)
            job.damaged = repairs.damaged_chunks(store)
        wish = prepare.wish(store, plan, found, split_of, names)
        yield job, wish, _laid_out(job, wish)


def finished(job: Job, wish: Wish, tasks: Sequence[Task], ended: Mapping[int, Outcome]) -> IngestReport:
    """Do what is left of `tasks`, radiographs too, and make it visible.

    `ended` are the outcomes, by row, of those that were done elsewhere.
    """
    if wish.plan.rows:
        fill_scans(job, wish, tasks, ended)
        _publish(job.store, wish.plan)
        wish.left_out += fill_pictures(job, wish.plan)
        if job.repair:
            repairs.settle_case_files(job.store)
    report = _report(job, wish)
    write_refused(
        job.store, report.refused, {job.names.patient(line.source.patient) for line in job.found.lines}
    )
    return report


def kept_some(source: Path, report: IngestReport) -> IngestReport:
    """The report; `WorkFailed` with the first reasons where no case could be kept."""
    if not report.kept:
        raise WorkFailed(_nothing_kept(source, report))
    return report


def _found(request: Request, names: Names) -> CohortPlan:
    if request.source.is_file():
        return read_plan(request.source, request.cohort, names)
    return plan_cohort(request.source, request.cohort, workers=request.workers)


@contextmanager
def alone(store: Path) -> Iterator[None]:
    """One ingest at a time into a store. The kernel drops the lock with its process: none is left behind."""
    with (store / LOCK).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise WorkFailed(f"{store}: another ingest is writing into it") from None
        except OSError as error:
            log.warning("%s: no locks here (%s): run one ingest at a time", store, error.strerror)
        yield


def _rows(
    store: Path,
    asked: Plan,
    found: CohortPlan,
    names: Names,
    splits: prepare.Splits,
    repair: bool,
) -> tuple[Plan, Mapping[str, str]]:
    """The store's plan, a new one where there is no store yet, and each patient's split."""
    plan, left = Plan.load(store), None
    if plan is None and (store / "zarr.json").is_file() and not repair:
        raise layout.StoreError(f"{store}: its plan.json is missing: {layout.REPAIR}")
    yes = {row_key(line.source, names): line.source for line in found.lines if line.take == "yes"}
    patients = sorted({source.patient for source in yes.values()})
    if plan is None and repair:
        left = repairs.remains(store, asked, list(yes))
    rows = left.rows.values() if left else plan.rows if plan else ()
    prepare.check_same(store, left.plan if left else plan or asked, asked)
    held = {row.patient: row.split for row in rows}
    split_of = prepare.split_patients(splits, store, held, patients, names, left is not None)
    if left:
        plan = left.whole({key: split_of[s.patient] for key, s in yes.items() if s.patient in split_of})
    return plan or asked, split_of


def _laid_out(job: Job, wish: Wish) -> list[Task]:
    """Plan and arrays on disk, from when on a row is one case's for good; the tasks of what is missing."""
    store, plan = job.store, wish.plan
    if not plan.rows:
        return []
    tasks = scan_tasks(job, wish)
    plan.save(store)
    for array in stale_arrays(store, plan):
        write.retire(store, array.removeprefix("xray/"))
    write.lay_out(
        store,
        plan.cohort,
        plan.cube_mm,
        len(plan.rows),
        plan.sizes,
        plan.xrays,
        remove_table=plan.remove_table,
        salt_id=plan.salt_id,
    )
    write.sweep(store)
    return tasks


def _publish(store: Path, plan: Plan) -> None:
    """Make every row visible that has every array of the plan."""
    visible = []
    for index, row in enumerate(plan.rows):
        case = write.read_case(store, row.case)
        if set(plan.arrays) <= set(case.get("checksums", {})):
            visible.append({"id": row.case, "patient": row.patient, "split": row.split, "row": index})
    before = {c["id"] for c in layout.group_attributes(store)["cases"]}
    for lost in sorted(before - {str(c["id"]) for c in visible}):
        log.warning("%s: no longer visible in %s, since it lacks what was added", lost, store)
    write.publish(store, visible, plan.sizes, [x.geometry.name for x in plan.xrays])


def _report(job: Job, wish: Wish) -> IngestReport:
    store, plan = job.store, wish.plan
    indices = {w.index for w in wish.wanted}
    kept, refused, pictures = {}, set(job.renaming.all([*job.found.refusals, *job.refused])), 0
    for index, row in enumerate(plan.rows):
        if index not in indices:
            continue
        case = write.read_case(store, row.case)
        refused |= {NotTaken(row.patient, series, why) for series, why in case.get("instead_of", [])}
        if set(plan.arrays) <= set(case.get("checksums", {})):
            kept[row.case] = Truncation.of(case)
            pictures += len(case.get("radiographs", []))
    unused = [
        Refusal(line.source.patient, line.source.series, line.reason, line.where)
        for group in wish.spares.values()
        for line in group
    ]
    told = {(r.patient, r.series) for r in refused}
    left_out = job.renaming.all([*job.found.left_out, *wish.left_out, *unused])
    return IngestReport(
        store,
        kept,
        len(job.worked & set(kept)),
        tuple(sorted(refused)),
        tuple(one for one in left_out if (one.patient, one.series) not in told),
        pictures,
        Cost.of(job.costs),
    )


def _still_damaged(left: Sequence[str]) -> str:
    lines = [f"{len(left)} files are still missing or damaged, since what they were made from is not here"]
    return "\n".join([*lines, *(f"  {line}" for line in left[:5]), *(["  …"] if len(left) > 5 else [])])


def _nothing_kept(source: Path, report: IngestReport) -> str:
    lines = [f"{source}: no case could be kept"]
    lines += [f"  {r.patient}: {r.reason}" for r in (*report.refused, *report.left_out)[:5]]
    if report.refused:
        lines.append(f"  all {len(report.refused)} refused are in {layout.refused_file(report.store)}")
    return "\n".join(lines)
