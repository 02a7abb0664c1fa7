"""A method with real DeepSpeed engines and noise to learn from, without a store or a run's folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from xr2ct.config import Experiment
from xr2ct.methods.base import Batch, Method
from xr2ct.projection.geometry import named_geometry
from xr2ct.summary.tracing import Trace
from xr2ct.training.agreement import together
from xr2ct.training.build import build_method
from xr2ct.training.deepspeed_config import deepspeed_config
from xr2ct.training.distributed import Ranks
from xr2ct.training.ema import MovingAverage
from xr2ct.training.engines import DeepSpeedNetwork, Precision, build_engines
from xr2ct.training.memory import PeakMemory
from xr2ct.training.start import completed

SMALL: Mapping[str, Any] = {
    "mapper": {"name": "swin-unetr", "feature_size": 12, "depths": (1, 1, 1, 1)},
    "method": {
        "name": "neural-ot",
        "mapper_updates": 1,
        "potential": {"base_channels": 8, "max_channels": 64},
        "features": {"calibration_batches": 1},
    },
}
"""Sections of the paper's kind of networks, which take steps on a CPU."""


def experiment(sections: Mapping[str, Any], size: int = 64, **training: Any) -> Experiment:
    told = {"warmup_steps": 0, "precision": "fp32", **training}
    return completed(Experiment(name="made", data={"size": size}, training=told, **sections))


@dataclass
class Made:
    """Ready for its first step."""

    experiment: Experiment
    method: Method
    engines: dict[str, DeepSpeedNetwork]
    ranks: Ranks

    @classmethod
    def of(cls, told: Experiment, ranks: Ranks, precision: Precision = "fp32") -> Made:
        """Within `agreement.together`."""
        method = build_method(told, named_geometry("x2ct"), 320.0)
        made = cls(told, method, build_engines(method, told, precision, ranks), ranks)
        for engine in made.engines.values():
            engine.set_lr(1e-6)
        method.prepare(made.batches())
        return made

    def batches(self) -> Iterator[Batch]:
        """Noise, made anew for each update."""
        data, n, device = self.experiment.data, self.experiment.training.batch, self.ranks.device
        pixels = named_geometry("x2ct").pixels
        while True:
            ct = torch.rand(n, 1, *[data.size] * 3, device=device)
            views = torch.rand(n, len(data.views), pixels, pixels, device=device)
            yield Batch(ct, views, tuple(range(n)), ("a",) * n)

    def inner_step(self, batch: Batch) -> None:
        """The first of the method's updates: the mapper's."""
        self.method.updates[0].run(self.engines, batch)

    def step(self, batches: Iterator[Batch]) -> None:
        self.method.step(self.engines, batches)


def peak_of_a_step(told: Experiment) -> dict[str, int]:
    """Bytes that live at the peak of the second of two steps on a CPU, weights and moments too; and by how
    much this process grew from when its libraries were loaded."""
    with together("cpu") as ranks:
        # DeepSpeed and oneDNN load most of themselves, some 100 MB, at their first use.
        DeepSpeedNetwork("first", nn.Linear(1, 1), told, deepspeed_config(told, "fp32", 1))
        nn.Conv3d(1, 1, 3)(torch.zeros(1, 1, 8, 8, 8)).sum().backward()
        memory = PeakMemory(ranks.device)
        made = Made.of(told, ranks)
        average = MovingAverage(made.engines["mapper"].consolidated_weights(), 0.9)
        made.step(made.batches())
        networks = [*made.method.networks.values(), *made.method.fixed.values()]
        held = sum(t.nbytes for network in networks for t in network.state_dict().values())
        held += sum(t.nbytes for t in average.weights.values())
        for engine in made.engines.values():
            moments = engine._engine.optimizer.state.values()
            held += sum(t.nbytes for state in moments for t in state.values() if torch.is_tensor(t))
        with Trace() as trace:
            made.step(made.batches())
        return {"live_bytes": held + trace.peak_bytes, "resident_bytes": memory.peak_bytes()}
