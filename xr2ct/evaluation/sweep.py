"""Checkpoints × cohorts: what is missing of a run's evaluation, computed once, and the leaderboard rebuilt.

    evaluate(Run.open("runs/demo"))

Each cohort's volumes, masks and X-rays are read once for a group of checkpoints and the rows that need none
(`prior-mean`, `prior-nearest`, `truth`). Any number of processes may do this to one run at the same time.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path

import torch
from torch import Tensor

from xr2ct.cohorts.catalogue import catalogue
from xr2ct.cohorts.names import check_cohort
from xr2ct.config import Experiment
from xr2ct.errors import UserError, WorkFailed
from xr2ct.evaluation import priors, reprojection
from xr2ct.evaluation.leaderboard import choose_best, rebuild_leaderboard
from xr2ct.evaluation.results import read_rows, result_file, write_rows
from xr2ct.evaluation.scoring import TRUTH, Pair, Predictor, labels, score_pair, the_truth
from xr2ct.evaluation.truth import Truth
from xr2ct.loading.loader import NO_AUGMENTATION
from xr2ct.loading.source import Source
from xr2ct.methods.base import Batch
from xr2ct.models.mapper import Mapper
from xr2ct.run import Run, step_name
from xr2ct.store import Store
from xr2ct.store.apart import check_apart
from xr2ct.training.start import training_cases
from xr2ct.weights import Which, load_mapper

log = logging.getLogger(__name__)

AT_ONCE = 8
"""Checkpoints in memory at once, 0.25 GB each at the paper's size."""


@dataclass
class Sweep:
    """What an evaluation did."""

    written: list[Path] = field(default_factory=list)
    """Files committed."""
    missing: dict[str, str] = field(default_factory=dict)
    """Cohorts, splits or priors that could not be scored, and why."""
    best: int | None = None
    """The step that RUN/best points to."""


def evaluate(
    run: Run,
    steps: str | int | Sequence[int] = "all",
    cohorts: Sequence[str] | None = None,
    device: torch.device | str | None = None,
) -> Sweep:
    """Score what is not scored yet of `steps` (`best`, `last`, `all`, or numbers) on every cohort.

    That is the training cohort's validation and test splits and the test splits of the others, of the
    configuration's cohorts or of `cohorts`. Stores that are not there are named in the result, or are a
    `UserError` where they were asked for by name. Raises `WorkFailed`, after all the rest is done, where a
    reconstruction is not finite or a store is damaged.
    """
    experiment = run.experiment()
    device = choose_device(experiment, device)
    chosen = choose_steps(run, steps)
    sweep = Sweep()
    pairs = find_pairs(experiment, cohorts, sweep.missing)
    methods = _methods(experiment, device, sweep.missing)
    failures: list[str] = []
    for group in (chosen[i : i + AT_ONCE] for i in range(0, len(chosen), AT_ONCE)):
        which = experiment.evaluation.weights
        checkpoints = {step_name(step): _Checkpoint(run.checkpoint(step), which, device) for step in group}
        for pair in pairs:
            lacking = _lacking(run, pair, {**methods, **checkpoints}, experiment)
            if lacking:
                failures += score_and_commit(run, pair, lacking, experiment, device, sweep)
                finish(run, experiment, pairs, sweep)
    finish(run, experiment, pairs, sweep)
    if failures:
        raise WorkFailed("\n".join(failures))
    return sweep


def choose_steps(run: Run, steps: str | int | Sequence[int]) -> list[int]:
    """Outer steps of whole checkpoints, ascending; `UserError` where one is not there."""
    whole = run.steps()
    if not whole:
        raise UserError(f"{run.path}: no whole checkpoint yet")
    if steps == "all":
        return whole
    if steps == "last":
        return whole[-1:]
    if steps == "best":
        best = run.best_step()
        if best is None:
            raise UserError(f"{run.path}: no best checkpoint yet; evaluate with --step all first")
        return [best]
    asked = [steps] if isinstance(steps, str | int) else list(steps)
    for step in asked:
        if not str(step).isdigit() or int(step) not in whole:
            there = ", ".join(map(str, whole))
            raise UserError(f"{run.path}: no checkpoint of step {step!r}; valid: best, last, all, {there}")
    return sorted({int(step) for step in asked})


def find_pairs(experiment: Experiment, cohorts: Sequence[str] | None, missing: dict[str, str]) -> list[Pair]:
    """Splits to score, in the cohorts' order; one not there is noted in `missing`, refused if asked for.

    `UserError` where somebody learnt from is in one of them.
    """
    data = experiment.data
    asked = {check_cohort(name) for name in cohorts or ()}
    pairs = []
    wanted = asked or {data.cohort, *experiment.evaluation.cohorts}
    for cohort in (c for c in catalogue() if c in wanted):
        try:
            store = _open(experiment, cohort)
        except UserError as error:
            if asked:
                raise
            _leave_out(missing, cohort, str(error))
            continue
        splits = {
            name: store.split(name) for name in (("val", "test") if cohort == data.cohort else ("test",))
        }
        if asked and not any(splits.values()):
            raise UserError(f"{store.path}: no case in its {' or '.join(splits)} split")
        for split, cases in splits.items():
            if cases:
                pairs.append(Pair(store, split, cases))
            else:
                _leave_out(missing, f"{cohort}-{split}", f"{store.path}: no case in its {split} split")
    if not pairs:
        raise UserError(f"{data.stores}: no store with a case to score, of {', '.join(missing)}")
    tested = {pair.store.path: pair.store for pair in pairs}
    try:
        learnt = Store.open(data.store(data.cohort))
    except UserError:
        return pairs  # not there to compare with: `_methods` says so
    check_apart(learnt, list(tested.values()))
    return pairs


