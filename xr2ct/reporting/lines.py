"""Systems along an axis: those that differ in nothing else make one line of a chart."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from xr2ct.config import Experiment, flatten, validate
from xr2ct.registry import component
from xr2ct.reporting.chart import Panel, Series
from xr2ct.reporting.statistics import Summary, summary
from xr2ct.reporting.study import Study
from xr2ct.reporting.systems import Group, System, name_apart

_NO_DIFFERENCE = {
    "name", "label", "seed", "run_root", "tracking", "resolved", "exhibits", "variants",
}  # fmt: skip
"""What does not keep two systems from standing on one line; what variants change is in other keys."""

Chance = Literal["patients", "seeds"]
"""Whose spread is drawn: the 95 % interval over patients, or the standard deviation of the seeds' means."""


@dataclass
class Line:
    """Systems by their place."""

    label: str
    systems: dict[float, System] = field(default_factory=dict)
    """In ascending order."""


def lines(
    systems: Sequence[System],
    place: Callable[[System], float | None],
    apart: Collection[str],
    label: Callable[[Experiment], str] | None = None,
    *,
    at_least: int = 1,
) -> list[Line]:
    """Group systems that differ in no key but those in `apart`, each at its `place`; None leaves it out.

    label: of a line; what its systems are called where unset, if all are called the same. Lines of the same
    label are told apart by what they differ in. at_least: systems of a line; one with fewer is left out.
    """
    found: list[tuple[Group, Line]] = []
    for system in systems:
        if (x := place(system)) is None:
            continue
        facts = {key: value for key, value in full_facts(system.experiment).items() if key not in apart}
        line = next((ln for group, ln in found if group.facts == facts and x not in ln.systems), None)
        if line is None:
            line = Line("")
            found.append((Group("", facts, system.experiment, runs=list(system.runs)), line))
        line.systems[x] = system
    found = [(group, line) for group, line in found if len(line.systems) >= at_least]
    for group, line in found:
        line.systems = dict(sorted(line.systems.items()))
        called = {s.experiment.label or s.experiment.name for s in line.systems.values()}
        shared = called.pop() if len(called) == 1 else group.experiment.mapper.get("name", "")
        group.label = label(group.experiment) if label else shared
    name_apart([group for group, _ in found])
    for group, line in found:
        line.label = group.label
    return [line for _, line in found]


def full_facts(experiment: Experiment) -> dict[str, Any]:
    """Every key that may matter with its value, the method's own defaults among them."""
    values = experiment.model_dump(mode="json", exclude=_NO_DIFFERENCE)
    keys = dict(experiment.method)
    name = keys.pop("name")
    config = validate(component("xr2ct.methods", name).Config, keys, f"method {name}")
    return flatten(values | {"method": {"name": name, **config.model_dump(mode="json")}})


def places(found: Sequence[Line]) -> tuple[float, ...]:
    """Where any line has a system, ascending."""
    return tuple(sorted({x for line in found for x in line.systems}))


def series(study: Study, line: Line, cohort: str, column: str, chance: Chance, **style: Any) -> Series:
    """A line's metric on a cohort's test split; its systems that were not scored there are left out."""
    points = {x: summary(study.results(s, cohort, "test"), column) for x, s in line.systems.items()}
    drawn = {x: found for x, found in points.items() if math.isfinite(found.mean)}
    ends = [_ends(found, chance) for found in drawn.values()]
    return Series(
        style.pop("label", line.label),
        tuple(drawn),
        tuple(found.mean for found in drawn.values()),
        tuple(low for low, _ in ends),
        tuple(high for _, high in ends),
        **style,
    )


def cohort_panels(
    study: Study, found: Sequence[Line], xlabel: str, columns: dict[str, str], chance: Chance
) -> tuple[Panel, ...]:
    """Of one line a panel for each metric, with a series for each cohort; of several a panel for each metric
    and cohort, with a series for each line."""
    if len(found) == 1:
        return tuple(
            _panel(
                [series(study, found[0], c, column, chance, label=c) for c in study.tested],
                *(xlabel, name, found),
            )
            for column, name in columns.items()
        )
    return tuple(
        _panel([series(study, line, c, column, chance) for line in found], xlabel, name, found, c)
        for column, name in columns.items()
        for c in study.tested
    )


def elsewhere(study: Study, cohort: str) -> str | None:
    """The cohort that stands for those not trained on: the paper's MIDRC-RICORD-1b where it is scored."""
    others = [c for c in study.tested if c != cohort]
    return "midrc-ricord-1b" if "midrc-ricord-1b" in others else next(iter(others), None)


def _panel(
    drawn: Sequence[Series], xlabel: str, ylabel: str, found: Sequence[Line], title: str = ""
) -> Panel:
    ticks = places(found)
    return Panel(
        xlabel, ylabel, tuple(s for s in drawn if s.x), log_x=len(ticks) > 1, ticks=ticks, title=title
    )


def _ends(found: Summary, chance: Chance) -> tuple[float, float]:
    if chance == "patients":
        return found.low, found.high
    spread = 0.0 if math.isnan(found.spread) else found.spread
    return found.mean - spread, found.mean + spread
