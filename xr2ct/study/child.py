"""A command of ours in a process of its own: what it says is shown and logged, and signals reach it."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from signal import SIGINT, SIGTERM
from typing import IO

from xr2ct.training.stopping import Listener

_POLL_S = 0.2
_INTERRUPTED_S = 5.0
"""For a child that has had the terminal's Ctrl-C as well to end, before it is told so again, and worse."""


def run_child(
    arguments: Sequence[str], log: Path, listener: Listener, enough: Callable[[], bool] | None = None
) -> int:
    """``xr2ct ARGUMENTS``; its exit code, below 0 where a signal ended it.

    A signal that `listener` hears is passed on, once; SIGTERM is sent once there is `enough`. A
    `KeyboardInterrupt` ends the child too.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "xr2ct.cli", *arguments]
    with (
        log.open("ab") as file,
        subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        ) as child,
    ):
        assert child.stdout is not None
        copier = threading.Thread(target=_copy, args=(child.stdout, file))
        copier.start()
        try:
            _wait(child, listener, enough)
        except KeyboardInterrupt:
            for end in (None, SIGINT, SIGTERM):
                if end is not None:
                    child.send_signal(end)
                with suppress(subprocess.TimeoutExpired):
                    child.wait(_INTERRUPTED_S)
            raise
        finally:
            if child.poll() is None:
                child.kill()
            copier.join()
    return child.returncode


def last_line(log: Path) -> str:
    """Of what a child has said; empty where it said nothing."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.exists() else []
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def _wait(child: subprocess.Popen[bytes], listener: Listener, enough: Callable[[], bool] | None) -> None:
    told = False
    while True:
        with suppress(subprocess.TimeoutExpired):
            child.wait(_POLL_S)
            return
        if not told and (listener.heard or (enough is not None and enough())):
            child.send_signal(listener.heard or SIGTERM)
            told = True


def _copy(source: IO[bytes], file: IO[bytes]) -> None:
    for line in source:
        file.write(line)
        file.flush()
        sys.stderr.write(line.decode("utf-8", "replace"))
        sys.stderr.flush()
