"""Checkpoints × cohorts: what is missing of a run's evaluation, computed once, and the leaderboard rebuilt.

    evaluate(Run.open("runs/demo"))

Each cohort's volumes, masks and X-rays are read once for a group of checkpoints and the rows that need none
(`prior-mean`, `prior-nearest`, `truth`). Any number of processes may do this to one run at the same time.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property, partial
from pathlib import Path

import torch

from xr2ct.config import Experiment
from xr2ct.errors import UserError, WorkFailed
from xr2ct.evaluation import priors
from xr2ct.evaluation.leaderboard import choose_best, rebuild_leaderboard
from xr2ct.evaluation.pairs import Expected, Pair, Stores, find_pairs, learnt_from
from xr2ct.evaluation.results import commit_rows, read_rows, result_file
from xr2ct.evaluation.scoring import TRUTH, Prediction, Predictor, score_pair, the_truth
from xr2ct.evaluation.truth import Truth
from xr2ct.methods.base import Batch
from xr2ct.run import Run, step_name
from xr2ct.stages import StageBefore, Stages, load_stage_before, load_stages
from xr2ct.store import StoreError
from xr2ct.weights import Which

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
    sweep, stores = Sweep(), Stores()
    damaged: dict[str, str] = {}
    pairs = find_pairs(experiment, cohorts, sweep.missing, stores, damaged)
    methods = load_methods(experiment, device, sweep.missing, stores)
    for name, why in sweep.missing.items():
        log.warning("%s left out: %s", name, why)
    failures: dict[str, None] = dict.fromkeys(damaged.values())
    for group in (chosen[i : i + AT_ONCE] for i in range(0, len(chosen), AT_ONCE)):
        predictors: dict[str, Predictor] = {**methods, **load_checkpoints(run, experiment, group, device)}
        for pair in pairs:
            if lacking := not_current(run, pair, predictors, experiment, stores):
                failed = score_and_commit(run, pair, lacking, experiment, device, sweep, stores)
                failures |= dict.fromkeys(failed.values())
                finish(run, experiment, pairs, sweep)
    finish(run, experiment, pairs, sweep)
    if failures:
        raise WorkFailed("\n".join(failures))
    return sweep


def not_current(
    run: Run, pair: Pair, predictors: Mapping[str, Predictor], experiment: Experiment, stores: Stores
) -> dict[str, Predictor]:
    """Those of `predictors` that have no current file on a split yet."""
    return {
        source: predictor
        for source, predictor in predictors.items()
        if not is_current(run, pair, source, Expected.of(pair, experiment, source, stores))
    }


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


def score_and_commit(
    run: Run,
    pair: Pair,
    predictors: Mapping[str, Predictor],
    experiment: Experiment,
    device: torch.device,
    sweep: Sweep,
    stores: Stores,
    *,
    replace: bool = False,
) -> dict[str, str]:
    """Commit a split's file of each source, once; returns by source why it has none.

    A file that is there and current is kept, since another process may have committed it meanwhile, unless
    `replace`.
    """
    expected = {source: Expected.of(pair, experiment, source, stores) for source in predictors}
    labels = {source: dict(told.labels) for source, told in expected.items()}
    try:
        rows, failures = score_pair(pair, predictors, labels, experiment, device)
    except WorkFailed as failure:
        return dict.fromkeys(predictors, f"{pair}: {failure}")
    for source in rows:
        file = result_file(run, source, pair.store.cohort, pair.split)
        if commit_rows(file, rows[source], None if replace else expected[source].met_by):
            sweep.written.append(file)
            log.info("%s: %s, %d patients", pair, source, len(rows[source]))
        else:
            log.info("%s: %s has been scored by another process meanwhile", pair, source)
    return failures


def finish(run: Run, experiment: Experiment, pairs: Sequence[Pair], sweep: Sweep) -> None:
    """Rebuild what is made from the files: the leaderboard, and `best` where there is a validation split."""
    rebuild_leaderboard(run)
    for pair in pairs:
        if (pair.store.cohort, pair.split) == (experiment.data.cohort, "val"):
            choose_best(run, pair.store.cohort, [case.id for case in pair.cases])
    sweep.best = run.best_step()


class Checkpoint:
    """A checkpoint's mapper, loaded when it is first needed."""

    def __init__(
        self, path: Path, which: Which, device: torch.device, before: Callable[[], StageBefore] | None
    ) -> None:
        self._path, self._which, self._device, self._before = path, which, device, before

    @cached_property
    def stages(self) -> Stages:
        """Raises `WorkFailed` where it is damaged."""
        try:
            before = None if self._before is None else self._before()
            return load_stages(self._path, self._which, self._device, before)
        except UserError as error:  # one damaged checkpoint must not end the sweep of the others
            raise WorkFailed(str(error)) from None

    def __call__(self, batch: Batch, truths: Sequence[Truth]) -> Prediction:
        return Prediction(self.stages(batch.views, batch.seeds))


def load_checkpoints(
    run: Run, experiment: Experiment, steps: Sequence[int], device: torch.device
) -> dict[str, Checkpoint]:
    """By source; each is read when it is first needed, and once, and so is the stage before them all."""
    which = experiment.evaluation.weights
    before = None
    if experiment.coarse is not None:
        before = cache(partial(load_stage_before, run.checkpoint(steps[0]), device))
    return {step_name(step): Checkpoint(run.checkpoint(step), which, device, before) for step in steps}


def load_methods(
    experiment: Experiment, device: torch.device, missing: dict[str, str], stores: Stores
) -> dict[str, Predictor]:
    """The rows without a checkpoint."""
    methods: dict[str, Predictor] = {TRUTH: the_truth} if experiment.evaluation.reprojection else {}
    try:
        store, cases = learnt_from(experiment, stores)
    except (UserError, StoreError) as error:
        missing["priors"] = str(error)
        return methods

    @cache
    def training_set() -> priors.TrainingSet:
        return priors.TrainingSet.read(store, cases, experiment.data, experiment.evaluation.batch, device)

    methods[priors.MEAN] = lambda batch, _: Prediction(training_set().mean_chest(batch))
    methods[priors.NEAREST] = lambda batch, _: Prediction(training_set().nearest_chest(batch))
    return methods


def is_current(run: Run, pair: Pair, source: str, expected: Expected) -> bool:
    """Whether the source's file is there, and of this split's cases, views, weights and volumes."""
    rows = read_rows(result_file(run, source, pair.store.cohort, pair.split))
    return rows is not None and expected.met_by(rows)


def choose_device(experiment: Experiment, device: torch.device | str | None) -> torch.device:
    told = experiment.training.device if device is None else device
    if told == "auto":
        told = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(told)
