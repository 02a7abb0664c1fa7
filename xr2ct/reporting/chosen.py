"""Which runs a report is about: folders of runs, and the members of configurations."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from xr2ct.config import load_members, run_path
from xr2ct.errors import UserError
from xr2ct.run import Run

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Chosen:
    """What was asked for."""

    runs: tuple[Run, ...]
    absent: tuple[str, ...] = ()
    """Members of a configuration that have nothing to show yet, a line each."""


def choose_runs(targets: Sequence[str]) -> Chosen:
    """Runs' folders, configurations (each with all members of its sweep and variants) and the overrides of
    the configurations, in any order.

    Raises `UserError` for a folder that is no run, for a configuration that cannot be read, for overrides
    without one, and where a configuration has no run with a best checkpoint.
    """
    # A run's folder may be called name+key=value.
    overrides = [t for t in targets if "=" in t and not Path(t).exists()]
    runs: dict[Path, Run] = {}
    absent: list[str] = []
    configs = 0
    for target in (t for t in targets if t not in overrides):
        if Path(target).suffix not in (".yaml", ".yml"):
            runs.setdefault(Path(target).resolve(), Run.open(Path(target)))
            continue
        configs += 1
        there, lines = _members(Path(target), overrides)
        runs |= {run.path.resolve(): run for run in there}
        absent += lines
    if overrides and not configs:
        raise UserError(f"{overrides[0]}: neither a run nor an override of a CONFIG.yaml")
    for line in absent:
        log.warning("%s", line)
    return Chosen(tuple(runs.values()), tuple(absent))


def _members(config: Path, overrides: Sequence[str]) -> tuple[list[Run], list[str]]:
    there, absent = [], []
    for experiment, told in load_members(config, overrides):
        run = Run(run_path(experiment, told))
        if not run.config_file.is_file():
            absent.append(f"{run.path}: not trained yet")
        elif run.best_step() is None:
            absent.append(f"{run.path}: no best checkpoint yet (xr2ct evaluate {run.path})")
        else:
            there.append(run)
    if not there:
        more = f", and {len(absent) - 1} more" if len(absent) > 1 else ""
        raise UserError(f"{config}: none of its runs can be reported on: {absent[0]}{more}")
    return there, absent
