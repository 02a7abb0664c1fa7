"""Anyone's predictions: volumes from elsewhere, scored as a checkpoint's are and joined to every table."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from xr2ct.cohorts.reader import read_volume_file
from xr2ct.errors import UserError, WorkFailed, first_line
from xr2ct.evaluation import priors
from xr2ct.evaluation.pairs import Pair, Stores, find_pairs
from xr2ct.evaluation.scoring import TRUTH, Prediction
from xr2ct.evaluation.sweep import Sweep, choose_device, finish, score_and_commit
from xr2ct.evaluation.truth import Truth
from xr2ct.methods.base import Batch
from xr2ct.run import Run

FORMATS = (".mha", ".nii.gz", ".npy")
RESERVED = (priors.MEAN, priors.NEAREST, TRUTH)


def evaluate_predictions(
    run: Run,
    folder: Path,
    name: str,
    cohorts: Sequence[str] | None = None,
    device: torch.device | str | None = None,
) -> Sweep:
    """Score FOLDER/CASE.mha, .nii.gz or .npy (HU, z, y, x at the run's size) as method `name` of a run.

    Of the splits that `evaluate` scores, those of which the folder has every case; having a part of one, or
    none of a cohort asked for by name, is a `UserError`. Files may have changed, so they are always scored
    again.
    """
    if not re.fullmatch(r"[A-Za-z][\w.-]*", name) or name.startswith("step-") or name in RESERVED:
        raise UserError(
            f"--name {name}: expected letters, digits and _.-, other than {', '.join(RESERVED)}, step-…"
        )
    if not folder.is_dir():
        raise UserError(f"{folder}: not a folder of predictions")
    experiment = run.experiment()
    device = choose_device(experiment, device)
    sweep, stores = Sweep(), Stores()
    damaged: dict[str, str] = {}
    found = find_pairs(experiment, cohorts, sweep.missing, stores, damaged)
    pairs = [pair for pair in found if _all_there(folder, pair)]
    there = {pair.store.cohort for pair in pairs}
    absent = sorted(set(cohorts or ()) - there)
    if absent or not pairs:
        of_whom = f"of {', '.join(absent)}" if absent else "to score"
        raise UserError(f"{folder}: holds no CASE{', CASE'.join(FORMATS)} of the cases {of_whom}")
    spacing = pairs[0].store.cube_mm / experiment.data.size
    predictor = _Files(folder, experiment.data.size, spacing)
    failures: dict[str, None] = dict.fromkeys(damaged.values())
    for pair in pairs:
        failed = score_and_commit(
            run, pair, {name: predictor}, experiment, device, sweep, stores, replace=True
        )
        failures |= dict.fromkeys(failed.values())
    finish(run, experiment, pairs, sweep)
    if failures:
        raise WorkFailed("\n".join(failures))
    return sweep


class _Files:
    """Reads the volumes of a batch."""

    def __init__(self, folder: Path, size: int, spacing_mm: float) -> None:
        self._folder, self._size, self._spacing = folder, size, spacing_mm

    def __call__(self, batch: Batch, truths: Sequence[Truth]) -> Prediction:
        units = [truth.window.to_unit(torch.from_numpy(self._read(truth.case))) for truth in truths]
        return Prediction(torch.stack(units)[:, None].to(batch.ct.device))

    def _read(self, case: str) -> np.ndarray:
        file = _file_of(self._folder, case)
        assert file is not None
        if file.suffix == ".npy":
            hu, spacing = _load(file), (self._spacing,) * 3
        else:
            volume = read_volume_file(file)
            hu, spacing = volume.hu, volume.spacing_mm
        if hu.shape != (self._size,) * 3 or not np.allclose(spacing, self._spacing, rtol=1e-3):
            told = " × ".join(map(str, hu.shape)), " × ".join(f"{s:g}" for s in spacing)
            raise UserError(
                f"{file}: {told[0]} voxels of {told[1]} mm, expected {self._size}³ of {self._spacing:g} mm"
            )
        return hu.astype(np.float32)


def _load(file: Path) -> np.ndarray:
    try:
        hu = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{file}: not a .npy file of numbers ({first_line(error)})") from None
    if not isinstance(hu, np.ndarray) or hu.dtype.kind not in "iuf":
        raise UserError(f"{file}: expected an array of integers or floats in HU")
    return hu


def _all_there(folder: Path, pair: Pair) -> bool:
    absent = [case.id for case in pair.cases if _file_of(folder, case.id) is None]
    if absent and len(absent) < len(pair.cases):
        raise UserError(
            f"{folder}: lacks {len(absent)} of the {len(pair.cases)} cases of {pair}, as {absent[0]}.mha"
        )
    return not absent


def _file_of(folder: Path, case: str) -> Path | None:
    return next((f for suffix in FORMATS if (f := folder / f"{case}{suffix}").is_file()), None)
