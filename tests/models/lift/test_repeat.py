"""`lift: repeat`: where a view's pixels land in the volume, by beads projected and lifted again."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from beads import CUBE_MM, SIZE, X2CT, bead_views, centroid_mm, shadow_mm

from xr2ct.models.lift import RepeatLift
from xr2ct.projection.geometry import EIGHT_ANGLES

# The axis of the copies, the lateral axis, and its sign: dimensions of (z, y, x).
Z, Y, X = 0, 1, 2
AXES = {
    0.0: (Y, X, +1), 45.0: (Y, X, +1), 90.0: (X, Y, +1), 135.0: (Y, X, -1),
    180.0: (Y, X, -1), 225.0: (Y, X, -1), 270.0: (X, Y, -1), 315.0: (Y, X, +1),
}  # fmt: skip


@pytest.mark.parametrize("angle", EIGHT_ANGLES)
@pytest.mark.parametrize(("scale", "stretch"), [("isocentre", 1.0), ("stretch", 320 / (500 * 541 / 949))])
def test_a_bead_off_every_axis_lands_where_its_ray_meets_the_isocentre(
    angle: float, scale: str, stretch: float
) -> None:
    bead = (41.0, -33.0, 57.0)
    lift = RepeatLift([angle], X2CT, CUBE_MM, SIZE, scale)  # type: ignore[arg-type]
    views = bead_views(bead, EIGHT_ANGLES)[:, EIGHT_ANGLES.index(angle), None]
    volume = lift(views)[0, 0]
    copies, lateral, sign = AXES[angle]
    across, up = shadow_mm(bead, angle)

    assert volume.shape == (SIZE,) * 3
    assert volume.std(dim=copies).max() < 1e-6 * volume.max()  # the same all along the beam
    assert centroid_mm(volume, lateral) == pytest.approx(sign * across * stretch, abs=0.5)
    assert centroid_mm(volume, Z) == pytest.approx(up * stretch, abs=0.5)


def test_on_axis_views_cross_near_the_bead() -> None:
    """AP, PA and both laterals agree on left, front and head to within the beam's divergence."""
    bead = (41.0, -33.0, 57.0)
    angles = (0.0, 90.0, 180.0, 270.0)
    volume = RepeatLift(angles, X2CT, CUBE_MM, SIZE)(bead_views(bead, angles))[0].prod(0)
    found = [centroid_mm(volume, axis) for axis in (X, Y, Z)]
    assert np.abs(np.subtract(found, bead)).max() < CUBE_MM / SIZE


@pytest.mark.parametrize(("scale", "error_mm"), [("isocentre", 22.7), ("stretch", 37.7)])
def test_the_beam_diverges_and_copies_do_not(scale: str, error_mm: float) -> None:
    """100 mm lateral and 100 mm towards the source: off its ray by as much as that."""
    lift = RepeatLift([0.0], X2CT, CUBE_MM, SIZE, scale)  # type: ignore[arg-type]
    volume = lift(bead_views((100.0, -100.0, 0.0), (0.0,)))[0, 0]
    assert centroid_mm(volume, X) - 100 == pytest.approx(error_mm, abs=0.6)


@pytest.mark.parametrize("size", [16, 64, 320])
def test_an_even_picture_stays_even_inside_the_beam_and_nothing_is_outside(size: int) -> None:
    lifted = RepeatLift([0.0], X2CT, CUBE_MM, size)(torch.ones(1, 1, 256, 256))[0, 0, :, 0]
    centres = (torch.arange(size) - (size - 1) / 2) * (CUBE_MM / size)
    inside = centres.abs() < 500 * 541 / 949 / 2
    torch.testing.assert_close(lifted, (inside[:, None] & inside).float())


def test_a_stretched_picture_fills_the_cube() -> None:
    lifted = RepeatLift([0.0, 90.0], X2CT, CUBE_MM, 16, "stretch")(torch.ones(1, 2, 256, 256))
    torch.testing.assert_close(lifted, torch.ones(1, 2, 16, 16, 16))


def test_stripes_finer_than_a_voxel_do_not_alias() -> None:
    """256 columns of 1.1 mm into voxels of 5 mm: stripes one pixel wide become their mean."""
    stripes = (torch.arange(256) % 2).float().expand(1, 1, 256, 256)
    lifted = RepeatLift([0.0], X2CT, CUBE_MM, SIZE)(stripes)[0, 0, 32, 32]
    assert (lifted[6:-6] - 0.5).abs().max() < 0.03


def test_views_are_channels_in_order_and_any_number_goes() -> None:
    views = torch.rand(2, 8, 256, 256)
    together = RepeatLift(EIGHT_ANGLES, X2CT, CUBE_MM, 16)(views)
    assert together.shape == (2, 8, 16, 16, 16)
    for v, angle in enumerate(EIGHT_ANGLES):
        alone = RepeatLift([angle], X2CT, CUBE_MM, 16)(views[:, v : v + 1])
        torch.testing.assert_close(alone[:, 0], together[:, v])


@pytest.mark.parametrize(("angle", "copies"), [(22.5, Y), (67.5, X), (80.0, X), (300.0, X), (315.0, Y)])
def test_copies_run_along_the_axis_nearest_the_beam(angle: float, copies: int) -> None:
    volume = RepeatLift([angle], X2CT, CUBE_MM, 16)(torch.rand(1, 1, 256, 256))[0, 0]
    assert volume.std(dim=copies).max() < 1e-6


def test_no_weights_and_the_views_own_type() -> None:
    lift = RepeatLift([0.0], X2CT, CUBE_MM, 16)
    assert not lift.state_dict()
    assert not list(lift.parameters())
    views = torch.rand(1, 1, 256, 256, requires_grad=True)
    lift(views).sum().backward()
    assert views.grad is not None
    assert views.grad.abs().sum() > 0
    for dtype in (torch.float64, torch.bfloat16):
        assert lift(views.to(dtype)).dtype == dtype


def test_views_are_resampled_in_their_own_precision_whatever_the_network_is_cast_to() -> None:
    views = torch.rand(1, 2, 256, 256)
    lift = RepeatLift([0.0, 270.0], X2CT, CUBE_MM, 16)
    expected = lift(views)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(lift(views), expected)
    assert torch.equal(torch.nn.Sequential(lift).bfloat16()(views), expected)
