"""Repeat-and-concatenate: each view becomes a volume by repetition along its beam, one channel a view."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from xr2ct.models.lift.base import PictureLift, Scale, columns_ascend, is_lateral
from xr2ct.projection.geometry import Geometry


class RepeatLift(PictureLift):
    """Each view copied along the grid axis nearest its beam (section 3.1, eq. 1).

    Obliques halfway between two axes go like the frontal view, as in the paper. The beam diverges and copies
    do not: 100 mm deep and 100 mm lateral in geometry `x2ct`, a voxel lies up to 23 mm beside its ray (38 mm
    stretched). The copies are written once, into the output.
    """

    def __init__(
        self,
        angles: Sequence[float],
        geometry: Geometry,
        cube_mm: float,
        size: int,
        scale: Scale = "isocentre",
    ) -> None:
        super().__init__(angles, geometry, cube_mm, size, scale, [columns_ascend(a) for a in angles])

    def lifted(self, views: Tensor, seeds: Tensor | None) -> Tensor:
        copies = [
            picture.unsqueeze(-1 if is_lateral(angle) else -2).expand(-1, *(self.size,) * 3)
            for picture, angle in zip(self.pictures(views).unbind(1), self.angles, strict=True)
        ]
        return torch.stack(copies, dim=1)
