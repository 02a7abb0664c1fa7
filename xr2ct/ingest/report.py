"""What an ingest kept, refused and left out."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from xr2ct.cohorts.refused import Refusal
from xr2ct.ingest.plan import safe_name, short_hash
from xr2ct.run import write_atomically
from xr2ct.store import layout


@dataclass(frozen=True, order=True)
class NotTaken:
    """A series that is not in the store, without its own identifiers."""

    patient: str
    series: str
    reason: str

    @classmethod
    def of(cls, refusal: Refusal) -> NotTaken:
        """From the source's own patient and series."""
        series = short_hash(refusal.series) if refusal.series else ""
        return cls(safe_name(refusal.patient), series, " ".join(refusal.reason.split()))


@dataclass(frozen=True)
class Truncation:
    """How much of a patient's body is not in the data, as fractions of its volume."""

    outside_cube: float
    """Of the body in the scan."""
    outside_beam: Mapping[str, Mapping[str, float]]
    """By geometry and angle in degrees, of the body in the cube."""

    @classmethod
    def of(cls, case: Mapping[str, Any]) -> Truncation:
        """From what cases/ID.json says."""
        return cls(case["body_outside_cube"], case["outside_beam"])

    def __str__(self) -> str:
        beams = [f"{max(views.values()):.0%} outside {name}'s" for name, views in self.outside_beam.items()]
        return f"of the body {self.outside_cube:.0%} is outside the cube, at most {', '.join(beams)} beam"


@dataclass(frozen=True)
class IngestReport:
    """What became of the series found in one source."""

    store: Path
    kept: Mapping[str, Truncation]
    """Cases of this source that are visible in the store, by their ID."""
    computed: int
    """Those of them that this call worked on; the others were whole before."""
    refused: tuple[NotTaken, ...]
    """Cannot be taken; also in STORE/refused.csv."""
    left_out: tuple[NotTaken, ...]
    """Could be taken and were not asked for."""

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "store": str(self.store)}

    def __str__(self) -> str:
        lines = [f"{self.store}: {len(self.kept)} cases kept ({self.computed} computed now)"]
        if self.kept:
            worst = max(self.kept, key=lambda case: self.kept[case].outside_cube)
            lines.append(f"most of a body outside the cube: {self.kept[worst].outside_cube:.0%} ({worst})")
        lines += [f"refused {r.patient}: {r.reason}" for r in self.refused]
        lines += [_together(reason, patients) for reason, patients in self._left_out_by_reason().items()]
        return "\n".join(lines)

    def _left_out_by_reason(self) -> dict[str, list[str]]:
        patients: dict[str, list[str]] = {}
        for series in self.left_out:
            patients.setdefault(series.reason, []).append(series.patient)
        return patients


def _together(reason: str, patients: Sequence[str]) -> str:
    """A line for all series left out for one reason: a whole cohort may have a localizer each."""
    others = f" and {len(patients) - 1} more" if len(patients) > 1 else ""
    return f"left out {patients[0]}{others}: {reason}"


def write_refused(store: Path, refused: Sequence[NotTaken], patients: set[str]) -> None:
    """Bring STORE/refused.csv level: what it says of `patients` is replaced, the rest stays."""
    file = layout.refused_file(store)
    lines = {(r.patient, r.series, r.reason) for r in refused}
    if file.is_file():
        with file.open(encoding="utf-8", newline="") as old:
            rows = [(row["patient"], row["series"], row["reason"]) for row in csv.DictReader(old)]
        lines |= {row for row in rows if row[0] not in patients}
    elif not lines:
        return
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("patient", "series", "reason"))
    writer.writerows(sorted(lines))
    write_atomically(file, text.getvalue())
