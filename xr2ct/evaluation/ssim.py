"""Structural similarity (Wang et al., IEEE TIP 13:600, 2004) of volumes and of their slices.

Only windows that lie whole within the volume count, as in scikit-image's mean. K₁ = 0.01, K₂ = 0.03 and the
data range is 1: volumes are on the unit interval.
"""

from __future__ import annotations

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


class Reference:
    """A volume that others are compared with: what SSIM averages of it alone is averaged once for all.

    It holds about eight float64 volumes.
    """

    def __init__(self, volume: Tensor) -> None:
        """volume: (z, y, x), on the unit interval, at least 11 voxels a side."""
        self._volume = volume.double()
        fields = torch.stack([self._volume, self._volume.square()])
        self._gaussian, self._planes = _under_gaussian(fields), _under_squares(fields)

    def ssim_map(self, other: Tensor) -> Tensor:
        """SSIM of a volume (z, y, x) under an 11³ Gaussian window: (z − 10, y − 10, x − 10), float64."""
        return _similarity(_under_gaussian(self._products(other)), self._gaussian, covariance_norm=1.0)

    def slice_ssim(self, other: Tensor) -> list[Tensor]:
        """Mean SSIM of the 2D slices along z, y and x under a 7×7 uniform window with sample covariances."""
        windows = UNIFORM_SIDE**2
        pairs = zip(_under_squares(self._products(other)), self._planes, strict=True)
        return [_similarity(one, own, covariance_norm=windows / (windows - 1)).mean() for one, own in pairs]

    def _products(self, other: Tensor) -> Tensor:
        """a, a² and ab: what SSIM averages of another volume, and of both."""
        other = other.double()
        return torch.stack([other, other * other, other * self._volume])


def _under_gaussian(fields: Tensor) -> Tensor:
    taps = gaussian_taps(fields.device)
    for axis in (1, 2, 3):
        fields = smooth(fields, taps, axis)
    return fields


def _under_squares(fields: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """In the slices along z, y and x."""
    taps = torch.full((UNIFORM_SIDE,), 1 / UNIFORM_SIDE, dtype=torch.float64, device=fields.device)
    along_x, along_y = smooth(fields, taps, 3), smooth(fields, taps, 2)
    return smooth(along_x, taps, 2), smooth(along_x, taps, 1), smooth(along_y, taps, 1)


def _similarity(fields: Tensor, own: Tensor, covariance_norm: float) -> Tensor:
    """Of the averages of a, a² and ab, and of the reference's b and b²."""
    (mean_a, square_a, product), (mean_b, square_b) = fields, own
    means = mean_a * mean_b
    squares = mean_a * mean_a + mean_b * mean_b
    variances = covariance_norm * (square_a + square_b - squares)
    covariance = covariance_norm * (product - means)
    return ((2 * means + C1) * (2 * covariance + C2)) / ((squares + C1) * (variances + C2))
