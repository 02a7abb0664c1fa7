"""`lift: backproject`: each voxel reads its own ray, by beads and by closed forms of the cone beam."""

from __future__ import annotations

import math

import pytest
import torch
from beads import BEADS, CUBE_MM, SIZE, VOXEL_MM, X2CT, bead_views, centres_mm
from torch import Tensor

from xr2ct.models.lift import BackprojectLift, backproject
from xr2ct.projection.geometry import EIGHT_ANGLES, NAMED, Geometry

Bead = tuple[float, float, float]


def voxel_of(bead: Bead) -> tuple[int, int, int]:
    """Indices (z, y, x) of the voxel that a bead at (x, y, z) lies in."""
    x, y, z = (round(c / VOXEL_MM + (SIZE - 1) / 2) for c in bead)
    return z, y, x


def ray_places(angle: float, geometry: Geometry, axis: Tensor) -> tuple[Tensor, Tensor]:
    """Where the ray through each voxel (z, y, x) meets the detector, mm along its columns and up.

    By similar triangles on vectors: source + t·(voxel − source), t where its depth is the detector's.
    """
    turn = math.radians(angle)
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    voxels = torch.stack([x, y, z], -1)
    beam = torch.tensor([-math.sin(turn), math.cos(turn), 0.0], dtype=torch.float64)
    columns = torch.tensor([math.cos(turn), math.sin(turn), 0.0], dtype=torch.float64)
    source = -geometry.sad_mm * beam
    t = geometry.sid_mm / ((voxels - source) @ beam)
    met = source + t[..., None] * (voxels - source)
    return met @ columns, met[..., 2]


def places_as_pictures(geometry: Geometry) -> Tensor:
    """Two samples of one view (2, 1, row, col) that say where each pixel is: mm along the columns, and up."""
    pixels = (torch.arange(256, dtype=torch.float64) - 127.5) * geometry.pixel_mm
    return torch.stack([pixels.expand(256, 256), -pixels[:, None].expand(256, 256)])[:, None]


@pytest.mark.parametrize("bead", BEADS)
@pytest.mark.parametrize("angle", EIGHT_ANGLES)
def test_the_bead_lies_on_the_ridge_of_every_view(bead: Bead, angle: float) -> None:
    """Through the bead's voxel, up and across the beam, the maximum is within a voxel of the bead."""
    views = bead_views(bead, EIGHT_ANGLES)[:, EIGHT_ANGLES.index(angle), None]
    volume = BackprojectLift([angle], X2CT, CUBE_MM, SIZE)(views)[0, 0]
    k, j, i = voxel_of(bead)
    found = {"z": (volume[:, j, i], bead[2])}
    if angle % 180 != 90:
        found["x"] = (volume[k, j], bead[0])
    if angle % 180 != 0:
        found["y"] = (volume[k, :, i], bead[1])
    for line, true_mm in found.values():
        assert abs(centres_mm(SIZE)[line.argmax()] - true_mm) <= VOXEL_MM
        assert line.min() < 0.1 * line.max()  # a ridge, not a plain


@pytest.mark.parametrize("bead", [*BEADS, (41.0, -33.0, 58.9)])
def test_eight_views_meet_in_the_bead(bead: Bead) -> None:
    lifted = BackprojectLift(EIGHT_ANGLES, X2CT, CUBE_MM, SIZE)(bead_views(bead, EIGHT_ANGLES))[0]
    for volume in (lifted.mean(0), lifted.prod(0)):
        z, y, x = (centres_mm(SIZE)[i] for i in torch.unravel_index(volume.argmax(), volume.shape))
        assert max(abs(x - bead[0]), abs(y - bead[1]), abs(z - bead[2])) <= VOXEL_MM


@pytest.mark.parametrize("name", ["x2ct", "chest-1800"])
@pytest.mark.parametrize("angle", [0.0, 30.0, 90.0, 225.0, 270.0])
def test_every_voxel_reads_the_place_that_its_ray_meets(name: str, angle: float) -> None:
    geometry = NAMED[name]
    lifted = BackprojectLift([angle], geometry, CUBE_MM, 16)(places_as_pictures(geometry))[:, 0]
    u, v = ray_places(angle, geometry, centres_mm(16))
    reach = geometry.detector_mm / 2 - CUBE_MM / 16 * geometry.magnification  # of the filter, from the edge
    inside = (u.abs() < reach) & (v.abs() < reach)
    assert inside.sum() > 0.3 * inside.numel()
    torch.testing.assert_close(lifted[:, inside], torch.stack([u, v])[:, inside], rtol=0, atol=1e-5)


