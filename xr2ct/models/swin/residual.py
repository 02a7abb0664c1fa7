"""Swin UNETR's blocks of convolutions, with weights named, shaped and drawn as MONAI's UnetResBlock's."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xr2ct.models.swin.norms import (
    EPS,
    act_conv,
    grid,
    norm_act_conv,
    norm_add_act,
    norm_add_act_project,
    volume,
)
from xr2ct.models.swin.repeated import RepeatedConv3d, Views, normalised

Unsummed = tuple[Tensor, list[Tensor], bool]
"""What `norm_add_act` takes: the second convolution's result, what is added to it, and whether normalised."""


class _Conv3d(nn.Conv3d):
    """Without bias, so that a kernel 1³ is a product of matrices."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int) -> None:
        super().__init__(channels_in, channels_out, kernel, padding=kernel // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.kernel_size == (1, 1, 1):
            return volume(F.linear(grid(x), self.weight.flatten(1)))
        return super().forward(volume(grid(x)))


class _NormActConv3d(_Conv3d):
    """InstanceNorm and LeakyReLU first; of a volume, or of planes that are normalised already."""

    def forward(self, x: Tensor | list[Tensor], lengths: tuple[int, int, int] | None = None) -> Tensor:
        if isinstance(x, Tensor):
            return norm_act_conv(x, self.weight)
        assert lengths is not None
        return act_conv(x, lengths, self.weight)


class _Project(nn.Conv3d):
    """A kernel 1³ at the end of the last block."""

    def forward(self, unsummed: Unsummed) -> Tensor:  # type: ignore[override]
        x, (other,), _ = unsummed
        assert self.bias is not None
        return norm_add_act_project(x, other, self.weight, self.bias)


class _Double(nn.ConvTranspose3d):
    """Each voxel to 2³: a product of matrices."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__(channels_in, channels_out, kernel_size=2, stride=2, bias=False)

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        """(b, channels_in, z, y, x) → (b, 2z, 2y, 2x, channels_out)."""
        x = grid(x)
        b, *sides, _ = x.shape
        fine = F.linear(x, self.weight.permute(2, 3, 4, 1, 0).flatten(0, 3))
        fine = fine.view(b, *sides, 2, 2, 2, self.out_channels).permute(0, 1, 4, 2, 5, 3, 6, 7)
        return fine.reshape(b, *(2 * side for side in sides), self.out_channels)


def _named(name: str, module: nn.Module) -> nn.ModuleDict:
    """Under the name that MONAI's containers give it."""
    return nn.ModuleDict({name: module})


class ResidualBlock(nn.Module):
    """LeakyReLU(norm(conv3(LeakyReLU(norm(conv3(x))))) + x); x through norm(conv1(x)) where widths differ."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.conv1 = _named("conv", self._first(channels_in, channels_out, 3))
        self.conv2 = _named("conv", _NormActConv3d(channels_out, channels_out, 3))
        self.widens = channels_in != channels_out
        if self.widens:
            self.conv3 = _named("conv", self._first(channels_in, channels_out, 1))

    @staticmethod
    def _first(channels_in: int, channels_out: int, kernel: int) -> nn.Conv3d:
        return _Conv3d(channels_in, channels_out, kernel)

    def unsummed(self, x: Tensor) -> Unsummed:
        """All but the last sum and activation."""
        inner = self.conv2["conv"](self.conv1["conv"](x))
        return inner, [self.conv3["conv"](x) if self.widens else x], self.widens

    def forward(self, x: Tensor) -> Tensor:
        return norm_add_act(*self.unsummed(x))


class RepeatedBlock(ResidualBlock):
    """A residual block whose input may be `Views`: then its first convolutions are of pictures."""

    @staticmethod
    def _first(channels_in: int, channels_out: int, kernel: int) -> nn.Conv3d:
        return RepeatedConv3d(channels_in, channels_out, kernel, padding=kernel // 2, bias=False)

    def forward(self, x: Tensor, views: Views | None = None) -> Tensor:
        if views is None:
            return super().forward(x)
        lengths = views.lengths
        first = normalised(self.conv1["conv"](views), lengths, EPS)
        inner = self.conv2["conv"](first, lengths)
        return norm_add_act(inner, normalised(self.conv3["conv"](views), lengths, EPS), both=False)


class Encoder(nn.Module):
    """A residual block beside the transformer."""

    def __init__(self, block: ResidualBlock) -> None:
        super().__init__()
        self.layer = block

    def forward(self, *inputs: Tensor | Views | None) -> Tensor:
        return self.layer(*inputs)


class Decoder(nn.Module):
    """Twice the side, the skip beside it, and a residual block."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.transp_conv = _named("conv", _Double(channels_in, channels_out))
        self.conv_block = ResidualBlock(2 * channels_out, channels_out)

    def joined(self, x: Tensor, skip: Tensor) -> Tensor:
        return volume(torch.cat([self.transp_conv["conv"](x), grid(skip)], -1))

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        return self.conv_block(self.joined(x, skip))


class Out(nn.Module):
    """The last convolution, which takes what the last block has not yet summed."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.conv = _named("conv", _Project(channels_in, channels_out, 1))

    def forward(self, unsummed: Unsummed) -> Tensor:
        return self.conv["conv"](unsummed)
