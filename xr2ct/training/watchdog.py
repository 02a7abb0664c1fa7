"""A rank that makes no progress any more says where it hangs, and ends, so that its job may start again.

Every rank gives signs of life from its main thread: at each pass forward and back, update, batch and part of
a checkpoint. Where none comes for XR2CT_HUNG_S seconds, a thread in C writes the stacks of all threads to
XR2CT_SLURM/stacks-JOB-RESTART-rank-R.txt and ends the process: also where the interpreter's lock is never
let go of. Ranks that wait for the one that hangs end too, and the one furthest behind is named beforehand.

    XR2CT_SLURM/heartbeats/rank-R   "STEP SIGNS": outer steps done, signs of life since; touched at most once
                                    a second

Without these variables nothing is watched or written.
"""

from __future__ import annotations

import faulthandler
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO

from xr2ct.training.environment import rank_of
from xr2ct.training.lead_time import environment_seconds

_BEAT_EVERY_S = 1.0
_TOLD_AFTER = 0.8
"""Of the limit: the ranks then write how far they came, and soon after compare."""

_watch: _Watch | None = None


@contextmanager
def watching() -> Iterator[None]:
    """Watch this process for as long; within another `watching`, that one goes on. Raises `UserError`."""
    global _watch
    if _watch is not None:
        yield
        return
    with ExitStack() as held:
        _watch = _Watch(held)
        try:
            _watch.sign(None)
            yield
        finally:
            _watch = None


def alive(step: int | None = None) -> None:
    """Give a sign of life, where this process is watched; with the outer steps done, where these are new."""
    if _watch is not None:
        _watch.sign(step)


def heartbeat_file(slurm: Path, rank: int) -> Path:
    """The sign of life of a rank, in a run's slurm folder."""
    return slurm / "heartbeats" / f"rank-{rank}"


class _Watch:
    """Of this process; at work until `held` is closed."""

    def __init__(self, held: ExitStack) -> None:
        self._rank, self._world_size, _ = rank_of(os.environ)
        self._limit_s = environment_seconds("XR2CT_HUNG_S")
        folder = os.environ.get("XR2CT_SLURM")
        self._folder = Path(folder) if folder else None
        self._step, self._signs = 0, 0
        self._last, self._last_at = time.monotonic(), time.time()
        self._armed = self._beaten = -float("inf")
        if self._limit_s:
            self._stacks = self._open_stacks(held)
            held.callback(faulthandler.cancel_dump_traceback_later)
            ended = threading.Event()
            thread = threading.Thread(target=self._tell, args=(ended,), name="xr2ct-watchdog", daemon=True)
            thread.start()
            held.callback(ended.set)

    def sign(self, step: int | None) -> None:
        if step is not None and step != self._step:
            self._step, self._signs = step, 0
        self._signs += 1
        self._last, self._last_at = time.monotonic(), time.time()
        # Each arming starts a thread, so not at every sign.
        if self._limit_s and self._last - self._armed >= min(1.0, self._limit_s / 10):
            self._armed = self._last
            faulthandler.dump_traceback_later(self._limit_s, exit=True, file=self._stacks)
        if self._last - self._beaten >= _BEAT_EVERY_S:
            self._beaten = self._last
            self._beat()

    def _open_stacks(self, held: ExitStack) -> IO[str]:
        """Where stacks would be written; a file that is still empty at the end is removed."""
        if self._folder is None:
            return sys.__stderr__ or sys.stderr
        job, restart = os.environ.get("XR2CT_JOB", os.getpid()), os.environ.get("XR2CT_RESTART", "0")
        path = self._folder / f"stacks-{job}-{restart}-rank-{self._rank}.txt"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = path.open("w", encoding="utf-8")
        except OSError as error:
            self._say(f"{path}: cannot be written ({error.strerror}); stacks would come here instead")
            return sys.__stderr__ or sys.stderr
        held.callback(_remove_if_empty, path)
        return held.enter_context(file)

    def _beat(self) -> None:
        """Write how far this rank is. A full disk or a folder gone never stops a run."""
        if self._folder is None:
            return
        path = heartbeat_file(self._folder, self._rank)
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            # Written over and never cut short, so that a reader always finds a whole line.
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)
            try:
                os.pwrite(descriptor, f"{self._step:<11d} {self._signs:<11d}\n".encode(), 0)
                os.utime(descriptor, (self._last_at, self._last_at))
            finally:
                os.close(descriptor)

    def _tell(self, ended: threading.Event) -> None:
        """Name the rank furthest behind, shortly before the limit; runs in a thread of its own."""
        told_of = None
        while not ended.wait(max(0.1, self._limit_s / 50)):
            last = self._last
            if last == told_of or time.monotonic() - last < _TOLD_AFTER * self._limit_s:
                continue
            told_of = last
            self._beat()
            if not ended.wait(self._limit_s * (1 - _TOLD_AFTER) / 2) and self._last == last:
                silent = time.monotonic() - last
                self._say(f"rank {self._rank}: no progress for {silent:.0f} s; {self._furthest_behind()}")

    def _furthest_behind(self) -> str:
        if self._folder is None:
            return "which rank hangs is not known without XR2CT_SLURM"
        beats = [read_heartbeat(self._folder, rank) for rank in range(self._world_size)]
        there = [(beat, rank) for rank, beat in enumerate(beats) if beat is not None]
        if len(there) < len(beats):
            missing = ", ".join(str(rank) for rank, beat in enumerate(beats) if beat is None)
            return f"no sign of life ever from rank {missing}"
        (step, signs, at), rank = min(there)
        return (
            f"furthest behind is rank {rank}: step {step}, sign of life {signs}, {time.time() - at:.0f} s ago"
        )

    @staticmethod
    def _say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)


def read_heartbeat(slurm: Path, rank: int) -> tuple[int, int, float] | None:
    """Outer steps done, signs of life since, and when the last was (seconds since 1970); None without one."""
    path = heartbeat_file(slurm, rank)
    try:
        step, signs = path.read_text(encoding="utf-8").split()
        return int(step), int(signs), path.stat().st_mtime
    except (OSError, ValueError):
        return None


def _remove_if_empty(path: Path) -> None:
    with suppress(OSError):
        if path.stat().st_size == 0:
            path.unlink()
