"""Volumes by overlapping windows: no seam, and what a local network makes of the whole."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from xr2ct.windows import Tiling, by_windows

CPU = torch.device("cpu")


@settings(deadline=None)
@given(side=st.integers(16, 96), more=st.integers(0, 300))
def test_windows_cover_the_axis_and_their_weights_add_up_to_one(side: int, more: int) -> None:
    tiling = Tiling.of(side + more, side)
    starts = tiling.starts
    assert starts[0] == 0 and starts[-1] == more
    assert all(0 < b - a <= side - tiling.overlap for a, b in pairwise(starts))
    total = torch.zeros(tiling.size, dtype=torch.float64)
    for start, weight in tiling.weights().items():
        assert bool((weight >= 0).all())
        total[start : start + side] += weight
    torch.testing.assert_close(total, torch.ones_like(total))


@pytest.mark.parametrize("side", [16, 24, 40])
def test_a_constant_volume_has_no_seam(side: int) -> None:
    """Within 0.01 HU of a window of 2500 HU, where 1 HU would do."""
    volume = by_windows(lambda o: torch.full((len(o), 1, side, side, side), 0.37), Tiling.of(64, side), CPU)
    assert float((volume - 0.37).abs().max()) * 2500 < 0.01


def _cut(volume: Tensor, side: int, origins: Tensor) -> Tensor:
    return torch.stack([volume[:, z : z + side, y : y + side, x : x + side] for z, y, x in origins.tolist()])


@pytest.mark.parametrize("at_once", [1, 3, 8])
def test_a_local_network_makes_of_windows_what_it_makes_of_the_whole(at_once: int) -> None:
    """Two convolutions see two voxels far, and the outermost two of a window of 32 count nothing."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv3d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv3d(4, 1, 3, padding=1))
    volume, side, groups = torch.rand(1, 72, 72, 72), 32, []

    def predict(origins: Tensor) -> Tensor:
        groups.append(len(origins))
        made: Tensor = network(_cut(volume, side, origins))
        return made

    with torch.no_grad():
        whole, windows = network(volume[None])[0, 0], by_windows(predict, Tiling.of(72, side), CPU, at_once)
    torch.testing.assert_close(windows, whole, rtol=0, atol=1e-6)
    assert max(groups) == at_once and sum(groups) == 27


def test_a_border_that_is_wrong_counts_nothing() -> None:
    def predict(origins: Tensor) -> Tensor:
        made = torch.ones(len(origins), 1, 32, 32, 32)
        for window, place in zip(made, origins.tolist(), strict=True):
            for axis, start in enumerate(place):
                if start > 0:
                    window.narrow(axis + 1, 0, 2).fill_(100.0)
                if start + 32 < 72:
                    window.narrow(axis + 1, 30, 2).fill_(100.0)
        return made

    volume = by_windows(predict, Tiling.of(72, 32), CPU)
    torch.testing.assert_close(volume, torch.ones_like(volume))


def test_one_window_is_the_whole() -> None:
    assert Tiling.of(48, 64).origins == [(0, 0, 0)]
    volume = torch.rand(1, 1, 48, 48, 48)
    assert torch.equal(by_windows(lambda _: volume, Tiling.of(48, 64), CPU), volume[0, 0])
