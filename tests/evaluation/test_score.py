"""One volume file against another, and folders of them against a run's cohort."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from xr2ct.errors import UserError, WorkFailed
from xr2ct.evaluation.leaderboard import read_leaderboard
from xr2ct.evaluation.predictions import evaluate_predictions
from xr2ct.evaluation.results import read_results, read_rows, result_file
from xr2ct.evaluation.score import score_files
from xr2ct.evaluation.sweep import evaluate
from xr2ct.reporting.study import Study
from xr2ct.run import Run
from xr2ct.store import Store
from xr2ct.window import HuWindow

MODES = {
    *("honest", "honest_body", "honest_lungs", "rc2024", "x2ct_3d", "x2ct_slice", "psct"),
    *("perceptual", "spectral"),
}
WINDOW = HuWindow()


def save(path: Path, hu: np.ndarray, spacing: float = 10.0) -> Path:
    image = sitk.GetImageFromArray(hu)
    image.SetSpacing((spacing,) * 3)
    sitk.WriteImage(image, str(path))
    return path


@pytest.fixture(scope="module")
def hu(stores: Path) -> np.ndarray:
    store = Store.open(stores / "lidc-idri.zarr")
    return store.volume(store.cases[0], 32)


def test_score_of_a_shifted_volume(tmp_path: Path, hu: np.ndarray) -> None:
    truth = save(tmp_path / "truth.mha", hu)
    off = save(tmp_path / "off.nii.gz", (hu + 100).astype(np.int16))
    got = score_files(off, truth, WINDOW)
    assert set(got) == MODES
    assert got["honest"]["mae_hu"] == pytest.approx(100, abs=1e-6)
    assert got["honest"]["psnr"] == pytest.approx(20 * math.log10(25), abs=1e-6)
    assert got["honest_lungs"]["psnr"] == pytest.approx(20 * math.log10(25), abs=1e-6)
    assert got["x2ct_3d"]["psnr"] == pytest.approx(20 * math.log10(25) + 4.286, abs=1e-3)
    narrow = score_files(off, truth, HuWindow(-1200, 800))
    assert narrow["honest"]["psnr"] is not None and narrow["honest"]["psnr"] < got["honest"]["psnr"]


def test_what_has_no_number_is_null_in_json(tmp_path: Path) -> None:
    air = save(tmp_path / "air.mha", np.full((16, 16, 16), -1000, np.int16))
    got = json.loads(json.dumps(score_files(air, air, WINDOW), allow_nan=False))
    assert got["honest"]["psnr"] is None and got["honest_lungs"]["ssim"] is None
    assert got["x2ct_slice"]["psnr"] == 100


def test_other_grids_are_refused_naming_both(tmp_path: Path, hu: np.ndarray) -> None:
    truth = save(tmp_path / "truth.mha", hu)
    with pytest.raises(UserError, match=r"(?s)small\.mha: 16 × 32 × 32 .*truth\.mha: 32 × 32 × 32"):
        score_files(save(tmp_path / "small.mha", hu[:16]), truth, WINDOW)
    with pytest.raises(UserError, match=r"(?s)of 5 × 5 × 5 mm.*of 10 × 10 × 10 mm"):
        score_files(save(tmp_path / "fine.mha", hu, 5.0), truth, WINDOW)
    with pytest.raises(UserError, match=r"gone\.mha"):
        score_files(tmp_path / "gone.mha", truth, WINDOW)
    tiny = save(tmp_path / "tiny.mha", hu[:8, :8, :8])
    with pytest.raises(UserError, match="at least 11 voxels"):
        score_files(tiny, tiny, WINDOW)


def test_predictions_from_elsewhere_join_the_table(
    make_run: Callable[..., Run], stores: Path, tmp_path: Path
) -> None:
    run = make_run({500: 0.15})
    store = Store.open(stores / "lidc-idri.zarr")
    val, test = store.split("val"), store.split("test")
    for case in test:
        volume = (store.volume(case, 32) + 100).astype(np.int16)
        if case is test[0]:
            np.save(tmp_path / f"{case.id}.npy", volume)
        else:
            save(tmp_path / f"{case.id}.mha", volume)
    done = evaluate_predictions(run, tmp_path, "theirs")
    assert done.written == [result_file(run, "theirs", "lidc-idri", "test")]
    found = read_rows(done.written[0]) or []
    assert [row["honest/mae_hu"] for row in found] == pytest.approx([100, 100], abs=1e-3)
    assert read_leaderboard(run)[0]["step"] == "theirs"
    assert [r.source for r in read_results(run)] == ["theirs"]
    evaluate(run)
    (theirs,) = [system for system in Study.of([run]).others if system.kind == "elsewhere"]
    assert theirs.label == "theirs"

    np.save(tmp_path / f"{val[0].id}.npy", store.volume(val[0], 32))
    with pytest.raises(UserError, match="lacks 2 of the 3 cases of lidc-idri val"):
        evaluate_predictions(run, tmp_path, "theirs")


def test_wrong_predictions_are_refused(make_run: Callable[..., Run], stores: Path, tmp_path: Path) -> None:
    run = make_run({500: 0.15})
    for name in ("step-000500", "truth", "prior-mean", "7", "../x"):
        with pytest.raises(UserError, match="--name"):
            evaluate_predictions(run, tmp_path, name)
    with pytest.raises(UserError, match=r"holds no CASE.* of the cases of lctsc"):
        evaluate_predictions(run, tmp_path, "theirs", ["lctsc"])
    with pytest.raises(UserError, match=r"holds no CASE.* of the cases to score"):
        evaluate_predictions(run, tmp_path, "theirs")
    with pytest.raises(UserError, match="not a folder of predictions"):
        evaluate_predictions(run, tmp_path / "nowhere", "theirs")
    for case in ("lctsc-test0", "lctsc-test1"):
        np.save(tmp_path / f"{case}.npy", np.zeros((16, 16, 16)))
    with pytest.raises(UserError, match=r"lctsc-test0\.npy: 16 × 16 × 16 voxels .* expected 32³ of 10 mm"):
        evaluate_predictions(run, tmp_path, "theirs", ["lctsc"])
    for case in ("lctsc-test0", "lctsc-test1"):
        np.save(tmp_path / f"{case}.npy", np.full((32, 32, 32), np.nan))
    with pytest.raises(WorkFailed, match="lctsc-test0"):
        evaluate_predictions(run, tmp_path, "theirs", ["lctsc"])
    with pytest.raises(UserError, match=r"of the cases of lidc-idri$"):
        evaluate_predictions(run, tmp_path, "theirs", ["lctsc", "lidc-idri"])
    for harm in (b"not numpy", b"", np.full(3, "hu")):
        if isinstance(harm, bytes):
            (tmp_path / "lctsc-test1.npy").write_bytes(harm)
        else:
            np.save(tmp_path / "lctsc-test1.npy", harm)
        with pytest.raises(UserError, match=r"lctsc-test1\.npy: (not a \.npy|expected an array)"):
            evaluate_predictions(run, tmp_path, "theirs", ["lctsc"])
