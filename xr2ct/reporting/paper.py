"""What the paper prints: Corona-Figueroa, Shum, Willcocks, "Repeat and Concatenate", 2024.

All of it is in the metric mode `rc2024` and on per-volume min–max scaling, so it stands beside figures on a
fixed HU window only with that said. MSE and MAE are printed on [0, 1], but for Fig. 3's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from xr2ct.config import Experiment

MODE = "rc2024"
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
    remark: str = ""


Place = tuple[str, int]
"""Method and number of views: what a system and a printed row are matched by."""


@dataclass(frozen=True)
class PaperTable:
    """A printed table, and which of our systems each of its rows is about."""

    name: str
    """Of the exhibit."""
    title: str
    rows: tuple[Printed, ...]
    place: Callable[[Experiment], Place | None]
    """Of a configuration, whatever it is called; None where the table has none like it."""
    note: str = ""
    """For the caption."""
    definition: str = f"{MODE}, min–max"
    """What its figures are by."""


def _rows(cohort: str, *rows: tuple[Any, ...]) -> tuple[Printed, ...]:
    return tuple(Printed(cohort, *row) for row in rows)


OURS = "repeat and concatenate"
NOISE = "one view and noise"
X2CT_GAN = "X2CT-GAN"
CCX_RAYNET = "CCX-rayNet"
AUTOENCODER = "2D-3D AE"
AUTOENCODER_L2 = "2D-3D AE + L2 norm."
UNET = "3D-3D U-Net"
NO_ALIGNMENT = "no alignment"
COARSE = "coarse alignment"

_FITS_NONE = "fits none of the known definitions of the metrics"

TABLE1 = (
    *_rows(
        "lidc-idri",
        (NOISE, 1, 0.2337, 20.2827, 0.0403, 0.1342),
        (OURS, 1, 0.4891, 23.2198, 0.0214, 0.0751),
        (OURS, 2, 0.5272, 24.3192, 0.0180, 0.0665),
        (OURS, 4, 0.5129, 24.3358, 0.0167, 0.0666),
        (OURS, 8, 0.5402, 24.6352, 0.0155, 0.0613),
    ),
    *_rows(
        "midrc-ricord-1b",
        (NOISE, 1, 0.1353, 15.3223, 0.0800, 0.2334, _FITS_NONE),
        (OURS, 1, 0.4043, 20.0800, 0.0526, 0.1510),
        (OURS, 2, 0.4048, 20.3636, 0.0505, 0.1474),
        (OURS, 4, 0.3779, 21.2115, 0.0439, 0.1337),
        (OURS, 8, 0.2029, 17.7972, 0.0777, 0.2029),
    ),
)
"""By number of views, trained on LIDC-IDRI."""


_REMARKS = {
    X2CT_GAN: "far below an independent rerun",
    CCX_RAYNET: "trained as X2CT-GAN was, whose figures are far below an independent rerun",
    OURS: "",
}


def _table2(cohort: str, *rows: tuple[float, float, float, float]) -> tuple[Printed, ...]:
    return tuple(
        Printed(cohort, method, 2, *row, remark=remark)
        for (method, remark), row in zip(_REMARKS.items(), rows, strict=True)
    )


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

FIG3 = _rows(
    "lidc-idri",
    (AUTOENCODER, 2, 0.1545, 3.804, 995.2582, 5.81),
    (AUTOENCODER_L2, 2, 0.2086, 10.833, 197.2649, 2.5103),
    (UNET, 2, 0.4787, 22.063, 58.7546, 0.9264),
)
"""2D-3D against 3D-3D, two views. MSE and MAE are on a scale that is not stated; no one peak turns all three
MSE into their PSNR."""

FIG6 = (
    *_rows(
        "lidc-idri",
        (NO_ALIGNMENT, 4, 0.5001, 24.0513, 0.0178, 0.0682),
        (COARSE, 4, 0.4248, 22.5182, 0.0259, 0.0872),
    ),
    *_rows(
        "covid-19-ny-sbu",
        (NO_ALIGNMENT, 4, 0.3581, 21.9844, 0.0272, 0.0881),
        (COARSE, 4, 0.3365, 21.0851, 0.0340, 0.1026),
    ),
)
"""Four oblique views."""


def method_of(experiment: Experiment) -> str | None:
    """The row of Tables 1 and 2 that a system is of, by its networks, objective and lift; None for none."""
    trained_by, mapper = experiment.method["name"], experiment.mapper["name"]
    if trained_by == "gan":
        return {"x2ct-gan": X2CT_GAN, "ccx-raynet": CCX_RAYNET}.get(mapper)
    if (trained_by, mapper) != ("neural-ot", "swin-unetr"):
        return None
    return {"repeat": OURS, "noise": NOISE}.get(experiment.lift.kind)


def _table1_place(experiment: Experiment) -> Place | None:
    method, views = method_of(experiment), experiment.data.views
    aligned = _apart(views, 90) or (len(views) == 8 and _apart(views, 45))
    return (method, len(views)) if method in (OURS, NOISE) and aligned else None


def _table2_place(experiment: Experiment) -> Place | None:
    method, views = method_of(experiment), experiment.data.views
    return (method, len(views)) if method and _apart(views, 90) else None


def _fig3_place(experiment: Experiment) -> Place | None:
    mapper, views = experiment.mapper, experiment.data.views
    if experiment.method["name"] != "neural-ot" or not _apart(views, 90):
        return None
    if mapper["name"] == "autoencoder":
        return (AUTOENCODER_L2 if mapper.get("l2_normalise") else AUTOENCODER, len(views))
    return (UNET, len(views)) if mapper["name"] == "unet" and experiment.lift.kind == "repeat" else None


def _fig6_place(experiment: Experiment) -> Place | None:
    like_ours = (experiment.method["name"], experiment.mapper["name"]) == ("neural-ot", "swin-unetr")
    if not like_ours or set(experiment.data.views) != {45, 135, 225, 315}:
        return None
    method = {"repeat": NO_ALIGNMENT, "rotate": COARSE}.get(experiment.lift.kind)
    return (method, 4) if method else None


def _apart(views: tuple[float, ...], step_deg: float) -> bool:
    return all(angle % step_deg == 0 for angle in views)


TABLES = (
    PaperTable("paper-table1", "Number of views (the paper's Table 1)", TABLE1, _table1_place),
    PaperTable(
        "paper-table2",
        "Cohorts by method (the paper's Table 2)",
        TABLE2,
        _table2_place,
        "The rows printed for the compared systems are below what these reach elsewhere: of X2CT-GAN on "
        "LIDC-IDRI an independent rerun gives an SSIM of 0.645, not 0.321.",
    ),
    PaperTable(
        "paper-fig3",
        "2D-3D against 3D-3D (the paper's Fig. 3)",
        FIG3,
        _fig3_place,
        "Fig. 3's MSE and MAE are printed on a scale that is not stated, and no one peak turns all three MSE "
        "into their PSNR: not comparable with any other figure, not with the paper's own tables either.",
        definition="not stated",
    ),
    PaperTable("paper-fig6", "Oblique views by alignment (the paper's Fig. 6)", FIG6, _fig6_place),
)
