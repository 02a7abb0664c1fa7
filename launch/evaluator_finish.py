"""What is made of the results after a round: leaderboard, `best`, MLflow with its registry, the report.

Only of runs whose results have changed since; what fails here is told and tried again in the next round.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from launch.evaluator_book import Book
from xr2ct.errors import UserError, WorkFailed
from xr2ct.evaluation import sweep
from xr2ct.evaluation.pairs import Stores, find_pairs
from xr2ct.run import Run
from xr2ct.tracking import bring_level, track_artifact

log = logging.getLogger(__name__)

LAST_TRIES = 3
"""Rounds that an evaluator with nothing else to do gives a tracker that is away."""


def report_folder(root: Path) -> Path:
    """Of all runs of a root."""
    return root / "report"


def finish(book: Book, runs: Sequence[Run], told: list[str], *, last: bool) -> bool:
    """Bring everything up to the results; whether nothing is left that another round would mend.

    last: nothing more will be scored; the report is then kept beside the runs in MLflow too.
    """
    done = book.read("finished")
    stores = Stores()
    runs = [run for run in runs if run.steps()]
    states = {run.path: _state_of(run) for run in runs}
    for run in runs:
        if done.get(f"board {run.path.name}") != states[run.path]:
            try:
                experiment = run.experiment()
                pairs = find_pairs(experiment, None, {}, stores, {})
                sweep.finish(run, experiment, pairs, sweep.Sweep())
                done[f"board {run.path.name}"] = states[run.path]
            except (UserError, WorkFailed) as error:
                told.append(f"{run.path}: {error}")
    _report(book, [run for run in runs if run.best_step() is not None], states, done, told)
    level = _level(book, runs, states, done, last)
    done["tries"] = 0 if level or not last else done.get("tries", 0) + 1
    book.write("finished", done)
    return level or done["tries"] >= LAST_TRIES


def _report(
    book: Book,
    runs: Sequence[Run],
    states: Mapping[Path, str],
    done: dict[str, object],
    told: list[str],
) -> None:
    state = _digest([[str(run.path), states[run.path], run.best_step()] for run in runs])
    if not runs or done.get("report") == state:
        return
    from xr2ct.reporting.report import write_report  # matplotlib takes seconds

    folder = report_folder(book.root)
    try:
        for scaling in (scalings := sorted({run.experiment().data.scaling for run in runs})):
            # Figures under different scalings stand in no common table.
            same = [run for run in runs if run.experiment().data.scaling == scaling]
            write_report(same, folder / scaling if len(scalings) > 1 else folder)
        done["report"] = state
    except (UserError, WorkFailed) as error:
        told.append(f"report: {error}")


def _level(
    book: Book, runs: Sequence[Run], states: Mapping[Path, str], done: dict[str, object], last: bool
) -> bool:
    """Whether MLflow has everything, of what may be written from here."""
    level, away = True, set()
    for run in runs:
        experiment = run.experiment()
        if not experiment.tracking.enabled:
            continue
        state = _digest([states[run.path], run.best_step(), last])
        if done.get(f"tracked {run.path.name}") == state:
            continue
        uri = experiment.tracking.uri
        if uri in away:
            continue
        folder = report_folder(book.root)
        reached = track_artifact(run, folder, "report") if last and folder.is_dir() else bring_level(run)
        if reached:
            done[f"tracked {run.path.name}"] = state
        elif reached is False:
            level = False
            away.add(uri)  # one wait a round for one that does not answer
    return level


def _state_of(run: Run) -> str:
    """Other whenever a result has come, gone or changed."""
    files = sorted(run.evaluations.glob("*/*.csv"))
    return _digest([[f.parent.name, f.name, f.stat().st_size, f.stat().st_mtime_ns] for f in files])


def _digest(values: object) -> str:
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()[:16]
