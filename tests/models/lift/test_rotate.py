"""`lift: rotate`: copies of a frontal view turned about z, against `repeat` and by beads."""

from __future__ import annotations

import math

import pytest
import torch
from beads import CUBE_MM, SIZE, X2CT, bead_views, centres_mm, shadow_mm

from xr2ct.models.lift import RepeatLift, RotateLift
from xr2ct.projection.geometry import EIGHT_ANGLES

BEAD = (41.0, -33.0, 57.0)


@pytest.mark.parametrize("angle", EIGHT_ANGLES)
@pytest.mark.parametrize(("scale", "stretch"), [("isocentre", 1.0), ("stretch", 320 / (500 * 541 / 949))])
def test_a_bead_lands_where_its_ray_meets_the_isocentres_plane_turned_to_the_view(
    angle: float, scale: str, stretch: float
) -> None:
    """Copies run along the view's own beam: across it and up the volume's mass is where the shadow is."""
    views = bead_views(BEAD, EIGHT_ANGLES)[:, EIGHT_ANGLES.index(angle), None]
    volume = RotateLift([angle], X2CT, CUBE_MM, SIZE, scale)(views)[0, 0].double()  # type: ignore[arg-type]
    across, up = shadow_mm(BEAD, angle)
    axis, turn = centres_mm(SIZE), math.radians(angle)
    lateral = axis * math.cos(turn) + axis[:, None] * math.sin(turn)
    assert (volume * lateral).sum() / volume.sum() == pytest.approx(across * stretch, abs=0.5)
    assert (volume * axis[:, None, None]).sum() / volume.sum() == pytest.approx(up * stretch, abs=0.5)


@pytest.mark.parametrize("angle", EIGHT_ANGLES)
def test_copies_run_along_the_beam(angle: float) -> None:
    """The ridge that a bead's copies make is as high at ten places 100 mm and less along the beam."""
    views = bead_views(BEAD, EIGHT_ANGLES)[:, EIGHT_ANGLES.index(angle), None]
    volume = RotateLift([angle], X2CT, CUBE_MM, SIZE)(views)[0, 0]
    across, up = shadow_mm(BEAD, angle)
    turn = math.radians(angle)
    along = torch.linspace(-100, 100, 10, dtype=torch.float64)
    x = across * math.cos(turn) - along * math.sin(turn)
    y = across * math.sin(turn) + along * math.cos(turn)
    z = torch.full_like(x, up)
    k, j, i = ((t / (CUBE_MM / SIZE) + (SIZE - 1) / 2).round().long() for t in (z, y, x))
    assert volume[k, j, i].min() > 0.6 * volume.max()


@pytest.mark.parametrize("size", [15, 16, 64])
@pytest.mark.parametrize("scale", ["isocentre", "stretch"])
def test_views_along_the_grid_agree_with_repeat(size: int, scale: str) -> None:
    angles = (0.0, 90.0, 180.0, 270.0)
    views = torch.rand(2, 4, 256, 256, generator=torch.Generator().manual_seed(0))
    turned = RotateLift(angles, X2CT, CUBE_MM, size, scale)(views)  # type: ignore[arg-type]
    repeated = RepeatLift(angles, X2CT, CUBE_MM, size, scale)(views)  # type: ignore[arg-type]
    assert torch.equal(turned[:, 0], repeated[:, 0])
    torch.testing.assert_close(turned, repeated, rtol=0, atol=1e-4)


def test_an_oblique_view_does_not_fill_the_corners() -> None:
    even = RotateLift([45.0], X2CT, CUBE_MM, SIZE, "stretch")(torch.ones(1, 1, 256, 256))[0, 0]
    radius = (centres_mm(SIZE).square() + centres_mm(SIZE)[:, None].square()).sqrt()
    within = even[:, radius < CUBE_MM / 2 - 5]
    torch.testing.assert_close(within, torch.ones_like(within), rtol=0, atol=1e-4)
    assert even[:, 0, 0].max() == even[:, -1, -1].max() == 0


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_views_own_type_and_places_in_full_precision(dtype: torch.dtype) -> None:
    views = torch.rand(1, 2, 256, 256, generator=torch.Generator().manual_seed(0)).to(dtype)
    lift = RotateLift([30.0, 135.0], X2CT, CUBE_MM, 32)
    lifted = lift(views)
    assert lifted.dtype == dtype
    exact = lift(views.float())
    assert (lifted.float() - exact).abs().max() < (1e-5 if dtype == torch.float64 else 0.02)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(lift(views), lifted)


def test_gradients_reach_every_view() -> None:
    views = torch.rand(1, 3, 256, 256, requires_grad=True)
    RotateLift([0.0, 45.0, 90.0], X2CT, CUBE_MM, 16)(views).sum().backward()
    assert views.grad is not None
    assert (views.grad.abs().sum((0, 2, 3)) > 0).all()
