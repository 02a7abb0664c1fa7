"""What the paper prints: Corona-Figueroa, Shum, Willcocks, "Repeat and Concatenate", 2024.

All of it is in the metric mode `rc2024` and on per-volume min–max scaling, so it stands beside figures on a
fixed HU window only with that said. MSE and MAE are printed on [0, 1].
"""

from __future__ import annotations

from dataclasses import dataclass

MODE = "rc2024"
SCALING = "minmax"
SOURCE = "Corona-Figueroa et al. 2024"


@dataclass(frozen=True)
class Printed:
    """One row of a printed table."""

    cohort: str
    method: str
    views: int
    ssim: float
    psnr: float
    mse: float
    mae: float


def _table1(cohort: str, *rows: tuple[str, int, float, float, float, float]) -> tuple[Printed, ...]:
    return tuple(Printed(cohort, *row) for row in rows)


OURS = "repeat and concatenate"
NOISE = "one view and noise"

TABLE1 = (
    *_table1(
        "lidc-idri",
        (NOISE, 1, 0.2337, 20.2827, 0.0403, 0.1342),
        (OURS, 1, 0.4891, 23.2198, 0.0214, 0.0751),
        (OURS, 2, 0.5272, 24.3192, 0.0180, 0.0665),
        (OURS, 4, 0.5129, 24.3358, 0.0167, 0.0666),
        (OURS, 8, 0.5402, 24.6352, 0.0155, 0.0613),
    ),
    *_table1(
        "midrc-ricord-1b",
        (NOISE, 1, 0.1353, 15.3223, 0.0800, 0.2334),
        (OURS, 1, 0.4043, 20.0800, 0.0526, 0.1510),
        (OURS, 2, 0.4048, 20.3636, 0.0505, 0.1474),
        (OURS, 4, 0.3779, 21.2115, 0.0439, 0.1337),
        (OURS, 8, 0.2029, 17.7972, 0.0777, 0.2029),
    ),
)
"""By number of views, trained on LIDC-IDRI. The MIDRC noise row (MSE 0.0800 at 15.32 dB) fits none of the
known metric definitions."""


def _table2(cohort: str, *rows: tuple[float, float, float, float]) -> tuple[Printed, ...]:
    methods = ("X2CT-GAN", "CCX-rayNet", OURS)
    return tuple(Printed(cohort, method, 2, *row) for method, row in zip(methods, rows, strict=True))


TABLE2 = (
    *_table2(
        "lidc-idri",
        (0.321, 19.68, 0.045, 0.151),
        (0.386, 22.66, 0.032, 0.108),
        (0.527, 24.35, 0.018, 0.066),
    ),
    *_table2(
        "covid-19-ny-sbu",
        (0.236, 16.74, 0.089, 0.199),
        (0.205, 19.03, 0.054, 0.144),
        (0.400, 22.78, 0.022, 0.077),
    ),
    *_table2(
        "spie-aapm",
        (0.174, 15.63, 0.115, 0.245),
        (0.130, 17.87, 0.080, 0.196),
        (0.399, 22.04, 0.026, 0.087),
    ),
    *_table2(
        "midrc-ricord-1b",
        (0.220, 14.70, 0.156, 0.360),
        (0.114, 18.06, 0.076, 0.228),
        (0.404, 20.36, 0.050, 0.147),
    ),
    *_table2(
        "anti-pd-1",
        (0.286, 18.04, 0.072, 0.164),
        (0.205, 18.15, 0.067, 0.167),
        (0.349, 20.93, 0.040, 0.112),
    ),
    *_table2(
        "lctsc",
        (0.326, 19.20, 0.052, 0.125),
        (0.206, 19.75, 0.062, 0.156),
        (0.331, 20.38, 0.040, 0.109),
    ),
    *_table2(
        "nsclc-radiomics",
        (0.280, 18.13, 0.072, 0.163),
        (0.122, 16.62, 0.093, 0.216),
        (0.315, 19.85, 0.047, 0.126),
    ),
)
"""By cohort and method, two views."""
