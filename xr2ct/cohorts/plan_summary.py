"""A plan in a few lines: how many series are taken, and the commonest reasons why others are not."""

from __future__ import annotations

from collections import Counter
from typing import Any

from xr2ct.cohorts.catalogue import cohort
from xr2ct.cohorts.choice import CohortPlan
from xr2ct.cohorts.pseudonyms import Names
from xr2ct.cohorts.refused import Refusal

REASONS = 12
"""Reasons that are printed; the others are in PLAN.csv."""


def summarise_plan(plan: CohortPlan, names: Names) -> dict[str, Any]:
    """Counts by `take`, reasons by how often they stand, and what has no line. JSON throughout."""
    takes = Counter(line.take for line in (*plan.lines, *plan.others))
    reasons = Counter(line.reason for line in (*plan.lines, *plan.others) if line.take == "no")
    about = cohort(plan.cohort)
    taken = [line.source.patient for line in plan.lines if line.take == "yes"]
    return {
        "cohort": plan.cohort,
        "series": sum(takes.values()),
        "yes": len(taken),
        "spare": takes["spare"],
        "no": takes["no"],
        "patients": len(set(taken)),
        "published": {"scans": about.scans, "patients": about.patients},
        "radiographs": len(plan.radiographs),
        "reasons": dict(reasons.most_common()),
        "refused": [_told(refusal, names) for refusal in plan.refusals],
    }


def format_plan(told: dict[str, Any]) -> str:
    """What `summarise_plan` says, for a terminal."""
    published = told["published"]
    of = (
        f" (published: {published['scans']} of {published['patients']} patients)"
        if published["scans"]
        else ""
    )
    lines = [
        f"{told['cohort']}: {told['series']} series; {told['yes']} scans of {told['patients']} patients "
        f"taken{of}, {told['spare']} spare, {told['radiographs']} series of radiographs"
    ]
    lines += [f"{count:6d} not taken: {reason}" for reason, count in list(told["reasons"].items())[:REASONS]]
    if len(told["reasons"]) > REASONS:
        lines.append(f"       … and {len(told['reasons']) - REASONS} more reasons, in the plan")
    lines += [f"refused {r['patient']}: {r['reason']}" for r in told["refused"]]
    return "\n".join(lines)


def _told(refusal: Refusal, names: Names) -> dict[str, str]:
    where = names.where(refusal.where)
    return {
        "patient": names.patient(refusal.patient),
        "reason": f"{where}: {refusal.reason}" if where else refusal.reason,
    }
