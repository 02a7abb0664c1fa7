"""What brings a volume and its X-rays into agreement: what a grid can show of them, where a correction goes.

A picture holds finer detail than a volume of large voxels has any way to show. What that grid shows is about
the picture averaged over voxels and interpolated linearly between them, at the isocentre's magnification: on
chests at 32³ to 128³ its distance from the picture is that of the true volume's projection to a few percent.

A correction by Aᵀ alone is a streak along each beam, through air as through bone. The true one is as smooth
as a body is, and lies where there is something to be corrected: so it is spread by a covariance, as Gaussian
prior knowledge of it has it (Tarantola, Inverse Problem Theory, 2005, §3.2).
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

from xr2ct.projection.geometry import Geometry
from xr2ct.projection.projector import WATER_PER_MM

REACH_MM = 10.0
"""Standard deviation by which a correction is smoothed: about a rib, and what an organ's border is off by."""

_OF_AIR = 0.002
"""What air weighs against water: a border may move into it, a haze may not."""


def at_grid(pictures: Tensor, geometry: Geometry, voxel_mm: float, seen: Tensor | None = None) -> Tensor:
    """Pictures (…, row, col) as a volume of such voxels can show them, in their type; gradients reach them.

    seen: pixels (…, row, col) that count, all where None; the others take no part, and are averages of what
    lies around them, 0 where nothing does.
    """
    weights = _shown(geometry, voxel_mm, pictures.device).to(pictures.dtype)
    if seen is None:
        return weights @ pictures @ weights.T
    share = weights @ seen.to(pictures.dtype) @ weights.T
    return weights @ (pictures * seen) @ weights.T / share.clamp(min=1e-6)


def fit_response(
    measured: Tensor, computed: Tensor, seen: Tensor | None = None, *, offset: bool = True
) -> tuple[Tensor, Tensor]:
    """Gain and offset (…, 1, 1) of each view by least squares: measured ≈ gain · computed + offset.

    Pictures are (…, row, col). Without `offset` that is 0. A gain may come out as 0 or below, where a picture
    has nothing to do with the other. Gradients reach both.
    """
    count = torch.ones_like(measured) if seen is None else seen.to(measured.dtype)
    n = count.sum((-2, -1), keepdim=True).clamp(min=1)

    def mean(values: Tensor) -> Tensor:
        return (values * count).sum((-2, -1), keepdim=True) / n

    of_measured, of_computed = (mean(p) if offset else torch.zeros_like(n) for p in (measured, computed))
    away = computed - of_computed
    gain = mean(away * (measured - of_measured)) / mean(away.square()).clamp(min=1e-12)
    return gain, of_measured - gain * of_computed


class Spreading:
    """The covariance of a correction: D½ (G + n·1) D½, of volumes (…, z, y, x) with cubic voxels.

    G smooths by `REACH_MM`, and D is the density, that of water being 1. Symmetric and positive.
    """

    def __init__(self, mu: Tensor, voxel_mm: float) -> None:
        """mu: (…, z, y, x) attenuation in 1/mm of the volume that is corrected."""
        self._voxel_mm = voxel_mm
        self._root = (mu / WATER_PER_MM + _OF_AIR).sqrt()

    def __call__(self, gradient: Tensor, own: float | Tensor = 0.1) -> Tensor:
        """C · gradient. own: n, the weight of what is each voxel's own beside what it shares."""
        weighed = gradient * self._root
        return (smoothed(weighed, self._voxel_mm) + own * weighed) * self._root


def smoothed(volumes: Tensor, voxel_mm: float) -> Tensor:
    """(…, z, y, x) by a Gaussian of `REACH_MM`; nothing lies outside."""
    for axis in (-3, -2, -1):
        weights = _gaussian(volumes.shape[axis], voxel_mm, volumes.device).to(volumes.dtype)
        volumes = (volumes.transpose(axis, -1) @ weights).transpose(axis, -1)
    return volumes


@lru_cache(maxsize=16)
def _gaussian(voxels: int, voxel_mm: float, device: torch.device) -> Tensor:
    """(voxels, voxels), rows that add up to 1 but at the ends."""
    with torch.inference_mode(False):  # what that makes could not be used outside it
        at = torch.arange(voxels, dtype=torch.float64, device=device) * (voxel_mm / REACH_MM)
        scale = voxel_mm / REACH_MM / math.sqrt(2 * math.pi)
        return (torch.exp(-((at[:, None] - at).square()) / 2) * scale).float()


@lru_cache(maxsize=16)
def _shown(geometry: Geometry, voxel_mm: float, device: torch.device) -> Tensor:
    """(pixel, pixel): to voxels by average, and back by linear interpolation."""
    pixel = geometry.pixel_mm / geometry.magnification
    places = 2 * math.ceil(geometry.pixels * pixel / voxel_mm / 2) + 2
    with torch.inference_mode(False):
        pixels, voxels = (
            (torch.arange(n, dtype=torch.float64, device=device) - (n - 1) / 2) * pitch
            for n, pitch in ((geometry.pixels, pixel), (places, voxel_mm))
        )
        between = (1 - (pixels[:, None] - voxels).abs() / voxel_mm).clamp(min=0)
        upper = torch.minimum(voxels[:, None] + voxel_mm / 2, pixels + pixel / 2)
        lower = torch.maximum(voxels[:, None] - voxel_mm / 2, pixels - pixel / 2)
        overlap = (upper - lower).clamp(min=0)
        return (between @ (overlap / overlap.sum(1, keepdim=True).clamp(min=1e-9))).float()
