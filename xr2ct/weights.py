"""A checkpoint's mapper, ready to reconstruct: safetensors, YAML and JSON only, so nothing in it can run.

A checkpoint is a folder, as training writes it, or one file, as `xr2ct export` does.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from xr2ct.config import Experiment, validate
from xr2ct.config_files import read_yaml
from xr2ct.errors import UserError, first_line
from xr2ct.exchange.model_file import Model, read_model
from xr2ct.methods.mappers import mapper_of
from xr2ct.models.mapper import Mapper
from xr2ct.projection.geometry import Geometry
from xr2ct.run import Run, is_complete

Which = Literal["mapper", "mapper-ema"]

_LARGEST = {"data.size": 1024, "pixels": 8192, "views": 64}
"""What a configuration may ask for; a file of a kilobyte could ask for more than any machine has."""


def load_mapper(
    checkpoint: Path, which: Which = "mapper", device: torch.device | str = "cpu"
) -> tuple[Mapper, Experiment]:
    """The mapper in evaluation mode, in fp32, and the experiment that trained it.

    `which` picks the weights as trained or their exponential moving average; of a file that choice was made
    when it was written. Raises `UserError` where there is no whole checkpoint or its weights do not fit its
    configuration.
    """
    if checkpoint.is_file():
        model = read_model(checkpoint)
        check_choice(model, which)
        return model_mapper(model, 0, device), model.experiments[0]
    experiment = checkpoint_experiment(checkpoint)
    file = checkpoint / f"{which}.safetensors"
    try:
        weights = load_file(file)
    except FileNotFoundError:
        raise UserError(f"{file}: missing from this checkpoint") from None
    except (SafetensorError, OSError) as error:
        raise UserError(f"{file}: cannot be read ({first_line(error)})") from None
    return _fitted(experiment, weights, file, "config.yaml beside it", device), experiment


def model_mapper(model: Model, stage: int, device: torch.device | str = "cpu") -> Mapper:
    """The mapper of a stage of a file, as `load_mapper` gives it."""
    experiment = _checked(model.experiments[stage], f"{model.path}: stage {stage}")
    return _fitted(experiment, model.weights(stage), model.path, "its configuration", device)


def check_choice(model: Model, which: Which) -> None:
    """`UserError` where the average of the weights is asked for and the file holds the others."""
    if which == "mapper-ema" and model.about.stages[0].weights != which:
        raise UserError(f"{model.path}: holds weights 'mapper' alone; `xr2ct export --weights` chooses them")


def checkpoint_experiment(checkpoint: Path) -> Experiment:
    """The configuration a checkpoint was trained with."""
    if checkpoint.is_file():
        return _checked(read_model(checkpoint).experiments[0], str(checkpoint))
    if Run(checkpoint).metrics_file.exists():
        raise UserError(f"{checkpoint}: a run; expected one of its checkpoints, as {checkpoint}/best")
    if not is_complete(checkpoint):
        raise UserError(f"{checkpoint}: not a whole checkpoint (no COMPLETE in it)")
    file = checkpoint / "config.yaml"
    # By itself: as it was resolved it has no base, and one from elsewhere may name any file as such.
    return _checked(validate(Experiment, read_yaml(file), str(file)), str(file))


def checkpoint_geometry(experiment: Experiment) -> Geometry:
    """Of the X-rays that the checkpoint was trained on."""
    assert experiment.resolved is not None
    return Geometry(**experiment.resolved.geometry)


def _checked(experiment: Experiment, where: str) -> Experiment:
    """`UserError` where it lacks what training found out, or asks for more than can be meant."""
    resolved, data = experiment.resolved, experiment.data
    if resolved is None:
        raise UserError(f"{where}: lacks the section 'resolved' that training writes")
    try:
        geometry = Geometry(**resolved.geometry)
    except TypeError:
        raise UserError(
            f"{where}: resolved.geometry: expected name, sad_mm, sid_mm, detector_mm and pixels"
        ) from None
    told = {"data.size": data.size, "pixels": geometry.pixels, "views": len(data.views)}
    for key, value in told.items():
        if not isinstance(value, int) or value > _LARGEST[key]:
            raise UserError(f"{where}: {key} is {value}; expected a whole number up to {_LARGEST[key]}")
    if not 0 < resolved.cube_mm < math.inf:
        raise UserError(f"{where}: resolved.cube_mm is {resolved.cube_mm}; expected millimetres")
    if not all(map(math.isfinite, data.hu_window)) or data.hu_window[0] >= data.hu_window[1]:
        raise UserError(f"{where}: data.hu_window is {list(data.hu_window)}; expected low < high")
    return experiment


def _fitted(
    experiment: Experiment, weights: Mapping[str, Tensor], file: Path, beside: str, device: torch.device | str
) -> Mapper:
    """The mapper with these weights; `UserError` where they are not its own or not finite."""
    assert experiment.resolved is not None
    broken = [name for name, tensor in weights.items() if not _finite(tensor)]
    if broken:
        raise UserError(
            f"{file}: {broken[0]} has values that are not finite; training went wrong or the file is damaged"
        )
    try:
        with _no_more_than(weights):
            mapper = mapper_of(experiment, checkpoint_geometry(experiment), experiment.resolved.cube_mm)
        mapper.load_state_dict(weights)
    except UserError as error:
        raise UserError(f"{file}: {error}") from None
    except (ArithmeticError, LookupError, MemoryError, RuntimeError, TypeError, ValueError) as error:
        # Whatever a network makes of keys that no training would have gone on with.
        raise UserError(f"{file}: does not fit {beside} ({first_line(error)})") from None
    return mapper.to(device).eval()


def _finite(tensor: Tensor) -> bool:
    return not tensor.is_floating_point() or bool(torch.isfinite(tensor).all())


@contextmanager
def _no_more_than(weights: Mapping[str, Tensor]) -> Iterator[None]:
    """Ends the building of a network that is far larger than the weights at hand, before it fills memory.

    Memory that a parameter was given and nobody has written to yet costs nothing.
    """
    left = {"number": 4 * len(weights) + 200, "values": 4 * sum(t.numel() for t in weights.values()) + 10**6}

    def count(_: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        if parameter is None:
            return
        left["number"] -= 1
        left["values"] -= parameter.numel()
        if min(left.values()) < 0:
            raise ValueError(f"the network that it names is larger, at {name}")

    hook = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        hook.remove()
