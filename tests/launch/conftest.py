"""Slurm's commands that say what a test wants said, and runs as jobs leave them."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
from made_runs import MadeRoot
from slurm_answers import WITH_ACCOUNTING, Answer, write_command


@pytest.fixture
def answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Answer:
    """answer("squeue", text, error="", code=0): a command of tmp_path/bin, first on PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder), prepend=":")
    for command, text in (("scontrol", WITH_ACCOUNTING), ("sacct", ""), ("squeue", ""), ("scancel", "")):
        write_command(folder, command, text)
    return partial(write_command, folder)


@pytest.fixture
def made(tmp_path: Path) -> MadeRoot:
    return MadeRoot(tmp_path / "runs")
