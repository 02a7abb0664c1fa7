"""The report's tables: ours with intervals, the priors beside them, and the paper's figures as printed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from xr2ct.evaluation.intervals import bootstrap_mean
from xr2ct.evaluation.results import Result
from xr2ct.reporting import paper
from xr2ct.reporting.table import Cell, Column, Table

SOURCES = {
    "prior-mean": "mean chest (prior)",
    "prior-nearest": "nearest patient (prior)",
    "truth": "the truth itself",
}
"""Results without a checkpoint, by their folder's name."""

_LABELS = (Column("cohort", "Cohort"), Column("split", "Split"), Column("method", "Method"))
_PAPERS = (
    Column("cohort", "Cohort"),
    Column("method", "Method"),
    Column("views", "Views", "d"),
    Column("ssim", "SSIM", ".3f"),
    Column("psnr", "PSNR dB", ".2f"),
    Column("mse", "MSE", ".4f"),
    Column("mae", "MAE", ".4f"),
)
_NOT_COMPARABLE = (
    "Rows marked as printed are from Corona-Figueroa et al. 2024, on per-volume min–max scaling and the "
    "published cohorts' scans; ours are on {scaling} and the scans in these stores. They stand side by side, "
    "and are no comparison."
)


def cohort_table(results: Iterable[Result]) -> Table:
    """Every cohort by method under `honest`, with the re-projection error and its floor."""
    rows = [_honest_row(r) for r in ordered(results)]
    columns = (
        *_LABELS,
        Column("patients", "Patients", "d"),
        Column("psnr", "PSNR dB", ".2f"),
        Column("interval", "95 %"),
        Column("ssim", "SSIM", ".3f"),
        Column("mae_hu", "MAE HU", ".1f"),
        Column("body_psnr", "Body PSNR dB", ".2f"),
        Column("lungs_mae_hu", "Lungs MAE HU", ".1f"),
        Column("reprojection", "Re-projection", ".4f"),
    )
    caption = (
        "Mode honest: HU window as [0, 1], whole volume, peak 1, 3D SSIM; means over patients with the "
        "bootstrap's 95 % interval of the PSNR. Re-projection: relative L2 of the volume projected again, "
        "against the X-rays that came in; the truth's row is what the volume's grid alone costs. The "
        "checkpoint was chosen on the training cohort's validation split alone."
    )
    return Table("cohorts", "Cohorts", caption, columns, rows)


def paper_table2(results: Iterable[Result], scaling: str) -> Table:
    """The paper's Table 2 with ours beside it, both under `rc2024`."""
    ours = [r for r in ordered(results) if r.split == "test"]
    rows: list[Mapping[str, Cell]] = []
    for cohort in dict.fromkeys(p.cohort for p in paper.TABLE2):
        rows += [_rc2024_row(r) for r in ours if r.cohort == cohort and r.source != "truth"]
        rows += [_printed_row(p) for p in paper.TABLE2 if p.cohort == cohort]
    caption = (
        f"Mode rc2024 (×2000 as integers, peak 4095). {_NOT_COMPARABLE.format(scaling=_scaling(scaling))}"
    )
    return Table("paper-table2", "Cohorts by method (the paper's Table 2)", caption, _PAPERS, rows)


def paper_table1(results: Iterable[Result], scaling: str) -> Table:
    """The paper's Table 1 with ours beside it: by number of views, in and out of distribution."""
    ours = [r for r in ordered(results) if r.split == "test" and r.step is not None]
    rows: list[Mapping[str, Cell]] = []
    for cohort in dict.fromkeys(p.cohort for p in paper.TABLE1):
        mine = sorted((r for r in ours if r.cohort == cohort), key=lambda r: len(r.views))
        rows += [_rc2024_row(r) for r in mine]
        rows += [_printed_row(p) for p in paper.TABLE1 if p.cohort == cohort]
    caption = f"Mode rc2024. {_NOT_COMPARABLE.format(scaling=_scaling(scaling))}"
    return Table("paper-table1", "Number of views (the paper's Table 1)", caption, _PAPERS, rows)


