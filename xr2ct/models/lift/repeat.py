"""Repeat-and-concatenate: each view becomes a volume by repetition along its beam, one channel a view."""

from __future__ import annotations

import torch
from torch import Tensor

from xr2ct.models.lift.base import PictureLift, Windows, is_lateral


class RepeatLift(PictureLift):
    """Each view copied along the grid axis nearest its beam (section 3.1, eq. 1).

    Obliques halfway between two axes go like the frontal view, as in the paper. The beam diverges and copies
    do not: 100 mm deep and 100 mm lateral in geometry `x2ct`, a voxel lies up to 23 mm beside its ray (38 mm
    stretched). The copies are written once, into the output.
    """

    CUTS = True

    @property
    def axes(self) -> tuple[int, ...]:
        """Along which each channel is constant: −1 for x, −2 for y."""
        return tuple(-1 if is_lateral(angle) else -2 for angle in self.angles)

    def lifted(self, views: Tensor, seeds: Tensor | None, windows: Windows | None) -> Tensor:
        side = self.size if windows is None else windows.side
        copies = [
            picture.unsqueeze(axis).expand(-1, *(side,) * 3)
            for picture, axis in zip(self.pictures(views, windows).unbind(1), self.axes, strict=True)
        ]
        return torch.stack(copies, dim=1)
