"""The leaderboard, rebuilt from a run's evaluation files, and the best checkpoint, by validation alone."""

from __future__ import annotations

import csv
import math
import uuid
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from xr2ct.cohorts.names import COHORTS
from xr2ct.evaluation.metrics import PRIMARY
from xr2ct.evaluation.results import COLUMNS, Result, csv_text, number, read_results, views_label
from xr2ct.run import Run, step_name, write_atomically

LABELS = ("step", "cohort", "split", "patients", "views", "scaling")
SHOWN = (
    PRIMARY,
    "honest/ssim",
    "honest/mae_hu",
    "honest_lungs/mae_hu",
    "rc2024/psnr",
    "reprojection/relative_l2",
)
"""Metrics that a terminal has room for."""


def leaderboard_file(run: Run) -> Path:
    return run.evaluations / "leaderboard.csv"


def rebuild_leaderboard(run: Run) -> Path:
    """Write the leaderboard anew: a row for each checkpoint or method on each cohort and split."""
    path = leaderboard_file(run)
    while True:
        text = _compose(run)
        write_atomically(path, text)
        # Another evaluator may have committed a file since this was composed, and its leaderboard before it.
        if _compose(run) == text:
            return path


def read_leaderboard(run: Run) -> list[dict[str, Any]]:
    """Its rows: `step` an outer step or a method's name, `patients` a number, each metric a mean or None."""
    path = leaderboard_file(run)
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return [_parse(line) for line in csv.DictReader(file)]


def mean_row(result: Result) -> dict[str, Any]:
    """Means over the patients of a file that stands aside, in the form of `read_leaderboard`'s rows, `step`
    being the source."""
    return {
        "step": result.source,
        "cohort": result.cohort,
        "split": result.split,
        "patients": len(set(result.patients.values())),
        **{column: None if math.isnan(mean := result.mean(column)) else mean for column in COLUMNS},
    }


def format_leaderboard(rows: Sequence[dict[str, Any]], shown: Sequence[str] = SHOWN) -> str:
    """A plain table of the metrics in `shown`."""
    head = ["step", "cohort", "split", "patients", *shown]
    lines = [head]
    for row in rows:
        values = ["–" if row[name] is None else f"{row[name]:.4g}" for name in shown]
        lines.append([str(row[name]) for name in head[:4]] + values)
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    return "\n".join(
        "  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def choose_best(run: Run, cohort: str, cases: Collection[str]) -> int | None:
    """Point RUN/best at the whole checkpoint with the highest honest PSNR on the validation split.

    cohort: the one trained on. cases: its validation split; a checkpoint counts once all of them are scored.
    The earliest of equals wins. Returns its step; None, leaving things as they are, where none counts.
    """
    while True:
        best = _best_step(run, cohort, cases)
        if best is None:
            return None
        _point(run.best, Path("checkpoints") / step_name(best))
        if _best_step(run, cohort, cases) == best:
            return best


def _best_step(run: Run, cohort: str, cases: Collection[str]) -> int | None:
    whole = run.steps()
    means = {
        result.step: result.mean(PRIMARY)
        for result in read_results(run)
        if (result.cohort, result.split) == (cohort, "val")
        and result.step in whole
        and set(result.cases) == set(cases)
    }
    return max(means, key=lambda step: (means[step], -step)) if means else None


def _point(link: Path, target: Path) -> None:
    """Make or replace a symbolic link in one rename."""
    if link.is_symlink() and link.readlink() == target:
        return
    temporary = link.with_name(f".{link.name}.{uuid.uuid4().hex}")
    temporary.symlink_to(target, target_is_directory=True)
    temporary.replace(link)


def _compose(run: Run) -> str:
    lines: list[list[Any]] = [[*LABELS, *COLUMNS]]
    for r in sorted(read_results(run), key=_order):
        patients = len(set(r.patients.values()))
        labels = [_shown(r), r.cohort, r.split, patients, views_label(r.views), r.scaling]
        lines.append([*labels, *[number(r.mean(column)) for column in COLUMNS]])
    return csv_text(lines)


def _order(result: Result) -> tuple[int, str, str, float, str]:
    """By cohort, the seven before a laboratory's own, and split; checkpoints in the order of training, then
    methods by name."""
    step = math.inf if result.step is None else result.step
    place = COHORTS.index(result.cohort) if result.cohort in COHORTS else len(COHORTS)
    return (place, result.cohort, result.split, step, result.source)


def _shown(result: Result) -> int | str:
    return result.source if result.step is None else result.step


def _parse(line: dict[str, str]) -> dict[str, Any]:
    step = line["step"]
    return {
        **line,
        "step": int(step) if step.isdigit() else step,
        "patients": int(line["patients"]),
        **{column: float(cell) if (cell := line.get(column)) else None for column in COLUMNS},
    }
