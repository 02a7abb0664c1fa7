"""Structural similarity (Wang et al., IEEE TIP 13:600, 2004) of volumes and of their slices.

Only windows that lie whole within the volume count, as in scikit-image's mean. K₁ = 0.01, K₂ = 0.03 and the
data range is 1: volumes are on the unit interval.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

C1 = 0.01**2
C2 = 0.03**2

GAUSSIAN_SIGMA = 1.5
GAUSSIAN_SIDE = 11
UNIFORM_SIDE = 7

_BLOCK = 32
"""Outputs of one small matrix product; keeps the work of a filter linear in the volume's side."""


def smooth(x: Tensor, taps: Tensor, axis: int) -> Tensor:
    """Correlate with `taps` along one axis, where the window lies within: n → n − len(taps) + 1 values."""
    side = len(taps)
    x = x.movedim(axis, -1)
    band = taps.new_zeros(_BLOCK + side - 1, _BLOCK)
    for i in range(_BLOCK):
        band[i : i + side, i] = taps
    parts = []
    for start in range(0, x.shape[-1] - side + 1, _BLOCK):
        part = x[..., start : start + _BLOCK + side - 1]
        parts.append(part @ band[: part.shape[-1], : part.shape[-1] - side + 1])
    return torch.cat(parts, -1).movedim(-1, axis)


def gaussian_taps(device: torch.device | str = "cpu") -> Tensor:
    """σ = 1.5 over 11 voxels, of sum 1, float64."""
    offset = torch.arange(GAUSSIAN_SIDE, dtype=torch.float64, device=device) - GAUSSIAN_SIDE // 2
    taps = torch.exp(-0.5 * (offset / GAUSSIAN_SIGMA) ** 2)
    return taps / taps.sum()


def ssim_map(a: Tensor, b: Tensor) -> Tensor:
    """SSIM of two volumes (z, y, x) under an 11³ Gaussian window: (z − 10, y − 10, x − 10), float64."""
    taps = gaussian_taps(a.device)
    fields = _products(a, b)
    for axis in (1, 2, 3):
        fields = smooth(fields, taps, axis)
    return _similarity(fields, covariance_norm=1.0)


def slice_ssim(a: Tensor, b: Tensor) -> Sequence[float]:
    """Mean SSIM of the 2D slices along z, y and x under a 7×7 uniform window with sample covariances."""
    taps = torch.full((UNIFORM_SIDE,), 1 / UNIFORM_SIDE, dtype=torch.float64, device=a.device)
    windows = UNIFORM_SIDE**2
    fields = _products(a, b)
    along_x, along_y = smooth(fields, taps, 3), smooth(fields, taps, 2)
    planes = (smooth(along_x, taps, 2), smooth(along_x, taps, 1), smooth(along_y, taps, 1))
    return [_similarity(f, covariance_norm=windows / (windows - 1)).mean().item() for f in planes]


def _products(a: Tensor, b: Tensor) -> Tensor:
    """a, b, a², b², ab: all that SSIM averages under its window."""
    a, b = a.double(), b.double()
    return torch.stack([a, b, a * a, b * b, a * b])


def _similarity(fields: Tensor, covariance_norm: float) -> Tensor:
    mean_a, mean_b, square_a, square_b, product = fields
    means = mean_a * mean_b
    squares = mean_a * mean_a + mean_b * mean_b
    variances = covariance_norm * (square_a + square_b - squares)
    covariance = covariance_norm * (product - means)
    return ((2 * means + C1) * (2 * covariance + C2)) / ((squares + C1) * (variances + C2))
