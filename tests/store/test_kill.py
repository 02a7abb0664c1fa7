"""Ingest killed at random moments and called again: the same store as one never disturbed, byte for byte."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import psutil
import pytest
from chest_volumes import CUBE_MM, SMALL

from xr2ct.errors import UserError
from xr2ct.ingest import ingest
from xr2ct.store import Store, layout, write

SCRIPT = """
import sys
import threading
from pathlib import Path
from chest_volumes import CUBE_MM, SMALL
from xr2ct.ingest import ingest

if __name__ == "__main__":
    source, store = map(Path, sys.argv[1:])
    ingest(source, store, "lidc-idri", [16, 32], [SMALL], cube_mm=CUBE_MM, splits="seeded", workers=4)
"""
ROUNDS = 5


def undisturbed(source: Path, store: Path) -> dict[str, bytes]:
    ingest(source, store, "lidc-idri", [16, 32], [SMALL], cube_mm=CUBE_MM, splits="seeded", workers=2)
    return tree(store)


def tree(store: Path) -> dict[str, bytes]:
    return {str(p.relative_to(store)): p.read_bytes() for p in sorted(store.rglob("*")) if p.is_file()}


def finished(store: Path) -> dict[str, int]:
    """Case IDs that have their file, and when it was written."""
    return {p.stem: p.stat().st_mtime_ns for p in (store / "cases").glob("[!.]*.json")}


def living(group: int) -> list[psutil.Process]:
    """Processes of a group, the dead who wait for their parent left out."""
    found = []
    for process in psutil.process_iter():
        try:
            if os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (ProcessLookupError, psutil.NoSuchProcess):
            continue
    return found


def all_gone(group: int) -> bool:
    return not living(group)


def wait_for(condition: Callable[[], bool], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def far_enough(process: subprocess.Popen[bytes], store: Path, cases: int) -> bool:
    return process.poll() is not None or (layout.plan_file(store).is_file() and len(finished(store)) >= cases)


@pytest.mark.slow
def test_sigkill_at_random_moments(patients: Path, tmp_path: Path) -> None:
    script, store = tmp_path / "script.py", tmp_path / "killed.zarr"
    script.write_text(SCRIPT)
    paths = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    random = np.random.default_rng(20)
    kept: dict[str, int] = {}
    for turn in range(ROUNDS):
        started = subprocess.Popen(
            [sys.executable, str(script), str(patients), str(store)],
            env={**os.environ, "PYTHONPATH": paths},
            start_new_session=True,
        )
        more = len(finished(store)) + int(random.integers(0, 3))
        wait_for(partial(far_enough, started, store, more), 120)
        time.sleep(random.uniform(0, 0.5))
        if turn % 2:  # the command alone; its workers must follow it
            started.kill()
            assert wait_for(partial(all_gone, started.pid), 30)
        else:
            os.killpg(started.pid, signal.SIGKILL)
        assert started.wait() in (-signal.SIGKILL, 0)
        for case, when in kept.items():
            assert finished(store)[case] == when, "a finished case was worked on again"
        kept = finished(store)
        for case in kept:
            checksums = write.read_case(store, case)
            for array, checksum in checksums["checksums"].items():
                chunk = layout.chunk_file(store, array, checksums["row"]).read_bytes()
                assert hashlib.sha256(chunk).hexdigest() == checksum
    assert 0 < len(kept) < 12, "no round was killed in the middle of the work"
    with pytest.raises(UserError, match="no case is visible yet"):
        Store.open(store)
    completed = undisturbed(patients, store)
    assert {c: w for c, w in finished(store).items() if c in kept} == kept
    assert completed == undisturbed(patients, tmp_path / "undisturbed.zarr")


def test_a_killed_workers_case_is_done_again(patients: Path, tmp_path: Path, caplog) -> None:
    store = tmp_path / "oom.zarr"

    def kill_a_worker() -> None:
        wait_for(lambda: len(finished(store)) > 0, 120)
        servers = psutil.Process().children()
        workers = [w for server in servers for w in server.children()]
        workers[0].kill()

    killer = threading.Thread(target=kill_a_worker)
    killer.start()
    completed = undisturbed(patients, store)
    killer.join()
    assert "its worker was killed" in caplog.text
    assert len(Store.open(store).cases) == 12
    assert completed == undisturbed(patients, tmp_path / "undisturbed.zarr")


def test_what_each_moment_leaves_behind(patients: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for number in range(2):
        shutil.copy(patients / f"SYN-{number:04d}.mha", source)
    expected = undisturbed(source, tmp_path / "whole.zarr")

    def killed(moment: str, spoil: Callable[[Path], None]) -> None:
        store = tmp_path / f"{moment}.zarr"
        shutil.copytree(tmp_path / "whole.zarr", store)
        spoil(store)
        assert undisturbed(source, store) == expected, moment

    def planned_alone(store: Path) -> None:
        for path in store.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name != "plan.json":
                path.unlink()

    def no_arrays(store: Path) -> None:
        shutil.rmtree(store / "xray")
        shutil.rmtree(store / "cases")
        (store / "ct/32/zarr.json").unlink()

    def in_the_middle_of_a_case(store: Path) -> None:
        (store / "cases/SYN-0001.json").unlink()
        chunk = layout.chunk_file(store, "ct/32", 1)
        chunk.write_bytes(chunk.read_bytes()[:1000])
        chunk.with_suffix(".0123456789abcdef.partial").write_bytes(b"half")
        (store / "cases/.SYN-0001.json.4711").write_text("{")
        (store / ".plan.json.4711").write_text("{")
        (store / ".refused.csv.4711").write_text("patient")
        (store / "zarr.0123456789abcdef.partial").write_text("{")

    killed("planned alone", planned_alone)
    killed("no arrays", no_arrays)
    killed("in the middle of a case", in_the_middle_of_a_case)
