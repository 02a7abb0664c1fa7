"""What a report is about: systems, each trained with one or more seeds, and what is scored beside them.

    study = Study.of([Run.open(path) for path in paths])

Every file of results is read once, when it is first asked for.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from xr2ct.cohorts.names import COHORTS
from xr2ct.config import Experiment, flatten
from xr2ct.errors import UserError
from xr2ct.evaluation import priors, reprojection
from xr2ct.evaluation.metrics import PRIMARY
from xr2ct.evaluation.results import Means, Result, read_results
from xr2ct.evaluation.scoring import TRUTH
from xr2ct.reporting.systems import Group, System, name_apart
from xr2ct.run import Run, step_name

log = logging.getLogger(__name__)

NAMES = {
    priors.MEAN: "mean chest (prior)",
    priors.NEAREST: "nearest patient (prior)",
    TRUTH: "the truth itself",
}
"""Of results without a checkpoint, by their folder's name; predictions from elsewhere keep theirs."""

_SEEDS_ALONE = {"name", "label", "seed", "run_root", "tracking", "resolved", "exhibits"}
"""Keys in which the runs of one system may differ, but for the label."""

_DEPENDS_ON_FILES = ("stores", "cohort", "size", "hu_window", "geometry", "views")
_DEPENDS_ON = {
    priors.MEAN: ("stores", "cohort", "size", "hu_window", "train_cases"),
    priors.NEAREST: (
        *("stores", "cohort", "size", "hu_window", "train_cases"),
        *("geometry", "views", "xray_scale"),
    ),
    TRUTH: ("stores", "size", "hu_window", "geometry", "views"),
}
"""Keys of `data` that a method without training, or the rows that it is scored on, depends on."""


@dataclass(frozen=True, eq=False)
class Study:
    """Systems by label, and their results."""

    systems: tuple[System, ...]
    """Trained, in the order given."""
    others: tuple[System, ...]
    """Predictions from elsewhere, priors, and the truth in a reconstruction's place."""
    scaling: str
    """``window`` or ``minmax``, the same for all."""
    _read: Mapping[Path, _RunResults] = field(repr=False)

    @classmethod
    def of(cls, runs: Sequence[Run]) -> Study:
        """Group runs into systems.

        Raises `UserError` for a run that has no evaluated best checkpoint yet, and where runs differ in
        data.scaling: no common table could hold their figures.
        """
        read = {run.path: _RunResults(run) for run in runs}
        for path, told in read.items():
            if told.best is None:
                raise UserError(f"{path}: no best checkpoint yet; run `xr2ct evaluate {path}` first")
        if not read:
            raise UserError("no run to report on")
        scalings = sorted({told.experiment.data.scaling for told in read.values()})
        if len(scalings) > 1:
            raise UserError("these runs differ in data.scaling; their figures stand in no common table")
        loaded = list(read.values())
        trained, untrained = _trained(loaded), _untrained(loaded)
        groups = name_apart([*trained, *untrained])
        systems = [group.system() for group in groups]
        return cls(tuple(systems[: len(trained)]), tuple(systems[len(trained) :]), scalings[0], read)

    @property
    def everyone(self) -> tuple[System, ...]:
        """Trained systems, then the others."""
        return (*self.systems, *self.others)

    def results(self, system: System, cohort: str | None = None, split: str | None = None) -> list[Result]:
        """Of a system one for each of its seeds and each cohort's split, or of those asked for; in the order
        of `pairs`, then of its runs."""
        return [
            result
            for result in self._of_system[system.label]
            if cohort in (None, result.cohort) and split in (None, result.split)
        ]

    def every(self, run: Run) -> list[Means]:
        """All that a run is scored on: every checkpoint, and every source without one."""
        return self._read[run.path].every

    def experiment(self, run: Run) -> Experiment:
        """The configuration of one of the runs."""
        return self._read[run.path].experiment

    def best(self, run: Run) -> int:
        """Its best checkpoint's step, the same throughout however evaluation goes on meanwhile."""
        return self._read[run.path].best or 0

    @cached_property
    def pairs(self) -> list[tuple[str, str]]:
        """Cohorts and splits that anyone is scored on: the seven cohorts in the paper's order, then others by
        name; validation before test."""
        found = {(r.cohort, r.split) for results in self._of_system.values() for r in results}
        return sorted(found, key=order)

    @property
    def tested(self) -> list[str]:
        """Cohorts of which a test split is scored."""
        return [cohort for cohort, split in self.pairs if split == "test"]

    @cached_property
    def _of_system(self) -> dict[str, list[Result]]:
        return {system.label: self._gather(system) for system in self.everyone}

    def _gather(self, system: System) -> list[Result]:
        results: list[Result] = []
        seen: dict[tuple[str, str, int | None], Result] = {}
        for run in system.runs:
            experiment = self.experiment(run)
            source = system.source or step_name(self.best(run))
            seed = experiment.seed if system.source is None or _is_drawn(system.source, experiment) else None
            for result in (r for r in self._read[run.path].results if r.source == source):
                first = seen.setdefault((result.cohort, result.split, seed), result)
                if first is result:
                    results.append(result)
                elif system.kind == "elsewhere" and not _same_scores(first, result):
                    log.warning(
                        "%s %s: %s in %s is other than that in %s, which is shown",
                        *(result.cohort, result.split, source, result.run, first.run),
                    )
        if system.source == priors.MEAN and len({_beams(self.experiment(run)) for run in system.runs}) > 1:
            results = [_without_reprojection(result) for result in results]
        return sorted(results, key=lambda r: order((r.cohort, r.split)))


