"""The potential's part of the dual objective, as the mapper meets it: scores and their slope."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from xr2ct.transport.sinkhorn import at_least_fp32

_FP16_SCALES = (2.0**15, 2.0**10, 2.0**5, 1.0)


def scores_and_slope(potential: nn.Module, volumes: Tensor) -> tuple[Tensor, Tensor]:
    """d(v) (b,) and ∂d(v)/∂v (b, 1, z, y, x) of a frozen potential, in fp32 or above.

    A slope is spread over all voxels and would vanish in fp16. It is therefore carried at the largest scale
    that does not overflow, found anew each time, so that there is no state to keep.
    """
    volumes = volumes.detach().requires_grad_()
    scores = at_least_fp32(potential(volumes).flatten())
    fp16 = next(potential.parameters()).dtype == torch.float16
    for scale in _FP16_SCALES if fp16 else (1.0,):
        (slope,) = torch.autograd.grad(scores.sum() * scale, volumes, retain_graph=fp16)
        if not fp16 or slope.isfinite().all():
            break
    return scores.detach(), slope / scale
