"""Conditional flow matching: from the stage before's reconstruction and noise to one of the volumes that go
with the views, in a few steps.

    min_F  E |F(c·d_t, t, views) − target(t)|²        t uniform in [0, 1]

which is the squared error of the velocity, at each time divided by that of a guess (`models.flow.Path`): a
loss of 1 knows nothing. With `coarse:` the run named there is the start, at the same size or a coarser one;
without it the flow starts at noise about 0, and `sigma` and `spread` have to be of the order of the volume
itself.

The paper leaves a generator of several steps to others. What is trained is one network; `steps` and `solver`
are of no meaning to its losses.
"""

from __future__ import annotations

from functools import partial

from pydantic import Field
from torch import Tensor

from xr2ct.config import Experiment, Section
from xr2ct.methods.base import Batch, Engine, OneNetwork
from xr2ct.models.flow import FURTHER_CHANNELS, POSITION, FlowMapper, Path, Solver, normal, times
from xr2ct.models.mapper import build_mapper
from xr2ct.projection.geometry import Geometry
from xr2ct.transport.sinkhorn import at_least_fp32


class Config(Section):
    """The path, how it is followed, and how often it is learnt from in an outer step."""

    sigma: float = Field(0.1, gt=0)
    """Standard deviation of the noise about the start, of the unit window: about as far as the start is from
    the truth."""
    spread: float = Field(0.1, gt=0)
    """Standard deviation of true volumes about the start, of the unit window, by which the network's inputs
    and outputs are scaled; a rough figure does."""
    steps: int = Field(4, ge=1)
    """Of the integration, in reconstructing."""
    solver: Solver = "heun"
    """`heun` takes two passes of the network a step, and `euler` one: a single step of it is the mean volume,
    and few of them end between that and a draw."""
    mapper_updates: int = Field(10, ge=1)
    """In an outer step, a fresh batch each: as many as neural OT makes, so that steps are alike."""


def make_mapper(config: Config, experiment: Experiment, geometry: Geometry, cube_mm: float) -> FlowMapper:
    """The mapper that this method trains; `UserError` as `build_mapper` raises it, for a network of views
    too."""
    made = partial(FlowMapper, Path(config.sigma, config.spread), config.steps, config.solver)
    mapper = build_mapper(experiment, geometry, cube_mm, made, FURTHER_CHANNELS)
    assert isinstance(mapper, FlowMapper)
    return mapper


def build(config: Config, experiment: Experiment, geometry: Geometry, cube_mm: float) -> Flow:
    """The method of an experiment; `UserError` for what its mapper cannot take."""
    return Flow(config, make_mapper(config, experiment, geometry, cube_mm))


class Flow(OneNetwork):
    """One network, one loss."""

    def __init__(self, config: Config, mapper: FlowMapper) -> None:
        super().__init__(mapper, config.mapper_updates)
        self.mapper = mapper

    def learn(self, mapper: Engine, part: Batch) -> tuple[Tensor, Tensor, Tensor]:
        t, d, target = self.drawn(part)
        output = mapper(part.views, part.seeds, part.origins, part.coarse, d, t)
        error = at_least_fp32(output.detach()) - target
        return output, error.square().mean(), error * (2 / error.numel())

    def drawn(self, part: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Times (b, 1, 1, 1, 1), differences from the start there and the network's targets, (b, 1, z, y, x)
        in float32: drawn by each sample's place in the sequence."""
        seeds, device = part.seeds, part.ct.device
        t = times(seeds).to(device)
        noise = normal(seeds, POSITION, len(part.ct), part.ct.shape[-1], None).to(device)
        truth = part.ct.float()
        difference = truth - self.mapper.start(truth, part.coarse, self.mapper.windows(part.origins))
        path = self.mapper.path
        return t, path.at(t, noise, difference), path.target(t, noise, difference)
