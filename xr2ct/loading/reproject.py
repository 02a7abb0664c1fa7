"""A view in another pose, from the volume: what the picture's own plane cannot show.

The store's line integrals come from the CT at about 1 mm, and its volumes are coarser. So a volume is
projected in the new pose, and what its projection in the old one lacks of the picture, fine detail, is added,
moved in the picture's plane.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from xr2ct.loading.pose import Pose, warp
from xr2ct.projection.geometry import Geometry, column_direction, source_direction
from xr2ct.projection.projector import attenuation, project

MARGIN = 0.125
"""Of the cube's side, on each side: what a patient who moved may take up of the space around it."""


class Reprojector:
    """Of one chest in HU (z, y, x), a cube with sides of `cube_mm`."""

    def __init__(self, hu: np.ndarray, cube_mm: float, geometry: Geometry) -> None:
        self._mu = attenuation(torch.from_numpy(np.ascontiguousarray(hu)))
        self._cube_mm, self._geometry = cube_mm, geometry
        self._spacing_mm = cube_mm / len(hu)

    def take(self, view: np.ndarray, pose: Pose, angle_deg: float) -> np.ndarray:
        """The view (row, col) float32 at `angle_deg`, at least 0, as in `pose`."""
        finer = warp(view - self._project(self._mu, angle_deg), pose, self._geometry)
        return (self.project(pose, angle_deg) + finer).clip(min=0)

    def project(self, pose: Pose, angle_deg: float) -> np.ndarray:
        """Line integrals (row, col) of the volume itself in `pose`.

        The volume is resampled so that the geometry's own rays, for which the projector has its matrices
        already, meet of it what the pose's rays would.
        """
        geometry = self._geometry
        places = self._places(pose, angle_deg)[None]
        moved = F.grid_sample(self._mu[None, None], places, padding_mode="zeros", align_corners=False)[0, 0]
        mm = (np.arange(geometry.pixels) - (geometry.pixels - 1) / 2) * geometry.pixel_mm
        squares = mm[:, None] ** 2 + mm**2
        # A ray's length between two planes across the beam.
        longer = np.sqrt((1 + squares / pose.sid_mm**2) / (1 + squares / geometry.sid_mm**2))
        return self._project(moved, angle_deg) * longer.astype(np.float32)

    def _project(self, mu: Tensor, angle_deg: float) -> np.ndarray:
        return project(mu[None], (self._spacing_mm,) * 3, self._geometry, [angle_deg])[0, 0].numpy()

    def _places(self, pose: Pose, angle_deg: float) -> Tensor:
        """(z, y, x, 3): where in the volume each of the resampled one lies, in `grid_sample`'s terms."""
        side, geometry = round(len(self._mu) * (1 + 2 * MARGIN)), self._geometry
        axes = torch.tensor(
            [column_direction(angle_deg), (0.0, 0.0, 1.0), [-s for s in source_direction(angle_deg)]]
        )  # right, up, away
        mm = (torch.arange(side) - (side - 1) / 2) * self._spacing_mm
        z, y, x = torch.meshgrid(mm, mm, mm, indexing="ij")
        right, up, away = (x * a[0] + y * a[1] + z * a[2] for a in axes)
        # The same pixel's ray at the same depth, from the pose's tube.
        nearer = (pose.sad_mm + away) / pose.sid_mm * (geometry.sid_mm / (geometry.sad_mm + away))
        there = torch.stack([right * nearer, up * nearer, away], -1)
        there = there - torch.tensor([pose.right_mm, -pose.down_mm, pose.away_mm])
        # Row vectors times a rotation are the inverse rotation of them.
        return there @ _rotation(pose) @ axes / (self._cube_mm / 2)


def _rotation(pose: Pose) -> Tensor:
    """(3, 3) of (right, up, away): tilted, then turned, then rolled."""
    rotation = torch.eye(3)
    for degrees, (a, b) in ((pose.tilt_deg, (1, 2)), (pose.turn_deg, (0, 2)), (pose.roll_deg, (0, 1))):
        t = math.radians(degrees)
        one = torch.eye(3)
        one[a, a], one[a, b], one[b, a], one[b, b] = math.cos(t), -math.sin(t), math.sin(t), math.cos(t)
        rotation = one @ rotation
    return rotation
