"""A checkpoint's mapper, ready to reconstruct: safetensors and YAML only, so that nothing in it can run."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from xr2ct.config import Experiment, load_experiment
from xr2ct.errors import UserError
from xr2ct.models.mapper import Mapper, build_mapper
from xr2ct.projection.geometry import Geometry
from xr2ct.run import Run, is_complete

Which = Literal["mapper", "mapper-ema"]


def load_mapper(
    checkpoint: Path, which: Which = "mapper", device: torch.device | str = "cpu"
) -> tuple[Mapper, Experiment]:
    """The mapper in evaluation mode, in fp32, and the experiment that trained it.

    `which` picks the weights as trained or their exponential moving average. Raises `UserError` where the
    folder is no whole checkpoint or its weights do not fit its configuration.
    """
    experiment = checkpoint_experiment(checkpoint)
    assert experiment.resolved is not None
    mapper = build_mapper(experiment, checkpoint_geometry(experiment), experiment.resolved.cube_mm)
    file = checkpoint / f"{which}.safetensors"
    try:
        mapper.load_state_dict(load_file(file))
    except FileNotFoundError:
        raise UserError(f"{file}: missing from this checkpoint") from None
    except (SafetensorError, RuntimeError) as error:
        raise UserError(
            f"{file}: does not fit config.yaml beside it ({str(error).splitlines()[0]})"
        ) from None
    return mapper.to(device).eval(), experiment


def checkpoint_experiment(checkpoint: Path) -> Experiment:
    """The configuration a checkpoint was trained with."""
    if Run(checkpoint).metrics_file.exists():
        raise UserError(f"{checkpoint}: a run; expected one of its checkpoints, as {checkpoint}/best")
    if not is_complete(checkpoint):
        raise UserError(f"{checkpoint}: not a whole checkpoint (no COMPLETE in it)")
    experiment = load_experiment(checkpoint / "config.yaml")
    if experiment.resolved is None:
        raise UserError(f"{checkpoint}/config.yaml: lacks the section 'resolved' that training writes")
    return experiment


def checkpoint_geometry(experiment: Experiment) -> Geometry:
    """Of the X-rays that the checkpoint was trained on."""
    assert experiment.resolved is not None
    return Geometry(**experiment.resolved.geometry)
