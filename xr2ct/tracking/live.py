"""The thread that follows a run while it trains."""

from __future__ import annotations

import logging
import threading
from types import TracebackType

from xr2ct.config import Experiment
from xr2ct.errors import Stopped, Superseded
from xr2ct.run import Run
from xr2ct.tracking.link import Link, reason
from xr2ct.tracking.notes import silent_here, tracking_uri, writing

log = logging.getLogger(__name__)

POLL_S = 5.0
"""Between two looks at the metrics."""
LONGEST_PAUSE_S = 60.0
"""Between two attempts at a tracker that is away."""
CLOSING_S = 20.0
"""How long the end of training waits for the tracker."""


class Tracker:
    """Adds to MLflow what RUN/metrics.jsonl gains; this context raises nothing of MLflow's.

    In a job with a sqlite address it says so and adds nothing.
    """

    def __init__(self, run: Run, experiment: Experiment) -> None:
        self._run = run
        self._experiment = experiment
        self._uri = tracking_uri(run, experiment)
        self._closing = threading.Event()
        self._status: str | None = "FINISHED"
        self._silent = silent_here(self._uri)
        self._thread = threading.Thread(target=self._follow, name="xr2ct-mlflow", daemon=True)

    def __enter__(self) -> Tracker:
        if self._silent:
            log.info(
                "MLflow at %s is not written from a job; `xr2ct track sync %s` brings it level",
                self._uri,
                self._run.path,
            )
        else:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._silent:
            return
        if kind is not None:
            self._status = _status(kind)
        self._closing.set()
        self._thread.join(CLOSING_S)
        if self._thread.is_alive():
            self._warn(f"no answer within {CLOSING_S:g} s")

    def _follow(self) -> None:
        link: Link | None = None
        pause, away, last_look = 0.0, False, False
        while not last_look:
            # Asked before the metrics are read, so that what was written before closing is still seen.
            last_look = self._closing.wait(pause)
            try:
                with writing(self._run, self._uri, LONGEST_PAUSE_S):
                    if link is None:
                        link = Link(self._run, self._experiment)
                        link.begin()
                    link.add_metrics()
                    if last_look and self._status:
                        link.end(self._status)
                    elif last_look:
                        link.stop_monitor()
                if away:
                    log.info("MLflow at %s is back", self._uri)
                pause, away = POLL_S, False
            except Exception as error:  # MLflow lets through whatever its database, HTTP or storage raises
                log.debug("tracking %s", self._run.path, exc_info=True)
                if not away:
                    self._warn(reason(error))
                if link is not None:
                    link.stop_monitor()
                link, away = None, True  # what reached it must be asked anew
                pause = min(LONGEST_PAUSE_S, max(POLL_S, 2 * pause))

    def _warn(self, why: str) -> None:
        log.warning(
            "MLflow at %s: %s; training goes on, and `xr2ct track sync %s` brings MLflow level later",
            self._uri,
            why,
            self._run.path,
        )


def _status(kind: type[BaseException]) -> str | None:
    """MLflow's word for how a run ended; None where that is another's to say by now."""
    if issubclass(kind, Superseded):
        return None
    if issubclass(kind, Stopped):
        return "SCHEDULED"
    return "KILLED" if issubclass(kind, KeyboardInterrupt) else "FAILED"