@pytest.mark.parametrize("angle", [0.0, 30.0, 270.0])
def test_points_anywhere_read_the_place_that_their_ray_meets(angle: float) -> None:
    points = torch.tensor([-101.3, -7.7, 0.4, 55.0, 93.9], dtype=torch.float64)
    read = backproject.read_along_rays(places_as_pictures(X2CT)[:, 0], angle, X2CT, points, points, points)
    places = torch.stack(ray_places(angle, X2CT, points))
    inside = places.abs().amax(0) < 249  # a pixel reaches half its pitch
    torch.testing.assert_close(read[:, inside], places[:, inside], rtol=0, atol=1e-9)


@pytest.mark.parametrize("size", [16, 64])
@pytest.mark.parametrize("angle", [0.0, 45.0, 270.0])
def test_an_even_picture_stays_even_in_the_beam_and_nothing_is_beside_it(angle: float, size: int) -> None:
    lifted = BackprojectLift([angle], X2CT, CUBE_MM, size)(torch.ones(1, 1, 256, 256))[0, 0]
    u, v = ray_places(angle, X2CT, centres_mm(size))
    inside = (u.abs() <= 250) & (v.abs() <= 250)
    assert 0.4 < inside.double().mean() < 0.9
    torch.testing.assert_close(lifted, inside.float())


def test_stripes_finer_than_a_voxel_do_not_alias() -> None:
    """256 columns into voxels of 3.5 to 6.4 columns: stripes one pixel wide become their mean."""
    stripes = (torch.arange(256) % 2).float().expand(1, 1, 256, 256)
    lifted = BackprojectLift([0.0], X2CT, CUBE_MM, SIZE)(stripes)[0, 0, 32]
    assert (lifted[:, 16:48] - 0.5).abs().max() < 0.02


def test_no_ray_goes_backwards_from_a_source_within_the_cube() -> None:
    near = Geometry("near", sad_mm=95.0, sid_mm=300.0, detector_mm=500.0, pixels=16)  # a voxel's own centre
    views = torch.ones(1, 1, 16, 16, requires_grad=True)
    lifted = BackprojectLift([0.0], near, CUBE_MM, 32)(views)[0, 0]
    assert lifted[:, centres_mm(32) <= -95].max() == 0
    assert lifted[:, centres_mm(32) > 0].max() == 1
    lifted.sum().backward()
    assert views.grad is not None
    assert views.grad.isfinite().all()


def test_slabs_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    lift, views = BackprojectLift([0.0, 45.0], X2CT, CUBE_MM, 16), torch.rand(2, 2, 256, 256)
    whole = lift(views)
    monkeypatch.setattr(backproject, "_BLOCK", 16 * 16 * 3)
    assert torch.equal(lift(views), whole)


def test_a_part_of_a_volume_is_the_part_of_the_whole() -> None:
    view, axis = torch.rand(2, 256, 256), centres_mm(16)
    whole = backproject.read_along_rays(view, 30.0, X2CT, axis, axis, axis)
    part = backproject.read_along_rays(view, 30.0, X2CT, axis[3:7], axis[8:], axis[:5])
    torch.testing.assert_close(part, whole[:, 3:7, 8:, :5])


def test_samples_and_views_do_not_mix() -> None:
    views = torch.rand(2, 3, 256, 256)
    angles = (0.0, 45.0, 270.0)
    together = BackprojectLift(angles, X2CT, CUBE_MM, 16)(views)
    for v, angle in enumerate(angles):
        alone = BackprojectLift([angle], X2CT, CUBE_MM, 16)(views[1:, v : v + 1])
        torch.testing.assert_close(alone[:, 0], together[1:, v])


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_views_own_type_and_places_in_full_precision(dtype: torch.dtype) -> None:
    views = torch.rand(1, 2, 256, 256, generator=torch.Generator().manual_seed(0)).to(dtype)
    lift = BackprojectLift([30.0, 135.0], X2CT, CUBE_MM, 16)
    lifted = lift(views)
    assert lifted.dtype == dtype
    tolerance = 1e-5 if dtype == torch.float64 else 2**-8
    torch.testing.assert_close(lifted.float(), lift(views.float()), rtol=tolerance, atol=tolerance)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(lift(views), lifted)
    assert torch.equal(torch.nn.Sequential(lift).bfloat16()(views), lifted)


def test_gradients_are_exact_and_reach_every_view() -> None:
    geometry = Geometry("g", 541.0, 949.0, 500.0, pixels=6)
    lift = BackprojectLift([0.0, 45.0], geometry, CUBE_MM, 3)
    views = torch.rand(1, 2, 6, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lift, views)
    lift(views).square().sum().backward()
    assert views.grad is not None
    assert (views.grad.abs().sum((0, 2, 3)) > 0).all()
    assert not lift.state_dict()
    assert not list(lift.parameters())
