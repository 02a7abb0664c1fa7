"""MONAI's SegResNet as the mapper's backbone: views lifted into channels in, one volume out.

The encoder–decoder of Myronenko 2018 (arXiv 1810.11654) without its variational branch: residual blocks,
GroupNorm, skips that are added rather than joined. Beside Swin UNETR and the U-Net the one backbone whose
normalisation keeps how strong channels are to each other in a volume.
"""

from __future__ import annotations

from typing import Annotated

from monai.networks.nets import SegResNet
from pydantic import Field, model_validator
from torch import nn

from xr2ct.config import Section
from xr2ct.models.shapes import check_size

Blocks = tuple[Annotated[int, Field(ge=1)], ...]


class Config(Section):
    """Everything else stays at MONAI's default. 18.80 M parameters with two views, at any size."""

    init_filters: int = Field(32, ge=8, multiple_of=8)
    """Channels at full resolution; each halving doubles them. GroupNorm has eight groups."""
    blocks_down: Blocks = Field((1, 2, 2, 4), min_length=2)
    """Residual blocks of each level on the way down."""
    blocks_up: Blocks = (1, 1, 1)
    """And on the way up, deepest first: one level less."""

    @model_validator(mode="after")
    def _levels(self) -> Config:
        if len(self.blocks_up) != len(self.blocks_down) - 1:
            raise ValueError(
                f"blocks_up must have one level less than blocks_down, {len(self.blocks_down) - 1}, "
                f"got {len(self.blocks_up)}"
            )
        return self


def build(config: Config, in_channels: int, size: int) -> nn.Module:
    """(b, in_channels, size, size, size) → (b, 1, size, size, size), no activation at the output.

    `UserError` unless `size` can be halved as often as there are levels in `blocks_up`.
    """
    step = 2 ** len(config.blocks_up)
    check_size("segresnet", size, step, least=step)
    return SegResNet(
        spatial_dims=3,
        in_channels=in_channels,
        out_channels=1,
        init_filters=config.init_filters,
        blocks_down=config.blocks_down,
        blocks_up=config.blocks_up,
    )
