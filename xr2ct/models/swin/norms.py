"""InstanceNorm, LeakyReLU and sum beside a convolution, keeping the convolutions' results and no other.

They are a few operations a voxel: making them again on the way back costs less than reading what they
gave. Volumes (b, channels, z, y, x) are channels-last, so that a convolution's result and a transformer's
tokens lie alike; `grid` is their view (b, z, y, x, channels).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from xr2ct.models.swin import repeated
from xr2ct.models.swin.chunks import by_slabs, slabs

SLOPE = 0.01
"""LeakyReLU's, as in MONAI's."""
EPS = 1e-5
"""What InstanceNorm adds to a variance."""
_VOXELS = (1, 2, 3)
Lengths = tuple[int, int, int]


def grid(x: Tensor) -> Tensor:
    """(b, channels, z, y, x) → (b, z, y, x, channels), copied where it is not channels-last."""
    return x.permute(0, 2, 3, 4, 1).contiguous()


def volume(x: Tensor) -> Tensor:
    """(b, z, y, x, channels) → (b, channels, z, y, x), a view."""
    return x.permute(0, 4, 1, 2, 3)


def norm_act_conv(x: Tensor, weight: Tensor) -> Tensor:
    """conv(LeakyReLU(InstanceNorm(x))) with a kernel 3³, keeping x."""
    return _NormActConv.apply(x, weight)


def act_conv(planes: Sequence[Tensor], lengths: Lengths, weight: Tensor) -> Tensor:
    """conv(LeakyReLU(planes spread over a volume (z, y, x))) with a kernel 3³, keeping the planes."""
    return _ActConv.apply(weight, lengths, *_pair(planes))


def norm_add_act(x: Tensor, rest: Sequence[Tensor], both: bool) -> Tensor:
    """LeakyReLU(InstanceNorm(x) + rest): planes, or a volume, to be normalised too where `both`."""
    return _NormAddAct.apply(x, both, *_pair(rest))


def norm_add_act_project(x: Tensor, other: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """A convolution 1³ of LeakyReLU(InstanceNorm(x) + InstanceNorm(other)), which is not kept."""
    return _NormAddActProject.apply(x, other, weight, bias)


def _pair(rest: Sequence[Tensor]) -> tuple[Tensor, Tensor | None]:
    """One or two. Functions below take no `*rest`: torch 2.13 does not compile such without gradients."""
    return rest[0], rest[1] if len(rest) == 2 else None


class _Normal(NamedTuple):
    """A grid, and what normalises it: (b, 1, 1, 1, channels) in fp32 or above."""

    x: Tensor
    mean: Tensor
    scale: Tensor
    """1/√(variance + eps)."""

    def __getitem__(self, slab: slice) -> Tensor:  # type: ignore[override]
        return torch.addcmul(-self.mean * self.scale, self.x[:, slab].to(self.mean.dtype), self.scale)


def _normal(x: Tensor) -> _Normal:
    """With the moments of a grid: slab by slab about each one's mean, so that nothing cancels (Chan 1979)."""
    means, squares, counts = [], [], []
    for slab in slabs(x):
        part = x[:, slab].to(torch.promote_types(x.dtype, torch.float32))
        means.append(part.mean(_VOXELS, keepdim=True))
        squares.append((part - means[-1]).square().sum(_VOXELS, keepdim=True))
        counts.append(part[0, ..., 0].numel())
    voxels = sum(counts)
    mean, square = means[0], squares[0]
    if len(counts) > 1:
        count = torch.tensor(counts, dtype=mean.dtype, device=mean.device).view(-1, 1, 1, 1, 1, 1)
        each = torch.stack(means)
        mean = (each * (count / voxels)).sum(0)
        square = torch.stack(squares).sum(0) + (count * (each - mean).square()).sum(0)
    return _Normal(x, mean, (square / voxels + EPS).rsqrt())


class _Sum:
    """Normalised grids and whatever else, added up; slab by slab, and the way back to each."""

    def __init__(self, normals: Sequence[_Normal], rest: Sequence[Tensor]) -> None:
        """`rest` is nothing, a grid, or planes of a volume as long as the first grid."""
        self.normals, self.rest = normals, rest
        self.x = normals[0].x
        self.planes = bool(rest) and rest[0].shape != self.x.shape

    def __getitem__(self, slab: slice) -> Tensor:
        total = self.normals[0][slab]
        for other in self.normals[1:]:
            total = total + other[slab]
        if self.planes:
            return total + repeated.spread(self.rest, slab, self.lengths)
        return total + self.rest[0][:, slab] if self.rest else total

    @property
    def lengths(self) -> Lengths:
        _, z, y, x, _ = self.x.shape
        return z, y, x

    def backward(self, coming: Callable[[slice], Tensor]) -> list[Tensor]:
        """From the gradient of a slab of LeakyReLU(sum): those of the normalised grids, then of the rest."""
        sums = torch.zeros_like(self.normals[0].mean)
        products = [torch.zeros_like(sums) for _ in self.normals]
        collected = []

        def through_activation(slab: slice) -> Tensor:
            piece = _leaky_backward(coming(slab).to(sums.dtype), self[slab])
            sums.add_(piece.sum(_VOXELS, keepdim=True))
            for product, normal in zip(products, self.normals, strict=True):
                product.add_((piece * normal[slab]).sum(_VOXELS, keepdim=True))
            if self.planes:
                collected.append(repeated.collected(piece, self.rest))
            return piece.to(self.x.dtype)

        slope = by_slabs(through_activation, self.x)
        voxels = slope[0, ..., 0].numel()

        def through_norm(normal: _Normal, product: Tensor, slab: slice) -> Tensor:
            along = torch.addcmul(sums / voxels, normal[slab], product / voxels)
            return ((slope[:, slab] - along) * normal.scale).to(self.x.dtype)

        found = [
            by_slabs(partial(through_norm, n, p), self.x) for n, p in zip(self.normals, products, strict=True)
        ]
        if self.planes:
            return found + [torch.cat(each, 1) for each in zip(*collected, strict=True)]
        return found + [slope] * len(self.rest)


