"""Coarse to fine from checkpoints on disk: each stage sees what the one before made of the same views."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from tiny import resolved
from torch import Tensor

from xr2ct.config import Experiment, dump
from xr2ct.errors import UserError
from xr2ct.models.mapper import build_mapper
from xr2ct.projection.geometry import Geometry
from xr2ct.stages import load_stages
from xr2ct.weights import load_mapper
from xr2ct.windows import Tiling, by_windows

GEOMETRY = Geometry("small", 541.0, 949.0, 500.0, pixels=32)


def _checkpoint(folder: Path, **keys: Any) -> Path:
    experiment = Experiment(
        name="test",
        mapper={"name": "unet", "channels": (4, 8)},
        resolved=resolved(GEOMETRY),
        **keys,
    )
    folder.mkdir(parents=True)
    save_file(build_mapper(experiment, GEOMETRY, 320.0).state_dict(), folder / "mapper.safetensors")
    (folder / "config.yaml").write_text(dump(experiment))
    (folder / "COMPLETE").touch()
    return folder


def _three(folder: Path) -> Path:
    """16³ whole, then 32³ whole, then 64³ by sub-volumes of 32³, as a run keeps them; the checkpoint."""
    views = [90, 0]
    second = {"data": {"size": 32, "views": views}, "coarse": {"run": "r", "size": 16}, "seed": 1}
    third = {
        "data": {"size": 64, "window": 32, "views": views},
        "coarse": {"run": "r", "size": 32},
        "seed": 2,
    }
    _checkpoint(folder / "first", data={"size": 16, "views": views})
    _checkpoint(folder / "run" / "coarse", **second)
    (folder / "first").rename(folder / "run" / "coarse" / "coarse")
    return _checkpoint(folder / "run" / "checkpoints" / "step-000001", **third)


def test_each_stage_sees_the_one_before(tmp_path: Path) -> None:
    checkpoint = _three(tmp_path)
    views = torch.rand(2, 2, 32, 32, generator=torch.Generator().manual_seed(0))
    coarse = checkpoint.parents[1] / "coarse"
    mappers = [load_mapper(p)[0] for p in (coarse / "coarse", coarse, checkpoint)]
    with torch.no_grad():
        first = mappers[0](views).clamp(0, 1)
        second = mappers[1](views, None, None, first).clamp(0, 1)

        def predict(origins: Tensor) -> Tensor:
            n = len(origins)
            made: Tensor = mappers[2](views[:1].expand(n, -1, -1, -1), None, origins, second[:1])
            return made

        expected = by_windows(predict, Tiling.of(64, 32), torch.device("cpu"))
    stages = load_stages(checkpoint)
    volume = stages(views)
    assert volume.shape == (2, 1, 64, 64, 64) and volume.dtype == torch.float32
    torch.testing.assert_close(volume[0, 0], expected)
    stages.at_once = 4
    torch.testing.assert_close(stages(views), volume, rtol=1e-5, atol=1e-5)


def test_the_stage_before_is_asked_once_for_the_same_views(tmp_path: Path) -> None:
    stages = load_stages(_three(tmp_path))
    before = stages.before
    assert before is not None
    views = torch.rand(1, 2, 32, 32)
    assert before(views) is before(views)
    assert before(views.clone()) is not before(views)


def test_a_copy_that_is_gone_is_named(tmp_path: Path) -> None:
    checkpoint = _three(tmp_path)
    shutil.rmtree(checkpoint.parents[1] / "coarse" / "coarse")
    with pytest.raises(
        UserError, match=r"the copy of the stage before it is missing, expected .*coarse/coarse"
    ):
        load_stages(checkpoint)
