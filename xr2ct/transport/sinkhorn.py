"""Debiased Sinkhorn divergence between two batches of features (Feydy et al. 2019).

The iterations are geomloss's: symmetric updates, ε from the diameter² down to blur², one more extrapolation
at the end. What differs is where the work lies. Features have half a million dimensions and a batch few
samples, so each layer's points are read twice: once for their Gram matrix, from which every cost follows,
and once for the gradient. All layers then iterate at once on matrices of the batch's size, in fp64.

Over several ranks each has a slice of the features of all samples: Gram matrices add up over slices, every
rank solves the same small problem, and the gradient of a slice goes back to the samples' own ranks.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from xr2ct.autocast import without_autocast
from xr2ct.transport.dual_potentials import Schedule, solve
from xr2ct.transport.global_batch import from_slices, to_slices, total

_SUMMED = 2048
"""Products that are summed in the points' own precision; such sums are added up in fp64."""
_IN_A_CACHE, _ON_A_GPU = 2**19, 2**25
"""Numbers that are worked on at once: what cores' caches hold, and enough for each thread to be worth its
start; or enough to fill a GPU."""
_WIDEST = 16.0
"""Features are taken to spread over at most this in the root mean square of their dimensions. f's lie in
[-1, 1]; wider ones start at a smaller ε than geomloss's would."""


class SinkhornDivergence:
    """ΣS over layers; the points are the samples of the global batch, cost |x − y|²/2.

    Costs come from points in fp32, or fp64 where given that, whatever the precision around them: half
    precision gives wrong gradients or none. Nothing here waits for the device.
    """

    def __init__(self, blur: float | Sequence[float] = 0.05, scaling: float = 0.5) -> None:
        """blur: in units of features, for all layers or for each."""
        self._blur, self._scaling = blur, scaling

    def __call__(self, generated: Sequence[Tensor], real: Sequence[Tensor]) -> Tensor:
        """Each layer's (b, features) of this rank → a scalar, the same on every rank.

        Its gradient reaches `generated` by way of every rank, summed over them: averaging parameter gradients
        over ranks, as DeepSpeed does, makes it exact again. NaN where a feature is not finite.
        """
        x = [at_least_fp32(layer) for layer in generated]
        y = [at_least_fp32(layer.detach()) for layer in real]
        blurs = self._blur if isinstance(self._blur, Sequence) else [self._blur] * len(x)
        widest = [_WIDEST * math.sqrt(layer.shape[1]) for layer in x]
        schedule = Schedule(tuple(blurs), tuple(widest), self._scaling)
        divergence: Tensor = _Divergence.apply(schedule, *x, *y)
        return divergence


class _Divergence(torch.autograd.Function):
    """The sum over layers and, by the envelope theorem, its gradient: the plans are taken as constant."""

    @staticmethod
    def forward(ctx: Any, schedule: Schedule, *points: Tensor) -> Tensor:
        sliced = [to_slices(layer) for layer in points]
        x, y = sliced[: len(sliced) // 2], sliced[len(sliced) // 2 :]
        with without_autocast(x[0]):
            grams, squares = zip(*(_gram(a, b) for a, b in zip(x, y, strict=True)), strict=True)
            gram, square = torch.stack(grams), torch.stack(squares)
            summed = total(torch.cat([gram.flatten(), square]))
            gram, square = summed[: gram.numel()].view_as(gram), summed[gram.numel() :]
            divergences, weights = solve(_costs(gram), square.sqrt(), schedule)
        ctx.save_for_backward(weights, *sliced)
        ctx.features = [layer.shape[1] for layer in points]
        return divergences.sum().to(x[0].dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        slope = total(gradients[0])
        weights, *sliced = ctx.saved_tensors
        x, y = sliced[: len(sliced) // 2], sliced[len(sliced) // 2 :]
        with without_autocast(x[0]):
            pulls = [
                from_slices(_weighted(w * slope, a, b), features)
                for w, a, b, features in zip(weights, x, y, ctx.features, strict=False)
            ]
        return (None, *pulls, *[None] * len(y))


def _gram(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Inner products (2b, 2b) of both batches' points about a common centre, and the square of their box's
    diameter: sums over features both.

    About a centre, since a divergence of squared distances cancels: features far from the origin would lose
    its digits. Both in fp64.
    """
    gram = x.new_zeros(2 * len(x), 2 * len(x), dtype=torch.float64)
    square = x.new_zeros((), dtype=torch.float64)
    for both in _parts(x, y):
        low, high = both.amin(0), both.amax(0)  # on a CPU many times faster than torch.aminmax
        square += (high - low).double().square().sum()
        both -= (low + high) / 2
        if both.device.type != "cpu":
            both = both.double()  # in fp32 cuBLAS may compute in TF32, by a switch that is anybody's
        whole = both.shape[1] // _SUMMED * _SUMMED
        pieces = both[:, :whole].unflatten(1, (-1, _SUMMED)).transpose(0, 1)
        gram += torch.bmm(pieces, pieces.transpose(1, 2)).sum(0, dtype=torch.float64)
        gram += both[:, whole:] @ both[:, whole:].T
    return gram, square


def _weighted(weights: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """`weights` (b, 2b) · the points of both batches, (b, features).

    A row's weights sum to zero, so that points may be taken from the first one, which keeps their digits.
    """
    out = torch.empty_like(x)
    start = 0
    for both in _parts(x, y):
        stop = start + both.shape[1]
        both -= both[0].clone()
        torch.mm(weights.to(x.dtype), both, out=out[:, start:stop])
        start = stop
    return out


def _parts(x: Tensor, y: Tensor) -> Iterator[Tensor]:
    """Both batches' points, (2b, some features), which stay in a cache for whatever is done with them."""
    at_once = _IN_A_CACHE if x.device.type == "cpu" else _ON_A_GPU
    step = max(1, at_once // (2 * len(x) * _SUMMED)) * _SUMMED
    for parts in zip(x.split(step, 1), y.split(step, 1), strict=True):
        yield torch.cat(parts)


def _costs(grams: Tensor) -> Tensor:
    """(layer, 2b, 2b) inner products → (layer, problem, b, b) |x − y|²/2: x to y, y to x, x to x, y to y."""
    squares = grams.diagonal(dim1=1, dim2=2)
    costs = (squares[:, :, None] + squares[:, None, :]) / 2 - grams
    half = costs.shape[1] // 2
    of_x, of_y = costs.split(half, 1)
    return torch.stack([of_x[:, :, half:], of_y[:, :, :half], of_x[:, :, :half], of_y[:, :, half:]], dim=1)


def at_least_fp32(x: Tensor) -> Tensor:
    """Half precision as fp32; everything else as it is."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
