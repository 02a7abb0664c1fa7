"""Which of a run's incarnations may write: each start of training takes a number, and the highest one may.

A node that Slurm gives up may still be alive and its task at work, while the requeued task trains the same
run elsewhere. The latter then has the higher number. The earlier one, the survivor, finds that out at its
next step and ends; what it may have been about to commit is kept out by the order of things:

    survivor    prepares under a name with its number → looks for a higher number → renames into place
    successor   creates its number → removes what has a lower one in its name → reads the run

Where the survivor saw no higher number, its file was there before the successor removed such files. So its
rename either came before the successor read the run, or finds nothing to rename.

    RUN/incarnations/000001     created exclusively, locked as long as its process lives; JSON: job, restart,
                                host, pid, time
"""

from __future__ import annotations

import json
import logging
import os
import re
import socket
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from xr2ct.errors import Superseded, WorkFailed
from xr2ct.locks import alone
from xr2ct.run import Run

log = logging.getLogger(__name__)

_PARTIAL = re.compile(r"\.partial-(\d{6,})-.+", re.DOTALL)
_PATIENCE_S = 300.0
"""For another process that is taking its own number, or cleans the run up."""


class Fence:
    """The number of this start of training, 1 for the first; the same in all of its ranks."""

    def __init__(self, run: Run, number: int) -> None:
        self._run = run
        self.number = number

    def superseded(self) -> bool:
        """Whether a later start of training has taken over."""
        return highest(self._run) > self.number

    def check(self) -> None:
        """`Superseded` where a later start of training has taken over."""
        if self.superseded():
            raise self.superseded_by()

    def superseded_by(self) -> Superseded:
        """The error that says who has taken over."""
        number = highest(self._run)
        return Superseded(
            f"{self._run.path}: taken over by incarnation {number} ({_told(self._run, number)}); this one, "
            f"{self.number}, writes nothing more"
        )

    def partial(self, path: Path) -> Path:
        """Where what is to become `path` is prepared."""
        return path.with_name(f".partial-{self.number:06d}-{path.name}")

    def commit(self, path: Path) -> None:
        """Rename what was prepared into place; `Superseded` where a later incarnation has taken over."""
        self.check()
        try:
            self.partial(path).rename(path)
        except FileNotFoundError:
            self.check()  # removed by a successor, between the look and the rename
            raise

    def write(self, path: Path, text: str) -> None:
        """Replace a file whole. Raises `Superseded`, and `OSError` where it cannot be written."""
        partial = self.partial(path)
        try:
            with partial.open("w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            self.commit(path)
        except BaseException:
            with suppress(OSError):
                partial.unlink()
            raise


def prepared_by(partial: Path) -> int | None:
    """The number of the incarnation that prepares this file or folder; None for anything else."""
    match = _PARTIAL.fullmatch(partial.name)
    return int(match[1]) if match else None


def highest(run: Run) -> int:
    """The highest number taken, 0 where there is none."""
    try:
        # A listing is asked of the server anew, where a single name may be remembered as missing.
        names = [path.name for path in run.incarnations.iterdir()]
    except FileNotFoundError:
        return 0
    return max((int(name) for name in names if name.isdigit()), default=0)


@contextmanager
def held(run: Run) -> Iterator[Fence]:
    """Take the next number, and keep it from another command as long as this process lives.

    Raises `WorkFailed` where another process trains the run, unless that is an earlier attempt of this job
    (XR2CT_JOB, XR2CT_RESTART) or of the one that it replaces (XR2CT_TAKES_OVER): Slurm has given its node
    up, and if it lives on, it is superseded.
    """
    with ExitStack() as life:
        yield _take(run, life)


def in_use(run: Run) -> bool:
    """Whether a living process trains the run, as far as locks tell: not on a file system without them."""
    number = highest(run)
    return number > 0 and not _free(run, number)


def _take(run: Run, life: ExitStack) -> Fence:
    try:
        with _one_at_a_time(run):
            last = highest(run)
            if in_use(run):
                _refuse_unless_replaced(run, last)
            _create(run, last + 1)
            _lock(run, last + 1, life)
    except FileExistsError:  # on a file system without locks
        raise WorkFailed(f"{run.path}: another process has begun to train in it just now") from None
    except OSError as error:
        raise WorkFailed(f"{run.path}: cannot be trained in: {error}") from error
    return Fence(run, last + 1)


@contextmanager
def _one_at_a_time(run: Run) -> Iterator[None]:
    """While a number is taken. Raises `WorkFailed` where another process takes one for too long."""
    with ExitStack() as locked:
        try:
            locked.enter_context(alone(run.path / ".lock", _PATIENCE_S))
        except TimeoutError:
            told = f"another process has held .lock, to begin to train or to clean up, for {_PATIENCE_S:g} s"
            raise WorkFailed(f"{run.path}: {told}") from None
        except OSError as error:
            log.warning("%s: cannot be locked against a second command (%s)", run.path, error.strerror)
        yield


def _free(run: Run, number: int) -> bool:
    """Whether the process with that number has ended, as far as locks tell."""
    try:
        with alone(run.incarnation(number)):
            return True
    except TimeoutError:
        return False
    except OSError:
        return True  # without locks: said already


def _refuse_unless_replaced(run: Run, number: int) -> None:
    there, told = read(run, number), _told(run, number)
    job, restart = os.environ.get("XR2CT_JOB"), int(os.environ.get("XR2CT_RESTART", "0"))
    requeued = job is not None and there.get("job") == job and there.get("restart", 0) < restart
    resubmitted = there.get("job") is not None and there["job"] == os.environ.get("XR2CT_TAKES_OVER")
    if not (requeued or resubmitted):
        raise WorkFailed(f"{run.path}: being trained by another process ({told})")
    log.warning("%s: taken over from incarnation %d (%s), which has not ended", run.path, number, told)


def _create(run: Run, number: int) -> None:
    about = {
        "job": os.environ.get("XR2CT_JOB"),
        "restart": int(os.environ.get("XR2CT_RESTART", "0")),
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    path = run.incarnation(number)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("x", encoding="utf-8") as file:
        file.write(json.dumps(about) + "\n")
        file.flush()
        os.fsync(file.fileno())


def _lock(run: Run, number: int, life: ExitStack) -> None:
    with suppress(OSError):  # without locks: said already
        life.enter_context(alone(run.incarnation(number)))


def read(run: Run, number: int) -> Mapping[str, Any]:
    """What an incarnation said of itself; empty where its node went down before that was on the disk."""
    try:
        return dict(json.loads(run.incarnation(number).read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}


def _told(run: Run, number: int) -> str:
    about = read(run, number)
    job = about.get("job")
    who = f"job {job}, restart {about.get('restart', 0)}" if job else f"process {about.get('pid', 'unknown')}"
    return f"{who}, on {about.get('host', 'an unknown node')}"
