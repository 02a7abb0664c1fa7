"""Every system on every cohort: how sharp its volumes are, and how much of their detail is the truth's."""

from __future__ import annotations

from xr2ct.evaluation.metrics import PRIMARY
from xr2ct.reporting.exhibit import exhibit
from xr2ct.reporting.rows import LABELS, SEEDS, fitted, scored
from xr2ct.reporting.statistics import mean
from xr2ct.reporting.study import Study
from xr2ct.reporting.table import Column, Table

_CAPTION = (
    "Sharp is one thing and true another. Sharpness: power above half of the grid's highest frequency, over "
    "the truth's; 1 is the truth's, less is blurred, more is noisy, wherever the detail lies. Spectrum: "
    "log-spectral distance. FSC: Fourier shell correlation with the truth, the mean over all scales: 1 where "
    "the detail lies as in the truth, however faint. True down to: the finest detail where it is 0.5. GMSD: "
    "gradient magnitude similarity deviation of slices, less is better. Means over seeds, then over patients."
)
_COLUMNS = {
    "sharpness": "spectral/sharpness",
    "lsd_db": "spectral/lsd_db",
    "fsc": "spectral/fsc",
    "resolution_mm": "spectral/resolution_mm",
    "gmsd": "perceptual/gmsd",
    "psnr": PRIMARY,
}


@exhibit("detail")
def detail(study: Study) -> Table:
    """The spectral and the perceptual modes beside the honest PSNR."""
    columns = (
        *LABELS,
        SEEDS,
        Column("sharpness", "Sharpness", ".3f"),
        Column("lsd_db", "Spectrum dB", ".2f"),
        Column("fsc", "FSC", ".3f"),
        Column("resolution_mm", "True down to mm", ".1f"),
        Column("gmsd", "GMSD", ".4f"),
        Column("psnr", "PSNR dB", ".2f"),
    )
    rows = [
        one.labels() | {key: mean(one.results, column) for key, column in _COLUMNS.items()}
        for one in scored(study)
        if one.system.kind != "truth"
    ]
    return Table("detail", "Sharpness and truth", _CAPTION, fitted(columns, rows), rows)
