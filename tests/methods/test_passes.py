"""What methods say of their passes, against operations counted while they take a step."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from plain_engine import Plain
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from xr2ct.config import Experiment
from xr2ct.methods.base import Batch
from xr2ct.projection.geometry import Geometry
from xr2ct.summary import summarise
from xr2ct.training.build import build_method
from xr2ct.training.start import completed

BATCH, SIZE = 4, 16
TRANSPORT = {
    "name": "neural-ot",
    "mapper_updates": 3,
    "potential": {"base_channels": 4, "max_channels": 8},
    "features": {"widths": (4, 4, 8, 8), "calibration_batches": 1},
}
GAN = {"name": "gan", "updates": 2, "discriminator": {"base_channels": 4}}


class Operations(TorchDispatchMode):
    """Counts as FlopCounterMode does, whose hooks on modules bear no gradient of an input alone."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if count := flop_registry.get(func._overloadpacket):
            self.total += count(*args, **(kwargs or {}), out_val=out)
        return out


def batches(pixels: int) -> Iterator[Batch]:
    generator = torch.Generator().manual_seed(0)
    while True:
        ct = torch.rand(BATCH, 1, SIZE, SIZE, SIZE, generator=generator)
        views = torch.rand(BATCH, 2, pixels, pixels, generator=generator)
        yield Batch(ct, views, (0, 1, 2, 3), ("a", "b", "c", "d"))


@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize(
    "method",
    [TRANSPORT, {"name": "regression", "mapper_updates": 2}, GAN, {**GAN, "adversarial_weight": 0}],
    ids=["neural-ot", "regression", "gan", "gan-without-adversary"],
)
def test_a_step_costs_what_the_summary_says(method: dict[str, Any], accumulation: int) -> None:
    experiment = completed(
        Experiment(
            name="test",
            data={"size": SIZE, "views": [90, 0]},
            mapper={"name": "unet", "channels": [8, 16]},
            method=method,
            training={"batch": BATCH, "accumulation": accumulation, "precision": "fp32"},
        )
    )
    geometry = Geometry("x2ct", 541.0, 949.0, 500.0)
    built = build_method(experiment, geometry, 320.0)
    engines = {name: Plain(network, accumulation) for name, network in built.networks.items()}
    data = batches(geometry.pixels)
    built.prepare(data)
    with Operations() as counted:
        built.step(engines, data)
    # Nothing goes back to a network's own input where it is data, which a pass back is taken to do; and the
    # lift's small part is never gone back through.
    assert summarise(experiment)["step_flops"] == pytest.approx(counted.total, rel=0.15)
