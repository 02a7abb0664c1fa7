"""Attention within windows, with a bias by relative position, keeping no matrix of n × n for the way back."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from xr2ct.models.swin.chunks import CACHE_BYTES, in_pieces
from xr2ct.models.swin.windows import CUT, Rows, Windows

_MOST_LOGITS = 2**28
"""At once on a GPU: the bias's gradient is written for every window before it is summed over them."""


class WindowAttention(nn.Module):
    """Of tokens (rows, dim) within `windows`; weights named, shaped and drawn as MONAI's WindowAttention."""

    relative_position_index: Tensor

    def __init__(self, dim: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads = heads
        self.scale = (dim // heads) ** -0.5
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * window - 1) ** 3, heads))
        self.register_buffer("relative_position_index", _relative_positions(window))
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        with torch.no_grad():  # N(0, 0.02) cut off at ±2, by MONAI's draws: torch's own have changed since
            table = self.relative_position_bias_table.uniform_(-1, 1)
            table.erfinv_().mul_(0.02 * math.sqrt(2)).clamp_(-2, 2)

    def forward(self, tokens: Tensor, windows: Windows, rows: Rows) -> Tensor:
        # One row of zeros more, where the volume is padded: its query, key and value are the bias.
        qkv = self.qkv(F.pad(tokens, (0, 0, 0, 1)) if windows.padded else tokens)
        n = windows.take.shape[1]
        index = self.relative_position_index[:n, :n].flatten()
        bias = self.relative_position_bias_table.index_select(0, index).view(n, n, -1).permute(2, 0, 1)
        if in_pieces(qkv):
            mixed = _FewWindows.apply(qkv, bias, windows, rows, self.scale)
        else:
            mixed = _fused(qkv, bias, windows, rows, self.scale)
        return self.proj(mixed)


def _relative_positions(window: int) -> Tensor:
    """(n, n): where in the table the bias of a slot that looks at another stands."""
    axis = torch.arange(window, device="cpu")
    z, y, x = (a.flatten() for a in torch.meshgrid(axis, axis, axis, indexing="ij"))
    steps = [a[:, None] - a + window - 1 for a in (z, y, x)]
    side = 2 * window - 1
    return (steps[0] * side + steps[1]) * side + steps[2]


class _Take(torch.autograd.Function):
    """Rows into windows. Each but the padding's is taken once, so that the way back takes rows too."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, take: Tensor, back: Tensor, padding: Tensor) -> Tensor:
        ctx.save_for_backward(back, padding)
        return x.index_select(0, take)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        back, padding = ctx.saved_tensors
        rows = grad.index_select(0, back)
        if padding.numel():
            rows = torch.cat([rows, grad.index_select(0, padding).sum(0, keepdim=True)])
        return rows, None, None, None


class _PutBack(torch.autograd.Function):
    """Windows into rows, the padding left out."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, take: Tensor, back: Tensor, padding: Tensor) -> Tensor:
        ctx.save_for_backward(take)
        ctx.padded = padding.numel() > 0
        return x.index_select(0, back)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        (take,) = ctx.saved_tensors
        rows = F.pad(grad, (0, 0, 0, 1)) if ctx.padded else grad
        return rows.index_select(0, take), None, None, None


