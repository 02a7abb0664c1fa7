"""What a device can do, from its maker's data sheet, or measured where it is this one."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Literal

import torch
import torch.nn.functional as F

from xr2ct.errors import UserError, nearest
from xr2ct.summary.tracing import Operation, Trace

Kind = Literal["fp64", "fp32", "tf32", "bf16", "fp16"]

_NAMES: dict[torch.dtype, Kind] = {
    torch.float64: "fp64", torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16",
}  # fmt: skip


A_NODE = 8
"""Ranks beyond which some are on another node."""


@dataclass(frozen=True)
class Device:
    """Rates of matrix units without sparsity, and what of them training is taken to reach."""

    name: str
    memory_bytes: int
    flops: dict[Kind, float]
    """A second, by precision; a precision that it lacks runs as fp32."""
    bytes_per_s: float
    """Of memory."""
    link_bytes_per_s: float = 0.0
    """Between two in a node, one way; 0 where nothing is known, and no time is counted."""
    fabric_bytes_per_s: float = 50e9
    """Between nodes, a rank's own share of it, one way: assumed, 400 Gb/s a GPU."""
    measured: bool = False
    """Whether these are measured here, so that nothing is lost against them."""
    on_cpu: bool = False
    compute_efficiency: float = 0.5
    """Of matrix rates, in convolutions and products of these networks: assumed."""
    memory_efficiency: float = 0.75
    """Of the memory's rate, in everything else: assumed."""
    launch_s: float = 4e-6
    """To start an operation, and what the interpreter takes for it: assumed."""

    def rate(self, operation: Operation) -> float:
        """Flops a second of such an operation. cuDNN convolves fp32 in TF32 where there is a unit for it."""
        kind = _NAMES.get(operation.dtype, "fp32")
        if kind == "fp32" and operation.convolution and "tf32" in self.flops:
            kind = "tf32"
        return self.flops.get(kind, self.flops["fp32"])

    def seconds(self, trace: Trace) -> float:
        """That the operations take one after the other, each bound by its products or by memory."""
        total = 0.0
        for operation, times in trace.operations.items():
            computing = operation.flops / (self.rate(operation) * self.compute_efficiency)
            moving = operation.bytes_moved / (self.bytes_per_s * self.memory_efficiency)
            total += times * (max(computing, moving) + self.launch_s)
        return total

    def sending_seconds(self, sent_bytes: float, ranks: int) -> float:
        """Of what a rank sends while nothing else is done; 0 where no link is known."""
        if ranks == 1 or not self.link_bytes_per_s:
            return 0.0
        within = ranks <= A_NODE
        return sent_bytes / (
            self.link_bytes_per_s if within else min(self.link_bytes_per_s, self.fabric_bytes_per_s)
        )

    @property
    def halves(self) -> bool:
        """Whether bf16 is faster than fp32: what `training.precision: auto` will find."""
        return self.flops.get("bf16", 0) > self.flops["fp32"]


def _gpu(name: str, gb: float, tb_per_s: float, link_gb_per_s: float, **teraflops: float) -> Device:
    flops: dict[Kind, float] = {kind: teraflops[kind] * 1e12 for kind in _NAMES.values() if kind in teraflops}
    if "tf32" in teraflops:
        flops["tf32"] = teraflops["tf32"] * 1e12
    return Device(name, int(gb * 1e9), flops, tb_per_s * 1e12, link_gb_per_s * 1e9)


# NVIDIA's data sheets, SXM modules where there are such: dense rates, memory, NVLink one way (L40S: PCIe 4).
DEVICES = {
    device.name: device
    for device in (
        _gpu("h100-80gb", 80, 3.35, 450, fp64=67, fp32=67, tf32=494.7, bf16=989.4, fp16=989.4),
        _gpu("h200-141gb", 141, 4.8, 450, fp64=67, fp32=67, tf32=494.7, bf16=989.4, fp16=989.4),
        _gpu("a100-40gb", 40, 1.555, 300, fp64=19.5, fp32=19.5, tf32=156, bf16=312, fp16=312),
        _gpu("a100-80gb", 80, 2.039, 300, fp64=19.5, fp32=19.5, tf32=156, bf16=312, fp16=312),
        _gpu("v100-32gb", 32, 0.9, 150, fp64=7.8, fp32=15.7, fp16=125),
        _gpu("l40s", 48, 0.864, 32, fp64=1.43, fp32=91.6, tf32=183, bf16=362, fp16=362),
    )
}
HERE = "here"


def device_named(name: str) -> Device:
    """A device of the table, or `here`: this machine, measured; `UserError` naming the nearest."""
    if name == HERE:
        return _here()
    if name not in DEVICES:
        raise UserError(f"device {name}: {nearest(name, [*DEVICES, HERE])}")
    return DEVICES[name]


@cache
def _here() -> Device:
    """A convolution in each precision and a copy, for about a second in all."""
    on_cpu = not torch.cuda.is_available()
    device = "cpu" if on_cpu else "cuda"
    side, channels = (48, 24) if on_cpu else (64, 64)
    kinds: tuple[torch.dtype, ...] = (torch.float32, torch.bfloat16)
    flops: dict[Kind, float] = {}
    for dtype in kinds:
        x = torch.zeros(1, channels, side, side, side, device=device, dtype=dtype)
        w = torch.zeros(channels, channels, 3, 3, 3, device=device, dtype=dtype)
        per_call = 2 * x.numel() * channels * 27
        flops[_NAMES[dtype]] = per_call / _seconds(lambda x=x, w=w: F.conv3d(x, w, padding=1))  # type: ignore[misc]
    numbers = torch.zeros(2**23 if on_cpu else 2**28, device=device)
    target = torch.empty_like(numbers)
    bytes_per_s = 2 * 4 * numbers.numel() / _seconds(lambda: target.copy_(numbers))
    if on_cpu:
        import psutil

        name, memory = "this CPU", psutil.virtual_memory().total
    else:
        card = torch.cuda.get_device_properties(0)
        name, memory = card.name, card.total_memory
    return Device(
        name, memory, flops, bytes_per_s, measured=True, on_cpu=on_cpu, compute_efficiency=1.0,
        memory_efficiency=1.0, launch_s=1e-5,
    )  # fmt: skip


def _seconds(call: Callable[[], object]) -> float:
    """The shortest of some calls."""
    found: list[float] = []
    began = time.perf_counter()
    while len(found) < 3 or time.perf_counter() - began < 0.4:
        start = time.perf_counter()
        call()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        found.append(time.perf_counter() - start)
    return min(found)
