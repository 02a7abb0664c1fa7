"""A run keeps what the X-rays that it learns from look like, as training sees them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from xr2ct.config import Experiment
from xr2ct.loading.machine import Machine
from xr2ct.projection.geometry import Geometry
from xr2ct.projection.views import scale_views
from xr2ct.reconstruction.familiar import FILE, load_familiar
from xr2ct.run import Run
from xr2ct.store import Store, write
from xr2ct.store.layout import XraySet
from xr2ct.training.familiar import bring
from xr2ct.training.fence import held

CASES = 20


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Blobs of random width in the place of chests."""
    path = tmp_path_factory.mktemp("stores") / "lidc-idri.zarr"
    geometry = Geometry("x2ct", 541.0, 949.0, 500.0, pixels=32)
    write.lay_out(path, "lidc-idri", 320.0, CASES, [16], [XraySet(geometry, (90.0, 0.0))])
    random = np.random.default_rng(0)
    row, col = np.mgrid[-1:1:32j, -1:1:32j]
    rows = []
    for number in range(CASES):
        widths = random.uniform(0.3, 0.5, (2, 2))
        views = np.stack([5 * np.exp(-((row / a) ** 2) - (col / b) ** 2) for a, b in widths])
        arrays = {"xray/x2ct": views.astype(np.float32), "ct/16": np.zeros((16,) * 3, np.int16)}
        sums = {array: write.write_chunk(path, array, number, values) for array, values in arrays.items()}
        write.write_case(path, f"case{number}", {"patient": f"patient{number}", "checksums": sums})
        rows.append({"id": f"case{number}", "patient": f"p{number}", "split": "train", "row": number})
    write.publish(path, rows, [16], ["x2ct"])
    return Store.open(path)


def _experiment(**detector: object) -> Experiment:
    return Experiment(name="x", data={"size": 16}, augmentation={"detector": detector})


def test_it_is_made_once_and_found_from_the_runs_checkpoints(store: Store, tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    with held(run) as fence:
        bring(run, _experiment(), store, store.cases, fence)
        made = (run.path / FILE).stat()
        bring(run, _experiment(), store, store.cases[:17], fence)
    assert (run.path / FILE).stat() == made
    described = load_familiar(run.checkpoint(3))
    assert described is not None
    assert described.distances.shape == (2, CASES)
    views = store.xray(store.cases[0], "x2ct", (90.0, 0.0))
    assert not any(one.far for one in described.compare(scale_views(views, "max")))


def test_of_too_few_there_is_none(store: Store, tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    with held(run) as fence:
        bring(run, _experiment(), store, store.cases[:5], fence)
    assert not (run.path / FILE).exists()


def test_a_noisy_picture_is_familiar_where_training_was_noisy(store: Store, tmp_path: Path) -> None:
    clean, noisy = Run(tmp_path / "clean"), Run(tmp_path / "noisy")
    for run, detector in ((clean, {}), (noisy, {"exposure": [100, 200]})):
        with held(run) as fence:
            bring(run, _experiment(**detector), store, store.cases, fence)
    machine = Machine(_experiment(exposure=[100, 200]).augmentation, store.geometries["x2ct"], store.cube_mm)
    views = store.xray(store.cases[0], "x2ct", (90.0, 0.0))
    again = machine.take(views, (90.0, 0.0), lambda: np.zeros(0), seed=7)
    far = {
        run.path.name: [one.distance / one.usual[1] for one in described.compare(scale_views(again, "max"))]
        for run in (clean, noisy)
        if (described := load_familiar(run.checkpoint(0)))
    }
    assert min(far["clean"]) > 3
    assert max(far["noisy"]) < 1.2
