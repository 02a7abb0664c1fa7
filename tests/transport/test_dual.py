"""The potential's slope against finite differences, and in fp16."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from xr2ct.models.potential import Config, Potential
from xr2ct.transport.dual import scores_and_slope


def _volumes() -> Tensor:
    return torch.rand(2, 1, 8, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_slope_is_the_derivative_of_each_score() -> None:
    torch.manual_seed(0)
    potential = Potential(Config(base_channels=4, max_channels=8), 8).double().requires_grad_(False)
    volumes, step = _volumes(), 1e-6
    scores, slope = scores_and_slope(potential, volumes)
    assert scores.shape == (2,)
    moved = volumes.clone()
    moved[1, 0, 3, 4, 5] += step
    difference = (potential(moved).flatten() - scores) / step
    torch.testing.assert_close(difference[1], slope[1, 0, 3, 4, 5], rtol=1e-5, atol=0)
    assert difference[0] == 0


class Faint(nn.Module):
    """A score whose slope, 1e-8 a voxel, is below what fp16 can hold."""

    def __init__(self, slope: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([slope**0.5], dtype=torch.float16))

    def forward(self, volume: Tensor) -> Tensor:
        return ((volume.half() * self.weight).flatten(1).sum(1, keepdim=True)) * self.weight


def test_faint_and_steep_slopes_survive_fp16() -> None:
    for slope in (1e-8, 1e-3, 900.0):
        faint = Faint(slope).requires_grad_(False)
        _, found = scores_and_slope(faint, _volumes().float() / 100)
        assert found.dtype == torch.float32
        expected = torch.full_like(found, (faint.weight.float() ** 2).item())
        torch.testing.assert_close(found, expected, rtol=5e-3, atol=0)
