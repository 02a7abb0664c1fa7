"""Flow matching on paths and volumes for which the best network is known, and a mapper that follows it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from plain_engine import Plain
from tiny import resolved
from torch import Tensor, nn

from xr2ct.config import Experiment, validate
from xr2ct.errors import UserError
from xr2ct.methods import flow
from xr2ct.methods.base import Batch, sample_seeds
from xr2ct.methods.mappers import mapper_of
from xr2ct.models.flow import FURTHER_CHANNELS, FlowMapper, Path, normal
from xr2ct.models.lift import RepeatLift, Windows
from xr2ct.models.surroundings import Surroundings
from xr2ct.projection.geometry import Geometry
from xr2ct.reconstruction.draws import seeds_of_draw
from xr2ct.stages import StageBefore, Stages

GEOMETRY = Geometry("small", 541.0, 949.0, 500.0, pixels=16)
SIZE = 16
VIEWS = torch.rand(2, 2, 16, 16, generator=torch.Generator().manual_seed(0))
SEEDS = sample_seeds((0, 1), ("a", "b"), torch.device("cpu"))
UNET = {"name": "unet", "channels": [4, 8]}


class Linear(nn.Module):
    """A constant and a multiple of the scaled difference from the start, each growing with time."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(4))

    def forward(self, x: Tensor) -> Tensor:
        scaled, t = x[:, -3:-2], x[:, -1:]
        level, slope, of_time, of_both = self.weight
        return level + slope * scaled + (of_time + of_both * scaled) * t


def mapper(
    path: Path, steps: int = 32, backbone: nn.Module | None = None, coarse: int | None = None, **keys: Any
) -> FlowMapper:
    lift = RepeatLift((90.0, 0.0), GEOMETRY, 320.0, SIZE)
    around = None if coarse is None else Surroundings(SIZE, None, coarse)
    solver = keys.pop("solver", "heun")
    return FlowMapper(path, steps, solver, lift, backbone or Linear(), surroundings=around, **keys).eval()


def experiment(**sections: Any) -> Experiment:
    return Experiment(
        name="test",
        data={"size": SIZE, "views": (90, 0)},
        mapper=UNET,
        method=sections.pop("method", {"name": "flow"}),
        resolved=resolved(GEOMETRY),
        **sections,
    )


@pytest.mark.parametrize("path", [Path(0.1, 0.1), Path(0.1, 0.3), Path(0.5, 0.2)])
def test_the_target_is_the_velocity_as_a_network_of_unit_outputs_tells_it(path: Path) -> None:
    generator = torch.Generator().manual_seed(1)
    noise, difference = torch.randn(2, 20_000, 1, 1, 1, 1, generator=generator)
    difference = path.spread * difference
    for time in (0.0, 0.3, 0.7, 1.0):
        t = torch.full_like(noise, time)
        a, b, c = path.factors(t)
        d, target = path.at(t, noise, difference), path.target(t, noise, difference)
        torch.testing.assert_close(a * d + b * target, difference - path.sigma * noise, atol=1e-5, rtol=1e-4)
        # Volumes normal about the start: input and target have deviation 1, and no line tells more.
        assert (c * d).std().item() == pytest.approx(1, abs=0.02)
        assert target.std().item() == pytest.approx(1, abs=0.02)
        assert (c * d * target).mean().item() == pytest.approx(0, abs=0.02)


@pytest.mark.parametrize("path", [Path(0.1, 0.1), Path(0.1, 0.3), Path(0.3, 0.1)])
def test_volumes_that_are_normal_about_the_start_come_out_with_their_spread(path: Path) -> None:
    """There the best network is 0, and all is known."""
    start = 0.2 + 0.5 * torch.rand(2, 1, SIZE, SIZE, SIZE)
    with torch.no_grad():
        made = mapper(path, coarse=SIZE)(VIEWS, SEEDS, None, start) - start
        assert made.std().item() == pytest.approx(path.spread, rel=0.03)
        assert made.mean().item() == pytest.approx(0, abs=0.03 * path.spread)
        mean = mapper(path, steps=1, coarse=SIZE, solver="euler")(VIEWS, SEEDS, None, start)
    torch.testing.assert_close(mean, start, atol=1e-6, rtol=0)  # one step is their mean


