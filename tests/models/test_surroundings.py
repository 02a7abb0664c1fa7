"""What is seen beside the views: a coarse volume at the right place, the whole of it, and positions."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from xr2ct.config import Experiment
from xr2ct.errors import UserError
from xr2ct.models.lift import Windows
from xr2ct.models.mapper import build_mapper
from xr2ct.models.surroundings import Surroundings, set_into
from xr2ct.projection.geometry import Geometry

GEOMETRY = Geometry("small", 541.0, 949.0, 500.0, pixels=32)


def _ramp(side: int) -> torch.Tensor:
    """(1, 3, side, side, side): z, y and x of voxels' centres in the cube, from 0 to 1."""
    at = (torch.arange(side, dtype=torch.float64) + 0.5) / side
    return torch.stack(torch.meshgrid(at, at, at, indexing="ij"))[None]


def test_a_coarse_volume_is_interpolated_where_the_window_lies() -> None:
    """A linear ramp is itself at any resolution, away from the cube's border."""
    see = Surroundings(32, 8, 16)
    origins = torch.tensor([[4, 12, 20], [8, 16, 4]])
    fine = _ramp(32)[0]
    for axis in range(3):
        coarse = _ramp(16)[:, axis : axis + 1].expand(2, -1, -1, -1, -1)
        channels = see(coarse, Windows(origins, 8))
        assert channels.shape == (2, 5, 8, 8, 8)
        for sample, (z, y, x) in enumerate(origins.tolist()):
            part = fine[axis, z : z + 8, y : y + 8, x : x + 8]
            torch.testing.assert_close(channels[sample, 0], part, rtol=0, atol=1e-6, check_dtype=False)
            positions = channels[sample, 2 + axis].double()
            torch.testing.assert_close(positions, 2 * part - 1, rtol=0, atol=1e-6)


def test_the_whole_chest_is_seen_small() -> None:
    see = Surroundings(32, 8, 16)
    coarse = torch.rand(1, 1, 16, 16, 16, generator=torch.Generator().manual_seed(0))
    small = see(coarse, Windows(torch.zeros(1, 3, dtype=torch.int64), 8))[0, 1]
    assert small.mean().item() == pytest.approx(coarse.mean().item(), abs=2e-2)
    constant = see(torch.full((1, 1, 16, 16, 16), 0.3), Windows(torch.tensor([[24, 24, 24]]), 8))
    torch.testing.assert_close(constant[:, :2], torch.full((1, 2, 8, 8, 8), 0.3))


def test_whole_volumes_see_the_coarse_one_alone() -> None:
    see = Surroundings(32, None, 16)
    assert see.channels == 1
    volume = see(_ramp(16)[:, :1], None)
    torch.testing.assert_close(
        volume[0, 0, 1:-1], _ramp(32)[0, 0, 1:-1], atol=1e-6, rtol=0, check_dtype=False
    )


def _experiment(**keys: Any) -> Experiment:
    return Experiment(
        name="test",
        mapper={"name": "unet", "channels": (4, 8)},
        **{"data": {"size": 32, "window": 16, "views": [0, 90]}, "coarse": {"run": "r", "size": 16}, **keys},
    )


def test_a_mapper_of_sub_volumes() -> None:
    mapper = build_mapper(_experiment(), GEOMETRY, 320.0)
    views, coarse = torch.rand(2, 2, 32, 32), torch.rand(2, 1, 16, 16, 16)
    near, far = torch.zeros(2, 3, dtype=torch.int64), torch.tensor([[0, 0, 0], [16, 16, 16]])
    one, two = (mapper(views, None, origins, coarse) for origins in (near, far))
    assert one.shape == (2, 1, 16, 16, 16)
    torch.testing.assert_close(one[0], two[0])
    assert not torch.allclose(one[1], two[1])


def test_networks_of_views_refuse_both() -> None:
    for keys in (
        {"coarse": None},
        {"data": {"size": 128, "views": [0, 90]}, "coarse": {"run": "r", "size": 64}},
    ):
        experiment = _experiment(**keys).model_copy(update={"mapper": {"name": "x2ct-gan"}})
        with pytest.raises(UserError, match="mapper x2ct-gan takes whole views"):
            build_mapper(experiment, GEOMETRY, 320.0)


def test_a_sub_volume_is_set_into_its_chest() -> None:
    """Two samples at places of their own: by slices and by `set_into` the same, in value and gradient."""
    generator = torch.Generator().manual_seed(0)
    chest = torch.rand(2, 1, 16, 16, 16, dtype=torch.float64, generator=generator)
    windows = torch.rand(2, 1, 8, 8, 8, dtype=torch.float64, generator=generator).requires_grad_()
    origins = torch.tensor([[0, 24, 8], [20, 4, 0]])  # in a grid of 64³, four voxels to one
    made = set_into(chest, windows, origins, 4)
    expected = chest.clone()
    for sample, (z, y, x) in enumerate((origins // 4).tolist()):
        means = windows[sample, 0].view(2, 4, 2, 4, 2, 4).mean((1, 3, 5))
        expected[sample, 0, z : z + 2, y : y + 2, x : x + 2] = means
    torch.testing.assert_close(made, expected)
    weights = torch.rand(made.shape, dtype=torch.float64, generator=generator)
    (ours,) = torch.autograd.grad((made * weights).sum(), windows)
    (theirs,) = torch.autograd.grad((expected * weights).sum(), windows)
    torch.testing.assert_close(ours, theirs)
