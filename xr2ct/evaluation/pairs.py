"""What a run is scored on: cohorts' splits, and what the rows of a file say that is of today's."""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

from xr2ct.cohorts.catalogue import catalogue
from xr2ct.cohorts.names import check_cohort
from xr2ct.config import Experiment
from xr2ct.errors import UserError
from xr2ct.evaluation import reprojection
from xr2ct.evaluation.results import Row, views_label
from xr2ct.loading.loader import NO_AUGMENTATION
from xr2ct.loading.source import Source
from xr2ct.store import Case, Store, StoreError
from xr2ct.store.apart import check_apart
from xr2ct.training.start import training_cases

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pair:
    """A cohort's split."""

    store: Store
    split: str
    cases: Sequence[Case]

    def __str__(self) -> str:
        return f"{self.store.cohort} {self.split}"


class Stores:
    """Stores opened once, for whoever looks at many runs of the same ones."""

    def __init__(self) -> None:
        self._opened: dict[Path, Store] = {}
        self._checksums: dict[tuple[Path, int, str], str] = {}

    def open(self, path: Path) -> Store:
        key = path.absolute()
        if key not in self._opened:
            self._opened[key] = Store.open(path)
        return self._opened[key]

    def checksum(self, store: Store, size: int, geometry: str) -> str:
        key = (store.path.absolute(), size, geometry)
        if key not in self._checksums:
            self._checksums[key] = store.checksum(size, geometry)
        return self._checksums[key]


@dataclass(frozen=True)
class Expected:
    """What the rows of a file say if it is of this split's cases, views, weights and volumes."""

    cases: tuple[tuple[str, str], ...]
    """Each with its patient."""
    labels: tuple[tuple[str, str], ...]
    reprojected: bool

    @classmethod
    def of(cls, pair: Pair, experiment: Experiment, source: str, stores: Stores) -> Expected:
        data = experiment.data
        labels = {
            "views": views_label(data.views),
            "scaling": data.scaling,
            "weights": experiment.evaluation.weights if source.startswith("step-") else "",
            "store": stores.checksum(pair.store, data.size, data.geometry)[:12],
        }
        cases = tuple((case.id, case.patient) for case in pair.cases)
        return cls(cases, tuple(labels.items()), experiment.evaluation.reprojection)

    def met_by(self, rows: Sequence[Row]) -> bool:
        if tuple((row["case"], row["patient"]) for row in rows) != self.cases:
            return False
        if any(row[name] != value for row in rows for name, value in self.labels):
            return False
        return not self.reprojected or not math.isnan(rows[0][reprojection.COLUMNS[0]])

    def digest(self) -> str:
        return hashlib.sha256(json.dumps(astuple(self)).encode()).hexdigest()[:16]


def find_pairs(
    experiment: Experiment,
    cohorts: Sequence[str] | None,
    missing: dict[str, str],
    stores: Stores,
    damaged: dict[str, str] | None = None,
) -> list[Pair]:
    """Splits to score, in the cohorts' order; one not there is noted in `missing`, refused if asked for.

    A store that cannot be read is noted in `damaged`, or a `StoreError` without it. `UserError` where
    somebody learnt from is in a split.
    """
    data = experiment.data
    asked = {check_cohort(name) for name in cohorts or ()}
    pairs = []
    wanted = asked or {data.cohort, *experiment.evaluation.cohorts}
    for cohort in (c for c in catalogue() if c in wanted):
        try:
            store = open_store(experiment, cohort, stores)
        except UserError as error:
            if asked:
                raise
            missing[cohort] = str(error)
            continue
        except StoreError as error:  # the other cohorts are none the worse for it
            if damaged is None:
                raise
            damaged[cohort] = str(error)
            continue
        splits = {
            name: store.split(name) for name in (("val", "test") if cohort == data.cohort else ("test",))
        }
        if asked and not any(splits.values()):
            raise UserError(f"{store.path}: no case in its {' or '.join(splits)} split")
        for split, cases in splits.items():
            if cases:
                pairs.append(Pair(store, split, cases))
            else:
                missing[f"{cohort}-{split}"] = f"{store.path}: no case in its {split} split"
    if not pairs:
        if damaged:
            raise StoreError("\n".join(damaged.values()))
        raise UserError(f"{data.stores}: no store with a case to score, of {', '.join(missing)}")
    tested = {pair.store.path: pair.store for pair in pairs}
    try:
        learnt = stores.open(data.store(data.cohort))
    except (UserError, StoreError):
        return pairs  # not there to compare with: `learnt_from` says so
    check_apart(learnt, list(tested.values()))
    return pairs


def open_store(experiment: Experiment, cohort: str, stores: Stores) -> Store:
    """A cohort's store; `UserError` where it is not there or other than the mapper was trained for."""
    data, resolved = experiment.data, experiment.resolved
    store = stores.open(data.store(cohort))
    Source(store, [], data, NO_AUGMENTATION)
    made = {"cube_mm": store.cube_mm, **store.geometries[data.geometry].as_attributes()}
    trained = {"cube_mm": resolved.cube_mm, **resolved.geometry} if resolved else made
    for key, value in made.items():
        if trained.get(key) != value:
            raise UserError(f"{store.path}: {key} {value}, but the run was trained with {trained.get(key)}")
    return store


def learnt_from(experiment: Experiment, stores: Stores) -> tuple[Store, list[Case]]:
    """What the priors know: the training store and its training cases; `UserError` without them."""
    store = open_store(experiment, experiment.data.cohort, stores)
    return store, training_cases(experiment, store)
