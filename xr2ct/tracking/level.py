"""Bringing MLflow level with a run's own files, whatever it missed."""

from __future__ import annotations

import logging
import os
import threading
from pathlib import Path

from xr2ct.errors import WorkFailed
from xr2ct.run import Run
from xr2ct.tracking.link import Link, SyncReport, reason
from xr2ct.tracking.notes import edited_notes, silent_here, tracking_uri, writing

log = logging.getLogger(__name__)


def sync(run: Run, wait_s: float = 600.0) -> SyncReport:
    """Bring MLflow level with a run's metrics, evaluations, artifacts and best model; a second time adds
    nothing.

    Waits so long for another process at work on the same run or database. Raises `WorkFailed` where MLflow
    cannot be reached, and in a job where it is sqlite.
    """
    experiment = run.experiment()
    uri = tracking_uri(run, experiment)
    if silent_here(uri):
        raise WorkFailed(
            f"MLflow at {uri}: no job opens sqlite; run `xr2ct track sync {run.path}` outside jobs, "
            "or set tracking.uri to a server"
        )
    try:
        with writing(run, uri, wait_s):
            link = Link(run, experiment)
            link.add_metrics()
            link.add_evaluations()
            link.add_artifacts()
            link.add_model()
            if link.last_step == experiment.training.steps:
                link.end("FINISHED")
            return link.report
    except Exception as error:  # MLflow lets through whatever its database, HTTP or storage raises
        log.debug("sync of %s", run.path, exc_info=True)
        raise WorkFailed(f"MLflow at {uri}: {reason(error)}; nothing is lost, try again later") from None


def bring_level(run: Run, wait_s: float = 60.0) -> bool | None:
    """`sync` at the end of a command whose own work is done: it warns where it fails or takes longer.

    Returns whether MLflow is level now; None where it is not to be written: it is off, or sqlite and this a
    job, and whoever is next at it outside jobs adds what is missing.
    """
    experiment = run.experiment()
    uri = tracking_uri(run, experiment)
    if not experiment.tracking.enabled or silent_here(uri):
        return None
    level: list[bool] = []

    def attempt() -> None:
        try:
            log.info("%s", sync(run, wait_s))
            level.append(True)
        except WorkFailed as error:
            log.warning("%s", error)

    thread = threading.Thread(target=attempt, name="xr2ct-mlflow", daemon=True)
    thread.start()
    thread.join(wait_s)
    if thread.is_alive():
        log.warning(
            "MLflow at %s: no answer within %g s; `xr2ct track sync %s` brings it level",
            uri,
            wait_s,
            run.path,
        )
    return bool(level)


def track_artifact(run: Run, path: Path, name: str | None = None, wait_s: float = 60.0) -> bool | None:
    """Keep a file or a folder beside the run in MLflow, as `name`: now if it answers, else at the next
    `sync`.

    Of a checkpoint its weights and configuration are kept, not its engines; RUN/best is kept without
    being told. Returns what `bring_level` does.
    """
    with edited_notes(run) as notes:
        kept = notes.setdefault("artifacts", {}).setdefault(name or path.name, {})
        kept["path"] = os.path.abspath(path)  # noqa: PTH100 (a link must stay one, to follow where it points)
    return bring_level(run, wait_s)
