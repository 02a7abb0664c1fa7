"""A command in a process of its own: its exit code, what it says, and the signals that reach it."""

from __future__ import annotations

import signal
from pathlib import Path

import psutil
import pytest

from xr2ct import __version__
from xr2ct.study import child
from xr2ct.study.child import last_line, run_child
from xr2ct.training.stopping import Listener


def test_what_it_says_is_shown_and_logged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "logs" / "child.log"
    assert run_child(["--version"], log, Listener()) == 0
    assert log.read_text() == capsys.readouterr().err == f"xr2ct {__version__}\n"
    assert run_child(["train", "nowhere.yaml"], log, Listener()) == 2
    assert "nowhere.yaml" in last_line(log)
    assert log.read_text().startswith(f"xr2ct {__version__}\n"), "a later child's words follow the first's"
    assert last_line(tmp_path / "none.log") == ""


def endless(folder: Path) -> list[str]:
    """A command that takes minutes, and dies of a signal."""
    return ["phantom", str(folder), "--cohort", "lctsc", "--patients", "99", "--workers", "1"]


def test_a_signal_heard_is_passed_on(tmp_path: Path) -> None:
    listener, folder = Listener(), tmp_path / "dicom"

    def enough() -> bool:
        if folder.exists():
            listener.heard = signal.SIGUSR1
        return False

    code = run_child(endless(folder), tmp_path / "log", listener, enough)
    assert code == -signal.SIGUSR1


def test_it_is_asked_to_stop_once_there_is_enough(tmp_path: Path) -> None:
    folder = tmp_path / "dicom"
    assert run_child(endless(folder), tmp_path / "log", Listener(), folder.exists) == -signal.SIGTERM


def test_an_interrupt_ends_the_child_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child, "_INTERRUPTED_S", 0.1)
    folder = tmp_path / "dicom"
    before = set(psutil.Process().children())

    def enough() -> bool:
        if folder.exists():
            raise KeyboardInterrupt
        return False

    with pytest.raises(KeyboardInterrupt):
        run_child(endless(folder), tmp_path / "log", Listener(), enough)
    assert set(psutil.Process().children()) <= before
