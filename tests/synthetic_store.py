"""Stores of synthetic chests within seconds: drawn in the cube itself, without a scanner or DICOM."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from xr2ct.cohorts.phantom.chest import draw_chest
from xr2ct.cohorts.phantom.grid import Grid
from xr2ct.cohorts.phantom.patient import draw_patient
from xr2ct.cohorts.phantom.shifts import shift_of
from xr2ct.projection.geometry import Geometry
from xr2ct.projection.projector import attenuation, project
from xr2ct.seeds import derive_seed
from xr2ct.store import Store, write
from xr2ct.store.layout import XraySet

CUBE_MM = 320.0
FINE = 64
"""Voxels a side of what is drawn and projected."""


def chest(number: int, cohort: str) -> torch.Tensor:
    """(z, y, x) float32 HU of a patient."""
    seed = derive_seed(number, "phantom", cohort)
    patient = draw_patient(seed, shift_of(cohort))
    grid = Grid((FINE,) * 3, (CUBE_MM / FINE,) * 3, patient.rotation, (0.0, 20.0, -40.0))
    return torch.from_numpy(draw_chest(grid, patient, seed)[0])


def write_store(
    folder: Path, splits: Sequence[str], size: int | Sequence[int], angles: Sequence[float], pixels: int
) -> Store:
    """FOLDER/lidc-idri.zarr with a patient for each of `splits`; above 64³ voxels are repeated."""
    sizes = [size] if isinstance(size, int) else list(size)
    cohort = "lidc-idri"
    path = folder / f"{cohort}.zarr"
    geometry = Geometry("x2ct", sad_mm=541.0, sid_mm=949.0, detector_mm=500.0, pixels=pixels)
    write.lay_out(path, cohort, CUBE_MM, len(splits), sizes, [XraySet(geometry, tuple(angles))])
    rows = []
    for row, split in enumerate(splits):
        fine = chest(row, cohort)[None]
        views = project(attenuation(fine), (CUBE_MM / FINE,) * 3, geometry, angles)[0].numpy()
        arrays = {"xray/x2ct": views}
        for side in sizes:
            cube = (
                F.avg_pool3d(fine, FINE // side)
                if side <= FINE
                else F.interpolate(fine[None], (side,) * 3)[0]
            )
            arrays[f"ct/{side}"] = cube[0].round().numpy().astype(np.int16)
        sums = {array: write.write_chunk(path, array, row, values) for array, values in arrays.items()}
        write.write_case(path, f"case{row}", {"patient": f"patient{row}", "checksums": sums})
        rows.append({"id": f"case{row}", "patient": f"patient{row}", "split": split, "row": row})
    write.publish(path, rows, sizes, ["x2ct"])
    return Store.open(path)
