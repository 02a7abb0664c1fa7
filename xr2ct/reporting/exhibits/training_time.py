"""How long each system was trained, and what it saw in that time."""

from __future__ import annotations

from statistics import fmean

from xr2ct.reporting.exhibit import exhibit
from xr2ct.reporting.study import Study
from xr2ct.reporting.systems import System
from xr2ct.reporting.table import Cell, Column, Table

_COLUMNS = (
    Column("system", "System"),
    Column("seeds", "Seeds", "d"),
    Column("steps", "Outer steps", "d"),
    Column("best", "Best step", ".0f"),
    Column("step_seconds", "s a step", ".3g"),
    Column("seconds", "Training time, s", ".1f"),
    Column("samples", "Volumes seen", ".0f"),
    Column("rate", "Volumes a second", ".3g"),
    Column("precision", "Precision"),
)
_CAPTION = (
    "Time of the outer steps alone, as measured in each: without start, checkpoints and evaluation. A step "
    "that was done again after a stop counts once. Means over seeds."
)


@exhibit("training-time")
def make_training_time(study: Study) -> Table:
    """By system."""
    rows = [_row(study, system) for system in study.systems]
    return Table("training-time", "Training time", _CAPTION, _COLUMNS, rows)


def _row(study: Study, system: System) -> dict[str, Cell]:
    records = [list(run.metrics()) for run in system.runs]
    seconds = fmean(sum(record["seconds"] for record in told) for told in records)
    samples = fmean(sum(record["samples"] for record in told) for told in records)
    steps = fmean(len(told) for told in records)
    precisions = {r.precision for run in system.runs if (r := study.experiment(run).resolved)}
    return {
        "kind": "ours",
        "system": system.label,
        "seeds": len(system.runs),
        "steps": system.experiment.training.steps,
        "best": fmean(run.best_step() or 0 for run in system.runs),
        "step_seconds": seconds / steps if steps else None,
        "seconds": seconds,
        "samples": samples,
        "rate": samples / seconds if seconds else None,
        "precision": ", ".join(sorted(precisions)),
    }
