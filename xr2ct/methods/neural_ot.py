"""Neural optimal transport: a mapper g from views to volumes, against a potential d.

    min_g  max_d   0.1·Σ S(f(g(x)), f(V)) − 0.1·mean d(g(x)) + mean d(V)

S is the Sinkhorn divergence of a layer of random features f over the global batch. One outer step is k
updates of g with a fresh batch each, d frozen, then one of d with a further batch, g frozen.

Of sub-volumes with a stage before them, S is of both the sub-volume and the whole chest around it: the coarse
reconstruction with the sub-volume set into it, against the true chest. What is right by itself and wrong in
its place has a price too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from xr2ct.config import Experiment, Section
from xr2ct.errors import UserError
from xr2ct.methods.base import Batch, Engine, Losses, Method, Update
from xr2ct.methods.replay import Draws
from xr2ct.models.features import Config as Features
from xr2ct.models.features import FeatureExtractor
from xr2ct.models.initial import seeded_weights
from xr2ct.models.mapper import Mapper, build_mapper
from xr2ct.models.potential import Config as PotentialWidths
from xr2ct.models.potential import Potential
from xr2ct.models.surroundings import set_into
from xr2ct.projection.geometry import Geometry
from xr2ct.transport.dual import scores_and_slope
from xr2ct.transport.global_batch import gather, total, world_size
from xr2ct.transport.sinkhorn import SinkhornDivergence, at_least_fp32
from xr2ct.transport.spread import spread


class Config(Section):
    """The paper's weights."""

    mapper_updates: int = Field(10, ge=1)
    """k: updates of the mapper before each of the potential."""
    transport_weight: float = Field(0.1, ge=0)
    """Of ΣS in the mapper's loss."""
    potential_weight: float = Field(0.1, ge=0)
    """λ: of mean d(g(x)) in the mapper's loss."""
    potential_scale: float = Field(100.0, gt=0)
    """Of the potential's own loss."""
    blur: float = Field(0.05, gt=0)
    """Of the Sinkhorn divergence, in units of features."""
    blur_of_spread: float | None = Field(None, gt=0)
    """In place of `blur`: a multiple of each layer's spread of features, the mean distance between two
    training volumes, measured once with the calibration's batches."""
    scaling: float = Field(0.5, gt=0, lt=1)
    """By which the Sinkhorn iterations' blur shrinks from one to the next."""
    potential: PotentialWidths = PotentialWidths()
    features: Features = Features()


def build(config: Config, experiment: Experiment, geometry: Geometry, cube_mm: float) -> NeuralOT:
    """The method of an experiment; `UserError` for what its networks cannot take."""
    parts = world_size() * experiment.training.accumulation
    if config.features.statistics == "batch" and parts > 1:
        raise UserError(
            f"method.features.statistics: batch is for one rank without accumulation, found {parts} parts of "
            "a batch, each with its own statistics; use calibrated"
        )
    if config.blur_of_spread is not None and config.features.statistics == "batch":
        raise UserError(
            "method.blur_of_spread is measured on the calibration's batches; with "
            "method.features.statistics: batch there are none: use calibrated, or method.blur"
        )
    mapper = build_mapper(experiment, geometry, cube_mm)
    with seeded_weights(experiment.seed, "potential"):
        d = Potential(config.potential, experiment.data.side)
    f = FeatureExtractor(config.features, experiment.seed)
    return NeuralOT(config, mapper, d, f, experiment.window_step)


class Spread(nn.Module):
    """Of each layer's features, measured once; saved and restored like a network that is never trained."""

    by_layer: Tensor

    def __init__(self, layers: int) -> None:
        super().__init__()
        self.register_buffer("by_layer", torch.full((layers,), torch.nan, dtype=torch.float64))
        self._told: list[float] | None = None
        self.register_load_state_dict_post_hook(lambda *_: self._forget())

    def measured(self, by_layer: Tensor) -> None:
        """Keep what was found."""
        self.by_layer.copy_(by_layer)
        self._forget()

    def tolist(self) -> list[float]:
        """On the host, brought there once: each time it would wait for the device."""
        if self._told is None:
            self._told = self.by_layer.tolist()
        return self._told

    def _forget(self) -> None:
        self._told = None


