"""The Swin transformer: tokens (b, z, y, x, channels) through four stages, each half the side of the last."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from xr2ct.models.swin.attention import WindowAttention
from xr2ct.models.swin.repeated import RepeatedConv3d, Views, spread
from xr2ct.models.swin.windows import Rows, Three, Windows


class _GeluLinear(torch.autograd.Function):
    """Keeps what comes before the GELU, and makes what comes after it again."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return F.linear(F.gelu(x), weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        of_weight = grad.mT @ F.gelu(x)
        return torch.ops.aten.gelu_backward(grad @ weight, x), of_weight, grad.sum(0)


class GeluLinear(nn.Linear):
    """Linear(GELU(x)) of rows x."""

    def forward(self, x: Tensor) -> Tensor:
        return _GeluLinear.apply(x, self.weight, self.bias)


class Mlp(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.linear1 = nn.Linear(dim, 4 * dim)
        self.linear2 = GeluLinear(4 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear2(self.linear1(x))


class Block(nn.Module):
    """x + Attention(LayerNorm(x)), then x + MLP(LayerNorm(x)); of rows."""

    def __init__(self, dim: int, heads: int, window: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attn = WindowAttention(dim, heads, window)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim)

    def forward(self, x: Tensor, windows: Windows, rows: Rows) -> Tensor:
        x = x + self.attn(self.norm1(x), windows, rows)
        return x + self.mlp(self.norm2(x))


class PatchMerging(nn.Module):
    """Eight neighbours into one token of twice the channels."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.reduction = nn.Linear(8 * dim, 2 * dim, bias=False)
        self.norm = nn.LayerNorm(8 * dim)

    def forward(self, x: Tensor) -> Tensor:
        # MONAI's order of the eight, which the weights are trained for.
        corners = ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (1, 0, 1), (0, 1, 1), (1, 1, 1))
        together = torch.cat([x[:, z::2, y::2, x_::2] for z, y, x_ in corners], -1)
        return self.reduction(self.norm(together))


class Stage(nn.Module):
    """`depth` blocks, every other one in shifted windows, and a merging."""

    def __init__(self, dims: Three, dim: int, depth: int, heads: int, window: int) -> None:
        super().__init__()
        self.dims, self.window = dims, window
        self.blocks = nn.ModuleList(Block(dim, heads, window) for _ in range(depth))
        self.downsample = PatchMerging(dim)
        self.windows = self._windows(dims)

    def _windows(self, dims: Three) -> nn.ModuleList:
        """As they lie, and shifted by half of one where some block needs it and an axis has more than one."""
        shifted = len(self.blocks) > 1 and max(dims) > self.window
        shifts = (0, self.window // 2) if shifted else (0,)
        return nn.ModuleList(Windows(dims, self.window, shift) for shift in shifts)

    def forward(self, x: Tensor, recompute: bool) -> Tensor:
        """(b, z, y, x, dim) → (b, z/2, y/2, x/2, 2·dim)."""
        batch, dims = len(x), (x.shape[1], x.shape[2], x.shape[3])
        windows = self.windows
        if dims != self.dims:  # built for another size: right for all, but made anew each time
            windows = self._windows(dims).to(x.device)
        layouts = [(w, w.rows(batch)) for w in windows if isinstance(w, Windows)]
        tokens = x.flatten(0, 3)
        for i, block in enumerate(self.blocks):
            layout = layouts[i % len(layouts)]
            if recompute:
                tokens = checkpoint(block, tokens, *layout, use_reentrant=False, preserve_rng_state=False)
            else:
                tokens = block(tokens, *layout)
        return self.downsample(tokens.view(x.shape))


class PatchEmbed(nn.Module):
    """A token for each 2³ voxels."""

    def __init__(self, in_channels: int, dim: int) -> None:
        super().__init__()
        self.proj = RepeatedConv3d(in_channels, dim, kernel_size=2, stride=2)

    def forward(self, x: Tensor, views: Views | None) -> Tensor:
        """(b, channels, z, y, x) → (b, z/2, y/2, x/2, dim)."""
        if views is None:
            return self.proj(x).permute(0, 2, 3, 4, 1)
        z, y, x_ = (length // 2 for length in views.lengths)
        return spread(self.proj(views), slice(None), (z, y, x_))


class SwinTransformer(nn.Module):
    """The hidden state before the first stage and after each; weights named and drawn as MONAI's."""

    def __init__(
        self,
        size: int,
        in_channels: int,
        dim: int,
        depths: Sequence[int],
        heads: Sequence[int],
        window: int,
    ) -> None:
        super().__init__()
        self.patch_embed = PatchEmbed(in_channels, dim)
        for i, (depth, of_stage) in enumerate(zip(depths, heads, strict=True)):
            side = size // 2 ** (i + 1)
            stage = Stage((side, side, side), dim * 2**i, depth, of_stage, window)
            self.add_module(f"layers{i + 1}", nn.ModuleList([stage]))

    def forward(self, x: Tensor, views: Views | None, recompute: bool) -> list[Tensor]:
        """Five of (b, channels, z, y, x), each halved, each normalised over its channels."""
        tokens = self.patch_embed(x, views)
        hidden = [tokens]
        for i in range(4):
            tokens = getattr(self, f"layers{i + 1}")[0](tokens, recompute)
            hidden.append(tokens)
        return [F.layer_norm(h, h.shape[-1:]).permute(0, 4, 1, 2, 3) for h in hidden]
