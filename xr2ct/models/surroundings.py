"""What a mapper sees beside its views: the stage before's reconstruction, and where its sub-volume lies."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xr2ct.models.lift import Windows
from xr2ct.models.lift.base import resampling


class Surroundings(nn.Module):
    """Further channels on the unit window, (b, channels, side, side, side); no parameters.

    Of a coarse reconstruction (b, 1, c, c, c) what lies at the sub-volume, interpolated trilinearly. Where
    sub-volumes are learnt from, also the whole of it at the sub-volume's number of voxels, anti-aliased, and
    the voxels' z, y and x in the cube, from −1 to 1: a window alone does not tell a lung's apex from its
    base.
    """

    def __init__(self, size: int, window: int | None, coarse: int | None) -> None:
        """size, window: `data.size`, `data.window`; coarse: voxels along a side of the coarse volume."""
        super().__init__()
        self.size, self.window, self.coarse = size, window, coarse
        self.finer: Tensor | None
        self.squeezed: Tensor | None
        finer = None if coarse is None else _weights(size, coarse)
        squeezed = None if coarse is None or window is None else _weights(window, coarse)
        self.register_buffer("finer", finer, persistent=False)
        self.register_buffer("squeezed", squeezed, persistent=False)

    @property
    def channels(self) -> int:
        return sum(w is not None for w in (self.finer, self.squeezed)) + (0 if self.window is None else 3)

    def forward(self, coarse: Tensor | None, windows: Windows | None) -> Tensor:
        """coarse: (b, 1, c, c, c), which must be there where the mapper was built with one."""
        channels = []
        if self.finer is not None:
            assert coarse is not None and coarse.shape[-1] == self.coarse, "a coarse volume of this size"
            channels.append(_resampled(coarse, *self._at(windows, self.finer)))
        if self.squeezed is not None:
            assert coarse is not None
            channels.append(_resampled(coarse, *[self.squeezed] * 3))
        if self.window is not None:
            assert windows is not None, "a mapper of sub-volumes is told where they lie"
            channels.append(self._positions(windows))
        return torch.cat(channels, dim=1)

    @staticmethod
    def _at(windows: Windows | None, weights: Tensor) -> list[Tensor]:
        """Rows of `weights` along z, y and x: all of them, or (b, side, c) of each sample's window."""
        return [weights if windows is None else weights[windows.along(axis)] for axis in range(3)]

    def _positions(self, windows: Windows) -> Tensor:
        side = windows.side
        at = [(windows.along(axis) + 0.5) * (2 / self.size) - 1 for axis in range(3)]
        grids = [
            centres.view(-1, *(side if axis == own else 1 for axis in range(3))).expand(-1, *(side,) * 3)
            for own, centres in enumerate(at)
        ]
        return torch.stack(grids, dim=1).float()


def set_into(chest: Tensor, windows: Tensor, origins: Tensor, step: int) -> Tensor:
    """Whole chests with a sub-volume of each set into it, averaged down to its voxels; gradients reach both.

    chest: (b, 1, m, m, m); windows: (b, 1, w, w, w) with voxels `step` times finer; origins: (b, 3) where
    they begin in their own grid of (m·step)³, multiples of `step`.
    """
    side = chest.shape[-1]
    pooled = F.avg_pool3d(windows, step)
    along = torch.arange(pooled.shape[-1], device=origins.device)
    z, y, x = (origins[:, axis, None] // step + along for axis in range(3))
    rows = z[:, :, None] * side + y[:, None]
    places = (rows[:, :, :, None] * side + x[:, None, None]).flatten(1)
    # By index and not by slices: the places stay on the device.
    return chest.flatten(1).scatter(1, places, pooled.flatten(1)).view_as(chest)


def _weights(places: int, coarse: int) -> Tensor:
    """(place, coarse voxel): linear interpolation, or an anti-aliasing triangle where places are fewer."""
    return resampling(places, 1 / places, coarse, 1 / coarse, max(1 / places, 1 / coarse))


def _resampled(coarse: Tensor, z: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """(b, 1, c, c, c) by the weights of each axis, of all samples or of each, → (b, 1, z, y, x)."""
    volume = coarse[:, 0]
    batch, side = len(volume), volume.shape[-1]
    z, y, x = (weights.to(volume.dtype) for weights in (z, y, x))
    volume = (z @ volume.flatten(2)).view(batch, -1, side, side)
    volume = y.unsqueeze(-3) @ volume @ x.unsqueeze(-3).transpose(-1, -2)
    return volume.unsqueeze(1)
