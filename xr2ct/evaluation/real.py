"""A patient's real radiographs against the CT taken within some days of them.

    evaluate_real(Run.open("runs/x"), "best", days=7)

The volume is reconstructed from radiographs alone. A patient stands for these and lies for the CT, breathes
in another depth, and nothing aligns the two, so that no voxel can be compared with a voxel. What can be told:

    lung/…              the lungs that `cohorts.lungs` finds in either volume: millilitres, and how well they
                        overlap (Dice), as both lie and with the centres of the lungs moved onto each other;
                        neither turned nor scaled
    reprojection/…      the volume projected again against the radiograph, whose gain and offset are fitted
                        for each view: the part of the radiograph's variation (a root mean square) that is
                        left unexplained, within what it shows; `truth` is the same of the CT, moved in
                        the plane of each picture by up to 50 mm to where it explains most
    xrays/…             how far the radiographs lie from the training X-rays (`reconstruction.familiar`), of
                        the view that is farthest

RUN/evaluations/step-000500~real/COHORT-SPLIT.csv has a row a case, and is made anew each time.
"""

from __future__ import annotations

import csv
import io
import logging
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from tqdm import tqdm

from xr2ct.cohorts.lungs import lung_mask
from xr2ct.config import Experiment
from xr2ct.errors import UserError, WorkFailed
from xr2ct.evaluation.pairs import Pair, Stores, find_pairs
from xr2ct.evaluation.reprojection import project_hu
from xr2ct.evaluation.results import ASIDE, csv_text, number, result_file, views_label
from xr2ct.evaluation.sweep import choose_device, choose_steps
from xr2ct.projection.geometry import VIEW_NAMES
from xr2ct.projection.radiograph import RadiographView, to_view
from xr2ct.projection.views import scale_views
from xr2ct.reconstruct import content_seeds
from xr2ct.reconstruction.familiar import Familiar, load_familiar
from xr2ct.reconstruction.pictures import as_in_training
from xr2ct.run import Run, step_name, write_atomically
from xr2ct.stages import Stages, load_stages
from xr2ct.store import Case, Store, StoredRadiograph
from xr2ct.weights import checkpoint_geometry
from xr2ct.window import HuWindow

log = logging.getLogger(__name__)

DAYS = 7
"""Between CT and radiograph, at most, unless stated."""
MOVED_MM = 50.0
_STEP_MM = 6.0
REAL = f"{ASIDE}real"
LABELS = ("case", "patient", "views", "pictures", "days", "weights")
"""`pictures`: names in the store's radiograph/, and `days` from the CT to each, in the order of `views`."""
COLUMNS = (
    "lung/ml",
    "lung/true_ml",
    "lung/relative_error",
    "lung/dice",
    "lung/dice_centred",
    "lung/shift_mm",
    "reprojection/unexplained",
    "reprojection/truth_unexplained",
    "xrays/distance",
    "xrays/share",
)
SHOWN = (
    "lung/ml",
    "lung/true_ml",
    "lung/relative_error",
    "lung/dice",
    "lung/dice_centred",
    "reprojection/unexplained",
    "reprojection/truth_unexplained",
    "xrays/share",
)
"""What a terminal has room for; `leaderboard.format_leaderboard(real_rows(run), SHOWN)`."""


@dataclass
class RealSweep:
    """What `evaluate_real` did."""

    written: list[Path] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)
    """Case, or cohort, → why it is not scored."""


@dataclass(frozen=True)
class _Taken:
    """The radiographs of a case that a mapper takes."""

    case: Case
    pictures: tuple[StoredRadiograph, ...]
    views: tuple[RadiographView, ...]


