"""Real mappers on a real store: the median patient beside what every system makes of it, and the page."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made_study import RESOLVED, made_run, put
from safetensors.torch import save_file
from synthetic_store import CUBE_MM, write_store

from xr2ct.models.mapper import build_mapper
from xr2ct.projection.geometry import Geometry
from xr2ct.reporting import pictures
from xr2ct.reporting.exhibit import maker
from xr2ct.reporting.gallery import Gallery
from xr2ct.reporting.patients import projections
from xr2ct.reporting.report import write_report
from xr2ct.reporting.study import Study
from xr2ct.run import Run
from xr2ct.store import Store
from xr2ct.weights import load_mapper
from xr2ct.window import HuWindow

GEOMETRY = Geometry("x2ct", sad_mm=541.0, sid_mm=949.0, detector_mm=500.0, pixels=32)
RANKED = {"case1": 22.0, "case2": 20.0, "case3": 21.0}
MEDIAN = "case3"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    folder = tmp_path_factory.mktemp("stores")
    return write_store(folder, ["train", "test", "test", "test"], 16, (0.0, 90.0), GEOMETRY.pixels)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, store: Store) -> list[Run]:
    """Two systems with weights; the second was not scored on the median patient of the first."""
    work = tmp_path_factory.mktemp("runs")
    made = []
    for name, lift, scores in (("first", "repeat", RANKED), ("second", "backproject", {"case1": 19.0})):
        config: dict[str, Any] = {
            "data": {"stores": str(store.path.parent), "size": 16, "views": [90, 0]},
            "mapper": {"name": "unet", "channels": [2, 4], "num_res_units": 0},
            "lift": lift,
            "label": name,
            "resolved": {**RESOLVED, "geometry": GEOMETRY.as_attributes(), "cube_mm": CUBE_MM},
            "exhibits": ["projections", "planes"],
        }
        run = made_run(work / name, {("lidc-idri", "test"): scores}, **config)
        made.append(with_weights(run))
    return made


def with_weights(run: Run) -> Run:
    """Initial ones in its checkpoint, beside its configuration."""
    mapper = build_mapper(run.experiment(), GEOMETRY, CUBE_MM)
    save_file(mapper.state_dict(), run.best / "mapper.safetensors")
    shutil.copy(run.config_file, run.best)
    return run


@pytest.fixture(scope="module")
def study(runs: list[Run]) -> Study:
    put(runs[0], "theirs", "lidc-idri", "test", RANKED)
    return Study.of(runs)


def gallery(name: str, study: Study) -> Gallery:
    made = maker(name)(study)
    assert isinstance(made, Gallery)
    return made


def made_hu(run: Run, store: Store, case: str) -> np.ndarray:
    """The same, by the mapper alone."""
    mapper, experiment = load_mapper(run.best)
    of_store = next(c for c in store.cases if c.id == case)
    views = store.xray(of_store, "x2ct", experiment.data.views)
    scaled = views / views.max((1, 2), keepdims=True)
    with torch.inference_mode():
        unit = mapper(torch.from_numpy(scaled)[None].float())[0, 0].numpy()
    return HuWindow().to_hu(unit)


def test_the_first_systems_median_patient_stands_beside_its_ct(
    study: Study, runs: list[Run], store: Store
) -> None:
    planes = gallery("planes", study)
    assert planes.columns == ("CT", "first", "second") and planes.rows == (
        "lidc-idri, axial",
        "lidc-idri, coronal",
    )
    truth, made, other = planes.pictures[0]
    assert truth is not None and made is not None and other is None  # the second has no score of this patient
    case = next(c for c in store.cases if c.id == MEDIAN)
    expected = HuWindow().to_hu(HuWindow().to_unit(store.volume(case, 16).astype(np.float32)))
    low, high = pictures.DISPLAY_HU
    assert np.array_equal(truth.shares, pictures.grey(expected[8], low, high).shares)
    again = pictures.grey(made_hu(runs[0], store, MEDIAN)[8], low, high)
    assert made.shares == pytest.approx(again.shares, abs=2e-3) and made.note == "21.00 dB"
    assert MEDIAN in planes.caption and "Predictions from elsewhere are scored and not kept" in planes.caption


def test_projections_are_line_integrals_on_the_cts_window(
    study: Study, runs: list[Run], store: Store
) -> None:
    shown = gallery("projections", study)
    assert shown.rows == ("lidc-idri, frontal", "lidc-idri, lateral")
    case = next(c for c in store.cases if c.id == MEDIAN)
    hu = HuWindow().to_hu(HuWindow().to_unit(store.volume(case, 16).astype(np.float32)))
    lateral = projections(hu, CUBE_MM, GEOMETRY, [90.0])[0]
    truth, made, _ = shown.pictures[1]
    assert truth is not None and made is not None
    assert truth.high == made.high == pytest.approx(float(lateral.max()))
    assert truth.shares * truth.high == pytest.approx(lateral, abs=5e-3 * truth.high)
    # The stored X-ray is of a finer volume, and is the same picture.
    stored = store.xray(case, "x2ct", (90.0,))[0]
    assert np.corrcoef(stored.ravel(), truth.shares.astype(float).ravel())[0, 1] > 0.99


def test_the_page_shows_each_systems_median_patient(runs: list[Run], tmp_path: Path) -> None:
    page = write_report(runs, tmp_path).read_text()
    assert f"first: lidc-idri test, median patient: {MEDIAN}, 21.00 dB" in page
    assert "second: lidc-idri test, median patient: case1, 19.00 dB" in page
    assert "worst patient" not in page and "Not in this report" not in page
    alone = write_report(runs[:1], tmp_path / "alone").read_text()
    assert "worst patient: case2" in alone and "best patient: case1" in alone


def test_a_store_that_is_gone_is_named_and_the_rest_is_shown(runs: list[Run], tmp_path: Path) -> None:
    experiment = runs[0].experiment()
    moved = made_run(
        tmp_path / "moved",
        {("lidc-idri", "test"): RANKED},
        **{
            **experiment.model_dump(mode="json"),
            "data": {**experiment.data.model_dump(mode="json"), "stores": str(tmp_path / "gone")},
            "exhibits": ["planes", "cohorts"],
        },
    )
    page = write_report([with_weights(moved)], tmp_path / "out").read_text()
    assert "planes: " in page and f"{tmp_path}/gone/lidc-idri.zarr" in page
    assert "patients of first: " in page and '<section id="cohorts">' in page
