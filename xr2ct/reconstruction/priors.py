"""What is held against a correction beside its size: a rough volume, or one unlike the mapper's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from xr2ct.config import Experiment, RefinePrior
from xr2ct.errors import UserError
from xr2ct.methods.mappers import method_of
from xr2ct.models import features
from xr2ct.models.features import FeatureExtractor

Prior = Callable[[Tensor], Tensor]
"""A volume (z, y, x) on the unit window to a scalar, differentiable: what it costs."""

PriorOf = Callable[[Tensor], "Prior | None"]
"""The prior of a volume (z, y, x) as the mapper made it."""

TV_WEIGHT = 1.0
"""What a correction as rough as the volume costs, where the X-rays being off by the noise level costs ½."""
FEATURES_WEIGHT = 10.0
"""Of the mean squared distance of features, which is 2 where they have nothing in common."""

_EDGE = 0.01
"""Of the unit window, 25 HU: differences below it are noise to be smoothed, and no edge."""


def named_prior(
    name: RefinePrior, checkpoint: Path, experiment: Experiment, device: torch.device | str = "cpu"
) -> PriorOf:
    """Of volumes that a checkpoint makes; `UserError` for features that it lacks."""
    if name == "features":
        extractor = load_features(checkpoint, experiment).to(device)
        return lambda unit: feature_distance(extractor, unit)
    return total_variation if name == "tv" else lambda unit: None


def total_variation(unit: Tensor, weight: float = TV_WEIGHT) -> Prior:
    """weight · TV(x − x₀) / TV(x₀), smoothed at 0 (Rudin, Osher, Fatemi, Physica D 60:259–268, 1992).

    Of the correction, not of the volume: that would take vessels for noise, 5 dB of them at this weight's
    threefold on chests.
    """
    with torch.inference_mode(False), torch.no_grad():
        start = unit.detach().float().clone()
        whole = _variation(start).clamp(min=1e-6)
    return lambda volume: weight * _variation(volume - start) / whole


def _variation(volume: Tensor) -> Tensor:
    square = torch.full_like(volume, _EDGE**2)
    for axis in range(3):
        last = volume.narrow(axis, -1, 1)
        square = square + torch.diff(volume, dim=axis, append=last).square()
    return (square.sqrt() - _EDGE).mean()


def feature_distance(extractor: FeatureExtractor, unit: Tensor, weight: float = FEATURES_WEIGHT) -> Prior:
    """weight · mean ‖f(x) − f(x₀)‖² of features that are L2-normalised in each voxel, over all maps."""
    with torch.inference_mode(False), torch.no_grad():
        there = extractor(unit.detach().clone()[None, None])

    def cost(volume: Tensor) -> Tensor:
        maps = extractor(volume[None, None])
        # A voxel's squares add up to 1, so that the sum over channels is 1 a voxel.
        each = [(a - b).square().sum() / b.square().sum() for a, b in zip(maps, there, strict=True)]
        return weight * torch.stack(each).mean()

    return cost


def load_features(checkpoint: Path, experiment: Experiment) -> FeatureExtractor:
    """The features that a checkpoint's mapper was trained by; `UserError` where it was trained without."""
    config = getattr(method_of(experiment)[1], "features", None)
    file = checkpoint / "features.safetensors"
    if not isinstance(config, features.Config) or not file.is_file():
        raise UserError(
            f"{checkpoint}: trained by {experiment.method['name']}, which leaves no features.safetensors; "
            "use --prior tv or none, or a checkpoint of neural-ot"
        )
    extractor = FeatureExtractor(config, experiment.seed)
    try:
        extractor.load_state_dict(load_file(file))
    except (SafetensorError, RuntimeError) as error:
        raise UserError(
            f"{file}: does not fit config.yaml beside it ({str(error).splitlines()[0]})"
        ) from None
    return extractor