def _volumes_about(level: float, deviation: float) -> Iterator[Batch]:
    generator, place = torch.Generator().manual_seed(2), 0
    while True:
        ct = level + deviation * torch.randn(8, 1, SIZE, SIZE, SIZE, generator=generator)
        places = tuple(range(place, place + 8))
        yield Batch(ct, torch.zeros(8, 2, 16, 16), places, ("a",) * 8)
        place += 8


@pytest.mark.parametrize("accumulation", [1, 2])
def test_what_is_learnt_draws_volumes_as_the_true_ones_are(accumulation: int) -> None:
    """Voxels of mean 0.4 and deviation 0.05; the path supposes 0 and 0.3."""
    made = mapper(Path(0.3, 0.3))
    method = flow.Flow(flow.Config(mapper_updates=150), made)
    engine = Plain(made.train(), accumulation)
    engine.adam = torch.optim.Adam(made.parameters(), lr=0.05)  # type: ignore[assignment]
    losses = method.step({"mapper": engine}, _volumes_about(0.4, 0.05))
    assert engine.updates == method.batches_per_step == 150
    assert losses["loss/mapper"] < 1
    with torch.no_grad():
        volumes = made.eval()(VIEWS, SEEDS)
    assert volumes.mean().item() == pytest.approx(0.4, abs=0.04)
    assert volumes.std().item() < 0.15  # of the noise at the start 0.3


def test_an_update_goes_down_the_slope_of_the_mean_squared_error() -> None:
    """Against autograd, and the same in any number of micro-batches."""
    made = mapper(Path(0.2, 0.1)).train()
    batch = next(_volumes_about(0.1, 0.1))
    method = flow.Flow(flow.Config(), made)
    t, d, target = method.drawn(batch)
    loss = (made(batch.views, batch.seeds, None, None, d, t) - target).square().mean()
    (expected,) = torch.autograd.grad(loss, list(made.parameters()))
    for accumulation in (1, 4):
        told = method.update(_Gradient(made, accumulation), batch)
        assert told["mapper"].item() == pytest.approx(loss.item(), rel=1e-5)
        (parameter,) = made.parameters()
        assert parameter.grad is not None
        torch.testing.assert_close(parameter.grad, expected, rtol=1e-4, atol=1e-6)


class _Gradient(Plain):
    """Leaves the gradient of an update where it is."""

    def __init__(self, network: nn.Module, accumulation: int) -> None:
        super().__init__(network, accumulation)
        self.adam.zero_grad()

    def step(self) -> None:
        pass


def test_draws_repeat_by_their_seeds_and_differ_by_them() -> None:
    made = mapper(Path(0.1, 0.1), steps=4)
    with torch.no_grad():
        whole = made(VIEWS, SEEDS)
        alone = torch.cat([made(VIEWS[i : i + 1], SEEDS[i : i + 1]) for i in (0, 1)])
        other = made(VIEWS, seeds_of_draw(SEEDS, 1))
        later = made(VIEWS, sample_seeds((7, 8), ("a", "b"), torch.device("cpu")))
    assert torch.equal(whole, alone) and torch.equal(whole, later)  # by patient, not by place or batch
    assert (whole - other).std() > 0.1
    assert not torch.equal(whole[0], whole[1])
    with torch.no_grad():
        assert torch.equal(made(VIEWS), made(VIEWS))


def test_seeds_of_draws() -> None:
    draws = [seeds_of_draw(SEEDS, i) for i in range(4)]
    assert torch.equal(draws[0], SEEDS)
    assert torch.equal(draws[2], seeds_of_draw(SEEDS.clone(), 2))
    assert len({tuple(row) for drawn in draws for row in drawn.tolist()}) == 8
    assert all(drawn.dtype == torch.int64 and drawn.shape == SEEDS.shape for drawn in draws)


