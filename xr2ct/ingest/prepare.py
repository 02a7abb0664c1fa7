"""From what was found and what was asked for to the scans that are wanted. Nothing is written here."""

from __future__ import annotations

import logging
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from xr2ct.cohorts.catalogue import cohort as catalogue_entry
from xr2ct.cohorts.plan import CohortPlan, Line
from xr2ct.cohorts.pseudonyms import SAFE_NAME, Names
from xr2ct.cohorts.refused import Refusal
from xr2ct.cohorts.series import Source
from xr2ct.cohorts.splits import assign_splits, resolve_splits
from xr2ct.errors import UserError
from xr2ct.ingest.plan import Group, Key, Plan, group_of, row_key
from xr2ct.projection.geometry import EIGHT_ANGLES, NAMED, Geometry
from xr2ct.store import layout
from xr2ct.store.layout import XraySet

log = logging.getLogger(__name__)


@dataclass
class Wanted:
    """One scan that is to be in the store: the line that says yes and, should it be unreadable, a spare."""

    source: Source | None
    """None where the store's own scan stands for it and is not in this source."""
    group: Group
    index: int
    """Its row."""
    settled: bool = False
    """Whether the row was filled before."""
    instead_of: list[Refusal] = field(default_factory=list)


@dataclass
class Wish:
    """A source's plan as a store can take it."""

    plan: Plan
    wanted: list[Wanted]
    spares: Mapping[Group, deque[Line]]
    """By rank."""
    left_out: list[Refusal]


def check_same(store: Path, held: Plan, asked: Plan) -> None:
    """`UserError` where the store is of another cohort, cube or salt, or treats the table otherwise."""
    if held.cohort != asked.cohort:
        raise UserError(
            f"{store}: holds cohort {held.cohort}, asked for was {asked.cohort}: one store a cohort"
        )
    if held.cube_mm != asked.cube_mm:
        raise UserError(
            f"{store}: its cube is {held.cube_mm:g} mm, asked for was {asked.cube_mm:g} mm: use a new store"
        )
    if held.remove_table != asked.remove_table:
        has, wants = ("without", "with") if held.remove_table else ("with", "without")
        raise UserError(
            f"{store}: its volumes are {has} the table under the patient, asked for was {wants} it: "
            "use a new store"
        )
    if held.salt_id != asked.salt_id:
        raise UserError(
            f"{store}: its cases are named by salt {held.salt_id or '(none)'}, this one is "
            f"{asked.salt_id or '(none)'}: give the salt file that it was made with, or use a new store"
        )


@dataclass(frozen=True)
class Splits:
    """Who is to learn and who to test, as it was asked for."""

    told: str
    drawn: Mapping[str, str] | Literal["seeded", "test"]
    seed: int
    fractions: tuple[float, float, float]

    @classmethod
    def asked(
        cls, cohort: str, splits: str | Path | None, seed: int, fractions: tuple[float, float, float]
    ) -> Splits:
        """The cohort's own where `splits` is None; `UserError` for an unknown name or an unreadable list."""
        value = catalogue_entry(cohort).splits if splits is None else splits
        return cls(str(value), resolve_splits(value), seed, fractions)


