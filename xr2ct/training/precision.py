"""`training.precision: auto`: the faster of fp32 and bf16 on this device, measured once."""

from __future__ import annotations

import copy
import logging
import time

import torch
from torch import Tensor, nn

from xr2ct.training.engines import Precision

log = logging.getLogger(__name__)

CANDIDATES: dict[Precision, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16}


def faster_precision(mapper: nn.Module, views: Tensor) -> Precision:
    """The candidate in which one forward and backward pass of the mapper takes less time.

    views: (b, view, row, col) on the device to train on. One that does not fit into memory counts as slower.
    The mapper is left as it is.
    """
    seconds = {name: _time_pass(mapper, views, dtype) for name, dtype in CANDIDATES.items()}
    chosen = min(seconds, key=seconds.__getitem__)
    told = ", ".join(f"{name} {taken:.2f} s" for name, taken in seconds.items())
    log.info("precision: %s (one pass of the mapper over %d samples: %s)", chosen, len(views), told)
    return chosen


def _time_pass(mapper: nn.Module, views: Tensor, dtype: torch.dtype) -> float:
    network = copy.deepcopy(mapper).to(views.device, dtype).train()
    try:
        _run_pass(network, views.to(dtype))  # the first pass chooses kernels and fills caches
        # On a CPU the time that this process was given: other programs share its cores, and take turns.
        clock = time.perf_counter if views.is_cuda else time.process_time
        start = clock()
        _run_pass(network, views.to(dtype))
        return clock() - start
    except torch.OutOfMemoryError:
        return float("inf")


def _run_pass(network: nn.Module, views: Tensor) -> None:
    network(views).float().square().mean().backward()
    network.zero_grad(set_to_none=True)
    if views.is_cuda:
        torch.cuda.synchronize(views.device)
