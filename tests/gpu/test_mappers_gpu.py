"""Every lift and every network on a GPU gives what it gives on the CPU, and goes back in bf16."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from xr2ct.config import Experiment
from xr2ct.models.mapper import Mapper, build_mapper
from xr2ct.projection.geometry import Geometry

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")

DEVICE = torch.device("cuda")
GEOMETRY = Geometry("x2ct", sad_mm=541.0, sid_mm=949.0, detector_mm=500.0, pixels=64)
DENSE = {"encoder_channels": 8, "growth": 4, "blocks": [1] * 5, "bottom_channels": 16, "least_channels": 4}
SWIN = {"feature_size": 12, "depths": [2, 1, 1, 1], "window_size": 4}
MAPPERS: dict[str, dict[str, Any]] = {
    **{f"unet-{lift}": {"mapper": {"name": "unet", "channels": [4, 8]}, "lift": lift}
       for lift in ("repeat", "rotate", "backproject", "noise")},
    **{
        f"swin-unetr-{name}": {"mapper": {**SWIN, **keys}, "data": {"size": 64}}
        for name, keys in (
            ("compiled", {"compile": "on"}),
            ("eager", {"compile": "off"}),
            ("again", {"compile": "off", "use_checkpoint": True}),
        )
    },
    "segresnet": {
        "mapper": {"name": "segresnet", "init_filters": 8, "blocks_down": [1, 1], "blocks_up": [1]}
    },
    "autoencoder": {"mapper": {"name": "autoencoder", "base_channels": 8, "max_channels": 16, "latent": 16}},
    "x2ct-gan": {"mapper": {"name": "x2ct-gan", **DENSE}},
    "ccx-raynet": {"mapper": {"name": "ccx-raynet", **DENSE}},
}  # fmt: skip


def made(name: str) -> tuple[Mapper, tuple[Tensor, Tensor]]:
    """A mapper at its initial weights, and views and seeds of two patients."""
    values = {"data": {"size": 32}, **MAPPERS[name]}
    experiment = Experiment(name="gpu", **values)
    views = torch.rand(2, 2, 64, 64, generator=torch.Generator().manual_seed(0))
    return build_mapper(experiment, GEOMETRY, 320.0).eval(), (views, torch.tensor([[1, 2], [3, 4]]))


@pytest.mark.parametrize("name", MAPPERS)
def test_volumes_agree(name: str) -> None:
    mapper, inputs = made(name)
    with torch.inference_mode():
        expected = mapper(*inputs)
        got = mapper.to(DEVICE)(*(x.to(DEVICE) for x in inputs)).cpu()
    scale = expected.abs().max()
    assert (got - expected).abs().max() < 5e-3 * scale


@pytest.mark.parametrize("name", MAPPERS)
def test_a_pass_back_in_bf16_reaches_every_weight(name: str) -> None:
    mapper, inputs = made(name)
    mapper.to(DEVICE, torch.bfloat16).train()
    mapper(*(x.to(DEVICE) for x in inputs)).float().square().mean().backward()
    for weight, parameter in mapper.named_parameters():
        if ".branches." in weight and ".head." in weight:
            continue  # of two branches that are fused, neither makes a volume of its own
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), weight
