"""`lift: noise`: one slice is the view, the others follow from the sample's seeds and from nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import pytest
import torch
from beads import CUBE_MM, X2CT
from torch import Tensor

from xr2ct.models.lift import NoiseLift, RepeatLift
from xr2ct.projection.geometry import EIGHT_ANGLES

SIZE, MIDDLE = 32, 16
VIEWS = torch.rand(2, 2, 256, 256, generator=torch.Generator().manual_seed(0))
ANGLES = (90.0, 0.0)
SEEDS = torch.tensor([[11, 21], [12, 22]])


def lifted(
    noise: Literal["patient", "iteration"] = "patient",
    seeds: Tensor | None = SEEDS,
    views: Tensor = VIEWS,
    angles: Sequence[float] = ANGLES,
) -> Tensor:
    return NoiseLift(angles, X2CT, CUBE_MM, SIZE, "isocentre", noise)(views, seeds)


def test_one_slice_across_the_beam_holds_the_view_and_the_others_normal_noise() -> None:
    ours, repeated = lifted(), RepeatLift(ANGLES, X2CT, CUBE_MM, SIZE)(VIEWS)
    assert torch.equal(ours[:, 0, :, :, MIDDLE], repeated[:, 0, :, :, MIDDLE])  # 90°: across x
    assert torch.equal(ours[:, 1, :, MIDDLE], repeated[:, 1, :, MIDDLE])  # 0°: across y
    others = torch.arange(SIZE) != MIDDLE
    for noise in (ours[:, 0][..., others], ours[:, 1][:, :, others]):
        assert abs(noise.mean()) < 0.02
        assert noise.std() == pytest.approx(1, abs=0.02)
        assert (noise.std(dim=(0, 1, 2)) > 0.9).all()  # each slice, and no picture in any


@pytest.mark.parametrize("angle", EIGHT_ANGLES)
def test_the_slice_is_that_of_repeat_at_every_angle(angle: float) -> None:
    view = VIEWS[:, :1]
    same = lifted(views=view, angles=[angle]) == RepeatLift([angle], X2CT, CUBE_MM, SIZE)(view)
    axis = 4 if angle in (90.0, 270.0) else 3
    assert same.select(axis, MIDDLE).all()
    assert same.sum() == same.select(axis, MIDDLE).sum()


@pytest.mark.parametrize(("noise", "column"), [("patient", 0), ("iteration", 1)])
def test_noise_follows_from_its_own_number_alone(noise: Literal["patient", "iteration"], column: int) -> None:
    first, other = lifted(noise), SEEDS.clone()
    other[:, 1 - column] += 100
    torch.manual_seed(5)  # of no account
    assert torch.equal(lifted(noise, other), first)
    other[:, column] += 100
    changed = lifted(noise, other)
    assert (changed[:, 1, :, 0] != first[:, 1, :, 0]).all()


def test_noise_is_the_same_in_any_batch_and_its_streams_are_apart() -> None:
    together = lifted()
    alone = lifted(seeds=SEEDS[1:], views=VIEWS[1:])
    assert torch.equal(alone[0], together[1])
    slices = [together[s, v, 3, 3, 3:9] for s in (0, 1) for v in (0, 1)]
    assert all(not torch.equal(a, b) for i, a in enumerate(slices) for b in slices[:i])


def test_a_views_stream_is_its_angles_wherever_it_stands_among_the_views() -> None:
    turned = lifted(views=VIEWS.flip(1), angles=ANGLES[::-1])
    assert torch.equal(turned.flip(1), lifted())


def test_without_seeds_noise_is_fixed() -> None:
    assert torch.equal(lifted(seeds=None), lifted(seeds=None))
    assert torch.equal(lifted("iteration", None), lifted(seeds=torch.zeros(2, 2, dtype=torch.int64)))


def test_half_precision_draws_the_same_noise_rounded() -> None:
    half = lifted(views=VIEWS.bfloat16())
    assert half.dtype == torch.bfloat16
    assert torch.equal(half[:, 1, :, 0], lifted()[:, 1, :, 0].bfloat16())


def test_gradients_reach_every_view() -> None:
    views = VIEWS.clone().requires_grad_()
    lifted(views=views).sum().backward()
    assert views.grad is not None
    assert (views.grad.abs().sum((0, 2, 3)) > 0).all()
