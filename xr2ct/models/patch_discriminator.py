"""A conditional 3D PatchGAN: scores each patch of a volume beside the views that it should agree with."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor, nn

from xr2ct.config import Section
from xr2ct.models.initial import normal_weights

_SLOPE = 0.2


class Config(Section):
    """The published width (Ying et al. 2019)."""

    base_channels: int = Field(64, ge=1)
    """Of the first layer; they double three times."""


class PatchDiscriminator(nn.Module):
    """(b, channels, z, y, x), a volume and its lifted views → scores (b, 1, …), one a patch.

    Conv 4³ pad 2 with stride 2 to 64, 128 and 256 channels, with stride 1 to 512 and to 1; between them
    LeakyReLU, and before it InstanceNorm without weights but for the first. 11.06 M parameters for a volume
    and two views; 19³ scores at 128³. In the precision of its weights.
    """

    def __init__(self, config: Config, channels: int) -> None:
        super().__init__()
        wide = config.base_channels
        self.layers = nn.Sequential(
            nn.Conv3d(channels, wide, 4, stride=2, padding=2),
            nn.LeakyReLU(_SLOPE),
            *_normed(wide, 2 * wide, stride=2),
            *_normed(2 * wide, 4 * wide, stride=2),
            *_normed(4 * wide, 8 * wide, stride=1),
            nn.Conv3d(8 * wide, 1, 4, padding=2),
        )
        self.apply(normal_weights)

    def forward(self, volumes: Tensor) -> Tensor:
        scores: Tensor = self.layers(volumes.to(next(self.parameters()).dtype))
        return scores


def _normed(channels_in: int, channels: int, stride: int) -> list[nn.Module]:
    return [
        nn.Conv3d(channels_in, channels, 4, stride=stride, padding=2),
        nn.InstanceNorm3d(channels),
        nn.LeakyReLU(_SLOPE),
    ]
