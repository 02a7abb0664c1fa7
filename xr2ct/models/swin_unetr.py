"""Swin UNETR as the mapper's backbone: views lifted into channels in, one volume out."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator
from torch import nn

from xr2ct.config import Section
from xr2ct.models.shapes import check_size
from xr2ct.models.swin import SwinUNETR

Four = tuple[int, int, int, int]


class Config(Section):
    """Everything else is MONAI's default. 62.19 M parameters with two views, at any size."""

    feature_size: int = Field(48, ge=12, multiple_of=12)
    """Channels of the first stage; they double four times."""
    depths: Four = (2, 2, 2, 2)
    """Transformer blocks a stage."""
    num_heads: Four = (3, 6, 12, 24)
    window_size: int = Field(7, ge=2)
    """Side of the attention's windows in patches."""
    use_checkpoint: bool = False
    """Keep blocks' inputs alone and compute what is between them again on the way back."""
    compile: Literal["auto", "on", "off"] = "auto"
    """Whether `torch.compile` fuses its operations, in the first pass; `auto`: on CUDA, if weights are whole
    (ZeRO 3 shares them out)."""

    @model_validator(mode="after")
    def _heads(self) -> Config:
        channels = [self.feature_size * 2**i for i in range(4)]
        if any(h < 1 or c % h for c, h in zip(channels, self.num_heads, strict=True)):
            raise ValueError(f"num_heads must divide the stages' channels {channels}")
        return self


def build(config: Config, in_channels: int, size: int) -> nn.Module:
    """(b, in_channels, size, size, size) → (b, 1, size, size, size), no activation at the output.

    `UserError` unless `size` is a multiple of 32 and at least 64: five halvings, and the last must leave
    more than one voxel for InstanceNorm.
    """
    check_size("swin-unetr", size, step=32, least=64)
    return SwinUNETR(
        size,
        in_channels=in_channels,
        out_channels=1,
        feature_size=config.feature_size,
        depths=config.depths,
        num_heads=config.num_heads,
        window_size=config.window_size,
        recompute=config.use_checkpoint,
        compiled=config.compile,
    )
