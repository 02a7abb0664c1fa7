"""What chance has to do with it: training seeds apart from patients, and tests between systems."""

from __future__ import annotations

from itertools import combinations

from xr2ct.evaluation.metrics import PRIMARY
from xr2ct.reporting.exhibit import exhibit
from xr2ct.reporting.rows import (
    INTERVAL,
    LABELS,
    PATIENTS,
    SEEDS,
    SPREAD,
    counts,
    fitted,
    interval,
    scored,
)
from xr2ct.reporting.statistics import Difference, difference, holm, seed_means, summary
from xr2ct.reporting.study import Study
from xr2ct.reporting.systems import System
from xr2ct.reporting.table import Cell, Column, Table

_ALL_PAIRS = 12
"""Systems up to which each is compared with each; beyond, the table would be past reading."""


@exhibit("seeds")
def seeds(study: Study) -> Table | None:
    """The spread over training seeds beside the interval over patients; None where nobody has two seeds."""
    if all(len(system.seeds) < 2 for system in study.systems):
        return None
    rows: list[dict[str, Cell]] = []
    for one in scored(study):
        if one.system.kind == "truth":
            continue
        told, means = summary(one.results, PRIMARY), seed_means(one.results, PRIMARY)
        several = len(means) > 1
        rows.append(
            one.labels()
            | counts(told)
            | {
                "psnr": told.mean,
                "spread": told.spread,
                "lowest": min(means) if several else None,
                "highest": max(means) if several else None,
                "interval": interval(told.low, told.high),
                "half": (told.high - told.low) / 2,
            }
        )
    columns = (
        *LABELS,
        SEEDS,
        PATIENTS,
        Column("psnr", "PSNR dB", ".2f"),
        Column("spread", "SD of seeds", ".3f"),
        Column("lowest", "Lowest seed", ".2f"),
        Column("highest", "Highest seed", ".2f"),
        Column("interval", "95 % over patients", right=True),
        Column("half", "Half of it", ".2f"),
    )
    caption = f"Honest PSNR. {SPREAD} {INTERVAL} Neither kind of chance holds the other."
    return Table("seeds", "Training seeds and patients", caption, fitted(columns, rows), rows)


@exhibit("comparisons")
def comparisons(study: Study) -> Table | None:
    """Paired tests on the test splits; None with fewer than two to compare."""
    rows: list[dict[str, Cell]] = []
    raw: list[float] = []
    left_out = 0
    pairs, everyone = _pairs(study)
    for cohort in study.tested:
        results = {s.label: study.results(s, cohort, "test") for s in study.everyone}
        for first, second in pairs:
            a, b = results[first.label], results[second.label]
            if not a or not b:
                continue
            told = difference(a, b, PRIMARY)
            labels: dict[str, Cell] = {"cohort": cohort, "first": first.label, "second": second.label}
            rows.append(labels | _effect(told))
            raw.append(told.p)
            left_out = max(left_out, told.left_out)
    if not rows:
        return None
    for row, adjusted in zip(rows, holm(raw), strict=True):
        row["holm"] = adjusted
    columns = (
        Column("cohort", "Cohort"),
        Column("first", "System"),
        Column("second", "Against"),
        PATIENTS,
        Column("difference", "Δ PSNR dB", "+.2f"),
        Column("interval", "95 %", right=True),
        Column("p", "p", ".2g"),
        Column("holm", "p, Holm", ".2g"),
        *([Column("left_out", "Cases left out", "d")] if left_out else []),
    )
    caption = (
        "Honest PSNR on test splits, the first less the second, averaged over seeds; on the cases that every "
        "seed of both has, and only between systems of one volume size and HU window. 95 %: over patients, "
        "by a bootstrap clustered by patient. p: two-sided Wilcoxon signed-rank test over patients, each "
        "with the mean of their scans; n patients cannot give less than 2/2ⁿ. Holm: adjusted for all "
        f"{len(rows)} comparisons of this table. The chance of a training seed is not in p, but in the SD of "
        "seeds."
    )
    if not everyone:
        caption += f" With more than {_ALL_PAIRS} systems each is compared with the first alone."
    return Table("comparisons", "Paired tests", caption, fitted(columns, rows), rows)


def _pairs(study: Study) -> tuple[list[tuple[System, System]], bool]:
    """Who is compared with whom, and whether each is with each; priors are not with one another."""
    able = [s for s in study.everyone if s.kind in ("ours", "elsewhere")]
    priors = [s for s in study.everyone if s.kind == "prior"]
    everyone = len(able) <= _ALL_PAIRS
    chosen = list(combinations(able, 2)) if everyone else [(able[0], other) for other in able[1:]]
    chosen += [(system, prior) for system in able for prior in priors]
    return [(a, b) for a, b in chosen if _alike(a, b)], everyone


def _alike(a: System, b: System) -> bool:
    """Whether their volumes are the same ones on the same scale."""
    x, y = a.experiment.data, b.experiment.data
    return (x.size, x.hu_window) == (y.size, y.hu_window)


def _effect(told: Difference) -> dict[str, Cell]:
    return {
        "patients": told.patients,
        "scans": told.cases,
        "difference": told.mean,
        "interval": interval(told.low, told.high, signed=True),
        "p": told.p,
        "left_out": told.left_out,
    }
