"""What plan and ingest make of a messy tree, against what was planted in it."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from xr2ct.cohorts.plan import CohortPlan, plan_cohort
from xr2ct.cohorts.pseudonyms import names_for
from xr2ct.ingest import ingest
from xr2ct.ingest.report import IngestReport
from xr2ct.projection.geometry import Geometry
from xr2ct.store import Store, layout
from xr2ct.store.read import Case

from .tree import CUBE_SIZE, CUBES
from .truth import Truth

GEOMETRY = Geometry("small", 541.0, 949.0, 500.0, 32)
SAME_CHEST_HU = 60.0
"""Mean difference of two cubes of one chest; those of two chests differ by more than 100."""


@dataclass(frozen=True)
class Difference:
    """Something that is not as it was planted."""

    truth: Truth
    stage: str
    expected: str
    found: str

    def __str__(self) -> str:
        t = self.truth
        return (
            f"{t.cohort} {t.patient} {t.series} ({t.mess}): {self.stage}: {self.expected}, found {self.found}"
        )


def check_plan(truth: Sequence[Truth], plan: CohortPlan) -> list[Difference]:
    """Takes and reasons of one cohort's plan, and that nothing is taken which was not planted."""
    lines: dict[tuple[str, str], list[tuple[str, str]]] = defaultdict(list)
    for line in plan.lines:
        lines[line.source.patient, _uid(line.source.series)].append((line.take, line.reason))
    for line in plan.others:
        key = (line.source.patient, _uid(line.source.series))
        if key not in lines or all(take == "no" for take, _ in lines[key]):
            lines[key].append((line.take, line.reason))
    refused: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for refusal in plan.refusals:
        refused[refusal.patient].append(("refused", refusal.reason))
    radiographs = {(s.patient, s.series) for s in plan.radiographs}
    differences = []
    for one in truth:
        if one.plan == "radiograph":
            found = [("radiograph", "")] if (one.patient, one.series) in radiographs else []
        elif one.plan == "refused":
            found = refused[one.patient]
        else:
            found = lines[one.patient, one.series]
        if not found or not all(one.plan == take for take, _ in found):
            differences.append(Difference(one, "plan", one.plan, str(found) or "nothing"))
        elif not any(re.search(one.reason, reason) for _, reason in found):
            differences.append(Difference(one, "plan", f"because of {one.reason!r}", str(found)))
    planted = {(t.patient, t.series) for t in truth if t.plan == "yes"}
    for (patient, uid), found in lines.items():
        if any(take == "yes" for take, _ in found) and (patient, uid) not in planted:
            if (patient, uid) in radiographs:
                continue
            stray = Truth(plan.cohort, patient, uid, "nothing planted", "no")
            differences.append(Difference(stray, "plan", "not taken", str(found)))
    return differences


def check_ingest(
    truth: Sequence[Truth], store: Store, report: IngestReport, cubes: np.ndarray
) -> list[Difference]:
    """What a store holds and refused, whose chest each case holds, and its radiographs."""
    names = names_for(store.cohort)
    about = {case: _about(store, case) for case in store.cases}
    by_series = {(one["patient"], one["series"]): case for case, one in about.items()}
    refused = {(r.patient, r.series): r.reason for r in report.refused}
    differences = []
    for one in truth:
        patient = names.patient(one.patient)
        series = names.series(_study(one.series), one.series)
        case = by_series.get((patient, series))
        if one.plan == "radiograph":
            found = _radiograph(one, about.values(), patient, series, refused)
        elif one.ingest == "kept":
            found = "not in the store" if case is None else _chest(one, store, case, cubes)
        elif one.ingest == "refused":
            reason = refused.get((patient, series), "")
            found = "" if reason and re.search(one.ingest_reason, reason) else f"refused for {reason!r}"
        else:
            found = "in the store" if case and one.plan not in ("yes", "refused") else ""
        if found:
            differences.append(Difference(one, "ingest", one.ingest or "left alone", found))
    return differences


def _about(store: Store, case: Case) -> dict[str, Any]:
    about: dict[str, Any] = json.loads(layout.case_file(store.path, case.id).read_text(encoding="utf-8"))
    return about


def _chest(one: Truth, store: Store, case: Case, cubes: np.ndarray) -> str:
    """Empty where a case holds the chest that was planted, compared where that has a body."""
    cube = store.volume(case, CUBE_SIZE).astype(np.float32)
    apart = [float(np.abs(cube - other)[other > -1000].mean()) for other in cubes.astype(np.float32)]
    if int(np.argmin(apart)) != one.chest:
        return f"chest {int(np.argmin(apart))}, not {one.chest}"
    return "" if apart[one.chest] < SAME_CHEST_HU else f"{apart[one.chest]:.0f} HU from its chest"


def _radiograph(
    one: Truth,
    cases: Iterable[Mapping[str, Any]],
    patient: str,
    series: str,
    refused: Mapping[tuple[str, str], str],
) -> str:
    """Empty where a radiograph is in the store, or refused, as it should be."""
    entries = [r for case in cases if case["patient"] == patient for r in case.get("radiographs", [])]
    held = next((r for r in entries if r["series"] == series), None)
    if one.ingest == "refused":
        reason = refused.get((patient, series), "")
        return "" if held is None and re.search(one.ingest_reason, reason) else f"kept, or for {reason!r}"
    if held is None:
        return f"not in the store ({refused.get((patient, series), 'no reason told')})"
    if str(held["days_after_ct"]) != one.days:
        return f"{held['days_after_ct']} days after the CT, not {one.days}"
    if bool(held["burned_in"]) != bool(one.burned_in) or not held["burned_in"].startswith(one.burned_in):
        return f"flag {held['burned_in']!r}, not {one.burned_in!r}"
    return ""


def _uid(series: str) -> str:
    """Without the number of an acquisition."""
    return series.partition("#")[0]


def _study(series: str) -> str:
    return series.rpartition(".")[0]


def check_cohort(
    folder: Path, cohort: str, truth: Sequence[Truth], stores: Path, workers: int | None = None
) -> tuple[list[Difference], IngestReport]:
    """Plan and ingest one cohort of a tree, and compare."""
    plan = plan_cohort(folder / cohort, cohort, workers=workers)
    path = stores / f"{cohort}.zarr"
    report = ingest(
        folder / cohort, path, cohort, [CUBE_SIZE], [GEOMETRY], (0.0, 90.0), splits="seeded", workers=workers
    )
    own = [one for one in truth if one.cohort == cohort]
    differences = check_plan(own, plan)
    return differences + check_ingest(own, Store.open(path), report, np.load(folder / CUBES)), report