def test_a_mean_of_draws_lies_nearer_the_mean_than_a_draw() -> None:
    made, start = mapper(Path(0.1, 0.2), coarse=SIZE), torch.full((2, 1, SIZE, SIZE, SIZE), 0.5)
    with torch.no_grad():
        drawn = torch.stack([made(VIEWS, seeds_of_draw(SEEDS, i), None, start) - start for i in range(8)])
    ratio = drawn.mean(0).std() / drawn.std()
    assert ratio.item() == pytest.approx(8**-0.5, rel=0.1)


def test_windows_that_overlap_begin_alike() -> None:
    origins = torch.tensor([[0, 4, 8], [4, 4, 4]])
    same = torch.stack([SEEDS[0], SEEDS[0]])
    one, other = normal(same, 0, 2, SIZE, Windows(origins, 8))
    assert torch.equal(one[0, 4:, :, :4], other[0, :4, :, 4:])
    assert torch.equal(one[0], normal(SEEDS, 0, 2, SIZE, None)[0, 0, :8, 4:12, 8:])


def test_a_checkpoint_of_a_flow_is_rebuilt_from_its_configuration() -> None:
    told = experiment(
        method={"name": "flow", "sigma": 0.2, "steps": 3, "solver": "euler"},
        coarse={"run": "before", "size": SIZE},
    )
    made = mapper_of(told, GEOMETRY, 320.0).eval()
    assert isinstance(made, FlowMapper)
    assert (made.path, made.steps, made.solver) == (Path(0.2, 0.1), 3, "euler")
    with torch.no_grad():
        volume = made(VIEWS, SEEDS, None, torch.full((2, 1, SIZE, SIZE, SIZE), 0.5))
    assert volume.shape == (2, 1, SIZE, SIZE, SIZE) and volume.dtype == torch.float32
    first = next(p for p in made.parameters() if p.ndim == 5)
    assert first.shape[1] == 2 + 1 + FURTHER_CHANNELS


def test_in_half_precision_the_start_and_the_way_stay_in_float32() -> None:
    made = mapper_of(experiment(), GEOMETRY, 320.0).to(torch.bfloat16).eval()
    with torch.no_grad():
        assert made(VIEWS, SEEDS).dtype == torch.float32


def test_the_stage_before_is_asked_once_for_all_draws() -> None:
    class Asked(nn.Module):
        draws = False
        times = 0

        def forward(self, *inputs: Tensor) -> Tensor:
            self.times += 1
            return torch.full((2, 1, SIZE, SIZE, SIZE), 0.5)

    asked = Asked()
    before = StageBefore(Stages(asked, experiment()))  # type: ignore[arg-type]
    stages = Stages(mapper(Path(0.1, 0.1), steps=2, coarse=SIZE), experiment(), before)
    volumes = [stages(VIEWS, seeds_of_draw(SEEDS, i)) for i in range(3)]
    assert asked.times == 1 and stages.draws
    assert not torch.equal(volumes[0], volumes[1])
    drawing = StageBefore(Stages(mapper(Path(0.1, 0.1), steps=2), experiment()))
    one, other = (drawing(VIEWS, seeds_of_draw(SEEDS, i)) for i in (0, 1))
    assert not torch.equal(one, other)


def test_networks_of_views_and_wrong_keys_are_refused() -> None:
    told = experiment().model_copy(update={"mapper": {"name": "autoencoder"}})
    with pytest.raises(UserError, match="method flow needs a network that takes volumes: swin-unetr, unet"):
        mapper_of(told, GEOMETRY, 320.0)
    with pytest.raises(UserError, match=r"sigma: .*greater than 0"):
        validate(flow.Config, {"sigma": 0}, "method flow")
    with pytest.raises(ValueError, match=r"coarse\.size \(16\) must be data\.size \(24\) or a whole part"):
        Experiment(name="test", data={"size": 24}, coarse={"run": "before", "size": 16})
