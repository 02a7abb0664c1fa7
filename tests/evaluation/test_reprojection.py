"""Re-projection error in closed form."""

from __future__ import annotations

import pytest
import torch

from xr2ct.evaluation.reprojection import project_unit, reprojection_error
from xr2ct.projection.geometry import Geometry
from xr2ct.window import HuWindow

GEOMETRY = Geometry("x2ct", sad_mm=541.0, sid_mm=949.0, detector_mm=500.0, pixels=32)


def test_error_of_a_denser_body_is_its_excess() -> None:
    """Line integrals are linear in µ = 0.02·(1 + HU/1000): 10 % more of it is a relative error of 0.1."""
    window = HuWindow()
    hu = torch.full((1, 32, 32, 32), -1000.0)
    hu[:, 8:24, 8:24, 8:24] = 0
    denser = torch.where(hu == 0, 100.0, hu)
    lines, more = (project_unit(window.to_unit(v), window, 320.0, GEOMETRY, (0, 90)) for v in (hu, denser))
    got = reprojection_error(more[0], lines[0])
    assert got["reprojection/relative_l2"] == pytest.approx(0.1, rel=1e-4)
    assert got["reprojection/mae"] == pytest.approx(0.1 * lines.mean().item(), rel=1e-4)
    assert lines.max().item() == pytest.approx(0.02 * 160, rel=0.02), "160 mm of water"


def test_reconstructions_are_clipped_to_the_window_before_projection() -> None:
    window = HuWindow()
    volume = torch.rand(1, 16, 16, 16) * 3 - 1
    assert torch.equal(
        project_unit(volume, window, 320.0, GEOMETRY, (0,)),
        project_unit(volume.clip(0, 1), window, 320.0, GEOMETRY, (0,)),
    )
