"""Whether the warning before a job's end leaves the time to stop: a step, and then a checkpoint."""

from __future__ import annotations

import logging
import math
import os

from xr2ct.errors import UserError

log = logging.getLogger(__name__)

_MARGIN = 1.5
"""Of what is advised over what was measured: a shared disk has slower hours."""


class LeadTime:
    """Compares the longest outer step and checkpoint so far with XR2CT_LEAD_S; told of each by rank 0."""

    def __init__(self) -> None:
        self._lead_s = environment_seconds("XR2CT_LEAD_S")
        self._step_s = self._checkpoint_s = 0.0
        self._warned = False

    def step(self, seconds: float) -> None:
        """An outer step took so long."""
        self._step_s = max(self._step_s, seconds)

    def checkpoint(self, seconds: float) -> None:
        """A checkpoint took so long; warns, once, where the lead is shorter than what a stop may take."""
        self._checkpoint_s = max(self._checkpoint_s, seconds)
        needed = self._step_s + self._checkpoint_s
        if self._warned or not self._lead_s or needed <= self._lead_s:
            return
        self._warned = True
        log.warning(
            "the job is warned %g s before its end, but a step takes up to %.1f s and a checkpoint %.1f s: "
            "work since the last checkpoint may be lost; set signal_lead_s: %d in the cluster's profile",
            self._lead_s,
            self._step_s,
            self._checkpoint_s,
            math.ceil(_MARGIN * needed / 10) * 10,
        )


def environment_seconds(name: str) -> float:
    """A number of seconds in the environment; 0, which is off, where it is not set."""
    text = os.environ.get(name) or "0"
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not (math.isfinite(seconds) and seconds >= 0):
        raise UserError(f"{name}={text}: expected a number of seconds, 0 for none")
    return seconds
