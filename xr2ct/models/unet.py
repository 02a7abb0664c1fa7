"""MONAI's plain 3D U-Net as the mapper's backbone: views lifted into channels in, one volume out.

The paper's "3D-3D U-Net" (Fig. 3) is "off the shelf" and no more is said of it; MONAI's is, as its Swin UNETR
is. Widths are ours.
"""

from __future__ import annotations

from typing import Annotated

from monai.networks.nets import UNet
from pydantic import Field
from torch import nn

from xr2ct.config import Section
from xr2ct.models.shapes import check_size


class Config(Section):
    """Everything else stays at MONAI's default. 19.30 M parameters with two views, at any size."""

    channels: tuple[Annotated[int, Field(ge=1)], ...] = Field((32, 64, 128, 256, 512), min_length=2)
    """Of each level. The first works at full resolution, each next but the last halves it."""
    num_res_units: int = Field(2, ge=0)
    """Convolutions of a level's residual unit (Zhang, Liu, Wang 2018); 0 for one convolution without skip."""


def build(config: Config, in_channels: int, size: int) -> nn.Module:
    """(b, in_channels, size, size, size) → (b, 1, size, size, size), no activation at the output.

    A convolution 1³ makes the one channel out: MONAI's own last level would normalise each volume to mean 0
    and deviation 1 on the way. `UserError` unless `size` can be halved as often as there are levels less two
    and leaves more than one voxel for InstanceNorm.
    """
    step = 2 ** (len(config.channels) - 2)
    check_size("unet", size, step, least=2 * step)
    network = UNet(
        spatial_dims=3,
        in_channels=in_channels,
        out_channels=config.channels[0],
        channels=config.channels,
        strides=(1,) + (2,) * (len(config.channels) - 2),
        num_res_units=config.num_res_units,
    )
    return nn.Sequential(network, nn.Conv3d(config.channels[0], 1, 1))
