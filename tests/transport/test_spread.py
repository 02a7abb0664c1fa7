"""The spread of points against distances worked out by hand, and of Gaussians in closed form."""

from __future__ import annotations

import math

import pytest
import torch

from xr2ct.transport.spread import spread


def test_mean_over_pairs_each_once_and_none_with_itself() -> None:
    points = torch.tensor([[0.0, 0.0], [3.0, 4.0], [0.0, 8.0]])
    assert spread(points).item() == pytest.approx((5 + 8 + 5) / 3)


def test_far_from_the_origin_nothing_is_lost() -> None:
    points = torch.tensor([[1e4, 0.0], [1e4 + 0.5, 0.0]], requires_grad=True)
    told = spread(points)
    assert told.item() == 0.5 and told.dtype == torch.float64 and not told.requires_grad


def test_of_a_wide_gaussian_it_is_the_root_of_twice_the_dimension() -> None:
    points = torch.randn(40, 4000, generator=torch.Generator().manual_seed(0))
    assert spread(points).item() == pytest.approx(math.sqrt(2 * 4000), rel=2e-3)


def test_one_point_has_none() -> None:
    assert math.isnan(spread(torch.zeros(1, 3)).item())
