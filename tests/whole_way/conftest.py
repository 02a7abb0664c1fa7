"""The whole way once, by the commands a user types: DICOM, plans, stores, two ranks, sweep, report."""

from __future__ import annotations

from pathlib import Path

import pytest
from commands import WholeWay, xr2ct

CONFIG = """\
name: small
run_root: {work}/runs
data: {{stores: {work}/stores, size: 64, views: [90, 0]}}
mapper: {{name: swin-unetr, feature_size: 12, depths: [1, 1, 1, 1], window_size: 4}}
method:
  name: neural-ot
  mapper_updates: 1
  potential: {{base_channels: 4, max_channels: 16}}
  features: {{widths: [4, 8, 16, 16], calibration_batches: 1}}
optimizer: {{lr_per_sample: 1e-3}}
training: {{steps: 3, warmup_steps: 1, batch: 2, checkpoint_every: 2, precision: fp32}}
evaluation: {{cohorts: [lidc-idri, lctsc]}}
"""
COHORTS = {"lidc-idri": 5, "lctsc": 1}


@pytest.fixture(scope="session")
def whole_way(tmp_path_factory: pytest.TempPathFactory) -> WholeWay:
    work = tmp_path_factory.mktemp("whole way")
    for cohort, patients in COHORTS.items():
        xr2ct("phantom", work / "dicom" / cohort, "--cohort", cohort, "--patients", str(patients))
        plan, store = work / f"{cohort}.csv", work / "stores" / f"{cohort}.zarr"
        xr2ct("plan", cohort, work / "dicom" / cohort, "--out", plan)
        splits = "seeded" if cohort == "lidc-idri" else "test"
        xr2ct("ingest", cohort, plan, "--out", store, "--angles", "0,90,270", "--splits", splits)
    config = work / "small.yaml"
    config.write_text(CONFIG.format(work=work))
    told = xr2ct("submit", config, "--cluster", "local", "--wait")
    run = Path(told.stdout.strip().split(": ", 1)[1])
    xr2ct("evaluate", run)
    page = Path(xr2ct("report", run, "--out", work / "report").stdout.strip())
    return WholeWay(work, config, run, page)
