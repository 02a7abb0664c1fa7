"""The mapper g: views to a volume, by a network chosen by name.

Most networks go from volume to volume, behind a lift that makes one of each view. One whose module says
``TAKES = "views"`` takes what a mapper takes, views and seeds, and is built with the views' angles; it brings
them to the precision of its weights itself, where it has resampled them.

Behind a lift a mapper may be one of sub-volumes (`data.window`), and may be given the stage before's
reconstruction (`coarse`): both are further channels after the views'.

``consistency: K`` among its keys puts K steps towards agreement with the views after any network.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from xr2ct.config import Experiment, validate
from xr2ct.errors import UserError
from xr2ct.models.consistency import Consistency, build_consistency, own_keys
from xr2ct.models.initial import seeded_weights
from xr2ct.models.lift import Lift, NoiseLift, RepeatLift, Windows, build_lift
from xr2ct.models.surroundings import Surroundings
from xr2ct.projection.geometry import Geometry
from xr2ct.registry import component


class Mapper(nn.Module):
    """Views to a volume on the unit window. Only the backbone and the last steps have weights."""

    def __init__(
        self,
        lift: Lift | None,
        backbone: nn.Module,
        side: int | None = None,
        surroundings: Surroundings | None = None,
    ) -> None:
        super().__init__()
        self.lift = lift
        self.backbone = backbone
        self.surroundings = surroundings
        self.consistency: Consistency | None = None
        """Steps towards agreement with the views after the backbone, where there are any."""
        self.side = side
        """Voxels along each side of a sub-volume; needed where origins are given."""

    def forward(
        self,
        views: Tensor,
        seeds: Tensor | None = None,
        origins: Tensor | None = None,
        coarse: Tensor | None = None,
    ) -> Tensor:
        """(b, view, row, col) scaled line integrals → (b, 1, z, y, x), in the precision of the weights.

        seeds: `methods.base.Batch.seeds`, for what is drawn at random. origins, coarse: as in
        `methods.base.Batch`; with origins the result is that sub-volume, `side`³. Views are resampled in
        their own precision, whatever the weights': places rounded to half precision would be off by voxels.
        """
        volume: Tensor
        if self.lift is None:
            volume = self.backbone(views, seeds)
        else:
            volume = self.backbone(self.channels(views, seeds, self.windows(origins), coarse))
        if self.consistency is None:
            return volume
        assert origins is None, "views agree with whole volumes"
        agreeing: Tensor = self.consistency(volume, views)
        return agreeing

    def channels(
        self, views: Tensor, seeds: Tensor | None, windows: Windows | None, coarse: Tensor | None
    ) -> Tensor:
        """(b, channels, z, y, x) in the precision of the weights: what a backbone behind a lift is given."""
        assert self.lift is not None
        dtype = next(self.backbone.parameters()).dtype
        x: Tensor = self.lift(views, seeds, windows).to(dtype)
        if self.surroundings is not None:
            x = torch.cat([x, self.surroundings(coarse, windows).to(dtype)], dim=1)
        return x

    def windows(self, origins: Tensor | None) -> Windows | None:
        if origins is None:
            return None
        assert self.side is not None, "a sub-volume has a side"
        return Windows(origins, self.side)

    @property
    def draws(self) -> bool:
        """Whether other seeds make another volume of the same views."""
        return isinstance(self.lift, NoiseLift)


def build_mapper(
    experiment: Experiment,
    geometry: Geometry,
    cube_mm: float,
    made: Callable[..., Mapper] = Mapper,
    further_channels: int = 0,
) -> Mapper:
    """The mapper of an experiment, with its initial weights.

    made: its class, or what is called like it. further_channels: that its backbone, which then has to take
    volumes, is given beside the views and the surroundings. `UserError` for an unknown network, a wrong key
    of it, or a size or a part of a volume that it cannot take. Of a method that makes its mapper otherwise
    `methods.mappers.mapper_of` gives the whole.
    """
    data = experiment.data
    keys = dict(experiment.mapper)
    name = keys.pop("name", "swin-unetr")
    steps = own_keys(keys, f"mapper {name}").consistency
    module = component("xr2ct.models", name)
    config = validate(module.Config, keys, f"mapper {name}")
    coarse = None if experiment.coarse is None else experiment.coarse.size
    surroundings = None
    if data.window is not None or coarse is not None:
        surroundings = Surroundings(data.size, data.window, coarse)
    if steps and made is not Mapper:
        raise UserError(
            f"mapper.consistency: method {experiment.method['name']} makes its volumes in steps of its own; "
            "reconstruct with --refine"
        )
    last = build_consistency(steps, experiment, geometry, cube_mm)
    with seeded_weights(experiment.seed, "mapper"):
        if getattr(module, "TAKES", "volumes") == "views":
            if surroundings is not None:
                raise UserError(
                    f"mapper {name} takes whole views: neither data.window nor coarse goes with it; "
                    "swin-unetr, unet and segresnet take both"
                )
            if further_channels:
                raise UserError(
                    f"mapper {name} takes whole views; method {experiment.method['name']} needs a network "
                    "that takes volumes: swin-unetr, unet or segresnet"
                )
            mapper = made(None, module.build(config, data.views, geometry, data.size))
            mapper.consistency = last
            return mapper
        channels = len(data.views) + (0 if surroundings is None else surroundings.channels) + further_channels
        backbone = module.build(config, in_channels=channels, size=data.side)
    lift = build_lift(experiment, geometry, cube_mm)
    if isinstance(lift, RepeatLift) and hasattr(backbone, "repeated"):
        backbone.repeated = lift.axes  # it convolves pictures in place of volumes
    mapper = made(lift, backbone, data.side, surroundings)
    mapper.consistency = last
    return mapper
