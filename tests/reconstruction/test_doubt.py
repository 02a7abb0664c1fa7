"""Where doubt comes from: draws, their deviation, and mappers that have none to offer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tiny import resolved
from torch import Tensor

from xr2ct.config import Experiment, dump
from xr2ct.errors import UserError
from xr2ct.models.mapper import build_mapper
from xr2ct.projection.geometry import Geometry
from xr2ct.reconstruction.calibration import read_stand_in, write_stand_in
from xr2ct.reconstruction.doubt import (
    EnsembleDraws,
    SampleDraws,
    Spread,
    ViewDraws,
    build_draws,
    check_alike,
    members_of,
)
from xr2ct.run import Run
from xr2ct.stages import load_stages

GEOMETRY = Geometry("small", 541.0, 949.0, 500.0, pixels=16)
VIEWS = torch.rand(2, 2, 16, 16, generator=torch.Generator().manual_seed(0))
SEEDS = torch.arange(4).view(2, 2)

AddCheckpoint = Callable[..., Path]


@pytest.fixture
def checkpoint(tmp_path: Path) -> AddCheckpoint:
    """checkpoint(step, run="run", seed=0, kind="backproject", views=[90, 0]): one with initial weights."""

    def add(
        step: int, run: str = "run", seed: int = 0, views: tuple[int, ...] = (90, 0), **lift: str
    ) -> Path:
        experiment = Experiment(
            name="test",
            seed=seed,
            data={"size": 16, "views": list(views)},
            lift={"kind": "backproject", **lift},
            mapper={"name": "unet", "channels": (4, 8)},
            resolved=resolved(GEOMETRY),
        )
        folder = Run(tmp_path / run).checkpoint(step)
        folder.mkdir(parents=True)
        save_file(build_mapper(experiment, GEOMETRY, 320.0).state_dict(), folder / "mapper.safetensors")
        (folder / "config.yaml").write_text(dump(experiment))
        (folder / "COMPLETE").touch()
        return folder

    return add


def test_mean_and_deviation_are_those_of_all_draws_at_once() -> None:
    generator = torch.Generator().manual_seed(1)
    draws = 1000 + torch.randn(40, 3, 4, 5, generator=generator, dtype=torch.float64) * 0.01
    spread = Spread.of(iter(draws.float()))
    told = draws.float().double()
    assert spread.draws == 40
    torch.testing.assert_close(spread.mean.double(), told.mean(0), rtol=0, atol=2e-4)
    torch.testing.assert_close(spread.sd.double(), told.std(0), rtol=2e-2, atol=0)  # 1000 has 6e-5 in float32
    torch.testing.assert_close(spread.about(spread.mean), spread.sd)
    torch.testing.assert_close(spread.about(spread.mean + 3), (spread.sd.square() + 9).sqrt())
    with pytest.raises(ValueError, match="needs two draws"):
        _ = Spread.of(iter(draws[:1].float())).sd


def test_draws_are_not_written_into() -> None:
    first = torch.zeros(2, 2, 2)
    spread = Spread.of([first, torch.ones(2, 2, 2)])
    assert not first.any() and (spread.mean == 0.5).all()


def test_samples_are_a_random_mappers_own(checkpoint: AddCheckpoint) -> None:
    noise = checkpoint(10, kind="noise", noise="iteration")
    draws = build_draws("samples", noise, samples=4)
    assert draws.names == ("draw-0", "draw-1", "draw-2", "draw-3")
    volumes = list(draws(VIEWS, SEEDS))
    assert [v.shape for v in volumes] == [(2, 16, 16, 16)] * 4
    # The first is what the mapper makes by itself; another number of them makes the same ones.
    torch.testing.assert_close(volumes[0], load_stages(noise)(VIEWS, SEEDS)[:, 0].clamp(0, 1))
    for one, other in zip(volumes, build_draws("samples", noise, samples=2)(VIEWS, SEEDS), strict=False):
        assert torch.equal(one, other)
    assert Spread.of(volumes).sd.mean() > 0


def test_a_mapper_that_draws_nothing_is_refused(checkpoint: AddCheckpoint) -> None:
    draws = build_draws("samples", checkpoint(10), samples=3)
    with pytest.raises(UserError, match=r"same volume of every seed.*views or ensemble"):
        Spread.of(draws(VIEWS, SEEDS))
    with pytest.raises(UserError, match="at least 2 samples, got 1"):
        SampleDraws(lambda views, seeds: views, 1)


def test_an_ensemble_is_the_second_half_of_training(checkpoint: AddCheckpoint) -> None:
    steps = {step: checkpoint(step, seed=step) for step in (0, 2, 5, 8, 10, 12)}
    assert [p.name for p in members_of(steps[10])] == ["step-000005", "step-000008", "step-000010"]
    assert [p.name for p in members_of(steps[12], most=2)] == ["step-000010", "step-000012"]
    (steps[8] / "COMPLETE").unlink()
    draws = build_draws("ensemble", steps[10])
    assert draws.names == ("step-000005", "step-000010")
    made = [load_stages(steps[step])(VIEWS, SEEDS)[:, 0].clamp(0, 1) for step in (5, 10)]
    for volume, expected in zip(draws(VIEWS, SEEDS), made, strict=True):
        torch.testing.assert_close(volume, expected)
    with pytest.raises(UserError, match="needs 2 checkpoints of the half of training before it, found 1"):
        members_of(steps[2])


def test_an_ensemble_of_several_runs_has_to_fit_together(checkpoint: AddCheckpoint) -> None:
    here, there = checkpoint(10), checkpoint(10, run="other", seed=1)
    draws = build_draws("ensemble", here, members=[here, there])
    assert draws.names == ("step-000010", "other/step-000010")
    assert Spread.of(draws(VIEWS, SEEDS)).sd.mean() > 0
    turned = checkpoint(20, run="turned", views=(0, 90))
    with pytest.raises(UserError, match=r"turned.*data\.views \(0\.0, 90\.0\).*has \(90\.0, 0\.0\)"):
        check_alike([here, turned])
    with pytest.raises(UserError, match="at least 2 checkpoints, got 1"):
        EnsembleDraws({"one": load_stages(here)})


def test_views_are_replaced_one_by_one(checkpoint: AddCheckpoint) -> None:
    here = checkpoint(10)
    with pytest.raises(UserError, match=r"lacks doubt/mean-views\.safetensors.*xr2ct evaluate"):
        build_draws("views", here)
    stand_in = torch.rand(2, 16, 16, generator=torch.Generator().manual_seed(5))
    write_stand_in(Run(here.parents[1]), stand_in, (90.0, 0.0))
    torch.testing.assert_close(read_stand_in(here), stand_in)
    seen: list[Tensor] = []

    def reconstruct(views: Tensor, seeds: Tensor) -> Tensor:
        seen.append(views)
        return views.mean(dim=(1, 2, 3)).view(-1, 1, 1, 1, 1).expand(-1, 1, 4, 4, 4)

    before = VIEWS.clone()
    draws = build_draws("views", here, stages=reconstruct)
    assert draws.names == ("without-90", "without-0")
    assert len(list(draws(VIEWS, SEEDS))) == 2
    for place, views in enumerate(seen):
        assert all(torch.equal(views[i, place], stand_in[place]) for i in range(2))
        assert torch.equal(views[:, 1 - place], VIEWS[:, 1 - place])
    assert torch.equal(before, VIEWS)


def test_a_single_view_has_nothing_to_be_left_out(checkpoint: AddCheckpoint) -> None:
    with pytest.raises(UserError, match="at least 2 views, this mapper has 1"):
        build_draws("views", checkpoint(10, views=(90,)))


def test_draws_are_what_would_be_written() -> None:
    """Nothing outside the window is ever read: neither is it doubted."""

    def reconstruct(views: Tensor, seeds: Tensor) -> Tensor:
        return views.mean() * torch.full((len(views), 1, 2, 2, 2), 1e3)

    spread = Spread.of(ViewDraws(reconstruct, torch.ones(2, 16, 16), (90.0, 0.0))(VIEWS, SEEDS))
    assert (spread.mean == 1).all() and (spread.sd == 0).all()
