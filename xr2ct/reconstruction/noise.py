"""How far X-rays may stay from a volume's projection: what no volume of a grid can show, and noise."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from xr2ct.projection.agreement import at_grid
from xr2ct.projection.geometry import Geometry

OF_DETAIL = 0.6
"""Of the detail beyond the grid, what may stay. The true volume's own projection is off by all of it; a
border within a voxel can be met in part, and down to here volumes gain by it."""


def detail_level(pictures: Tensor, geometry: Geometry, voxel_mm: float, seen: Tensor | None = None) -> float:
    """Relative L2 of the detail in pictures (view, row, col) that voxels of a side cannot show.

    About the re-projection error of the true volume itself, and found without it.
    """
    away = pictures - at_grid(pictures, geometry, voxel_mm, seen)
    return _norm(away, seen) / max(_norm(pictures, seen), 1e-12)


def pixel_noise(pictures: Tensor, seen: Tensor | None = None) -> float:
    """Standard deviation of what differs from pixel to pixel, of pictures (view, row, col).

    By Immerkær's mask, which is blind to slopes and edges along the grid (Comput. Vis. Image Underst.
    64:300–302, 1996), and the median in place of its mean, for a chest is full of edges. 0 where nothing is
    seen.
    """
    mask = torch.tensor([[1.0, -2, 1], [-2, 4, -2], [1, -2, 1]], device=pictures.device)
    found = F.conv2d(pictures[:, None], mask[None, None])[:, 0].abs()
    if seen is not None:
        whole = F.max_pool2d((~seen[:, None]).float(), 3, stride=1)[:, 0] == 0
        found = found[whole]
    if not found.numel():
        return 0.0
    return float(found.median()) / (6 * 0.6745)  # its norm, and a normal variable's median


def noise_level(pictures: Tensor, geometry: Geometry, voxel_mm: float, seen: Tensor | None = None) -> float:
    """Relative L2 at which pictures (view, row, col) and a projection agree, from the pictures alone.

    Their pixels' noise, and `OF_DETAIL` of the other detail that voxels of that side cannot show.
    """
    pixels = pictures.numel() if seen is None else int(seen.sum())
    whole = max(_norm(pictures, seen), 1e-12)
    detail = detail_level(pictures, geometry, voxel_mm, seen)
    noise = min(pixel_noise(pictures, seen) * math.sqrt(pixels) / whole, detail)
    return math.hypot(noise, OF_DETAIL * math.sqrt(detail**2 - noise**2))


def _norm(pictures: Tensor, seen: Tensor | None) -> float:
    return float(torch.linalg.vector_norm((pictures if seen is None else pictures * seen).double()))
