"""Doubt in a report: of a run that was really evaluated in ways that have it."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from made_study import RESOLVED, made_run
from safetensors.torch import save_file
from scipy.stats import spearmanr
from synthetic_store import CUBE_MM, write_store

from xr2ct.config import Way
from xr2ct.evaluation.metrics import PRIMARY
from xr2ct.evaluation.results import read_rows, result_file
from xr2ct.evaluation.sweep import evaluate
from xr2ct.evaluation.ways import evaluate_ways
from xr2ct.models.mapper import build_mapper
from xr2ct.projection.geometry import Geometry
from xr2ct.reconstruction.calibration import read_calibration
from xr2ct.reporting.chart import Chart
from xr2ct.reporting.exhibit import maker
from xr2ct.reporting.gallery import Gallery
from xr2ct.reporting.lock import lock_run, rebuild, write_exhibit
from xr2ct.reporting.study import Study
from xr2ct.reporting.table import Table
from xr2ct.run import Run

GEOMETRY = Geometry("x2ct", sad_mm=541.0, sid_mm=949.0, detector_mm=500.0, pixels=32)
LABEL = "doubt-views"
SOURCE = f"step-000500~{LABEL}"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """With initial weights; two patients each to learn from and to calibrate on, three to test."""
    work = tmp_path_factory.mktemp("doubt")
    splits = ["train", "train", "val", "val", "test", "test", "test"]
    store = write_store(work / "stores", splits, 16, (0.0, 90.0), GEOMETRY.pixels)
    made = made_run(
        work / "run",
        data={"stores": str(store.path.parent), "size": 16, "views": [90, 0]},
        mapper={"name": "unet", "channels": [2, 4], "num_res_units": 0},
        lift="backproject",
        training={"steps": 500, "warmup_steps": 1, "device": "cpu"},
        evaluation={"cohorts": ["lidc-idri"]},
        resolved={**RESOLVED, "geometry": GEOMETRY.as_attributes(), "cube_mm": CUBE_MM},
    )
    save_file(
        build_mapper(made.experiment(), GEOMETRY, CUBE_MM).state_dict(), made.best / "mapper.safetensors"
    )
    shutil.copy(made.config_file, made.best)
    evaluate(made)
    evaluate_ways(made, [Way(doubt="views")])
    return made


@pytest.fixture(scope="module")
def study(run: Run) -> Study:
    return Study.of([run])


def test_scores_are_means_over_the_test_patients(study: Study, run: Run) -> None:
    table = maker("doubt-scores")(study)
    assert isinstance(table, Table)
    (row,) = table.rows
    assert (row["cohort"], row["way"], row["patients"]) == ("lidc-idri", LABEL, 3)
    rows = read_rows(result_file(run, SOURCE, "lidc-idri", "test"))
    assert rows is not None
    assert row["coverage_95"] == pytest.approx(np.mean([r["doubt/coverage_95"] for r in rows]))
    assert row["body_spearman"] == pytest.approx(np.mean([r["doubt_body/spearman"] for r in rows]))
    between = spearmanr(*([r[name] for r in rows] for name in ("doubt/sd_hu", "honest/mae_hu")))[0]
    assert row["of_patients"] == pytest.approx(between)
    calibration = read_calibration(run.best, LABEL)
    assert calibration is not None and calibration.patients == 2
    assert row["raw_95"] == pytest.approx(calibration.coverage_before[95])
    # An untrained mapper is far off everywhere: its draws alone hardly know it, calibrated they do.
    assert float(row["raw_95"] or 0) < 0.5 < float(row["coverage_95"] or 0)


def test_reliability_is_what_was_covered_at_each_level(study: Study, run: Run) -> None:
    chart = maker("reliability")(study)
    assert isinstance(chart, Chart)
    rows = read_rows(result_file(run, SOURCE, "lidc-idri", "test"))
    assert rows is not None
    assert [panel.title for panel in chart.panels] == ["whole volume", "body", "lungs"]
    for panel, mode in zip(chart.panels, ("doubt", "doubt_body", "doubt_lungs"), strict=True):
        stated, covered = panel.series
        assert stated.x == stated.y and covered.label == LABEL and covered.x == (50, 68, 90, 95)
        expected = [
            100 * np.nanmean([r[f"{mode}/coverage_{level}"] for r in rows]) for level in (50, 68, 90, 95)
        ]
        assert covered.y == pytest.approx(expected, nan_ok=True)


def test_planes_of_the_median_patient_stand_side_by_side(study: Study, run: Run) -> None:
    gallery = maker("doubt")(study)
    assert isinstance(gallery, Gallery)
    assert gallery.columns == ("CT", "reconstruction", "|error|", "doubt", "unseen")
    assert gallery.rows == (f"{LABEL}, axial", f"{LABEL}, coronal")
    rows = read_rows(result_file(run, SOURCE, "lidc-idri", "test"))
    assert rows is not None
    median = sorted(rows, key=lambda r: r[PRIMARY])[1]
    for row in gallery.pictures:
        truth, made, error, doubt, unseen = row
        assert truth and made and error and doubt and unseen
        assert error.high == doubt.high  # one scale for both
        # Within the window of all of them the error is the difference that stands beside it.
        shown = (
            (truth.shares > 0)
            & (truth.shares < 1)
            & (made.shares > 0)
            & (made.shares < 1)
            & (error.shares < 1)
        )
        apart = np.abs(made.shares.astype(float) - truth.shares) * (truth.high - truth.low)
        assert shown.any()
        assert error.shares[shown] * error.high == pytest.approx(apart[shown], abs=3)
        assert (doubt.shares > 0).all() and unseen.note.endswith(" %")
    assert median["doubt/sd_hu"] > 0


def test_it_is_drawn_again_without_the_run(study: Study, run: Run, tmp_path: Path) -> None:
    locked = [lock_run(run, study.experiment(run))]
    assert f"{SOURCE}/lidc-idri-test.csv" in locked[0].results
    for name in ("doubt-scores", "reliability", "doubt"):
        made = maker(name)(study)
        assert made is not None
        write_exhibit(made, tmp_path / "out", ["test"], locked)
        for file in rebuild(tmp_path / "out" / f"{name}.lock.json", tmp_path / "again"):
            assert file.read_bytes() == (tmp_path / "out" / file.name).read_bytes()


def test_nothing_of_it_where_nobody_doubts(tmp_path: Path) -> None:
    study = Study.of([made_run(tmp_path / "sure", {("lidc-idri", "test"): {"a": 20.0}})])
    assert [maker(name)(study) for name in ("doubt-scores", "reliability", "doubt")] == [None] * 3
