"""Everything that may be made of a patient's X-rays at once, as files, through the command."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from safetensors.torch import save_file
from tiny import resolved

from xr2ct import cli
from xr2ct.config import Experiment, Way, dump
from xr2ct.errors import UserError
from xr2ct.evaluation.reprojection import project_hu
from xr2ct.exchange.volumes import volume_header
from xr2ct.methods.mappers import mapper_of
from xr2ct.models.features import Config, FeatureExtractor
from xr2ct.projection.geometry import Geometry
from xr2ct.projection.views import write_views
from xr2ct.reconstruction.beams import XRays
from xr2ct.reconstruction.calibration import CELLS, Calibration, write_calibration
from xr2ct.reconstruction.make import Maker
from xr2ct.run import Run
from xr2ct.stages import load_stages
from xr2ct.window import HuWindow

GEOMETRY = Geometry("small", 541.0, 949.0, 500.0, pixels=32)
ANGLES = (90.0, 0.0)
SIDE, CUBE_MM = 16, 320.0
WINDOW = HuWindow()


def ball(radius_mm: float = 90.0) -> np.ndarray:
    """int16 HU (z, y, x): water in air, off the middle."""
    at = (np.arange(SIDE) + 0.5) * CUBE_MM / SIDE - CUBE_MM / 2
    z, y, x = np.meshgrid(at, at, at, indexing="ij")
    return np.where((x - 20) ** 2 + y**2 + z**2 < radius_mm**2, 0, -1000).astype(np.int16)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Two checkpoints of a small network, which has learnt nothing."""
    experiment = Experiment(
        name="test",
        data={"size": SIDE, "views": list(ANGLES)},
        mapper={"name": "unet", "channels": (4, 8)},
        training={"steps": 4, "warmup_steps": 0},
        resolved=resolved(GEOMETRY),
    )
    made = Run(tmp_path / "run")
    for step in (3, 4):
        torch.manual_seed(step)
        folder = made.checkpoint(step)
        folder.mkdir(parents=True)
        weights = mapper_of(experiment, GEOMETRY, CUBE_MM).state_dict()
        weights[next(name for name in reversed(weights) if name.endswith("bias"))] += 0.1 * step - 0.1
        save_file(weights, folder / "mapper.safetensors")
        (folder / "config.yaml").write_text(dump(experiment))
        (folder / "COMPLETE").touch()
    return made


@pytest.fixture
def views(tmp_path: Path) -> list[str]:
    lines = project_hu(torch.from_numpy(ball())[None].float(), CUBE_MM, GEOMETRY, ANGLES)[0]
    files = write_views(tmp_path / "views", lines.numpy(), ANGLES, GEOMETRY)
    return [f"--view={angle:g}={file}" for angle, file in zip(ANGLES, files[::2], strict=True)]


def read(path: Path) -> np.ndarray:
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


