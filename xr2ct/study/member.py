"""One experiment of a study."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from xr2ct.config import Experiment, load_experiment, run_path
from xr2ct.run import Run


@dataclass(frozen=True)
class Member:
    """An experiment and the words that name it: ``xr2ct train CONFIG OVERRIDES``."""

    config: Path
    experiment: Experiment
    overrides: list[str]

    @cached_property
    def run(self) -> Run:
        return Run(run_path(self.experiment, self.overrides))

    def __str__(self) -> str:
        return self.run.path.name

    def with_overrides(self, more: list[str]) -> Member:
        told = [*self.overrides, *more]
        return Member(self.config, load_experiment(self.config, told), told)

    @cached_property
    def system(self) -> str:
        """The same for members that differ in nothing but their seed."""
        apart = {"seed", "label", "name", "run_root", "exhibits", "tracking", "resolved"}
        text = self.experiment.model_dump_json(exclude=apart)
        return hashlib.sha256(text.encode()).hexdigest()[:16]
