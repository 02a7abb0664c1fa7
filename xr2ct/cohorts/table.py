"""The table under the patient, and whatever else lies off the body, turned into air."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from xr2ct.cohorts.lungs import Spacing, block_factors
from xr2ct.cohorts.volume import AIR_HU

MARGIN_MM = 6.0
"""How far round the body mask nothing is touched. The mask is one of blocks of about 3 mm whose outline is
where a block is half tissue, so skin reaches up to a block beyond it."""


def clear_table(hu: np.ndarray, body: np.ndarray, spacing_mm: Spacing) -> None:
    """Set every voxel further than `MARGIN_MM` from the body to air, in place.

    `hu` (z, y, x) in patient axes; `body` its mask on the grid of `lungs.coarse`.
    """
    factor_z, factor_y, factor_x = block_factors(spacing_mm)
    for low, near in enumerate(_widened(body, spacing_mm)):
        kept = near.repeat(factor_y, 0).repeat(factor_x, 1)[: hu.shape[1], : hu.shape[2]]
        for one in hu[low * factor_z : (low + 1) * factor_z]:
            one[~kept] = AIR_HU


def _widened(body: np.ndarray, spacing_mm: Spacing) -> np.ndarray:
    """The mask and `MARGIN_MM` about it, in each slice: a body goes on past a scan's ends, not beside it."""
    _, step_y, step_x = (s * f for s, f in zip(spacing_mm, block_factors(spacing_mm), strict=True))
    y = np.arange(-int(MARGIN_MM / step_y) - 1, int(MARGIN_MM / step_y) + 2) * step_y
    x = np.arange(-int(MARGIN_MM / step_x) - 1, int(MARGIN_MM / step_x) + 2) * step_x
    # A block is near where its nearest point is: half a block on either side.
    disc = np.hypot(
        np.maximum(np.abs(y) - step_y / 2, 0)[:, None], np.maximum(np.abs(x) - step_x / 2, 0)[None]
    )
    return ndimage.binary_dilation(body, (disc <= MARGIN_MM)[None])
