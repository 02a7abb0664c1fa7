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
| `perceptual` | GMSD of 2D slices, averaged as in `x2ct_slice`: less is better |
| `spectral` | how sharp it is, and up to which detail true: `evaluation.spectral` |

MSE and MAE are on the unit interval. A volume without error has a PSNR of infinity, a slice counts 100 dB.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from xr2ct.evaluation import gmsd, spectral, ssim
from xr2ct.evaluation.ssim import GAUSSIAN_SIDE

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
    "perceptual": ("gmsd",),
    "spectral": spectral.METRICS,
}
COLUMNS = tuple(f"{mode}/{metric}" for mode, metrics in _METRICS.items() for metric in metrics)
"""Names of what `score_volume` returns when it is given every region, in order."""

FLAWLESS_SLICE_DB = 100.0
"""PSNR of a slice without error, by X2CT-GAN's convention."""


class Reference:
    """A true volume: what the metrics need of it alone is worked out once, for any number of predictions."""

    def __init__(
        self,
        truth: Tensor,
        hu_width: float,
        masks: Mapping[str, Tensor],
        spacing_mm: Sequence[float] = (1.0, 1.0, 1.0),
    ) -> None:
        """truth: (z, y, x), the HU window as [0, 1], at least 11 voxels a side; any device.

        hu_width: HU from 0 to 1. masks: booleans (z, y, x) by region; a metric over an empty one is NaN.
        spacing_mm: between voxels along z, y and x; where unset, lengths are in voxels.
        """
        assert min(truth.shape) >= GAUSSIAN_SIDE
        self._truth, self._hu_width = truth.double(), hu_width
        self._similarity = ssim.Reference(self._truth)
        self._gradients = gmsd.Reference(self._truth)
        self._spectrum = spectral.Reference(self._truth, hu_width, spacing_mm)
        self._regions = {r: (_places(mask), _places(_interior(mask))) for r, mask in masks.items()}

    def score(self, prediction: Tensor) -> dict[str, float]:
        """Every metric of a volume (z, y, x) by ``mode/metric``."""
        assert prediction.shape == self._truth.shape
        prediction = prediction.double().clamp(0, 1)
        error = prediction - self._truth
        similarity = self._similarity.ssim_map(prediction)
        slices = self._similarity.slice_ssim(prediction)
        square = error.square()
        quantised = torch.round(2000 * prediction) - torch.round(2000 * self._truth)

        found = {"quantised": quantised.square().mean(), **_means("honest", square, error, similarity)}
        for region, (places, inner) in self._regions.items():
            within = similarity.take(inner)
            found |= _means(f"honest_{region}", square.take(places), error.take(places), within)
        found |= {
            "rc2024/ssim": (2 * slices[2] + slices[0]) / 3,
            "x2ct_slice/psnr": _slice_psnr(square, peak=4095 / 2500),
            "x2ct_slice/ssim": (slices[0] + slices[1] + slices[2]) / 3,
            "psct/psnr_slice": _slice_psnr(square, peak=1),
            "perceptual/gmsd": self._gradients.score(prediction),
            **{f"spectral/{name}": value for name, value in self._spectrum.score(prediction).items()},
        }
        # All numbers at once: a GPU is waited for a single time.
        scores = dict(zip(found, torch.stack(list(found.values())).tolist(), strict=True))
        quantised_mse = scores.pop("quantised")
        for mode in ("honest", *(f"honest_{region}" for region in self._regions)):
            scores[f"{mode}/psnr"] = _psnr(scores[f"{mode}/mse"], peak=1)
            scores[f"{mode}/mae_hu"] = scores[f"{mode}/mae"] * self._hu_width
        return scores | {
            "rc2024/psnr": _psnr(quantised_mse, peak=4095),
            "rc2024/mse": scores["honest/mse"],
            "rc2024/mae": scores["honest/mae"],
            "x2ct_3d/psnr": _psnr(2500**2 * scores["honest/mse"], peak=4095),
            "psct/psnr": scores["honest/psnr"],
        }


def score_volume(
    prediction: Tensor,
    truth: Tensor,
    hu_width: float,
    masks: Mapping[str, Tensor],
    spacing_mm: Sequence[float] = (1.0, 1.0, 1.0),
) -> dict[str, float]:
    """Every metric of one volume by ``mode/metric``: a `Reference` for one prediction."""
    return Reference(truth, hu_width, masks, spacing_mm).score(prediction)


def by_mode(scores: Mapping[str, float]) -> dict[str, dict[str, float]]:
    """``{"mode/metric": value}`` as ``{mode: {metric: value}}``."""
    nested: dict[str, dict[str, float]] = {}
    for name, value in scores.items():
        mode, metric = name.split("/")
        nested.setdefault(mode, {})[metric] = value
    return nested


def _means(mode: str, square: Tensor, error: Tensor, similarity: Tensor) -> dict[str, Tensor]:
    return {
        f"{mode}/ssim": similarity.mean(),
        f"{mode}/mse": square.mean(),
        f"{mode}/mae": error.abs().mean(),
    }


def _psnr(mse: float, peak: float) -> float:
    """Decibels; infinity without error, NaN for NaN."""
    return math.inf if mse == 0 else 10 * math.log10(peak**2 / mse)


def _slice_psnr(square: Tensor, peak: float) -> Tensor:
    """Averaged over the slices along each axis, then over the three axes."""
    axes: list[Tensor] = []
    for axis in range(3):
        mse = square.mean(dim=[other for other in range(3) if other != axis])
        psnr = 10 * torch.log10(peak**2 / mse)
        axes.append(torch.where(mse == 0, FLAWLESS_SLICE_DB, psnr).mean())
    return (axes[0] + axes[1] + axes[2]) / 3


def _places(mask: Tensor) -> Tensor:
    """Of a mask's voxels in the flattened volume, in order: gathering by them is faster than by the mask."""
    return mask.flatten().nonzero().flatten()


def _interior(mask: Tensor) -> Tensor:
    """The part of a mask over which the SSIM map is defined."""
    edge = GAUSSIAN_SIDE // 2
    return mask[edge:-edge, edge:-edge, edge:-edge]
