"""Coarse to fine: the stage before, copied into the run, and what it makes of every case to learn from.

    RUN/coarse/                  that checkpoint's config.yaml, mapper.safetensors and COMPLETE
    RUN/coarse/coarse/           the stage before that one, and so on
    RUN/coarse/volumes/ID.npy    its reconstruction of a case, int16 HU (c, c, c), from X-rays as they are

A reconstruction takes many times the step that learns from it, so each is made once, before the first step,
and kept. X-rays are augmented afterwards and these are not, but for the patient's flip: as with the CT, what
is to be found does not change with how the X-ray came out.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from xr2ct.config import Coarse, Experiment
from xr2ct.errors import Stopped, UserError
from xr2ct.methods.base import sample_seeds
from xr2ct.projection.geometry import Geometry
from xr2ct.projection.views import scale_views
from xr2ct.run import COMPLETE, Run
from xr2ct.stages import BEFORE, Stages, load_stages, stage_before
from xr2ct.store import Case, Store, StoreError
from xr2ct.training.agreement import from_rank_0, wait_for_all
from xr2ct.training.distributed import Ranks
from xr2ct.training.fence import Fence
from xr2ct.training.stopping import Listener, asked
from xr2ct.training.watchdog import alive
from xr2ct.weights import checkpoint_experiment
from xr2ct.window import HuWindow

log = logging.getLogger(__name__)

_VOLUMES = "volumes"


def find(run: Run, experiment: Experiment, store: Store) -> Path | None:
    """The checkpoint that a run has yet to copy; None where it has done so, or has no stage before.

    `UserError` where it is not there, or of other X-rays, cube or size than this run's.
    """
    if experiment.coarse is None or run.steps():
        return None
    source = _source(experiment.coarse)
    _check(source, experiment, store)
    return source


def bring(run: Run, experiment: Experiment, store: Store, fence: Fence) -> None:
    """RUN/coarse as it has to be before the first step; rank 0's.

    A run that has a checkpoint keeps the copy that it began with. Raises as `find` does.
    """
    coarse, source = experiment.coarse, find(run, experiment, store)
    if coarse is None or source is None:
        return
    there = run.path / BEFORE
    if there.is_dir():
        if _digest_of(there, "mapper") == _digest_of(source, coarse.weights):
            return
        shutil.rmtree(there)  # nothing has been learnt from it yet
    partial = fence.partial(there)
    shutil.rmtree(partial, ignore_errors=True)
    _copy(source, partial, coarse.weights)
    fence.commit(there)
    log.info("%s: the stage before is %s", run.path, source)


def digest(run: Run) -> str | None:
    """Of the copy of the stage before with those before it; None without one."""
    folder = run.path / BEFORE
    return _digest_of(folder, "mapper") if folder.is_dir() else None


class CoarseVolumes:
    """What the stage before makes of cases, from RUN/coarse/volumes."""

    def __init__(self, run: Run, size: int) -> None:
        self._folder = run.path / BEFORE / _VOLUMES
        self._size = size

    def file(self, case: Case) -> Path:
        return self._folder / f"{case.id}.npy"

    def volume(self, case: Case) -> np.ndarray:
        """int16 HU (c, c, c); `StoreError` naming the case where its file is missing or damaged."""
        file = self.file(case)
        try:
            hu = np.load(file, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise StoreError(f"{file}: case {case.id}: cannot be read ({error})") from None
        if hu.dtype != np.int16 or hu.shape != (self._size,) * 3:
            raise StoreError(
                f"{file}: case {case.id}: expected int16 {self._size}³, found {hu.dtype} {hu.shape}"
            )
        return np.asarray(hu)


def make_volumes(
    run: Run,
    experiment: Experiment,
    store: Store,
    cases: Sequence[Case],
    ranks: Ranks,
    fence: Fence,
    listener: Listener,
) -> CoarseVolumes | None:
    """The reconstructions of all cases, those that are missing made by all ranks together; collective.

    None without a stage before. `Stopped` where a signal came meanwhile: the same command goes on.
    """
    if experiment.coarse is None:
        return None
    volumes = CoarseVolumes(run, experiment.coarse.size)
    missing = from_rank_0(ranks, lambda: _missing(volumes, cases))
    stages: Stages | None = None
    for done in range(0, len(missing), ranks.world_size):
        if name := asked(listener, ranks, fence):
            raise Stopped(
                f"{run.path}: {done} of {len(missing)} coarse volumes made, as {name} asked to stop"
            )
        mine = missing[done + ranks.rank : done + ranks.rank + 1]
        for place in mine:
            stages = stages or load_stages(run.path / BEFORE, "mapper", ranks.device)
            _make(volumes, stages, store, cases[place], place, fence)
            alive()
    if missing:
        wait_for_all(ranks)
        log.info("%s: the stage before has reconstructed %d cases", run.path, len(missing))
    return volumes


def _missing(volumes: CoarseVolumes, cases: Sequence[Case]) -> list[int]:
    return [place for place, case in enumerate(cases) if not volumes.file(case).is_file()]


def _make(volumes: CoarseVolumes, stages: Stages, store: Store, case: Case, place: int, fence: Fence) -> None:
    data = stages.experiment.data
    device = next(stages.mapper.parameters()).device
    scaled = scale_views(store.xray(case, data.geometry, data.views), data.xray_scale)
    views = torch.from_numpy(scaled)[None].to(device)
    unit = stages(views, sample_seeds([place], [case.id], device))[0, 0]
    hu = HuWindow(*data.hu_window).to_hu(unit).round().short().cpu().numpy()
    file = volumes.file(case)
    file.parent.mkdir(exist_ok=True)
    partial = fence.partial(file)
    with partial.open("wb") as out:
        np.save(out, hu)
    fence.commit(file)


def _source(coarse: Coarse) -> Path:
    """The checkpoint that is the stage before."""
    run = Run.open(coarse.run)
    steps = run.steps()
    step = {"best": run.best_step(), "last": steps[-1] if steps else None}.get(str(coarse.step), coarse.step)
    if step is None:
        hint = "evaluate it first, or coarse.step: last" if steps else "train it first"
        raise UserError(f"coarse.run {coarse.run}: has no {coarse.step} checkpoint: {hint}")
    if step not in steps:
        there = ", ".join(map(str, steps)) or "none"
        raise UserError(f"coarse.step {coarse.step}: {coarse.run} has no such checkpoint, only {there}")
    return run.checkpoint(int(step))


def _check(source: Path, experiment: Experiment, store: Store) -> None:
    """`UserError` with every difference that keeps one's volumes from being the other's."""
    before, data = checkpoint_experiment(source), experiment.data
    assert before.resolved is not None and experiment.coarse is not None
    geometry: Geometry = store.geometries[data.geometry]
    ours: dict[str, Any] = {
        "data.size": experiment.coarse.size,
        "cube_mm": store.cube_mm,
        **geometry.as_attributes(),
        **{f"data.{key}": getattr(data, key) for key in ("views", "hu_window", "scaling", "xray_scale")},
    }
    theirs = {
        "data.size": before.data.size,
        "cube_mm": before.resolved.cube_mm,
        **before.resolved.geometry,
        **{
            f"data.{key}": getattr(before.data, key)
            for key in ("views", "hu_window", "scaling", "xray_scale")
        },
    }
    wrong = [
        f"  {key}: {theirs.get(key)}, expected {value}"
        for key, value in ours.items()
        if theirs.get(key) != value
    ]
    if wrong:
        raise UserError(
            "\n".join([f"coarse.run {experiment.coarse.run}: cannot be the stage before", *wrong])
        )


def _copy(source: Path, target: Path, weights: str) -> None:
    target.mkdir(parents=True)
    shutil.copyfile(source / f"{weights}.safetensors", target / "mapper.safetensors")
    for name in ("config.yaml", COMPLETE):
        shutil.copyfile(source / name, target / name)
    if checkpoint_experiment(source).coarse is not None:
        _copy(stage_before(source), target / BEFORE, "mapper")


def _digest_of(folder: Path, weights: str) -> str:
    """Of what a reconstruction depends on."""
    told = [
        hashlib.sha256((folder / name).read_bytes()).hexdigest()
        for name in (f"{weights}.safetensors", "config.yaml")
    ]
    if checkpoint_experiment(folder).coarse is not None:
        told.append(_digest_of(stage_before(folder), "mapper"))
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]
