"""Regression: the mapper against the true volume, voxel by voxel, and nothing else.

    min_g  mean |g(x) − V|    or    mean (g(x) − V)²

What one would try first, and what neural optimal transport has to beat; not in the paper.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field

from xr2ct.config import Experiment, Section
from xr2ct.methods.base import Batch, Engine, Losses, Method, Update
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


class Regression(Method):
    """One network, one loss."""

    def __init__(self, config: Config, mapper: Mapper) -> None:
        self.config = config
        self.networks = {"mapper": mapper}
        self.fixed = {}

    @property
    def updates(self) -> tuple[Update, ...]:
        return (
            Update("mapper", self.config.mapper_updates, lambda e, batch: self.update(e["mapper"], batch)),
        )

    def prepare(self, batches: Iterator[Batch]) -> None:
        """Nothing has to be calibrated."""

    def update(self, mapper: Engine, batch: Batch) -> Losses:
        """One update; the loss over this rank's samples.

        The engine sums gradients over micro-batches, which are of one size, and averages them over ranks: so
        each micro-batch brings its own mean as a part of this rank's.
        """
        parts = batch.micro(mapper.accumulation)
        losses = []
        for part in parts:
            output = mapper(*part.inputs)
            volumes = at_least_fp32(output.detach()).requires_grad_()
            loss = _LOSSES[self.config.loss](volumes, part.ct.to(volumes.dtype)) / len(parts)
            (slope,) = torch.autograd.grad(loss, volumes)
            mapper.backward(output, slope)
            losses.append(loss.detach())
        mapper.step()
        return {"mapper": torch.stack(losses).sum()}
