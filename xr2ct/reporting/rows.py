"""What the rows of several tables share."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from xr2ct.evaluation.results import Result
from xr2ct.reporting.statistics import Summary
from xr2ct.reporting.study import Study
from xr2ct.reporting.systems import System
from xr2ct.reporting.table import Cell, Column, minus

LABELS = (Column("cohort", "Cohort"), Column("split", "Split"), Column("system", "System"))
SEEDS = Column("seeds", "Seeds", "d")
PATIENTS = Column("patients", "Patients", "d")
SCANS = Column("scans", "Scans", "d")
SIZE = Column("size", "Volume", right=True)

INTERVAL = (
    "95 %: the interval of the mean over patients by a bootstrap clustered by patient, each case averaged "
    "over seeds first."
)
CHANGES = {
    "ssim_change": "honest/ssim",
    "mae_hu_change": "honest/mae_hu",
    "lungs_mae_hu_change": "honest_lungs/mae_hu",
}
"""Metrics whose change stands beside that of the PSNR, by the names of their columns."""
SPREAD = "SD of seeds, where there are several: the standard deviation of their means."


@dataclass(frozen=True)
class Scored:
    """A system on a cohort's split."""

    system: System
    cohort: str
    split: str
    results: list[Result]
    """One a seed, at least one."""

    def labels(self) -> dict[str, Cell]:
        return {
            "kind": self.system.kind,
            "cohort": self.cohort,
            "split": self.split,
            "system": self.system.label,
            "size": f"{self.system.experiment.data.size}³",
            "seeds": len(self.results) if self.system.kind == "ours" else None,
        }


def scored(study: Study, split: str | None = None) -> Iterator[Scored]:
    """Everyone on every cohort's split, or on the splits of that name; each cohort's systems together."""
    for cohort, at in study.pairs:
        for system in study.everyone:
            results = study.results(system, cohort, at) if split in (None, at) else []
            if results:
                yield Scored(system, cohort, at, results)


def interval(low: float, high: float, digits: int = 2, *, signed: bool = False) -> Cell:
    """Both ends in words; None where there are none."""
    if math.isnan(low) or math.isnan(high):
        return None
    sign = "+" if signed else ""
    return minus(f"{low:{sign}.{digits}f} to {high:{sign}.{digits}f}")


def counts(told: Summary) -> dict[str, Cell]:
    return {"patients": told.patients, "scans": told.cases}


def fitted(columns: tuple[Column, ...], rows: Sequence[Mapping[str, Cell]]) -> tuple[Column, ...]:
    """The columns, with the volumes' size after the system where there are several, and the number of scans
    after that of patients where one has several; without seeds and their spread where all have one."""
    several = any(row.get("seeds") not in (None, 1) for row in rows)
    shown = [column for column in columns if several or column.key not in ("seeds", "spread")]
    if len({row["size"] for row in rows if row.get("size")}) > 1:
        shown.insert(next(i for i, c in enumerate(shown) if c.key == "system") + 1, SIZE)
    if PATIENTS in shown and any(row.get("scans") != row.get("patients") for row in rows):
        shown.insert(shown.index(PATIENTS) + 1, SCANS)
    return tuple(shown)
