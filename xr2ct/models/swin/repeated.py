"""Convolutions of repeated views, done on the pictures.

What is constant along an axis need not be convolved along it. A kernel over a volume that repeats a picture
along an axis is that kernel summed along the axis, over the picture; with zeros around the volume, its first
and last plane lack a tap. So the result is a sum of few planes, spread over the volume: not yet a volume.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Y, X = 2, 3
"""The axes of (b, z, y, x, channels) along which a view may be repeated."""


class Views(NamedTuple):
    """A volume (b, view, z, y, x) whose channels repeat a picture each."""

    volume: Tensor
    axes: tuple[int, ...]
    """Along which each does: −2 for y, −1 for x."""

    @property
    def lengths(self) -> tuple[int, int, int]:
        _, _, z, y, x = self.volume.shape
        return z, y, x

    def pictures(self, axis: int) -> tuple[list[int], Tensor]:
        """The views repeated along that axis, and their pictures (b, view, z, lateral)."""
        chosen = [i for i, other in enumerate(self.axes) if 4 + other == axis]
        return chosen, torch.stack([self.volume[:, i].select(axis - 4, 0) for i in chosen], 1)


class RepeatedConv3d(nn.Conv3d):
    """A convolution of a volume, or of `Views`.

    Of views it gives (b, z, 1, x, channels) of those along y and (b, z, y, 1, channels) of those along x;
    where it pads by 1, with 3 in place of 1: the first plane, those between, and the last one. Their sum
    over the volume is the convolution of the volume.
    """

    def forward(self, x: Tensor | Views) -> Tensor | list[Tensor]:  # type: ignore[override]
        if isinstance(x, Tensor):
            return super().forward(x)
        found: list[Tensor] = []
        for axis in sorted({4 + a for a in x.axes}):
            chosen, pictures = x.pictures(axis)
            kernel = self.weight[:, chosen]
            taps = kernel.unbind(axis + 1)
            sums = [taps[1:], taps, taps[:-1]] if self.padding[0] else [taps]
            kernels = torch.stack([torch.stack(s).sum(0) for s in sums])
            planes = F.conv2d(
                pictures, kernels.flatten(0, 1), stride=self.stride[1:], padding=self.padding[1:]
            )
            planes = planes.unflatten(1, kernels.shape[:2]).permute(0, 3, 1, 4, 2)
            if self.bias is not None and not found:
                planes = planes + self.bias
            found.append(planes if axis == Y else planes.transpose(2, 3))
        return found


def normalised(planes: Sequence[Tensor], lengths: tuple[int, int, int], eps: float) -> list[Tensor]:
    """Planes whose sum over the volume has mean 0 and variance 1 in each sample and channel: InstanceNorm.

    The volume's moments follow from the planes' own, and from the product of the two kinds, which falls apart
    into sums along either axis. In fp32 or above.
    """
    wide = [p.to(torch.promote_types(p.dtype, torch.float32)) for p in planes]
    axes = [_axis(p, lengths) for p in planes]
    centred = [p - _mean(p, a, lengths) for p, a in zip(wide, axes, strict=True)]
    squares = [_mean(p.square(), a, lengths) for p, a in zip(centred, axes, strict=True)]
    variance = torch.stack(squares).sum(0)
    if len(centred) == 2:
        along_y, along_x = centred
        product = sums(along_y, X, along_x.shape[X]) * sums(along_x, Y, along_y.shape[Y])
        voxels = lengths[0] * lengths[1] * lengths[2]
        variance = variance + product.sum((1, 2, 3), keepdim=True) * (2 / voxels)
    scale = (variance + eps).rsqrt()
    return [p * scale for p in centred]


def spread(planes: Sequence[Tensor], slab: slice, lengths: tuple[int, int, int]) -> Tensor:
    """Their sum over a slab of the volume, (b, slab, y, x, channels)."""
    parts = [(p[:, slab], _axis(p, lengths)) for p in planes]
    b, z = parts[0][0].shape[:2]
    shape = (b, z, lengths[1], lengths[2], parts[0][0].shape[-1])
    middles = [p.narrow(axis, p.shape[axis] // 2, 1) for p, axis in parts]
    volume = middles[0] + middles[1] if len(middles) == 2 else middles[0].expand(shape).clone()
    for (part, axis), middle in zip(parts, middles, strict=True):
        if part.shape[axis] == 3:
            volume.narrow(axis, 0, 1).add_(part.narrow(axis, 0, 1) - middle)
            volume.narrow(axis, -1, 1).add_(part.narrow(axis, 2, 1) - middle)
    return volume


def sums(x: Tensor, axis: int, count: int) -> Tensor:
    """Along an axis; with a `count` of 3, of the first plane, those between and the last one."""
    if count == 1:
        return x.sum(axis, keepdim=True)
    last = x.shape[axis] - 1
    between = x.narrow(axis, 1, last - 1).sum(axis, keepdim=True)
    return torch.cat([x.narrow(axis, 0, 1), between, x.narrow(axis, last, 1)], axis)


def collected(grad: Tensor, planes: Sequence[Tensor]) -> list[Tensor]:
    """The way back of `spread`: a volume's gradient (b, slab, y, x, channels) to that of each plane."""
    lengths = (0, grad.shape[Y], grad.shape[X])
    axes = [_axis(p, lengths) for p in planes]
    return [sums(grad, axis, p.shape[axis]) for p, axis in zip(planes, axes, strict=True)]


def _axis(planes: Tensor, lengths: tuple[int, int, int]) -> int:
    """Along which they are spread. A volume has more than three planes."""
    return Y if planes.shape[X] == lengths[2] else X


def _mean(planes: Tensor, axis: int, lengths: tuple[int, int, int]) -> Tensor:
    """Over the volume that they are spread over."""
    means = planes.mean((1, Y + X - axis), keepdim=True)
    if planes.shape[axis] == 1:
        return means
    first, between, last = means.split(1, axis)
    length = lengths[axis - 1]
    return (first + between * (length - 2) + last) / length