def order(pair: tuple[str, str]) -> tuple[int, str, int]:
    """Sorts (cohort, split): a laboratory's own cohorts after the seven, validation before test."""
    cohort, split = pair
    place = COHORTS.index(cohort) if cohort in COHORTS else len(COHORTS)
    return (place, cohort, ("val", "test").index(split) if split in ("val", "test") else 2)


class _RunResults:
    """A run's configuration and results, each read once."""

    def __init__(self, run: Run) -> None:
        self.run = run

    @cached_property
    def experiment(self) -> Experiment:
        return self.run.experiment()

    @cached_property
    def best(self) -> int | None:
        return self.run.best_step()

    @property
    def results(self) -> list[Result]:
        """Of the best checkpoint and of every source without one."""
        return self._files[0]

    @property
    def every(self) -> list[Means]:
        return self._files[1]

    @cached_property
    def _files(self) -> tuple[list[Result], list[Means]]:
        every = read_results(self.run)
        return [r for r in every if r.step in (None, self.best)], [r.means() for r in every]


def _trained(read: Sequence[_RunResults]) -> list[Group]:
    """Runs by what they differ in besides their seed; a second run of the same seed stands alone."""
    groups: list[Group] = []
    for told in read:
        experiment = told.experiment
        facts = flatten(experiment.model_dump(mode="json", exclude=_SEEDS_ALONE))
        label = experiment.label or experiment.name
        group = next(
            (g for g in groups if (g.label, g.facts) == (label, facts) and experiment.seed not in g.seeds),
            None,
        )
        if group is None:
            groups.append(group := Group(label, facts, experiment))
        group.runs.append(told.run)
        group.seeds.append(experiment.seed)
    return groups


def _untrained(read: Sequence[_RunResults]) -> list[Group]:
    """Predictions from elsewhere by name, then the priors, then the truth; apart where what they were given
    or are compared with differs."""
    groups: list[Group] = []
    for told in read:
        for source in dict.fromkeys(r.source for r in told.results if r.step is None):
            data = told.experiment.data.model_dump(mode="json")
            facts = {f"data.{key}": data[key] for key in _DEPENDS_ON.get(source, _DEPENDS_ON_FILES)}
            facts["source"] = source
            label = NAMES.get(source, source)
            group = next((g for g in groups if (g.source, g.facts) == (source, facts)), None)
            if group is None:
                groups.append(group := Group(label, facts, told.experiment, source))
            group.runs.append(told.run)
            group.seeds.append(told.experiment.seed)
    place = {priors.MEAN: 1, priors.NEAREST: 2, TRUTH: 3}
    return sorted(groups, key=lambda group: place.get(group.source or "", 0))


def _is_drawn(source: str, experiment: Experiment) -> bool:
    """Whether a method without training depends on the seed: a prior does by the training cases it knows."""
    return source in (priors.MEAN, priors.NEAREST) and experiment.data.train_cases is not None


def _beams(experiment: Experiment) -> tuple[Any, ...]:
    return (experiment.data.geometry, experiment.data.views)


def _without_reprojection(result: Result) -> Result:
    """The mean chest is the same volume whatever the views; its re-projection error is not."""
    rows = [{**row, **dict.fromkeys(reprojection.COLUMNS, math.nan)} for row in result.rows]
    return replace(result, rows=rows)


def _same_scores(one: Result, other: Result) -> bool:
    """By the metric that every table rests on, whatever device computed it."""
    a, b = ({row["case"]: row[PRIMARY] for row in r.rows} for r in (one, other))
    return a.keys() == b.keys() and all(math.isclose(a[case], b[case], abs_tol=1e-3) for case in a)
