"""What each system loses without each of its views."""

from __future__ import annotations

from collections.abc import Sequence

from xr2ct.errors import UserError
from xr2ct.evaluation.left_out import read_left_out
from xr2ct.evaluation.results import Result
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
    Column("left_out", "View left out", "g"),
    Column("stand_in", "In its place"),
    Column("patients", "Patients", "d"),
    Column("psnr", "PSNR dB", ".2f"),
    Column("psnr_change", "Change dB", "+.2f"),
    Column("interval", "95 %", right=True),
    Column("ssim_change", "SSIM change", "+.3f"),
    Column("mae_hu_change", "MAE HU change", "+.1f"),
    Column("lungs_mae_hu_change", "Lungs MAE HU change", "+.1f"),
)
_STAND_INS = {"mean": "mean training view", "zero": "zeros"}
_CAPTION = (
    "Mode honest, test splits. Each view in turn is replaced at evaluation and the others stay; the mapper "
    "is not trained again. Change: to the same checkpoint with all views, paired by patient, averaged over "
    "seeds, with the 95 % interval of a bootstrap over patients; below 0 dB the view is missed. A mapper "
    "that never learnt without a view may lose more than the view is worth."
)


@exhibit("leave-one-out")
def make_leave_one_out(study: Study) -> Table | None:
    """By cohort, system and view; of each run's best checkpoint. None where nobody has two views.

    Raises `UserError` where views could be left out and none was.
    """
    able = [system for system in study.systems if len(system.experiment.data.views) > 1]
    rows = [row for system in able for row in _rows(study, system)]
    if not rows:
        if able:
            raise UserError("no view was left out yet: `xr2ct evaluate RUN --leave-out` does it")
        return None
    cohorts = {cohort: place for place, (cohort, _) in enumerate(study.pairs)}
    rows.sort(key=lambda row: cohorts[str(row["cohort"])])  # stable: systems and views stay in order
    return Table("leave-one-out", "One view left out", _CAPTION, _COLUMNS, rows)


def _rows(study: Study, system: System) -> list[dict[str, Cell]]:
    found: dict[tuple[str, str, float], list[Result]] = {}
    for run in system.runs:
        best = step_name(run.best_step() or 0)
        for told, result in read_left_out(run):
            if told.checkpoint == best and result.split == "test":
                found.setdefault((result.cohort, told.fill, told.angle), []).append(result)
    angles = system.experiment.data.views
    keys = sorted(found, key=lambda key: (order((key[0], "test")), key[1], angles.index(key[2])))
    return [_row(study, system, key, found[key]) for key in keys]


def _row(
    study: Study, system: System, key: tuple[str, str, float], without: Sequence[Result]
) -> dict[str, Cell]:
    cohort, fill, angle = key
    seeds = {result.run for result in without}
    whole = [r for r in study.results(system, cohort, "test") if r.run in seeds]
    change = difference(without, whole, "honest/psnr")
    return {
        "kind": "ours",
        "cohort": cohort,
        "system": system.label,
        "left_out": angle,
        "stand_in": _STAND_INS[fill],
        "patients": change.patients,
        "psnr": mean(without, "honest/psnr"),
        "psnr_change": change.mean,
        "interval": interval(change.low, change.high, signed=True),
        **{name: difference(without, whole, column).mean for name, column in CHANGES.items()},
    }
