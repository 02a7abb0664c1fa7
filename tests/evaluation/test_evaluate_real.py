"""Radiographs against the CT: figures that stay right wherever the patient stood, and who has none."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from synthetic_store import CUBE_MM, FINE, chest, write_store
from tiny import resolved

sys.path.append(str(Path(__file__).parents[1] / "projection"))
from made_radiograph import header, logarithmic, shown

from xr2ct import cli
from xr2ct.cohorts.radiograph_header import attributes_of
from xr2ct.config import Experiment, dump
from xr2ct.errors import UserError, WorkFailed
from xr2ct.evaluation import real
from xr2ct.evaluation.leaderboard import format_leaderboard
from xr2ct.projection.geometry import Geometry
from xr2ct.projection.projector import attenuation, project
from xr2ct.run import Run
from xr2ct.store import Store, layout, write
from xr2ct.window import HuWindow

SIZE = 32
MACHINE = Geometry("x2ct", 541.0, 949.0, 500.0, pixels=160)
VIEWS = (180.0, 270.0)


def _picture(
    store: Path, case: int, angle: float, number: int, moved: tuple[int, int] = (0, 0), **told: Any
) -> dict[str, Any]:
    """A radiograph of the case in its store, moved by pixels, and its entry in the case's file."""
    view = project(attenuation(chest(case, "lidc-idri"))[None], (CUBE_MM / FINE,) * 3, MACHINE, [angle])[0, 0]
    name, across = {180.0: ("PA", "L"), 270.0: ("LL", "P")}[angle]
    pixels = logarithmic(shown(np.roll(view.numpy(), moved, (0, 1)), angle))
    entry = {
        **attributes_of(header(pixels, MACHINE, ViewPosition=name, PatientOrientation=[across, "F"])),
        "name": f"case{case}-{number:02d}",
        "shape": list(pixels.shape),
        "dtype": str(pixels.dtype),
        "days_after_ct": number,
        **told,
    }
    return {**entry, "sha256": write.write_radiograph(store, entry["name"], pixels)}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Untrained, with a store of radiographs: two views of case 1, one of 2, old ones of 3 and 4."""
    folder = tmp_path_factory.mktemp("real")
    store = write_store(folder, ["train", "test", "test", "test", "test"], SIZE, VIEWS, 64)
    write.lay_out_radiographs(store.path)
    pictures = {
        1: [
            _picture(store.path, 1, 180.0, 5),
            _picture(store.path, 1, 180.0, 2),
            _picture(store.path, 1, 270.0, 1),
        ],
        2: [_picture(store.path, 2, 180.0, 1)],
        3: [_picture(store.path, 3, 180.0, 30), _picture(store.path, 3, 270.0, 31, days_after_ct=None)],
        4: [_picture(store.path, 4, angle, 50 + i, (14, -14)) for i, angle in enumerate(VIEWS)],
    }
    for case, entries in pictures.items():
        about = write.read_case(store.path, f"case{case}")
        write.write_case(store.path, f"case{case}", {**about, "radiographs": entries})
    experiment = Experiment(
        name="x",
        data={"stores": folder, "size": SIZE, "views": VIEWS},
        evaluation={"cohorts": ["lidc-idri"]},
        resolved=resolved(store.geometries["x2ct"]),
    )
    run = Run(folder / "run")
    run.checkpoint(7).mkdir(parents=True)
    (run.checkpoint(7) / "COMPLETE").touch()
    for place in (run.path, run.checkpoint(7)):
        (place / "config.yaml").write_text(dump(experiment))
    return run


class _Knowing:
    """Stages that give the CT of case 1, moved."""

    def __init__(self, run: Run, voxels: int) -> None:
        self.experiment = run.experiment()
        store = Store.open(self.experiment.data.store("lidc-idri"))
        unit = HuWindow().to_unit(store.volume(store.cases[1], SIZE).astype(np.float32))
        self.unit = torch.from_numpy(np.roll(unit, voxels, axis=2))

    def __call__(self, views: torch.Tensor, seeds: torch.Tensor) -> torch.Tensor:
        assert views.shape == (1, 2, 64, 64)
        assert views.amax((2, 3)).tolist() == [[1.0, 1.0]]
        return self.unit[None, None]


def _scored(run: Run, voxels: int, monkeypatch: pytest.MonkeyPatch) -> tuple[dict[str, Any], real.RealSweep]:
    monkeypatch.setattr(real, "load_stages", lambda *_: _Knowing(run, voxels))
    sweep = real.evaluate_real(run, "last")
    (file,) = sweep.written
    assert file == run.evaluations / "step-000007~real" / "lidc-idri-test.csv"
    (row,) = real.read_real(file)
    return row, sweep


def test_the_truth_itself_has_its_lungs_and_explains_its_radiographs(run, monkeypatch):
    row, sweep = _scored(run, 0, monkeypatch)
    assert (row["case"], row["views"]) == ("case1", "180+270")
    assert (row["pictures"], row["days"]) == ("case1-02+case1-01", "2+1")  # the nearest of two
    assert 1000 < row["lung/true_ml"] < 8000
    assert row["lung/relative_error"] == pytest.approx(0, abs=1e-3)
    assert row["lung/dice"] == row["lung/dice_centred"] == pytest.approx(1, abs=1e-3)
    assert row["reprojection/unexplained"] == pytest.approx(row["reprojection/truth_unexplained"], abs=1e-3)
    assert row["reprojection/unexplained"] < 0.15
    assert np.isnan(row["xrays/share"])
    assert set(sweep.missing) >= {"case2", "case3", "case4"}
    assert "no LLAT (270°) among its radiographs: case2-01: its header says view PA" in sweep.missing["case2"]
    assert sweep.missing["case3"] == "none of its 2 radiographs is within 7 days"
    assert sweep.missing["case4"] == "none of its 2 radiographs is within 7 days"


def test_where_the_patient_stood_costs_overlap_but_not_when_centred(run, monkeypatch):
    row, _ = _scored(run, 2, monkeypatch)
    assert row["lung/dice"] < 0.9
    assert row["lung/dice_centred"] > 0.98
    assert row["lung/shift_mm"] == pytest.approx(20, abs=1)
    assert row["lung/relative_error"] == pytest.approx(0, abs=0.01)
    assert row["reprojection/unexplained"] > row["reprojection/truth_unexplained"] + 0.1


def test_where_the_patient_stood_is_nothing_that_the_ct_leaves_unexplained(run, monkeypatch):
    """25 mm off at the isocentre each way."""
    monkeypatch.setattr(real, "load_stages", lambda *_: _Knowing(run, 0))
    (file,) = real.evaluate_real(run, "last", days=60).written
    as_taken, moved = real.read_real(file)
    assert (as_taken["case"], moved["case"]) == ("case1", "case4")
    assert moved["reprojection/truth_unexplained"] < as_taken["reprojection/truth_unexplained"] + 0.1
    assert moved["reprojection/unexplained"] > moved["reprojection/truth_unexplained"] + 0.2


def test_rows_read_as_a_leaderboard(run, monkeypatch):
    _scored(run, 0, monkeypatch)
    (row,) = real.real_rows(run)
    assert (row["step"], row["cohort"], row["split"], row["patients"]) == (
        "step-000007~real",
        "lidc-idri",
        "test",
        1,
    )
    assert row["lung/dice"] == pytest.approx(1, abs=1e-3)
    assert row["xrays/share"] is None
    assert "step-000007~real  lidc-idri  test" in format_leaderboard([row], real.SHOWN)


def test_the_command_prints_the_rows_and_says_who_is_left_out(run, monkeypatch, capsys, caplog):
    monkeypatch.setattr(real, "load_stages", lambda *_: _Knowing(run, 0))
    assert cli.main(["evaluate", str(run.path), "--real", "--step", "last", "--days", "60", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["step"], row["patients"]) == ("step-000007~real", 2)
    assert "case2 left out: no LLAT" in caplog.text


def test_a_wider_bound_of_days_takes_older_pictures_where_days_are_known(run, monkeypatch):
    monkeypatch.setattr(real, "load_stages", lambda *_: _Knowing(run, 0))
    assert "no LLAT" in real.evaluate_real(run, 7, days=40).missing["case3"]
    with pytest.raises(UserError, match=r"no case with radiographs of views 180\+270 within 0 days"):
        real.evaluate_real(run, "last", days=0)


def test_what_is_not_finite_is_no_result(run, monkeypatch):
    broken = _Knowing(run, 0)
    broken.unit[0, 0, 0] = np.nan
    monkeypatch.setattr(real, "load_stages", lambda *_: broken)
    with pytest.raises(WorkFailed, match="case1: the reconstruction is not finite"):
        real.evaluate_real(run, "last")


def test_a_damaged_radiograph_is_named(run, monkeypatch):
    store = run.experiment().data.store("lidc-idri")
    file = layout.radiograph_file(store, "case1-02")
    whole = file.read_bytes()
    file.write_bytes(whole[:-2] + b"xx")
    try:
        with pytest.raises(WorkFailed, match="case case1: its radiograph case1-02 differs"):
            real.evaluate_real(run, "last")
    finally:
        file.write_bytes(whole)


def test_lungs_that_are_not_there_overlap_with_nothing():
    body = np.full((SIZE,) * 3, -1000.0)
    body[:, 6:26, 3:29] = 30
    lungs = body.copy()
    for x in (6, 18):
        lungs[6:26, 10:22, x : x + 8] = -800
    none = real.compare_lungs(body, lungs, 10.0)
    assert none["lung/ml"] == none["lung/dice"] == none["lung/dice_centred"] == 0
    assert none["lung/relative_error"] == -1
    undefined = real.compare_lungs(lungs, body, 10.0)
    assert undefined["lung/ml"] > 3000
    assert np.isnan(undefined["lung/dice"])
