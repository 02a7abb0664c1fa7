"""The mapper g: views to a volume, by a network chosen by name.

Most networks go from volume to volume, behind a lift that makes one of each view. One whose module says
``TAKES = "views"`` takes what a mapper takes, views and seeds, and is built with the views' angles; it brings
them to the precision of its weights itself, where it has resampled them.
"""

from __future__ import annotations

from torch import Tensor, nn

from xr2ct.config import Experiment, validate
from xr2ct.models.initial import seeded_weights
from xr2ct.models.lift import build_lift
from xr2ct.projection.geometry import Geometry
from xr2ct.registry import component


class Mapper(nn.Module):
    """Views to a volume on the unit window. Only the backbone has weights."""

    def __init__(self, lift: nn.Module | None, backbone: nn.Module) -> None:
        super().__init__()
        self.lift = lift
        self.backbone = backbone

    def forward(self, views: Tensor, seeds: Tensor | None = None) -> Tensor:
        """(b, view, row, col) scaled line integrals → (b, 1, z, y, x), in the precision of the weights.

        seeds: `methods.base.Batch.seeds`, for what is drawn at random. Views are resampled in their own
        precision, whatever the weights': places rounded to half precision would be off by voxels.
        """
        volume: Tensor
        if self.lift is None:
            volume = self.backbone(views, seeds)
        else:
            volume = self.backbone(self.lift(views, seeds).to(next(self.backbone.parameters()).dtype))
        return volume


def build_mapper(experiment: Experiment, geometry: Geometry, cube_mm: float) -> Mapper:
    """The mapper of an experiment, with its initial weights.

    `UserError` for an unknown network, a wrong key of it, or a size that it cannot take.
    """
    data = experiment.data
    keys = dict(experiment.mapper)
    name = keys.pop("name", "swin-unetr")
    module = component("xr2ct.models", name)
    config = validate(module.Config, keys, f"mapper {name}")
    with seeded_weights(experiment.seed, "mapper"):
        if getattr(module, "TAKES", "volumes") == "views":
            return Mapper(None, module.build(config, data.views, geometry, data.size))
        backbone = module.build(config, in_channels=len(data.views), size=data.size)
    return Mapper(build_lift(experiment, geometry, cube_mm), backbone)
