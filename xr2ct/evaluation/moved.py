"""Patients who moved between two X-rays, on purpose: what it costs a mapper, and what alignment brings back.

    evaluate_moved(Run.open("runs/demo"), [Way(), Way(align=3)])

Each case's patient is turned and shifted after the first view, by a motion drawn from the case's name, and
scored against the volume as he lay in the first. The views are projected from the store's finest volume,
which has to be a good deal finer than what is reconstructed: moved on the mapper's own grid they would be
just what alignment models. What is not known of a patient beyond the cube goes on as at its edge.

Results lie beside the others, as RUN/evaluations/step-000500~moved-5-10+align-3/COHORT-SPLIT.csv, and the
poses, drawn and found, as COHORT-SPLIT.poses.csv beside that.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from xr2ct.config import Experiment, Way
from xr2ct.errors import UserError, WorkFailed
from xr2ct.evaluation.pairs import Pair, Stores, find_pairs
from xr2ct.evaluation.results import ASIDE, Result, csv_text, read_results, result_file
from xr2ct.evaluation.scoring import Prediction
from xr2ct.evaluation.sweep import (
    Checkpoint,
    Sweep,
    choose_device,
    choose_steps,
    load_checkpoints,
    not_current,
    score_and_commit,
)
from xr2ct.evaluation.truth import Truth
from xr2ct.methods.base import Batch
from xr2ct.reconstruction.beams import Beams, XRays
from xr2ct.reconstruction.make import Made, Maker
from xr2ct.reconstruction.pose import Pose
from xr2ct.run import Run, step_name, write_atomically
from xr2ct.seeds import generator
from xr2ct.store import Case, Store
from xr2ct.window import HuWindow

FINEST = 2
"""Times as fine as the reconstruction, at least, is the volume that is moved."""
_WHOLE = HuWindow(-1024.0, 3071.0)
"""All that a CT holds."""
_MOTION = ("turn_x_deg", "turn_y_deg", "turn_z_deg", "shift_x_mm", "shift_y_mm", "shift_z_mm")
_SOURCE = re.compile(rf"(step-\d{{6,}}){ASIDE}moved-([\d.]+)-([\d.]+)(-corner)?(?:\+(.+))?")


@dataclass(frozen=True)
class Motion:
    """How far patients move between the first view and each other."""

    rotation_deg: float = 5.0
    """Largest figure of the rotation vector."""
    shift_mm: float = 10.0
    """Largest shift along each axis."""
    corner: bool = False
    """Every figure at its largest, its sign alone drawn; else each is drawn evenly."""

    def draw(self, case: str, views: int) -> tuple[Pose, ...]:
        """Of each view of a case; none of the first. The same for the same case, whatever else is drawn."""
        rng = generator(0, "moved", case, int(self.corner))
        drawn = rng.uniform(-1, 1, (views - 1, 6))
        parts = np.sign(drawn) if self.corner else drawn
        largest = [self.rotation_deg] * 3 + [self.shift_mm] * 3
        return (Pose(), *(Pose.of((one * largest).tolist()) for one in parts))


@dataclass(frozen=True)
class Moved:
    """What a source says of how its patients moved."""

    checkpoint: str
    """``step-000500``."""
    motion: Motion
    label: str
    """`config.Way.label` of how the volumes were made; empty for the mapper alone."""

    @property
    def source(self) -> str:
        corner = "-corner" if self.motion.corner else ""
        how = f"moved-{self.motion.rotation_deg:g}-{self.motion.shift_mm:g}{corner}"
        return f"{self.checkpoint}{ASIDE}{how}" + (f"+{self.label}" if self.label else "")

    @classmethod
    def of(cls, source: str) -> Moved | None:
        """None where the source is no such one."""
        match = _SOURCE.fullmatch(source)
        if not match:
            return None
        return cls(match[1], Motion(float(match[2]), float(match[3]), bool(match[4])), match[5] or "")


def moved_views(
    store: Store, case: Case, geometry: str, angles_deg: Sequence[float], poses: Sequence[Pose], size: int
) -> Tensor:
    """Line integrals (view, row, col) float32 of a patient who lay in `poses`; where still, the store's.

    size: of what is reconstructed. `UserError` where the store has no volume `FINEST` times as fine.
    """
    finest = max(store.sizes)
    if finest < FINEST * size:
        raise UserError(
            f"{store.path}: its finest volumes are {finest}³, and to move patients honestly takes at least "
            f"{FINEST * size}³; add them with `xr2ct ingest --size {size},{FINEST * size}`"
        )
    views = torch.from_numpy(store.xray(case, geometry, angles_deg))
    volume = _WHOLE.to_unit(torch.from_numpy(store.volume(case, finest)).float())
    for place, (angle, pose) in enumerate(zip(angles_deg, poses, strict=True)):
        if not pose.still:
            beams = Beams(store.geometries[geometry], (angle,), store.cube_mm, _WHOLE, (pose,))
            views[place] = beams.project(volume)[0]
    return views


def evaluate_moved(
    run: Run,
    ways: Sequence[Way] = (Way(), Way(align=3)),
    motion: Motion = Motion(),
    steps: str | int | Sequence[int] = "best",
    cohorts: Sequence[str] | None = None,
    device: torch.device | str | None = None,
) -> Sweep:
    """Score what is not scored yet of `steps` on patients who moved, in each of the ways (of no doubt).

    Raises as `evaluate` does, and `UserError` for a run of a single view, a way that draws or doubts, and for
    stores without volumes fine enough.
    """
    experiment = run.experiment()
    if len(experiment.data.views) < 2:
        raise UserError(
            f"{run.path}: has one view, {experiment.data.views[0]:g}°; nobody moves between views"
        )
    if odd := next((way.label for way in ways if way.samples > 1 or way.doubt), None):
        raise UserError(f"way {odd}: patients who moved are scored as aligned or refined alone")
    device = choose_device(experiment, device)
    sweep, stores = Sweep(best=run.best_step()), Stores()
    damaged: dict[str, str] = {}
    pairs = find_pairs(experiment, cohorts, sweep.missing, stores, damaged)
    failures: dict[str, None] = dict.fromkeys(damaged.values())
    for step in choose_steps(run, steps):
        (checkpoint,) = load_checkpoints(run, experiment, [step], device).values()
        for pair in pairs:
            predictors = {
                Moved(step_name(step), motion, way.label).source: _Predictor(
                    run, step, way, motion, pair, checkpoint, device
                )
                for way in ways
            }
            lacking = not_current(run, pair, predictors, experiment, stores)
            if lacking:
                failed = score_and_commit(run, pair, lacking, experiment, device, sweep, stores)
                failures |= dict.fromkeys(failed.values())
                for source in lacking.keys() - failed.keys():
                    predictors[source].write_poses(source)
    if failures:
        raise WorkFailed("\n".join(failures))
    return sweep


def read_moved(run: Run) -> list[tuple[Moved, Result]]:
    """Every such result of a run, by checkpoint, motion, way, cohort and split."""
    found = [(Moved.of(result.source), result) for result in read_results(run, aside=True)]
    return [(told, result) for told, result in found if told]


@dataclass
class _Predictor:
    """A checkpoint in one way, on the patients of a split who moved."""

    run: Run
    step: int
    way: Way
    motion: Motion
    pair: Pair
    checkpoint: Checkpoint
    device: torch.device
    lines: list[list[str]] = field(default_factory=list)
    """Of the poses' file."""

    def __call__(self, batch: Batch, truths: Sequence[Truth]) -> Prediction:
        """Raises `WorkFailed` where the checkpoint cannot go this way."""
        try:
            made = list(self._made(batch, truths))
        except UserError as error:  # of this source alone: the others are scored
            raise WorkFailed(str(error)) from None
        return Prediction(torch.stack([one.unit for one in made])[:, None])

    def write_poses(self, source: str) -> None:
        file = result_file(self.run, source, self.pair.store.cohort, self.pair.split)
        drawn, found = ([f"{which}_{name}" for name in _MOTION] for which in ("drawn", "found"))
        write_atomically(
            file.with_suffix(".poses.csv"), csv_text([["case", "view", *drawn, *found], *self.lines])
        )

    def _made(self, batch: Batch, truths: Sequence[Truth]) -> Iterator[Made]:
        data, store = self._experiment.data, self.pair.store
        cases = {case.id: case for case in self.pair.cases}
        for seeds, truth in zip(batch.seeds, truths, strict=True):
            poses = self.motion.draw(truth.case, len(data.views))
            views = moved_views(store, cases[truth.case], data.geometry, data.views, poses, data.size)
            made = self._maker(XRays(views.to(self.device)), seeds[None], truth.window)
            found = made.aligned.poses if made.aligned else (Pose(),) * len(poses)
            for angle, drawn, pose in zip(data.views, poses, found, strict=True):
                figures = [f"{figure:.3f}" for figure in (*drawn.motion, *pose.motion)]
                self.lines.append([truth.case, f"{angle:g}", *figures])
            yield made

    @cached_property
    def _experiment(self) -> Experiment:
        return self.run.experiment()

    @cached_property
    def _maker(self) -> Maker:
        path, weights = self.run.checkpoint(self.step), self._experiment.evaluation.weights
        return Maker.of(path, self.checkpoint.stages, self.way, weights, self.device)
