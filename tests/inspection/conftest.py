"""Stores of simple chests, written by the store's own functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from xr2ct.projection.geometry import Geometry
from xr2ct.store import Store, write
from xr2ct.store.layout import XraySet

GEOMETRY = Geometry("x2ct", sad_mm=541.0, sid_mm=949.0, detector_mm=500.0, pixels=16)
ANGLES = (0.0, 90.0)


def chest(seed: int, size: int) -> np.ndarray:
    """int16 HU (z, y, x): lungs that taper from the diaphragm to a neck, spine behind, heart on the left."""
    rng = np.random.default_rng(seed)
    z, y, x = np.meshgrid(*[(np.arange(size) + 0.5) / size * 2 - 1] * 3, indexing="ij")
    width, depth, lung, tissue = rng.uniform([0.80, 0.60, 0.28, 25], [0.88, 0.66, 0.31, 55])
    neck = np.where(z > 0.7, 0.5, 1.0)
    hu = np.full((size,) * 3, -1000.0)
    hu[(x / (width * neck)) ** 2 + ((y - 0.15) / (depth * neck)) ** 2 < 1] = tissue
    for side in (-1, 1):
        across = lung * np.clip(1 - 0.9 * z, 0.3, 1.2)
        hu[((x - side * 0.4) / across) ** 2 + ((y - 0.15) / 0.45) ** 2 + ((z - 0.15) / 0.75) ** 2 < 1] = -830
    hu[((x - 0.2) / 0.25) ** 2 + (y / 0.25) ** 2 + ((z + 0.1) / 0.4) ** 2 < 1] = tissue
    hu[x**2 + (y - 0.55) ** 2 < 0.03] = 400
    return np.rint(hu + rng.normal(0, 15, hu.shape)).astype(np.int16)


class Stores:
    """Writes stores."""

    chest = staticmethod(chest)

    def write(
        self,
        path: Path,
        volumes: Mapping[str, np.ndarray],
        about: Mapping[str, Mapping[str, Any]] | None = None,
        splits: Sequence[str] = ("train",),
    ) -> Store:
        """A store of these cases in this order, `splits` taken in turn, with X-rays that are plain sums."""
        size = next(iter(volumes.values())).shape[0]
        arrays = [f"ct/{size}", f"xray/{GEOMETRY.name}"]
        write.lay_out(path, "lidc-idri", 320.0, len(volumes), [size], [XraySet(GEOMETRY, ANGLES)])

        def write_row(row: int, case: str) -> dict[str, Any]:
            hu = volumes[case]
            thick = np.clip(hu[:16, :16, :16] + 1000.0, 0, None) / 1000
            views = np.stack([thick.sum(axis=1), thick.sum(axis=2)]).astype(np.float32)[:, ::-1]
            sums = {
                array: write.write_chunk(path, array, row, np.ascontiguousarray(values))
                for array, values in zip(arrays, (hu, views), strict=True)
            }
            known = {"body_outside_cube": 0.1, "outside_beam": {"x2ct": {"0": 0.0, "90": 0.0}}}
            write.write_case(path, case, {**known, **(about or {}).get(case, {}), "checksums": sums})
            return {"id": case, "patient": case, "split": splits[row % len(splits)], "row": row}

        with ThreadPoolExecutor(8) as pool:
            rows = list(pool.map(write_row, range(len(volumes)), volumes))
        write.publish(path, rows, [size], [GEOMETRY.name])
        return Store.open(path)


@pytest.fixture(scope="session")
def stores() -> Stores:
    return Stores()
