"""The projector on a GPU gives what it gives on the CPU, and its adjoint is one there too."""

from __future__ import annotations

import pytest
import torch

from xr2ct.projection.geometry import EIGHT_ANGLES, named_geometry
from xr2ct.projection.projector import backproject, outside_beam, project

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")

SHAPE, SPACING = (60, 70, 80), (5.0, 4.0, 3.0)


def test_views_and_their_adjoint() -> None:
    geometry = named_geometry("x2ct")
    volumes = torch.rand(2, *SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = project(volumes, SPACING, geometry, EIGHT_ANGLES)
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 1e-5)):
        mu = volumes.to("cuda", dtype, copy=True).requires_grad_()
        views = project(mu, SPACING, geometry, EIGHT_ANGLES)
        assert (views.cpu() - expected).norm() < tolerance * expected.norm()
        views.backward(views.detach())
        assert mu.grad is not None
        assert torch.equal(mu.grad, backproject(views.detach(), SHAPE, SPACING, geometry, EIGHT_ANGLES))
        there, back = views.detach().double().square().sum(), (mu.detach() * mu.grad).double().sum()
        assert abs(there - back) < tolerance * there


def test_a_second_volume_never_waits_for_the_host() -> None:
    geometry = named_geometry("x2ct")
    mu = torch.rand(2, *SHAPE, device="cuda")
    views = project(mu, SPACING, geometry, EIGHT_ANGLES)
    back = backproject(views, SHAPE, SPACING, geometry, EIGHT_ANGLES)
    torch.cuda.set_sync_debug_mode("error")
    try:
        again = project(mu, SPACING, geometry, EIGHT_ANGLES)
        back_again = backproject(again, SHAPE, SPACING, geometry, EIGHT_ANGLES)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.equal(again, views)
    assert torch.equal(back_again, back)


def test_outside_beam() -> None:
    body = torch.rand(SHAPE, generator=torch.Generator().manual_seed(0)) > 0.5
    geometry = named_geometry("chest-1800")
    expected = outside_beam(body, (9.0, 8.0, 7.0), geometry, EIGHT_ANGLES)
    assert outside_beam(body.cuda(), (9.0, 8.0, 7.0), geometry, EIGHT_ANGLES) == pytest.approx(expected)
