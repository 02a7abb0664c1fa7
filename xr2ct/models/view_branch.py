"""One view's path through X2CT-GAN (Ying et al. 2019): a 2D encoder, a 3D decoder, and what connects them.

The letters are the publication's: connection A makes the bottom of the decoder, connection B its skips.
Norms are InstanceNorm without weights, by each sample's own statistics in evaluation too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from xr2ct.config import Section
from xr2ct.errors import UserError
from xr2ct.models.dense_encoder import DenseEncoder, Transform
from xr2ct.seeds import derive_seed

BOTTOM = 4
"""Side of the coarsest features, in 2D and in 3D."""


class Widths(Section):
    """The published ones. How many stages there are follows from the volume's size: see `levels`."""

    encoder_channels: int = Field(64, ge=1)
    """Of the first 2D features; dense blocks and halvings make the others."""
    blocks: tuple[int, int, int, int, int] = (6, 12, 24, 16, 6)
    """Dense layers a stage at 128³. Other sizes have as many stages as doublings from 4³: the last one, and
    before it as many of the others as that leaves, from the first on; beyond five the fourth is repeated."""
    growth: int = Field(32, ge=1)
    """Channels that a dense layer adds."""
    bottleneck: int = Field(4, ge=1)
    """Channels within a dense layer, in units of `growth`."""
    bottom_channels: int = Field(256, ge=1)
    """Of the decoder at 4³; each finer level has half as many."""
    least_channels: int = Field(16, ge=1)
    """Where the decoder's halving ends."""
    dropout: float = Field(0.5, ge=0, lt=1)
    """Of connection A, in training."""


def levels(size: int, name: str) -> int:
    """Doublings from 4³ to size³: 5 at 128³, the published size, 4 at 64³.

    `UserError` naming the nearest size, unless it is 4 times a power of two and at least 16.
    """
    doublings = max(2, round(math.log2(max(size, 1) / BOTTOM)))
    if size != BOTTOM * 2**doublings:
        raise UserError(
            f"data.size {size}: {name} needs 4 times a power of two, at least 16; "
            f"nearest is {BOTTOM * 2**doublings}"
        )
    return doublings


