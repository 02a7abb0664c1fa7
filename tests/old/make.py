"""Makes what later versions must open: `python tests/old/make.py FOLDER`, once for a version, then committed.

FOLDER/stores/lidc-idri.zarr   four synthetic chests at 16³ and three X-rays of each
FOLDER/config.yaml             an experiment on them
FOLDER/runs/old/               its run: the weights of its checkpoints, and their scores
FOLDER/reconstruction.npz      what the last checkpoint's mapper makes of the test case's views
FOLDER/report/                 a table and a figure, each with its source and its lock
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import numpy as np
import torch

from xr2ct import cli
from xr2ct.projection.views import scale_views
from xr2ct.run import Run
from xr2ct.store import Store
from xr2ct.weights import load_mapper

CONFIG = """\
# A small experiment as it was written when this version was the newest.
name: old
label: The old one
data: {stores: stores, size: 16, geometry: small, views: [90, 0]}
mapper: {name: unet, channels: [4, 8]}
method:
  name: neural-ot
  mapper_updates: 2
  potential: {base_channels: 2, max_channels: 4}
  features: {widths: [2, 2, 4, 4], calibration_batches: 1}
optimizer: {lr_per_sample: 1e-3}
training: {steps: 4, warmup_steps: 1, batch: 2, checkpoint_every: 2, precision: fp32, device: cpu, threads: 1}
evaluation: {cohorts: [lidc-idri], batch: 1}
tracking: {enabled: false}
"""
INGEST = "--size 16 --angles 0,90,270 --geometry small --pixels 16 --splits seeded"
COMMANDS = (
    "phantom dicom --cohort lidc-idri --patients 4",
    "plan lidc-idri dicom --out plan.csv",
    f"ingest lidc-idri plan.csv --out stores/lidc-idri.zarr {INGEST}",
    "train config.yaml",
    "evaluate runs/old",
    "report runs/old --out report",
)


def main(folder: Path) -> None:
    folder.mkdir(parents=True)
    os.chdir(folder)  # so that no path of this machine is written down
    Path("config.yaml").write_text(CONFIG)
    for command in COMMANDS:
        assert cli.main(command.split()) == 0, command
    shutil.rmtree("dicom")
    for file in ("plan.csv", "plan.scan", "runs/old/mlflow.json"):
        Path(file).unlink()
    run = Run(Path("runs/old"))
    for step in run.steps():
        # Only the version that wrote them resumes from them; older ones are gone already.
        shutil.rmtree(run.checkpoint(step) / "engines", ignore_errors=True)
    for file in Path("report").iterdir():
        if not file.name.startswith(("cohorts.", "planes.")):
            shutil.rmtree(file) if file.is_dir() else file.unlink()
    mapper, experiment = load_mapper(run.checkpoint(run.steps()[-1]))
    store = Store.open(experiment.data.store("lidc-idri"))
    (case,) = store.split("test")
    views = scale_views(store.xray(case, experiment.data.geometry, experiment.data.views), "max")[None]
    with torch.inference_mode():
        volume = mapper(torch.from_numpy(views)).numpy()
    np.savez_compressed("reconstruction.npz", views=views, volume=volume)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
