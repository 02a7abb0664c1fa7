"""Asked to stop: a signal to any rank ends all of them together, after the step at work and a checkpoint.

Slurm sends SIGTERM before it preempts or cancels, and the signal that the job asked for before its time is
up; which of them, and to which ranks first, differs between sites. A handler therefore only remembers, and
the ranks agree at the end of an outer step, where all of them hold the same state. Ctrl-C ends at once.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

from xr2ct.errors import Stopped
from xr2ct.run import Run

if TYPE_CHECKING:  # a task listens before it imports torch, which takes seconds
    from xr2ct.training.distributed import Ranks
    from xr2ct.training.fence import Fence

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
"""What a cluster tells a job that is to end."""

_SUPERSEDED = 1000
"""Above the number of every signal: that another has taken over counts for more than being asked."""


class Listener:
    """Remembers that this rank was asked to stop."""

    def __init__(self) -> None:
        self.heard = 0
        """The first signal's number, 0 until there is one."""

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.heard = self.heard or number


_listener: Listener | None = None


@contextmanager
def listening() -> Iterator[Listener]:
    """Remember signals instead of dying of them; within another `listening`, that one's.

    Once one was heard they are ignored for good: this process is about to end as it was asked to, and the
    next signal must not cut that short. Outside the main thread there are no handlers.
    """
    global _listener
    if _listener is not None:
        yield _listener
    elif threading.current_thread() is not threading.main_thread():
        yield Listener()
    else:
        _listener = Listener()
        before = {number: signal.signal(number, _listener) for number in SIGNALS}
        try:
            yield _listener
        finally:
            for number, handler in before.items():
                signal.signal(number, signal.SIG_IGN if _listener.heard else handler or signal.SIG_DFL)
            _listener = None


def asked(listener: Listener, ranks: Ranks, fence: Fence) -> str | None:
    """The name of a signal that some rank has heard, the same on every rank; None to go on.

    Raises `Superseded`, on every rank, where a later incarnation of the run has taken over.
    """
    from xr2ct.training.agreement import largest

    superseded = ranks.rank == 0 and fence.superseded()
    code = largest(ranks, _SUPERSEDED if superseded else listener.heard)
    if code == _SUPERSEDED:
        raise fence.superseded_by()
    listener.heard = listener.heard or code  # another rank was asked: from now on this one was, too
    return signal.Signals(code).name if code else None


def stop_early(run: Run, listener: Listener, ranks: Ranks, fence: Fence) -> None:
    """`Stopped`, on every rank, where one was asked to before the first step: nothing is lost by it."""
    if name := asked(listener, ranks, fence):
        raise Stopped(f"{run.path}: stopped before its first step as {name} asked; nothing is lost")
