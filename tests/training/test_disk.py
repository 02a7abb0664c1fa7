"""A full disk and a folder that cannot be written in: said in a line, nothing lost, gone on from after."""

from __future__ import annotations

import errno
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import losses

from xr2ct.errors import WorkFailed
from xr2ct.run import Run
from xr2ct.training import checkpoints, fence, start
from xr2ct.training.distributed import start_distributed
from xr2ct.training.fence import Fence
from xr2ct.training.metrics_log import MetricsLog


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a file system of its own."""
    folder = tmp_path / "small disk"
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip("only root can mount a small disk")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path) -> Path:
    """A file that takes all the room there is."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError as error:
            assert error.errno == errno.ENOSPC
    return filler


def remount(folder: Path, how: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{how}", str(folder)], check=True)


def test_metrics_on_a_full_disk(small_disk: Path) -> None:
    run = Run(small_disk)
    log = MetricsLog(run, 0, Fence(run, 1))
    log.write({"step": 1})
    filler = fill(small_disk)
    with pytest.raises(WorkFailed, match=r"metrics\.jsonl: cannot be written: .*No space left"):
        for step in range(2, 3000):
            log.write({"step": step})
    log.close()
    with pytest.raises(WorkFailed, match=r"metrics\.jsonl: cannot be written: .*No space left"):
        MetricsLog(run, 3000, Fence(run, 2))
    assert not list(small_disk.glob(".partial-*"))
    filler.unlink()
    steps = [record["step"] for record in run.metrics()]
    assert steps == list(range(1, len(steps) + 1))
    MetricsLog(run, 1, Fence(run, 2)).close()
    assert list(run.metrics()) == [{"step": 1}]


def test_a_folder_that_cannot_be_written_in(small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(small_disk / "run")
    first = Fence(run, 1)
    for step in (1, 2):
        (checkpoints.begin(run, step, first) / "engines" / "x").write_bytes(b"x")
        if step == 1:
            checkpoints.commit(run, step, first, time.monotonic())
    remount(small_disk, "ro")
    with pytest.raises(WorkFailed, match=r"cannot be trained in: .*Read-only file system"), fence.held(run):
        pass
    with pytest.raises(WorkFailed, match=r"cannot be trained in: .*Read-only file system"):
        start.checkpoint_to_resume(run, Fence(run, 2))
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("XR2CT_RENDEZVOUS", str(small_disk / "rendezvous"))
    with pytest.raises(WorkFailed, match=r"the ranks cannot meet: .*Read-only file system"):
        start_distributed("cpu")
    remount(small_disk, "rw")
    with fence.held(run) as second:
        assert start.checkpoint_to_resume(run, second) == 1


@pytest.mark.slow
def test_a_full_disk_is_made_no_fuller(trainer: Any, small_disk: Path) -> None:
    whole = trainer.run("whole")
    trainer.finish(trainer.config("whole"))
    config = trainer.config(mapper={"name": "tiny-conv", "sleep_s": 0.2})
    run = Run(small_disk / "tiny")
    attempt = trainer.start(config, f"run_root={small_disk}")
    while run.steps()[-1:] != [3]:
        assert attempt[0].exitcode is None
        time.sleep(0.001)
    filler = fill(small_disk)
    attempt[0].join(120)
    assert attempt[0].exitcode == 1
    said = trainer.said()
    assert "No space left on device" in said or "is not written: " in said
    assert "Traceback" not in said
    assert not list(run.path.rglob(".partial-*"))
    filler.unlink()
    trainer.finish(config, f"run_root={small_disk}")
    found, expected = (losses(x) for x in (run, whole))
    assert found == expected


def test_what_torch_says_of_a_full_disk_is_known(small_disk: Path) -> None:
    """`state.save` makes `WorkFailed` of these."""
    fill(small_disk)
    with pytest.raises((OSError, RuntimeError)):
        torch.save({"x": torch.zeros(1000000)}, small_disk / "state.pt")
