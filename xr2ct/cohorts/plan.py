"""A cohort's plan: every series found, which is taken by the cohort's rule, and why.

PLAN.csv is for people, who may change its column `take`. PLAN.scan beside it, the index of the scan, ties its
lines to files.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from xr2ct.cohorts import plan_csv
from xr2ct.cohorts.catalogue import Rule
from xr2ct.cohorts.catalogue import cohort as entry
from xr2ct.cohorts.choice import (
    CohortPlan,
    Line,
    Take,
    choose,
    eligible_by_header,
    none_taken,
    radiograph_lines,
)
from xr2ct.cohorts.facts import Facts
from xr2ct.cohorts.pseudonyms import Names
from xr2ct.cohorts.refused import told
from xr2ct.cohorts.scan_index import ScanIndex
from xr2ct.cohorts.series import Source
from xr2ct.errors import UserError

__all__ = ["CohortPlan", "Line", "Take", "plan_cohort", "read_plan", "scan_file", "write_plan"]

Key = tuple[str, str, str]
"""Patient, study and series as the source has them."""


def plan_cohort(
    source: Path, cohort: str, *, index: Path | None = None, workers: int | None = None
) -> CohortPlan:
    """Every series under `source`, and whether the rule of `cohort` takes it.

    `index` is a file (see `scan_file`) that keeps what was read: killed at any moment, the same call
    continues, and a later one reads new and changed files alone. `workers` processes, one a core where None.
    Raises `UserError` for an unknown cohort, no such folder and an index of something else.
    """
    from xr2ct.cohorts import scan_coverage  # here and below: a CSV is read without what reads headers
    from xr2ct.cohorts.scan_files import refresh
    from xr2ct.cohorts.scan_series import group

    rule = entry(cohort).rule
    hidden = [index, index.with_name(f"{index.name}-journal")] if index else []
    with ScanIndex.open(index, source) as held:
        refresh(held, workers, hidden)
        found = group(held)
        fit = [s for s in found.sources if eligible_by_header(s, rule)]
        scan_coverage.measure(held, fit, workers)
        lines = choose([scan_coverage.known(held, s) for s in found.sources], rule)
    others = [Line(source, "no", line.reason, line.where) for source, line in found.others]
    return CohortPlan(
        cohort,
        tuple(lines),
        tuple(found.radiographs),
        (*found.refusals, *none_taken(lines)),
        tuple(found.left_out),
        (*others, *radiograph_lines(found.radiographs, lines)),
    )


def scan_file(plan: Path) -> Path:
    """The index that belongs to a PLAN.csv: PLAN.scan beside it."""
    return plan.with_suffix(".scan")


def write_plan(plan: CohortPlan, out: Path, names: Names) -> None:
    """PLAN.csv; `plan` was made with the index `scan_file(out)`, which is to know its lines too.

    Raises `UserError` where `out` was edited since it was written: edits are not to be lost.
    """
    lines: dict[Key, Line] = {}
    for line in (*plan.lines, *plan.others):
        lines.setdefault(_key(line.source), line)
    with ScanIndex.open(scan_file(out), None) as index:
        if out.exists():
            _check_unedited(out, index, names)
        stored = ((key, line.take, line.reason, line.where) for key, line in lines.items())
        index.put_lines(stored, plan.cohort, names.salt_id)
    rows = [_cells(key, line, names) for key, line in lines.items()]
    plan_csv.write(out, sorted(rows, key=lambda row: row[0]))  # a patient's other modalities beside the CT


def read_plan(path: Path, cohort: str, names: Names) -> CohortPlan:
    """The plan of a PLAN.csv as it was edited, without a look at the files.

    A line that was removed counts as `no`. Raises `UserError`, with the number of the line, for a take that
    is none, a series that is not of this plan or stands twice, a second `yes` where the rule takes one, and a
    series that cannot be taken; also without PLAN.scan, for another cohort and with another salt.
    """
    from xr2ct.cohorts import scan_coverage
    from xr2ct.cohorts.scan_series import group

    if not path.is_file():
        raise UserError(f"{path}: no such plan")
    if not scan_file(path).is_file():
        raise UserError(f"{path}: {scan_file(path).name} is not beside it; call `xr2ct plan` again")
    with ScanIndex.open(scan_file(path), None) as index:
        _check_planned(path, index, cohort, names)
        rows = _edits(path, index, names)
        found = group(index)
        scans = {_key(s): scan_coverage.known(index, s) for s in found.sources}
    others = {_key(s): s for s in (*found.radiographs, *(s for s, _ in found.others))}
    if not rows.keys() <= scans.keys() | others.keys():
        raise UserError(f"{path}: its folder was scanned again since; call `xr2ct plan` again")
    _check_single(path, {key: row for key, row in rows.items() if key in scans}, entry(cohort).rule)
    for key, row in rows.items():
        if key not in scans and row.take not in _allowed(others[key], row):
            raise UserError(
                f"{path}, line {row.number}: take {row.take!r} where it can only be 'no': {row.reason}"
            )
    edited = {key[0] for key, row in rows.items() if row.edited}
    lines = [row.line(scans[key]) for key, row in rows.items() if key in scans]
    dropped = {key for key, row in rows.items() if key in others and row.edited and row.take == "no"}
    return CohortPlan(
        cohort,
        tuple(lines),
        tuple(s for s in found.radiographs if _key(s) not in dropped),
        (*found.refusals, *none_taken(x for x in lines if x.source.patient not in edited)),
        tuple(found.left_out),
        tuple(row.line(others[key]) for key, row in rows.items() if key not in scans),
    )


@dataclass(frozen=True)
class _Row:
    """A series as it was planned and as PLAN.csv has it now."""

    number: int
    """Of its line; 0 where it has none."""
    take: Take
    planned: Take
    reason: str
    where: str

    @property
    def edited(self) -> bool:
        return self.take != self.planned

    def line(self, source: Source) -> Line:
        if not self.edited:
            return Line(source, self.take, self.reason, self.where)
        how = "changed by hand" if self.number else "its line was removed by hand"
        return Line(source, self.take, f"{how}; planned was {self.planned}: {self.reason}", self.where)


def _edits(path: Path, index: ScanIndex, names: Names) -> dict[Key, _Row]:
    """Every series of the plan, in the plan's order, with its take in PLAN.csv."""
    planned = {key: rest for key, *rest in index.lines()}
    find = _finder(planned, names)
    now: dict[Key, tuple[int, Take]] = {}
    for number, cells, take in plan_csv.read(path):
        key = find(cells)
        if key is None:
            raise UserError(f"{path}, line {number}: series {cells[2]!r} of {cells[0]!r} is not of this plan")
        if key in now:
            raise UserError(f"{path}, line {number}: the series of line {now[key][0]} again")
        now[key] = (number, take)
    return {
        key: _Row(*now.get(key, (0, "no")), planned=take, reason=reason, where=where)
        for key, (take, reason, where) in planned.items()
    }


