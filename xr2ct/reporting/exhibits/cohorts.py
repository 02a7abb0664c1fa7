"""Every system on every cohort: under the honest definition, and under all published ones side by side."""

from __future__ import annotations

from xr2ct.evaluation import metrics
from xr2ct.evaluation.metrics import PRIMARY
from xr2ct.reporting.exhibit import exhibit
from xr2ct.reporting.rows import (
    INTERVAL,
    LABELS,
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

REPROJECTION = "reprojection/relative_l2"


@exhibit("cohorts")
def cohorts(study: Study) -> Table:
    """Mode honest, with the re-projection error and its floor."""
    rows = [_honest(one) for one in scored(study)]
    columns = (
        *LABELS,
        SEEDS,
        PATIENTS,
        Column("psnr", "PSNR dB", ".2f"),
        Column("interval", "95 %", right=True),
        Column("spread", "SD of seeds", ".2f"),
        Column("ssim", "SSIM", ".3f"),
        Column("mae_hu", "MAE HU", ".1f"),
        Column("body_psnr", "Body PSNR dB", ".2f"),
        Column("lungs_mae_hu", "Lungs MAE HU", ".1f"),
        Column("reprojection", "Re-projection", ".4f"),
    )
    window = "the HU window" if study.scaling == "window" else "each volume's own range (min–max)"
    caption = (
        f"Mode honest: {window} as [0, 1], whole volume, peak 1, 3D SSIM; means over seeds, then over "
        f"patients. {INTERVAL} {SPREAD} Re-projection: relative L2 of the volume projected again, against "
        "the X-rays that came in; the truth's row is what the volume's grid alone costs. Each run's "
        "checkpoint was chosen on the training cohort's validation split alone."
    )
    return Table("cohorts", "Cohorts", caption, fitted(columns, rows), rows)


@exhibit("modes")
def modes(study: Study) -> Table:
    """Every metric mode of the same volumes."""
    keys = [key for key in metrics.COLUMNS if key.split("/")[1] in ("psnr", "psnr_slice", "ssim")]
    columns = (*LABELS, SEEDS, *(Column(key, _head(key), ".3f" if "ssim" in key else ".2f") for key in keys))
    rows = [
        one.labels() | {key: mean(one.results, key) for key in keys}
        for one in scored(study)
        if one.system.kind != "truth"
    ]
    caption = (
        "One reconstruction, every published definition: the columns differ by definition, not by quality. "
        "PSNR in dB; means over seeds, then over patients. honest: peak 1 over the volume, and over the "
        "body's or the lungs' voxels; rc2024: ×2000 as integers, peak 4095; x2ct: ×2500, peak 4095, over the "
        "volume or averaged over slices; psct: ×2500, peak 2500."
    )
    return Table("modes", "The same volumes under every metric mode", caption, fitted(columns, rows), rows)


def _honest(one: Scored) -> dict[str, Cell]:
    reprojection = mean(one.results, REPROJECTION)
    if one.system.kind == "truth":
        told = summary(one.results, REPROJECTION)
        return one.labels() | counts(told) | {"reprojection": reprojection}
    told = summary(one.results, PRIMARY)
    return (
        one.labels()
        | counts(told)
        | {
            "psnr": told.mean,
            "interval": interval(told.low, told.high),
            "spread": told.spread,
            "ssim": mean(one.results, "honest/ssim"),
            "mae_hu": mean(one.results, "honest/mae_hu"),
            "body_psnr": mean(one.results, "honest_body/psnr"),
            "lungs_mae_hu": mean(one.results, "honest_lungs/mae_hu"),
            "reprojection": reprojection,
        }
    )


def _head(key: str) -> str:
    mode, metric = key.split("/")
    words = {"psnr": "PSNR", "psnr_slice": "PSNR a slice", "ssim": "SSIM"}
    return f"{mode} {words[metric]}"
