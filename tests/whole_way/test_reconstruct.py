"""X-rays to a volume where the patient would lie, and a clear line for every X-ray that does not fit."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from commands import WholeWay, xr2ct

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

REFUSED = ("deepspeed", "nvidia", "geomloss", "submitit", "mlflow", "zarr", "matplotlib", "pydicom", "scipy")


@pytest.fixture(scope="module")
def xrays(whole_way: WholeWay) -> Path:
    """Line integrals of one test patient at 0, 90 and 270°."""
    store = whole_way.work / "stores" / "lctsc.zarr"
    case = json.loads(xr2ct("inspect", store, "--json").stdout)["splits"]["test"][0]
    out = whole_way.work / "xrays"
    xr2ct("project", store, "--case", case, "--angles", "0,90,270", "--out", out)
    return out / case


def views(xrays: Path, suffix: str = "mha") -> list[str]:
    return ["--view", f"RLAT={xrays}/angle_090.{suffix}", "--view", f"0={xrays}/angle_000.{suffix}"]


def test_the_volume_lies_where_the_patient_did(whole_way: WholeWay, xrays: Path, tmp_path: Path) -> None:
    for name in ("v.mha", "v.nii.gz", "v.npy"):
        xr2ct("reconstruct", whole_way.run / "best", *views(xrays), "--out", tmp_path / name)
    image = sitk.ReadImage(str(tmp_path / "v.mha"))
    assert image.GetSize() == (64, 64, 64) and image.GetSpacing() == (5.0, 5.0, 5.0)
    assert image.GetOrigin() == (-157.5, -157.5, -157.5)
    assert image.GetDirection() == (1, 0, 0, 0, 1, 0, 0, 0, 1)
    hu = sitk.GetArrayFromImage(image)
    assert hu.min() >= -1024 and hu.max() <= 1476 and hu.std() > 0
    nifti = sitk.ReadImage(str(tmp_path / "v.nii.gz"))
    assert np.allclose(nifti.GetOrigin(), image.GetOrigin())
    assert np.array_equal(sitk.GetArrayFromImage(nifti), hu)
    assert np.array_equal(np.load(tmp_path / "v.npy"), hu)


def test_it_is_what_the_evaluation_scored(whole_way: WholeWay, xrays: Path, tmp_path: Path) -> None:
    """The volume from files scores like the case from the store, but for rounding to whole HU."""
    import csv

    best = (whole_way.run / "best").resolve().name
    with (whole_way.run / "evaluations" / best / "lctsc-test.csv").open() as file:
        scored = next(csv.DictReader(file))
    xr2ct("reconstruct", whole_way.run / "best", *views(xrays), "--out", tmp_path / "v.mha")
    from xr2ct.reconstruct import write_volume
    from xr2ct.store import Store

    store = Store.open(whole_way.work / "stores" / "lctsc.zarr")
    write_volume(store.volume(store.cases[0], 64), store.cube_mm, tmp_path / "truth.mha", {})
    told = json.loads(xr2ct("score", tmp_path / "v.mha", tmp_path / "truth.mha").stdout)
    assert told["honest"]["psnr"] == pytest.approx(float(scored["honest/psnr"]), abs=0.01)


def test_a_picture_with_its_scale_gives_the_same_volume(
    whole_way: WholeWay, xrays: Path, tmp_path: Path
) -> None:
    checkpoint = whole_way.run / "best"
    xr2ct("reconstruct", checkpoint, *views(xrays), "--out", tmp_path / "a.npy")
    xr2ct("reconstruct", checkpoint, *views(xrays, "png"), "--png-scale", "7", "--out", tmp_path / "b.npy")
    a, b = np.load(tmp_path / "a.npy"), np.load(tmp_path / "b.npy")
    assert np.abs(a - b).max() <= 5  # each view is divided by its own maximum: the scale itself cancels


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--view", "90={x}/angle_090.mha"], "trained for 90°, 0°, got 90°"),
        (
            ["--view", "90={x}/angle_090.mha", "--view", "270={x}/angle_270.mha"],
            "trained for 90°, 0°, got 90°, 270°",
        ),
        (["--view", "90={x}/angle_090.mha", "--view", "RLAT={x}/angle_090.mha"], "given twice"),
        (
            ["--view", "90={x}/angle_090.mha", "--view", "0={x}/angle_270.mha"],
            "is the view at 270°, given as 0°",
        ),
        (["--view", "90={x}/angle_090.mha", "--view", "0={x}/nothing.mha"], "nothing.mha"),
        (["--view", "90={x}/angle_090.mha", "--view", "0"], "expected ANGLE=FILE"),
        (["--view", "90={x}/angle_090.png", "--view", "0={x}/angle_000.png"], "needs its scale"),
        (
            ["--view", "90={x}/angle_090.mha", "--view", "0={x}/small.npy"],
            "expected 256×256 pixels, got 64×64",
        ),
        (
            ["--view", "90={x}/angle_090.mha", "--view", "0={x}/angle_000.mha", "--geometry", "chest-1800"],
            "trained with sad_mm 541",
        ),
    ],
)
def test_what_does_not_fit_is_one_clear_line(
    whole_way: WholeWay, xrays: Path, tmp_path: Path, arguments: list[str], told: str
) -> None:
    np.save(xrays / "small.npy", np.ones((64, 64), np.float32))
    filled = [a.format(x=xrays) for a in arguments]
    done = xr2ct("reconstruct", whole_way.run / "best", *filled, "--out", tmp_path / "v.mha", code=2)
    assert told in done.stderr and len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "v.mha").exists()


def test_a_run_in_place_of_a_checkpoint_names_the_right_one(
    whole_way: WholeWay, xrays: Path, tmp_path: Path
) -> None:
    done = xr2ct("reconstruct", whole_way.run, *views(xrays), "--out", tmp_path / "v.mha", code=2)
    assert f"{whole_way.run}/best" in done.stderr


def test_it_needs_nothing_of_training(whole_way: WholeWay, xrays: Path, tmp_path: Path) -> None:
    """With every package refused that [infer] does not bring."""
    out = tmp_path / "v.mha"
    code = f"""
import sys
for name in {REFUSED}:
    sys.modules[name] = None
from xr2ct.cli import main
sys.exit(main(["reconstruct", {str(whole_way.run / "best")!r}, *{views(xrays)!r}, "--out", {str(out)!r}]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert out.exists()
