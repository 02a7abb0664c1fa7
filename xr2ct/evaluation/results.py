"""RUN/evaluations/SOURCE/COHORT-SPLIT.csv: a row a patient, every metric by mode, committed once and whole.

SOURCE is a checkpoint (``step-000500``) or a method without one: ``prior-mean``, ``prior-nearest``,
``truth``, or the name given to predictions from elsewhere. A metric that is not defined for a patient is left
empty. A SOURCE with ``~`` in it (``step-000500~without-90``) is of a study of its own, in no other table.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xr2ct.cohorts.catalogue import NAME
from xr2ct.cohorts.names import SPLITS
from xr2ct.evaluation import doubt, metrics, once, reprojection
from xr2ct.run import Run, step_of, write_atomically

COLUMNS = (*metrics.COLUMNS, *reprojection.COLUMNS, *doubt.COLUMNS)
"""Metrics by name. A file that was written before one of them was known is read without it."""
LABELS = ("case", "patient", "views", "scaling", "weights", "store")
"""`patient`: the store's; one may have several cases. `views`: angles in degrees in the order of the mapper's
channels, as ``90+0``. `scaling`: what 0 and 1 are, ``window`` for the ends of the HU window, ``minmax`` for
those of the volume's own range. `weights`: ``mapper`` or ``mapper-ema``, empty without a checkpoint. `store`:
how the checksum of what was scored against begins."""
_FIRST_LABELS = tuple(name for name in LABELS if name != "patient")
"""Of files written before they named the patient: read with an empty one, and scored again where the store is
at hand."""

_FILE = re.compile(rf"({NAME.pattern})-({'|'.join(SPLITS)})\.csv")
_CHECKPOINT = re.compile(r"step-\d{6,}")
ASIDE = "~"
"""In the name of a source that stands beside the others, in a table of its own."""

Row = Mapping[str, Any]
"""One patient: `LABELS` as text, `COLUMNS` as numbers, NaN where a metric is not defined."""


@dataclass(frozen=True)
class _File:
    """What was scored on what."""

    run: str
    """Name of the run's folder."""
    source: str
    cohort: str
    split: str

    @property
    def step(self) -> int | None:
        """The checkpoint's outer step; None for a method without a checkpoint."""
        return step_of(Path(self.source)) if _CHECKPOINT.fullmatch(self.source) else None


@dataclass(frozen=True)
class Means(_File):
    """What of a file is enough for a curve: a report on dozens of runs holds thousands of them."""

    values: Mapping[str, float]

    def mean(self, name: str) -> float:
        """As `Result.mean`."""
        return self.values[name]


@dataclass(frozen=True)
class Result(_File):
    """One file: what was scored on which patients."""

    rows: Sequence[Row]
    """At least one."""

    @property
    def views(self) -> tuple[float, ...]:
        """Angles in degrees."""
        return tuple(float(angle) for angle in self.rows[0]["views"].split("+"))

    @property
    def scaling(self) -> str:
        return str(self.rows[0]["scaling"])

    @property
    def cases(self) -> list[str]:
        return [row["case"] for row in self.rows]

    @property
    def patients(self) -> dict[str, str]:
        """By case; the case itself where the file does not say whose it is."""
        return {row["case"]: row["patient"] or row["case"] for row in self.rows}

    def column(self, name: str) -> list[float]:
        """A metric, ``mode/metric``, of the patients for whom it is defined."""
        return [row[name] for row in self.rows if not math.isnan(row[name])]

    def mean(self, name: str) -> float:
        """Of `column`; NaN where it is empty."""
        values = self.column(name)
        return math.fsum(values) / len(values) if values else math.nan

    def means(self) -> Means:
        return Means(self.run, self.source, self.cohort, self.split, {c: self.mean(c) for c in COLUMNS})


def result_file(run: Run, source: str, cohort: str, split: str) -> Path:
    return run.evaluations / source / f"{cohort}-{split}.csv"


def views_label(angles_deg: Sequence[float]) -> str:
    return "+".join(f"{angle:g}" for angle in angles_deg)


def commit_rows(path: Path, rows: Sequence[Row], keep: Callable[[Sequence[Row]], bool] | None = None) -> bool:
    """Commit a file: whoever reads it sees all of it or none. Metrics that a row lacks are left empty.

    keep: of a file that is there already, whether it stays and these rows are dropped; then the first to
    commit wins, however many computed the same. Without it the file is replaced. Returns whether these rows
    are the file now.
    """
    lines = [
        [row[name] for name in LABELS] + [number(row.get(name, math.nan)) for name in COLUMNS] for row in rows
    ]
    text = csv_text([[*LABELS, *COLUMNS], *lines])
    if keep is None:
        write_atomically(path, text)
        return True

    def stale(file: Path) -> bool:
        there = read_rows(file)
        return there is None or not keep(there)

    while not once.create(path, text):
        if path.exists() and not stale(path):
            return False
        once.remove_if(path, stale)
    return True


def read_rows(path: Path) -> list[Row] | None:
    """The rows of a file; None where it is absent, not whole, or of another version's columns."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    head, *lines = list(csv.reader(io.StringIO(text))) or [[]]
    labels = next((known for known in (LABELS, _FIRST_LABELS) if head[: len(known)] == [*known]), None)
    if labels is None or not text.endswith("\n") or any(len(line) != len(head) for line in lines):
        return None
    n = len(labels)
    columns = head[n:]
    if metrics.PRIMARY not in columns or columns != [name for name in COLUMNS if name in columns]:
        return None
    return [
        {"patient": "", **dict.fromkeys(COLUMNS, math.nan)}
        | dict(zip(labels, line[:n], strict=True))
        | {name: float(cell) if cell else math.nan for name, cell in zip(columns, line[n:], strict=True)}
        for line in lines
    ]


def read_results(run: Run, *, aside: bool = False) -> list[Result]:
    """Every whole file of a run that has a row, by folder and file name; of sources aside instead, if so."""
    results = []
    for path in sorted(run.evaluations.glob("*/*.csv")):
        if (ASIDE in path.parent.name) != aside:
            continue
        match = _FILE.fullmatch(path.name)
        rows = read_rows(path) if match else None
        if match and rows:
            results.append(Result(run.path.name, path.parent.name, match[1], match[2], rows))
    return results


def number(value: float) -> str:
    """As files hold it: empty for NaN."""
    return "" if math.isnan(value) else f"{value:.9g}"


def csv_text(lines: Sequence[Sequence[Any]]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(lines)
    return out.getvalue()
