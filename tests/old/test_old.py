"""What earlier versions wrote is opened by this one: each folder here is one of them, made by `make.py`."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from xr2ct.config import load_experiment
from xr2ct.evaluation.results import read_results
from xr2ct.evaluation.sweep import evaluate
from xr2ct.reporting.lock import rebuild
from xr2ct.run import Run
from xr2ct.store import Store
from xr2ct.store.check import damage
from xr2ct.weights import load_mapper

VERSIONS = sorted(path for path in Path(__file__).parent.iterdir() if (path / "config.yaml").is_file())
LAST = "step-000004"


@pytest.fixture(params=VERSIONS, ids=lambda path: path.name)
def old(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy, as the working folder: its paths are relative."""
    folder = tmp_path / "old"
    shutil.copytree(request.param, folder, symlinks=True)
    monkeypatch.chdir(folder)
    return folder


def test_the_store_is_whole(old: Path) -> None:
    path = Path("stores/lidc-idri.zarr")
    assert damage(path) == []
    store = Store.open(path)
    assert (store.cohort, store.cube_mm, store.sizes) == ("lidc-idri", 320.0, (16,))
    assert store.angles("small") == (0.0, 90.0, 270.0)
    assert [len(store.split(split)) for split in ("train", "val", "test")] == [2, 1, 1]
    for case in store.cases:
        volume = store.volume(case, 16)
        assert volume.min() < -900 and volume.max() > 0  # air about a body
        assert store.xray(case, "small", (90.0,)).max() > 1


def test_the_experiment_means_what_it_meant(old: Path) -> None:
    experiment = load_experiment(Path("config.yaml"))
    assert (experiment.label, experiment.data.views, experiment.training.steps) == ("The old one", (90, 0), 4)
    ran = Run(Path("runs/old")).experiment()
    assert (ran.name, ran.mapper["name"], ran.method["blur"]) == ("old", "unet", 0.05)
    assert ran.resolved is not None and ran.resolved.cube_mm == 320.0


def test_a_checkpoint_reconstructs_what_it_did(old: Path) -> None:
    mapper, _ = load_mapper(Run(Path("runs/old")).checkpoint(4))
    stored = np.load("reconstruction.npz")
    with torch.inference_mode():
        volume = mapper(torch.from_numpy(stored["views"])).numpy()
    # Of a window of 2,500 HU a quarter of one: what another machine's or version's rounding may change.
    np.testing.assert_allclose(volume, stored["volume"], rtol=0, atol=1e-4)
    assert stored["views"].shape == (1, 2, 16, 16) and stored["volume"].shape == (1, 1, 16, 16, 16)


def test_its_scores_are_read_and_come_out_again(old: Path) -> None:
    run = Run(Path("runs/old"))
    before = {(r.source, r.split): r.mean("honest/psnr") for r in read_results(run)}
    assert {(LAST, "val"), (LAST, "test"), ("prior-mean", "test")} <= set(before)
    assert run.best_step() in run.steps()
    shutil.rmtree(run.evaluations)
    evaluate(run)
    after = {(r.source, r.split): r.mean("honest/psnr") for r in read_results(run)}
    assert {key: after[key] for key in before} == pytest.approx(before, abs=1e-3, nan_ok=True)


@pytest.mark.parametrize("name", ["cohorts", "planes"])
def test_an_exhibit_is_rebuilt_without_the_run(old: Path, name: str) -> None:
    """Of text the same bytes; of a figure what the Matplotlib at hand makes of it."""
    shutil.rmtree("runs")
    shutil.rmtree("stores")
    drawn = rebuild(Path(f"report/{name}.lock.json"), Path("again"))
    before = {path.name for path in Path("report").glob(f"{name}.*") if ".source." not in path.name}
    assert {path.name for path in drawn} == before - {f"{name}.lock.json"}
    for path in drawn:
        if path.suffix not in (".pdf", ".svg"):
            assert path.read_bytes() == (Path("report") / path.name).read_bytes()


def test_nothing_of_the_machine_is_in_it(old: Path) -> None:
    for file in (path for path in old.rglob("*") if path.is_file()):
        # Of text: a picture's bytes may say anything.
        if file.suffix in (".json", ".yaml", ".jsonl", ".csv", ".md", ".tex", ".svg"):
            found = re.search(r"""["' =]/[a-z]+/[^"' ]*""", file.read_text(encoding="utf-8"))
            assert found is None, f"{file}: {found}"
