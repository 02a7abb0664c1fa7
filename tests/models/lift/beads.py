"""Beads in a cube: their X-rays by the projector, and where they ought to be found, by hand."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from torch import Tensor

from xr2ct.projection.geometry import NAMED
from xr2ct.projection.projector import project

CUBE_MM, SIZE = 320.0, 64
VOXEL_MM = CUBE_MM / SIZE
X2CT = NAMED["x2ct"]
BEADS = ((42.5, -32.5, 57.5), (-62.5, 47.5, -72.5), (22.5, 67.5, 2.5), (-57.5, -57.5, 32.5))
"""In the centres of voxels, mm in x, y, z."""


@cache
def bead_views(bead_mm: tuple[float, float, float], angles: tuple[float, ...]) -> Tensor:
    """X-rays (1, view, row, col) of a small round bead at (x, y, z)."""
    axis = (np.arange(80) - 39.5) * 4.0
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij", sparse=True)
    squared = (x - bead_mm[0]) ** 2 + (y - bead_mm[1]) ** 2 + (z - bead_mm[2]) ** 2
    mu = torch.from_numpy(np.exp(-squared / (2 * 5.0**2)).astype(np.float32))[None]
    return project(mu, (4.0, 4.0, 4.0), X2CT, angles)


def centroid_mm(volume: Tensor, axis: int) -> float:
    """Centre of mass along one axis of (z, y, x)."""
    mass = volume.double().sum([a for a in range(3) if a != axis])
    return float((mass * centres_mm(SIZE)).sum() / mass.sum())


def shadow_mm(bead: tuple[float, float, float], angle: float) -> tuple[float, float]:
    """Where the bead's ray crosses the plane of the isocentre: along columns, and up."""
    theta = np.radians(angle)
    depth = -bead[0] * np.sin(theta) + bead[1] * np.cos(theta)
    across = bead[0] * np.cos(theta) + bead[1] * np.sin(theta)
    magnification = X2CT.sad_mm / (X2CT.sad_mm + depth)
    return across * magnification, bead[2] * magnification


def centres_mm(size: int) -> Tensor:
    """Where voxels lie along an axis of the cube."""
    return (torch.arange(size, dtype=torch.float64) - (size - 1) / 2) * (CUBE_MM / size)
