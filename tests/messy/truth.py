"""What was planted in a messy tree, a line a series, as a CSV beside the cohorts."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

FILE = "truth.csv"


@dataclass(frozen=True)
class Truth:
    """One series, or one patient or folder where no series is meant."""

    cohort: str
    patient: str
    """PatientID, or the folder's name where there is none."""
    series: str
    """SeriesInstanceUID or a file's stem; empty where a patient or a folder is meant."""
    mess: str
    plan: str
    """What the plan is to say: yes, spare, no, refused, radiograph."""
    reason: str = ""
    """A regular expression that is found in the plan's reason."""
    ingest: str = ""
    """What becomes of it: kept, refused, or empty where ingest does not look at it."""
    ingest_reason: str = ""
    chest: int = -1
    """Number of the chest whose cube the case must hold."""
    days: str = ""
    """Of a radiograph that is kept: days after the CT."""
    burned_in: str = ""
    """Of a radiograph: what its flag begins with."""


def write_truth(folder: Path, lines: Iterable[Truth]) -> None:
    with (folder / FILE).open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, [f.name for f in fields(Truth)])
        writer.writeheader()
        writer.writerows(asdict(line) for line in lines)


def read_truth(folder: Path) -> list[Truth]:
    with (folder / FILE).open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return [Truth(chest=int(row.pop("chest")), **row) for row in rows]
