"""The front door: one line and exit code 2 for a wrong request, never a traceback."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from xr2ct.cli import main


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "COMMAND"),
        (["trian", "x.yaml"], "did you mean 'train'"),
        (["phantom", "x", "--cohort", "lidc", "--patients", "1"], "did you mean 'lidc-idri'"),
        (["phantom", "x", "--cohort", "lctsc", "--patients", "0"], "expected a whole number above 0"),
        (["ingest", "lctsc", "/nowhere", "--out", "x.zarr"], "/nowhere"),
        (["ingest", "lctsc", ".", "--out", "x.zarr", "--geometry", "x2tc"], "did you mean 'x2ct'"),
        (["ingest", "lctsc", ".", "--out", "x.zarr", "--sad", "900", "--sid", "800"], "sad_mm < sid_mm"),
        (
            ["ingest", "lidc-idri", "configs", "--out", "x.zarr", "--splits", "sedeed"],
            "did you mean 'seeded'",
        ),
        (["plan", "lctcs", ".", "--out", "x.csv"], "did you mean 'lctsc'"),
        (["plan", "lctsc", "/nowhere", "--out", "/tmp/x2ct-no-plan.csv"], "/nowhere"),
        (
            ["fetch", "lctsc", "--to", "x", "--patients", "LCTSC-Test-S1-10"],
            "did you mean 'LCTSC-Test-S1-104'",
        ),
        (["inspect", "/nowhere.zarr"], "/nowhere.zarr"),
        (["inspect", "/nowhere.zarr", "--verify"], "/nowhere.zarr"),
        (["export", "/nowhere.zarr", "--to", "x"], "/nowhere.zarr"),
        (["export", "x.zarr", "--to", "x", "--format", "nfiti"], "did you mean 'nifti'"),
        (["project", "/nowhere", "--out", "x"], "/nowhere"),
        (["project", ".", "--angles", "0,front", "--out", "x"], "angle 'front'"),
        (["train", "/nowhere.yaml"], "/nowhere.yaml: cannot be read"),
        (["summary", "configs/demo.yaml", "mapper.name=swin-unter"], "did you mean 'swin-unetr'"),
        (["summary", "configs/demo.yaml", "method.blurr=1"], "did you mean 'blur'"),
        (["evaluate", "/nowhere"], "not a run"),
        (["report", "/nowhere", "--out", "x"], "not a run"),
        (["score", "/no.mha", "/nowhere.mha"], "/no.mha"),
        (["score", "a", "b", "--window", "5,1"], "LO < HI"),
        (["reconstruct", "/nowhere", "--out", "x.mha"], "/nowhere"),
        (["reconstruct", "/nowhere", "--out", "x.stl"], ".mha, .nii.gz, .npy"),
        (["reconstruct", "x", "--out", "x.mha", "--refine", "0"], "above 0"),
        (["reconstruct", "x", "--out", "x.mha", "--prior", "tvs"], "did you mean 'tv'"),
        (["evaluate", "x", "--days", "3"], "--real goes with them"),
        (["evaluate", "x", "--real", "--leave-out"], "one at a time"),
        (["view", "/nowhere.mha"], "/nowhere.mha"),
        (["card", "/nowhere.xr2ct"], "/nowhere.xr2ct"),
        (["submit", "configs/demo.yaml", "--cluster", "lokal"], "did you mean 'local'"),
        (
            ["submit", "configs/demo.yaml", "data.stores=/nowhere", "--cluster", "local"],
            "lidc-idri.zarr: not there",
        ),
        (["submit", "configs/demo.yaml", "--cluster", "local", "data.siez=64"], "did you mean 'size'"),
        (
            ["submit", "configs/demo.yaml", "--cluster", "local", "--dryrun"],
            "unrecognized arguments: --dryrun",
        ),
        (["track", "snyc", "x"], "did you mean 'sync'"),
    ],
)
def test_a_wrong_request_is_a_line_and_exit_code_2(
    arguments: list[str], told: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(__file__).parent.parent)
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert told in error
    assert len(error.strip().splitlines()) <= 2
    assert "Traceback" not in error


def test_the_front_door_opens_without_heavy_packages() -> None:
    """`xr2ct --help` is quick, and a missing extra is named."""
    heavy = ("torch", "monai", "deepspeed", "SimpleITK", "mlflow", "zarr", "nvidia")
    code = (
        f"import sys, xr2ct.cli; xr2ct.cli.build_parser(); print([m for m in {heavy!r} if m in sys.modules])"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"


def test_a_missing_extra_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "xr2ct.reconstruct", raising=False)
    monkeypatch.delitem(sys.modules, "xr2ct.weights", raising=False)
    monkeypatch.setitem(sys.modules, "SimpleITK", None)
    assert main(["reconstruct", "x", "--out", "x.mha"]) == 2
    assert "pip install 'xr2ct[infer]'" in capsys.readouterr().err
