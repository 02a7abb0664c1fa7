"""Where the patient is in a CT: the body without the table, and the lungs, by thresholds and shapes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from xr2ct.cohorts.volume import AIR_HU

Spacing = tuple[float, float, float]

TISSUE_HU = -500.0
"""Halfway between air and water: tissue above, lung and gas below. One bound for both, or the skin's voxels,
part tissue and part air, would be lung."""
SHELL_MM = 4.0
"""Radius of the ball that opens the tissue: less than 8 mm thick is a table's shell, a tube or a blanket,
while every chest wall is thicker."""
TABLE_MM = 15.0
"""Half the side of the box that opens the filled body: what hangs on it by less is a table's edge."""
COUCH_MM = 200.0
COUCH_DEPTH = 0.35
"""A hole wider than this and flatter than this part of its width is the inside of a hollow couch."""
LEAST_AIR = 0.3
"""Litres; less air inside a body is bowel or sinus."""
SMALLEST_LUNG = 0.1
"""Litres of the larger lung at least."""
SECOND_LUNG = 0.2
"""The smallest part of the larger lung that a separate piece of air has to reach to be the other one."""
GAS_HU = -920.0
"""Air whose upper quartile lies below is gas, of bowel or windpipe: −942 at most on real scans, while that of
hyperinflated, emphysematous lungs is −899."""

_WORKING_MM = 3.6
_IN_PLANE = np.zeros((3, 3, 3), bool)
_IN_PLANE[1] = ndimage.generate_binary_structure(2, 1)


def body_mask(hu: np.ndarray, spacing_mm: Spacing) -> np.ndarray:
    """(z, y, x) bool: the largest piece of tissue, table and clothes taken off, filled slice by slice.

    `hu` (z, y, x) in patient axes. All False where there is no tissue. Voxels much finer than 3 mm are
    averaged to about that first, so the outline of a fine volume is as coarse.
    """
    blocks, block_mm = coarse(hu, spacing_mm)
    return _on_voxels(_body(blocks, block_mm), hu.shape, spacing_mm)


def lung_mask(hu: np.ndarray, spacing_mm: Spacing) -> np.ndarray:
    """(z, y, x) bool: the air inside the body, largest piece and a second of its order, airways included.

    All False where that is less than 300 ml. Worked out on the grid of `body_mask`.
    """
    return body_and_lung_masks(hu, spacing_mm)[1]


def body_and_lung_masks(hu: np.ndarray, spacing_mm: Spacing) -> tuple[np.ndarray, np.ndarray]:
    """`body_mask` and `lung_mask`, the body worked out once."""
    blocks, block_mm = coarse(hu, spacing_mm)
    body, lungs = find_body_and_lungs(blocks, block_mm)
    return _on_voxels(body, hu.shape, spacing_mm), _on_voxels(lungs, hu.shape, spacing_mm)


def coarse(hu: np.ndarray, spacing_mm: Spacing) -> tuple[np.ndarray, Spacing]:
    """Means over blocks of whole voxels, about 3 mm a side, and their spacing; air fills the last blocks."""
    factors = block_factors(spacing_mm)
    planes = [_block_sums(hu[z : z + factors[0]], factors) for z in range(0, hu.shape[0], factors[0])]
    z, y, x = (step * factor for step, factor in zip(spacing_mm, factors, strict=True))
    return np.stack(planes) / np.float32(math.prod(factors)), (z, y, x)