def modes_table(results: Iterable[Result]) -> Table:
    """The chosen checkpoint under every metric definition side by side."""
    rows: list[Mapping[str, Cell]] = []
    columns = (
        "honest/psnr",
        "rc2024/psnr",
        "x2ct_3d/psnr",
        "x2ct_slice/psnr",
        "psct/psnr",
        "psct/psnr_slice",
    )
    similar = ("honest/ssim", "rc2024/ssim", "x2ct_slice/ssim")
    for result in ordered(results):
        if result.step is not None:
            rows.append(_labels(result) | {key: result.mean(key) for key in (*columns, *similar)})
    heads = [Column(key, f"{key.split('/')[0]} {_metric(key)}", ".2f") for key in columns]
    heads += [Column(key, f"{key.split('/')[0]} SSIM", ".3f") for key in similar]
    caption = (
        "One reconstruction, every published definition: the columns differ by definition, not by quality."
    )
    return Table("modes", "The same volumes under every metric mode", caption, (*_LABELS, *heads), rows)


def checkpoint_table(results: Iterable[Result]) -> Table:
    """Every checkpoint on every cohort, honest PSNR."""
    scored = [r for r in results if r.step is not None]
    pairs = sorted({(r.cohort, r.split) for r in scored}, key=_cohort_order)
    by_step: dict[tuple[str, int], dict[str, Cell]] = {}
    for r in scored:
        assert r.step is not None
        row = by_step.setdefault((r.run, r.step), {"run": r.run, "step": r.step})
        row[f"{r.cohort}-{r.split}"] = r.mean("honest/psnr")
    columns = [Column("run", "Run"), Column("step", "Step", "d")]
    columns += [Column(f"{c}-{s}", f"{c} {s}", ".2f") for c, s in pairs]
    caption = "Honest PSNR in dB, means over patients. Step 0 is the network as drawn."
    return Table(
        "checkpoints", "Every checkpoint", caption, tuple(columns), [by_step[key] for key in sorted(by_step)]
    )


def _honest_row(result: Result) -> dict[str, Cell]:
    if result.source == "truth":
        return _labels(result) | {"reprojection": result.mean("reprojection/relative_l2")}
    low, high = bootstrap_mean(result.column("honest/psnr"))[1:]
    return _labels(result) | {
        "psnr": result.mean("honest/psnr"),
        "interval": f"{low:.2f}–{high:.2f}",
        "ssim": result.mean("honest/ssim"),
        "mae_hu": result.mean("honest/mae_hu"),
        "body_psnr": result.mean("honest_body/psnr"),
        "lungs_mae_hu": result.mean("honest_lungs/mae_hu"),
        "reprojection": result.mean("reprojection/relative_l2"),
    }


def _rc2024_row(result: Result) -> dict[str, Cell]:
    metrics = {key: result.mean(f"rc2024/{key}") for key in ("ssim", "psnr", "mse", "mae")}
    return _labels(result) | {"views": len(result.views)} | metrics


def _printed_row(row: paper.Printed) -> dict[str, Cell]:
    return {
        "kind": "paper",
        "cohort": row.cohort,
        "method": f"{row.method}, as printed",
        "views": row.views,
        "ssim": row.ssim,
        "psnr": row.psnr,
        "mse": row.mse,
        "mae": row.mae,
    }


def _labels(result: Result) -> dict[str, Cell]:
    ours = result.step is not None
    return {
        "kind": "ours" if ours else "prior",
        "cohort": result.cohort,
        "split": result.split,
        "method": f"{result.run}, step {result.step}" if ours else SOURCES.get(result.source, result.source),
        "patients": len(result.rows),
    }


def ordered(results: Iterable[Result]) -> Sequence[Result]:
    """The paper's cohorts, then others; validation before test; checkpoints, priors, the truth."""

    def key(r: Result) -> tuple[Any, ...]:
        return (*_cohort_order((r.cohort, r.split)), r.step is None, r.source == "truth", r.source, r.run)

    return sorted(results, key=key)


def _cohort_order(pair: tuple[str, str]) -> tuple[int, str, str]:
    """A laboratory's own cohorts after the paper's."""
    cohort, split = pair
    order = [p.cohort for p in paper.TABLE2]
    place = order.index(cohort) if cohort in order else len(order)
    return (place, cohort, {"val": "a", "test": "b"}.get(split, "c"))


def _scaling(scaling: str) -> str:
    return "a fixed HU window" if scaling == "window" else "per-volume min–max scaling"


def _metric(key: str) -> str:
    return "PSNR a slice" if key.endswith("_slice") else "PSNR"