def decoder_channels(widths: Widths, doublings: int) -> list[int]:
    """Of the decoder at 4³, 8³, …: 256, 128, 64, 32, 16, 16 at 128³."""
    return [max(widths.bottom_channels // 2**i, widths.least_channels) for i in range(doublings + 1)]


class ConnectionA(nn.Module):
    """Features (b, c, row, col) → the decoder's bottom (b, channels, 4, 4, 4), by way of their mean.

    In training dropout follows from each sample's place in it, seeds[:, 1] of `methods.base.Batch.seeds`, and
    the view's number: so it is the same for any number of ranks and in a pass that is repeated. Without
    seeds (a pass that is counted or timed) each sample draws from one fixed stream.
    """

    def __init__(self, channels_in: int, channels: int, dropout: float, view: int) -> None:
        super().__init__()
        self.linear = nn.Linear(channels_in, channels * BOTTOM**3)
        self.channels = channels
        self.dropout = dropout
        self.view = view

    def forward(self, features: Tensor, seeds: Tensor | None) -> Tensor:
        x = self.linear(features.mean((-2, -1)))
        if self.training and self.dropout > 0:
            x = x * self._kept(x, seeds) / (1 - self.dropout)
        return F.relu(x).unflatten(1, (self.channels, BOTTOM, BOTTOM, BOTTOM))

    def _kept(self, x: Tensor, seeds: Tensor | None) -> Tensor:
        numbers = [0] * len(x) if seeds is None else seeds[:, 1].tolist()
        streams = [torch.Generator().manual_seed(derive_seed(n, "dropout", self.view)) for n in numbers]
        drawn = torch.stack([torch.rand(x.shape[1], generator=stream) for stream in streams])
        return (drawn >= self.dropout).to(x)


class ConnectionB(nn.Module):
    """Features (b, c, row, col) → a skip (b, channels, depth, row, col).

    Conv 1², copies along the beam, conv 3³, norm, ReLU.
    `depth_aware` (Ratul et al. 2021) weighs the repeated features x to x + x·m, m = sigmoid of convolutions
    1³ to an eighth of the channels and to one. As those see copies alone, m is the same at every depth and
    is found once, in 2D.
    """

    def __init__(self, channels_in: int, channels: int, depth_aware: bool) -> None:
        super().__init__()
        self.flat = nn.Conv2d(channels_in, channels, 1)
        few = max(1, channels // 8)
        self.mask = (
            nn.Sequential(nn.Conv2d(channels, few, 1), nn.ReLU(), nn.Conv2d(few, 1, 1), nn.Sigmoid())
            if depth_aware
            else None
        )
        self.deep = convolved(channels, channels)

    def forward(self, features: Tensor) -> Tensor:
        x = self.flat(features)
        if self.mask is not None:
            x = x + x * self.mask(x)
        copies = x.unsqueeze(2).expand(-1, -1, x.shape[-1], -1, -1)
        volume: Tensor = self.deep(copies)
        return volume


class Level(nn.Module):
    """One doubling of a decoder: transposed conv 3³ stride 2, conv 3³ of that and the skip, `extra` more.

    Norm and ReLU follow each.
    """

    def __init__(self, channels_in: int, channels: int, extra: int) -> None:
        super().__init__()
        self.up = nn.Sequential(
            nn.ConvTranspose3d(channels_in, channels, 3, stride=2, padding=1, output_padding=1),
            nn.InstanceNorm3d(channels),
            nn.ReLU(),
        )
        merge = convolved(2 * channels, channels)
        self.merge = nn.Sequential(merge, *(convolved(channels, channels) for _ in range(extra)))

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        merged: Tensor = self.merge(torch.cat([self.up(x), skip], dim=1))
        return merged


class ViewBranch(nn.Module):
    """One view's encoder and decoder, in its own axes (depth, row, col); 29.38 M parameters at 128³.

    Alone it is the network of one view. In one of several, `levels` take what connection C hands back in
    place of the level before, and `head` is not used: it is there as one of the published 61.74 M.
    """

    def __init__(
        self,
        widths: Widths,
        doublings: int,
        view: int,
        transform: Transform | None = None,
        depth_aware: bool = False,
    ) -> None:
        super().__init__()
        *first, last = widths.blocks
        blocks = [*(first + first[-1:] * doublings)[: doublings - 1], last]
        self.encoder = DenseEncoder(
            widths.encoder_channels, blocks, widths.growth, widths.bottleneck, transform
        )
        channels = decoder_channels(widths, doublings)
        *skipped, deepest = self.encoder.channels
        self.bottom = ConnectionA(deepest, channels[0], widths.dropout, view)
        self.skips = nn.ModuleList(
            ConnectionB(flat, deep, depth_aware)
            for flat, deep in zip(reversed(skipped), channels[1:], strict=True)
        )
        self.levels = decoder(channels, extra=2)
        self.head = head(channels[-1])

    def encode(
        self, picture: Tensor, seeds: Tensor | None, condition: Tensor | None
    ) -> tuple[Tensor, list[Tensor]]:
        """(b, 1, row, col) → the bottom at 4³ and the skips from 8³ on."""
        *features, deepest = self.encoder(picture, condition)
        skips = [skip(f) for skip, f in zip(self.skips, reversed(features), strict=True)]
        return self.bottom(deepest, seeds), skips

    def decode(self, bottom: Tensor, skips: Sequence[Tensor]) -> Tensor:
        """The volume (b, 1, depth, row, col) of this view alone."""
        x = bottom
        for number, skip in enumerate(skips):
            x = self.level(number, x, skip)
        volume: Tensor = self.head(x)
        return volume

    def level(self, number: int, x: Tensor, skip: Tensor) -> Tensor:
        """One doubling of the decoder, 0 that to 8³."""
        doubled: Tensor = self.levels[number](x, skip)
        return doubled


def decoder(channels: Sequence[int], extra: int) -> nn.ModuleList:
    """Levels from 4³ to size³ with `extra` further convolutions each, and one at the finest."""
    last = len(channels) - 2
    return nn.ModuleList(
        Level(channels[i], channels[i + 1], extra if i < last else 1) for i in range(last + 1)
    )


def head(channels: int) -> nn.Sequential:
    """Conv 7³ to one channel, and ReLU."""
    return nn.Sequential(nn.Conv3d(channels, 1, 7, padding=3), nn.ReLU())


def convolved(channels_in: int, channels: int) -> nn.Sequential:
    """Conv 3³, norm, ReLU."""
    return nn.Sequential(
        nn.Conv3d(channels_in, channels, 3, padding=1), nn.InstanceNorm3d(channels), nn.ReLU()
    )
