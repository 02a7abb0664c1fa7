"""What of a run is still to be scored, cheap enough to ask of dozens of runs every few minutes.

    pending(Run.open("runs/demo"))

A file that was found current is not read again while its size and time stay: RUN/evaluations/.current.json.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from xr2ct.config import Experiment
from xr2ct.errors import UserError
from xr2ct.evaluation import priors
from xr2ct.evaluation.in_way import way_sources
from xr2ct.evaluation.pairs import Expected, Pair, Stores, find_pairs, learnt_from
from xr2ct.evaluation.results import ASIDE, read_rows, result_file
from xr2ct.evaluation.scoring import TRUTH
from xr2ct.run import Run, step_name, step_of, write_atomically
from xr2ct.store import StoreError

log = logging.getLogger(__name__)


@dataclass(frozen=True, order=True)
class PendingPair:
    """A source that is not scored yet on a cohort's split."""

    source: str
    """A whole checkpoint (``step-000500``), one in another way (``step-000500~refine-50``), or a row without
    one (``prior-mean``, ``truth``)."""
    cohort: str
    split: str
    patients: int = field(compare=False, default=0)

    @property
    def step(self) -> int | None:
        """The checkpoint's outer step; None for a row without a checkpoint."""
        return step_of(Path(self.source.partition(ASIDE)[0])) if self.source.startswith("step-") else None

    @property
    def name(self) -> str:
        """In names of files."""
        return f"{self.source}-{self.cohort}-{self.split}"

    def __str__(self) -> str:
        return f"{self.source} on {self.cohort} {self.split}"


def pending(
    run: Run, stores: Stores | None = None, damaged: dict[str, str] | None = None
) -> list[PendingPair]:
    """What is to be scored, validation first, then in the order of training; empty without a checkpoint.

    That is what `xr2ct evaluate` would score: checkpoints, and the ways of the best one once training ended.

    stores: opened already, where many runs are asked. damaged: gets the stores that cannot be read, of which
    nothing is pending then; a `StoreError` without it. Raises `UserError` where no store is there or somebody
    learnt from is in a split.
    """
    stores = stores or Stores()
    steps = run.steps()
    if not steps:
        return []
    experiment = run.experiment()
    pairs = find_pairs(experiment, None, {}, stores, damaged)
    sources = [*method_names(experiment, stores), *map(step_name, steps), *way_sources(run, experiment)]
    found = list(_lacking(run, experiment, pairs, sources, stores))
    return sorted(found, key=lambda p: (p.split != "val", sources.index(p.source)))


def method_names(experiment: Experiment, stores: Stores) -> list[str]:
    """The rows without a checkpoint that can be made."""
    names = [TRUTH] if experiment.evaluation.reprojection else []
    with suppress(UserError, StoreError):
        learnt_from(experiment, stores)
        names += [priors.MEAN, priors.NEAREST]
    return names


def _lacking(
    run: Run, experiment: Experiment, pairs: list[Pair], sources: list[str], stores: Stores
) -> Iterator[PendingPair]:
    memo = _read_memo(run)
    seen: dict[str, Any] = {}
    for pair in pairs:
        cohort, split = pair.store.cohort, pair.split
        # The same for all checkpoints, and for all rows without one.
        kinds = {True: Expected.of(pair, experiment, step_name(0), stores)}
        kinds[False] = Expected.of(pair, experiment, TRUTH, stores)
        digests = {kind: expected.digest() for kind, expected in kinds.items()}
        for source in sources:
            kind = source.startswith("step-")
            file = result_file(run, source, cohort, split)
            print_of = _print_of(file)
            known = [*print_of, digests[kind]] if print_of else None
            name = f"{source}/{file.name}"
            if known is not None and memo.get(name) != known:
                rows = read_rows(file)
                known = known if rows is not None and kinds[kind].met_by(rows) else None
            if known is None:
                yield PendingPair(source, cohort, split, len(pair.cases))
            else:
                seen[name] = known
    if seen != memo:
        _write_memo(run, seen)


def _print_of(file: Path) -> list[int] | None:
    """By what a file is known again: it is replaced whole, never changed."""
    try:
        told = file.stat()
    except FileNotFoundError:
        return None
    return [told.st_ino, told.st_size, told.st_mtime_ns]


def _read_memo(run: Run) -> dict[str, Any]:
    with suppress(OSError, ValueError):
        return dict(json.loads(_memo_file(run).read_text(encoding="utf-8")))
    return {}


def _write_memo(run: Run, seen: dict[str, Any]) -> None:
    try:
        write_atomically(_memo_file(run), json.dumps(seen))
    except OSError as error:  # it only saves time
        log.debug("%s: %s", _memo_file(run), error)


def _memo_file(run: Run) -> Path:
    return run.evaluations / ".current.json"
