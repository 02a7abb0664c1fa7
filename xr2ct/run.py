"""A run's folder: the one place that knows which file in it is called what.

RUN/config.yaml                     resolved, as run
RUN/metrics.jsonl                   one object an outer step, never a duplicate step
RUN/coarse/                         the stage before, where there is one: `training.stage_before`
RUN/xrays.safetensors               what the X-rays learnt from look like: `training.familiar`
RUN/cost.json                       memory a rank and seconds a step, measured, and predicted where it trains
                                    for longer than a minute
RUN/checkpoints/step-000500/        engines/ (newest two, unless `training.keep_engines` says otherwise),
                                    mapper.safetensors, mapper-ema.safetensors, <fixed network>.safetensors,
                                    config.yaml, and COMPLETE, written last
RUN/evaluations/step-000500/COHORT-SPLIT.csv
RUN/evaluations/leaderboard.csv     rebuilt from those
RUN/best -> checkpoints/step-…      by the validation split alone
RUN/incarnations/000001             one a start of training; that with the highest number may write
RUN/slurm/                          of its jobs: job.json, logs, heartbeats
"""

from __future__ import annotations

import json
import os
import re
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from xr2ct.config import Experiment, load_experiment
from xr2ct.errors import UserError

COMPLETE = "COMPLETE"
"""The file that makes a checkpoint one; JSON: its step, the seconds its writing took, every file's digest."""

_STEP = re.compile(r"step-(\d{6,})")


class Run:
    """Names and reads; what writes is `training`, `evaluation` and `reporting`."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)

    @classmethod
    def open(cls, path: Path) -> Run:
        """An existing run; `UserError` where there is none."""
        run = cls(path)
        if not run.config_file.is_file():
            raise UserError(f"{path}: not a run (no config.yaml in it)")
        return run

    @property
    def config_file(self) -> Path:
        return self.path / "config.yaml"

    @property
    def metrics_file(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def cost_file(self) -> Path:
        return self.path / "cost.json"

    def cost(self) -> dict[str, Any] | None:
        """What it takes; None where it has said nothing yet."""
        try:
            told: dict[str, Any] = json.loads(self.cost_file.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return None
        return told

    @property
    def best(self) -> Path:
        return self.path / "best"

    @property
    def evaluations(self) -> Path:
        return self.path / "evaluations"

    @property
    def incarnations(self) -> Path:
        return self.path / "incarnations"

    def incarnation(self, number: int) -> Path:
        """What the start of training with that number says of itself."""
        return self.incarnations / f"{number:06d}"

    def experiment(self) -> Experiment:
        """The configuration as run."""
        return load_experiment(self.config_file)

    def checkpoint(self, step: int) -> Path:
        """Where the checkpoint of a step is, whether or not it is there."""
        return self.path / "checkpoints" / step_name(step)

    def steps(self) -> list[int]:
        """Outer steps of the whole checkpoints, ascending."""
        folders = (self.path / "checkpoints").glob("step-*")
        found = [(step_of(p), p) for p in folders if _STEP.fullmatch(p.name)]
        return sorted(step for step, p in found if is_complete(p))

    def best_step(self) -> int | None:
        """The step that `best` points to."""
        return step_of(self.best.readlink()) if self.best.is_symlink() else None

    def metrics(self) -> Iterator[dict[str, Any]]:
        """What each outer step wrote, in order; a torn last line is left out."""
        if not self.metrics_file.exists():
            return
        with self.metrics_file.open(encoding="utf-8") as lines:
            for line in lines:
                if line.endswith("\n"):
                    yield json.loads(line)


def step_name(step: int) -> str:
    return f"step-{step:06d}"


def step_of(path: Path) -> int:
    """The outer step in a checkpoint's or an evaluation's folder name."""
    match = _STEP.fullmatch(path.name)
    if not match:
        raise UserError(f"{path}: not a checkpoint's folder (expected step-NNNNNN)")
    return int(match[1])


def is_complete(checkpoint: Path) -> bool:
    return (checkpoint / COMPLETE).is_file()


def write_atomically(path: Path, content: str | bytes) -> None:
    """Replace a file whole: a temporary file beside it, fsync, rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    with temporary.open("wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