class _NormActConv(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        normal = _normal(grid(x))
        ctx.save_for_backward(x, normal.mean, normal.scale, weight)
        return F.conv3d(_activated(_Sum([normal], [])), weight, padding=1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None]:
        x, mean, scale, weight = ctx.saved_tensors
        total = _Sum([_Normal(grid(x), mean, scale)], [])
        slope, of_weight = _conv_backward(grad, _activated(total), weight, ctx.needs_input_grad[1])
        (of_x,) = total.backward(lambda slab: slope[:, slab])
        return volume(of_x), of_weight


class _ActConv(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, lengths: Lengths, first: Tensor, second: Tensor | None) -> Tensor:
        ctx.save_for_backward(weight, first, second)
        ctx.lengths = lengths
        return F.conv3d(_activated_planes(_present(first, second), lengths, weight.dtype), weight, padding=1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, None, Tensor, Tensor | None]:
        weight, *both = ctx.saved_tensors
        planes = _present(*both)
        activated = _activated_planes(planes, ctx.lengths, weight.dtype)
        slope, of_weight = _conv_backward(grad, activated, weight, ctx.needs_input_grad[0])
        activated = grid(activated)  # of the same sign as what it was made of
        collected = []
        for slab in slabs(slope):
            piece = _leaky_backward(slope[:, slab].to(planes[0].dtype), activated[:, slab])
            collected.append(repeated.collected(piece, planes))
        return of_weight, None, *_pair([torch.cat(each, 1) for each in zip(*collected, strict=True)])


class _NormAddAct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, both: bool, first: Tensor, second: Tensor | None) -> Tensor:
        normals = [_normal(grid(x))] + ([_normal(grid(first))] if both else [])
        ctx.save_for_backward(x, first, second, *(t for n in normals for t in (n.mean, n.scale)))
        ctx.both = both
        return _activated(_Sum(normals, [] if both else _as_grids(x, _present(first, second))))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, Tensor, Tensor | None]:
        grad = grid(grad)
        x, first, second, *of_norms = ctx.saved_tensors
        normal = _Normal(grid(x), *of_norms[:2])
        if ctx.both:
            total = _Sum([normal, _Normal(grid(first), *of_norms[2:])], [])
        else:
            total = _Sum([normal], _as_grids(x, _present(first, second)))
        of_x, *of_rest = total.backward(lambda slab: grad[:, slab])
        return volume(of_x), None, *_pair(of_rest if total.planes else [volume(r) for r in of_rest])


class _NormAddActProject(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, other: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        normals = [_normal(grid(x)), _normal(grid(other))]
        ctx.save_for_backward(x, other, weight, *(t for n in normals for t in (n.mean, n.scale)))
        total = _Sum(normals, [])

        def project(slab: slice) -> Tensor:
            return F.linear(F.leaky_relu(total[slab], SLOPE).to(x.dtype), weight.flatten(1), bias)

        return volume(by_slabs(project, total.x))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        x, other, weight, *of_norms = ctx.saved_tensors
        total = _Sum([_Normal(grid(x), *of_norms[:2]), _Normal(grid(other), *of_norms[2:])], [])
        grad, flat = grid(grad), weight.flatten(1)
        of_weight = torch.zeros_like(flat, dtype=total.normals[0].mean.dtype)

        def through_projection(slab: slice) -> Tensor:
            piece = grad[:, slab]
            activated = F.leaky_relu(total[slab], SLOPE).flatten(0, 3)
            of_weight.add_(piece.flatten(0, 3).to(activated.dtype).mT @ activated)
            return piece @ flat

        of_x, of_other = total.backward(through_projection)
        of_bias = grad.sum((0, *_VOXELS))
        return volume(of_x), volume(of_other), of_weight.to(weight.dtype).view_as(weight), of_bias


def _present(first: Tensor, second: Tensor | None) -> list[Tensor]:
    return [first] if second is None else [first, second]


def _as_grids(x: Tensor, rest: Sequence[Tensor]) -> list[Tensor]:
    """Planes are grids already."""
    return [grid(r) if r.shape == x.shape else r for r in rest]


def _activated(total: _Sum) -> Tensor:
    return volume(by_slabs(lambda slab: F.leaky_relu(total[slab], SLOPE).to(total.x.dtype), total.x))


def _activated_planes(planes: Sequence[Tensor], lengths: Lengths, dtype: torch.dtype) -> Tensor:
    like = planes[0].new_empty(()).to(dtype).expand(len(planes[0]), *lengths, planes[0].shape[-1])
    return volume(
        by_slabs(lambda s: F.leaky_relu(repeated.spread(planes, s, lengths), SLOPE).to(dtype), like)
    )


def _conv_backward(grad: Tensor, x: Tensor, weight: Tensor, of_weight: bool) -> tuple[Tensor, Tensor | None]:
    """Of a convolution 3³ padded by 1: the gradient of x as a grid, and of the weight where it is wanted."""
    ones = [1, 1, 1]
    of_x, found, _ = torch.ops.aten.convolution_backward(
        volume(grid(grad)), x, weight, None, ones, ones, ones, False, [0, 0, 0], 1, [True, of_weight, False]
    )
    return grid(of_x), found if of_weight else None


def _leaky_backward(grad: Tensor, x: Tensor) -> Tensor:
    return torch.ops.aten.leaky_relu_backward(grad, x.to(grad.dtype), SLOPE, False)
