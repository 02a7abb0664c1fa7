"""The potential d: a 3D residual network without normalisation that scores a volume."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from xr2ct.config import Section
from xr2ct.errors import UserError

_SLOPE = 0.2


class Config(Section):
    """Widths; how many stages there are follows from the volume's size."""

    base_channels: int = Field(32, ge=1)
    max_channels: int = Field(512, ge=1)
    use_checkpoint: bool = False
    """Keep what goes into each stage alone, and compute what is within it again on the way back."""


class Residual(nn.Module):
    """LeakyReLU(skip(x) + 0.1·conv3(LeakyReLU(conv3(x)))); a convolution 1³ skips where widths differ."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.first = nn.Conv3d(channels_in, channels_in, 3, padding=1)
        self.second = nn.Conv3d(channels_in, channels_out, 3, padding=1)
        same = channels_in == channels_out
        self.skip = nn.Identity() if same else nn.Conv3d(channels_in, channels_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.second(F.leaky_relu(self.first(x), _SLOPE, inplace=True))
        return _AddLeaky.apply(self.skip(x), inner)


class _AddLeaky(torch.autograd.Function):
    """LeakyReLU(skip + 0.1·inner), keeping its result, whose sign is that of what came in."""

    @staticmethod
    def forward(ctx: Any, skip: Tensor, inner: Tensor) -> Tensor:
        out = F.leaky_relu_(torch.add(skip, inner, alpha=0.1), _SLOPE)
        ctx.save_for_backward(out)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        (out,) = ctx.saved_tensors
        slope = torch.ops.aten.leaky_relu_backward(grad, out, _SLOPE, True)
        return slope, 0.1 * slope


class SelfAttention(nn.Module):
    """One head over all voxels, added to its input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.query_key_value = nn.Linear(channels, 3 * channels)
        self.out = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2)
        q, k, v = self.query_key_value(tokens).chunk(3, dim=-1)
        mixed = self.out(F.scaled_dot_product_attention(q, k, v))
        return x + mixed.transpose(1, 2).reshape(x.shape)


class _WideLinear(nn.Linear):
    """In fp32 or above: a loss is the difference of two mean scores, and bf16 keeps three digits of each."""

    def forward(self, x: Tensor) -> Tensor:
        dtype = torch.promote_types(x.dtype, torch.float32)
        return F.linear(x.to(dtype), self.weight.to(dtype), self.bias.to(dtype))


class Potential(nn.Module):
    """d: (b, 1, size, size, size) → (b, 1) in fp32 or above, whatever the precision of the weights.

    conv3 → Res, Res → [AvgPool, Res, Res] until 4³ is left → self-attention → Linear. Channels double at each
    second Res up to the cap. 41.33 M parameters at 64³, 69.64 M at 128³. A size that is no power of two ends
    on the first side below 4. `UserError` for a size of 4 or less.
    """

    def __init__(self, config: Config, size: int) -> None:
        super().__init__()
        if size <= 4:
            raise UserError(f"data.size {size}: the potential needs more than 4 voxels a side")
        sides = [size]
        while sides[-1] > 4:
            sides.append((sides[-1] + 1) // 2)
        widths = [min(config.base_channels * 2**i, config.max_channels) for i in range(len(sides) + 1)]
        self.use_checkpoint = config.use_checkpoint
        self.stem = nn.Conv3d(1, widths[0], 3, padding=1)
        self.stages = nn.ModuleList(
            nn.Sequential(Residual(narrow, narrow), Residual(narrow, wide))
            for narrow, wide in pairwise(widths)
        )
        self.attention = SelfAttention(widths[-1])
        self.head = _WideLinear(widths[-1] * sides[-1] ** 3, 1)

    def forward(self, volume: Tensor) -> Tensor:
        x = self.stem(volume.to(self.stem.weight.dtype))
        for i, stage in enumerate(self.stages):
            x = x if i == 0 else _halved(x)
            if self.use_checkpoint:
                x = checkpoint(stage, x, use_reentrant=False, preserve_rng_state=False)
            else:
                x = stage(x)
        return self.head(self.attention(x).flatten(1))


def _halved(x: Tensor) -> Tensor:
    half_on_cpu = x.device.type == "cpu" and x.dtype in (torch.float16, torch.bfloat16)
    wide = x.float() if half_on_cpu else x  # torch pools in half precision on CUDA only
    return F.avg_pool3d(wide, kernel_size=3, stride=2, padding=1).to(x.dtype)
