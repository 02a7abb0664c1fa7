"""What reconstructions know of their own errors: covered as stated or not, and where they doubt.

Of each run's best checkpoint in every way that has doubt (`evaluation.ways`).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from scipy.stats import spearmanr
from torch import Tensor

from xr2ct.config import Way
from xr2ct.errors import WorkFailed
from xr2ct.evaluation.doubt import LEVELS
from xr2ct.evaluation.metrics import PRIMARY
from xr2ct.evaluation.pairs import Stores
from xr2ct.evaluation.results import Result
from xr2ct.evaluation.truth import Truth, read_truths
from xr2ct.evaluation.ways import load_ways, read_ways
from xr2ct.loading.loader import sequential
from xr2ct.reconstruction.beams import Beams
from xr2ct.reconstruction.calibration import read_calibration
from xr2ct.reconstruction.unseen import unseen
from xr2ct.reporting import pictures
from xr2ct.reporting.chart import Chart, Panel, Series
from xr2ct.reporting.exhibit import exhibit
from xr2ct.reporting.gallery import Gallery
from xr2ct.reporting.patients import choose
from xr2ct.reporting.pictures import Picture
from xr2ct.reporting.statistics import by_case, mean
from xr2ct.reporting.study import Study, order
from xr2ct.reporting.systems import System
from xr2ct.reporting.table import Cell, Column, Table
from xr2ct.run import step_name
from xr2ct.store import Store
from xr2ct.weights import checkpoint_geometry

log = logging.getLogger(__name__)

_REGIONS = {"whole volume": "doubt", "body": "doubt_body", "lungs": "doubt_lungs"}
_SHOWN = ("CT", "reconstruction", "|error|", "doubt", "unseen")
_PLANES = ("axial", "coronal")
_MOST_HU, _MOST_UNSEEN_HU = 400.0, 800.0
"""What is light yellow: of error and doubt alike, and of the unseen part."""

_COLUMNS = (
    Column("cohort", "Cohort"),
    Column("system", "System"),
    Column("way", "Way"),
    Column("patients", "Patients", "d"),
    Column("raw_95", "95 % before", ".3f"),
    *(Column(f"coverage_{level}", f"{level} %", ".3f") for level in LEVELS if level != 50),
    Column("calibration_error", "Calibration error", ".3f"),
    Column("body_95", "Body 95 %", ".3f"),
    Column("lungs_95", "Lungs 95 %", ".3f"),
    Column("sd_hu", "SD HU", ".1f"),
    Column("nll", "NLL", ".3f"),
    Column("spearman", "Correlation", ".3f"),
    Column("body_spearman", "Body correlation", ".3f"),
    Column("of_patients", "Between patients", "+.2f"),
)
_CELLS = {
    **{f"coverage_{level}": f"doubt/coverage_{level}" for level in LEVELS},
    "calibration_error": "doubt/calibration_error",
    "body_95": "doubt_body/coverage_95",
    "lungs_95": "doubt_lungs/coverage_95",
    "sd_hu": "doubt/sd_hu",
    "nll": "doubt/nll",
    "spearman": "doubt/spearman",
    "body_spearman": "doubt_body/spearman",
}
_CAPTION = (
    "Test splits, doubt calibrated on the validation split. 68, 90, 95 %: share of the voxels whose error "
    "lies within the normal interval of that level. 95 % before: that share on the validation split with the "
    "deviation as it came out of the draws. Calibration error: mean over levels from 5 to 95 % of the "
    "distance between share and level. NLL: nats a voxel of the errors in HU. Correlation: Spearman's of "
    "doubt with |error| over voxels, mean over patients. Between patients: Spearman's of a patient's mean "
    "doubt with the mean |error| over the whole volume."
)


@dataclass(frozen=True)
class _Doubted:
    """A system's results in one way on a cohort's test split, one a seed."""

    system: System
    label: str
    cohort: str
    results: list[Result]


@exhibit("doubt-scores")
def make_doubt_scores(study: Study) -> Table | None:
    """By cohort, system and way. None where nobody doubts."""
    rows = [_row(study, told) for told in _doubted(study)]
    return Table("doubt-scores", "Doubt against error", _CAPTION, _COLUMNS, rows) if rows else None


@exhibit("reliability")
def make_reliability(study: Study) -> Chart | None:
    """Shares covered against levels stated, for the training cohort; a panel for each region."""
    found = [told for told in _doubted(study) if told.cohort == told.system.experiment.data.cohort]
    if not found:
        return None
    levels = tuple(float(level) for level in LEVELS)
    stated = Series("as stated", (0.0, *levels, 100.0), (0.0, *levels, 100.0), marker=None, light=True)
    panels = []
    for region, mode in _REGIONS.items():
        covered = [
            Series(
                _label(study, told),
                levels,
                tuple(100 * mean(told.results, f"{mode}/coverage_{level}") for level in LEVELS),
            )
            for told in found
        ]
        panels.append(Panel("stated, %", "covered, %", (stated, *covered), title=region))
    caption = (
        "Share of the voxels whose error lies within the interval that the doubt states, mean over the test "
        "patients. Above the line doubt is too large, below it too small."
    )
    return Chart("reliability", "Doubt, stated and found", caption, tuple(panels))


@exhibit("doubt")
def make_doubt(study: Study) -> Gallery | None:
    """Planes of the training cohort's median patient: truth, volume, error, doubt, and what is unseen."""
    found = [told for told in _doubted(study) if told.cohort == told.system.experiment.data.cohort]
    rows: list[str] = []
    grid: list[tuple[Picture | None, ...]] = []
    for told in found:
        scores = {row["case"]: row[PRIMARY] for row in told.results[0].rows}
        case = choose(scores)["median"]
        try:
            planes = _planes(told, case)
        except WorkFailed as failure:
            log.warning("%s: no picture of its doubt: %s", _label(study, told), failure)
            continue
        for plane in _PLANES:
            rows.append(f"{_label(study, told)}, {plane}")
            grid.append(planes[plane])
    if not rows:
        return None
    low, high = pictures.DISPLAY_HU
    caption = (
        "Middle planes of the patient with the median honest PSNR in each way; CT and reconstruction on "
        f"{low:g} to {high:g} HU, |error| and doubt (one standard deviation) both on 0 to {_MOST_HU:g} HU. "
        "Unseen: the size of the part of the reconstruction that leaves no trace in the views, on 0 to "
        f"{_MOST_UNSEEN_HU:g} HU; under it that part's share of the whole."
    )
    return Gallery("doubt", "Doubt beside error", caption, _SHOWN, tuple(rows), tuple(grid))


