"""Small stores on disk, made by the store's own writer."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from xr2ct.projection.geometry import Geometry
from xr2ct.store import Store, write
from xr2ct.store.layout import XraySet

SIZE = 16
GEOMETRY = Geometry("x2ct", sad_mm=541.0, sid_mm=949.0, detector_mm=500.0, pixels=24)
ANGLES = (0.0, 90.0, 180.0, 270.0)

MakeStore = Callable[..., Store]


@pytest.fixture(scope="session")
def make_store(tmp_path_factory: pytest.TempPathFactory) -> MakeStore:
    """make_store(cases=6, angles=ANGLES, volumes=None, xrays=None): noise where nothing is given.

    `coarser` are further volumes of the same cases, of another size.
    """

    def make(
        cases: int = 6,
        angles: tuple[float, ...] = ANGLES,
        volumes: np.ndarray | None = None,
        xrays: np.ndarray | None = None,
        geometry: Geometry = GEOMETRY,
        coarser: np.ndarray | None = None,
    ) -> Store:
        path = tmp_path_factory.mktemp("stores") / "lidc-idri.zarr"
        noise = np.random.default_rng(0)
        if volumes is None:
            volumes = noise.integers(-1200, 3000, (cases, SIZE, SIZE, SIZE)).astype(np.int16)
        if xrays is None:
            shape = (cases, len(angles), geometry.pixels, geometry.pixels)
            xrays = noise.gamma(2.0, 1.0, shape).astype(np.float32)
        by_size = {v.shape[-1]: v for v in (coarser, volumes) if v is not None}
        write.lay_out(path, "lidc-idri", 320.0, cases, list(by_size), [XraySet(geometry, angles)])
        rows = []
        for row in range(cases):
            arrays = {f"ct/{size}": of_size[row] for size, of_size in by_size.items()}
            arrays[f"xray/{geometry.name}"] = xrays[row]
            sums = {name: write.write_chunk(path, name, row, values) for name, values in arrays.items()}
            write.write_case(path, f"case{row}", {"checksums": sums})
            rows.append({"id": f"case{row}", "patient": f"patient{row}", "split": "train", "row": row})
        write.publish(path, rows, list(by_size), [geometry.name])
        return Store.open(path)

    return make


@pytest.fixture(scope="session")
def store(make_store: MakeStore) -> Store:
    """Six cases; read only."""
    return make_store()
