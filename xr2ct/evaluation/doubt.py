"""How well a reconstruction knows where it is wrong: a voxel-wise standard deviation against the error made.

| metric, `doubt/…`, over a mask `doubt_body/…`, `doubt_lungs/…` | |
|---|---|
| `coverage_50`, `_68`, `_90`, `_95` | share of the voxels with |e| ≤ zσ, the normal interval of that level |
| `calibration_error` | mean of |covered − level| over the levels 5, 10, … 95 % (Kuleshov et al., ICML 2018) |
| `pearson`, `spearman` | correlation of σ with |e| over the voxels |
| `nll` | −log N(e; 0, σ²), nats a voxel, errors in HU |
| `sd_hu` | mean of σ: of two that are covered alike, the smaller says more |

Both volumes hold whole HU when they are written, so that σ is taken to be no less than 1 HU where it is
divided by. Predictions are clipped to the unit interval, as in every other metric.
"""

from __future__ import annotations

from statistics import NormalDist
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from xr2ct.evaluation.metrics import REGIONS

if TYPE_CHECKING:
    from xr2ct.evaluation.truth import Truth

LEVELS = (50, 68, 90, 95)
"""Percent of the voxels that an interval is to hold."""
MODES = ("doubt", *(f"doubt_{region}" for region in REGIONS))
_METRICS = (
    *(f"coverage_{level}" for level in LEVELS),
    *("calibration_error", "pearson", "spearman", "nll", "sd_hu"),
)
COLUMNS = tuple(f"{mode}/{metric}" for mode in MODES for metric in _METRICS)
"""Names of what `score_doubt` returns, in order."""

LEAST_HU = 1.0
"""The smallest σ that is divided by."""

_EVERY_LEVEL = tuple(range(5, 100, 5))


def normal_factor(level: float) -> float:
    """How many standard deviations on either side hold `level` percent of a normal distribution."""
    return NormalDist().inv_cdf(0.5 + level / 200)


def score_doubt(volume: Tensor, doubt: Tensor, truth: Truth) -> dict[str, float]:
    """Every metric of the doubt about one volume, both (z, y, x) on the unit window.

    A metric over an empty mask is NaN, and so is a correlation where doubt or error is the same everywhere.
    """
    width = truth.window.width
    error = (volume.double().clamp(0, 1) - truth.unit.double()).abs().flatten() * width
    sd = doubt.double().flatten() * width
    scores: dict[str, float] = {}
    for mode, mask in zip(MODES, (None, *(truth.masks[region] for region in REGIONS)), strict=True):
        at = slice(None) if mask is None else mask.flatten()
        scores |= {f"{mode}/{metric}": value for metric, value in _score(error[at], sd[at]).items()}
    return scores


def _score(error: Tensor, sd: Tensor) -> dict[str, float]:
    """Of absolute errors and standard deviations (voxel,) in HU."""
    if not len(error):
        return dict.fromkeys(_METRICS, float("nan"))
    floored = sd.clamp(min=LEAST_HU)
    ratio = error / floored
    covered = {level: (ratio <= normal_factor(level)).double().mean() for level in {*LEVELS, *_EVERY_LEVEL}}
    misses = torch.stack([(covered[level] - level / 100).abs() for level in _EVERY_LEVEL])
    found = {
        **{f"coverage_{level}": covered[level] for level in LEVELS},
        "calibration_error": misses.mean(),
        "pearson": _correlation(sd, error),
        "spearman": _correlation(_ranks(sd), _ranks(error)),
        "nll": (0.5 * ratio.square() + floored.log()).mean() + 0.5 * torch.log(2 * sd.new_tensor(torch.pi)),
        "sd_hu": sd.mean(),
    }
    # All numbers at once: a GPU is waited for a single time.
    return dict(zip(found, torch.stack(list(found.values())).tolist(), strict=True))


def _correlation(a: Tensor, b: Tensor) -> Tensor:
    """Pearson's; NaN where one of them does not vary."""
    a, b = a - a.mean(), b - b.mean()
    return (a @ b / (torch.linalg.vector_norm(a) * torch.linalg.vector_norm(b))).clamp(-1, 1)


def _ranks(values: Tensor) -> Tensor:
    """From the smallest; equals share the mean of theirs."""
    _, place, counts = torch.unique(values, return_inverse=True, return_counts=True)
    return (counts.cumsum(0) - 0.5 * (counts - 1).double())[place]
