"""Radiographs that came along: to which case each belongs, and into the store."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime
from pathlib import Path
from typing import Any

from xr2ct.cohorts.pseudonyms import Names
from xr2ct.cohorts.radiographs import Radiograph, read_radiographs
from xr2ct.cohorts.refused import Refusal, Refused
from xr2ct.cohorts.series import Source
from xr2ct.ingest.task import Task
from xr2ct.store import layout, write


def write_pictures(task: Task, case: dict[str, Any]) -> tuple[int, tuple[Refusal, ...]]:
    """Write the task's pictures that the case has not, and note them in `case`.

    How many were written, and what was refused.
    """
    entries: list[dict[str, Any]] = list(case.get("radiographs", []))
    refusals, count = [], 0
    for source in task.radiographs:
        series = task.names.series(source.study, source.series)
        try:
            pictures = read_radiographs(source)
        except Refused as refused:
            refusals.append(Refusal(source.patient, source.series, refused.reason, refused.where))
            continue
        for number, picture in enumerate(pictures, 1):
            if picture.burned_in and not task.names.public:
                reason = f"burned-in text: picture {number} of {len(pictures)} ({picture.burned_in})"
                refusals.append(Refusal(source.patient, source.series, reason))
                continue
            place = {"series": series, "picture": [number, len(pictures)]}
            held = next((e for e in entries if place.items() <= e.items()), None)
            if held and layout.radiograph_array(held["name"]) not in task.expected:
                continue
            name = held["name"] if held else _free_name(task.row.case, entries)
            entry = {**_about(task, picture), **place, "name": name}
            if held and entry["days_after_ct"] is None:  # the CT may not be at hand
                entry["days_after_ct"] = held["days_after_ct"]
            entry["sha256"] = write.write_radiograph(task.store, name, picture.pixels)
            entries = [*(e for e in entries if e is not held), entry]
            count += 1
    if entries:
        case["radiographs"] = sorted(entries, key=lambda e: e["name"])
    return count, tuple(refusals)


def _about(task: Task, picture: Radiograph) -> dict[str, Any]:
    facts = task.source.facts if task.source else None
    return {
        **picture.attributes,
        "burned_in": picture.burned_in,
        "days_after_ct": days_between(facts.date if facts else "", picture.date),
        "shape": list(picture.pixels.shape),
        "dtype": str(picture.pixels.dtype),
    }


def _free_name(case: str, entries: Sequence[Mapping[str, Any]]) -> str:
    taken = {e["name"] for e in entries}
    return next(name for n in range(1, len(taken) + 2) if (name := f"{case}-{n:02d}") not in taken)


def days_between(first: str, second: str) -> int | None:
    """Days from one yyyymmdd to another; None where either is unknown."""
    days = [_day(text) for text in (first, second)]
    return (days[1] - days[0]).days if days[0] and days[1] else None


def _day(text: str) -> date | None:
    try:
        return datetime.strptime(text, "%Y%m%d").date()
    except ValueError:
        return None


def lost_pictures(case: Mapping[str, Any], damaged: Iterable[str]) -> set[str]:
    """Series, by the cohort's names, of a case's pictures among damaged arrays."""
    arrays, pictures = set(damaged), case.get("radiographs", [])
    return {e["series"] for e in pictures if layout.radiograph_array(e["name"]) in arrays}


def assign_pictures(
    store: Path,
    pictures: Sequence[Source],
    scans: Mapping[str, Mapping[str, Source | None]],
    names: Names,
    damaged: Mapping[str, Iterable[str]],
) -> tuple[dict[str, list[Source]], list[Source]]:
    """Case → the series of radiographs that it has not whole, and the series that have no CT.

    `scans` are, by the patient's name, the cases that are in the store with their CTs. Of a patient with
    several a picture goes to the one nearest in days, or to the first where days are unknown; where one of
    them has it already it stays.
    """
    todo: dict[str, list[Source]] = defaultdict(list)
    alone = []
    known = {case: write.read_case(store, case) for cases in scans.values() for case in cases}
    for source in sorted(pictures, key=lambda s: names.series(s.study, s.series)):
        cases = scans.get(names.patient(source.patient), {})
        if not cases:
            alone.append(source)
            continue
        series = names.series(source.study, source.series)
        case = next((c for c in cases if _entries(known[c], series)), "") or _nearest(source, cases)
        entries = _entries(known[case], series)
        whole = bool(entries) and len(entries) == entries[0]["picture"][1]
        if not whole or series in lost_pictures(known[case], damaged.get(case, ())):
            todo[case].append(source)
    return dict(todo), alone


def _entries(case: Mapping[str, Any], series: str) -> list[dict[str, Any]]:
    return [e for e in case.get("radiographs", []) if e["series"] == series]


def _nearest(picture: Source, cases: Mapping[str, Source | None]) -> str:
    taken = picture.facts.date if picture.facts else ""

    def apart(case: str) -> float:
        scan = cases[case]
        days = days_between(scan.facts.date if scan and scan.facts else "", taken)
        return float("inf") if days is None else abs(days)

    return min(cases, key=apart)
