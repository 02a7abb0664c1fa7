"""The networks are the recipe's: parameters to two decimals of a million."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from xr2ct.config import Experiment, validate
from xr2ct.errors import UserError
from xr2ct.models import features, potential, swin_unetr


def _millions(network: nn.Module) -> float:
    return round(sum(p.numel() for p in network.parameters()) / 1e6, 2)


@pytest.mark.parametrize("size", [64, 128])
def test_mapper_has_the_papers_parameters_at_any_size(size: int) -> None:
    assert _millions(swin_unetr.build(swin_unetr.Config(), in_channels=2, size=size)) == 62.19


@pytest.mark.parametrize(("size", "millions"), [(64, 41.33), (128, 69.64)])
def test_potential_has_the_papers_parameters(size: int, millions: float) -> None:
    with torch.device("meta"):
        assert _millions(potential.Potential(potential.Config(), size)) == millions


def test_features_have_the_papers_parameters() -> None:
    assert _millions(features.FeatureExtractor(features.Config(), seed=0)) == 0.69


@pytest.mark.parametrize(("size", "nearest"), [(48, 64), (32, 64), (100, 96)])
def test_a_size_that_swin_unetr_cannot_take_is_refused(size: int, nearest: int) -> None:
    with pytest.raises(UserError, match=f"data.size {size}: .* nearest is {nearest}"):
        swin_unetr.build(swin_unetr.Config(), in_channels=2, size=size)


@pytest.mark.parametrize(
    ("keys", "message"),
    [({"feature_size": 20}, "multiple of 12"), ({"num_heads": (5, 6, 12, 24)}, "num_heads")],
)
def test_widths_that_swin_unetr_cannot_take_are_refused(keys: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        validate(swin_unetr.Config, keys, "mapper swin-unetr")


def test_unknown_backbone_is_refused_with_the_nearest() -> None:
    from xr2ct.models.mapper import build_mapper
    from xr2ct.projection.geometry import NAMED

    experiment = Experiment(name="test", mapper={"name": "swin-unet"})
    with pytest.raises(UserError, match="did you mean 'swin-unetr'"):
        build_mapper(experiment, NAMED["x2ct"], 320.0)
