"""What an ingest kept, refused and left out."""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from xr2ct.cohorts.plan import CohortPlan
from xr2ct.cohorts.pseudonyms import Names
from xr2ct.cohorts.refused import Refusal, told
from xr2ct.run import write_atomically
from xr2ct.store import layout

COLUMNS = ("patient", "series", "reason")


@dataclass(frozen=True, order=True)
class NotTaken:
    """A series that is not in the store, by the cohort's own names."""

    patient: str
    series: str
    reason: str


class Renaming:
    """From a source's own identifiers to the cohort's names."""

    def __init__(self, plan: CohortPlan, names: Names) -> None:
        sources = [*(line.source for line in (*plan.lines, *plan.others)), *plan.radiographs]
        self._studies = {s.series: s.study for s in sources}
        self._names = names

    def not_taken(self, refusal: Refusal) -> NotTaken:
        """A refusal as it may be told."""
        names, uid = self._names, refusal.series
        series = names.series(self._studies.get(uid, ""), uid) if uid else ""
        reason = told(refusal.reason, names.where(refusal.where))
        return NotTaken(names.patient(refusal.patient), series, " ".join(reason.split()))

    def all(self, refusals: Iterable[Refusal]) -> tuple[NotTaken, ...]:
        """In order, each once."""
        return tuple(sorted(set(map(self.not_taken, refusals))))


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
class Cost:
    """What the cases computed by one call took, each in one worker."""

    seconds_median: float
    seconds_max: float
    peak_bytes_median: int
    """Of resident memory."""
    peak_bytes_max: int

    @classmethod
    def of(cls, costs: Sequence[tuple[float, int]]) -> Cost | None:
        """Of seconds and bytes a case; None of no cases."""
        if not costs:
            return None
        seconds, peaks = zip(*costs, strict=True)
        return cls(statistics.median(seconds), max(seconds), int(statistics.median(peaks)), max(peaks))

    def __str__(self) -> str:
        return (
            f"a case took {self.seconds_median:.1f} s and {self.peak_bytes_median / 1e9:.2f} GB (median), "
            f"at most {self.seconds_max:.1f} s and {self.peak_bytes_max / 1e9:.2f} GB"
        )


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
    radiographs: int = 0
    """Pictures in the store of the cases kept."""
    cost: Cost | None = None
    """None where nothing was computed."""

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "store": str(self.store)}

    def __str__(self) -> str:
        lines = [f"{self.store}: {len(self.kept)} cases kept ({self.computed} computed now)"]
        if self.radiographs:
            lines.append(f"{self.radiographs} radiographs came along")
        if self.kept:
            worst = max(self.kept, key=lambda case: self.kept[case].outside_cube)
            lines.append(f"most of a body outside the cube: {self.kept[worst].outside_cube:.0%} ({worst})")
        if self.cost:
            lines.append(str(self.cost))
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
        lines |= {row for row in read_refused(store) or () if row[0] not in patients}
    elif not lines:
        return
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(sorted(lines))
    write_atomically(file, text.getvalue())


def read_refused(store: Path) -> list[tuple[str, str, str]] | None:
    """The lines of STORE/refused.csv, None where it is not there; `StoreError` where it is damaged."""
    file = layout.refused_file(store)
    if not file.is_file():
        return None
    try:
        text = file.read_text(encoding="utf-8")
        header, *rows = csv.reader(io.StringIO(text, newline=""), strict=True)
        if tuple(header) != COLUMNS or not text.endswith("\n") or {len(row) for row in rows} - {3}:
            raise ValueError
    except (ValueError, csv.Error):
        raise layout.StoreError(f"{store}: its {file.name} is damaged: {layout.REPAIR}") from None
    return [(patient, series, reason) for patient, series, reason in rows]
