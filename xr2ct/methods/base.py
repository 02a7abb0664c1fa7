"""What a method is: networks, losses and the order of their updates. One file a method, found by its name.

A module in `xr2ct.methods` defines a `Config` (a `config.Section` with its keys) and
``build(config, experiment, views, ...) -> Method``. It knows neither the cluster nor the loop.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from xr2ct.seeds import derive_seed
from xr2ct.transport.global_batch import total, world_size

Losses = dict[str, Tensor]
"""Scalars on this rank's device, by name."""


@dataclass(frozen=True)
class Batch:
    """A rank's share of one global batch."""

    ct: Tensor
    """(b, 1, z, y, x) float32, HU window as [0, 1]."""
    views: Tensor
    """(b, view, row, col) float32, scaled line integrals."""
    positions: tuple[int, ...]
    """Places in the endless sequence of training samples; the same for any number of ranks."""
    cases: tuple[str, ...]
    origins: Tensor | None = None
    """(b, 3) int64 z, y, x: the voxel of the size³ grid at which each sub-volume begins; None for wholes."""
    coarse: Tensor | None = None
    """(b, 1, c, c, c) float32: the stage before's reconstruction of the whole chest, on the unit window."""
    context: Tensor | None = None
    """(b, 1, m, m, m) float32: the true whole chest around a sub-volume, `Experiment.context_side` a side."""

    @property
    def seeds(self) -> Tensor:
        """(b, 2) int64: of each sample a number of the patient's own, and one of its place in the sequence.

        What a network draws at random follows from them, so it is the same for any number of ranks, in a pass
        that is repeated, and after a resume.
        """
        return sample_seeds(self.positions, self.cases, self.views.device)

    @property
    def inputs(self) -> tuple[Tensor | None, ...]:
        """What a mapper takes: views and seeds, and where there are any, origins and coarse volumes."""
        if self.origins is None and self.coarse is None:
            return self.views, self.seeds
        return self.views, self.seeds, self.origins, self.coarse

    def micro(self, accumulation: int) -> list[Batch]:
        """The same samples in `accumulation` equal parts, in order."""
        size = len(self.positions) // accumulation
        parts = [slice(i * size, (i + 1) * size) for i in range(accumulation)]
        return [self._part(p) for p in parts]

    def _part(self, p: slice) -> Batch:
        further = [None if t is None else t[p] for t in (self.origins, self.coarse, self.context)]
        return Batch(self.ct[p], self.views[p], self.positions[p], self.cases[p], *further)


def sample_seeds(positions: Sequence[int], cases: Sequence[str], device: torch.device) -> Tensor:
    """`Batch.seeds` of samples at these places in the sequence, of these cases."""
    pairs = [
        (derive_seed(0, "patient", case), derive_seed(0, "position", position))
        for case, position in zip(cases, positions, strict=True)
    ]
    seeds = torch.tensor(pairs, dtype=torch.int64)
    if device.type != "cuda":
        return seeds
    # From pinned memory: from any other the copy would wait for all that the device has still to do.
    return seeds.pin_memory().to(device, non_blocking=True)


class Engine(Protocol):
    """One trained network under DeepSpeed, as a method sees it."""

    def __call__(self, *inputs: Tensor | None) -> Tensor:
        """A pass forward, in the precision of the weights."""

    def held(self) -> AbstractContextManager[nn.Module]:
        """The bare network, frozen: what a loss of another network passes through."""

    @property
    def accumulation(self) -> int:
        """Micro-batches to an update."""

    def backward(self, output: Tensor, gradient: Tensor) -> None:
        """Back-propagate one micro-batch from its output's gradient.

        Parameter gradients are summed over the micro-batches of an update and averaged over ranks.
        """

    def step(self) -> None:
        """Update the network, once every micro-batch of this update has gone back."""


@dataclass(frozen=True)
class Update:
    """One update of a network, or of several from the same batch."""

    name: str
    """What is updated, for whoever reads what it costs."""
    times: int
    """How often in an outer step, each on a fresh batch."""
    run: Callable[[Mapping[str, Engine], Batch], Losses]
    """Do it, and return the losses over this rank's samples. It does not wait for the device."""


class Method(ABC):
    """Networks and the order of their updates."""

    networks: dict[str, nn.Module]
    """Trained, one engine each. ``mapper`` is always one: views → volume."""
    fixed: dict[str, nn.Module]
    """Never trained, but drawn or calibrated, so saved with every checkpoint."""

    @property
    @abstractmethod
    def updates(self) -> tuple[Update, ...]:
        """An outer step, in order."""

    @abstractmethod
    def prepare(self, batches: Iterator[Batch]) -> None:
        """Calibrate what must be calibrated on training data, before step 1 of a new run."""

    @property
    def batches_per_step(self) -> int:
        """Global batches that one outer step draws."""
        return sum(update.times for update in self.updates)

    def channels(self, name: str) -> int:
        """Of the volumes (b, channels, z, y, x) that a network other than the mapper takes."""
        return 1

    def step(self, engines: Mapping[str, Engine], batches: Iterator[Batch]) -> dict[str, float]:
        """One outer step. Returns the losses by name, averaged over an update's times and over ranks.

        They are looked at once, at its end: what looks at a number waits for the device.
        """
        names: list[str] = []
        means = []
        for update in self.updates:
            each = [update.run(engines, next(batches)) for _ in range(update.times)]
            names += each[0]
            means.append(torch.stack([torch.stack(list(losses.values())) for losses in each]).mean(0))
        found = (total(torch.cat(means)) / world_size()).tolist()
        return {f"loss/{name}": loss for name, loss in zip(names, found, strict=True)}


class OneNetwork(Method):
    """A mapper alone, by a loss that is a mean over the samples of a batch."""

    def __init__(self, mapper: nn.Module, mapper_updates: int) -> None:
        self.networks = {"mapper": mapper}
        self.fixed = {}
        self._times = mapper_updates

    @property
    def updates(self) -> tuple[Update, ...]:
        return (Update("mapper", self._times, lambda engines, batch: self.update(engines["mapper"], batch)),)

    def prepare(self, batches: Iterator[Batch]) -> None:
        """Nothing has to be calibrated."""

    @abstractmethod
    def learn(self, mapper: Engine, part: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """A pass over a micro-batch: the mapper's output, its loss over these samples, a scalar, and the
        loss's gradient with respect to the output."""

    def update(self, mapper: Engine, batch: Batch) -> Losses:
        """One update; the loss over this rank's samples.

        The engine sums gradients over micro-batches, which are of one size, and averages them over ranks: so
        each micro-batch brings its own mean as a part of this rank's.
        """
        parts = batch.micro(mapper.accumulation)
        losses = []
        for part in parts:
            output, loss, slope = self.learn(mapper, part)
            mapper.backward(output, slope / len(parts))
            losses.append(loss / len(parts))
        mapper.step()
        return {"mapper": torch.stack(losses).sum()}
