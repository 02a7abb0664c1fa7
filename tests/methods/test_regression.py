"""Regression without engines: one outer step on a linear mapper, against arithmetic."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from xr2ct.config import Experiment, validate
from xr2ct.errors import UserError
from xr2ct.methods import regression
from xr2ct.methods.base import Batch
from xr2ct.projection.geometry import Geometry

SIZE = 8


class Level(nn.Module):
    """One number for every voxel."""

    def __init__(self) -> None:
        super().__init__()
        self.level = nn.Parameter(torch.zeros(()))

    def forward(self, views: Tensor, seeds: Tensor) -> Tensor:
        return self.level.expand(len(views), 1, SIZE, SIZE, SIZE)


class Descent:
    """An engine without Adam: what the gradient is can be read off the weight."""

    def __init__(self, network: Level, accumulation: int) -> None:
        self.network, self.accumulation = network, accumulation

    def __call__(self, *inputs: Tensor) -> Tensor:
        return self.network(*inputs)

    def backward(self, output: Tensor, gradient: Tensor) -> None:
        output.backward(gradient)

    def step(self) -> None:
        level = self.network.level
        with torch.no_grad():
            level -= level.grad
        level.grad = None


def _ones() -> Iterator[Batch]:
    while True:
        views = torch.zeros(4, 1, 4, 4)
        yield Batch(torch.ones(4, 1, SIZE, SIZE, SIZE), views, (0, 1, 2, 3), ("a", "b", "c", "d"))


@pytest.mark.parametrize("accumulation", [1, 2, 4])
@pytest.mark.parametrize(
    ("loss", "levels", "mean"),
    # From 0 towards 1: L1's slope is −1 until it is there; the square's is 2(level − 1).
    [("l1", 1.0, 1.0), ("mse", 2.0, 1.0)],
)
def test_one_update_is_the_slope_of_the_mean(
    loss: str, levels: float, mean: float, accumulation: int
) -> None:
    network = Level()
    method = regression.Regression(regression.Config(loss=loss, mapper_updates=1), network)  # type: ignore[arg-type]
    losses = method.step({"mapper": Descent(network, accumulation)}, _ones())  # type: ignore[dict-item]
    assert network.level.item() == pytest.approx(levels)
    assert losses == {"loss/mapper": pytest.approx(mean)}


def test_a_step_is_so_many_updates_of_a_fresh_batch_each() -> None:
    network, drawn = Level(), []

    def counted() -> Iterator[Batch]:
        for batch in _ones():
            drawn.append(batch)
            yield batch

    method = regression.Regression(regression.Config(loss="mse", mapper_updates=3), network)  # type: ignore[arg-type]
    losses = method.step({"mapper": Descent(network, 1)}, counted())  # type: ignore[dict-item]
    assert len(drawn) == method.batches_per_step == 3
    assert network.level.item() == pytest.approx(2.0)  # 0 → 2 → 0 → 2
    assert losses["loss/mapper"] == pytest.approx(1.0)


def test_it_has_a_mapper_and_nothing_else() -> None:
    geometry = Geometry("small", 541.0, 949.0, 500.0, pixels=32)
    swin = {"name": "swin-unetr", "feature_size": 12, "depths": (1, 1, 1, 1)}
    method = regression.build(
        regression.Config(), Experiment(name="test", mapper=swin), geometry, cube_mm=320.0
    )
    assert (list(method.networks), method.fixed) == (["mapper"], {})
    with pytest.raises(UserError, match="'l1' or 'mse'"):
        validate(regression.Config, {"loss": "l2"}, "method regression")
