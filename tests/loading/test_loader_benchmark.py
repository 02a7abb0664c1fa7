"""The loader's benchmark compares the same work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.benchmarks import loader as benchmark
from xr2ct.store import Store

SIZE, CASES = 32, 8


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Store:
    for name, value in {"SIZE": SIZE, "CASES": CASES, "AHEAD": 1, "TIMED": 2, "ROUNDS": 1}.items():
        monkeypatch.setattr(benchmark, name, value)
    store = benchmark.make_store(tmp_path)
    assert isinstance(store, Store)
    return store


def epoch(batches: Any, store: Store) -> None:
    """Two batches of four are every case once, as the step takes it."""
    hu = np.stack([store.volume(case, SIZE) for case in store.cases]).astype(np.float64)
    expected = torch.from_numpy(np.clip((hu + 1024) / 2500, 0, 1)).float()
    xrays = np.stack([store.xray(case, "x2ct", benchmark.ANGLES) for case in store.cases])
    pictures = torch.from_numpy(xrays / xrays.max((2, 3), keepdims=True))
    seen = []
    for _ in range(2):
        for ct, views in zip(*next(batches), strict=True):
            row = int((expected - ct).abs().amax((1, 2, 3)).argmin())
            torch.testing.assert_close(ct[0], expected[row], rtol=0, atol=1e-6)
            torch.testing.assert_close(views, pictures[row])
            seen.append(row)
    assert sorted(seen) == list(range(CASES))


def test_every_side_delivers_the_same(small: Store, tmp_path: Path) -> None:
    epoch(benchmark.ours(small, "cpu"), small)
    for peer in benchmark.data_loaders(small, "cpu").values():
        epoch(peer, small)
    benchmark.write_npy(small, tmp_path)
    epoch(benchmark.numpy_reader(tmp_path, "cpu"), small)


def test_its_rows_are_measured_turn_by_turn(small: Store) -> None:
    told = [row.run() for row in benchmark.ROWS if row.device == "cpu"]
    assert [(t["row"], len(t["ratios"]), t["ratio"] > 0) for t in told] == [
        ("loader", 1, True),
        ("loader-numpy", 1, True),
    ]
