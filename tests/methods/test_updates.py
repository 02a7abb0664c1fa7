"""What an outer step's updates are, and that the summary's run on tensors without data is the real one."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest
import torch
from plain_engine import Plain

from xr2ct.config import Experiment
from xr2ct.methods.base import Batch, Engine, Losses, Method, Update
from xr2ct.projection.geometry import Geometry
from xr2ct.summary import summarise
from xr2ct.summary.tracing import Trace
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
def test_a_step_takes_the_operations_that_the_summary_says(method: dict[str, Any], accumulation: int) -> None:
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
    with Trace() as trace:
        built.step(engines, data)
    assert summarise(experiment, ranks=1)["step_flops"] == pytest.approx(trace.flops, rel=1e-3)


class Counting(Method):
    """Losses are the numbers of their batches."""

    def __init__(self) -> None:
        self.networks, self.fixed = {}, {}

    @property
    def updates(self) -> tuple[Update, ...]:
        return (Update("one", 3, self._one), Update("two", 1, self._two))

    def prepare(self, batches: Iterator[Batch]) -> None: ...

    def _one(self, engines: dict[str, Engine], batch: Batch) -> Losses:
        place = torch.tensor(float(batch.positions[0]))
        return {"a": place, "b": place.square()}

    def _two(self, engines: dict[str, Engine], batch: Batch) -> Losses:
        return {"c": torch.tensor(float(batch.positions[0]))}


def test_updates_are_made_in_order_each_on_a_fresh_batch_and_their_losses_averaged() -> None:
    data = (Batch(torch.empty(0), torch.empty(0), (place,), ("x",)) for place in count(1))
    method = Counting()
    assert method.batches_per_step == 4
    losses = method.step({}, data)
    assert losses == {"loss/a": 2.0, "loss/b": pytest.approx((1 + 4 + 9) / 3), "loss/c": 4.0}
