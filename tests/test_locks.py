"""One at a time, over threads and processes; never beyond the holder's death."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from xr2ct.locks import alone

HOLD = """
import sys, time
from pathlib import Path
from xr2ct.locks import alone
with alone(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def test_another_process_keeps_it_until_it_dies(tmp_path: Path) -> None:
    path = tmp_path / "new" / ".lock"
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE)
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    with pytest.raises(TimeoutError, match="held by another process"), alone(path, wait_s=0.3):
        pass
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    with alone(path):
        pass
    holder.stdout.close()


def test_another_thread_keeps_it(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with alone(path):
            held.set()
            done.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    with pytest.raises(TimeoutError, match="held by another thread"), alone(path, wait_s=0.1):
        pass
    done.set()
    thread.join()
    with alone(path):
        pass


def test_let_go_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), alone(tmp_path / ".lock"):
        raise RuntimeError
    with alone(tmp_path / ".lock"):
        pass
