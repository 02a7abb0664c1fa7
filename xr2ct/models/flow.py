"""A mapper that goes from a start to a volume in several steps: the velocity of a flow, and its integration.

Between the start m, the stage before's reconstruction or 0 without one, and a volume V runs the straight path

    x_t = (1 − t)·(m + σ·ε) + t·V,    ε ~ N(0, 1),    0 ≤ t ≤ 1

of conditional flow matching with an independent coupling (Lipman et al. 2023; Liu et al. 2023; Albergo and
Vanden-Eijnden 2023; Tong et al. 2024). Whoever follows the mean velocity E[V − x_0 | x_t, views] from t = 0
ends at a draw from all volumes that go with the views; a single step from there ends at their mean.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from xr2ct.models.lift import Lift, Windows
from xr2ct.models.mapper import Mapper
from xr2ct.models.surroundings import Surroundings
from xr2ct.seeds import derive_seed

Solver = Literal["euler", "heun"]

PATIENT, POSITION = 0, 1
"""Columns of `methods.base.Batch.seeds`."""

FURTHER_CHANNELS = 3


@dataclass(frozen=True)
class Path:
    """The way from the start to the volume, as differences d = x − m from the start.

    What a network of unit inputs and outputs is asked for follows as in Karras et al. 2022: were V − m normal
    with mean 0 and standard deviation s in each voxel, then the mean velocity would be a·d, and what is left
    of a velocity when that is taken off would have the standard deviation b. The network F tells that rest,
    velocity = a·d + b·F(c·d, t), and for such volumes F = 0.
    """

    sigma: float
    """σ, of the unit window."""
    spread: float
    """s, of the unit window."""

    def factors(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """a, b and c at times t, each of t's shape."""
        noise, signal = self.sigma**2, self.spread**2
        variance = (1 - t).square() * noise + t.square() * signal
        c = variance.rsqrt()
        return (t * signal - (1 - t) * noise) / variance, self.sigma * self.spread * c, c

    def at(self, t: Tensor, noise: Tensor, difference: Tensor) -> Tensor:
        """d at times t, of standard normal noise and V − m."""
        return (1 - t) * self.sigma * noise + t * difference

    def target(self, t: Tensor, noise: Tensor, difference: Tensor) -> Tensor:
        """What F is to tell there: (V − x_0 − a·d) / b."""
        a, b, _ = self.factors(t)
        return (difference - self.sigma * noise - a * self.at(t, noise, difference)) / b


class FlowMapper(Mapper):
    """Views to a volume by integrating a flow; the backbone tells the velocity.

    In evaluation mode `steps` steps of the solver, alike in time, from a start that is drawn by the patient's
    number: the same each time for the same seeds, on any device, for any number of ranks and in any batch.
    Without seeds it is drawn from one fixed stream. In training mode one step of Euler's, which costs what an
    update's pass does.
    """

    def __init__(
        self,
        path: Path,
        steps: int,
        solver: Solver,
        lift: Lift | None,
        backbone: nn.Module,
        side: int | None = None,
        surroundings: Surroundings | None = None,
    ) -> None:
        super().__init__(lift, backbone, side, surroundings)
        self.path = path
        self.steps = steps
        """Of the integration; may be set to another number at any time."""
        self.solver: Solver = solver

    @property
    def draws(self) -> bool:
        return True

    def forward(
        self,
        views: Tensor,
        seeds: Tensor | None = None,
        origins: Tensor | None = None,
        coarse: Tensor | None = None,
        difference: Tensor | None = None,
        t: Tensor | None = None,
    ) -> Tensor:
        """A volume (b, 1, z, y, x) on the unit window, float32; the first four as in `Mapper.forward`.

        With a `difference` d (b, 1, z, y, x) and times t (b, 1, 1, 1, 1) in place of that what the network
        tells there, `Path`'s F, in the precision of its weights.
        """
        windows = self.windows(origins)
        given = self.channels(views, seeds, windows, coarse)
        if difference is not None:
            assert t is not None
            return self._told(given, difference, t)
        assert self.lift is not None
        start = self.start(given, coarse, windows)
        noise = normal(seeds, PATIENT, len(views), self.lift.size, windows).to(start.device)
        d = self.path.sigma * noise
        return start + (d + self._velocity(given, d, 0.0) if self.training else self._integrated(given, d))

    def start(self, like: Tensor, coarse: Tensor | None, windows: Windows | None) -> Tensor:
        """m (b, 1, z, y, x), float32: what the stage before has made, or 0. No gradient asks for it."""
        if self.surroundings is not None and self.surroundings.finer is not None:
            with torch.no_grad():
                return self.surroundings(coarse, windows)[:, :1].float()
        return like.new_zeros(len(like), 1, *like.shape[2:], dtype=torch.float32)

    def _integrated(self, given: Tensor, d: Tensor) -> Tensor:
        h = 1 / self.steps
        for i in range(self.steps):
            slope = self._velocity(given, d, i * h)
            if self.solver == "heun":
                slope = (slope + self._velocity(given, d + h * slope, (i + 1) * h)) / 2
            d = d + h * slope
        return d

    def _velocity(self, given: Tensor, d: Tensor, time: float) -> Tensor:
        t = d.new_full((len(d), 1, 1, 1, 1), time)
        a, b, _ = self.path.factors(t)
        return a * d + b * self._told(given, d, t).float()

    def _told(self, given: Tensor, d: Tensor, t: Tensor) -> Tensor:
        _, _, c = self.path.factors(t)
        scaled = c * d
        # Time in two ways: networks that normalise each channel of a volume lose a constant one, and those
        # that normalise each token lose a factor.
        state = torch.cat([scaled, t * scaled, t.expand_as(scaled)], dim=1)
        told: Tensor = self.backbone(torch.cat([given, state.to(given.dtype)], dim=1))
        return told


def normal(seeds: Tensor | None, which: int, samples: int, side: int, windows: Windows | None) -> Tensor:
    """(b, 1, side, side, side) standard normal noise, float32 on the CPU, of each sample a stream of its own.

    which: the column of seeds that names the stream. With windows, that part of it: those that overlap have
    the same noise where they do.
    """
    numbers = [0] * samples if seeds is None else seeds[:, which].tolist()
    volumes = []
    for i, number in enumerate(numbers):
        generator = torch.Generator().manual_seed(derive_seed(number, "flow"))
        volume = torch.randn(side, side, side, generator=generator, device="cpu")
        if windows is not None:
            z, y, x = windows.origins[i].tolist()
            volume = volume[z : z + windows.side, y : y + windows.side, x : x + windows.side]
        volumes.append(volume)
    return torch.stack(volumes)[:, None]


def times(seeds: Tensor) -> Tensor:
    """(b, 1, 1, 1, 1) from 0 to 1, float32 on the CPU, uniform, by each sample's place in training."""
    found = [math.ldexp(derive_seed(number, "time"), -63) for number in seeds[:, POSITION].tolist()]
    return torch.tensor(found).view(-1, 1, 1, 1, 1)
