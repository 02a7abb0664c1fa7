"""The adversarial method without engines: its losses, their weights and order, and no adversary at all."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest
import torch
from plain_engine import Plain
from torch import Tensor, nn

from xr2ct.config import Experiment, validate
from xr2ct.errors import UserError
from xr2ct.methods import gan
from xr2ct.methods.base import Batch
from xr2ct.projection.geometry import Geometry
from xr2ct.registry import component

GEOMETRY = Geometry("small", 541.0, 949.0, 500.0, pixels=32)
MAPPER = {
    "name": "x2ct-gan",
    "encoder_channels": 4,
    "growth": 2,
    "blocks": (1, 1, 1, 1, 1),
    "bottom_channels": 8,
    "least_channels": 2,
}


class Told(Plain):
    """An engine that keeps the gradients of each update, and puts its name down when it makes one."""

    def __init__(self, name: str, network: nn.Module, done: list[str], accumulation: int) -> None:
        super().__init__(network, accumulation)
        self.name = name
        self.done = done
        self.gradients: list[dict[str, Tensor]] = []

    def step(self) -> None:
        named = self.network.named_parameters()
        self.gradients.append({n: p.grad.clone() for n, p in named if p.grad is not None})
        self.done.append(self.name)
        super().step()


def _method(**keys: Any) -> gan.Gan:
    config = validate(gan.Config, {"discriminator": {"base_channels": 2}, **keys}, "method gan")
    experiment = Experiment(name="test", data={"size": 16, "views": [0, 90]}, mapper=MAPPER)
    method = gan.build(config, experiment, GEOMETRY, 320.0)
    for network in method.networks.values():
        network.double()
    return method


def _batch(index: int) -> Batch:
    generator = torch.Generator().manual_seed(index)
    ct = torch.rand(4, 1, 16, 16, 16, generator=generator, dtype=torch.float64)
    views = torch.rand(4, 2, 32, 32, generator=generator, dtype=torch.float64)
    return Batch(ct, views, (0, 1, 2, 3), ("a", "b", "c", "d"))


def _step(
    method: gan.Gan, accumulation: int = 1
) -> tuple[dict[str, float], dict[str, Told], list[str], list[int]]:
    """One outer step: losses, engines, the order of updates and the batches drawn."""
    done: list[str] = []
    drawn: list[int] = []
    engines = {name: Told(name, n, done, accumulation) for name, n in method.networks.items()}

    def batches() -> Iterator[Batch]:
        for index in count():
            drawn.append(index)
            yield _batch(index)

    method.prepare(iter(()))
    return method.step(engines, batches()), engines, done, drawn


def test_the_mapper_goes_first_and_the_discriminator_sees_the_same_batch() -> None:
    losses, engines, done, drawn = _step(_method())
    assert done == ["mapper", "discriminator"]
    assert drawn == [0]
    assert set(losses) == {
        f"loss/{name}" for name in ("mapper", "adversarial", "reconstruction", "projection", "discriminator")
    }
    weighted = (
        0.1 * losses["loss/adversarial"] + 10 * losses["loss/reconstruction"] + 10 * losses["loss/projection"]
    )
    assert losses["loss/mapper"] == pytest.approx(weighted, rel=1e-12)
    assert all(p.requires_grad for engine in engines.values() for p in engine.network.parameters())


def test_several_updates_of_an_outer_step_have_a_fresh_batch_each() -> None:
    method = _method(updates=3)
    _, _, done, drawn = _step(method)
    assert done == ["mapper", "discriminator"] * 3
    assert drawn == [0, 1, 2]
    assert method.batches_per_step == 3


def test_the_discriminator_learns_from_what_was_made_before_the_mappers_update() -> None:
    method = _method()
    d = method.networks["discriminator"]
    batch = _batch(0)
    with torch.no_grad():
        made = method.networks["mapper"](*batch.inputs)
        lifted = method.repeat(batch.views)
        of_made, of_real = (d(torch.cat([v, lifted], 1)) for v in (made, batch.ct))
        expected = 0.5 * of_made.square().mean() + 0.5 * (of_real - 1).square().mean()
    assert _step(method)[0]["loss/discriminator"] == pytest.approx(expected.item(), rel=1e-9)


def test_projections_are_means_along_each_axis() -> None:
    made, real = torch.rand(2, 2, 1, 4, 4, 4, dtype=torch.float64).unbind(0)
    found = gan.projection_loss(made, real).item()
    difference = (made - real).numpy()
    assert found == pytest.approx(sum(abs(difference.mean(a)).mean() for a in (2, 3, 4)) / 3)
    assert gan.projection_loss(real, real).item() == 0
    turned = real.roll(1, 4)  # along x alone: seen from the front and from above, not from the side
    side = (turned.mean(4) - real.mean(4)).abs().max()
    assert side < 1e-12
    assert gan.projection_loss(turned, real) > 0


@pytest.mark.parametrize("adversarial_weight", [0.1, 0.0])
def test_micro_batches_have_the_gradients_of_the_batch(adversarial_weight: float) -> None:
    whole, parts = (_step(_method(adversarial_weight=adversarial_weight), n) for n in (1, 2))
    assert parts[0] == pytest.approx(whole[0], rel=1e-9)
    for name, engine in whole[1].items():
        (gradients,), (others,) = engine.gradients, parts[1][name].gradients
        floor = 1e-3 * max(g.norm() for g in gradients.values())
        for parameter, gradient in gradients.items():
            assert (others[parameter] - gradient).norm() / gradient.norm().clamp(min=floor) < 1e-9


def test_without_an_adversary_there_is_no_discriminator() -> None:
    method = _method(adversarial_weight=0)
    losses, _, done, _ = _step(method)
    assert set(method.networks) == {"mapper"}
    assert done == ["mapper"]
    assert set(losses) == {"loss/mapper", "loss/reconstruction", "loss/projection"}


@pytest.mark.parametrize("key", ["adversarial_weight", "reconstruction_weight", "projection_weight"])
def test_each_weight_counts(key: str) -> None:
    """The mapper's gradient is linear in each of them."""
    weights = dict.fromkeys(("adversarial_weight", "reconstruction_weight", "projection_weight"), 1e-9)
    one, two = (_mapper_gradient(**{**weights, key: weight}) for weight in (1.0, 2.0))
    assert (two - 2 * one).norm() < 1e-6 * one.norm()


