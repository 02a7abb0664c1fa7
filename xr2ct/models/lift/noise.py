"""The noise ablation: one slice holds the view, all others hold normal noise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from xr2ct.models.lift.base import PictureLift, Scale, Windows, is_lateral
from xr2ct.projection.geometry import Geometry
from xr2ct.seeds import derive_seed


class NoiseLift(PictureLift):
    """Each view, resampled as `repeat` does, in one slice across its beam; N(0, 1) in all others (Table 1).

    The paper "concatenates noise sampled from a normal distribution" in place of the copies and does not say
    where the X-ray is among it. Here it is slice ``size // 2`` along the grid axis nearest its beam, that
    through the isocentre: there pixels have the pitch that `isocentre` takes them for, and no voxel is
    farther from it than half a cube.

    Noise is drawn on the CPU in float32, from one stream for each seed and angle: it is the same on any
    device, for any number of ranks and in any batch. `patient` draws by the patient's number, so again the
    same each time; `iteration` by the number of the sample's place in training. Without seeds (a pass that
    is counted or timed) each sample draws from one fixed stream.
    """

    def __init__(
        self,
        angles: Sequence[float],
        geometry: Geometry,
        cube_mm: float,
        size: int,
        scale: Scale = "isocentre",
        noise: Literal["patient", "iteration"] = "patient",
    ) -> None:
        super().__init__(angles, geometry, cube_mm, size, scale)
        self.which = 0 if noise == "patient" else 1

    def lifted(self, views: Tensor, seeds: Tensor | None, windows: Windows | None) -> Tensor:
        numbers = [0] * len(views) if seeds is None else seeds[:, self.which].tolist()
        volumes = []
        for picture, angle in zip(self.pictures(views).unbind(1), self.angles, strict=True):
            volume = torch.stack([_normal(self.size, number, angle) for number in numbers]).to(views)
            volume.select(-1 if is_lateral(angle) else -2, self.size // 2).copy_(picture)
            volumes.append(volume)
        return torch.stack(volumes, dim=1)


def _normal(size: int, seed: int, angle: float) -> Tensor:
    """(z, y, x) float32 on the CPU, from the stream of that seed and angle."""
    generator = torch.Generator().manual_seed(derive_seed(seed, "noise", repr(angle)))
    return torch.randn(size, size, size, generator=generator)
