"""A rank without progress says where it hangs, and ends; one that goes on leaves but its heartbeat."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from xr2ct.errors import UserError
from xr2ct.training.watchdog import alive, read_heartbeat, watching

HANGS = """
import ctypes, sys, time
from xr2ct.training.watchdog import alive, watching
with watching():
    for step in range(3):
        for _ in range(1 + int(sys.argv[2])):
            alive(step)
    if sys.argv[1] == "lock":
        ctypes.PyDLL(None).sleep(60)  # PyDLL keeps the interpreter's lock
    elif sys.argv[1] == "wait":
        time.sleep(60)
"""


def start(folder: Path, how: str, rank: int = 0, further: int = 0, limit: str = "2") -> subprocess.Popen[str]:
    variables = {"XR2CT_SLURM": str(folder), "XR2CT_HUNG_S": limit, "XR2CT_JOB": "7_1", "XR2CT_RESTART": "3"}
    variables |= {"RANK": str(rank), "WORLD_SIZE": "2"}
    command = [sys.executable, "-c", HANGS, how, str(further)]
    return subprocess.Popen(
        command, env={**os.environ, **variables}, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


@pytest.mark.parametrize("how", ["wait", "lock"])
def test_stacks_are_dumped_and_the_process_ends(tmp_path: Path, how: str) -> None:
    process = start(tmp_path, how)
    process.communicate(timeout=50)
    assert process.returncode == 1
    stacks = (tmp_path / "stacks-7_1-3-rank-0.txt").read_text()
    assert "Timeout" in stacks
    assert 'File "<string>", line' in stacks


def test_the_rank_furthest_behind_is_named(tmp_path: Path) -> None:
    behind, ahead = start(tmp_path, "lock", rank=1), start(tmp_path, "wait", rank=0, further=2)
    told = ahead.communicate(timeout=50)[1]
    behind.communicate(timeout=50)
    assert "rank 0: no progress for " in told
    assert "furthest behind is rank 1: step 0, sign of life 1, " in told


def test_an_end_leaves_only_the_heartbeat(tmp_path: Path) -> None:
    process = start(tmp_path, "ends")
    assert process.communicate(timeout=50)[1] == ""
    assert process.returncode == 0
    assert [p.name for p in tmp_path.iterdir()] == ["heartbeats"]
    assert read_heartbeat(tmp_path, 0) is not None


def test_the_heartbeat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XR2CT_SLURM", str(tmp_path))
    assert read_heartbeat(tmp_path, 0) is None
    with watching():
        found = read_heartbeat(tmp_path, 0)
        assert found is not None
        step, signs, at = found
        assert (step, signs) == (0, 1)
        assert abs(at - time.time()) < 60
        monkeypatch.setattr("xr2ct.training.watchdog._BEAT_EVERY_S", 0.0)
        alive(123456)
        alive()
        assert read_heartbeat(tmp_path, 0)[:2] == (123456, 2)  # type: ignore[index]
        alive(7)
        assert read_heartbeat(tmp_path, 0)[:2] == (7, 1)  # type: ignore[index]


def test_what_cannot_be_written_stops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "slurm").write_text("a file where the folder should be")
    monkeypatch.setenv("XR2CT_SLURM", str(tmp_path / "slurm"))
    with watching():
        alive(3)


def test_without_the_variables_nothing_is_watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("XR2CT_SLURM", "XR2CT_HUNG_S"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    with watching():
        alive(3)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("text", ["soon", "-1", "nan"])
def test_a_limit_that_is_none(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XR2CT_HUNG_S", text)
    with pytest.raises(UserError, match=f"XR2CT_HUNG_S={text}: expected a number of seconds"), watching():
        pass


@pytest.mark.slow
def test_a_stopped_rank_ends_the_job(trainer: Any, tmp_path: Path) -> None:
    """SIGSTOP: it neither works nor dies, and the others wait for it."""
    config, run, slurm = trainer.config(), trainer.run(), tmp_path / "slurm"
    variables = {"XR2CT_SLURM": str(slurm), "XR2CT_HUNG_S": "30", "XR2CT_JOB": "7_1"}
    attempt = trainer.start(config, ranks=2, **variables)
    while not run.metrics_file.exists() or run.metrics_file.read_bytes().count(b"\n") < 4:
        assert attempt[0].exitcode is None
        time.sleep(0.001)
    os.kill(attempt[1].pid, signal.SIGSTOP)
    attempt[0].join(200)
    os.kill(attempt[1].pid, signal.SIGKILL)
    assert attempt[0].exitcode == 1
    assert "Timeout" in (slurm / "stacks-7_1-0-rank-0.txt").read_text()
    assert "furthest behind is rank 1: step " in trainer.said(0)
    trainer.finish(config, ranks=2, **variables | {"XR2CT_RESTART": "1"})
    assert [r["step"] for r in run.metrics()] == list(range(1, 13))
    assert not (slurm / "stacks-7_1-1-rank-0.txt").exists()
