"""X2CT-GAN's generator (Ying et al., CVPR 2019) from its published description: views to a volume.

Its discriminator is `patch_discriminator`, its losses are `methods.gan`.

What the description leaves open is chosen so that the published counts come out: convolutions have biases;
the numbers of further convolutions count from the finest level; each branch keeps its own head; the branch
goes on, level for level, from what connection C hands back in place of its own features.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xr2ct.errors import UserError
from xr2ct.models.initial import normal_weights
from xr2ct.models.shapes import check_views
from xr2ct.models.view_axes import to_patient, to_view
from xr2ct.models.view_branch import BOTTOM, ViewBranch, Widths, decoder, decoder_channels, head, levels
from xr2ct.projection.geometry import Geometry

TAKES = "views"

Fusion = Callable[[Sequence[Tensor]], Tensor]
"""Features of each view in the patient's axes → the volume's."""


class Config(Widths):
    """The published network: 61.74 M parameters with two views at 128³, 29.38 M with one."""


def build(config: Config, views: Sequence[float], geometry: Geometry, size: int) -> Generator:
    """Views (b, view, row, col) → (b, 1, size, size, size) in the patient's axes, at least 0.

    `UserError` for a size that is not 4·2ⁿ, or where there is no view.
    """
    doublings = levels(size, "x2ct-gan")
    branches = [ViewBranch(config, doublings, number) for number in range(len(views))]
    generator = Generator(config, views, geometry.pixels, doublings, branches, average)
    generator.apply(normal_weights)
    return generator


class Generator(nn.Module):
    """A branch for each view; of several, connection C and the decoder of what it fuses.

    Connection C turns the branches' features at each level to the patient's axes and fuses them. The result
    is the skip of the fused decoder, which begins on it at 4³, and goes back to each branch in its own axes.
    """

    def __init__(
        self,
        widths: Widths,
        views: Sequence[float],
        pixels: int,
        doublings: int,
        branches: Sequence[ViewBranch],
        fuse: Fusion,
    ) -> None:
        super().__init__()
        if not views:
            raise UserError("data.views: expected at least one view")
        self.angles = tuple(views)
        self.pixels = pixels
        self.size = BOTTOM * 2**doublings
        self.branches = nn.ModuleList(branches)
        self.fuse = fuse
        if len(views) > 1:
            channels = decoder_channels(widths, doublings)
            self.levels = decoder(channels, extra=1)
            self.head = head(channels[-1])

    def forward(self, views: Tensor, seeds: Tensor | None = None) -> Tensor:
        """seeds: `methods.base.Batch.seeds`, which dropout follows from. In the precision of the weights."""
        pictures = self.pictures(views)
        return self.volume(pictures, seeds, [None] * len(self.angles))

    def pictures(self, views: Tensor) -> Tensor:
        """(b, view, row, col) resampled to (b, view, size, size), anti-aliased, in the views' own precision.

        The picture fills the cube, as in the published preparation, wherever its beam goes. Raises
        `UserError` for another number or size of views.
        """
        check_views(views, len(self.angles), self.pixels)
        wide = views.to(torch.promote_types(views.dtype, torch.float32))
        return F.interpolate(wide, size=(self.size, self.size), mode="bilinear", antialias=True)

    def volume(self, pictures: Tensor, seeds: Tensor | None, conditions: Sequence[Tensor | None]) -> Tensor:
        """(b, view, size, size) → (b, 1, z, y, x); a condition for each view's encoder, or None."""
        pictures = pictures.to(next(self.parameters()).dtype)
        branches = cast("Sequence[ViewBranch]", self.branches)
        bottoms, skips = [], []
        for branch, picture, condition in zip(branches, pictures.split(1, dim=1), conditions, strict=True):
            bottom, of_branch = branch.encode(picture, seeds, condition)
            bottoms.append(bottom)
            skips.append(of_branch)
        if len(branches) == 1:
            return to_patient(branches[0].decode(bottoms[0], skips[0]), self.angles[0])
        fused = decoded = self.connected(bottoms)
        for number, level in enumerate(self.levels):
            fused = self.connected(
                [
                    branch.level(number, to_view(fused, angle), skip[number])
                    for branch, angle, skip in zip(branches, self.angles, skips, strict=True)
                ]
            )
            decoded = level(decoded, fused)
        volume: Tensor = self.head(decoded)
        return volume

    def connected(self, features: Sequence[Tensor]) -> Tensor:
        """Connection C: each view's (b, c, depth, row, col) → the patient's (b, c, z, y, x)."""
        return self.fuse([to_patient(f, a) for f, a in zip(features, self.angles, strict=True)])


def average(features: Sequence[Tensor]) -> Tensor:
    """X2CT-GAN's fusion."""
    return torch.stack(list(features)).mean(0)
