"""The mapper g: views lifted along their beams, then a backbone chosen by name."""

from __future__ import annotations

from torch import Tensor, nn

from xr2ct.config import Experiment, validate
from xr2ct.models.initial import seeded_weights
from xr2ct.models.lift import RepeatLift
from xr2ct.projection.geometry import Geometry
from xr2ct.registry import component


class Mapper(nn.Module):
    """Views to a volume on the unit window. Only the backbone has weights."""

    def __init__(self, lift: nn.Module, backbone: nn.Module) -> None:
        super().__init__()
        self.lift = lift
        self.backbone = backbone

    def forward(self, views: Tensor) -> Tensor:
        """(b, view, row, col) scaled line integrals → (b, 1, z, y, x), in the precision of the weights.

        The lift interpolates in the views' own precision, whatever the backbone's: places rounded to half
        precision would be off by voxels.
        """
        lifted: Tensor = self.lift(views)
        volume: Tensor = self.backbone(lifted.to(next(self.backbone.parameters()).dtype))
        return volume


def build_mapper(experiment: Experiment, geometry: Geometry, cube_mm: float) -> Mapper:
    """The mapper of an experiment, with its initial weights.

    `UserError` for an unknown backbone, a wrong key of it, or a size that it cannot take.
    """
    data = experiment.data
    keys = dict(experiment.mapper)
    name = keys.pop("name", "swin-unetr")
    module = component("xr2ct.models", name)
    config = validate(module.Config, keys, f"mapper {name}")
    lift = RepeatLift(data.views, geometry, cube_mm, data.size, experiment.lift.scale)
    with seeded_weights(experiment.seed, "mapper"):
        backbone = module.build(config, in_channels=len(data.views), size=data.size)
    return Mapper(lift, backbone)
