"""A store of synthetic chests at 16³, with X-rays from eight sides, and every split."""

from __future__ import annotations

from multiprocessing.context import ForkServerContext
from pathlib import Path

import numpy as np
import pytest
import torch
from trainer import Trainer, processes

from xr2ct.cohorts.phantom.chest import draw_chest
from xr2ct.cohorts.phantom.grid import Grid
from xr2ct.cohorts.phantom.patient import draw_patient
from xr2ct.cohorts.phantom.shifts import shift_of
from xr2ct.projection.geometry import EIGHT_ANGLES, Geometry
from xr2ct.projection.projector import attenuation, project
from xr2ct.seeds import derive_seed
from xr2ct.store import write
from xr2ct.store.layout import XraySet

__all__ = ["processes"]

COHORT = "lidc-idri"
CUBE_MM = 320.0
SIZE, FINE = 16, 64
GEOMETRY = Geometry("x2ct", sad_mm=541.0, sid_mm=949.0, detector_mm=500.0, pixels=32)
SPLITS = ("train", "train", "train", "val", "test")


def chest(number: int) -> np.ndarray:
    """(z, y, x) HU of a synthetic patient in the cube, drawn on a grid of 5 mm."""
    seed = derive_seed(number, "phantom", COHORT)
    patient = draw_patient(seed, shift_of(COHORT))
    spacing = (CUBE_MM / FINE,) * 3
    return draw_chest(Grid((FINE,) * 3, spacing, patient.rotation, (0.0, 20.0, -40.0)), patient, seed)[0]


@pytest.fixture(scope="session")
def chests(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the one store; read only."""
    folder = tmp_path_factory.mktemp("stores")
    path = folder / f"{COHORT}.zarr"
    write.lay_out(path, COHORT, CUBE_MM, len(SPLITS), [SIZE], [XraySet(GEOMETRY, EIGHT_ANGLES)])
    rows = []
    for row, split in enumerate(SPLITS):
        fine = torch.from_numpy(chest(row))[None]
        views = project(attenuation(fine), (CUBE_MM / FINE,) * 3, GEOMETRY, EIGHT_ANGLES)[0].numpy()
        coarse = torch.nn.functional.avg_pool3d(fine, FINE // SIZE)[0].round().numpy().astype(np.int16)
        sums = {
            array: write.write_chunk(path, array, row, values)
            for array, values in ((f"ct/{SIZE}", coarse), ("xray/x2ct", views))
        }
        write.write_case(path, f"case{row}", {"patient": f"patient{row}", "checksums": sums})
        rows.append({"id": f"case{row}", "patient": f"patient{row}", "split": split, "row": row})
    write.publish(path, rows, [SIZE], ["x2ct"])
    return folder


@pytest.fixture
def trainer(tmp_path: Path, chests: Path, processes: ForkServerContext) -> Trainer:
    return Trainer(tmp_path, chests, processes)