def whole_blocks(slices: int, spacing_mm: float) -> int:
    """Of the blocks that `coarse` makes of so many slices, those that no air was added to; at least one."""
    return max(1, slices // block_factors((spacing_mm,) * 3)[0])


def _block_sums(slab: np.ndarray, factors: Sequence[int]) -> np.ndarray:
    """(y, x) float32 sums of the blocks in a slab as thick as they are, by strided sums; NumPy's own over a
    short axis are far slower."""
    plane = slab.sum(axis=0, dtype=np.float32) + np.float32(AIR_HU * (factors[0] - len(slab)))
    short = [-size % factor for size, factor in zip(plane.shape, factors[1:], strict=True)]
    plane = np.pad(plane, [(0, short[0]), (0, short[1])], constant_values=AIR_HU * factors[0])
    rows = plane[:: factors[1]].copy()
    for first in range(1, factors[1]):
        rows += plane[first :: factors[1]]
    blocks = rows[:, :: factors[2]].copy()
    for first in range(1, factors[2]):
        blocks += rows[:, first :: factors[2]]
    return blocks


def find_body_and_lungs(blocks: np.ndarray, spacing_mm: Spacing) -> tuple[np.ndarray, np.ndarray]:
    """Both masks of a volume that `coarse` has made, the body worked out once."""
    body = _body(blocks, spacing_mm)
    return body, _air_inside(blocks, body, spacing_mm)


def without_shells(blocks: np.ndarray, spacing_mm: Spacing) -> np.ndarray:
    """Tissue of a volume that `coarse` has made, without what is less than `SHELL_MM` to either side."""
    return _open_by_ball(blocks > TISSUE_HU, SHELL_MM, spacing_mm)


def thick_tissue(blocks: np.ndarray, spacing_mm: Spacing) -> np.ndarray:
    """Tissue of a volume that `coarse` has made, without what a box of 30 mm does not fit into."""
    return _open_by_box(without_shells(blocks, spacing_mm), TABLE_MM, spacing_mm)


def block_factors(spacing_mm: Spacing) -> list[int]:
    """Voxels a block of `coarse` has on each axis."""
    return [max(1, int(_WORKING_MM / step)) for step in spacing_mm]


def _on_voxels(mask: np.ndarray, shape: Sequence[int], spacing_mm: Spacing) -> np.ndarray:
    """A mask on the grid of `coarse`, on that of its volume."""
    for axis, factor in enumerate(block_factors(spacing_mm)):
        mask = mask.repeat(factor, axis)
    return mask[: shape[0], : shape[1], : shape[2]]


def _body(blocks: np.ndarray, spacing_mm: Spacing) -> np.ndarray:
    tissue = _largest(without_shells(blocks, spacing_mm))
    holes = _holes_in_plane(tissue)
    pieces, _ = ndimage.label(holes)
    for number, extent in enumerate(ndimage.find_objects(pieces), start=1):
        _, depth, width = (
            (side.stop - side.start) * step for side, step in zip(extent, spacing_mm, strict=True)
        )
        if width > COUCH_MM and depth < COUCH_DEPTH * width:
            holes[extent] &= pieces[extent] != number
    return _largest(_open_by_box(tissue | holes, TABLE_MM, spacing_mm))


def _air_inside(blocks: np.ndarray, body: np.ndarray, spacing_mm: Spacing) -> np.ndarray:
    """The larger lung, or both where airways join them, and a second piece of air that lies beside it."""
    pieces, _ = ndimage.label(body & (blocks <= TISSUE_HU))
    litres = np.bincount(pieces.ravel()) * math.prod(spacing_mm) / 1e6
    litres[0] = 0
    extents = ndimage.find_objects(pieces)
    found: list[int] = []
    for number in map(int, litres.argsort()[::-1]):
        if litres[number] < (SECOND_LUNG * litres[found[0]] if found else SMALLEST_LUNG):
            break
        where = extents[number - 1]
        if found and not _beside(where[0], extents[found[0] - 1][0]):
            continue
        if not _gas(blocks[where], pieces[where] == number):
            found.append(number)
    if litres[found].sum() < LEAST_AIR:
        return np.zeros_like(body)
    return np.isin(pieces, found)


def _beside(one: slice, other: slice) -> bool:
    """Whether most of one extent from feet to head is the other's too: bowel lies below the lungs."""
    common = min(one.stop, other.stop) - max(one.start, other.start)
    return common > 0.5 * (one.stop - one.start)


def _gas(blocks: np.ndarray, piece: np.ndarray) -> bool:
    """Whether a piece of air holds nothing else, away from its wall: no vessel, no tissue of a lung."""
    inner = ndimage.binary_erosion(piece)
    return not inner.any() or float(np.percentile(blocks[inner], 75)) < GAS_HU


def _open_by_ball(mask: np.ndarray, radius_mm: float, spacing_mm: Spacing) -> np.ndarray:
    """What a ball inside the mask reaches. The volume's border does not erode."""
    steps = [np.arange(-int(radius_mm / step), int(radius_mm / step) + 1) * step for step in spacing_mm]
    z, y, x = np.meshgrid(*steps, indexing="ij")
    ball = z * z + y * y + x * x <= radius_mm**2
    return ndimage.binary_dilation(ndimage.binary_erosion(mask, ball, border_value=1), ball)


def _open_by_box(mask: np.ndarray, half_mm: float, spacing_mm: Spacing) -> np.ndarray:
    """What a box inside the mask reaches; separable, so cheap at any size, and tables lie along the axes."""
    size = [2 * int(half_mm / step) + 1 for step in spacing_mm]
    core = ndimage.minimum_filter(mask.view(np.uint8), size, mode="nearest")
    return ndimage.maximum_filter(core, size, mode="nearest").view(bool)


def _largest(mask: np.ndarray) -> np.ndarray:
    pieces, _ = ndimage.label(mask)
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    return (pieces == sizes.argmax()) & mask


def _holes_in_plane(mask: np.ndarray) -> np.ndarray:
    """Holes of each axial slice: airways are open at the neck, so the lungs are no hole in 3D."""
    outside, _ = ndimage.label(~mask, _IN_PLANE)
    border = np.zeros_like(mask)
    border[:, [0, -1], :] = border[:, :, [0, -1]] = True
    reached = np.zeros(outside.max() + 1, bool)
    reached[outside[border]] = True
    return ~mask & ~reached[outside]
