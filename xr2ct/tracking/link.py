"""One run's place in MLflow: what of the run is there, and adding what is not."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import re
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from xr2ct.config import Experiment, flatten
from xr2ct.errors import first_line
from xr2ct.run import Run, is_complete
from xr2ct.tracking.model import KEY_TAG, register_best
from xr2ct.tracking.notes import database, edited_notes, read_notes, tracking_uri

# Set before anything imports MLflow, as DeepSpeed does too: no telemetry, and an early end to waiting for a
# server that does not answer.
os.environ.update(MLFLOW_DISABLE_TELEMETRY="true", DO_NOT_TRACK="true")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")

T = TypeVar("T")

_METRICS_PER_CALL, _PARAMETERS_PER_CALL, _PARAMETER_LENGTH = 1000, 100, 6000  # MLflow's limits


@dataclass
class SyncReport:
    """What was added to bring MLflow level."""

    uri: str
    run_id: str
    metrics: int = 0
    evaluations: int = 0
    parameters: int = 0
    artifacts: int = 0
    models: int = 0

    def __str__(self) -> str:
        added = {k: v for k, v in asdict(self).items() if isinstance(v, int) and v}
        told = ", ".join(f"{count} {kind}" for kind, count in added.items())
        return f"MLflow run {self.run_id} at {self.uri}: {f'added {told}' if told else 'was level'}"


class Link:
    """Connected when made, by whoever is `writing`; whatever MLflow raises comes through."""

    def __init__(self, run: Run, experiment: Experiment) -> None:
        mlflow = _import_mlflow()
        self._run, self._experiment = run, experiment
        uri = tracking_uri(run, experiment)
        self._read_to = 0
        self._monitor: Any = None
        self.last_step = 0
        """The last outer step in the metrics read so far."""
        self._client = mlflow.MlflowClient(uri)
        self.report = SyncReport(uri, self._find_or_create(self._experiment_id(uri), uri))
        there = self._client.get_run(self.report.run_id)
        self._status = there.info.status
        self._keys_there = set(there.data.metrics)
        self._steps_there: dict[str, set[int]] = {}
        self._add_parameters(there.data.params)

    def begin(self) -> None:
        """Show the run as running, and start to watch the machine."""
        self._client.update_run(self.report.run_id, status="RUNNING")
        self._status = "RUNNING"
        if self._experiment.tracking.system_metrics:
            from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

            self._monitor = SystemMetricsMonitor(
                self.report.run_id, resume_logging=True, tracking_uri=self.report.uri
            )
            self._monitor.start()

    def stop_monitor(self) -> None:
        """End the watch over the machine, and let it log what it has."""
        if self._monitor is not None:
            self._monitor.finish()
            self._monitor = None

    def end(self, status: str) -> None:
        """FINISHED, FAILED or KILLED, or SCHEDULED for what goes on later, unless it is that already."""
        self.stop_monitor()
        if status == "SCHEDULED":
            self._client.update_run(self.report.run_id, status=status)
        elif status != self._status:
            self._client.set_terminated(self.report.run_id, status)
        self._status = status

    def add_metrics(self) -> None:
        """What metrics.jsonl has gained since the last call."""
        self.report.metrics += self._add(self._new_metrics())

    def add_evaluations(self) -> None:
        """Means over a split's patients: every checkpoint's at its step, the priors' at step 0."""
        self.report.evaluations += self._add(_evaluation_means(self._run))

    def add_artifacts(self) -> None:
        """The best checkpoint, and what `track_artifact` noted, where it is not there as it is now."""
        kept = read_notes(self._run).get("artifacts", {})
        if self._run.best.exists():
            # A folder for each step that was ever the best: a registered version's files never change.
            checkpoint = self._run.best.resolve()
            name = f"best/{checkpoint.name}"
            kept[name] = kept.get(name, {}) | {"path": str(checkpoint)}
        for name, note in kept.items():
            path = Path(note["path"])
            files = _files_of(path)
            uploaded = [self.report.run_id, _fingerprint(path, files)]
            if files and note.get("uploaded") != uploaded:
                for file in files:
                    folder = None if file == path else str(Path(name, file.relative_to(path)).parent)
                    self._client.log_artifact(self.report.run_id, str(file), folder)
                with edited_notes(self._run) as notes:
                    notes.setdefault("artifacts", {})[name] = note | {"uploaded": uploaded}
                self.report.artifacts += 1

    def add_model(self) -> None:
        """The best checkpoint in the model registry, once its files are there."""
        if self._run.best.exists():
            key = read_notes(self._run)["key"]
            self.report.models += register_best(self._client, self._run, self.report.run_id, key)

    def _experiment_id(self, uri: str) -> str:
        name = self._experiment.tracking.experiment
        experiment = self._client.get_experiment_by_name(name)
        if experiment is not None:
            return str(experiment.experiment_id)
        file = database(uri)
        # MLflow's own default would be a folder in the working directory.
        artifacts = (file.parent / "mlartifacts").resolve().as_uri() if file else None
        return str(self._client.create_experiment(name, artifacts))

    def _find_or_create(self, experiment_id: str, uri: str) -> str:
        """By key, since the answer to an earlier creation may have been lost on its way."""
        with edited_notes(self._run) as notes:
            key = notes.setdefault("key", uuid.uuid4().hex)
        found = self._client.search_runs([experiment_id], f"tags.`{KEY_TAG}` = '{key}'", max_results=1)
        run = (
            found[0]
            if found
            else self._client.create_run(experiment_id, tags={KEY_TAG: key}, run_name=self._run.path.name)
        )
        with edited_notes(self._run) as notes:
            notes |= {"uri": uri, "run_id": run.info.run_id}
        return str(run.info.run_id)

    def _add_parameters(self, there: Mapping[str, str]) -> None:
        from mlflow.entities import Param

        values = parameters(self._experiment.model_dump(mode="json"))
        missing = [Param(k, v[:_PARAMETER_LENGTH]) for k, v in values.items() if k not in there]
        for part in _parts(missing, _PARAMETERS_PER_CALL):
            self._client.log_batch(self.report.run_id, params=part)
        self.report.parameters += len(missing)

    def _add(self, metrics: Iterable[tuple[str, int, float]]) -> int:
        """Log those of (key, step, value) that are not there; how many they were."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        missing = [Metric(k, v, now, step) for k, step, v in metrics if step not in self._steps_of(k)]
        for part in _parts(missing, _METRICS_PER_CALL):
            self._client.log_batch(self.report.run_id, metrics=part)
            for metric in part:
                self._steps_of(metric.key).add(metric.step)
        return len(missing)

    def _steps_of(self, key: str) -> set[int]:
        if key not in self._steps_there:
            there = (
                self._client.get_metric_history(self.report.run_id, key) if key in self._keys_there else []
            )
            self._steps_there[key] = {metric.step for metric in there}
        return self._steps_there[key]

    def _new_metrics(self) -> Iterator[tuple[str, int, float]]:
        if not self._run.metrics_file.exists():
            return
        with self._run.metrics_file.open("rb") as file:
            file.seek(self._read_to)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                self._read_to += len(line)
                record = json.loads(line)
                self.last_step = record.pop("step")
                for key, value in record.items():
                    yield key, self.last_step, value


def reason(error: Exception) -> str:
    """The first line of what MLflow or a library under it says."""
    return (first_line(error) or type(error).__name__)[:300]


def parameters(values: Mapping[str, Any]) -> dict[str, str]:
    """Nested keys joined by dots, in characters that MLflow takes; lists as JSON."""
    return {
        re.sub(r"[^\w\-. :/]", "_", key): value if isinstance(value, str) else json.dumps(value)
        for key, value in flatten(values).items()
    }


def _evaluation_means(run: Run) -> Iterator[tuple[str, int, float]]:
    """``COHORT-SPLIT/mode/metric`` at the checkpoint's step, over the patients for whom it is defined.

    Of a source without a checkpoint its name comes first, as ``prior-mean/COHORT-SPLIT/mode/metric``.
    """
    if not run.evaluations.exists():
        return
    from xr2ct.evaluation.results import COLUMNS, read_results

    for result in read_results(run):
        source = f"{result.source}/" if result.step is None else ""
        for column in COLUMNS:
            mean = result.mean(column)
            if not math.isnan(mean):
                yield f"{source}{result.cohort}-{result.split}/{column}", result.step or 0, mean


def _import_mlflow() -> Any:
    """Here, since it takes seconds."""
    import mlflow

    # One warning of ours an outage, instead of theirs for each attempt and each table of a new database.
    for name in ("mlflow", "alembic", "urllib3.connectionpool"):
        logging.getLogger(name).setLevel(logging.ERROR)
    return mlflow


def _files_of(path: Path) -> list[Path]:
    """What of an artifact is uploaded: of a checkpoint not the engines, which only resuming needs."""
    if path.is_file():
        return [path]
    found = path.iterdir() if is_complete(path) else path.rglob("*")
    return sorted(p for p in found if p.is_file())


def _fingerprint(path: Path, files: Sequence[Path]) -> str:
    seen = [(os.path.relpath(f, path), f.stat().st_size, f.stat().st_mtime_ns) for f in files]
    return hashlib.sha256(json.dumps([str(path.resolve()), *seen]).encode()).hexdigest()[:16]


def _parts(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    for i in range(0, len(items), size):
        yield items[i : i + size]