def evaluate_real(
    run: Run,
    steps: str | int | Sequence[int] = "best",
    cohorts: Sequence[str] | None = None,
    days: int = DAYS,
    *,
    detector_mm: float | None = None,
    accept: Collection[str] = (),
    device: torch.device | str | None = None,
) -> RealSweep:
    """Score `steps` on every case of the splits that `evaluate` scores whose radiographs the store holds.

    All of the mapper's views have to be among those taken at most `days` from the CT; of several the nearest
    is taken. `detector_mm` and `accept` are as `read_radiograph` has them. Raises `UserError` as `evaluate`
    does, and where there is no such case at all; `WorkFailed` where a reconstruction is not finite.
    """
    experiment = run.experiment()
    chosen, device = choose_steps(run, steps), choose_device(experiment, device)
    sweep = RealSweep()
    how = {"detector_mm": detector_mm, "accept": accept}
    pairs = find_pairs(experiment, cohorts, sweep.missing, Stores())
    taken = [(pair, _find(pair, experiment, days, sweep.missing, **how)) for pair in pairs]
    if not any(cases for _, cases in taken):
        why, views = sorted(set(sweep.missing.values())), views_label(experiment.data.views)
        raise UserError(
            f"{run.path}: no case with radiographs of views {views} within {days} days of the CT: "
            f"{'; '.join(why[:3])}" + (f"; and {len(why) - 3} more" * (len(why) > 3))
        )
    for name, reason in sweep.missing.items():
        log.warning("%s left out: %s", name, reason)
    for step in chosen:
        checkpoint = run.checkpoint(step)
        stages = load_stages(checkpoint, experiment.evaluation.weights, device)
        familiar = load_familiar(checkpoint)
        for pair, cases in taken:
            if not cases:
                continue
            rows = [
                _score(one, pair.store, stages, familiar, device)
                for one in tqdm(cases, desc=f"{pair}, radiographs", unit="patient", disable=None)
            ]
            file = result_file(run, step_name(step) + REAL, pair.store.cohort, pair.split)
            lines = [[*(row[n] for n in LABELS), *(number(row[n]) for n in COLUMNS)] for row in rows]
            write_atomically(file, csv_text([[*LABELS, *COLUMNS], *lines]))
            sweep.written.append(file)
    return sweep


def real_rows(run: Run) -> list[dict[str, Any]]:
    """Means over cases of every such file, in the form of the leaderboard's rows, `step` being the source.

    `patients` are those scored; `lung/relative_error` is the mean of its magnitude.
    """
    rows = []
    for path in sorted(run.evaluations.glob(f"step-*{REAL}/*.csv")):
        cases = read_real(path)
        cohort, _, split = path.stem.rpartition("-")
        means = {column: _mean([_magnitude(column, case[column]) for case in cases]) for column in COLUMNS}
        patients = len({case["patient"] for case in cases})
        rows.append(
            {"step": path.parent.name, "cohort": cohort, "split": split, "patients": patients, **means}
        )
    return rows


def read_real(path: Path) -> list[dict[str, Any]]:
    """A file's rows: `LABELS` as text, `COLUMNS` as numbers, NaN where a metric is not defined."""
    lines = csv.DictReader(io.StringIO(path.read_text(encoding="utf-8")))
    return [
        {**{n: line[n] for n in LABELS}, **{n: float(line[n]) if line[n] else math.nan for n in COLUMNS}}
        for line in lines
    ]


def _find(
    pair: Pair,
    experiment: Experiment,
    days: int,
    missing: dict[str, str],
    **how: Any,
) -> list[_Taken]:
    """Cases whose radiographs show all views; why another's do not goes into `missing`."""
    found = []
    for case in pair.cases:
        pictures = pair.store.radiographs(case)
        near = [p for p in pictures if (d := p.attributes["days_after_ct"]) is not None and abs(d) <= days]
        near.sort(key=lambda p: abs(p.attributes["days_after_ct"]))
        if not near:
            missing[case.id] = f"none of its {len(pictures)} radiographs is within {days} days"
            continue
        try:
            chosen = [_one(angle, near, experiment, **how) for angle in experiment.data.views]
        except UserError as error:
            missing[case.id] = str(error)
            continue
        found.append(_Taken(case, tuple(p for p, _ in chosen), tuple(v for _, v in chosen)))
    return found


def _one(
    angle: float, pictures: Sequence[StoredRadiograph], experiment: Experiment, **how: Any
) -> tuple[StoredRadiograph, RadiographView]:
    """The first that shows the view at `angle`; `UserError` with why each does not."""
    assert experiment.resolved is not None
    geometry, cube_mm = checkpoint_geometry(experiment), experiment.resolved.cube_mm
    reasons = []
    for picture in pictures:
        if not picture.attributes["view"] and not picture.attributes["plane"]:
            reasons.append(f"{picture.name}: its header names no view")
            continue
        try:
            view = to_view(
                picture.pixels, picture.attributes, angle, geometry, picture.name, cube_mm=cube_mm, **how
            )
        except UserError as error:
            reasons.append(str(error))
        else:
            return picture, view
    name = VIEW_NAMES.get(angle, "view")
    raise UserError(f"no {name} ({angle:g}°) among its radiographs: {'; '.join(reasons)}")


