"""A store of noise and a configuration that trains on it within seconds."""

from __future__ import annotations

from collections.abc import Callable
from multiprocessing.context import ForkServerContext
from pathlib import Path

import numpy as np
import pytest
from trainer import Trainer, processes

from xr2ct.projection.geometry import Geometry
from xr2ct.store import Store, write
from xr2ct.store.layout import XraySet

__all__ = ["processes"]

GEOMETRY = Geometry("x2ct", sad_mm=541.0, sid_mm=949.0, detector_mm=500.0, pixels=16)
ANGLES = (0.0, 90.0, 180.0, 270.0)
CASES = 5
SIZE = 16


@pytest.fixture(scope="session")
def make_store(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Store]:
    """make_store(size, seed=0): COHORT.zarr in a folder of its own."""

    def make(size: int, seed: int = 0, folder: Path | None = None) -> Store:
        path = (folder or tmp_path_factory.mktemp("stores")) / "lidc-idri.zarr"
        noise = np.random.default_rng(seed)
        write.lay_out(path, "lidc-idri", 320.0, CASES, [size], [XraySet(GEOMETRY, ANGLES)])
        rows = []
        for row in range(CASES):
            volume = noise.integers(-1200, 1500, (size, size, size)).astype(np.int16)
            views = noise.gamma(2.0, 1.0, (len(ANGLES), GEOMETRY.pixels, GEOMETRY.pixels)).astype(np.float32)
            sums = {
                name: write.write_chunk(path, name, row, values)
                for name, values in ((f"ct/{size}", volume), ("xray/x2ct", views))
            }
            write.write_case(path, f"case{row}", {"checksums": sums})
            rows.append({"id": f"case{row}", "patient": f"patient{row}", "split": "train", "row": row})
        write.publish(path, rows, [size], ["x2ct"])
        return Store.open(path)

    return make


@pytest.fixture(scope="session")
def stores(make_store: Callable[..., Store]) -> Path:
    """A folder with one store of volumes of 16³; read only."""
    return make_store(SIZE).path.parent


@pytest.fixture
def trainer(tmp_path: Path, stores: Path, processes: ForkServerContext) -> Trainer:
    return Trainer(tmp_path, stores, processes)
