"""The table under the patient, and whatever else lies off the body, turned into air."""

from __future__ import annotations

import math

import numpy as np
from scipy import ndimage

from xr2ct.cohorts.lungs import Spacing, block_factors, thick_tissue, without_shells
from xr2ct.cohorts.volume import AIR_HU

MARGIN_MM = 6.0
"""How far round the patient nothing is touched. The mask is of blocks of about 3 mm and ends where a block is
half tissue, so skin reaches up to a block beyond it."""
HANGS_MM = 60.0
"""How far what hangs on the body mask may reach."""
LIMB_LITRES = 0.1
LIMB_HU = -150.0
"""What an arm that lies apart has at least, in volume and mean; foam and cushions have less."""


def clear_table(hu: np.ndarray, blocks: np.ndarray, body: np.ndarray, spacing_mm: Spacing) -> None:
    """Set every voxel further than `MARGIN_MM` from the patient to air, in place: the body, and arms apart.

    `hu` (z, y, x) in patient axes; `blocks` as `lungs.coarse` makes of it and `body` the mask on that grid.
    """
    factors = block_factors(spacing_mm)
    z, y, x = (step * factor for step, factor in zip(spacing_mm, factors, strict=True))
    patient = _grown(body | _limbs(blocks, body, (z, y, x)), without_shells(blocks, (z, y, x)), y)
    for low, near in enumerate(_widened(patient, y, x)):
        kept = near.repeat(factors[1], 0).repeat(factors[2], 1)[: hu.shape[1], : hu.shape[2]]
        for one in hu[low * factors[0] : (low + 1) * factors[0]]:
            one[~kept] = AIR_HU


def _limbs(blocks: np.ndarray, body: np.ndarray, spacing_mm: Spacing) -> np.ndarray:
    """Tissue as thick as an arm that does not hang together with the body."""
    pieces, _ = ndimage.label(thick_tissue(blocks, spacing_mm) & ~body)
    litres = np.bincount(pieces.ravel()) * math.prod(spacing_mm) / 1e6
    mean = np.bincount(pieces.ravel(), blocks.ravel()) / np.maximum(np.bincount(pieces.ravel()), 1)
    taken = (litres >= LIMB_LITRES) & (mean >= LIMB_HU)
    taken[0] = False
    return taken[pieces]


def _grown(patient: np.ndarray, tissue: np.ndarray, step_mm: float) -> np.ndarray:
    """What of the tissue hangs on the patient, as far as `HANGS_MM`: a chin, or an arm's edge, that only the
    last slice meets is too thin from feet to head for the body mask."""
    reach = round(HANGS_MM / step_mm)
    return ndimage.binary_dilation(patient, iterations=reach, mask=patient | tissue)


def _widened(body: np.ndarray, step_y: float, step_x: float) -> np.ndarray:
    """The mask and `MARGIN_MM` about it, in each slice: a body goes on past a scan's ends, not beside it."""
    y = np.arange(-int(MARGIN_MM / step_y) - 1, int(MARGIN_MM / step_y) + 2) * step_y
    x = np.arange(-int(MARGIN_MM / step_x) - 1, int(MARGIN_MM / step_x) + 2) * step_x
    # A block is near where its nearest point is: half a block on either side.
    disc = np.hypot(
        np.maximum(np.abs(y) - step_y / 2, 0)[:, None], np.maximum(np.abs(x) - step_x / 2, 0)[None]
    )
    return ndimage.binary_dilation(body, (disc <= MARGIN_MM)[None])