def score_and_commit(
    run: Run,
    pair: Pair,
    predictors: Mapping[str, Predictor],
    experiment: Experiment,
    device: torch.device,
    sweep: Sweep,
) -> list[str]:
    """Write a split's file of each source; returns what failed."""
    try:
        rows, failures = score_pair(pair, predictors, experiment, device)
    except WorkFailed as failure:
        return [f"{pair}: {failure}"]
    for source in rows:
        file = result_file(run, source, pair.store.cohort, pair.split)
        write_rows(file, rows[source])
        sweep.written.append(file)
        log.info("%s: %s, %d patients", pair, source, len(rows[source]))
    return failures


def finish(run: Run, experiment: Experiment, pairs: Sequence[Pair], sweep: Sweep) -> None:
    """Rebuild what is made from the files: the leaderboard, and `best` where there is a validation split."""
    rebuild_leaderboard(run)
    for pair in pairs:
        if (pair.store.cohort, pair.split) == (experiment.data.cohort, "val"):
            choose_best(run, pair.store.cohort, [case.id for case in pair.cases])
    sweep.best = run.best_step()


class _Checkpoint:
    """A checkpoint's mapper, loaded when it is first needed."""

    def __init__(self, path: Path, which: Which, device: torch.device) -> None:
        self._path, self._which, self._device = path, which, device

    @cached_property
    def _mapper(self) -> Mapper:
        try:
            return load_mapper(self._path, self._which, self._device)[0]
        except UserError as error:  # one damaged checkpoint must not end the sweep of the others
            raise WorkFailed(str(error)) from None

    def __call__(self, batch: Batch, truths: Sequence[Truth]) -> Tensor:
        with torch.inference_mode():
            return self._mapper(batch.views)


def _methods(experiment: Experiment, device: torch.device, missing: dict[str, str]) -> dict[str, Predictor]:
    """The rows without a checkpoint."""
    methods: dict[str, Predictor] = {TRUTH: the_truth} if experiment.evaluation.reprojection else {}
    try:
        store = _open(experiment, experiment.data.cohort)
        cases = training_cases(experiment, store)
    except UserError as error:
        _leave_out(missing, "priors", str(error))
        return methods

    @cache
    def training_set() -> priors.TrainingSet:
        return priors.TrainingSet.read(store, cases, experiment.data, experiment.evaluation.batch, device)

    methods[priors.MEAN] = lambda batch, _: training_set().mean_chest(batch)
    methods[priors.NEAREST] = lambda batch, _: training_set().nearest_chest(batch)
    return methods


def _open(experiment: Experiment, cohort: str) -> Store:
    """A cohort's store; `UserError` where it is not there or other than the mapper was trained for."""
    data, resolved = experiment.data, experiment.resolved
    store = Store.open(data.store(cohort))
    Source(store, [], data, NO_AUGMENTATION)
    made = {"cube_mm": store.cube_mm, **store.geometries[data.geometry].as_attributes()}
    trained = {"cube_mm": resolved.cube_mm, **resolved.geometry} if resolved else made
    for key, value in made.items():
        if trained.get(key) != value:
            raise UserError(f"{store.path}: {key} {value}, but the run was trained with {trained.get(key)}")
    return store


def _lacking(
    run: Run, pair: Pair, predictors: Mapping[str, Predictor], experiment: Experiment
) -> dict[str, Predictor]:
    """The sources whose file is not there, or is not of this split's cases, views, weights and volumes."""
    return {s: p for s, p in predictors.items() if not _is_current(run, pair, s, experiment)}


def _is_current(run: Run, pair: Pair, source: str, experiment: Experiment) -> bool:
    rows = read_rows(result_file(run, source, pair.store.cohort, pair.split))
    if rows is None or [row["case"] for row in rows] != [case.id for case in pair.cases]:
        return False
    expected = labels(pair, experiment, source)
    if any(row[name] != value for row in rows for name, value in expected.items()):
        return False
    return not experiment.evaluation.reprojection or not math.isnan(rows[0][reprojection.COLUMNS[0]])


def _leave_out(missing: dict[str, str], name: str, reason: str) -> None:
    missing[name] = reason
    log.warning("%s left out: %s", name, reason)


def choose_device(experiment: Experiment, device: torch.device | str | None) -> torch.device:
    told = experiment.training.device if device is None else device
    if told == "auto":
        told = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(told)
