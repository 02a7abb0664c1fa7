"""Metrics and re-projection on a GPU are those of the CPU."""

from __future__ import annotations

import pytest
import torch

from xr2ct.evaluation.metrics import score_volume
from xr2ct.evaluation.reprojection import project_unit, reprojection_error
from xr2ct.projection.geometry import named_geometry
from xr2ct.window import HuWindow

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


def test_every_mode_is_the_same_on_a_gpu() -> None:
    random = torch.Generator().manual_seed(0)
    truth = torch.rand(64, 64, 64, generator=random)
    prediction = truth + 0.1 * torch.randn(64, 64, 64, generator=random)
    masks = {"body": truth > 0.3, "lungs": truth > 0.8}
    expected = score_volume(prediction, truth, 2500.0, masks)
    on_gpu = {region: mask.cuda() for region, mask in masks.items()}
    got = score_volume(prediction.cuda(), truth.cuda(), 2500.0, on_gpu)
    assert got == pytest.approx(expected, abs=1e-9)


def test_reprojection_error_is_the_same_on_a_gpu() -> None:
    geometry, window = named_geometry("x2ct"), HuWindow()
    units = torch.rand(2, 1, 64, 64, 64, generator=torch.Generator().manual_seed(0))
    made, true = (project_unit(unit, window, 320.0, geometry, (0, 90)) for unit in units)
    on_gpu = [project_unit(unit.cuda(), window, 320.0, geometry, (0, 90)) for unit in units]
    expected = reprojection_error(made[0], true[0])
    assert reprojection_error(on_gpu[0][0], on_gpu[1][0]) == pytest.approx(expected, rel=1e-4)
