"""The 2D-3D autoencoder that the paper compares with (Fig. 3): views to a code, the code to a volume.

From the paper (section 3.3, Fig. 3): each view is encoded by itself in 2D by one and the same encoder, to
fewer numbers than it has pixels; the codes are joined in the order of the views, and a 3D decoder makes the
volume of them alone, without any skip from picture to volume; "+ L2 Norm." brings each code to length 1.
Ours, since the paper is silent: all widths and depths, GroupNorm, 512 numbers a view, strided convolutions
down and transposed ones up. With them the network stands between the U-Net and Swin UNETR in size.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from xr2ct.config import Section
from xr2ct.errors import UserError
from xr2ct.models.shapes import check_views
from xr2ct.projection.geometry import Geometry

TAKES = "views"
_GROUPS = 8
_SLOPE = 0.2
_SMALLEST = 4
"""Side at which a picture is coded, and from which a volume grows."""


class Config(Section):
    """Widths. 25.65 M parameters with two views of 256² at 64³."""

    base_channels: int = Field(32, ge=_GROUPS, multiple_of=_GROUPS)
    """Of the first picture halved and of the volume at its full size; they double where the side halves."""
    max_channels: int = Field(256, ge=_GROUPS, multiple_of=_GROUPS)
    latent: int = Field(512, ge=1)
    """Length of a view's code."""
    l2_normalise: bool = False
    """Bring each view's code to length 1."""

    @model_validator(mode="after")
    def _order(self) -> Config:
        if self.base_channels > self.max_channels:
            raise ValueError(f"base_channels {self.base_channels} is above max_channels {self.max_channels}")
        return self


class Encoder(nn.Module):
    """Pictures (n, 1, row, col) → codes (n, latent): halved until the side is 4 or less, then one Linear."""

    def __init__(self, config: Config, pixels: int) -> None:
        super().__init__()
        sides = [pixels]
        while sides[-1] > _SMALLEST:
            sides.append((sides[-1] + 1) // 2)
        widths = [1, *_widths(config, len(sides) - 1)]
        self.stages = nn.Sequential(
            *(
                nn.Sequential(
                    _normed(nn.Conv2d(narrow, wide, 3, stride=2, padding=1, bias=False)),
                    _normed(nn.Conv2d(wide, wide, 3, padding=1, bias=False)),
                )
                for narrow, wide in pairwise(widths)
            )
        )
        self.head = nn.Linear(widths[-1] * sides[-1] ** 2, config.latent)

    def forward(self, pictures: Tensor) -> Tensor:
        return self.head(self.stages(pictures).flatten(1))


class Decoder(nn.Module):
    """Codes (b, codes) → volumes (b, 1, size, size, size): a Linear to the smallest volume, then doubled."""

    def __init__(self, config: Config, codes: int, size: int) -> None:
        super().__init__()
        doublings = _doublings(size)
        widths = _widths(config, doublings + 1)[::-1]
        self.side = size >> doublings
        self.stem = nn.Linear(codes, widths[0] * self.side**3)
        self.stages = nn.Sequential(
            nn.Sequential(nn.GroupNorm(_GROUPS, widths[0]), nn.LeakyReLU(_SLOPE)),
            *(
                nn.Sequential(
                    _normed(nn.ConvTranspose3d(wide, narrow, 2, stride=2, bias=False)),
                    _normed(nn.Conv3d(narrow, narrow, 3, padding=1, bias=False)),
                )
                for wide, narrow in pairwise(widths)
            ),
        )
        self.head = nn.Conv3d(widths[-1], 1, 3, padding=1)

    def forward(self, codes: Tensor) -> Tensor:
        return self.head(self.stages(self.stem(codes).unflatten(1, (-1, *(self.side,) * 3))))


class Autoencoder(nn.Module):
    """(b, view, row, col) → (b, 1, z, y, x) in the patient's axes, which the decoder learns to give.

    `UserError` for another number or size of views, and for a size that is not 3 or 4 times a power of two.
    """

    def __init__(self, config: Config, views: int, pixels: int, size: int) -> None:
        super().__init__()
        self.views, self.pixels = views, pixels
        self.l2_normalise = config.l2_normalise
        self.encoder = Encoder(config, pixels)
        self.decoder = Decoder(config, views * config.latent, size)

    def forward(self, views: Tensor, seeds: Tensor | None = None) -> Tensor:
        check_views(views, self.views, self.pixels)
        pictures = views.to(self.decoder.head.weight.dtype).flatten(0, 1)[:, None]
        codes = self.encoder(pictures).unflatten(0, views.shape[:2])
        if self.l2_normalise:
            codes = F.normalize(codes, dim=-1)
        return self.decoder(codes.flatten(1))


def build(config: Config, views: Sequence[float], geometry: Geometry, size: int) -> nn.Module:
    """The autoencoder for these views; no activation at the output."""
    return Autoencoder(config, len(views), geometry.pixels, size)


def _normed(convolution: nn.Conv2d | nn.Conv3d | nn.ConvTranspose3d) -> nn.Sequential:
    norm = nn.GroupNorm(_GROUPS, convolution.out_channels)
    return nn.Sequential(convolution, norm, nn.LeakyReLU(_SLOPE))


def _widths(config: Config, levels: int) -> list[int]:
    return [min(config.base_channels * 2**i, config.max_channels) for i in range(levels)]


def _doublings(size: int) -> int:
    """From the smallest volume to `size`."""
    doublings = 0
    while size >> doublings > _SMALLEST:
        doublings += 1
    if size % 2**doublings:
        sizes = (times * 2**n for n in range(doublings + 1) for times in (3, 4))
        near = min(sizes, key=lambda possible: abs(possible - size))
        raise UserError(f"data.size {size}: autoencoder needs 3 or 4 times a power of two; nearest is {near}")
    return doublings
