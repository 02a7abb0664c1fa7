"""A reconstruction from a checkpoint on disk: what is drawn at random follows from the X-rays' content."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tiny import resolved

from xr2ct.config import Experiment, dump
from xr2ct.models.mapper import build_mapper
from xr2ct.projection.geometry import Geometry
from xr2ct.projection.views import scale_views
from xr2ct.reconstruct import content_seeds, reconstruct
from xr2ct.weights import load_mapper
from xr2ct.window import HuWindow

GEOMETRY = Geometry("small", 541.0, 949.0, 500.0, pixels=16)


@pytest.fixture
def views(tmp_path: Path) -> list[str]:
    drawn = np.random.default_rng(0).random((2, 16, 16), np.float32)
    for angle, view in zip((90, 0), drawn, strict=True):
        np.save(tmp_path / f"{angle}.npy", view)
    return [f"{angle}={tmp_path / f'{angle}.npy'}" for angle in (90, 0)]


def _checkpoint(folder: Path, **lift: str) -> Path:
    experiment = Experiment(
        name="test",
        data={"size": 16, "views": [90, 0]},
        lift=lift,
        mapper={"name": "unet", "channels": (4, 8)},
        resolved=resolved(GEOMETRY),
    )
    folder.mkdir()
    save_file(build_mapper(experiment, GEOMETRY, 320.0).state_dict(), folder / "mapper.safetensors")
    (folder / "config.yaml").write_text(dump(experiment))
    (folder / "COMPLETE").touch()
    return folder


@pytest.mark.parametrize("noise", ["patient", "iteration"])
def test_the_same_x_rays_draw_the_same_noise(noise: str, views: list[str], tmp_path: Path) -> None:
    checkpoint = _checkpoint(tmp_path / "step", kind="noise", noise=noise)
    first = np.load(reconstruct(checkpoint, views, tmp_path / "a.npy")[0])
    torch.manual_seed(3)  # of no account
    again = np.load(reconstruct(checkpoint, views[::-1], tmp_path / "b.npy")[0])
    np.testing.assert_array_equal(first, again)

    mapper, _ = load_mapper(checkpoint)
    scaled = scale_views(np.stack([np.load(view.partition("=")[2]) for view in views]), "max")
    with torch.no_grad():
        with_seeds, without = (
            mapper(torch.from_numpy(scaled)[None], s) for s in (content_seeds(scaled), None)
        )
    window = HuWindow(-1024.0, 1476.0)
    np.testing.assert_array_equal(first, window.to_hu(with_seeds[0, 0].numpy()).round().astype(np.int16))
    assert not torch.equal(with_seeds, without)


@pytest.mark.parametrize("kind", ["repeat", "rotate", "backproject", "noise"])
def test_a_checkpoint_of_any_lift_reconstructs(kind: str, views: list[str], tmp_path: Path) -> None:
    volume = np.load(reconstruct(_checkpoint(tmp_path / "step", kind=kind), views, tmp_path / "v.npy")[0])
    assert volume.shape == (16, 16, 16)
    assert volume.std() > 0


def test_seeds_are_the_contents_own() -> None:
    view = np.random.default_rng(0).random((2, 16, 16), np.float32)
    other = view.copy()
    other[1, 3, 4] += 1e-3
    seeds = content_seeds(view)
    assert seeds.shape == (1, 2)
    assert seeds.dtype == torch.int64
    assert (seeds >= 0).all()
    assert torch.equal(seeds, content_seeds(np.asfortranarray(view)))
    assert not torch.equal(seeds, content_seeds(other))