def split_patients(
    splits: Splits,
    store: Path,
    held: Mapping[str, str],
    patients: Sequence[str],
    names: Names,
    all_anew: bool = False,
) -> Mapping[str, str]:
    """Patient → split, for the patients as the source has them; who is in none is to be left out.

    A patient who is in the store keeps its split; `held` has these by the cohort's names. `all_anew`: some
    rows were lost with their splits, which are drawn among all the patients as they once were.
    """
    known = {p: held[names.patient(p)] for p in patients if names.patient(p) in held}
    new = [p for p in patients if p not in known]
    drawn = splits.drawn
    if drawn == "seeded":
        return {**assign_splits(patients if all_anew else new, splits.seed, splits.fractions), **known}
    if drawn == "test":
        return {**dict.fromkeys(new, "test"), **known}
    for patient, split in known.items():
        if drawn.get(patient, split) != split:
            raise UserError(
                f"{splits.told}: patient {names.patient(patient)} is in {drawn[patient]!r} here and in "
                f"{split!r} in {store}: splits of a store stay; use a new store"
            )
    listed = {p: drawn[p] for p in new if p in drawn}
    if new and not listed and not known:
        raise UserError(
            f"splits {splits.told}: lists none of the {len(new)} patients found; "
            "give --splits seeded, --splits test, or a CSV with the columns patient,split"
        )
    absent = len(set(drawn) - set(patients))
    if absent:
        log.info("splits %s: %d of its %d patients are not in the source", splits.told, absent, len(drawn))
    return {**listed, **known}


def wish(store: Path, plan: Plan, found: CohortPlan, splits: Mapping[str, str], names: Names) -> Wish:
    """Rows for every `yes` of the plan whose patient has a split.

    A scan that is in the store stays in its row: where the plan prefers another of the same patient (or
    study), that one is left out. A row that was never filled goes to the `yes` of now.
    """
    by_study = catalogue_entry(plan.cohort).rule.scans == "study"
    by_key = sources_by_key(found, names)
    yes: dict[Group, list[Source]] = defaultdict(list)
    spares: dict[Group, deque[Line]] = defaultdict(deque)
    left_out = []
    for line in found.lines:
        source = line.source
        key = row_key(source, names)
        if line.take == "no" or source.patient not in splits:
            reason = line.reason if line.take == "no" else "its patient is in none of the splits"
            left_out.append(Refusal(source.patient, source.series, reason, line.where))
        elif line.take == "yes":
            yes[group_of(key, by_study)].append(source)
        else:
            spares[group_of(key, by_study)].append(line)
    rows: dict[Group, list[int]] = defaultdict(list)
    for index, row in enumerate(plan.rows):
        rows[group_of(row.key, by_study)].append(index)
    wanted: list[Wanted] = []
    new: list[tuple[Group, Source]] = []
    for group, sources in yes.items():
        for source, place in _matched(plan, sources, rows[group], names):
            if place is None:
                new.append((group, source))
                continue
            index = place
            settled = layout.case_file(store, plan.rows[index].case).is_file()
            key = row_key(source, names)
            if plan.rows[index].key != key and settled:
                reason = "not chosen: the store has another scan of the patient"
                left_out.append(Refusal(source.patient, source.series, reason))
            elif plan.rows[index].key != key:
                plan = plan.with_series(index, key)
            wanted.append(Wanted(by_key.get(plan.rows[index].key), group, index, settled))
    plan = plan.with_cases({row_key(s, names): splits[s.patient] for _, s in new})
    index_of = {row.key: index for index, row in enumerate(plan.rows)}
    wanted += [Wanted(s, group, index_of[row_key(s, names)]) for group, s in new]
    return Wish(plan, sorted(wanted, key=lambda w: w.index), spares, left_out)


def sources_by_key(found: CohortPlan, names: Names) -> dict[Key, Source]:
    """Every CT series of the plan, taken or not, by the key that its row has or would have."""
    by_key: dict[Key, Source] = {}
    for line in found.lines:
        by_key.setdefault(row_key(line.source, names), line.source)
    return by_key


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


def _matched(
    plan: Plan, sources: Sequence[Source], rows: Sequence[int], names: Names
) -> Iterator[tuple[Source, int | None]]:
    """Each wanted series of a group with its row: its own, else one of the group's others, else none."""
    own = {plan.rows[index].key: index for index in rows}
    others = []
    for source in sources:
        key = row_key(source, names)
        if key in own:
            yield source, own.pop(key)
        else:
            others.append(source)
    free = [*own.values(), *[None] * len(others)]
    yield from zip(others, free[: len(others)], strict=True)
