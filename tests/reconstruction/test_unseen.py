"""The null space of the projector: against a dense pseudo-inverse, and on a synthetic and a real chest."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from synthetic_store import CUBE_MM, chest
from torch import Tensor

from xr2ct.cohorts.reader import read_volume_file
from xr2ct.projection.geometry import Geometry
from xr2ct.projection.projector import WATER_PER_MM, attenuation, project
from xr2ct.reconstruction.beams import Beams
from xr2ct.reconstruction.pose import Pose
from xr2ct.reconstruction.unseen import TOLERANCE, LinearBeams, null_part, unseen
from xr2ct.window import HuWindow

WINDOW = HuWindow()
GEOMETRY = Geometry("small", sad_mm=541.0, sid_mm=949.0, detector_mm=500.0, pixels=24)
FINE = chest(0, "lidc-idri")
TURNED = (Pose((0.0, 0.0, 3.0), (4.0, 0.0, -6.0)), Pose())


def beams(
    angles: tuple[float, ...] = (90.0, 0.0), poses: tuple[Pose, ...] | None = None, pixels: int = 24
) -> Beams:
    return Beams(replace(GEOMETRY, pixels=pixels), angles, CUBE_MM, WINDOW, poses)


def unit_chest(size: int) -> Tensor:
    return WINDOW.to_unit(torch.nn.functional.avg_pool3d(FINE[None], 64 // size)[0])


def traces(unit: Tensor, part_hu: Tensor, angles: tuple[float, ...]) -> float:
    """Line integrals of the part over those of the volume, by the projector itself."""
    spacing = (CUBE_MM / len(unit),) * 3
    mu = attenuation(WINDOW.to_hu(unit))
    lines = [
        project(x[None], spacing, GEOMETRY, angles)
        for x in (part_hu.double() * WATER_PER_MM / 1000, mu.double())
    ]
    return float(lines[0].norm() / lines[1].norm())


def test_what_is_unseen_leaves_no_trace() -> None:
    unit = unit_chest(32)
    told = unseen(unit, beams())
    assert told.part_hu.shape == unit.shape and told.part_hu.dtype == torch.float32
    assert traces(unit, told.part_hu, (90.0, 0.0)) < 1.1 * TOLERANCE
    assert told.residual <= TOLERANCE
    # It is a good part of the volume: two views see little of 32,768 voxels.
    assert 0.2 < told.fraction < 0.9


@pytest.mark.parametrize("poses", [None, TURNED])
def test_it_is_what_the_pseudo_inverse_leaves(poses: tuple[Pose, ...] | None) -> None:
    unit, coarse = unit_chest(8).double(), beams(poses=poses, pixels=8)
    told = unseen(unit, coarse, tolerance=1e-9, most_iterations=1000)
    rays = LinearBeams(coarse, unit)
    identity = torch.eye(unit.numel(), dtype=torch.float64).view(-1, *unit.shape)
    dense = torch.stack([rays.project(e).flatten() for e in identity], dim=1)
    mu = attenuation(WINDOW.to_hu(unit)).flatten()
    left = mu - torch.linalg.pinv(dense, rtol=1e-9) @ (dense @ mu)
    assert left.norm() / mu.norm() > 0.05
    part = told.part_hu.double().flatten() * WATER_PER_MM / 1000
    assert (part - left).norm() / mu.norm() < 1e-3
    assert told.fraction == pytest.approx(float(left.norm() / mu.norm()), abs=1e-3)


@pytest.mark.parametrize("poses", [None, TURNED])
def test_what_lies_in_the_range_of_the_adjoint_is_seen(poses: tuple[Pose, ...] | None) -> None:
    rays = LinearBeams(beams(poses=poses), torch.zeros(16, 16, 16, dtype=torch.float64))
    image = torch.rand(2, 24, 24, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    seen = rays.adjoint(rays.project(rays.adjoint(image)))
    left, residual, iterations = null_part(seen, rays.project, rays.adjoint, 1e-8, 2000)
    assert left.norm() / seen.norm() < 1e-4 and residual < 1e-8 and iterations < 2000
    # The adjoint is one: ⟨Ax, y⟩ = ⟨x, Aᵀy⟩.
    x = torch.rand(16, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    assert torch.vdot(rays.project(x).flatten(), image.flatten()).item() == pytest.approx(
        torch.vdot(x.flatten(), rays.adjoint(image).flatten()).item(), rel=1e-12
    )


def test_further_views_see_more_and_masked_pixels_see_nothing() -> None:
    unit = unit_chest(16)
    views = [
        unseen(unit, beams(angles)).fraction for angles in ((90.0,), (90.0, 0.0), (90.0, 0.0, 45.0, 135.0))
    ]
    assert views[0] > views[1] > views[2]
    blind = torch.zeros(2, 24, 24, dtype=torch.bool)
    assert unseen(unit, beams(), blind).fraction == 1
    blind[0] = True  # the second view alone is behind blades
    assert unseen(unit, beams(), blind).fraction == pytest.approx(views[0], abs=1e-6)


def test_share_of_a_part_of_the_body() -> None:
    unit = unit_chest(16)
    told = unseen(unit, beams())
    hu = WINDOW.to_hu(unit)
    assert told.fraction_within(torch.ones_like(unit, dtype=torch.bool), hu) == pytest.approx(
        told.fraction, rel=1e-5
    )
    assert np.isnan(told.fraction_within(torch.zeros_like(unit, dtype=torch.bool), hu))


def test_of_a_real_chest(real_data: Path) -> None:
    volume = read_volume_file(real_data / "chest" / "ct-64" / "ct-64.nrrd")
    hu = torch.from_numpy(np.ascontiguousarray(volume.hu)).float()
    cube = torch.nn.functional.interpolate(hu[None, None], (32, 32, 32), mode="trilinear")[0, 0]
    unit = WINDOW.to_unit(cube)
    told = unseen(unit, beams())
    assert traces(unit, told.part_hu, (90.0, 0.0)) < 1.1 * TOLERANCE
    assert 0.2 < told.fraction < 0.9
