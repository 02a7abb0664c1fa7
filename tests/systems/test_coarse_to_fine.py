"""Three stages, 16³ → 32³ → 64³, the last by sub-volumes: trained, lost, gone on with, scored, used."""

from __future__ import annotations

import shutil
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from synthetic_store import write_store
from test_systems import as_if_lost_in_step_3
from tiny import losses
from trainer import Trainer

from xr2ct.evaluation.results import read_results
from xr2ct.evaluation.sweep import evaluate
from xr2ct.reconstruct import reconstruct
from xr2ct.reconstruction.draws import seeds_of_draw
from xr2ct.run import Run
from xr2ct.stages import load_stages
from xr2ct.store import Store
from xr2ct.weights import load_mapper

ANGLES = (0.0, 90.0, 270.0)
UNET = {"name": "unet", "channels": [4, 8]}
EVALUATION = {"cohorts": ["lidc-idri"], "batch": 1}
TRAINING = {"steps": 3, "warmup_steps": 0, "checkpoint_every": 1, "batch": 2}


@pytest.fixture(scope="module")
def chests_by_size(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stores")
    write_store(folder, ("train", "train", "train", "val", "test"), (16, 32, 64), ANGLES, pixels=32)
    return folder


@pytest.fixture
def trainer(tmp_path: Path, chests_by_size: Path, processes: ForkServerContext) -> Trainer:
    return Trainer(tmp_path, chests_by_size, processes)


def _config(trainer: Trainer, name: str, **keys: Any) -> Path:
    data = {"views": [90, 0], **keys.pop("data", {})}
    training = {**TRAINING, **keys.pop("training", {})}
    return trainer.config(name, data=data, mapper=UNET, evaluation=EVALUATION, training=training, **keys)


def _first(trainer: Trainer) -> Run:
    trainer.finish(_config(trainer, "first", data={"size": 16}))
    return trainer.run("first")


@pytest.mark.slow
def test_each_stage_learns_from_the_one_before(trainer: Trainer, tmp_path: Path) -> None:
    first = _first(trainer)
    evaluate(first)  # for its best
    before = {"run": str(first.path), "size": 16}
    trainer.finish(_config(trainer, "second", data={"size": 32}, coarse=before))
    second = trainer.run("second")
    before = {"run": str(second.path), "size": 32, "step": "last"}
    third = _config(
        trainer,
        "third",
        data={"size": 64, "window": 32},
        coarse=before,
        training={"accumulation": 2},
    )
    said = trainer.finish(third)
    whole = trainer.run("third")
    assert "the stage before has reconstructed 3 cases" in said
    assert {"loss/transport", "loss/transport_around"} <= set(next(whole.metrics()))
    assert (whole.path / "coarse" / "coarse" / "mapper.safetensors").is_file()
    volumes = sorted((whole.path / "coarse" / "volumes").iterdir())
    assert [file.name for file in volumes] == ["case0.npy", "case1.npy", "case2.npy"]

    # The other runs are not needed any more, neither to go on nor to score nor to reconstruct.
    shutil.rmtree(first.path)
    shutil.rmtree(second.path)
    lost = as_if_lost_in_step_3(whole)
    trainer.finish(third, f"run_root={lost.path.parent}")
    assert losses(lost) == losses(whole)
    files = [run.checkpoint(3) / "mapper.safetensors" for run in (lost, whole)]
    assert files[0].read_bytes() == files[1].read_bytes()

    evaluate(lost, "last")
    scores = {(r.split, r.source): r.mean("honest/psnr") for r in read_results(lost)}
    store = Store.open(trainer.stores / "lidc-idri.zarr")
    (case,) = store.split("test")
    for angle, view in zip((90, 0), store.xray(case, "x2ct", (90.0, 0.0)), strict=True):
        np.save(tmp_path / f"{angle}.npy", view)
    views = [f"{angle}={tmp_path / f'{angle}.npy'}" for angle in (90, 0)]
    hu = np.load(reconstruct(lost.checkpoint(3), views, tmp_path / "volume.npy")[0])
    unit, truth = (
        (np.clip(v.astype(float), -1024, 1476) + 1024) / 2500 for v in (hu, store.volume(case, 64))
    )
    psnr = -10 * np.log10(np.square(unit - truth).mean())
    assert psnr == pytest.approx(scores["test", "step-000003"], abs=0.01)


@pytest.mark.slow
def test_a_flow_starts_at_a_run_of_the_same_size(trainer: Trainer) -> None:
    first = _first(trainer)
    config = _config(
        trainer,
        "flow",
        data={"size": 16},
        coarse={"run": str(first.path), "size": 16, "step": "last"},
        method={"name": "flow", "mapper_updates": 2, "steps": 2},
        training={"accumulation": 2},
    )
    trainer.finish(config)
    whole = trainer.run("flow")
    start = load_mapper(first.checkpoint(3))[0]
    shutil.rmtree(first.path)
    lost = as_if_lost_in_step_3(whole)
    trainer.finish(config, f"run_root={lost.path.parent}")
    assert losses(lost) == losses(whole)
    for name in ("mapper", "mapper-ema"):
        files = [run.checkpoint(3) / f"{name}.safetensors" for run in (lost, whole)]
        assert files[0].read_bytes() == files[1].read_bytes()

    evaluate(lost, "last")
    assert {r.split for r in read_results(lost) if r.source == "step-000003"} == {"val", "test"}
    stages, seeds = load_stages(lost.checkpoint(3)), torch.zeros(1, 2, dtype=torch.int64)
    views = torch.rand(1, 2, 32, 32)
    # A network that has hardly learnt anything tells little beside the noise about the start.
    away = [stages(views, seeds_of_draw(seeds, i)) - start(views).clamp(0, 1) for i in range(3)]
    assert torch.equal(away[0], stages(views, seeds) - start(views).clamp(0, 1))
    assert all(0.01 < difference.std() < 0.3 for difference in away)
    assert (away[1] - away[2]).std() > 0.01


@pytest.mark.slow
def test_what_cannot_be_the_stage_before_is_refused(trainer: Trainer) -> None:
    first = _first(trainer)
    trials = (
        ({"run": str(first.path), "size": 16}, {}, "has no best checkpoint: evaluate it first"),
        ({"run": str(first.path), "size": 16, "step": 9}, {}, "has no such checkpoint, only 0, 1, 2, 3"),
        ({"run": str(first.path.with_name("none")), "size": 16}, {}, "not a run"),
        (
            {"run": str(first.path), "size": 16, "step": "last"},
            {"views": [0, 90]},
            "data.views: (90.0, 0.0), expected (0.0, 90.0)",
        ),
    )
    for number, (coarse, data, expected) in enumerate(trials):
        config = _config(trainer, f"wrong-{number}", data={"size": 32, **data}, coarse=coarse)
        assert expected in trainer.finish(config, expect=2)
