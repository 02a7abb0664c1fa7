"""The method without engines: its configuration, and one step on a small Swin UNETR in plain PyTorch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor, nn

from xr2ct.config import Experiment, validate
from xr2ct.errors import UserError
from xr2ct.methods import neural_ot
from xr2ct.methods.base import Batch
from xr2ct.projection.geometry import Geometry
from xr2ct.registry import component

GEOMETRY = Geometry("small", 541.0, 949.0, 500.0, pixels=32)
SWIN = {"name": "swin-unetr", "feature_size": 12, "depths": (1, 1, 1, 1), "num_heads": (1, 1, 2, 2)}
SMALL = neural_ot.Config(
    mapper_updates=2,
    potential={"base_channels": 2, "max_channels": 4},
    features={"widths": (2, 2, 4, 4), "calibration_batches": 1},
)


class Plain:
    """An engine of one process: autograd and AdamW."""

    accumulation = 1

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        self.adam = torch.optim.AdamW(network.parameters(), lr=1e-3, eps=1e-3)
        self.updates = 0

    def __call__(self, *inputs: Tensor) -> Tensor:
        return self.network(*inputs)

    @contextmanager
    def held(self) -> Iterator[nn.Module]:
        self.network.requires_grad_(False)
        yield self.network
        self.network.requires_grad_(True)

    def backward(self, output: Tensor, gradient: Tensor) -> None:
        output.backward(gradient)

    def step(self) -> None:
        self.adam.step()
        self.adam.zero_grad()
        self.updates += 1


def _batches() -> Iterator[Batch]:
    generator = torch.Generator().manual_seed(0)
    while True:
        yield Batch(
            torch.rand(2, 1, 64, 64, 64, generator=generator),
            torch.rand(2, 2, 32, 32, generator=generator),
            (0, 1),
            ("a", "b"),
        )


def _step() -> tuple[dict[str, float], dict[str, Plain], list[int]]:
    method = neural_ot.build(SMALL, Experiment(name="test", mapper=SWIN), GEOMETRY, 320.0)
    engines = {name: Plain(network) for name, network in method.networks.items()}
    drawn: list[int] = []

    def counted() -> Iterator[Batch]:
        for i, batch in enumerate(_batches()):
            drawn.append(i)
            yield batch

    data = counted()
    method.prepare(data)
    return method.step(engines, data), engines, drawn


def test_a_step_is_k_updates_of_the_mapper_and_one_of_the_potential() -> None:
    losses, engines, drawn = _step()
    assert (engines["mapper"].updates, engines["potential"].updates) == (2, 1)
    assert len(drawn) == 1 + SMALL.mapper_updates + 1  # calibration's, and a fresh one for each update
    assert set(losses) == {
        "loss/mapper",
        "loss/transport",
        "loss/potential_of_mapped",
        "loss/potential",
        "loss/potential_of_real",
    }
    of_parts = 0.1 * losses["loss/transport"] - 0.1 * losses["loss/potential_of_mapped"]
    assert losses["loss/mapper"] == pytest.approx(of_parts, rel=1e-5)


def test_defaults_are_the_papers() -> None:
    config = validate(component("xr2ct.methods", "neural-ot").Config, {}, "method")
    assert (config.mapper_updates, config.transport_weight, config.potential_weight) == (10, 0.1, 0.1)
    assert (config.potential_scale, config.blur, config.scaling) == (100.0, 0.05, 0.5)


def test_batch_statistics_are_refused_where_a_batch_comes_in_parts() -> None:
    config = neural_ot.Config(features={"statistics": "batch"})
    experiment = Experiment(name="test", mapper=SWIN, training={"accumulation": 2})
    with pytest.raises(UserError, match="found 2 parts of a batch"):
        neural_ot.build(config, experiment, GEOMETRY, 320.0)


def test_unknown_keys_are_refused_with_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean 'mapper_updates'"):
        validate(neural_ot.Config, {"mapper_update": 3}, "method neural-ot")
