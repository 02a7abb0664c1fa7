"""RUN/mlflow.json: the key by which a run finds its MLflow run again, and the artifacts that belong to it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from xr2ct.config import Experiment
from xr2ct.locks import alone
from xr2ct.run import Run, write_atomically


def tracking_uri(run: Run, experiment: Experiment) -> str:
    """The configured server or database; RUN_ROOT/mlflow.db where none is."""
    return experiment.tracking.uri or f"sqlite:///{run.path.absolute().parent / 'mlflow.db'}"


def database(uri: str) -> Path | None:
    """The file of a sqlite address."""
    return Path(uri.removeprefix("sqlite:///")) if uri.startswith("sqlite:///") else None


def silent_here(uri: str) -> bool:
    """Whether nothing may be written from here: a job, on whatever node, opens no sqlite on a shared disk."""
    in_job = any(os.environ.get(name) for name in ("XR2CT_JOB", "SLURM_JOB_ID"))
    return in_job and uri.startswith("sqlite")


@contextmanager
def writing(run: Run, uri: str, wait_s: float) -> Iterator[None]:
    """Be the one who brings MLflow level with the run, so that nobody adds the same twice, and of a database
    the only writer; `TimeoutError` where another is for longer than `wait_s`."""
    with ExitStack() as held:
        held.enter_context(alone(run.path / ".mlflow.lock", wait_s))
        if file := database(uri):
            held.enter_context(alone(file.with_name(f".{file.name}.lock"), wait_s))
        yield


def read_notes(run: Run) -> dict[str, Any]:
    """key, uri and run_id; artifacts by name, each its path and what of it was uploaded where."""
    file = _notes_file(run)
    return dict(json.loads(file.read_text(encoding="utf-8"))) if file.exists() else {}


@contextmanager
def edited_notes(run: Run) -> Iterator[dict[str, Any]]:
    """The notes, written back when the context is left."""
    with alone(run.path / ".mlflow.json.lock", wait_s=10.0):
        notes = read_notes(run)
        yield notes
        write_atomically(_notes_file(run), json.dumps(notes, indent=1))


def _notes_file(run: Run) -> Path:
    return run.path / "mlflow.json"
