"""Coarse alignment by 3D rotation: each view copied along the frontal axis, then turned to its angle."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from xr2ct.models.lift.base import PictureLift, Scale, Windows
from xr2ct.projection.geometry import Geometry


class RotateLift(PictureLift):
    """Each view copied along y like a frontal one, and the copies turned about z by the view's angle.

    The paper's coarse alignment (section 4, "View alignment", Figs. 6 and 7), with Kornia's trilinear
    `rotate3d` about the cube's centre. It agrees with `repeat` at 0°, 90°, 180° and 270°. An oblique view
    leaves the cube's vertical edges at 0, where the turned copies have ended. As with `repeat`, copies do
    not diverge as the beam does.
    """

    def __init__(
        self,
        angles: Sequence[float],
        geometry: Geometry,
        cube_mm: float,
        size: int,
        scale: Scale = "isocentre",
    ) -> None:
        super().__init__(angles, geometry, cube_mm, size, scale, [True] * len(angles))
        from kornia.geometry.transform import rotate3d  # here alone: no other lift needs Kornia

        self.turn = rotate3d

    def lifted(self, views: Tensor, seeds: Tensor | None, windows: Windows | None) -> Tensor:
        dtype = torch.promote_types(views.dtype, torch.float32)  # places in half precision are off by voxels
        still = views.new_zeros(1, dtype=dtype)
        volumes = []
        for picture, angle in zip(self.pictures(views).unbind(1), self.angles, strict=True):
            copies = picture.unsqueeze(-2).expand(-1, *(self.size,) * 3)
            if angle:
                # Kornia's (yaw, pitch, roll) is an axis-angle vector (x, y, z); as gantry angles do, it turns
                # x towards y where z is positive.
                turned = self.turn(copies[:, None].to(dtype), yaw=still, pitch=still, roll=still + angle)
                copies = turned[:, 0].to(views.dtype)
            volumes.append(copies)
        return torch.stack(volumes, dim=1)