class NeuralOT(Method):
    """g, d, f and the order of their updates."""

    def __init__(
        self, config: Config, mapper: Mapper, d: Potential, f: FeatureExtractor, window_step: int = 1
    ) -> None:
        """window_step: `Experiment.window_step`, voxels of a sub-volume to one of the chest around it."""
        self.config = config
        self.window_step = window_step
        self.networks = {"mapper": mapper, "potential": d}
        self.fixed: dict[str, nn.Module] = {"features": f}
        self.features = f
        self.spread = Spread(len(config.features.widths))
        if config.blur_of_spread is not None:
            self.fixed["spread"] = self.spread

    @property
    def divergence(self) -> SinkhornDivergence:
        """With the blur that is stated, or that follows from the spread measured or restored."""
        config = self.config
        if config.blur_of_spread is None:
            return SinkhornDivergence(config.blur, config.scaling)
        blurs = [config.blur_of_spread * distance for distance in self.spread.tolist()]
        return SinkhornDivergence(blurs, config.scaling)

    @property
    def updates(self) -> tuple[Update, ...]:
        return (
            Update(
                "mapper",
                self.config.mapper_updates,
                lambda e, batch: self.update_mapper(e["mapper"], e["potential"], batch),
            ),
            Update(
                "potential", 1, lambda e, batch: self.update_potential(e["mapper"], e["potential"], batch)
            ),
        )

    def prepare(self, batches: Iterator[Batch]) -> None:
        """Calibrate f on the first training batches, and measure the spread; every rank calls it."""
        if self.config.features.statistics == "batch":
            return
        drawn = list(islice(batches, self.config.features.calibration_batches))
        volumes = [batch.ct for batch in drawn]
        around = [batch.context for batch in drawn if batch.context is not None]
        self.features.to(volumes[0].device).calibrate([*volumes, *around], total)
        if "spread" in self.fixed:
            self._measure_spread(volumes)

    def _measure_spread(self, volumes: Sequence[Tensor]) -> None:
        with torch.no_grad():
            by_batch = [self.features(v) for v in volumes]
        layers = [gather(torch.cat(maps)) for maps in zip(*by_batch, strict=True)]
        found = torch.stack([spread(maps) for maps in layers])
        if not bool((found > 0).all()):
            raise UserError(
                f"method.blur_of_spread: the {len(layers[0])} calibration volumes lie {found.tolist()} "
                "apart in the layers of f, expected more than 0; learn from more cases, or state method.blur"
            )
        self.spread.measured(found)

    def update_mapper(self, mapper: Engine, d: Engine, batch: Batch) -> Losses:
        """One update of g; L_g, ΣS and this rank's mean d(g(x)).

        Optimal transport needs every micro-batch at once. With accumulation the volumes are therefore made
        first, and each micro-batch runs again to take back its volumes' gradient: with the same draws, for
        other ones would make it the gradient of another function.
        """
        parts = batch.micro(mapper.accumulation)
        once = len(parts) == 1
        outputs, draws = [], []
        with torch.set_grad_enabled(once):
            for part in parts:
                draws.append(None if once else Draws(part.views))
                outputs.append(mapper(*part.inputs))
        gradient, losses = self.mapper_loss(outputs, d, batch)
        for part, output, drawn, own in zip(parts, outputs, draws, gradient.chunk(len(parts)), strict=True):
            if drawn is not None:
                with drawn.again():
                    output = mapper(*part.inputs)
            mapper.backward(output, own)
        mapper.step()
        return losses

    def mapper_loss(self, outputs: list[Tensor], d: Engine, batch: Batch) -> tuple[Tensor, Losses]:
        """∂L_g/∂g(x) and the losses, L_g = 0.1·ΣS − 0.1·mean d(g(x)) with the mean over this rank."""
        config = self.config
        volumes = at_least_fp32(torch.cat(outputs).detach()).requires_grad_()
        transport = self.transport(volumes, batch.ct)
        further: Losses = {}
        if batch.context is not None:
            assert batch.coarse is not None and batch.origins is not None
            times = batch.coarse.shape[-1] // batch.context.shape[-1]
            made, real = (
                set_into(chest, part, batch.origins, self.window_step)
                for chest, part in (
                    (F.avg_pool3d(batch.coarse, times), volumes),
                    (batch.context, batch.ct),
                )
            )
            around = self.transport(made, real)
            further["transport_around"] = around.detach()
            transport = transport + around
        (pull,) = torch.autograd.grad(transport, volumes)
        with d.held() as frozen:
            # By micro-batches: the mean falls apart, and the potential's activations are large.
            scores, slopes = zip(
                *(scores_and_slope(frozen, v) for v in volumes.chunk(len(outputs))), strict=True
            )
        score, slope = torch.cat(scores).mean(), torch.cat(slopes) / len(volumes)
        gradient = config.transport_weight * pull - config.potential_weight * slope
        loss = config.transport_weight * transport.detach() - config.potential_weight * score
        return gradient, {
            "mapper": loss,
            "transport": transport.detach(),
            "potential_of_mapped": score,
            **further,
        }

    def transport(self, made: Tensor, real: Tensor) -> Tensor:
        """ΣS between two batches of volumes, a scalar whose gradient reaches `made`."""
        with torch.no_grad():
            of_real = self.features(real)
        return self.divergence(self.features(made), of_real)

    def update_potential(self, mapper: Engine, d: Engine, batch: Batch) -> Losses:
        """One update of d; L_d = 100·(mean d(g(x)) − mean d(V)) and mean d(V), both of this rank."""
        scale = self.config.potential_scale
        mapped, real = [], []
        for part in batch.micro(d.accumulation):
            with torch.no_grad(), mapper.held() as frozen:
                volumes = at_least_fp32(frozen(*part.inputs))
            scores = d(torch.cat([volumes, part.ct]))
            slope = torch.full_like(scores, scale / len(batch.positions))
            slope[len(volumes) :] *= -1
            d.backward(scores, slope)
            of_mapped, of_real = scores.detach().chunk(2)
            mapped.append(of_mapped)
            real.append(of_real)
        d.step()
        score, truth = torch.cat(mapped).mean(), torch.cat(real).mean()
        return {"potential": scale * (score - truth), "potential_of_real": truth}
