"""The whole network: the transformer, an encoder on each of its hidden states, and decoders back up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from xr2ct.models.swin.repeated import Views
from xr2ct.models.swin.residual import Decoder, Encoder, Out, RepeatedBlock, ResidualBlock
from xr2ct.models.swin.transformer import SwinTransformer


class SwinUNETR(nn.Module):
    """Hatamizadeh et al. 2022, with the weights of MONAI's SwinUNETR: their names, shapes, draws and results.

    In place of MONAI's operations: attention that keeps no matrix for the way back, normalisation, activation
    and sum made again there, channels-last throughout, and first convolutions of repeated views on pictures.
    """

    def __init__(
        self,
        size: int,
        in_channels: int,
        out_channels: int,
        feature_size: int,
        depths: Sequence[int],
        num_heads: Sequence[int],
        window_size: int,
        recompute: bool = False,
        compiled: Literal["auto", "on", "off"] = "off",
    ) -> None:
        """size: the volumes' side, for which windows are laid out; another costs time, and is not compiled.
        recompute: keep the blocks' inputs alone, and make what is between again on the way back.
        compiled: by `torch.compile`, at the first pass; `auto` on CUDA, unless weights are shared out."""
        super().__init__()
        self.size = size
        self.recompute = recompute
        self.compiled = compiled
        self.repeated: tuple[int, ...] = ()
        """Axis along which each channel of the input repeats a picture: −2 for y, −1 for x."""
        c = feature_size
        self.swinViT = SwinTransformer(size, in_channels, c, depths, num_heads, window_size)
        self.encoder1 = Encoder(RepeatedBlock(in_channels, c))
        self.encoder2 = Encoder(ResidualBlock(c, c))
        self.encoder3 = Encoder(ResidualBlock(2 * c, 2 * c))
        self.encoder4 = Encoder(ResidualBlock(4 * c, 4 * c))
        self.encoder10 = Encoder(ResidualBlock(16 * c, 16 * c))
        self.decoder5 = Decoder(16 * c, 8 * c)
        self.decoder4 = Decoder(8 * c, 4 * c)
        self.decoder3 = Decoder(4 * c, 2 * c)
        self.decoder2 = Decoder(2 * c, c)
        self.decoder1 = Decoder(c, c)
        self.out = Out(c, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """(b, in_channels, z, y, x) → (b, out_channels, z, y, x)."""
        if self._is_compiled(x):
            return _compiled_pass()(self, x)
        return self.plain(x)

    def plain(self, x: Tensor) -> Tensor:
        """`forward`, operation by operation."""
        # On pictures only if all channels are, and if no gradient is asked for, which would be the pictures'.
        all_repeated = len(self.repeated) == x.shape[1] and not x.requires_grad
        views = Views(x, self.repeated) if all_repeated else None
        h0, h1, h2, h3, h4 = self.swinViT(x, views, self.recompute)
        up = self._run(self.encoder10, h4)
        up = self._run(self.decoder5, up, h3)
        up = self._run(self.decoder4, up, self._run(self.encoder4, h2))
        up = self._run(self.decoder3, up, self._run(self.encoder3, h1))
        up = self._run(self.decoder2, up, self._run(self.encoder2, h0))
        return self._run(self._last, up, self._run(self.encoder1, x, views))

    def _is_compiled(self, x: Tensor) -> bool:
        if x.shape[2:] != (self.size,) * 3:
            return False
        if self.compiled == "auto":
            # DeepSpeed marks the weights that it shares out and gathers module by module.
            return x.is_cuda and not hasattr(self.out.conv["conv"].weight, "ds_id")
        return self.compiled == "on"

    def _last(self, up: Tensor, skip: Tensor) -> Tensor:
        joined = self.decoder1.joined(up, skip)
        return self.out(self.decoder1.conv_block.unsummed(joined))

    def _run(self, block: Callable[..., Tensor], *inputs: Any) -> Tensor:
        if self.recompute:
            return checkpoint(block, *inputs, use_reentrant=False, preserve_rng_state=False)
        return block(*inputs)


@cache
def _compiled_pass() -> Callable[[SwinUNETR, Tensor], Tensor]:
    """Of a function, not of the module: names of weights stay, and copies of the module compile as it does.

    For the shapes at hand: sizes do not change in a run, and with them unknown windows would not be laid out.
    """
    return torch.compile(SwinUNETR.plain, fullgraph=True, dynamic=False)
