"""Checkpoints whose volumes are made in other ways than by one pass of the mapper, scored beside it.

    evaluate_ways(Run.open("runs/demo"), [Way(refine=50)])

A way costs a multiple of a pass, so the best checkpoint alone is scored unless others are asked for. Where a
way has doubt, that is calibrated on the validation split first, and the calibration kept in the run.

Results lie beside the others, as RUN/evaluations/step-000500~refine-50/COHORT-SPLIT.csv.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from xr2ct.config import Experiment, Way
from xr2ct.errors import UserError, WorkFailed
from xr2ct.evaluation.aside import score_aside
from xr2ct.evaluation.in_way import InWay
from xr2ct.evaluation.leaderboard import mean_row
from xr2ct.evaluation.left_out import mean_views
from xr2ct.evaluation.metrics import PRIMARY
from xr2ct.evaluation.pairs import Expected, Pair, Stores, find_pairs, learnt_from
from xr2ct.evaluation.results import Result, read_results
from xr2ct.evaluation.scoring import Prediction, Predictor
from xr2ct.evaluation.sweep import (
    Checkpoint,
    Sweep,
    choose_device,
    load_checkpoints,
)
from xr2ct.evaluation.truth import Truth, read_truths
from xr2ct.loading.loader import sequential
from xr2ct.methods.base import Batch
from xr2ct.reconstruction.beams import XRays
from xr2ct.reconstruction.calibration import (
    Calibration,
    Fit,
    read_calibration,
    write_calibration,
    write_stand_in,
)
from xr2ct.reconstruction.make import Made, Maker
from xr2ct.run import Run, step_name

log = logging.getLogger(__name__)

WAYS_SHOWN = (
    PRIMARY,
    "honest/ssim",
    "honest_lungs/mae_hu",
    "spectral/sharpness",
    "reprojection/relative_l2",
    "doubt/coverage_68",
    "doubt/coverage_95",
    "doubt/spearman",
)
"""Metrics that a terminal has room for."""


def evaluate_ways(
    run: Run,
    ways: Sequence[Way],
    steps: str | int | Sequence[int] = "best",
    cohorts: Sequence[str] | None = None,
    device: torch.device | str | None = None,
) -> Sweep:
    """Score what is not scored yet of `steps` in each of the ways, on what `evaluate` scores.

    Raises as `evaluate` does, and `UserError` for a way that the run cannot go.
    """
    experiment = run.experiment()
    if not experiment.evaluation.reprojection:
        raise UserError(f"{run.path}: evaluation.reprojection is off, and ways need the X-rays that came in")
    on, stores = choose_device(experiment, device), Stores()
    return score_aside(
        run, steps, cohorts, on, stores, lambda step: load_ways(run, experiment, step, ways, on, stores)
    )


def load_ways(
    run: Run, experiment: Experiment, step: int, ways: Sequence[Way], device: torch.device, stores: Stores
) -> dict[str, Predictor]:
    """By source; the checkpoint is read when it is first needed, and once for all ways."""
    (checkpoint,) = load_checkpoints(run, experiment, [step], device).values()
    return {
        InWay(step_name(step), way.label).source: _Predictor(run, step, way, checkpoint, device, stores)
        for way in ways
    }


def read_ways(run: Run) -> list[tuple[InWay, Result]]:
    """Every such result of a run, by checkpoint, label, cohort and split."""
    found = [(InWay.of(result.source), result) for result in read_results(run, aside=True)]
    return [(told, result) for told, result in found if told]


def way_rows(run: Run) -> list[dict[str, Any]]:
    """Means over patients, in the form of the leaderboard's rows, `step` being the source."""
    return [{**mean_row(result), "way": told.label} for told, result in read_ways(run)]


class _Predictor:
    """A checkpoint in one way."""

    def __init__(
        self, run: Run, step: int, way: Way, checkpoint: Checkpoint, device: torch.device, stores: Stores
    ) -> None:
        self._run, self._step, self._way = run, step, way
        self._checkpoint, self._device, self._stores = checkpoint, device, stores

    def __call__(self, batch: Batch, truths: Sequence[Truth]) -> Prediction:
        """Raises `WorkFailed` where the checkpoint cannot go this way."""
        try:
            made = list(self._made(batch, truths))
            doubts = [self._calibrated(m, truth) for m, truth in zip(made, truths, strict=True)]
        except UserError as error:  # of this source alone: the others are scored
            raise WorkFailed(str(error)) from None
        volumes = torch.stack([m.unit for m in made])[:, None]
        return Prediction(volumes, torch.stack(doubts) if self._way.doubt else None)

    @cached_property
    def _maker(self) -> Maker:
        experiment = self._run.experiment()
        path = self._run.checkpoint(self._step)
        if self._way.doubt == "views":
            store, cases = learnt_from(experiment, self._stores)
            data, batch = experiment.data, experiment.evaluation.batch
            write_stand_in(self._run, mean_views(store, cases, data, batch, self._device), data.views)
        return Maker.of(path, self._checkpoint.stages, self._way, experiment.evaluation.weights, self._device)

    def _made(self, batch: Batch, truths: Sequence[Truth]) -> Iterator[Made]:
        for seeds, truth in zip(batch.seeds, truths, strict=True):
            assert truth.line_integrals is not None  # `read_truths` was told to
            yield self._maker(XRays(truth.line_integrals), seeds[None], truth.window)

    def _calibrated(self, made: Made, truth: Truth) -> Tensor:
        if made.doubt is None:
            return made.unit
        return self._calibration.apply(made.unit, made.doubt, truth.window, self._maker.cube_mm)

    @cached_property
    def _calibration(self) -> Calibration:
        """As it was kept, or fitted now where that is of other patients, draws or weights."""
        experiment, label = self._run.experiment(), self._way.label
        weights, over = experiment.evaluation.weights, self._maker.over
        pair = self._validation(experiment)
        source = InWay(step_name(self._step), label).source
        digest = Expected.of(pair, experiment, source, self._stores).digest()
        kept = read_calibration(self._run.checkpoint(self._step), label)
        if kept and kept.applies_to(over, weights) and kept.fitted_on == digest:
            return kept
        log.info("%s: calibrating the doubt of %s", pair, source)
        fit = Fit(self._maker.cube_mm)
        cases, data = {case.id: case for case in pair.cases}, experiment.data
        for batch in sequential(
            pair.store, pair.cases, data, batch=experiment.evaluation.batch, device=self._device
        ):
            truths = read_truths(pair.store, cases, batch, data, reproject=True)
            for made, truth in zip(self._made(batch, truths), truths, strict=True):
                assert made.doubt is not None
                fit.add(truth.case, made.unit, made.doubt, truth.unit, truth.window)
        calibration = fit.calibration(label, over, weights, digest)
        write_calibration(self._run, self._step, calibration)
        return calibration

    def _validation(self, experiment: Experiment) -> Pair:
        cohort = experiment.data.cohort
        for pair in find_pairs(experiment, [cohort], {}, self._stores):
            if pair.split == "val":
                return pair
        raise UserError(f"{self._run.path}: doubt: {cohort} has no validation case to calibrate it on")
