"""Attention within windows, with a bias by relative position, keeping no matrix of n × n for the way back."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from xr2ct.models.swin.chunks import in_pieces
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
            mixed = _WindowByWindow.apply(qkv, bias, windows, rows, self.scale)
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


class _WindowByWindow(torch.autograd.Function):
    """On a CPU: a window's logits fit the cache, so they are made again on the way back rather than kept."""

    @staticmethod
    def forward(ctx: Any, qkv: Tensor, bias: Tensor, windows: Windows, rows: Rows, scale: float) -> Tensor:
        ctx.save_for_backward(qkv, bias, rows.take)
        ctx.windows, ctx.scale, ctx.tokens = windows, scale, len(rows.back)
        channels = qkv.shape[1] // 3
        # The row after the last is where padding is written, and is not looked at.
        mixed = qkv.new_empty(ctx.tokens + 1, channels)
        for added, take in _each(bias, windows, rows.take):
            q, k, v = _split(qkv.index_select(0, take), len(bias))
            weights = torch.baddbmm(added, q, k.transpose(1, 2), alpha=scale).softmax(-1)
            mixed.index_copy_(0, take, torch.bmm(weights, v).transpose(0, 1).flatten(1))
        return mixed[:-1]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        qkv, bias, takes = ctx.saved_tensors
        heads, scale = len(bias), ctx.scale
        grad = F.pad(grad, (0, 0, 0, 1)) if ctx.windows.padded else grad
        of_qkv = qkv.new_empty(ctx.tokens + 1, qkv.shape[1])
        of_padding = qkv.new_zeros(qkv.shape[1])
        of_bias = torch.zeros_like(bias, memory_format=torch.contiguous_format)
        for added, take in _each(bias, ctx.windows, takes):
            q, k, v = _split(qkv.index_select(0, take), heads)
            (g,) = _split(grad.index_select(0, take), heads, parts=1)
            weights = torch.baddbmm(added, q, k.transpose(1, 2), alpha=scale).softmax(-1)
            of_window = qkv.new_empty(len(take), 3, heads, q.shape[-1])
            of_q, of_k, of_v = of_window.permute(1, 2, 0, 3)
            of_v.copy_(weights.transpose(1, 2) @ g)
            slope = torch.bmm(g, v.transpose(1, 2))
            slope = torch._softmax_backward_data(slope, weights, -1, weights.dtype)
            of_bias += slope
            of_q.copy_(slope @ k)
            of_k.copy_(slope.transpose(1, 2) @ q)
            of_window[:, :2] *= scale
            flat = of_window.flatten(1)
            of_qkv.index_copy_(0, take, flat)
            if ctx.windows.padded:
                of_padding += (take == ctx.tokens).to(flat.dtype) @ flat
        if not ctx.windows.padded:
            return of_qkv[:-1], of_bias, None, None, None
        of_qkv[-1] = of_padding
        return of_qkv, of_bias, None, None, None


def _each(bias: Tensor, windows: Windows, takes: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """What is added to a window's logits, and its rows."""
    batch = len(takes) // len(windows.take)
    every = iter(takes)
    for count, mask in zip(windows.counts, windows.masks, strict=True):
        added = bias + CUT * mask
        for _ in range(count * batch):
            yield added.to(bias.dtype), next(every)


def _split(rows: Tensor, heads: int, parts: int = 3) -> tuple[Tensor, ...]:
    """(n, parts·heads·d) → `parts` of (heads, n, d)."""
    return rows.view(len(rows), parts, heads, -1).permute(1, 2, 0, 3).unbind(0)
