"""Gradient magnitude similarity deviation (Xue, Zhang, Mou and Bovik, IEEE TIP 23:684, 2014) of slices.

Averaged over the slices along each axis, then over the three axes; 0 without error, and less is better. As
published: slices averaged down by two, Prewitt gradients, the standard deviation of their similarity over a
slice. Only places whose gradient lies whole within the slice count. It goes with what people say of distorted
pictures better than SSIM does, and needs no network's weights.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

C = 170 / 255**2
"""Keeps the similarity of flat places from hanging on noise; the published 170 is of grey levels to 255."""


class Reference:
    """A true volume's gradients, for any number of others."""

    def __init__(self, volume: Tensor) -> None:
        """volume: (z, y, x) float64, on the unit interval, at least 8 voxels a side."""
        self._gradients = [_gradients(volume, axis) for axis in range(3)]

    def score(self, volume: Tensor) -> Tensor:
        """Of another volume (z, y, x) float64: a scalar on its device."""
        axes = []
        for axis, own in enumerate(self._gradients):
            other = _gradients(volume, axis)
            similarity = (2 * own * other + C) / (own.square() + other.square() + C)
            axes.append(similarity.flatten(1).std(1).mean())
        return (axes[0] + axes[1] + axes[2]) / 3


def _gradients(volume: Tensor, axis: int) -> Tensor:
    """Magnitudes in the slices along an axis: (slice, row, column)."""
    slices = F.avg_pool2d(volume.movedim(axis, 0)[:, None], 2)[:, 0]
    across = slices[:, :, 2:] - slices[:, :, :-2]
    down = slices[:, 2:] - slices[:, :-2]
    across = across[:, :-2] + across[:, 1:-1] + across[:, 2:]
    down = down[:, :, :-2] + down[:, :, 1:-1] + down[:, :, 2:]
    return (across.square() + down.square()).sqrt() / 3
