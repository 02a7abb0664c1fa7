"""How training went: every checkpoint on every cohort."""

from __future__ import annotations

from xr2ct.evaluation.metrics import PRIMARY
from xr2ct.reporting.exhibit import exhibit
from xr2ct.reporting.statistics import mean
from xr2ct.reporting.study import Study
from xr2ct.reporting.table import Cell, Column, Table


@exhibit("checkpoints")
def checkpoints(study: Study) -> Table:
    """Honest PSNR of each run by step, with what needs no training below."""
    rows: list[dict[str, Cell]] = []
    for system in study.systems:
        for run, seed in zip(system.runs, system.seeds, strict=True):
            best = study.best(run)
            by_step: dict[int, dict[str, Cell]] = {}
            for result in (r for r in study.every(run) if r.step is not None):
                row = by_step.setdefault(result.step or 0, {"system": system.label, "seed": seed})
                row |= {"step": result.step, "kind": "ours" if result.step == best else None}
                row[_key(result.cohort, result.split)] = result.mean(PRIMARY)
            rows += [by_step[step] for step in sorted(by_step)]
    for system in (s for s in study.others if s.kind != "truth"):
        row = {"kind": system.kind, "system": system.label}
        rows.append(row | {_key(*pair): mean(study.results(system, *pair), PRIMARY) for pair in study.pairs})
    columns = (
        Column("system", "System"),
        Column("seed", "Seed", "d"),
        Column("step", "Step", "d"),
        *(Column(_key(*pair), " ".join(pair), ".2f") for pair in study.pairs),
    )
    caption = (
        "Honest PSNR in dB, means over cases. Step 0 is the network as drawn; on the page the chosen "
        "checkpoint of each run stands out."
    )
    return Table("checkpoints", "Every checkpoint", caption, columns, rows)


def _key(cohort: str, split: str) -> str:
    return f"{cohort}-{split}"
