"""The thread that follows a run while it trains."""

from __future__ import annotations

import logging
import threading
from types import TracebackType

from xr2ct.config import Experiment
from xr2ct.locks import alone
from xr2ct.run import Run
from xr2ct.tracking.link import Link, reason
from xr2ct.tracking.notes import link_lock, tracking_uri

log = logging.getLogger(__name__)

POLL_S = 5.0
"""Between two looks at the metrics."""
LONGEST_PAUSE_S = 60.0
"""Between two attempts at a tracker that is away."""
CLOSING_S = 20.0
"""How long the end of training waits for the tracker."""


class Tracker:
    """Adds to MLflow what RUN/metrics.jsonl gains; this context raises nothing of MLflow's."""

    def __init__(self, run: Run, experiment: Experiment) -> None:
        self._run = run
        self._experiment = experiment
        self._uri = tracking_uri(run, experiment)
        self._closing = threading.Event()
        self._status = "FINISHED"
        self._thread = threading.Thread(target=self._follow, name="xr2ct-mlflow", daemon=True)

    def __enter__(self) -> Tracker:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._status = "KILLED" if issubclass(kind, KeyboardInterrupt) else "FAILED"
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
                with alone(link_lock(self._run), LONGEST_PAUSE_S):
                    if link is None:
                        link = Link(self._run, self._experiment)
                        link.begin()
                    link.add_metrics()
                    if last_look:
                        link.end(self._status)
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
