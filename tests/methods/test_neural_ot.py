"""The method without engines: its configuration, and one step on a small Swin UNETR in plain PyTorch."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from plain_engine import Plain
from torch import Tensor, nn

from xr2ct.config import Experiment, validate
from xr2ct.errors import UserError
from xr2ct.methods import neural_ot
from xr2ct.methods.base import Batch
from xr2ct.models.features import FeatureExtractor
from xr2ct.models.potential import Potential
from xr2ct.projection.geometry import Geometry
from xr2ct.registry import component
from xr2ct.transport.sinkhorn import SinkhornDivergence

GEOMETRY = Geometry("small", 541.0, 949.0, 500.0, pixels=32)
SWIN = {"name": "swin-unetr", "feature_size": 12, "depths": (1, 1, 1, 1), "num_heads": (1, 1, 2, 2)}
SMALL = neural_ot.Config(
    mapper_updates=2,
    potential={"base_channels": 2, "max_channels": 4},
    features={"widths": (2, 2, 4, 4), "calibration_batches": 1},
)


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


class Dropping(nn.Module):
    """A mapper whose every pass draws other masks."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv3d(2, 4, 3, padding=1), nn.Conv3d(4, 1, 3, padding=1)

    def forward(self, views: Tensor, seeds: Tensor) -> Tensor:
        lifted = views[:, :, None].expand(-1, -1, 16, -1, -1)
        return self.second(nn.functional.dropout(torch.tanh(self.first(lifted)), 0.5, training=True))


class Recorded(Plain):
    """Keeps the gradients of each update."""

    def step(self) -> None:
        self.gradients = [p.grad.clone() for p in self.network.parameters() if p.grad is not None]
        super().step()


def _tiny(**keys: object) -> neural_ot.NeuralOT:
    """At 16³, with a mapper that drops out."""
    config = SMALL.model_copy(update=keys)
    torch.manual_seed(1)
    d = Potential(config.potential, 16)
    return neural_ot.NeuralOT(config, Dropping(), d, FeatureExtractor(config.features, 0))  # type: ignore[arg-type]


def _tiny_batches() -> Iterator[Batch]:
    generator = torch.Generator().manual_seed(0)
    while True:
        ct = torch.rand(4, 1, 16, 16, 16, generator=generator)
        yield Batch(ct, torch.rand(4, 2, 16, 16, generator=generator), (0, 1, 2, 3), ("a", "b", "c", "d"))


def test_the_gradient_is_that_of_the_volumes_that_were_scored() -> None:
    """A batch in two parts runs twice; with masks drawn again the second pass would be another function."""
    method, batches = _tiny(), _tiny_batches()
    method.prepare(batches)
    batch = next(batches)
    mapper = Recorded(method.networks["mapper"], accumulation=2)
    d = Plain(method.networks["potential"])

    torch.manual_seed(5)
    outputs = [mapper(*part.inputs) for part in batch.micro(2)]  # both graphs kept, so no second pass
    drawn_once = torch.get_rng_state()
    slope, losses = method.mapper_loss(outputs, d, batch)
    expected = torch.autograd.grad(torch.cat(outputs), list(mapper.network.parameters()), slope)

    torch.manual_seed(5)
    torch.testing.assert_close(method.update_mapper(mapper, d, batch), losses)
    torch.testing.assert_close(mapper.gradients, list(expected), rtol=1e-4, atol=1e-6)
    assert torch.equal(torch.get_rng_state(), drawn_once)


def test_blur_follows_the_spread_of_the_calibration_volumes() -> None:
    method, plain = _tiny(blur_of_spread=0.5), _tiny()
    for each in (method, plain):
        each.prepare(_tiny_batches())
    real = next(_tiny_batches()).ct
    maps, others = (plain.features(v) for v in (real, torch.zeros_like(real)))
    distances = [torch.cdist(m, m).sum().item() / (4 * 3) for m in maps]  # over ordered pairs of two
    assert method.fixed["spread"].by_layer.tolist() == pytest.approx(distances, rel=1e-4)
    expected = sum(
        SinkhornDivergence(0.5 * distance)([x], [y])
        for distance, x, y in zip(distances, others, maps, strict=True)
    )
    torch.testing.assert_close(method.divergence(others, maps), expected, rtol=1e-4, atol=0)
    assert set(plain.fixed) == {"features"}


def test_a_spread_of_nothing_is_refused() -> None:
    alone = Batch(torch.rand(1, 1, 16, 16, 16), torch.rand(1, 2, 16, 16), (0,), ("a",))
    with pytest.raises(UserError, match=r"the 1 calibration volumes .* expected more than 0"):
        _tiny(blur_of_spread=0.5).prepare(iter([alone]))
    experiment = Experiment(name="test", mapper=SWIN)
    config = neural_ot.Config(blur_of_spread=0.5, features={"statistics": "batch"})
    with pytest.raises(UserError, match="use calibrated"):
        neural_ot.build(config, experiment, GEOMETRY, 320.0)
