"""CCX-rayNet (Ratul et al., ISBI 2021) from its published description: X2CT-GAN's layout with four additions.

Each is a key, on by default. What the description leaves open is ours:

- the class transform is on the new features of the encoder's dense layers 1, 6, 11, …, counted through all
  blocks, and one conditioning net serves all views. With that, and the kernels of `class_condition`, two
  views at 128³ count the published 62.51 M;
- fusion's inner product is over channels, so a gate is one number a voxel; of more than two views it is the
  mean over pairs. What it gates is the views' sum.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import torch
from pydantic import Field
from torch import Tensor, nn

from xr2ct.errors import UserError
from xr2ct.models.class_condition import ClassTransform, ConditioningNet, threshold_masks
from xr2ct.models.initial import normal_weights
from xr2ct.models.spatial_transformer import SpatialTransformer
from xr2ct.models.view_branch import ViewBranch, Widths, levels
from xr2ct.models.x2ct_gan import Generator, average
from xr2ct.projection.geometry import Geometry

TAKES = "views"

_EVERY = 5


class Config(Widths):
    """The published network: 62.51 M parameters with two views at 128³."""

    depth_aware: bool = True
    """Connection B weighs its features by a mask of their own."""
    adaptive_fusion: bool = True
    """Views are fused by a gated sum, rather than averaged; of no meaning to a single one."""
    class_condition: bool = True
    """Lungs and bones of each X-ray scale and shift its encoder's features."""
    spatial_transformer: bool = True
    """An affine map, found from the volume, warps it at the end."""
    condition_channels: int = Field(128, ge=1)
    """Within the conditioning net."""
    conditions: int = Field(64, ge=1)
    """Of the class condition at each pixel."""


def build(config: Config, views: Sequence[float], geometry: Geometry, size: int) -> CcxRayNet:
    """Views (b, view, row, col) → (b, 1, size, size, size) in the patient's axes, at least 0.

    `UserError` for a size that is not 4·2ⁿ, or where there is no view.
    """
    doublings = levels(size, "ccx-raynet")

    def transform(place: int, channels: int) -> nn.Module | None:
        steered = config.class_condition and place % _EVERY == 0
        return ClassTransform(config.conditions, channels) if steered else None

    branches = [
        ViewBranch(config, doublings, number, transform, config.depth_aware) for number in range(len(views))
    ]
    fuse = gated_sum if config.adaptive_fusion else average
    network = CcxRayNet(
        Generator(config, views, geometry.pixels, doublings, branches, fuse),
        ConditioningNet(config.condition_channels, config.conditions) if config.class_condition else None,
        SpatialTransformer(size) if config.spatial_transformer else None,
    )
    network.apply(normal_weights)
    if network.warp is not None:
        network.warp.start_at_identity()
    return network


class CcxRayNet(nn.Module):
    """X2CT-GAN's generator between the class condition and the spatial transformer."""

    def __init__(
        self, generator: Generator, condition: ConditioningNet | None, warp: SpatialTransformer | None
    ) -> None:
        super().__init__()
        self.generator = generator
        self.condition = condition
        self.warp = warp

    def forward(self, views: Tensor, seeds: Tensor | None = None, masks: Tensor | None = None) -> Tensor:
        """masks: a segmentation (b, view, size, size) in the values of `class_condition`, else by threshold.

        seeds: `methods.base.Batch.seeds`, which dropout follows from.

        Raises `UserError` for another number or size of views, or masks of another shape.
        """
        pictures = self.generator.pictures(views)
        conditions: Sequence[Tensor | None] = [None] * pictures.shape[1]
        if self.condition is not None:
            conditions = self.conditions(threshold_masks(pictures) if masks is None else masks, pictures)
        volume = self.generator.volume(pictures, seeds, conditions)
        return volume if self.warp is None else self.warp(volume)

    def conditions(self, masks: Tensor, pictures: Tensor) -> Sequence[Tensor]:
        """Each view's, (b, conditions, row, col)."""
        assert self.condition is not None
        if masks.shape != pictures.shape:
            raise UserError(f"masks: expected {tuple(pictures.shape)}, got {tuple(masks.shape)}")
        flat = masks.flatten(0, 1).unsqueeze(1).to(next(self.parameters()).dtype)
        return self.condition(flat).unflatten(0, masks.shape[:2]).unbind(1)


def gated_sum(features: Sequence[Tensor]) -> Tensor:
    """Adaptive fusion: each view's (b, c, z, y, x) → their sum where they agree, half of it where not."""
    products = [(one * other).sum(1, keepdim=True) for one, other in combinations(features, 2)]
    gate = torch.sigmoid(torch.stack(products).mean(0))
    return gate * torch.stack(list(features)).sum(0)
