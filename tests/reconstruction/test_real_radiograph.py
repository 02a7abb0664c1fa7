"""From a hospital's radiograph to a volume: a small mapper that has seen synthetic chests from behind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import save_file
from tiny import resolved

from xr2ct.cohorts.phantom.chest import draw_chest
from xr2ct.cohorts.phantom.grid import Grid
from xr2ct.cohorts.phantom.patient import draw_patient
from xr2ct.cohorts.phantom.shifts import shift_of
from xr2ct.config import Experiment, dump
from xr2ct.models.mapper import build_mapper
from xr2ct.projection.geometry import Geometry
from xr2ct.projection.projector import attenuation, project
from xr2ct.projection.views import scale_views
from xr2ct.reconstruction.familiar import FILE, Familiar, load_familiar
from xr2ct.reconstruction.pictures import read_pictures
from xr2ct.stages import load_stages
from xr2ct.window import HuWindow

GEOMETRY = Geometry("chest-1800", 1600.0, 1800.0, 430.0, pixels=64)
SIZE = 16
WINDOW = HuWindow()


def _chests() -> tuple[np.ndarray, torch.Tensor]:
    """Line integrals (case, 1, row, col) and volumes (case, 1, z, y, x) on the unit window."""
    views, units = [], []
    for number in range(16):
        patient = draw_patient(number, shift_of("lidc-idri"))
        grid = Grid((32,) * 3, (10.0,) * 3, patient.rotation, (0.0, 20.0, -40.0))
        hu = torch.from_numpy(draw_chest(grid, patient, number)[0])[None]
        views.append(project(attenuation(hu), (10.0,) * 3, GEOMETRY, [180.0])[0].numpy())
        units.append(WINDOW.to_unit(F.avg_pool3d(hu, 2)))
    return np.stack(views), torch.stack(units)


def _train(checkpoint: Path) -> torch.Tensor:
    """Write a checkpoint, and return the mean of the volumes (z, y, x) that it learnt from."""
    views, units = _chests()
    experiment = Experiment(
        name="test",
        data={"size": SIZE, "views": ["PA"], "geometry": "chest-1800"},
        lift="backproject",
        mapper={"name": "unet", "channels": (8, 16)},
        resolved=resolved(GEOMETRY),
    )
    torch.manual_seed(0)
    mapper = build_mapper(experiment, GEOMETRY, 320.0).train()
    optimizer = torch.optim.Adam(mapper.parameters(), lr=5e-3)
    scaled = torch.from_numpy(scale_views(views, "max"))
    for step in range(60):
        chosen = torch.arange(4) + 4 * (step % 4)
        optimizer.zero_grad()
        (mapper(scaled[chosen]) - units[chosen]).abs().mean().backward()
        optimizer.step()
    checkpoint.mkdir()
    save_file(mapper.state_dict(), checkpoint / "mapper.safetensors")
    (checkpoint / "config.yaml").write_text(dump(experiment))
    (checkpoint / "COMPLETE").touch()
    save_arrays(Familiar.of([180.0], views, "max").arrays(), checkpoint / FILE)
    return units.mean(dim=0)[0]


def test_a_real_radiograph_becomes_a_chest(real_data: Path, tmp_path: Path) -> None:
    mean = _train(tmp_path / "checkpoint")
    stages = load_stages(tmp_path / "checkpoint")
    file = real_data / "xray" / "chest_pa_monochrome1_j2k.dcm"
    pictures = read_pictures(
        [f"PA={file}"],
        stages.experiment,
        GEOMETRY,
        detector_mm=391.0,
        familiar=load_familiar(tmp_path / "checkpoint"),
    )
    scaled = scale_views(pictures.xrays.line_integrals.numpy(), "max")
    unit = stages(torch.from_numpy(scaled)[None])[0, 0]
    assert torch.isfinite(unit).all()
    assert np.corrcoef(unit.flatten(), mean.flatten())[0, 1] > 0.8
    hu = WINDOW.to_hu(unit.numpy())
    slab = hu[6:11]  # the lungs' middle; x runs from right to left
    right, middle, left = (slab[:, 6:10, cols].mean() for cols in (slice(3, 6), slice(7, 9), slice(10, 13)))
    assert middle > max(right, left) + 150
    # No patient of the training: it is so told, and the volume is not their mean.
    assert [one.far for one in pictures.familiarity] == [True]
    assert any("farther from the training X-rays than 100.0 %" in note for note in pictures.notes)
    assert (unit - mean).abs().mean() > 0.02