def _finder(keys: Iterable[Key], names: Names) -> Callable[[plan_csv.Cells], Key | None]:
    """From cells to the series meant. Spreadsheets make numbers of what looks like some (patient 0007, hash
    12e45678), so two cells of the three are enough where they are one series' alone."""
    keys = list(keys)
    exact = {_shown(key, names): key for key in keys}
    pairs: list[tuple[int, int]] = [(1, 2), (0, 2), (0, 1)]
    partly = []
    for a, b in pairs:
        by_pair: dict[tuple[str, str], list[Key]] = defaultdict(list)
        for cells, key in exact.items():
            by_pair[cells[a], cells[b]].append(key)
        partly.append((a, b, by_pair))

    def find(cells: plan_csv.Cells) -> Key | None:
        if cells in exact:
            return exact[cells]
        found = (by_pair.get((cells[a], cells[b]), []) for a, b, by_pair in partly)
        return next((own[0] for own in found if len(own) == 1), None)

    return find


def _allowed(source: Source, row: _Row) -> tuple[Take, ...]:
    """What may be asked of a series that is no CT scan: a radiograph goes with its patient, or does not."""
    return ("yes", "no") if source.kind == "radiograph" else ("no",)


def _check_single(path: Path, rows: Mapping[Key, _Row], rule: Rule) -> None:
    """`UserError` for a second `yes` where the rule takes one."""
    taken: dict[tuple[str, str], int] = {}
    for (patient, study, _), row in sorted(rows.items(), key=lambda item: item[1].number):
        if row.take == "yes":
            first = taken.setdefault((patient, study if rule.scans == "study" else ""), row.number)
            if first != row.number:
                raise UserError(
                    f"{path}, line {row.number}: a second yes for one {rule.scans} "
                    f"(the first: line {first}); the cohort's rule takes one, `spare` is for the others"
                )


def _check_planned(path: Path, index: ScanIndex, cohort: str, names: Names) -> None:
    planned_for, salt_id = index.planned_for()
    if planned_for != cohort:
        raise UserError(f"{path}: a plan of {planned_for or 'no cohort'}, asked for was {cohort}")
    if salt_id != names.salt_id:
        raise UserError(f"{path}: written with another salt; name that one, or call `xr2ct plan` again")
    if index.count(None):
        raise UserError(f"{path}: a later scan of its folder was not finished; call `xr2ct plan` again")


def _check_unedited(out: Path, index: ScanIndex, names: Names) -> None:
    rows = _edits(out, index, names) if any(index.lines()) else {}
    first = next((row for row in rows.values() if row.edited), None)
    if first or not rows:
        what = f"edited by hand (line {first.number})" if first else "not of the scan beside it"
        raise UserError(f"{out}: {what}; take it as it is, move it away, or name another")


def _key(source: Source) -> Key:
    return (source.patient, source.study, source.series)


def _shown(key: Key, names: Names) -> plan_csv.Cells:
    """A series as PLAN.csv names it: a private cohort's by pseudonyms."""
    patient, study, series = key
    if names.public:
        return (plan_csv.printable(patient), plan_csv.printable(study), plan_csv.printable(series))
    return (names.patient(patient), names.study(study), names.series(study, series))


def _cells(key: Key, line: Line, names: Names) -> list[str]:
    facts = line.source.facts or Facts()
    return [
        *_shown(key, names),
        facts.modality,
        facts.kernel,
        "" if facts.contrast is None else "yes" if facts.contrast else "no",
        "" if facts.thickness_mm is None else f"{facts.thickness_mm:g}",
        "×".join(f"{value:.4g}" for value in facts.spacing_mm or ()),
        str(facts.slices or ""),
        "" if facts.lung_coverage is None else f"{facts.lung_coverage:.2f}",
        line.take,
        told(line.reason, names.where(line.where)),
    ]
