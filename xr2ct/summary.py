"""What a configuration will take, counted on fake tensors: nothing is run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode

from xr2ct.config import Experiment
from xr2ct.methods.base import Method
from xr2ct.projection.geometry import Geometry, named_geometry
from xr2ct.registry import component
from xr2ct.training.start import completed

GIB = 2**30
ADAM_BYTES = 8
"""Two moments in fp32 a parameter."""


def summarise(
    experiment: Experiment, geometry: Geometry | None = None, cube_mm: float = 320.0, world_size: int = 1
) -> dict[str, Any]:
    """Parameters, operations forward a sample, and memory a rank of an experiment's networks.

    `geometry` is the X-rays' where no named one is meant. Memory is that of training at `world_size` ranks:
    weights, gradients and Adam's moments by ZeRO stage, and what backward saves for a micro-batch.
    `UserError` for a configuration that cannot be built.
    """
    experiment = completed(experiment)
    geometry = geometry or named_geometry(experiment.data.geometry)
    half = experiment.training.precision in ("bf16", "fp16")
    method = _build(experiment, geometry, cube_mm)
    trained = {
        name: _network(network, _input(name, experiment, geometry), half)
        for name, network in method.networks.items()
    }
    fixed = {
        name: _network(network, _input(name, experiment, geometry), half=False)
        for name, network in method.fixed.items()
    }
    training = experiment.training
    micro_batch = max(1, training.batch // (world_size * training.accumulation))
    state = sum(
        _state_bytes(n["parameters"], half, training.zero_stage, world_size) for n in trained.values()
    )
    saved = micro_batch * max(n["saved_bytes_per_sample"] for n in trained.values())
    return {
        "name": experiment.name,
        "size": experiment.data.size,
        "views": list(experiment.data.views),
        "networks": trained | fixed,
        "ranks": world_size,
        "micro_batch": micro_batch,
        "state_bytes_per_rank": state,
        "activation_bytes_per_rank": saved,
        "gpu_hours": None,
    }


def format_summary(told: Mapping[str, Any]) -> str:
    """The same for a terminal."""
    lines = [f"{told['name']}: {told['size']}³ from {len(told['views'])} views"]
    for name, network in told["networks"].items():
        lines.append(
            f"  {name:<10} {network['parameters'] / 1e6:8.2f} M parameters"
            f"  {network['flops_per_sample'] / 1e12:8.3f} TFLOP forward a sample"
            f"  {network['saved_bytes_per_sample'] / GIB:7.2f} GiB saved for backward"
        )
    state, saved = told["state_bytes_per_rank"], told["activation_bytes_per_rank"]
    lines.append(
        f"  a rank of {told['ranks']}: {state / GIB:.2f} GiB of weights, gradients and Adam, and about "
        f"{saved / GIB:.2f} GiB of activations at a micro-batch of {told['micro_batch']}"
    )
    lines.append("  GPU-hours: not measured")
    return "\n".join(lines)


def _build(experiment: Experiment, geometry: Geometry, cube_mm: float) -> Method:
    values = dict(experiment.method)
    module = component("xr2ct.methods", values.pop("name"))
    method: Method = module.build(module.Config(**values), experiment, geometry, cube_mm)
    return method


def _input(name: str, experiment: Experiment, geometry: Geometry) -> tuple[int, ...]:
    """The mapper takes views; every other network a volume."""
    data = experiment.data
    if name == "mapper":
        return (1, len(data.views), geometry.pixels, geometry.pixels)
    return (1, 1, data.size, data.size, data.size)


def _network(network: nn.Module, shape: tuple[int, ...], half: bool) -> dict[str, int]:
    dtype = torch.bfloat16 if half else torch.float32
    with FakeTensorMode() as fake:
        weights = {name: fake.from_tensor(p.to(dtype)) for name, p in network.named_parameters()}
        buffers = {name: fake.from_tensor(b) for name, b in network.named_buffers()}
        for weight in weights.values():
            weight.requires_grad_()
        x = torch.empty(shape, requires_grad=True)
        with FlopCounterMode(display=False) as counter, _saved_bytes([*weights.values(), x]) as saved:
            functional_call(network, weights | buffers, (x,))
    return {
        "parameters": sum(p.numel() for p in network.parameters()),
        "flops_per_sample": counter.get_total_flops(),
        "saved_bytes_per_sample": saved[0],
    }


@contextmanager
def _saved_bytes(besides: Iterable[Tensor]) -> Iterator[list[int]]:
    """Counts each storage once that autograd keeps for backward, weights and input left out."""
    seen = {tensor.untyped_storage()._cdata for tensor in besides}
    kept = []  # an address means nothing once its storage is gone
    count = [0]

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in seen:
            seen.add(storage._cdata)
            kept.append(storage)
            count[0] += storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield count


def _state_bytes(parameters: int, half: bool, stage: int, ranks: int) -> int:
    """Weights, gradients and Adam of a network; from stage 1, 2 and 3 on Adam, gradients and weights are
    shared out (Rajbhandari et al. 2020). Half precision keeps fp32 weights beside its own."""
    weight = 2 if half else 4
    adam = ADAM_BYTES + (4 if half else 0)
    shares = (adam / ranks if stage >= 1 else adam, 4 / ranks if stage >= 2 else 4)
    return round(parameters * (sum(shares) + (weight / ranks if stage >= 3 else weight)))
