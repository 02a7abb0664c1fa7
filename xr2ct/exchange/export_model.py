"""A run's checkpoint as one file to hand on: `xr2ct export RUN|CHECKPOINT --to MODEL.xr2ct`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from xr2ct import __version__
from xr2ct.cohorts.names import IN_DISTRIBUTION
from xr2ct.config import Experiment
from xr2ct.errors import UserError
from xr2ct.evaluation.reprojection import project_hu
from xr2ct.exchange.model_card import Card, compose_card
from xr2ct.exchange.model_file import FORMAT, SUFFIX, About, Extra, Model, StageAbout, read_model, write_model
from xr2ct.exchange.portable import portable
from xr2ct.reconstruction import calibration
from xr2ct.reconstruction.familiar import EXTRA, LEAST_CASES, load_familiar
from xr2ct.reconstruction.self_test import make_self_test
from xr2ct.run import Run
from xr2ct.stages import load_stages, stage_before
from xr2ct.weights import Which, checkpoint_experiment, checkpoint_geometry

_PHANTOM_SIDE = 64
"""Voxels along a side of the synthetic chest that the self-test's X-rays are of."""


@dataclass(frozen=True)
class ExportedModel:
    """What was written."""

    model: Model

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        card = self.model.about.card
        return {
            "model": str(self.model.path),
            "sha256": self.model.sha256,
            "bytes": self.model.path.stat().st_size,
            "card": card.model_dump(mode="json"),
        }

    def __str__(self) -> str:
        path, card = self.model.path, self.model.about.card
        scored = "" if card.rows else "\nno evaluation of these weights: its card has no figures"
        return (
            f"{path}: {path.stat().st_size / 1e6:.1f} MB, SHA-256 {self.model.sha256}; "
            f"`xr2ct card {path}` says what it is{scored}"
        )


def export_model(source: Path, to: Path, which: Which = "mapper") -> ExportedModel:
    """Write the best checkpoint of a run, or a checkpoint, with the stages before it, as one file.

    The same checkpoint and the same evaluations give the same bytes. Raises `UserError` for a name that is
    not a model's, a run without a best checkpoint, and as `load_stages` does.
    """
    if to.suffix != SUFFIX:
        raise UserError(f"--to {to}: expected a name ending in {SUFFIX}, for a model")
    checkpoint = _checkpoint(source)
    stages = load_stages(checkpoint, which)
    folders, experiments = _folders(checkpoint), []
    tensors: dict[str, Tensor] = {}
    about: list[StageAbout] = []
    for number, folder in enumerate(folders):
        experiment, weights = checkpoint_experiment(folder), which if number == 0 else "mapper"
        for name, tensor in load_file(folder / f"{weights}.safetensors").items():
            tensors[f"stage-{number}/{name}"] = tensor
        about.append(StageAbout(checkpoint=folder.name, weights=weights, config=portable(experiment)))
        experiments.append(experiment)
    test = make_self_test(stages, phantom_views(experiments[0]))
    tensors |= {"self-test/views": test.views.half(), "self-test/volume": test.volume}
    card = compose_card(tuple(experiments), checkpoint.name, which, _run_of(checkpoint))
    extras = collect_extras(checkpoint) if _shareable(card) else {}
    for name, extra in extras.items():
        for key, array in extra.arrays.items():
            tensors[f"extras/{name}/{key}"] = torch.from_numpy(np.ascontiguousarray(array))
    values = {name: dict(extra.values) for name, extra in extras.items()}
    told = About(format=FORMAT, version=__version__, stages=tuple(about), card=card, extras=values)
    write_model(to, told, tensors)
    return ExportedModel(read_model(to))


def collect_extras(checkpoint: Path) -> dict[str, Extra]:
    """What parts of a reconstruction have kept of a checkpoint's run, by name."""
    familiar, doubt = load_familiar(checkpoint), calibration.as_extra(checkpoint)
    found = {EXTRA: None if familiar is None else Extra(familiar.arrays()), calibration.EXTRA: doubt}
    return {name: extra for name, extra in found.items() if extra is not None}


def _shareable(card: Card) -> bool:
    """Whether what was kept of the X-rays learnt from, means above all, is of nobody in particular: those
    patients are public, or they are many."""
    learnt = card.learnt[0]
    return learnt.cohort.public or (learnt.patients or 0) >= LEAST_CASES


def phantom_views(experiment: Experiment) -> np.ndarray:
    """(view, row, col) line integrals of one synthetic chest, as the mapper's X-rays are taken."""
    assert experiment.resolved is not None
    cube_mm, geometry = experiment.resolved.cube_mm, checkpoint_geometry(experiment)
    hu = torch.from_numpy(_phantom(cube_mm))[None]
    views: np.ndarray = project_hu(hu, cube_mm, geometry, experiment.data.views)[0].numpy()
    return views


@cache
def _phantom(cube_mm: float) -> np.ndarray:
    """(z, y, x) HU of a patient whom nobody has learnt from: every other is drawn from a named seed."""
    from xr2ct.cohorts.phantom.chest import draw_chest
    from xr2ct.cohorts.phantom.grid import Grid
    from xr2ct.cohorts.phantom.patient import draw_patient
    from xr2ct.cohorts.phantom.shifts import shift_of

    grid = Grid((_PHANTOM_SIDE,) * 3, (cube_mm / _PHANTOM_SIDE,) * 3, np.eye(3), (0.0, 0.0, -20.0))
    return draw_chest(grid, draw_patient(0, shift_of(IN_DISTRIBUTION)), 0)[0]


def _checkpoint(source: Path) -> Path:
    """A checkpoint's own folder, by its own name."""
    run = Run(source)
    if not run.metrics_file.exists():
        return source.resolve()
    if not run.best.exists():
        steps = run.steps()
        hint = f", or name a checkpoint, as {run.checkpoint(steps[-1])}" if steps else ""
        raise UserError(f"{source}: has no best checkpoint: evaluate it first{hint}")
    return run.best.resolve()


def _run_of(checkpoint: Path) -> Run | None:
    """The run that a checkpoint lies in; None of one that lies elsewhere."""
    run = Run(checkpoint.parents[1])
    return run if run.config_file.is_file() and run.checkpoint(0).parent == checkpoint.parent else None


def _folders(checkpoint: Path) -> list[Path]:
    """Of the checkpoint and of every stage before it."""
    if checkpoint_experiment(checkpoint).coarse is None:
        return [checkpoint]
    return [checkpoint, *_folders(stage_before(checkpoint))]
