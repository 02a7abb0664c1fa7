"""Every published definition of the metrics, side by side, in one pass over a pair of volumes.

The same reconstruction reads 18.1 dB as `honest`, 24.3 dB as `rc2024` and 22.4 dB as `x2ct_3d`, so a figure
is named with its mode, ``mode/metric``. All modes take volumes on the unit interval and clip predictions to
it first.

| mode | definition |
|---|---|
| `honest` | over the whole volume, peak 1; SSIM in 3D under a Gaussian window (σ 1.5, 11³); MAE also in HU |
| `honest_body`, `honest_lungs` | the same over the voxels of a mask; SSIM is its map's mean over them |
| `rc2024` | ×2000, rounded, peak 4095; SSIM of 2D slices (7×7, uniform), (2·axis 2 + axis 0)/3 |
| `x2ct_3d` | ×2500, peak 4095: honest + 4.286 dB |
| `x2ct_slice` | the same a slice, averaged over the slices along three axes; SSIM likewise (7×7, uniform) |
| `psct` | ×2500, peak 2500: the honest PSNR; `psnr_slice` averaged as in `x2ct_slice` |

MSE and MAE are on the unit interval. A volume without error has a PSNR of infinity, a slice counts 100 dB.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from xr2ct.evaluation.ssim import GAUSSIAN_SIDE, slice_ssim, ssim_map

REGIONS = ("body", "lungs")

PRIMARY = "honest/psnr"
"""Of this the validation mean picks the best checkpoint."""

_HONEST = ("psnr", "ssim", "mse", "mae", "mae_hu")
_METRICS = {
    "honest": _HONEST,
    **{f"honest_{region}": _HONEST for region in REGIONS},
    "rc2024": ("psnr", "ssim", "mse", "mae"),
    "x2ct_3d": ("psnr",),
    "x2ct_slice": ("psnr", "ssim"),
    "psct": ("psnr", "psnr_slice"),
}
COLUMNS = tuple(f"{mode}/{metric}" for mode, metrics in _METRICS.items() for metric in metrics)
"""Names of what `score_volume` returns when it is given every region, in order."""

FLAWLESS_SLICE_DB = 100.0
"""PSNR of a slice without error, by X2CT-GAN's convention."""


def score_volume(
    prediction: Tensor, truth: Tensor, hu_width: float, masks: Mapping[str, Tensor]
) -> dict[str, float]:
    """Every metric of one volume by ``mode/metric``.

    prediction, truth: (z, y, x), the HU window as [0, 1], at least 11 voxels a side; any device.
    hu_width: HU from 0 to 1. masks: booleans (z, y, x) by region; a metric over an empty one is NaN.
    """
    assert prediction.shape == truth.shape and min(truth.shape) >= GAUSSIAN_SIDE
    truth = truth.double()
    prediction = prediction.double().clamp(0, 1)
    error = prediction - truth
    similarity = ssim_map(prediction, truth)
    slices = slice_ssim(prediction, truth)

    scores = _honest("honest", error, similarity, hu_width)
    for region, mask in masks.items():
        within = similarity[_interior(mask)]
        scores |= _honest(f"honest_{region}", error[mask], within, hu_width)
    quantised = torch.round(2000 * prediction) - torch.round(2000 * truth)
    square = error.square()
    scores |= {
        "rc2024/psnr": _psnr(quantised.square().mean().item(), peak=4095),
        "rc2024/ssim": (2 * slices[2] + slices[0]) / 3,
        "rc2024/mse": scores["honest/mse"],
        "rc2024/mae": scores["honest/mae"],
        "x2ct_3d/psnr": _psnr(2500**2 * scores["honest/mse"], peak=4095),
        "x2ct_slice/psnr": _slice_psnr(square, peak=4095 / 2500),
        "x2ct_slice/ssim": sum(slices) / 3,
        "psct/psnr": scores["honest/psnr"],
        "psct/psnr_slice": _slice_psnr(square, peak=1),
    }
    return scores


def by_mode(scores: Mapping[str, float]) -> dict[str, dict[str, float]]:
    """``{"mode/metric": value}`` as ``{mode: {metric: value}}``."""
    nested: dict[str, dict[str, float]] = {}
    for name, value in scores.items():
        mode, metric = name.split("/")
        nested.setdefault(mode, {})[metric] = value
    return nested


def _honest(mode: str, error: Tensor, similarity: Tensor, hu_width: float) -> dict[str, float]:
    mse, mae = error.square().mean().item(), error.abs().mean().item()
    values = (_psnr(mse, peak=1), similarity.mean().item(), mse, mae, mae * hu_width)
    return {f"{mode}/{metric}": value for metric, value in zip(_HONEST, values, strict=True)}


def _psnr(mse: float, peak: float) -> float:
    """Decibels; infinity without error, NaN for NaN."""
    return math.inf if mse == 0 else 10 * math.log10(peak**2 / mse)


def _slice_psnr(square: Tensor, peak: float) -> float:
    """Averaged over the slices along each axis, then over the three axes."""
    axes = []
    for axis in range(3):
        mse = square.mean(dim=[other for other in range(3) if other != axis])
        psnr = 10 * torch.log10(peak**2 / mse)
        axes.append(torch.where(mse == 0, FLAWLESS_SLICE_DB, psnr).mean().item())
    return sum(axes) / 3


def _interior(mask: Tensor) -> Tensor:
    """The part of a mask over which the SSIM map is defined."""
    edge = GAUSSIAN_SIDE // 2
    return mask[edge:-edge, edge:-edge, edge:-edge]
