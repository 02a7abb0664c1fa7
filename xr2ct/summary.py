"""What a configuration takes, counted on tensors without data: nothing is run and no store is needed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode

from xr2ct.config import Experiment
from xr2ct.projection.geometry import Geometry, named_geometry
from xr2ct.training.build import build_method
from xr2ct.training.start import completed

GIB = 2**30


def summarise(experiment: Experiment) -> dict[str, Any]:
    """Parameters, operations and memory of an experiment's networks; `UserError` where one cannot be built.

    Operations are those of a forward pass of one sample, saved bytes what autograd keeps of it. Memory is by
    number of ranks that the batch allows and by ZeRO stage: weights, gradients, Adam's moments and fp32
    masters (Rajbhandari et al. 2020), and the saved bytes of all networks at once. An outer step's
    operations are those of the passes that its method makes (`Method.passes`); losses are not counted.
    """
    experiment = completed(experiment)
    training = experiment.training
    dtype = torch.bfloat16 if training.precision in ("bf16", "fp16") else torch.float32
    geometry, cube_mm = _geometry(experiment)
    method = build_method(experiment, geometry, cube_mm)
    size = experiment.data.size
    networks = {}
    for name, network in [*method.networks.items(), *method.fixed.items()]:
        trained = name in method.networks
        if not any(True for _ in network.parameters()):  # a figure measured once, and saved like a network
            continue
        views = (1, len(experiment.data.views), geometry.pixels, geometry.pixels)
        shape = views if name == "mapper" else (1, method.channels(name), size, size, size)
        counted = _count(network, shape, dtype if trained else torch.float32)
        networks[name] = {"trained": trained, **counted}
    parameters = sum(n["parameters"] for n in networks.values() if n["trained"])
    saved = sum(n["saved_bytes"] for n in networks.values())
    parts = training.batch // training.accumulation
    passes = method.passes(training.accumulation)
    of_a_sample = sum(passes[name] * n["flops"] for name, n in networks.items())
    kept = sum(4 * n["parameters"] for name, n in networks.items() if name == "mapper" or not n["trained"])
    memory = [
        {
            "ranks": ranks,
            "micro_batch": parts // ranks,
            "bytes_by_zero_stage": [
                _state_bytes(parameters, dtype, stage, ranks) + saved * (parts // ranks) for stage in range(4)
            ],
        }
        for ranks in range(1, parts + 1)
        if parts % ranks == 0
    ]
    return {
        "name": experiment.name,
        "size": size,
        "views": list(experiment.data.views),
        "precision": training.precision,
        "networks": networks,
        "memory": memory,
        "zero_stage": training.zero_stage,
        "step_flops": of_a_sample * training.batch,
        "checkpoint_bytes": {
            "weights": kept + 4 * networks["mapper"]["parameters"],  # the average of the mapper's too
            "engines": _state_bytes(parameters, dtype, 0, 1) - parameters * dtype.itemsize,  # no gradients
        },
        "gpu_hours": None,
    }


def format_summary(told: Mapping[str, Any]) -> str:
    """The same as text."""
    views = ", ".join(f"{angle:g}°" for angle in told["views"])
    lines = [
        f"{told['name']}: {told['size']}³ from views at {views}",
        "",
        f"{'network':<14}{'parameters':>12}{'forward a sample':>20}{'saved for backward':>22}",
    ]
    for name, n in told["networks"].items():
        lines.append(
            f"{name:<14}{n['parameters'] / 1e6:>10.2f} M{n['flops'] / 1e12:>14.3f} TFLOP"
            f"{n['saved_bytes'] / GIB:>18.2f} GiB" + ("" if n["trained"] else "  never trained")
        )
    precision = "fp32, the larger" if told["precision"] == "auto" else told["precision"]
    lines += [
        "",
        f"memory a rank, about, GiB ({precision}; * is configured)",
        f"{'ranks':>5}{'micro-batch':>13}" + "".join(f"{f'ZeRO {stage}':>10}" for stage in range(4)),
    ]
    for row in told["memory"]:
        cells = (
            f"{size / GIB:.2f}{'*' if stage == told['zero_stage'] else ' '}"
            for stage, size in enumerate(row["bytes_by_zero_stage"])
        )
        lines.append(f"{row['ranks']:>5}{row['micro_batch']:>13}" + "".join(f"{cell:>10}" for cell in cells))
    weights, engines = (told["checkpoint_bytes"][part] / 1e9 for part in ("weights", "engines"))
    lines += [
        "",
        f"an outer step, about: {told['step_flops'] / 1e12:.3g} TFLOP",
        f"a checkpoint: {weights:.2f} GB, {engines:.2f} GB more while training can resume from it",
        "GPU-hours: not measured",
    ]
    return "\n".join(lines)


def _geometry(experiment: Experiment) -> tuple[Geometry, float]:
    """Of the store where there is one, since it may have geometries of its own."""
    path = experiment.data.store(experiment.data.cohort)
    if path.is_dir():
        from xr2ct.store import Store

        store = Store.open(path)
        if experiment.data.geometry in store.geometries:
            return store.geometries[experiment.data.geometry], store.cube_mm
    return named_geometry(experiment.data.geometry), 320.0


def _count(network: nn.Module, shape: tuple[int, ...], dtype: torch.dtype) -> dict[str, int]:
    """Of a network with weights of that type, for one sample of that shape."""
    fake = FakeTensorMode()
    weights = {n: fake.from_tensor(p.detach().to(dtype)) for n, p in network.named_parameters()}
    buffers = {n: fake.from_tensor(b) for n, b in network.named_buffers()}
    with fake:
        for weight in weights.values():
            weight.requires_grad_()
        x = torch.empty(shape, requires_grad=True)
        besides = [x, *weights.values(), *buffers.values()]
        with FlopCounterMode(display=False) as counter, _saved(besides) as storages:
            functional_call(network, {**weights, **buffers}, (x,))
    return {
        "parameters": sum(p.numel() for p in network.parameters()),
        "flops": counter.get_total_flops(),
        "saved_bytes": sum(storage.nbytes() for storage in storages.values()),
    }


@contextmanager
def _saved(besides: list[Tensor]) -> Iterator[dict[int, torch.UntypedStorage]]:
    """The storages that autograd keeps for backward, each once, those of `besides` left out."""
    without = {tensor.untyped_storage()._cdata for tensor in besides}
    # By address, and held: once freed, an address would come again.
    storages: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in without:
            storages[storage._cdata] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield storages


def _state_bytes(parameters: int, dtype: torch.dtype, stage: int, ranks: int) -> int:
    """Stage 1 shares Adam's moments and fp32 masters between ranks, 2 gradients too, 3 weights too."""
    half = dtype != torch.float32
    shares = (12 if half else 8, dtype.itemsize, dtype.itemsize)  # optimizer, gradients, weights
    return round(sum(parameters * n / (ranks if stage > i else 1) for i, n in enumerate(shares)))