def _doubted(study: Study) -> Iterator[_Doubted]:
    """By cohort, then by system and way."""
    found: dict[tuple[str, str, str], _Doubted] = {}
    for system in study.systems:
        for run in system.runs:
            best = step_name(study.best(run))
            for told, result in read_ways(run):
                if told.checkpoint != best or result.split != "test" or not result.column("doubt/sd_hu"):
                    continue
                key = (result.cohort, system.label, told.label)
                found.setdefault(key, _Doubted(system, told.label, result.cohort, [])).results.append(result)
    places = {system.label: place for place, system in enumerate(study.systems)}
    keys = sorted(found, key=lambda key: (order((key[0], "test")), places[key[1]], key[2]))
    return (found[key] for key in keys)


def _row(study: Study, told: _Doubted) -> dict[str, Cell]:
    patients = {patient for result in told.results for patient in result.patients.values()}
    return {
        "kind": "ours",
        "cohort": told.cohort,
        "system": told.system.label,
        "way": told.label,
        "patients": len(patients),
        "raw_95": _before(study, told),
        **{key: mean(told.results, column) for key, column in _CELLS.items()},
        "of_patients": _between_patients(told.results),
    }


def _before(study: Study, told: _Doubted) -> float | None:
    """Mean over seeds, of those whose calibration is there."""
    shares = []
    for run in told.system.runs:
        calibration = read_calibration(run.checkpoint(study.best(run)), told.label)
        if calibration is not None:
            shares.append(calibration.coverage_before[95])
    return sum(shares) / len(shares) if shares else None


def _between_patients(results: list[Result]) -> float:
    doubts, errors = by_case(results, "doubt/sd_hu"), by_case(results, "honest/mae_hu")
    if len(doubts) < 3:
        return math.nan
    return float(spearmanr([doubts[case] for case in doubts], [errors[case] for case in doubts])[0])


def _label(study: Study, told: _Doubted) -> str:
    return told.label if len(study.systems) == 1 else f"{told.system.label}, {told.label}"


def _planes(told: _Doubted, case: str) -> dict[str, tuple[Picture, ...]]:
    """By plane what `_SHOWN` names."""
    truth, volume, doubt = _reconstructed(told, case)
    low, high = pictures.DISPLAY_HU
    experiment = told.system.experiment
    assert experiment.resolved is not None
    beams = Beams(
        checkpoint_geometry(experiment), experiment.data.views, experiment.resolved.cube_mm, truth.window
    )
    part = unseen(volume, beams)
    hu = truth.window.to_hu
    made, true = hu(volume).numpy(), hu(truth.unit).numpy()
    of = [pictures.planes(v) for v in (true, made, made - true, doubt.numpy() * truth.window.width)]
    lost = pictures.planes(part.part_hu.numpy())
    return {
        plane: (
            pictures.grey(of[0][plane], low, high),
            pictures.grey(of[1][plane], low, high),
            pictures.heat(abs(of[2][plane]), _MOST_HU),
            pictures.heat(of[3][plane], _MOST_HU),
            pictures.heat(abs(lost[plane]), _MOST_UNSEEN_HU, f"{100 * part.fraction:.0f} %"),
        )
        for plane in _PLANES
    }


def _reconstructed(told: _Doubted, name: str) -> tuple[Truth, Tensor, Tensor]:
    """A case as the system's first run makes it in that way: truth, volume and doubt (z, y, x)."""
    run = told.system.runs[0]
    experiment = told.system.experiment
    device = torch.device("cpu")
    store = Store.open(experiment.data.store(told.cohort))
    (case,) = (c for c in store.cases if c.id == name)
    batch = next(iter(sequential(store, [case], experiment.data, batch=1, device=device)))
    truths = read_truths(store, {name: case}, batch, experiment.data, reproject=True)
    step = run.best_step()
    assert step is not None
    way = _way(told.label)
    (predictor,) = load_ways(run, experiment, step, [way], device, Stores()).values()
    made = predictor(batch, truths)
    assert made.doubt is not None
    return truths[0], made.volumes[0, 0].float().clamp(0, 1), made.doubt[0]


def _way(label: str) -> Way:
    """Of `config.Way.label`."""
    return Way.model_validate(dict(part.split("-", 1) for part in label.split("+")))
