"""A system: what the tables have a row of, and what it is called beside others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any, Literal

from xr2ct.config import Experiment, override_text
from xr2ct.evaluation import priors
from xr2ct.evaluation.results import views_label
from xr2ct.evaluation.scoring import TRUTH
from xr2ct.run import Run

Kind = Literal["ours", "prior", "truth", "elsewhere"]

_FIRST = ("source", "data.views", "lift.kind", "data.train_cases")
"""What systems are told apart by before anything else; then their variants, then any key."""
_AT_MOST = 4
"""Keys of which the fewest that do are sought; with more, all are told."""


@dataclass(frozen=True)
class System:
    """Runs that differ in nothing but their seed, or a method that needs no training."""

    label: str
    runs: tuple[Run, ...]
    """One a seed. Of a method without training, those in whose folders its results lie."""
    experiment: Experiment
    """Of the first run."""
    seeds: tuple[int, ...]
    """Of the runs."""
    source: str | None = None
    """Folder of its results; None for each run's best checkpoint."""

    @property
    def kind(self) -> Kind:
        if self.source is None:
            return "ours"
        if self.source == TRUTH:
            return "truth"
        return "prior" if self.source in (priors.MEAN, priors.NEAREST) else "elsewhere"


@dataclass
class Group:
    """A system in the making."""

    label: str
    facts: dict[str, Any]
    """Key → value of all in which it may differ from another."""
    experiment: Experiment
    source: str | None = None
    runs: list[Run] = field(default_factory=list)
    seeds: list[int] = field(default_factory=list)

    def system(self) -> System:
        return System(self.label, tuple(self.runs), self.experiment, tuple(self.seeds), self.source)


def name_apart(groups: Sequence[Group]) -> Sequence[Group]:
    """The same groups with labels that no two share: where they did, with the fewest of the facts in which
    they differ appended, or their run where they differ in none."""
    for label in {group.label: None for group in groups}:
        same = [group for group in groups if group.label == label]
        if len(same) == 1:
            continue
        for group, added in zip(same, _told_apart(same), strict=True):
            group.label = ", ".join([label, *added])
    taken: set[str] = set()
    for group in groups:
        if group.label in taken:
            group.label += f" ({group.runs[0].path})"
        taken.add(group.label)
    return groups


def _told_apart(groups: Sequence[Group]) -> list[list[str]]:
    """What is appended to each."""
    every = {key: None for group in groups for key in group.facts}
    keys = [key for key in every if len({repr(group.facts.get(key)) for group in groups}) > 1]
    keys.sort(key=lambda key: (_FIRST.index(key) if key in _FIRST else len(_FIRST), not _is_variant(key)))
    columns = {key: _texts(key, keys, [group.facts.get(key) for group in groups]) for key in keys}
    subsets = (few for n in range(1, _AT_MOST + 1) for few in combinations(keys, n))
    chosen = next((few for few in subsets if _unique([columns[key] for key in few])), tuple(keys))
    return [[columns[key][i] for key in chosen] for i in range(len(groups))]


def _unique(columns: Sequence[Sequence[str]]) -> bool:
    rows = list(zip(*columns, strict=True))
    return len(set(rows)) == len(rows)


def _texts(key: str, keys: Sequence[str], values: Sequence[Any]) -> list[str]:
    """Each of a key's values in words."""
    if key == "source":
        return ["trained here" if value is None else "from elsewhere" for value in values]
    if key == "data.views":
        values = [value or () for value in values]
        if len({len(views) for views in values}) == len({tuple(views) for views in values}):
            return [f"{len(views)} view{'s' if len(views) > 1 else ''}" for views in values]
        return [f"views {views_label(views)}" for views in values]
    if key == "data.size":
        return [f"{size}³" for size in values]
    if key == "data.train_cases":
        return [f"{'all' if n is None else n} training cases" for n in values]
    if key == "lift.kind" or _is_variant(key):
        return [str(value) for value in values]
    last = key.rsplit(".", 1)[-1]
    shown = last if [other.rsplit(".", 1)[-1] for other in keys].count(last) == 1 else key
    return [override_text(shown, value) for value in values]


def _is_variant(key: str) -> bool:
    return key.startswith("variants.")
