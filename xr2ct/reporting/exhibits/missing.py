"""What is not there: cohorts that somebody is not scored on, and cases that one has and another lacks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from xr2ct.reporting.exhibit import exhibit
from xr2ct.reporting.study import Study, order
from xr2ct.reporting.systems import System
from xr2ct.reporting.table import Cell, Column, Table


@exhibit("missing")
def missing(study: Study) -> Table:
    """Always made: that nothing is missing is worth a line too."""
    rows = [*_unscored(study), *_lacking(study)]
    columns = (
        Column("cohort", "Cohort"),
        Column("split", "Split"),
        Column("system", "System"),
        Column("run", "Run"),
        Column("count", "Cases missing", "d"),
        Column("cases", "Which"),
    )
    caption = (
        "Cohorts not scored, and cases that a result lacks of those that others on the same cohort and split "
        "have. Means in other tables are over each system's own cases; comparisons are over common ones."
        if rows
        else "Nothing is missing: everyone is scored on every cohort asked for, and all on the same cases."
    )
    return Table("missing", "Missing", caption, columns, rows)


def _unscored(study: Study) -> Iterator[dict[str, Cell]]:
    """Splits that a system was to be scored on, or that others are."""
    tested = {pair for pair in study.pairs if pair[1] == "test"}
    for pair in sorted(tested | _asked(study.systems), key=order):
        about: dict[str, Cell] = {"cohort": pair[0], "split": pair[1], "cases": "not scored"}
        if pair not in study.pairs:
            yield {"system": "everyone", **about}
            continue
        for system in (s for s in study.everyone if pair in _wanted(s, tested)):
            scored = {result.run for result in study.results(system, *pair)}
            if not scored:
                yield {"system": system.label, **about}
            elif system.kind == "ours":
                absent = [run.path.name for run in system.runs if run.path.name not in scored]
                yield from ({"system": system.label, "run": name, **about} for name in absent)


def _wanted(system: System, tested: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """The truth has a result only where re-projections are made."""
    if system.kind == "truth":
        return set()
    return tested | _asked([system]) if system.kind == "ours" else tested


def _asked(systems: Iterable[System]) -> set[tuple[str, str]]:
    """What their configurations name."""
    pairs = set()
    for experiment in (system.experiment for system in systems):
        cohorts = {experiment.data.cohort, *experiment.evaluation.cohorts}
        pairs |= {(cohort, "test") for cohort in cohorts} | {(experiment.data.cohort, "val")}
    return pairs


def _lacking(study: Study) -> Iterator[dict[str, Cell]]:
    for cohort, split in study.pairs:
        at = [(s, result) for s in study.everyone for result in study.results(s, cohort, split)]
        every = sorted({case for _, result in at for case in result.cases})
        for system, result in at:
            absent = sorted(set(every) - set(result.cases))
            if absent:
                yield {
                    "cohort": cohort,
                    "split": split,
                    "system": system.label,
                    "run": result.run,
                    "count": len(absent),
                    "cases": ", ".join(absent),
                }
