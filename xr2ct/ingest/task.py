"""What a worker is given, and what it gives back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from xr2ct.cohorts.pseudonyms import Names
from xr2ct.cohorts.refused import Refusal
from xr2ct.cohorts.series import Source
from xr2ct.ingest.plan import Row
from xr2ct.ingest.report import NotTaken
from xr2ct.store.layout import XraySet


@dataclass(frozen=True)
class Task:
    """What is still missing of one row. It holds the source's identifiers, and goes to a worker alone."""

    store: Path
    index: int
    row: Row
    source: Source | None
    """The CT; None where it is not at hand and nothing of it is missing."""
    names: Names
    cube_mm: float
    sizes: tuple[int, ...] = ()
    xrays: tuple[XraySet, ...] = ()
    min_lung_coverage: float = 0.0
    remove_table: bool = False
    radiographs: tuple[Source, ...] = ()
    instead_of: tuple[NotTaken, ...] = ()
    """Series that were preferred to `source` and could not be taken."""
    expected: Mapping[str, str] = field(default_factory=dict)
    """Array → checksum that its chunk had before it was lost."""
    tried: bool = False
    """Whether it failed once before: this is its last attempt."""


@dataclass(frozen=True)
class Outcome:
    """How a task ended."""

    reason: str = ""
    """Why the case is refused; empty where it was taken."""
    where: str = ""
    """As `Refused.where`."""
    failed: bool = False
    """Whether another attempt may end otherwise: the worker died, a disk did not answer, it took too long."""
    radiographs: tuple[Refusal, ...] = ()
    """Pictures that were refused; the case was taken without them."""
    pictures: int = 0
    """Pictures that were written."""
    changed: tuple[str, ...] = ()
    """Arrays whose chunk came out other than it was before it was lost."""
    seconds: float = 0.0
    peak_bytes: int = 0
    """Largest resident memory of the worker during the task."""
