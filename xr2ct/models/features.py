"""The feature extractor f: random convolutions, never trained, that make volumes comparable."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from xr2ct.autocast import without_autocast
from xr2ct.config import Section
from xr2ct.seeds import derive_seed

_SLOPE = 0.2


class Config(Section):
    """Widths, and what BatchNorm divides by."""

    widths: tuple[int, int, int, int] = (16, 32, 64, 128)
    statistics: Literal["calibrated", "batch"] = "calibrated"
    """`calibrated` once on training volumes; `batch` as the paper's program, on one rank, not accumulated."""
    calibration_batches: int = Field(8, ge=1)
    """Training batches to calibrate on."""


class FeatureExtractor(nn.Module):
    """f: (b, 1, z, y, x) → four maps (b, channels·voxels), L2-normalised over channels in each voxel.

    Conv 4³ stride 2 three times and stride 1 once, with LeakyReLU; BatchNorm after all but the first.
    0.69 M parameters, frozen, Kaiming weights from a seed. Biases are not zero, so that empty air has a
    direction too. Computes in the precision of its weights, whatever surrounds it.
    """

    def __init__(self, config: Config, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(derive_seed(seed, "weights", "features"))
        channels = (1, *config.widths)
        calibrated = config.statistics == "calibrated"
        self.convolutions = nn.ModuleList()
        self.norms = nn.ModuleList()
        for i, width in enumerate(config.widths):
            convolution = nn.Conv3d(channels[i], width, kernel_size=4, stride=2 if i < 3 else 1, padding=1)
            bound = (channels[i] * 4**3) ** -0.5
            weight, bias = convolution.parameters()
            nn.init.kaiming_normal_(weight, a=_SLOPE, generator=generator)
            nn.init.uniform_(bias, -bound, bound, generator=generator)
            self.convolutions.append(convolution)
            self.norms.append(
                nn.Identity() if i == 0 else nn.BatchNorm3d(width, track_running_stats=calibrated)
            )
        self.requires_grad_(False)
        self.eval()

    @property
    def dtype(self) -> torch.dtype:
        return next(self.parameters()).dtype

    def train(self, mode: bool = True) -> FeatureExtractor:
        """Always in evaluation mode: its statistics are calibrated, never learnt."""
        return super().train(False)

    def forward(self, volumes: Tensor) -> list[Tensor]:
        with without_autocast(volumes):
            maps = []
            x = volumes.to(self.dtype)
            for convolution, norm in zip(self.convolutions, self.norms, strict=True):
                x = F.leaky_relu(norm(convolution(x)), _SLOPE)
                maps.append(F.normalize(x, dim=1).flatten(1))
            return maps

    @torch.no_grad()
    def calibrate(self, volumes: Sequence[Tensor], total: Callable[[Tensor], Tensor]) -> None:
        """Set each BatchNorm's mean and variance to those over `volumes`, layer by layer.

        `volumes` are this rank's batches (b, 1, z, y, x); `total` sums a tensor over ranks, so that the
        result is that of the global batches however they are shared.
        """
        maps = [v.to(self.dtype) for v in volumes]
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            maps = [convolution(x) for x in maps]
            if isinstance(norm, nn.BatchNorm3d):
                norm.running_mean, norm.running_var = (m.to(self.dtype) for m in _moments(maps, total))
            maps = [F.leaky_relu(norm(x), _SLOPE) for x in maps]


def _moments(maps: Sequence[Tensor], total: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    """Mean and variance of each channel over samples and voxels of all ranks, in fp64."""
    channels = [x.double().transpose(0, 1).flatten(1) for x in maps]
    counts = torch.full_like(channels[0][:, 0], sum(c.shape[1] for c in channels))
    sums = torch.stack([c.sum(1) for c in channels]).sum(0)
    squares = torch.stack([c.square().sum(1) for c in channels]).sum(0)
    count, first, second = total(torch.stack([counts, sums, squares]))
    mean = first / count
    return mean, second / count - mean.square()
