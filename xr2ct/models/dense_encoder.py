"""The 2D encoder of X2CT-GAN (Ying et al. 2019): densely connected blocks between halvings of the picture."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Transform = Callable[[int, int], nn.Module | None]
"""(place of a dense layer in the encoder, its new channels) → what its new features pass through."""


class DenseLayer(nn.Module):
    """Norm, ReLU, conv 1² → bottleneck·growth, norm, ReLU, conv 3² → growth; joined to its input.

    A transform changes the new features by the condition, (b, conditions, row, col) on the same grid.
    """

    def __init__(self, channels: int, growth: int, bottleneck: int, transform: nn.Module | None) -> None:
        super().__init__()
        inner = bottleneck * growth
        self.layers = nn.Sequential(
            nn.InstanceNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, inner, 1),
            nn.InstanceNorm2d(inner),
            nn.ReLU(),
            nn.Conv2d(inner, growth, 3, padding=1),
        )
        self.transform = transform

    def forward(self, x: Tensor, condition: Tensor | None) -> Tensor:
        new = self.layers(x)
        if self.transform is not None:
            new = self.transform(new, condition)
        return torch.cat([x, new], dim=1)


class Stage(nn.Module):
    """Norm, ReLU, conv 3² stride 2, a dense block, and in all but the deepest a conv 1² to half of that."""

    def __init__(self, channels: int, layers: Sequence[DenseLayer], grown: int, channels_out: int) -> None:
        super().__init__()
        self.down = nn.Sequential(
            nn.InstanceNorm2d(channels), nn.ReLU(), nn.Conv2d(channels, channels, 3, stride=2, padding=1)
        )
        self.layers = nn.ModuleList(layers)
        self.narrow = nn.Identity() if channels_out == grown else nn.Conv2d(grown, channels_out, 1)

    def forward(self, x: Tensor, condition: Tensor | None) -> Tensor:
        x = self.down(x)
        if condition is not None:
            condition = _pooled(condition, x.shape[-1])
        for layer in self.layers:
            x = layer(x, condition)
        narrowed: Tensor = self.narrow(x)
        return narrowed


class DenseEncoder(nn.Module):
    """A picture (b, 1, size, size) → features at size², (size/2)², …, 4², the finest first.

    `channels` are those of the features. A 7² convolution on the picture, padded by reflection, then a stage
    for each of `blocks`, numbers of dense layers.
    """

    def __init__(
        self,
        base_channels: int,
        blocks: Sequence[int],
        growth: int,
        bottleneck: int,
        transform: Transform | None = None,
    ) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, base_channels, 7, padding=3, padding_mode="reflect")
        self.channels = [base_channels]
        self.stages = nn.ModuleList()
        for number, depth in enumerate(blocks):
            first, channels = sum(blocks[:number]), self.channels[-1]
            layers = []
            for i in range(depth):
                change = None if transform is None else transform(first + i, growth)
                layers.append(DenseLayer(channels + i * growth, growth, bottleneck, change))
            grown = channels + depth * growth
            channels_out = grown if number == len(blocks) - 1 else grown // 2
            self.stages.append(Stage(channels, layers, grown, channels_out))
            self.channels.append(channels_out)

    def forward(self, picture: Tensor, condition: Tensor | None = None) -> list[Tensor]:
        """condition: (b, conditions, row, col) for the transforms, at (size/2)² or finer."""
        features = [self.stem(picture)]
        for stage in self.stages:
            features.append(stage(features[-1], condition))
        return features


def _pooled(x: Tensor, side: int) -> Tensor:
    factor = x.shape[-1] // side
    return x if factor == 1 else F.avg_pool2d(x, factor)
