"""The nearest patient by X-ray."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from xr2ct.config import Data
from xr2ct.evaluation.priors import TrainingSet
from xr2ct.loading.loader import sequential
from xr2ct.projection.views import scale_views
from xr2ct.store import Store

DATA = Data(size=32, views=(90.0, 0.0))
CPU = torch.device("cpu")


def read(store: Store) -> TrainingSet:
    return TrainingSet.read(store, store.split("train"), DATA, batch=3, device=CPU)


def test_a_noisy_training_patient_is_nearest_to_itself(stores: Path) -> None:
    known = read(Store.open(stores / "lidc-idri.zarr"))
    batch = next(sequential(known.store, known.cases, DATA, batch=4, device=CPU))
    noise = torch.randn(batch.views.shape, generator=torch.Generator().manual_seed(0))
    assert known.nearest(batch.views + 0.2 * noise) == [0, 1, 2, 3]
    assert torch.equal(known.nearest_chest(batch), batch.ct)


def test_nearest_is_by_l2_of_the_scaled_views(tmp_path: Path, store_writer: Callable[..., Store]) -> None:
    store = store_writer(tmp_path, "lidc-idri", {"train": 6, "val": 4})
    known = read(store)
    batch = next(sequential(store, store.split("val"), DATA, batch=4, device=CPU))
    views = {c.id: scale_views(store.xray(c, "x2ct", DATA.views), "max") for c in store.cases}
    small = {name: v.reshape(2, 32, 2, 32, 2).mean(axis=(2, 4)) for name, v in views.items()}
    expected = [
        int(np.argmin([np.sum((small[c] - small[t.id]) ** 2) for t in known.cases])) for c in batch.cases
    ]
    assert known.nearest(batch.views) == expected
    assert len(set(expected)) > 1