def _fused(qkv: Tensor, bias: Tensor, windows: Windows, rows: Rows, scale: float) -> Tensor:
    """By `scaled_dot_product_attention`, a kind of window after the other, so that no window has a mask of
    its own in memory."""
    heads, n, _ = bias.shape
    places = (rows.take.flatten(), rows.back, rows.padding)
    taken = _Take.apply(qkv, *places).view(-1, n, 3, heads, qkv.shape[1] // (3 * heads))
    batch = len(taken) // len(windows.take)
    most = max(1, _MOST_LOGITS // (heads * n * n))
    mixed, start = [], 0
    for count, mask in zip(windows.counts, windows.masks, strict=True):
        added = (bias + CUT * mask).to(qkv.dtype)[None]
        stop = start + count * batch
        for first in range(start, stop, most):
            q, k, v = taken[first : min(first + most, stop)].permute(2, 0, 3, 1, 4)
            mixed.append(_attend(q, k, v, added, scale).transpose(1, 2).flatten(2))
        start = stop
    return _PutBack.apply(torch.cat(mixed).flatten(0, 1), *places)


def _attend(q: Tensor, k: Tensor, v: Tensor, added: Tensor, scale: float) -> Tensor:
    """(windows, heads, n, d), with (1, heads, n, n) added to the logits."""
    if not q.is_meta:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=added, scale=scale)
    # A tensor without data stands for one on a GPU, but torch would not choose a GPU's kernel for it.
    n = added.shape[-1]
    aligned = F.pad(added, (0, -n % 8))[..., :n].expand(len(q), -1, -1, -1)
    return torch.ops.aten._scaled_dot_product_efficient_attention(q, k, v, aligned, True, scale=scale)[0]


class _FewWindows(torch.autograd.Function):
    """On a CPU: some windows' logits fit a cache, so they are made again on the way back rather than kept."""

    @staticmethod
    def forward(ctx: Any, qkv: Tensor, bias: Tensor, windows: Windows, rows: Rows, scale: float) -> Tensor:
        ctx.save_for_backward(qkv, bias, rows.take)
        ctx.windows, ctx.scale, ctx.tokens = windows, scale, len(rows.back)
        # The row after the last is where padding is written, and is not looked at.
        mixed = qkv.new_empty(ctx.tokens + 1, qkv.shape[1] // 3)
        for added, take in _few(bias, windows, rows.take):
            q, k, v = _split(qkv.index_select(0, take.flatten()), take.shape, len(bias))
            mixed.index_copy_(0, take.flatten(), _joined(torch.matmul(_weights(q * scale, k, added), v)))
        return mixed[:-1]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        qkv, bias, takes = ctx.saved_tensors
        padded, scale = ctx.windows.padded, ctx.scale
        grad = F.pad(grad, (0, 0, 0, 1)) if padded else grad
        of_qkv = qkv.new_empty(ctx.tokens + 1, qkv.shape[1])
        of_padding = qkv.new_zeros(qkv.shape[1])
        of_bias = torch.zeros_like(bias, memory_format=torch.contiguous_format)
        for added, take in _few(bias, ctx.windows, takes):
            flat = take.flatten()
            q, k, v = _split(qkv.index_select(0, flat), take.shape, len(bias))
            (g,) = _split(grad.index_select(0, flat), take.shape, len(bias), parts=1)
            q = q * scale
            weights = _weights(q, k, added)
            slope = torch.matmul(g, v.mT)
            slope = torch._softmax_backward_data(slope, weights, -1, weights.dtype)
            of_bias += slope.sum(0)
            of_each = (torch.matmul(slope, k) * scale, torch.matmul(slope.mT, q), torch.matmul(weights.mT, g))
            of_rows = torch.cat([_joined(each) for each in of_each], 1)
            of_qkv.index_copy_(0, flat, of_rows)
            if padded:
                of_padding += (flat == ctx.tokens).to(of_rows.dtype) @ of_rows
        if not padded:
            return of_qkv[:-1], of_bias, None, None, None
        of_qkv[-1] = of_padding
        return of_qkv, of_bias, None, None, None


def _few(bias: Tensor, windows: Windows, takes: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """What is added to the logits of a cache's worth of windows of a kind, and their rows (window, n)."""
    batch, start = len(takes) // len(windows.take), 0
    few = max(1, CACHE_BYTES // (bias.numel() * bias.element_size()))
    for count, mask in zip(windows.counts, windows.masks, strict=True):
        added = (bias + CUT * mask).to(bias.dtype)
        stop = start + count * batch
        for first in range(start, stop, few):
            yield added, takes[first : min(first + few, stop)]
        start = stop


def _weights(q: Tensor, k: Tensor, added: Tensor) -> Tensor:
    """softmax(qkᵀ + added), of q that is scaled."""
    return torch.matmul(q, k.mT).add_(added).softmax(-1)


def _split(rows: Tensor, shape: torch.Size, heads: int, parts: int = 3) -> tuple[Tensor, ...]:
    """(window·n, parts·heads·d) → `parts` of (window, heads, n, d)."""
    each = rows.view(*shape, parts, heads, -1).permute(2, 0, 3, 1, 4)
    return each.contiguous().unbind(0)


def _joined(x: Tensor) -> Tensor:
    """(window, heads, n, d) → (window·n, heads·d)."""
    return x.transpose(1, 2).flatten(2).flatten(0, 1)
