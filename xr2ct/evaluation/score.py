"""Every metric of one volume file against another."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch

from xr2ct.cohorts.reader import read_volume_file
from xr2ct.cohorts.volume import NativeVolume
from xr2ct.errors import UserError
from xr2ct.evaluation.metrics import by_mode, score_volume
from xr2ct.evaluation.ssim import GAUSSIAN_SIDE
from xr2ct.evaluation.truth import region_masks
from xr2ct.window import HuWindow


def score_files(prediction: Path, truth: Path, window: HuWindow) -> dict[str, dict[str, float | None]]:
    """``{mode: {metric: value}}`` of a volume in HU against the true one, on the same grid.

    None where a metric has no number: the PSNR of a flawless volume, anything within an empty mask. Raises
    `UserError` where a file cannot be read or has voxels that are no number, and where the grids differ.
    """
    ours, theirs = _read(prediction), _read(truth)
    if ours.hu.shape != theirs.hu.shape or not np.allclose(ours.spacing_mm, theirs.spacing_mm, rtol=1e-3):
        raise UserError(
            f"{prediction}: {_grid(ours)}\n{truth}: {_grid(theirs)}; expected the same grid (z × y × x)"
        )
    if min(theirs.hu.shape) < GAUSSIAN_SIDE:
        raise UserError(f"{truth}: {_grid(theirs)}; expected at least {GAUSSIAN_SIDE} voxels along each axis")
    masks = region_masks(theirs.hu, theirs.spacing_mm)
    scores = score_volume(
        window.to_unit(torch.from_numpy(ours.hu).double()),
        window.to_unit(torch.from_numpy(theirs.hu).double()),
        window.width,
        {region: torch.from_numpy(mask) for region, mask in masks.items()},
        theirs.spacing_mm,
    )
    return {
        mode: {metric: value if math.isfinite(value) else None for metric, value in metrics.items()}
        for mode, metrics in by_mode(scores).items()
    }


def _read(path: Path) -> NativeVolume:
    volume = read_volume_file(path)
    if not np.isfinite(volume.hu).all():
        raise UserError(f"{path}: has voxels that are not a finite number")
    return volume


def _grid(volume: NativeVolume) -> str:
    voxels, mm = " × ".join(map(str, volume.hu.shape)), " × ".join(f"{s:g}" for s in volume.spacing_mm)
    return f"{voxels} voxels of {mm} mm"
