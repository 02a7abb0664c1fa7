"""What a configuration takes on a device: its updates run on tensors without data, and are counted."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from xr2ct.config import Experiment
from xr2ct.methods.base import Method
from xr2ct.projection.geometry import Geometry, named_geometry
from xr2ct.summary.devices import HERE, Device, device_named
from xr2ct.summary.fake import FakeEngine, batch_without_data, without_data
from xr2ct.summary.tracing import Trace, kept_for_backward
from xr2ct.training.build import build_method
from xr2ct.training.deepspeed_config import Precision
from xr2ct.training.start import completed
from xr2ct.transport.global_batch import supposing

DEFAULT_DEVICE = "h100-80gb"
_ADAM_BYTES = {torch.float32: 28, torch.bfloat16: 34}
"""That an update reads and writes a parameter: weight, gradient, two moments, and half-precision copies."""


def summarise(experiment: Experiment, device: str | None = None, ranks: int | None = None) -> dict[str, Any]:
    """Networks, memory a rank and seconds a step of an experiment; `UserError` where it cannot be built.

    device: of `devices.DEVICES`, or `here`; where unset, this machine's GPU, or `DEFAULT_DEVICE`. ranks: the
    one number to tell of; where unset, all that the batch allows. `training.precision: auto` is what it will
    be on the device. Of a network are told, for a pass of one sample, its operations and what autograd keeps.

    Each of the method's updates runs on tensors without data for the smallest and the largest micro-batch
    that is told of. Memory is the peak of what lives then and what a rank holds all the time, by ZeRO stage
    (Rajbhandari et al. 2020): exact for these micro-batches but for what kernels use within themselves, and
    interpolated between. Seconds are the device's for the operations that went by, for the optimizers and for
    the way of gradients and of optimal transport's features between ranks.
    """
    known = experiment.resolved.precision if experiment.resolved else None
    experiment = completed(experiment)
    training = experiment.training
    on = device_named(device or (HERE if torch.cuda.is_available() else DEFAULT_DEVICE))
    precision = known or _precision(experiment, on)
    counted = _Counted.of(experiment, on, precision)
    networks = counted.networks()
    parts = training.batch // training.accumulation
    told = [ranks] if ranks else [n for n in range(1, parts + 1) if parts % n == 0]
    rows = list(_rows(counted, told, parts))
    weights = 4 * sum(n["parameters"] for name, n in networks.items() if name == "mapper" or not n["trained"])
    fitting = [row for row in rows if row["bytes_by_zero_stage"][training.zero_stage] <= on.memory_bytes]
    return {
        "name": experiment.name,
        "size": experiment.data.size,
        "window": experiment.data.window,
        "views": list(experiment.data.views),
        "precision": precision,
        "device": {
            "name": on.name,
            "memory_bytes": on.memory_bytes,
            "measured": on.measured,
            "compute_efficiency": on.compute_efficiency,
            "memory_efficiency": on.memory_efficiency,
        },
        "networks": networks,
        "memory": [{key: value for key, value in row.items() if key != "flops"} for row in rows],
        "zero_stage": training.zero_stage,
        "steps": training.steps,
        "step_flops": rows[0]["flops"],
        "checkpoint_bytes": {
            "weights": weights + 4 * networks["mapper"]["parameters"],  # the average of the mapper's too
            # No gradients.
            "engines": _state_bytes(counted.parameters, counted.dtype, 0, 1)
            - counted.parameters * counted.dtype.itemsize,
        },
        "gpu_hours": fitting[0]["gpu_hours"] if fitting else None,
    }


def _precision(experiment: Experiment, device: Device) -> Precision:
    if experiment.training.precision != "auto":
        return experiment.training.precision
    return "bf16" if device.halves and not device.on_cpu else "fp32"


@dataclass(frozen=True)
class _Counted:
    """A method without data, on its device."""

    experiment: Experiment
    geometry: Geometry
    method: Method
    device: Device
    dtype: torch.dtype

    @classmethod
    def of(cls, experiment: Experiment, device: Device, precision: Precision) -> _Counted:
        geometry, cube_mm = _geometry(experiment)
        method = build_method(experiment, geometry, cube_mm)
        # Half precisions are alike but for their rates, and fp16 looks at numbers for its scale.
        dtype = torch.float32 if precision == "fp32" else torch.bfloat16
        if precision == "fp16":
            flops = {**device.flops, "bf16": device.flops.get("fp16", device.flops["fp32"])}
            device = dataclasses.replace(device, flops=flops)
        without_data(method, dtype)
        return cls(experiment, geometry, method, device, dtype)

    @property
    def parameters(self) -> int:
        """Trained ones."""
        return sum(p.numel() for network in self.method.networks.values() for p in network.parameters())

    def networks(self) -> dict[str, dict[str, Any]]:
        """Parameters, operations and saved bytes of each that has weights."""
        data, found = self.experiment.data, {}
        for name, network in [*self.method.networks.items(), *self.method.fixed.items()]:
            if not any(True for _ in network.parameters()):
                continue
            views = (1, len(data.views), self.geometry.pixels, self.geometry.pixels)
            volumes = (1, self.method.channels(name), *[data.side] * 3)
            if name == "mapper":
                inputs = batch_without_data(self.experiment, self.geometry, 1).inputs
                counted = _count(
                    network, (torch.empty(views, device="meta", requires_grad=True), *inputs[1:])
                )
            else:
                counted = _count(network, (torch.empty(volumes, device="meta", requires_grad=True),))
            found[name] = {"trained": name in self.method.networks, **counted}
        return found

    def updates(self, micro_batch: int, ranks: int) -> tuple[int, float, int]:
        """Peak bytes of an outer step's updates, its seconds, and the flops of all ranks."""
        accumulation = self.experiment.training.accumulation
        peak, seconds, flops = 0, 0.0, 0
        for update in self.method.updates:
            engines = {name: FakeEngine(net, accumulation) for name, net in self.method.networks.items()}
            with supposing(ranks) as supposed, Trace() as trace:
                batch = batch_without_data(self.experiment, self.geometry, micro_batch * accumulation)
                update.run(engines, batch)
            peak = max(peak, trace.peak_bytes)
            sending = self.device.sending_seconds(supposed.sent_bytes, ranks)
            seconds += update.times * (self.device.seconds(trace) + self._updating(engines, ranks) + sending)
            flops += update.times * trace.flops * ranks
        return peak, seconds, flops

    def _updating(self, engines: Mapping[str, FakeEngine], ranks: int) -> float:
        """Seconds of the optimizers, and of bringing their gradients together."""
        device, stage = self.device, self.experiment.training.zero_stage
        parameters = sum(e.updates * sum(p.numel() for p in e.module.parameters()) for e in engines.values())
        own = parameters / (ranks if stage else 1)
        seconds = own * _ADAM_BYTES[self.dtype] / (device.bytes_per_s * device.memory_efficiency)
        sent = 2 * (ranks - 1) / ranks * parameters * self.dtype.itemsize
        return seconds + device.sending_seconds(sent, ranks)

    def held_bytes(self, stage: int, ranks: int) -> int:
        """What a rank holds all the time."""
        held = _state_bytes(self.parameters, self.dtype, stage, ranks)
        held += sum(t.nbytes for net in self.method.fixed.values() for t in net.state_dict().values())
        if stage in (1, 2) and not self.device.on_cpu:  # where nobody touches it, it takes no memory
            zero = self.experiment.deepspeed.get("zero_optimization", {})
            bucket = int(zero.get("reduce_bucket_size", _REDUCE_BUCKET))
            held += len(self.method.networks) * bucket * self.dtype.itemsize
        if self.device.on_cpu:  # where rank 0's average of the mapper's weights lies too
            held += 4 * sum(p.numel() for p in self.method.networks["mapper"].parameters())
        return held


