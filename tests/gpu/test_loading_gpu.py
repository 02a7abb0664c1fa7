"""The loader's one graph on a GPU gives what it gives on the CPU."""

from __future__ import annotations

from itertools import islice
from typing import Any, Literal

import numpy as np
import pytest
import torch

from xr2ct.config import Augmentation, Data
from xr2ct.projection.geometry import Geometry
from xr2ct.store import Case, Store, write
from xr2ct.store.layout import XraySet

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")

GEOMETRY = Geometry("x2ct", sad_mm=541.0, sid_mm=949.0, detector_mm=500.0, pixels=64)
ANGLES = (0.0, 90.0, 180.0, 270.0)
SHARING: dict[str, int] = {"batch": 4, "accumulation": 1, "rank": 0, "world_size": 1, "seed": 0}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    path = tmp_path_factory.mktemp("gpu") / "lidc-idri.zarr"
    noise = np.random.default_rng(0)
    write.lay_out(path, "lidc-idri", 320.0, 6, [8, 32], [XraySet(GEOMETRY, ANGLES)])
    rows = []
    for row in range(6):
        arrays: dict[str, np.ndarray] = {
            "ct/8": noise.integers(-1200, 3000, (8, 8, 8)).astype(np.int16),
            "ct/32": noise.integers(-(2**15), 2**15, (32, 32, 32)).astype(np.int16),
            "xray/x2ct": noise.gamma(2.0, 1.0, (4, 64, 64)).astype(np.float32),
        }
        sums = {name: write.write_chunk(path, name, row, values) for name, values in arrays.items()}
        write.write_case(path, f"case{row}", {"checksums": sums})
        rows.append({"id": f"case{row}", "patient": f"patient{row}", "split": "train", "row": row})
    write.publish(path, rows, [8, 32], ["x2ct"])
    return Store.open(path)


@pytest.mark.parametrize("scaling", ["window", "minmax"])
@pytest.mark.parametrize("flip", ["patient", "xray"])
def test_training_batches_agree(
    store: Store, scaling: Literal["window", "minmax"], flip: Literal["patient", "xray"]
) -> None:
    from xr2ct.loading.loader import Loader

    data, told = Data(size=32, scaling=scaling), Augmentation(flip=flip)
    loaders = [
        Loader(store, store.cases, data, told, **SHARING, device=torch.device(d)) for d in ("cpu", "cuda")
    ]
    for cpu, gpu in islice(zip(*loaders, strict=True), 8):
        assert gpu.ct.is_cuda
        assert gpu.views.is_cuda
        assert (cpu.positions, cpu.cases) == (gpu.positions, gpu.cases)
        torch.testing.assert_close(gpu.ct.cpu(), cpu.ct, rtol=0, atol=0 if scaling == "window" else 1e-6)
        torch.testing.assert_close(gpu.views.cpu(), cpu.views, rtol=0, atol=2e-3)
    for loader in loaders:
        loader.close()


class Coarse:
    """Another volume of each case, 16³."""

    def volume(self, case: Case) -> np.ndarray:
        return np.random.default_rng(case.row).integers(-1200, 3000, (16,) * 3).astype(np.int16)


def test_sub_volumes_and_the_chest_around_them_agree(store: Store) -> None:
    from xr2ct.loading.loader import Loader

    told: dict[str, Any] = {"window_step": 4, "context_side": 8, "coarse": Coarse()}
    loaders = [
        Loader(
            store,
            store.cases,
            Data(size=32, window=16),
            Augmentation(),
            **SHARING,
            **told,
            device=torch.device(d),
        )
        for d in ("cpu", "cuda")
    ]
    for cpu, gpu in islice(zip(*loaders, strict=True), 8):
        for name in ("ct", "origins", "coarse", "context"):
            a, b = getattr(cpu, name), getattr(gpu, name)
            assert b.is_cuda
            assert torch.equal(a, b.cpu())
    for loader in loaders:
        loader.close()


def test_sequential_agrees_and_batches_stay_as_they_were(store: Store) -> None:
    from xr2ct.loading.loader import sequential

    cpu, gpu = (
        list(sequential(store, store.cases[:5], Data(size=32), batch=2, device=torch.device(d)))
        for d in ("cpu", "cuda")
    )
    assert [b.cases for b in gpu] == [b.cases for b in cpu]
    for a, b in zip(cpu, gpu, strict=True):
        assert torch.equal(a.ct, b.ct.cpu())
        assert torch.equal(a.views, b.views.cpu())
