"""A lift's window is that part of its whole volume, of each sample at its own place."""

from __future__ import annotations

import pytest
import torch

from xr2ct.config import Experiment
from xr2ct.errors import UserError
from xr2ct.models.lift import BackprojectLift, RepeatLift, Windows, build_lift
from xr2ct.projection.geometry import Geometry

GEOMETRY = Geometry("small", 541.0, 949.0, 500.0, pixels=32)
ANGLES = (0.0, 90.0, 225.0, 300.0)
ORIGINS = torch.tensor([[0, 0, 0], [3, 10, 7], [12, 1, 12]])


@pytest.mark.parametrize("kind", [RepeatLift, BackprojectLift])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_each_samples_window_is_cut_from_its_own_place(
    kind: type[RepeatLift | BackprojectLift], dtype: torch.dtype
) -> None:
    lift = kind(ANGLES, GEOMETRY, 320.0, 24)
    views = torch.rand(3, len(ANGLES), 32, 32, dtype=dtype, generator=torch.Generator().manual_seed(0))
    whole, cut = lift(views), lift(views, None, Windows(ORIGINS, 12))
    assert cut.shape == (3, len(ANGLES), 12, 12, 12) and cut.dtype == dtype
    for sample, (z, y, x) in enumerate(ORIGINS.tolist()):
        expected = whole[sample, :, z : z + 12, y : y + 12, x : x + 12]
        torch.testing.assert_close(cut[sample], expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", ["rotate", "noise"])
def test_lifts_of_whole_volumes_refuse_sub_volumes(kind: str) -> None:
    experiment = Experiment(name="test", lift={"kind": kind}, data={"size": 32, "window": 16})
    with pytest.raises(UserError, match=f"lift.kind: {kind} makes whole volumes only"):
        build_lift(experiment, GEOMETRY, 320.0)
