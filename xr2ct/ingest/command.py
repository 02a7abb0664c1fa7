"""Plan the rows, let workers fill them, make them visible. Killed at any moment, the same call continues."""

from __future__ import annotations

import fcntl
import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from xr2ct.cohorts.names import check_cohort
from xr2ct.cohorts.refused import Refusal
from xr2ct.cohorts.series import Source, scan
from xr2ct.errors import UserError, WorkFailed
from xr2ct.ingest import prepare
from xr2ct.ingest.plan import Plan, row_key, safe_name
from xr2ct.ingest.pool import run_tasks
from xr2ct.ingest.report import IngestReport, NotTaken, Truncation, write_refused
from xr2ct.projection.geometry import Geometry
from xr2ct.store import layout, write

log = logging.getLogger(__name__)

FRACTIONS = (0.8, 0.1, 0.1)
"""Training, validation and test patients of the cohort that is trained on."""

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
    split_list: Path | None = None,
    workers: int | None = None,
) -> IngestReport:
    """Bring `store` level with the CTs under `source`: every case at every size and geometry of the store.

    What is there already is not computed again: call it again after it was killed, with another size or
    geometry, or with more patients. `geometries` and `angles` (degrees) are those of the store where they are
    empty; of a new store x2ct, and eight views 45° apart. Patients are split by `split_list` (others are left
    out), else by seed in the cohort that is trained on and into `test` in the six others; a patient already
    in the store keeps their split.

    Raises `UserError` for a wrong request and `WorkFailed` where no case of the source could be kept.
    """
    source, store = Path(source), Path(store)
    check_cohort(cohort)
    _check_request(source, store, sizes, cube_mm, workers)
    found = scan(source)
    patients = sorted({s.patient for s in found.sources})
    store.mkdir(parents=True, exist_ok=True)
    with _alone(store):
        plan = Plan.load(store) or Plan(cohort, cube_mm)
        prepare.check_same(store, plan, cohort, cube_mm)
        splits = prepare.split_patients(store, plan, patients, seed, fractions, split_list)
        listed = [s for s in found.sources if s.patient in splits]
        taken, others = prepare.choose_scans(store, plan, listed)
        others += [
            Refusal(s.patient, s.series, f"not in {split_list}")
            for s in found.sources
            if s.patient not in splits
        ]
        plan = plan.with_arrays(store, sizes, prepare.wanted_xrays(plan, geometries, angles))
        plan = plan.with_cases(taken, splits)
        tasks = prepare.remaining_tasks(store, plan, taken)
        refused = list(found.refusals)
        if taken:
            _lay_out(store, plan)
            refused += _fill(store, tasks, workers)
            _publish(store, plan)
        report = _report(store, plan, taken, len(tasks), refused, [*found.left_out, *others])
        write_refused(store, report.refused, {safe_name(p) for p in patients})
    if not report.kept:
        raise WorkFailed(_nothing_kept(source, report))
    return report


def _check_request(
    source: Path, store: Path, sizes: Sequence[int], cube_mm: float, workers: int | None
) -> None:
    if not source.is_dir():
        raise UserError(
            f"{source}: expected a folder of CT, found {'a file' if source.exists() else 'nothing'}"
        )
    if not sizes or min(sizes) < 16:
        raise UserError(f"size {','.join(map(str, sizes))}: expected voxels a side, 16 or more")
    if not 16 <= cube_mm < math.inf:
        raise UserError(f"cube_mm {cube_mm:g}: expected the cube's side in millimetres, 16 or more")
    if workers is not None and workers < 1:
        raise UserError(f"workers {workers}: expected 1 or more")
    if store.resolve().is_relative_to(source.resolve()):
        raise UserError(f"{store}: lies inside the source {source}; put the store elsewhere")
    if store.exists() and not store.is_dir():
        raise UserError(f"{store}: a file; expected a folder for the store")
    if (store / "zarr.json").is_file():
        layout.group_attributes(store)
    elif store.is_dir() and not layout.plan_file(store).is_file():
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


def _lay_out(store: Path, plan: Plan) -> None:
    """The plan on disk first: from here on a row is one case's for good."""
    plan.save(store)
    write.lay_out(store, plan.cohort, plan.cube_mm, len(plan.rows), plan.sizes, plan.xrays)
    write.sweep(store)


def _fill(store: Path, tasks: Sequence[prepare.Task], workers: int | None) -> list[Refusal]:
    """Work through the tasks; what was refused."""
    refused = []
    for task, reason in run_tasks(tasks, workers):
        case = task.row.case
        if reason:
            log.warning("%s: refused: %s", case, reason)
            refused.append(Refusal(task.source.patient, task.source.series, reason))
        else:
            log.info("%s: kept; %s", case, Truncation.of(write.read_case(store, case)))
    return refused


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


def _report(
    store: Path,
    plan: Plan,
    taken: Sequence[Source],
    tasks: int,
    refused: Sequence[Refusal],
    left_out: Sequence[Refusal],
) -> IngestReport:
    keys = {row_key(s) for s in taken}
    kept = [r.case for r in plan.rows if r.key in keys and not prepare.missing_arrays(store, plan, r.case)]
    return IngestReport(
        store,
        {case: Truncation.of(write.read_case(store, case)) for case in kept},
        len(kept) - (len(taken) - tasks),
        tuple(sorted(map(NotTaken.of, refused))),
        tuple(sorted(map(NotTaken.of, left_out))),
    )


def _nothing_kept(source: Path, report: IngestReport) -> str:
    lines = [f"{source}: no case could be kept"]
    lines += [f"  {r.patient}: {r.reason}" for r in (*report.refused, *report.left_out)[:5]]
    if report.refused:
        lines.append(f"  all {len(report.refused)} refused are in {layout.refused_file(report.store)}")
    return "\n".join(lines)
