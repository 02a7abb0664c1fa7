"""The paper's tables with ours in them: each printed row beside the system that is to be like it."""

from __future__ import annotations

from collections.abc import Callable

from xr2ct.reporting import paper
from xr2ct.reporting.exhibit import exhibit
from xr2ct.reporting.paper import PaperTable, Printed
from xr2ct.reporting.rows import (
    INTERVAL,
    PATIENTS,
    SEEDS,
    SPREAD,
    Scored,
    counts,
    fitted,
    interval,
    scored,
)
from xr2ct.reporting.statistics import mean, summary
from xr2ct.reporting.study import Study
from xr2ct.reporting.table import Cell, Column, Table

_COLUMNS = (
    Column("cohort", "Cohort"),
    Column("system", "System"),
    Column("views", "Views", "d"),
    SEEDS,
    PATIENTS,
    Column("ssim", "SSIM", ".3f"),
    Column("psnr", "PSNR dB", ".2f"),
    Column("interval", "95 %", right=True),
    Column("spread", "SD of seeds", ".2f"),
    Column("mse", "MSE", ".4f"),
    Column("mae", "MAE", ".4f"),
    Column("definition", "Definition"),
    Column("remark", "Remark"),
)
_SCALINGS = {"window": "HU window", "minmax": "min–max"}


def _maker(told: PaperTable) -> Callable[[Study], Table | None]:
    def make(study: Study) -> Table | None:
        """None where no system is one of the printed table's."""
        if not any(_place(told, one) for one in scored(study)):
            return None
        rows = [
            row
            for cohort in dict.fromkeys(p.cohort for p in told.rows)
            for row in _block(told, study, cohort)
        ]
        return Table(told.name, told.title, _caption(told, study), fitted(_COLUMNS, rows), rows)

    return make


for _table in paper.TABLES:
    exhibit(_table.name)(_maker(_table))


def _block(told: PaperTable, study: Study, cohort: str) -> list[dict[str, Cell]]:
    """A cohort's rows: each printed one after ours that are like it, then whoever else is scored."""
    here = [one for one in scored(study, "test") if one.cohort == cohort and one.system.kind != "truth"]
    rows: list[dict[str, Cell]] = []
    for printed in (p for p in told.rows if p.cohort == cohort):
        like = [one for one in here if _place(told, one) == (printed.method, printed.views)]
        rows += [_ours(one, study) for one in like] or [_not_measured(printed)]
        rows.append(_printed(printed, told))
    return rows + [_ours(one, study) for one in here if _place(told, one) is None]


def _place(told: PaperTable, one: Scored) -> paper.Place | None:
    """Whose row a trained system's is; None where the table has no such row."""
    place = told.place(one.system.experiment) if one.system.kind == "ours" else None
    return place if place in {(p.method, p.views) for p in told.rows} else None


def _ours(one: Scored, study: Study) -> dict[str, Cell]:
    told = summary(one.results, f"{paper.MODE}/psnr")
    metrics = {key: mean(one.results, f"{paper.MODE}/{key}") for key in ("ssim", "psnr", "mse", "mae")}
    return (
        one.labels()
        | counts(told)
        | metrics
        | {
            "views": None if one.system.kind == "prior" else len(one.results[0].views),
            "interval": interval(told.low, told.high),
            "spread": told.spread,
            "definition": f"{paper.MODE}, {_SCALINGS[study.scaling]}",
        }
    )


def _not_measured(printed: Printed) -> dict[str, Cell]:
    return {
        "cohort": printed.cohort,
        "system": printed.method,
        "views": printed.views,
        "remark": "not measured",
    }


def _printed(printed: Printed, told: PaperTable) -> dict[str, Cell]:
    return {
        "kind": "paper",
        "cohort": printed.cohort,
        "system": f"{printed.method}, as printed",
        "views": printed.views,
        "ssim": printed.ssim,
        "psnr": printed.psnr,
        "mse": printed.mse,
        "mae": printed.mae,
        "definition": told.definition,
        "remark": printed.remark or None,
    }


def _caption(told: PaperTable, study: Study) -> str:
    ours = {
        "window": "ours on a fixed HU window and",
        "minmax": "ours, on min–max scaling too, on",
    }[study.scaling]
    return (
        f"Mode rc2024 (×2000 as integers, peak 4095), test splits. Rows as printed are from {paper.SOURCE}, "
        f"on per-volume min–max scaling and the paper's choice of scans; {ours} the scans in these stores. "
        f"They stand side by side, and are no comparison. {INTERVAL} {SPREAD}"
    ) + (f" {told.note}" if told.note else "")
