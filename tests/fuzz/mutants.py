"""One mutant: written, scanned, read and judged, all in one process."""

from __future__ import annotations

import contextlib
import re
import shutil
import traceback
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp
from time import monotonic

import base
import mutate_bytes  # noqa: F401 (here and below: each enters its mutations into the table)
import mutate_files  # noqa: F401
import mutate_slices  # noqa: F401
import mutate_tags  # noqa: F401
import mutate_volumes
from declared import Change, judge
from mutation import MUTATIONS, Series

from xr2ct.cohorts.reader import read_volume
from xr2ct.cohorts.refused import Refused
from xr2ct.cohorts.series import find_sources
from xr2ct.seeds import generator

NAMES = tuple(sorted([*MUTATIONS, *mutate_volumes.MUTATIONS]))
"""Sorted, so that a mutant does not depend on the order of imports."""


@dataclass(frozen=True)
class Verdict:
    """What became of a mutant."""

    mutation: str
    result: str
    """"refused", "equal", "as declared" or "VIOLATION"."""
    detail: str
    seconds: float
    peak_mib: int


@dataclass(frozen=True)
class Mutant:
    """Number and seed say all of it."""

    seed: int
    number: int

    @property
    def mutation(self) -> str:
        """Mutations take turns."""
        return NAMES[self.number % len(NAMES)]

    def write(self, folder: Path) -> Change:
        """The base and what is done to it."""
        rng = generator(self.seed, "mutant", self.number)
        if self.mutation in MUTATIONS:
            kind = str(rng.choice(base.SERIES))
            series = Series(folder, _base(kind, folder), rng)
            return MUTATIONS[self.mutation](series)
        files = _base(str(rng.choice(base.VOLUMES)), folder)
        return mutate_volumes.MUTATIONS[self.mutation](files, rng)


_written: dict[str, tuple[Path, list[str]]] = {}


def _base(kind: str, folder: Path) -> list[Path]:
    """A copy of one of the bases, which are made once a process."""
    if kind not in _written:
        made = Path(mkdtemp(prefix="xr2ct-fuzz-base-"))
        files = (base.write_series if kind in base.SERIES else base.write_volume)(made, kind)
        _written[kind] = made, [path.name for path in files]
    made, names = _written[kind]
    shutil.copytree(made, folder, dirs_exist_ok=True)
    return [folder / name for name in names]


def run(mutant: Mutant) -> Verdict:
    """Through the scan and the reader; any exception but a refusal is a violation."""
    folder = Path(mkdtemp(prefix="xr2ct-fuzz-"))
    began = monotonic()
    try:
        change = mutant.write(folder)
        _forget_peak()
        began = monotonic()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result, detail = _read(folder, change)
    except Exception:
        result, detail = "VIOLATION", traceback.format_exc(limit=-6)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return Verdict(mutant.mutation, result, detail, monotonic() - began, _peak_mib())


def _read(folder: Path, change: Change) -> tuple[str, str]:
    sources, refusals = find_sources(folder)
    verdicts: list[tuple[str, str]] = []
    reasons = [refusal.reason for refusal in refusals]
    for source in sources:
        try:
            verdicts.append(judge(read_volume(source), change))
        except Refused as refused:
            reasons.append(refused.reason)
    if not verdicts:
        return ("refused", reasons[0]) if reasons else ("VIOLATION", "neither taken nor refused")
    return _worst(verdicts)


def _worst(verdicts: Sequence[tuple[str, str]]) -> tuple[str, str]:
    order = ("VIOLATION", "as declared", "equal")
    return min(verdicts, key=lambda verdict: order.index(verdict[0]))


def _forget_peak() -> None:
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _peak_mib() -> int:
    found = re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())
    return int(found[1]) // 1024 if found else 0
