"""Our Swin UNETR against MONAI's, with the same weights, on repeated views: seconds, and bytes kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from tests.benchmarks.harness import Measured, NotMeasured, Row, interleaved, seconds_of

GIB = 2**30


def networks(size: int, feature_size: int, **monai: Any) -> tuple[nn.Module, nn.Module]:
    """Ours as the mapper builds it, and MONAI's as it comes or with `monai` keys; the same weights."""
    try:
        from monai.networks.nets import SwinUNETR
    except ImportError as why:
        raise NotMeasured("MONAI is not installed: pip install monai") from why
    from xr2ct.models.swin_unetr import Config, build

    config = Config(feature_size=feature_size)
    torch.manual_seed(0)
    ours = build(config, in_channels=2, size=size)
    ours.repeated = (-2, -1)
    theirs = SwinUNETR(2, 1, feature_size=feature_size, **monai)
    theirs.load_state_dict(ours.state_dict())
    return ours.train(), theirs.train()


def views(batch: int, size: int, device: str, dtype: torch.dtype) -> Tensor:
    """A frontal and a lateral view, repeated; (batch, 2, size, size, size)."""
    pictures = torch.rand(2, batch, size, size, generator=torch.Generator().manual_seed(1))
    whole = (batch, size, size, size)
    frontal, lateral = pictures[0].unsqueeze(2).expand(whole), pictures[1].unsqueeze(3).expand(whole)
    return torch.stack([frontal, lateral], 1).to(device, dtype)


def _passes(
    size: int, feature_size: int, batch: int, device: str, dtype: torch.dtype, **monai: Any
) -> tuple[Callable[[], None], Callable[[], None], dict[str, Any]]:
    """A forward and backward pass of each, and how far apart their results are."""
    x = views(batch, size, device, dtype)
    ours, theirs = (n.to(device, dtype) for n in networks(size, feature_size, **monai))

    def run(network: nn.Module) -> Callable[[], None]:
        def once() -> None:
            for parameter in network.parameters():
                parameter.grad = None
            network(x).float().square().mean().backward()

        return once

    with torch.no_grad():
        made, expected = (n(x).float() for n in (ours, theirs))
    detail = {
        "size": size,
        "feature_size": feature_size,
        "batch": batch,
        "dtype": str(dtype).removeprefix("torch."),
        "difference": float((made - expected).norm() / expected.norm()),
    }
    if monai.get("use_flash_attention"):
        theirs = torch.compile(theirs, dynamic=False)
    return run(ours), run(theirs), detail


def seconds(
    size: int, feature_size: int, batch: int, device: str, dtype: torch.dtype, rounds: int = 5, **monai: Any
) -> Measured:
    """Forward and backward, in turn."""
    ours, theirs, detail = _passes(size, feature_size, batch, device, dtype, **monai)
    return interleaved(ours, theirs, rounds=rounds, warmup=1 if device == "cpu" else 3, **detail)


def peak_memory(size: int, feature_size: int, batch: int, dtype: torch.dtype) -> Measured:
    """Of a forward and backward pass, above what lies there before it; once each, since it does not vary."""
    ours, theirs, detail = _passes(size, feature_size, batch, "cuda", dtype)
    peaks = []
    for once in (ours, theirs):
        once()  # what is compiled or chosen the first time is not part of it
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        seconds_of(once)
        peaks.append((torch.cuda.max_memory_allocated() - before) / GIB)
    return Measured(peaks[:1], peaks[1:], "GiB", detail)


def saved(size: int, feature_size: int) -> Measured:
    """What autograd keeps for the way back, counted without data."""
    ours, theirs = networks(size, feature_size)
    detail = {
        "size": size,
        "feature_size": feature_size,
        "batch": 1,
        "dtype": "bfloat16",
        "counted": "storages that autograd keeps from a forward pass, each once; weights, buffers and the "
        "input left out; fake tensors on a CPU, no operation compiled, no activation checkpointing",
    }
    return Measured([_kept(ours, size) / GIB], [_kept(theirs, size) / GIB], "GiB", detail)


def _kept(network: nn.Module, size: int) -> int:
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.func import functional_call

    from xr2ct.summary.tracing import kept_for_backward

    mode = FakeTensorMode()
    weights = {n: mode.from_tensor(p.detach().bfloat16()) for n, p in network.named_parameters()}
    buffers = {n: mode.from_tensor(b) for n, b in network.named_buffers()}
    with mode:
        x = torch.empty(1, 2, size, size, size, dtype=torch.bfloat16)
        for weight in weights.values():
            weight.requires_grad_()
        with kept_for_backward([x, *weights.values(), *buffers.values()]) as storages:
            functional_call(network, {**weights, **buffers}, (x,))
    return sum(storage.nbytes() for storage in storages.values())


_WHAT = "mapper forward + backward, same weights, same result"

ROWS: tuple[Row, ...] = (
    Row(
        name="mapper",
        what=f"{_WHAT}: 64³, feature size 24, fp32",
        peer="MONAI SwinUNETR as it comes",
        ratio="ours/peer",
        goal=1.0,
        measure=lambda: seconds(64, 24, 1, "cpu", torch.float32, rounds=3),
    ),
    Row(
        name="mapper-saved",
        what="bytes saved for backward at 128³, feature size 48, bf16",
        peer="MONAI SwinUNETR as it comes",
        ratio="ours/peer",
        goal=0.5,
        measure=lambda: saved(128, 48),
    ),
    Row(
        name="mapper-eager-cuda",
        what=f"{_WHAT}: 128³, feature size 48, batch 8, bf16",
        peer="MONAI SwinUNETR as it comes",
        ratio="peer/ours",
        goal=2.0,
        measure=lambda: seconds(128, 48, 8, "cuda", torch.bfloat16),
        device="cuda",
    ),
    Row(
        name="mapper-compiled-cuda",
        what=f"{_WHAT}: 128³, feature size 48, batch 8, bf16",
        peer="MONAI SwinUNETR, its flash attention, torch.compile",
        ratio="peer/ours",
        goal=1.3,
        measure=lambda: seconds(128, 48, 8, "cuda", torch.bfloat16, use_flash_attention=True),
        device="cuda",
    ),
    Row(
        name="mapper-memory-cuda",
        what="peak memory of forward + backward at 128³, feature size 48, batch 8, bf16",
        peer="MONAI SwinUNETR as it comes",
        ratio="ours/peer",
        goal=0.5,
        measure=lambda: peak_memory(128, 48, 8, torch.bfloat16),
        device="cuda",
    ),
)
