"""Plan the rows, let workers fill them, make them visible. Killed at any moment, the same call continues."""

from __future__ import annotations

import fcntl
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from xr2ct.cohorts.plan import CohortPlan, plan_cohort, read_plan
from xr2ct.cohorts.pseudonyms import Names, names_for
from xr2ct.cohorts.refused import Refusal
from xr2ct.errors import UserError, WorkFailed
from xr2ct.ingest import prepare
from xr2ct.ingest import repair as repairs
from xr2ct.ingest.fill import Job, fill_pictures, fill_scans, scan_tasks, stale_arrays
from xr2ct.ingest.plan import Plan, row_key
from xr2ct.ingest.prepare import Wish
from xr2ct.ingest.report import Cost, IngestReport, NotTaken, Renaming, Truncation, write_refused
from xr2ct.projection.geometry import Geometry
from xr2ct.store import check, layout, write

log = logging.getLogger(__name__)

FRACTIONS = (0.8, 0.1, 0.1)
"""Training, validation and test patients where they are drawn by seed."""

_LOCK = ".ingest.lock"


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

    Raises `UserError` for a wrong request, and `WorkFailed` where no case of the source could be kept or a
    repair left something damaged.
    """
    source, store = Path(source), Path(store)
    _check_request(source, store, sizes, cube_mm, workers, repair)
    names = names_for(cohort, salt)
    asked_splits = prepare.Splits.asked(cohort, splits, seed, fractions)
    found = (
        read_plan(source, cohort, names) if source.is_file() else plan_cohort(source, cohort, workers=workers)
    )
    store.mkdir(parents=True, exist_ok=True)
    with _alone(store):
        if repair:
            repairs.clear_damaged(store)
        asked = Plan(cohort, cube_mm, remove_table, names.salt_id)
        plan, split_of = _rows(store, asked, found, names, asked_splits, repair)
        plan = plan.with_arrays(store, sizes, prepare.wanted_xrays(plan, geometries, angles))
        job = Job(store, names, found, Renaming(found, names), workers, repair, {})
        if repair:
            repairs.check_xrays(store, plan)
            job.damaged = repairs.damaged_chunks(store)
        wish = prepare.wish(store, plan, found, split_of, names)
        _bring_level(job, wish)
        report = _report(job, wish)
        write_refused(store, report.refused, {names.patient(line.source.patient) for line in found.lines})
    if repair and (left := check.damage(store)):
        raise WorkFailed(_still_damaged(left))
    if not report.kept:
        raise WorkFailed(_nothing_kept(source, report))
    return report


def _check_request(
    source: Path, store: Path, sizes: Sequence[int], cube_mm: float, workers: int | None, repair: bool
) -> None:
    if not source.exists():
        raise UserError(f"{source}: expected a folder of CT or a PLAN.csv, found nothing")
    if not sizes or min(sizes) < 16:
        raise UserError(f"size {','.join(map(str, sizes))}: expected voxels a side, 16 or more")
    if not 16 <= cube_mm < math.inf:
        raise UserError(f"cube_mm {cube_mm:g}: expected the cube's side in millimetres, 16 or more")
    if workers is not None and workers < 1:
        raise UserError(f"workers {workers}: expected 1 or more")
    if source.is_dir() and store.resolve().is_relative_to(source.resolve()):
        raise UserError(f"{store}: lies inside the source {source}; put the store elsewhere")
    if store.exists() and not store.is_dir():
        raise UserError(f"{store}: a file; expected a folder for the store")
    if repair and not layout.is_remains(store):
        raise UserError(f"{store}: no store to repair")
    if repair:
        return
    if (store / "zarr.json").is_file():
        layout.group_attributes(store)
    elif store.is_dir() and not layout.plan_file(store).is_file():
        if layout.is_remains(store):
            raise layout.StoreError(f"{store}: its zarr.json and plan.json are missing: {layout.REPAIR}")
        strangers = {p.name for p in store.iterdir()} - {layout.refused_file(store).name, _LOCK}
        if strangers:
            raise UserError(f"{store}: not a store, yet it holds {min(strangers)}; name another folder")


@contextmanager
def _alone(store: Path) -> Iterator[None]:
    """One ingest at a time into a store. The kernel drops the lock with its process: none is left behind."""
    with (store / _LOCK).open("w") as file:
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


def _bring_level(job: Job, wish: Wish) -> None:
    """The plan on disk first: from then on a row is one case's for good."""
    store, plan = job.store, wish.plan
    if not plan.rows:
        return
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
    fill_scans(job, wish, tasks)
    _publish(store, wish.plan)
    wish.left_out += fill_pictures(job, wish.plan)
    if job.repair:
        repairs.settle_case_files(store)


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
