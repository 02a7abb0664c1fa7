"""The ways a command ends early. Anything else that escapes is a defect and shows its traceback."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """The request was wrong: one or two lines naming what, where and what would be right. Exit code 2."""


class WorkFailed(Exception):
    """The request was right and the work could not be done. Exit code 1."""


class Superseded(WorkFailed):
    """A later incarnation of the run has taken over; this one may write nothing more. Exit code 77."""


class PeerLost(WorkFailed):
    """Another rank is gone, and this one cannot go on alone. Exit code 76."""


class Stopped(Exception):
    """Asked to stop, and stopped with its state saved: the same command goes on. Exit code 75."""


STOPPED = 75
"""sysexits.h's EX_TEMPFAIL: try again later. A job that ends with it is requeued."""
PEER_LOST = 76
"""The cause lies with another rank: a job whose ranks say nothing else was killed, and is requeued."""
SUPERSEDED = 77
"""A job that ends with it is not."""


def first_line(error: BaseException) -> str:
    """Of what it says; empty where it says nothing."""
    return next(iter(str(error).strip().splitlines()), "")


def nearest(name: str, valid: Iterable[str]) -> str:
    """A hint for an unknown `name`: the nearest of the `valid` names, or all of them."""
    names = sorted(valid)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    return f"did you mean {close[0]!r}?" if close else f"valid: {', '.join(names)}"
