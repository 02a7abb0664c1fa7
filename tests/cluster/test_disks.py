"""A full disk, a folder that cannot be written to, a damaged checkpoint: said, mended, gone on from."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest
from bed import wait_until
from trials import Member, Trials, Undisturbed, assert_same_run


@contextmanager
def mounted(folder: Path, *options: str) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", *options, str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def remount(folder: Path, *options: str) -> None:
    subprocess.run(["mount", "-o", ",".join(("remount", *options)), str(folder)], check=True)


def fill(folder: Path) -> Path:
    """A file that leaves room for some lines, and none for a checkpoint."""
    filler = folder / "filler"
    with suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    os.truncate(filler, filler.stat().st_size - 64 * 1024)
    return filler


@pytest.mark.slow
def test_full_and_read_only_and_damaged(trials: Trials, undisturbed: Undisturbed) -> None:
    """Three members of one array. Each fails with a message, and `resubmit` goes on where it was."""
    bed = trials.bed
    with ExitStack() as mounts:
        slow = [0.5, 0.51, 0.52]
        paths = [trials.run_root / f"disks+mapper.sleep_s={seconds}" for seconds in slow]
        mounts.enter_context(mounted(paths[0], "-t", "tmpfs", "-o", "size=64m", "tmpfs"))
        members = trials.submit(trials.config("disks", sweep={"mapper.sleep_s": slow}), trials.profile())
        full, read_only, damaged = members
        assert [m.run.path for m in members] == paths
        for member in members:
            member.wait_step(4)
        filler = fill(full.run.path)
        store = read_only.run.path / "checkpoints"
        mounts.enter_context(mounted(store, "--bind", str(store)))
        remount(store, "ro", "bind")
        bed.run("scancel", damaged.job)
        for member in members:
            assert bed.wait_ended(member.job) in ("FAILED", "CANCELLED"), member.said()
        assert "Read-only file system" in read_only.said()
        for member in (full, read_only):
            assert re.search(r"the checkpoint of step \d+ is not written", member.said()), member.said()
            assert "Traceback" not in member.said(), member.said()
            assert [(s["why"], s["exit"]) for s in member.stops()] == [("work failed", 1)]

        newest = break_newest(damaged)
        filler.unlink()
        remount(store, "rw", "bind")
        bed.xr2ct("resubmit", *paths)
        again = [member.again() for member in members]
        assert len({member.job for member in members + again}) == 6
        trials.finish(*again)
        for member in again:
            assert_same_run(member.run, undisturbed.run())
        assert f"step-{newest:06d}" in damaged.said()
        assert "mapper.safetensors: differs from what was written" in damaged.said()


def break_newest(member: Member) -> int:
    """Flip a byte in the newest checkpoint; its step."""
    step = wait_until("a checkpoint after the first", lambda: member.run.steps()[-1])
    path = member.run.checkpoint(step) / "mapper.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    return int(step)
