"""Which views and volumes a network can take."""

from __future__ import annotations

from torch import Tensor

from xr2ct.errors import UserError


def check_views(views: Tensor, count: int, pixels: int) -> None:
    """`UserError` unless `views` is (batch, count, pixels, pixels)."""
    if views.ndim != 4 or views.shape[1:] != (count, pixels, pixels):
        raise UserError(f"views: expected (batch, {count}, {pixels}, {pixels}), got {tuple(views.shape)}")


def check_size(network: str, size: int, step: int, least: int) -> None:
    """`UserError` naming the nearest size that works, unless it is a multiple of `step` from `least` on."""
    if size % step or size < least:
        near = max(least, round(size / step) * step)
        raise UserError(
            f"data.size {size}: {network} needs a multiple of {step}, at least {least}; nearest is {near}"
        )
