"""Regression: the mapper against the true volume, voxel by voxel, and nothing else.

    min_g  mean |g(x) − V|    or    mean (g(x) − V)²

What one would try first, and what neural optimal transport has to beat; not in the paper.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from xr2ct.config import Experiment, Section
from xr2ct.methods.base import Batch, Engine, OneNetwork
from xr2ct.models.mapper import Mapper, build_mapper
from xr2ct.projection.geometry import Geometry
from xr2ct.transport.sinkhorn import at_least_fp32

_LOSSES = {"l1": F.l1_loss, "mse": F.mse_loss}


class Config(Section):
    """What is regressed, and how often in an outer step."""

    loss: Literal["l1", "mse"] = "l1"
    """Mean absolute or mean squared difference, over all voxels of the global batch."""
    mapper_updates: int = Field(10, ge=1)
    """In an outer step, a fresh batch each: as many as neural OT makes, so that steps are alike."""


def build(config: Config, experiment: Experiment, geometry: Geometry, cube_mm: float) -> Regression:
    """The method of an experiment; `UserError` for what its mapper cannot take."""
    return Regression(config, build_mapper(experiment, geometry, cube_mm))


class Regression(OneNetwork):
    """One network, one loss."""

    def __init__(self, config: Config, mapper: Mapper) -> None:
        super().__init__(mapper, config.mapper_updates)
        self.config = config

    def learn(self, mapper: Engine, part: Batch) -> tuple[Tensor, Tensor, Tensor]:
        output = mapper(*part.inputs)
        volumes = at_least_fp32(output.detach()).requires_grad_()
        loss = _LOSSES[self.config.loss](volumes, part.ct.to(volumes.dtype))
        (slope,) = torch.autograd.grad(loss, volumes)
        return output, loss.detach(), slope
