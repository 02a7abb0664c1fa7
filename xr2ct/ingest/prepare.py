"""From what was found and what was asked for to the tasks that are left. Nothing is written here."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from xr2ct.cohorts.names import IN_DISTRIBUTION
from xr2ct.cohorts.refused import Refusal
from xr2ct.cohorts.series import Source, choose
from xr2ct.cohorts.splits import assign_splits, read_split_list
from xr2ct.errors import UserError
from xr2ct.ingest.plan import SAFE_NAME, Plan, Row, row_key, safe_name
from xr2ct.projection.geometry import EIGHT_ANGLES, NAMED, Geometry
from xr2ct.store import layout, write
from xr2ct.store.layout import XraySet

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Task:
    """What is still missing of one row."""

    store: Path
    index: int
    row: Row
    source: Source
    cube_mm: float
    sizes: tuple[int, ...]
    xrays: tuple[XraySet, ...]


def check_same(store: Path, plan: Plan, cohort: str, cube_mm: float) -> None:
    """`UserError` where the store is of another cohort or cube."""
    if plan.cohort != cohort:
        raise UserError(f"{store}: holds cohort {plan.cohort}, asked for was {cohort}: one store a cohort")
    if plan.cube_mm != cube_mm:
        raise UserError(
            f"{store}: its cube is {plan.cube_mm:g} mm, asked for was {cube_mm:g} mm: use a new store"
        )


def split_patients(
    store: Path,
    plan: Plan,
    patients: Sequence[str],
    seed: int,
    fractions: tuple[float, float, float],
    split_list: Path | None,
) -> Mapping[str, str]:
    """Patient → split, for the patients as the source has them; who is in none is to be left out."""
    held = {row.patient: row.split for row in plan.rows}
    known = {p: held[safe_name(p)] for p in patients if safe_name(p) in held}
    new = [p for p in patients if p not in known]
    if split_list is not None:
        listed = read_split_list(split_list)
        for patient, split in known.items():
            if listed.get(patient, split) != split:
                raise UserError(
                    f"{split_list}: patient {patient} is in {listed[patient]!r} here and in {split!r} "
                    f"in {store}: splits of a store stay; use a new store"
                )
        for patient in sorted(set(listed) - set(patients)):
            log.warning("%s: patient %s is not in the source", split_list, patient)
        return {**known, **{p: listed[p] for p in new if p in listed}}
    if plan.cohort == IN_DISTRIBUTION:
        return {**known, **assign_splits(new, seed, fractions)}
    return {**known, **dict.fromkeys(new, "test")}


def choose_scans(store: Path, plan: Plan, sources: Sequence[Source]) -> tuple[list[Source], list[Refusal]]:
    """One scan a patient, the one that the store has a row for before the best of those here; the others."""
    rows = {row.key for row in plan.rows}
    planned: dict[tuple[str, str, str], Source] = {}
    for source in sources:
        if row_key(source) in rows:
            planned.setdefault(row_key(source), source)
    done = {row.patient for row in plan.rows if layout.case_file(store, row.case).is_file()}
    settled = done | {safe_name(s.patient) for s in planned.values()}
    fresh, others = choose([s for s in sources if safe_name(s.patient) not in settled])
    others += [
        Refusal(s.patient, s.series, "not chosen: the store has another scan of the patient")
        for s in sources
        if safe_name(s.patient) in settled and s is not planned.get(row_key(s))
    ]
    return [*planned.values(), *fresh], others


def wanted_xrays(plan: Plan, geometries: Sequence[Geometry], angles: Sequence[float] | None) -> list[XraySet]:
    """The X-rays asked for: see `ingest` for what an empty request means."""
    if angles is not None and (not angles or len({a % 360.0 for a in angles}) != len(angles)):
        raise UserError(f"angles {','.join(f'{a:g}' for a in angles)}: expected at least one, each once")
    for geometry in geometries:
        if not SAFE_NAME.fullmatch(geometry.name):
            raise UserError(
                f"geometry {geometry.name!r}: expected a name of letters, digits, '.', '_' and '-'"
            )
    held = {x.geometry.name: x.angles for x in plan.xrays}
    wanted = geometries or ([] if held else [NAMED["x2ct"]])
    asked = tuple(a % 360.0 for a in angles) if angles else None
    return [XraySet(g, asked or held.get(g.name, EIGHT_ANGLES)) for g in wanted]


def missing_arrays(store: Path, plan: Plan, case: str) -> set[str]:
    """Arrays of the plan that a case has no whole chunk of, by its own file."""
    return set(plan.arrays) - set(write.read_case(store, case).get("checksums", {}))


def remaining_tasks(store: Path, plan: Plan, sources: Sequence[Source]) -> list[Task]:
    """What is left to do, a task a row; `UserError` where a finished case would need an absent source."""
    by_key = {row_key(s): s for s in sources}
    tasks, orphans = [], []
    for index, row in enumerate(plan.rows):
        missing = missing_arrays(store, plan, row.case)
        if not missing:
            continue
        if row.key not in by_key:
            if layout.case_file(store, row.case).is_file():
                orphans.append(f"{row.case} ({', '.join(sorted(missing))})")
            continue
        sizes = tuple(s for s in plan.sizes if layout.ct_array(s) in missing)
        xrays = tuple(x for x in plan.xrays if layout.xray_array(x.geometry.name) in missing)
        tasks.append(Task(store, index, row, by_key[row.key], plan.cube_mm, sizes, xrays))
    if orphans:
        raise UserError(
            f"{store}: {len(orphans)} of its cases need their source for what is to be added, and it is not "
            f"here: {', '.join(orphans[:3])}{' …' if len(orphans) > 3 else ''}"
        )
    return tasks