def _score(
    taken: _Taken, store: Store, stages: Stages, familiar: Familiar | None, device: torch.device
) -> dict[str, Any]:
    experiment = stages.experiment
    data, case = experiment.data, taken.case
    views = [as_in_training(v, i, case.id, experiment, familiar) for i, v in enumerate(taken.views)]
    lines = np.stack([view.line_integrals for view in views])
    scaled = scale_views(lines, data.xray_scale)
    unit = stages(torch.from_numpy(scaled)[None].to(device), content_seeds(scaled).to(device))[0, 0]
    if not torch.isfinite(unit).all():
        raise WorkFailed(f"case {case.id}: the reconstruction is not finite")
    truth = store.volume(case, data.size)
    made = HuWindow(*data.hu_window).to_hu(unit.cpu().numpy())
    compared = familiar.compare(scaled) if familiar else []
    return {
        "case": case.id,
        "patient": case.patient,
        "views": views_label(data.views),
        "pictures": "+".join(picture.name for picture in taken.pictures),
        "days": "+".join(str(picture.attributes["days_after_ct"]) for picture in taken.pictures),
        "weights": experiment.evaluation.weights,
        **compare_lungs(made, truth, store.cube_mm / data.size),
        "reprojection/unexplained": _unexplained(made, lines, taken, experiment),
        "reprojection/truth_unexplained": _unexplained(truth, lines, taken, experiment, moved_mm=MOVED_MM),
        "xrays/distance": max((one.distance for one in compared), default=math.nan),
        "xrays/share": max((one.share for one in compared), default=math.nan),
    }


def compare_lungs(made: np.ndarray, truth: np.ndarray, spacing_mm: float) -> dict[str, float]:
    """The ``lung/…`` of `COLUMNS`, of two volumes (z, y, x) in HU on one grid.

    Without lungs in one of them the overlap is 0; without any in the truth nothing is defined but `lung/ml`.
    """
    lungs, true = (lung_mask(np.asarray(hu, np.float32), (spacing_mm,) * 3) for hu in (made, truth))
    ml = spacing_mm**3 / 1000
    found = {"lung/ml": lungs.sum() * ml, "lung/true_ml": true.sum() * ml}
    if not true.any():
        return {**dict.fromkeys(COLUMNS[:6], math.nan), "lung/ml": found["lung/ml"]}
    found["lung/relative_error"] = found["lung/ml"] / found["lung/true_ml"] - 1
    found["lung/dice"] = _dice(lungs, true)
    if not lungs.any():
        return {**found, "lung/dice_centred": 0.0, "lung/shift_mm": math.nan}
    shift = np.subtract(ndimage.center_of_mass(true), ndimage.center_of_mass(lungs))
    moved = ndimage.shift(lungs.astype(np.float32), shift, order=1) > 0.5
    centred = {
        "lung/dice_centred": _dice(moved, true),
        "lung/shift_mm": float(np.linalg.norm(shift)) * spacing_mm,
    }
    return {key: float(value) for key, value in (found | centred).items()}


def _dice(one: np.ndarray, other: np.ndarray) -> float:
    return float(2 * (one & other).sum() / (one.sum() + other.sum()))


def _unexplained(
    hu: np.ndarray, lines: np.ndarray, taken: _Taken, experiment: Experiment, moved_mm: float = 0.0
) -> float:
    """Root of the mean over views of 1 − R², gain and offset fitted to what is seen.

    moved_mm: at the isocentre, how far each projection may be moved, in whole pixels of about 6 mm, to agree.
    """
    assert experiment.resolved is not None
    volume: Tensor = torch.from_numpy(np.asarray(hu, np.float32))[None]
    geometry = checkpoint_geometry(experiment)
    again = project_hu(volume, experiment.resolved.cube_mm, geometry, experiment.data.views)[0].numpy()
    step = max(1, round(_STEP_MM * geometry.magnification / geometry.pixel_mm))
    reach = int(moved_mm * geometry.magnification / geometry.pixel_mm) // step
    shifts = [(step * y, step * x) for y in range(-reach, reach + 1) for x in range(-reach, reach + 1)]
    left = [
        1 - max(_correlation(np.roll(p, shift, (0, 1)), q, view.seen) for shift in shifts) ** 2
        for p, q, view in zip(again, lines, taken.views, strict=True)
    ]
    return math.sqrt(max(0.0, float(np.mean(left))))


def _correlation(one: np.ndarray, other: np.ndarray, seen: np.ndarray) -> float:
    """Within `seen`; 0 where one of them is flat there or they run against each other."""
    r = float(np.corrcoef(one[seen], other[seen])[0, 1])
    return max(0.0, r) if math.isfinite(r) else 0.0


def _magnitude(column: str, value: float) -> float:
    return abs(value) if column == "lung/relative_error" else value


def _mean(values: Sequence[float]) -> float | None:
    defined = [value for value in values if not math.isnan(value)]
    return math.fsum(defined) / len(defined) if defined else None
