"""A flipped patient's X-rays are those of the mirrored volume."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from xr2ct.config import Augmentation, Data
from xr2ct.loading.loader import Loader, sequential
from xr2ct.methods.base import Batch
from xr2ct.projection.geometry import Geometry
from xr2ct.projection.projector import attenuation, project
from xr2ct.store import Store

SIZE = 24
CUBE_MM = 320.0
GEOMETRY = Geometry("x2ct", sad_mm=541.0, sid_mm=949.0, detector_mm=500.0, pixels=40)
EIGHT = tuple(45.0 * i for i in range(8))
VIEWS = (90.0, 0.0, 45.0, 180.0)


def line_integrals(hu: np.ndarray, angles: tuple[float, ...]) -> np.ndarray:
    """(case, view, row, col) of volumes (case, z, y, x)."""
    spacing = (CUBE_MM / SIZE,) * 3
    return project(attenuation(torch.from_numpy(hu).float()), spacing, GEOMETRY, angles).numpy()


@pytest.fixture(scope="module")
def hu() -> np.ndarray:
    """Two volumes that are not symmetric in any way."""
    return np.random.default_rng(3).integers(-1000, 1000, (2, SIZE, SIZE, SIZE)).astype(np.int16)


@pytest.fixture(scope="module")
def projected(make_store: Callable[..., Store], hu: np.ndarray) -> Store:
    return make_store(2, EIGHT, hu, line_integrals(hu, EIGHT), GEOMETRY)


def flipped(store: Store, flip: str) -> Batch:
    """Every case, surely flipped and nothing else done to it."""
    told = Augmentation(contrast=None, rotation_probability=0, flip=flip, flip_probability=1)
    data = Data(size=SIZE, views=VIEWS)
    sharing = {"batch": 2, "accumulation": 1, "rank": 0, "world_size": 1}
    loader = Loader(store, store.cases, data, told, **sharing, seed=0, device=torch.device("cpu"))
    batch = next(iter(loader))
    loader.close()
    return batch


def test_patient_flip_is_the_projection_of_the_mirrored_volume(projected: Store, hu: np.ndarray) -> None:
    batch = flipped(projected, "patient")
    mirrored = np.ascontiguousarray(hu[:, :, :, ::-1])
    expected = line_integrals(mirrored, VIEWS)
    expected /= expected.max((2, 3), keepdims=True)
    for i, case in enumerate(batch.cases):
        row = int(case.removeprefix("case"))
        np.testing.assert_allclose(batch.ct[i, 0], np.clip((mirrored[row] + 1024.0) / 2500, 0, 1), atol=1e-7)
        np.testing.assert_allclose(batch.views[i], expected[row], atol=1e-4)


def test_xray_flip_turns_the_pictures_alone(projected: Store) -> None:
    data = Data(size=SIZE, views=VIEWS)
    plain = next(sequential(projected, projected.cases, data, batch=2, device=torch.device("cpu")))
    batch = flipped(projected, "xray")
    for i, case in enumerate(batch.cases):
        row = plain.cases.index(case)
        assert torch.equal(batch.ct[i], plain.ct[row])
        assert torch.equal(batch.views[i], plain.views[row].flip(-1))