def test_volume_doubt_and_what_is_unseen_lie_beside_each_other(
    run: Run, views: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "p.mha"
    told = ["reconstruct", str(run.checkpoint(4)), *views, "--out", str(out)]
    assert cli.main([*told, "--refine=20", "--align=1", "--doubt=ensemble", "--unseen"]) == 0
    files = [Path(line) for line in capsys.readouterr().out.split()]
    assert [file.name for file in files] == ["p.mha", "p-doubt.mha", "p-unseen.mha"]
    volume, doubt, unseen = map(read, files)
    assert volume.shape == doubt.shape == unseen.shape == (SIDE,) * 3
    assert doubt.min() >= 0 and doubt.max() > 0 and np.abs(unseen).max() > 0
    before, after = map(float, volume_header(out)["xr2ct_reprojection"].split())
    assert after < 0.5 * before
    assert volume_header(out)["xr2ct_way"] == "align-1+refine-20+doubt-ensemble"
    assert len(volume_header(out)["xr2ct_poses"].split(";")) == 2
    assert volume_header(files[1])["xr2ct_doubt_calibrated"] == "no"
    assert 0 < float(volume_header(files[2])["xr2ct_unseen_fraction"]) < 1


def test_doubt_is_calibrated_as_the_run_says(run: Run, views: list[str], tmp_path: Path) -> None:
    calibration = Calibration(
        way="doubt-ensemble",
        draws=("step-000003", "step-000004"),
        weights="mapper",
        fitted_on="",
        patients=3,
        voxels=10,
        place=1.0,
        deviation=0.0,
        edge_mm=0.0,
        place_hu=(50.0,) * CELLS**3,
        intervals={95: 2.0},
        coverage_before={95: 0.5},
        coverage_after={95: 0.95},
    )
    write_calibration(run, 4, calibration)
    out = tmp_path / "p.mha"
    told = ["reconstruct", str(run.checkpoint(4)), *views, "--out", str(out), "--doubt=ensemble"]
    assert cli.main(told) == 0
    assert (read(tmp_path / "p-doubt.mha") == 50).all()
    assert "3 patients" in volume_header(tmp_path / "p-doubt.mha")["xr2ct_doubt_calibrated"]


def test_each_volume_of_an_ensemble_is_refined(run: Run) -> None:
    """What X-rays decide is no longer in doubt."""
    stages = load_stages(run.checkpoint(4))
    lines = project_hu(torch.from_numpy(ball())[None].float(), CUBE_MM, GEOMETRY, ANGLES)[0]
    seeds = torch.zeros(1, 2, dtype=torch.int64)
    maker = Maker.of(run.checkpoint(4), stages, Way(doubt="ensemble"), "mapper", "cpu")
    refined = Maker.of(run.checkpoint(4), stages, Way(doubt="ensemble", refine=20), "mapper", "cpu")
    assert maker.over == ("step-000003", "step-000004")
    plain, agreed = (m(XRays(lines), seeds, WINDOW) for m in (maker, refined))
    assert plain.doubt is not None and agreed.doubt is not None
    assert agreed.doubt.mean() < plain.doubt.mean()


def test_a_mapper_that_draws_nothing_has_no_samples(run: Run) -> None:
    stages = load_stages(run.checkpoint(4))
    for way in (Way(samples=3), Way(samples=3, doubt="samples")):
        with pytest.raises(UserError, match="draws nothing at random"):
            Maker.of(run.checkpoint(4), stages, way, "mapper", "cpu")


def test_features_hold_a_volume_of_a_mapper_that_has_some(
    run: Run, views: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The checkpoint is said to be of neural OT; its features are drawn here."""
    told = ["reconstruct", str(run.checkpoint(4)), *views, "--refine=5"]
    assert cli.main([*told, "--out", str(tmp_path / "f.mha"), "--prior=features"]) == 2
    assert "no features.safetensors" in capsys.readouterr().err
    config = Config(widths=(4, 8, 8, 8))
    save_file(FeatureExtractor(config, 0).state_dict(), run.checkpoint(4) / "features.safetensors")
    change = run.checkpoint(4) / "config.yaml"
    of_features = f"method: {{name: neural-ot, features: {config.model_dump_json()}}}\n"
    text = re.sub(r"method:\n(  .*\n)+", of_features, change.read_text())
    change.write_text(text)
    volumes = []
    for prior in ("features", "none", "tv"):
        out = tmp_path / f"{prior}.mha"
        assert cli.main([*told, "--out", str(out), f"--prior={prior}"]) == 0
        volumes.append(read(out))
    assert volume_header(tmp_path / "features.mha")["xr2ct_way"] == "refine-5+prior-features"
    assert (volumes[0] != volumes[1]).any() and (volumes[1] != volumes[2]).any()


def test_a_limit_on_memory_counts_the_mapper_alone(
    run: Run, views: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = ["reconstruct", str(run.checkpoint(4)), *views, "--out", str(tmp_path / "p.mha")]
    assert cli.main([*told, "--memory-gb=4", "--refine=2"]) == 2
    assert "one pass of the mapper" in capsys.readouterr().err