def _mapper_gradient(**weights: float) -> Tensor:
    _, engines, _, _ = _step(_method(**weights))
    return torch.cat([g.flatten() for g in engines["mapper"].gradients[0].values()])


def test_the_discriminator_takes_a_volume_and_each_view() -> None:
    method = _method()
    assert method.channels("discriminator") == 3
    lifted = method.lifted(_batch(0), torch.zeros(4, 1, 16, 16, 16))
    assert lifted.shape == (4, 2, 16, 16, 16)
    assert lifted[:, 0].std(2).max() < 1e-6  # 0° along y
    assert lifted[:, 1].std(3).max() < 1e-6  # 90° along x


def test_weights_follow_from_the_seed_whatever_was_drawn() -> None:
    torch.manual_seed(1)
    one = _method().networks
    torch.manual_seed(2)
    again = _method().networks
    for name, network in one.items():
        other = again[name].state_dict()
        assert all(torch.equal(w, other[n]) for n, w in network.state_dict().items())


def test_defaults_are_the_publications() -> None:
    config = validate(component("xr2ct.methods", "gan").Config, {}, "method")
    assert (config.adversarial_weight, config.reconstruction_weight, config.projection_weight) == (
        0.1,
        10,
        10,
    )
    assert (config.updates, config.discriminator.base_channels) == (1, 64)


def test_wrong_keys_are_refused_with_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean 'adversarial_weight'"):
        validate(gan.Config, {"adverserial_weight": 1}, "method gan")
    with pytest.raises(UserError, match="projection_weight"):
        validate(gan.Config, {"projection_weight": -1}, "method gan")
