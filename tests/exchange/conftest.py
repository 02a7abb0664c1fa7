"""A store of three small chests with X-rays from four sides."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from xr2ct.projection.geometry import Geometry
from xr2ct.store import Store, write
from xr2ct.store.layout import XraySet

SIZES = (32, 64)
CUBE_MM = 320.0
GEOMETRY = Geometry("x2ct", sad_mm=541.0, sid_mm=949.0, detector_mm=500.0, pixels=48)
ANGLES = (0.0, 90.0, 180.0, 270.0)
CASES = (("P-1", "train"), ("P-2", "test"), ("P-3", "test"))


def chest(seed: int, size: int) -> np.ndarray:
    """int16 HU (z, y, x): a body with lungs off its middle, every axis and both sides told apart."""
    noise = np.random.default_rng(seed)
    z, y, x = np.meshgrid(*[(np.arange(size) + 0.5) / size * 2 - 1] * 3, indexing="ij")
    hu = np.full((size,) * 3, -1000.0)
    hu[(x / 0.8) ** 2 + (y / 0.55) ** 2 < 1] = 40
    for side in (-1, 1):
        hu[((x - side * 0.36 - 0.03) / 0.26) ** 2 + (y / 0.38) ** 2 + ((z - 0.08) / 0.7) ** 2 < 1] = -820
    hu[((x - 0.2) / 0.2) ** 2 + ((y + 0.2) / 0.2) ** 2 + ((z + 0.1) / 0.3) ** 2 < 1] = 60
    hu[x**2 + (y - 0.35) ** 2 < 0.01] = 900
    return np.clip(np.rint(hu + noise.normal(0, 15, hu.shape)), -1024, 3071).astype(np.int16)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    path = tmp_path / "lctsc.zarr"
    write.lay_out(path, "lctsc", CUBE_MM, len(CASES), SIZES, [XraySet(GEOMETRY, ANGLES)])
    rows = []
    for row, (patient, split) in enumerate(CASES):
        views = np.random.default_rng(row).gamma(2.0, 1.0, (4, 48, 48)).astype(np.float32)
        sums = {"xray/x2ct": write.write_chunk(path, "xray/x2ct", row, views)}
        for size in SIZES:
            sums[f"ct/{size}"] = write.write_chunk(path, f"ct/{size}", row, chest(row, size))
        about = {"checksums": sums, "kernel": "B30f", "study": "s" * 12, "series": "5" * 12}
        write.write_case(path, patient, about)
        rows.append({"id": patient, "patient": patient, "split": split, "row": row})
    write.publish(path, rows, SIZES, ["x2ct"])
    return Store.open(path)
