"""Names of results whose volumes were made in another way than by one pass of the mapper."""

from __future__ import annotations

import re
from dataclasses import dataclass

from xr2ct.config import Experiment
from xr2ct.evaluation.results import ASIDE
from xr2ct.run import Run, step_name

_SOURCE = re.compile(rf"(step-\d{{6,}}){ASIDE}((?:align|refine|samples|doubt)-.+)")


@dataclass(frozen=True)
class InWay:
    """What a source says of the way in which its volumes were made."""

    checkpoint: str
    """``step-000500``."""
    label: str
    """`config.Way.label`."""

    @property
    def source(self) -> str:
        return f"{self.checkpoint}{ASIDE}{self.label}"

    @classmethod
    def of(cls, source: str) -> InWay | None:
        """None where the source is no such one."""
        match = _SOURCE.fullmatch(source)
        return cls(match[1], match[2]) if match else None


def way_sources(run: Run, experiment: Experiment) -> list[str]:
    """Sources that the configuration's `evaluation.ways` ask for: of the best checkpoint, once training has
    ended and nothing can come to be better."""
    best = run.best_step()
    if best is None or run.steps()[-1:] != [experiment.training.steps]:
        return []
    return [InWay(step_name(best), way.label).source for way in experiment.evaluation.ways]
