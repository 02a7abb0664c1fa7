"""Scoring what stands beside a run's checkpoints, in tables of its own: views left out, other ways."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch

from xr2ct.errors import WorkFailed
from xr2ct.evaluation.pairs import Stores, find_pairs
from xr2ct.evaluation.scoring import Predictor
from xr2ct.evaluation.sweep import Sweep, choose_steps, not_current, score_and_commit
from xr2ct.run import Run


def score_aside(
    run: Run,
    steps: str | int | Sequence[int],
    cohorts: Sequence[str] | None,
    device: torch.device,
    stores: Stores,
    predictors: Callable[[int], Mapping[str, Predictor]],
) -> Sweep:
    """Score what is not scored yet of a step's `predictors`, by source, on what `evaluate` scores.

    Raises as `evaluate` does.
    """
    experiment = run.experiment()
    chosen = choose_steps(run, steps)
    sweep = Sweep(best=run.best_step())
    damaged: dict[str, str] = {}
    pairs = find_pairs(experiment, cohorts, sweep.missing, stores, damaged)
    failures: dict[str, None] = dict.fromkeys(damaged.values())
    for step in chosen:
        of_step = predictors(step)
        for pair in pairs:
            if lacking := not_current(run, pair, of_step, experiment, stores):
                failed = score_and_commit(run, pair, lacking, experiment, device, sweep, stores)
                failures |= dict.fromkeys(failed.values())
    if failures:
        raise WorkFailed("\n".join(failures))
    return sweep