_REDUCE_BUCKET = 500_000_000
"""Gradients that each engine of ZeRO 1 and 2 sets a buffer aside for, however few it has (DeepSpeed)."""


def _rows(counted: _Counted, told: list[int], parts: int) -> Iterator[dict[str, Any]]:
    """A row for each number of ranks."""
    steps = counted.experiment.training.steps
    ends = {ranks: counted.updates(parts // ranks, ranks) for ranks in {told[0], told[-1]}}
    for ranks in told:
        peak, seconds, flops = _between(ends, told[0], told[-1], ranks)
        yield {
            "ranks": ranks,
            "micro_batch": parts // ranks,
            "bytes_by_zero_stage": [round(counted.held_bytes(stage, ranks) + peak) for stage in range(4)],
            "step_seconds": seconds,
            "gpu_hours": None if counted.device.on_cpu else seconds * steps * ranks / 3600,
            "flops": round(flops),
        }


def _between(
    ends: Mapping[int, tuple[int, float, int]], first: int, last: int, ranks: int
) -> tuple[float, ...]:
    """Linear in the micro-batch, which is as 1/ranks."""
    if ranks in ends:
        return ends[ranks]
    part = (1 / ranks - 1 / last) / (1 / first - 1 / last)
    return tuple(part * a + (1 - part) * b for a, b in zip(ends[first], ends[last], strict=True))


def _geometry(experiment: Experiment) -> tuple[Geometry, float]:
    """Of the store where there is one, since it may have geometries of its own."""
    path = experiment.data.store(experiment.data.cohort)
    if path.is_dir():
        from xr2ct.store import Store

        store = Store.open(path)
        if experiment.data.geometry in store.geometries:
            return store.geometries[experiment.data.geometry], store.cube_mm
    return named_geometry(experiment.data.geometry), 320.0


def _count(network: nn.Module, inputs: tuple[Tensor | None, ...]) -> dict[str, int]:
    """Of a pass forward."""
    besides = [t for t in (*inputs, *network.parameters(), *network.buffers()) if t is not None]
    with Trace() as trace, kept_for_backward(besides) as storages:
        network(*inputs)
    return {
        "parameters": sum(p.numel() for p in network.parameters()),
        "flops": trace.flops,
        "saved_bytes": sum(storage.nbytes() for storage in storages.values()),
    }


def _state_bytes(parameters: int, dtype: torch.dtype, stage: int, ranks: int) -> int:
    """Stage 1 shares Adam's moments and fp32 masters between ranks, 2 gradients too, 3 weights too."""
    half = dtype != torch.float32
    shares = (12 if half else 8, dtype.itemsize, dtype.itemsize)  # optimizer, gradients, weights
    return round(sum(parameters * n / (ranks if stage > i else 1) for i, n in enumerate(shares)))
