"""The whole network: the transformer, an encoder on each of its hidden states, and decoders back up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

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
        recompute: bool,
    ) -> None:
        """size: the volumes' side, for which windows are laid out; another one costs time at each pass.
        recompute: keep the blocks' inputs alone, and make what is between again on the way back."""
        super().__init__()
        self.recompute = recompute
        self.repeated: tuple[int, ...] | None = None
        """Axes (`repeated.Y`, `repeated.X`) along which each input channel repeats a picture, where they do."""
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
        # The gradient of a voxel of the input, which a picture has not, is by the plain way alone.
        views = None if self.repeated is None or x.requires_grad else Views(x, self.repeated)
        h0, h1, h2, h3, h4 = self.swinViT(x, views, self.recompute)
        up = self._run(self.encoder10, h4)
        up = self._run(self.decoder5, up, h3)
        up = self._run(self.decoder4, up, self._run(self.encoder4, h2))
        up = self._run(self.decoder3, up, self._run(self.encoder3, h1))
        up = self._run(self.decoder2, up, self._run(self.encoder2, h0))
        return self._run(self._last, up, self._run(self.encoder1, x, views))

    def _last(self, up: Tensor, skip: Tensor) -> Tensor:
        joined = self.decoder1.joined(up, skip)
        return self.out(self.decoder1.conv_block.unsummed(joined))

    def _run(self, block: Callable[..., Tensor], *inputs: Any) -> Tensor:
        if self.recompute:
            return checkpoint(block, *inputs, use_reentrant=False, preserve_rng_state=False)
        return block(*inputs)
