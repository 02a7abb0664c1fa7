"""Leave one view out at evaluation: what a mapper loses without it, and so what it takes from it.

    evaluate_left_out(Run.open("runs/demo"))

Each view in turn is replaced and the others stay. A mapper has never seen a picture of zeros, so what it
makes of one says little of the view; by default the mean view of the cases that it learnt from stands in,
which is a chest, of nobody. The mapper is not trained again: this is what it relies on, not what could be
done without the view. The re-projection error is against all views, the one left out too.

Results lie beside the others, as RUN/evaluations/step-000500~without-90/COHORT-SPLIT.csv.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor

from xr2ct.config import Data
from xr2ct.errors import UserError
from xr2ct.evaluation.aside import score_aside
from xr2ct.evaluation.leaderboard import mean_row
from xr2ct.evaluation.pairs import Expected, Stores, find_pairs, learnt_from
from xr2ct.evaluation.results import ASIDE, Result, read_results, views_label
from xr2ct.evaluation.scoring import Prediction, Predictor
from xr2ct.evaluation.sweep import (
    Sweep,
    choose_device,
    choose_steps,
    is_current,
    load_checkpoints,
)
from xr2ct.evaluation.truth import Truth
from xr2ct.loading.loader import sequential
from xr2ct.methods.base import Batch
from xr2ct.run import Run, step_name
from xr2ct.store import Case, Store

Fill = Literal["mean", "zero"]
"""What stands in a view's place: the mean view of the cases learnt from, or nothing at all."""
FILLS: tuple[Fill, ...] = get_args(Fill)

_SOURCE = re.compile(rf"(step-\d{{6,}}){ASIDE}without-(\d+(?:\.\d+)?)(?:-(zero))?")


@dataclass(frozen=True)
class LeftOut:
    """What a source says of the view that was left out."""

    checkpoint: str
    """``step-000500``."""
    angle: float
    """Of the view, degrees."""
    fill: Fill

    @property
    def source(self) -> str:
        suffix = "" if self.fill == "mean" else f"-{self.fill}"
        return f"{self.checkpoint}{ASIDE}without-{views_label([self.angle])}{suffix}"

    @classmethod
    def of(cls, source: str) -> LeftOut | None:
        """None where the source is no such one."""
        match = _SOURCE.fullmatch(source)
        return cls(match[1], float(match[2]), cast("Fill", match[3] or "mean")) if match else None


def evaluate_left_out(
    run: Run,
    steps: str | int | Sequence[int] = "best",
    cohorts: Sequence[str] | None = None,
    fill: Fill = "mean",
    device: torch.device | str | None = None,
) -> Sweep:
    """Score what is not scored yet of `steps` without each view in turn, on what `evaluate` scores.

    Raises as `evaluate` does, and `UserError` for a run of a single view, and where the mean view is asked
    for and the cases learnt from are not there.
    """
    experiment = run.experiment()
    data = experiment.data
    if len(data.views) < 2:
        raise UserError(f"{run.path}: has one view, {data.views[0]:g}°; leaving it out would leave none")
    on, stores = choose_device(experiment, device), Stores()
    stand_in = torch.zeros(len(data.views), 1, 1, device=on)
    if fill == "mean":
        store, cases = learnt_from(experiment, stores)
        stand_in = mean_views(store, cases, data, experiment.evaluation.batch, on)

    def predictors(step: int) -> dict[str, Predictor]:
        (checkpoint,) = load_checkpoints(run, experiment, [step], on).values()
        return {
            LeftOut(step_name(step), angle, fill).source: _Without(checkpoint, place, stand_in[place])
            for place, angle in enumerate(data.views)
        }

    return score_aside(run, steps, cohorts, on, stores, predictors)


def left_out_pending(run: Run, fill: Fill = "mean") -> bool:
    """Whether `evaluate_left_out` of the best checkpoint has something to score."""
    experiment, stores = run.experiment(), Stores()
    sources = [
        LeftOut(step_name(step), angle, fill).source
        for step in choose_steps(run, "best")
        for angle in experiment.data.views
    ]
    return not all(
        is_current(run, pair, source, Expected.of(pair, experiment, source, stores))
        for pair in find_pairs(experiment, None, {}, stores)
        for source in sources
    )


def mean_views(store: Store, cases: Sequence[Case], data: Data, batch: int, device: torch.device) -> Tensor:
    """(view, row, col) float32: the mean over `cases`, scaled as the mapper sees them, not augmented."""
    total = torch.zeros((), dtype=torch.float64, device=device)
    for part in sequential(store, cases, data, batch=batch, device=device):
        total = total + part.views.sum(dim=0, dtype=torch.float64)
    return (total / len(cases)).float()


def read_left_out(run: Run) -> list[tuple[LeftOut, Result]]:
    """Every such result of a run, by checkpoint, angle as text, cohort and split."""
    found = [(LeftOut.of(result.source), result) for result in read_results(run, aside=True)]
    return [(left_out, result) for left_out, result in found if left_out]


def left_out_rows(run: Run) -> list[dict[str, Any]]:
    """Means over patients, in the form of the leaderboard's rows, `step` being the source."""
    return [
        {**mean_row(result), "left_out": told.angle, "fill": told.fill} for told, result in read_left_out(run)
    ]


class _Without:
    """A checkpoint that sees `stand_in` (row, col), or one figure, in place of a view."""

    def __init__(self, checkpoint: Predictor, place: int, stand_in: Tensor) -> None:
        self._checkpoint, self._place, self._stand_in = checkpoint, place, stand_in

    def __call__(self, batch: Batch, truths: Sequence[Truth]) -> Prediction:
        views = batch.views.clone()
        views[:, self._place] = self._stand_in
        return self._checkpoint(replace(batch, views=views), truths)
