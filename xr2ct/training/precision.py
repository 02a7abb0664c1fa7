"""`training.precision: auto`: the faster of fp32 and bf16 on a GPU, measured once, and fp32 on a CPU.

On a CPU bf16 may be the faster one too, but torch 2.13's weight gradient of a 3D convolution over 2³ voxels
is wrong there (off by its own norm), which the deepest level of a Swin UNETR at 64³ has.
"""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from xr2ct.training.engines import Precision

log = logging.getLogger(__name__)

DTYPES: dict[Precision, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16}


def candidates(device: torch.device) -> tuple[Precision, ...]:
    """What `auto` chooses from on a device."""
    return ("fp32", "bf16") if device.type == "cuda" else ("fp32",)


def faster_precision(
    mapper: nn.Module, views: Tensor, *further: Tensor | None, among: Sequence[Precision]
) -> Precision:
    """The one of `among` in which one forward and backward pass of the mapper takes less time.

    views: (b, view, row, col) on the device to train on; further: what else the mapper takes, in its order.
    One that does not fit into memory counts as slower. The mapper is left as it is.
    """
    if len(among) == 1:
        return among[0]
    seconds = {name: _time_pass(mapper, views, further, DTYPES[name]) for name in among}
    chosen = min(seconds, key=seconds.__getitem__)
    told = ", ".join(f"{name} {taken:.2f} s" for name, taken in seconds.items())
    log.info("precision: %s (one pass of the mapper over %d samples: %s)", chosen, len(views), told)
    return chosen


def _time_pass(
    mapper: nn.Module, views: Tensor, further: Sequence[Tensor | None], dtype: torch.dtype
) -> float:
    network = copy.deepcopy(mapper).to(views.device, dtype).train()
    try:
        _run_pass(network, views.to(dtype), *further)  # the first pass chooses kernels and fills caches
        # On a CPU the time that this process was given: other programs share its cores, and take turns.
        clock = time.perf_counter if views.is_cuda else time.process_time
        start = clock()
        _run_pass(network, views.to(dtype), *further)
        return clock() - start
    except torch.OutOfMemoryError:
        return float("inf")


def _run_pass(network: nn.Module, views: Tensor, *further: Tensor | None) -> None:
    network(views, *further).float().square().mean().backward()
    network.zero_grad(set_to_none=True)
    if views.is_cuda:
        torch.cuda.synchronize(views.device)
