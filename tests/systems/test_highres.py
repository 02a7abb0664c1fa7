"""256³ on two cores: a step on sub-volumes, and a reconstruction by windows, each within its memory."""

from __future__ import annotations

import os
import subprocess
import sys
from multiprocessing.context import ForkServerContext
from pathlib import Path

import numpy as np
import pytest
from synthetic_store import write_store
from trainer import Trainer

from xr2ct.store import Store

SIZE, WINDOW, COARSE = 256, 64, 64
SWIN = {"name": "swin-unetr", "feature_size": 12, "depths": [1, 1, 1, 1], "window_size": 4}
TRAINING = {"steps": 1, "warmup_steps": 0, "checkpoint_every": 1, "batch": 2}
GIB = 2**30


@pytest.fixture
def trainer(tmp_path: Path, processes: ForkServerContext) -> Trainer:
    folder = tmp_path / "stores"
    write_store(folder, ("train", "train"), (COARSE, SIZE), (0.0, 90.0, 270.0), pixels=64)
    return Trainer(tmp_path, folder, processes)


TOLD = """
import atexit, re, sys
from pathlib import Path
from xr2ct import cli
status, file, *arguments = Path("/proc/self/status"), *sys.argv[1:]
atexit.register(lambda: Path(file).write_text(re.search(r"VmHWM:\\s+(\\d+)", status.read_text())[1]))
sys.exit(cli.main(arguments))
"""
"""The command, and its own peak: to the kernel a child's is also that of what it was forked from."""


def _peak(arguments: list[str], folder: Path) -> int:
    """Bytes that `xr2ct ARGUMENTS` in a process of its own took at most; it must succeed."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    told = folder / "peak"
    command = [sys.executable, "-c", TOLD, str(told), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    return int(told.read_text()) * 1024


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_step_on_sub_volumes_and_a_reconstruction_by_windows(trainer: Trainer, tmp_path: Path) -> None:
    first = trainer.config(
        "first",
        data={"size": COARSE, "views": [90, 0]},
        mapper={"name": "unet", "channels": [4, 8]},
        training=TRAINING,
    )
    trainer.finish(first)
    config = trainer.config(
        "fine",
        data={"size": SIZE, "window": WINDOW, "views": [90, 0]},
        coarse={"run": str(trainer.run("first").path), "size": COARSE, "step": "last"},
        mapper=SWIN,
        training=TRAINING,
    )
    assert _peak(["train", str(config)], tmp_path) < 8 * GIB
    run = trainer.run("fine")
    (record,) = run.metrics()
    assert all(np.isfinite(value) for value in record.values())

    store = Store.open(trainer.stores / "lidc-idri.zarr")
    command = ["reconstruct", str(run.checkpoint(1))]
    for angle, view in zip((90, 0), store.xray(store.cases[0], "x2ct", (90.0, 0.0)), strict=True):
        np.save(tmp_path / f"{angle}.npy", view)
        command += ["--view", f"{angle}={tmp_path / f'{angle}.npy'}"]
    out = tmp_path / "volume.npy"
    assert _peak([*command, "--out", str(out), "--memory-gb", "2"], tmp_path) < 2e9
    volume = np.load(out)
    assert volume.shape == (SIZE,) * 3 and volume.dtype == np.int16
    assert volume.std() > 0

    too_little = [
        sys.executable,
        "-m",
        "xr2ct.cli",
        *command,
        "--out",
        str(tmp_path / "no.npy"),
        "--memory-gb",
        "0.5",
    ]
    refused = subprocess.run(too_little, capture_output=True, text=True, check=False)
    assert refused.returncode == 2 and not (tmp_path / "no.npy").exists()
    assert "64³ take about" in refused.stderr and "expected at least" in refused.stderr
