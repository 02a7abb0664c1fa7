"""Debiased Sinkhorn divergence between two batches of features (Feydy et al. 2019), by geomloss."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from geomloss import SamplesLoss
from torch import Tensor

from xr2ct.transport.global_batch import gather


class SinkhornDivergence:
    """ΣS over layers; the points are the samples of the global batch, cost |x − y|²/2.

    Solved in fp32, or fp64 where given that, whatever the precision around it: half precision gives wrong
    gradients or none.
    """

    def __init__(self, blur: float | Sequence[float] = 0.05, scaling: float = 0.5) -> None:
        """blur: in units of features, for all layers or for each."""
        self._blur, self._scaling = blur, scaling

    def __call__(self, generated: Sequence[Tensor], real: Sequence[Tensor]) -> Tensor:
        """Each layer's (b, features) of this rank → a scalar, the same on every rank.

        Its gradient reaches `generated` by way of every rank: see `global_batch.gather`.
        """
        blurs = self._blur if isinstance(self._blur, Sequence) else [self._blur] * len(real)
        layers = [self._layer(x, y, blur) for x, y, blur in zip(generated, real, blurs, strict=True)]
        return torch.stack(layers).sum()

    def _layer(self, generated: Tensor, real: Tensor, blur: float) -> Tensor:
        x, y = gather(at_least_fp32(generated)), gather(at_least_fp32(real.detach()))
        if not bool(torch.isfinite(x).all()):
            # geomloss would fail in its own schedule; a loss that is not finite is for the loop to name.
            return x.sum() * torch.nan
        # A divergence of squared distances cancels: features far from the origin would lose its digits.
        centre = torch.cat([x.detach(), y]).mean(0)
        solve = SamplesLoss("sinkhorn", p=2, blur=blur, scaling=self._scaling)
        with torch.autocast(x.device.type, enabled=False):
            divergence: Tensor = solve(x - centre, y - centre)
        return divergence


def at_least_fp32(x: Tensor) -> Tensor:
    """Half precision as fp32; everything else as it is."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
