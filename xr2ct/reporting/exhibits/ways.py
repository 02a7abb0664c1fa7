"""What each way of making a checkpoint's volumes brings over one pass of its mapper."""

from __future__ import annotations

from collections.abc import Sequence

from xr2ct.evaluation.results import Result
from xr2ct.evaluation.ways import read_ways
from xr2ct.reporting.exhibit import exhibit
from xr2ct.reporting.rows import CHANGES, interval
from xr2ct.reporting.statistics import difference, mean
from xr2ct.reporting.study import Study, order
from xr2ct.reporting.systems import System
from xr2ct.reporting.table import Cell, Column, Table
from xr2ct.run import step_name

_COLUMNS = (
    Column("cohort", "Cohort"),
    Column("system", "System"),
    Column("way", "Way"),
    Column("patients", "Patients", "d"),
    Column("reprojection", "Re-projection", ".4f"),
    Column("reprojection_mapper", "of the mapper", ".4f"),
    Column("psnr", "PSNR dB", ".2f"),
    Column("psnr_change", "Change dB", "+.2f"),
    Column("interval", "95 %", right=True),
    Column("ssim_change", "SSIM change", "+.4f"),
    Column("mae_hu_change", "MAE HU change", "+.1f"),
    Column("lungs_mae_hu_change", "Lungs MAE HU change", "+.1f"),
    Column("sharpness", "Sharpness", ".3f"),
    Column("fsc", "Shell correlation", ".3f"),
)
_REPROJECTION = "reprojection/relative_l2"
_CAPTION = (
    "Mode honest, test splits. The same checkpoint, its volumes made in another way than by one pass of the "
    "mapper: refined towards the X-rays in at most so many steps, aligned in so many rounds, the mean of so "
    "many samples, or with a standard deviation of each voxel. Change: to the mapper alone, paired by "
    "patient, averaged over seeds, with the 95 % interval of a bootstrap over patients. Re-projection: "
    "relative error against the X-rays that came in; below the truth's own it fits their noise "
    "and the grid. Sharpness: power above half the grid's finest frequency over the truth's, blind to where "
    "it lies; shell correlation: agreement with the truth over all frequencies."
)


@exhibit("ways")
def make_ways(study: Study) -> Table | None:
    """By cohort, system and way; of the best checkpoints. None where nothing was made in another way."""
    rows = [row for system in study.systems for row in _rows(study, system)]
    if not rows:
        return None
    cohorts = {cohort: place for place, (cohort, _) in enumerate(study.pairs)}
    rows.sort(key=lambda row: cohorts[str(row["cohort"])])  # stable: systems and ways stay in order
    return Table("ways", "Ways of making a volume", _CAPTION, _COLUMNS, rows)


def _rows(study: Study, system: System) -> list[dict[str, Cell]]:
    found: dict[tuple[str, str], list[Result]] = {}
    for run in system.runs:
        best = step_name(run.best_step() or 0)
        for told, result in read_ways(run):
            if told.checkpoint == best and result.split == "test":
                found.setdefault((result.cohort, told.label), []).append(result)
    keys = sorted(found, key=lambda key: (order((key[0], "test")), key[1]))
    return [_row(study, system, key, found[key]) for key in keys]


def _row(study: Study, system: System, key: tuple[str, str], made: Sequence[Result]) -> dict[str, Cell]:
    cohort, way = key
    seeds = {result.run for result in made}
    plain = [r for r in study.results(system, cohort, "test") if r.run in seeds]
    change = difference(made, plain, "honest/psnr")
    return {
        "kind": "ours",
        "cohort": cohort,
        "system": system.label,
        "way": way,
        "patients": change.patients,
        "reprojection": mean(made, _REPROJECTION),
        "reprojection_mapper": mean(plain, _REPROJECTION),
        "psnr": mean(made, "honest/psnr"),
        "psnr_change": change.mean,
        "interval": interval(change.low, change.high, signed=True),
        **{name: difference(made, plain, column).mean for name, column in CHANGES.items()},
        "sharpness": mean(made, "spectral/sharpness"),
        "fsc": mean(made, "spectral/fsc"),
    }
