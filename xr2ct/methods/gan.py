"""A mapper against a conditional PatchGAN (Ying et al. 2019), with X2CT-GAN's losses by default.

    min_g  0.1·E (d(g(x), x) − 1)² + 10·E |g(x) − V|² + 10·(1/3)·Σ_axes E |mean_axis g(x) − mean_axis V|
    min_d  ½·E (d(V, x) − 1)² + ½·E d(g(x), x)²

d sees a volume beside its views, each repeated along its beam; volumes are on the unit window. An update is
one of g and then one of d with the volumes that g had made for the same batch: the publication does not
say which comes first. Without an adversary, weight 0, there is no discriminator at all.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from xr2ct.config import Experiment, Section
from xr2ct.methods.base import Batch, Engine, Losses, Method, Update
from xr2ct.models.initial import seeded_weights
from xr2ct.models.lift import Lift, RepeatLift, Windows
from xr2ct.models.mapper import Mapper, build_mapper
from xr2ct.models.patch_discriminator import Config as DiscriminatorWidths
from xr2ct.models.patch_discriminator import PatchDiscriminator
from xr2ct.projection.geometry import Geometry
from xr2ct.transport.dual import scores_and_slope
from xr2ct.transport.sinkhorn import at_least_fp32


class Config(Section):
    """The published weights."""

    adversarial_weight: float = Field(0.1, ge=0)
    """Of the least-squares loss of g by d's scores; 0 trains without a discriminator."""
    reconstruction_weight: float = Field(10.0, ge=0)
    """Of the mean squared difference of volumes."""
    projection_weight: float = Field(10.0, ge=0)
    """Of the mean absolute difference of their mean projections, averaged over the three axes."""
    updates: int = Field(1, ge=1)
    """Of each network in an outer step, a fresh batch each."""
    discriminator: DiscriminatorWidths = DiscriminatorWidths()


def build(config: Config, experiment: Experiment, geometry: Geometry, cube_mm: float) -> Gan:
    """The method of an experiment; `UserError` for what its mapper cannot take."""
    data = experiment.data
    mapper = build_mapper(experiment, geometry, cube_mm)
    repeat = RepeatLift(data.views, geometry, cube_mm, data.size, experiment.lift.scale)
    if config.adversarial_weight == 0:
        return Gan(config, mapper, None, repeat)
    with seeded_weights(experiment.seed, "discriminator"):
        d = PatchDiscriminator(config.discriminator, 1 + len(data.views))
    return Gan(config, mapper, d, repeat)


class Gan(Method):
    """g, d and the order of their updates."""

    def __init__(self, config: Config, mapper: Mapper, d: PatchDiscriminator | None, repeat: Lift) -> None:
        self.config = config
        self.networks = {"mapper": mapper}
        if d is not None:
            self.networks["discriminator"] = d
        self.fixed = {}
        self.repeat = repeat

    @property
    def updates(self) -> tuple[Update, ...]:
        name = "mapper" if len(self.networks) == 1 else "mapper, discriminator"
        return (
            Update(
                name,
                self.config.updates,
                lambda e, batch: self.update(e["mapper"], e.get("discriminator"), batch),
            ),
        )

    def channels(self, name: str) -> int:
        """A volume, and a channel for each view."""
        return 1 + len(self.repeat.angles)

    def prepare(self, batches: Iterator[Batch]) -> None:
        """Nothing has to be calibrated."""

    def update(self, mapper: Engine, d: Engine | None, batch: Batch) -> Losses:
        """One update of g and, where there is an adversary, one of d; the losses over this rank's samples.

        Engines sum gradients over micro-batches, which are of one size, and average them over ranks: so each
        micro-batch brings its own means as a part of this rank's.
        """
        made, losses = [], []
        parts = batch.micro(mapper.accumulation)
        for part in parts:
            output = mapper(*part.inputs)
            volumes = at_least_fp32(output.detach())
            gradient, of_part = self.mapper_loss(volumes, d, part)
            mapper.backward(output, gradient / len(parts))
            made.append(volumes)
            losses.append(of_part)
        mapper.step()
        if d is not None:
            for volumes, part, of_part in zip(made, parts, losses, strict=True):
                of_part["discriminator"] = self.go_back(d, volumes, part, len(parts))
            d.step()
        return {name: torch.stack([of_part[name] for of_part in losses]).mean() for name in losses[0]}

    def mapper_loss(self, volumes: Tensor, d: Engine | None, part: Batch) -> tuple[Tensor, Losses]:
        """∂L_g/∂g(x) and the losses, all means over a micro-batch."""
        config = self.config
        volumes = volumes.detach().requires_grad_()
        real = part.ct.to(volumes.dtype)
        reconstruction, projection = F.mse_loss(volumes, real), projection_loss(volumes, real)
        loss = config.reconstruction_weight * reconstruction + config.projection_weight * projection
        (gradient,) = torch.autograd.grad(loss, volumes)
        losses = {"reconstruction": reconstruction, "projection": projection}
        if d is not None:
            with d.held() as frozen:
                unconvinced = _Unconvinced(frozen, self.lifted(part, volumes))
                of_each, slope = scores_and_slope(unconvinced, volumes)
            losses["adversarial"] = of_each.mean()
            loss = loss + config.adversarial_weight * losses["adversarial"]
            gradient = gradient + config.adversarial_weight * slope / len(volumes)
        return gradient, {"mapper": loss.detach()} | {name: value.detach() for name, value in losses.items()}

    def go_back(self, d: Engine, volumes: Tensor, part: Batch, parts: int) -> Tensor:
        """A micro-batch of d's update: back-propagate its share of the loss, and return its own loss."""
        lifted = self.lifted(part, volumes)
        pairs = [torch.cat([v, lifted], dim=1) for v in (volumes, part.ct.to(volumes.dtype))]
        output = d(torch.cat(pairs))
        scores = at_least_fp32(output.detach()).requires_grad_()
        of_made, of_real = scores.chunk(2)
        loss = (of_made.square().mean() + (of_real - 1).square().mean()) / 2
        (slope,) = torch.autograd.grad(loss / parts, scores)
        d.backward(output, slope)
        return loss.detach()

    def lifted(self, part: Batch, volumes: Tensor) -> Tensor:
        """The views as further channels of volumes (b, 1, z, y, x)."""
        windows = None if part.origins is None else Windows(part.origins, volumes.shape[-1])
        lifted: Tensor = self.repeat.to(volumes.device)(part.views, None, windows)
        return lifted.to(volumes.dtype)


class _Unconvinced(nn.Module):
    """(d(v, x) − 1)² of each volume, averaged over its patches."""

    def __init__(self, d: nn.Module, lifted: Tensor) -> None:
        super().__init__()
        self.d = d
        self.lifted = lifted

    def forward(self, volumes: Tensor) -> Tensor:
        scores = at_least_fp32(self.d(torch.cat([volumes, self.lifted], dim=1)))
        return (scores - 1).square().flatten(1).mean(1)


def projection_loss(volumes: Tensor, real: Tensor) -> Tensor:
    """Mean absolute difference of the mean projections along z, y and x, averaged over the three."""
    return torch.stack([F.l1_loss(volumes.mean(axis), real.mean(axis)) for axis in (2, 3, 4)]).mean()
