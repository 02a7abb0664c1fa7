"""Runs as training and its jobs leave them, made of files alone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from xr2ct.config import Experiment, dump, validate
from xr2ct.run import Run, write_atomically


class MadeRoot:
    """A folder of runs."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def run(self, name: str, steps: Sequence[int] = (), of: int = 100, job: str | None = "5_0") -> Run:
        """A run with whole checkpoints of `steps`, engines in all of them, last submitted as `job`."""
        run = Run(self.path / name)
        values = {
            "name": name.partition("+")[0],
            "run_root": str(self.path),
            "data": {"stores": str(self.path / "stores")},
            "training": {"steps": of, "warmup_steps": 1},
        }
        write_atomically(run.config_file, dump(validate(Experiment, values, "test")))
        metrics = [{"step": i + 1, "seconds": 2.0, "samples": 8} for i in range(max(steps, default=0))]
        run.metrics_file.write_text("".join(json.dumps(record) + "\n" for record in metrics))
        for step in steps:
            folder = run.checkpoint(step)
            (folder / "engines").mkdir(parents=True)
            (folder / "engines" / "state").write_bytes(bytes(100_000))
            (folder / "mapper.safetensors").write_bytes(bytes(50_000))
            (folder / "COMPLETE").write_text(json.dumps({"step": step, "files": {}}))
        if job is not None:
            self.submitted(run, job)
        return run

    def submitted(self, run: Run, job: str, **changes: Any) -> None:
        told = {
            "cluster": "devcluster", "executor": "slurm" if "_" in job else "local", "job": job,
            "array": job.partition("_")[0], "submission": str(self.path / ".submissions" / "s1"),
            "submitted": "2026-01-01T00:00:00+00:00", "config": "/c.yaml", "overrides": [],
            "profile": {"nodes": 1, "tasks_per_node": 2},
        }  # fmt: skip
        write_atomically(run.path / "slurm" / "job.json", json.dumps(told | changes))


def say(run: Run, log: str, *lines: str) -> None:
    """Append to RUN/slurm/LOG."""
    path = run.path / "slurm" / log
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.writelines(line + "\n" for line in lines)


def stop(run: Run, **values: Any) -> None:
    """A line of stops.jsonl."""
    told = {"time": "2026-01-01T00:00:00Z", "job": "5_0", "restart": 0, "node": "n1", "exit": 75,
            "why": "stopped", "signal": "USR1", "checkpoint": "", "requeued": True}  # fmt: skip
    say(run, "stops.jsonl", json.dumps(told | values))
