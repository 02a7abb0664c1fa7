"""A reconstruction within a limit on memory: whole where that fits, else by the largest windows that do."""

from __future__ import annotations

import copy
import logging
import os
from dataclasses import dataclass
from pathlib import Path

import torch

from xr2ct.errors import UserError
from xr2ct.stages import Stages
from xr2ct.summary.tracing import Trace
from xr2ct.windows import Tiling

log = logging.getLogger(__name__)

GB = 1e9
_STEP = 32
"""Sides of windows are multiples of it, as Swin UNETR needs them, and at least twice it."""
_AT_ONCE = (8, 4, 2, 1)
_KERNELS = 1.75
"""What kernels and an allocator take besides what operations make and hold: together 0.8 to 1.55 times that,
on a CPU at 96³ to 160³, by the process's own peak."""


def fit(stages: Stages, limit_bytes: float) -> None:
    """Set how `stages` and those before it cut their volumes, so that a sample takes at most that much.

    On a CPU the limit is for the whole process, on a GPU for what is allocated there. A mapper of whole
    volumes is cut only where the whole does not fit, with a warning, for it has learnt from wholes; one of
    sub-volumes makes as many at a time as fit. Raises `UserError` with what would do where nothing fits.
    """
    if stages.before is not None:
        fit(stages.before.stages, limit_bytes)
    data, held = stages.experiment.data, _held(stages)
    choices = _choices(stages)
    least = choices[-1]
    per_voxel = pass_bytes(stages, least) / least.voxels(data.size)

    def needed(choice: _Choice) -> float:
        return held + per_voxel * choice.voxels(data.size)

    chosen = next((choice for choice in choices if needed(choice) <= limit_bytes), None)
    if chosen is None:
        what = f"{data.size}³" if least.tiling is None else f"windows of {least.tiling.side}³"
        raise UserError(
            f"--memory-gb {limit_bytes / GB:g}: {what} take about {needed(least) / GB:.2f} GB; "
            f"expected at least {needed(least) / GB + 0.1:.1f}"
        )
    if chosen.tiling is not None and data.window is None:
        log.warning(
            "%d³ whole would take about %.1f GB: made by windows of %d³, though the mapper has learnt from "
            "whole volumes", data.size, needed(choices[0]) / GB, chosen.tiling.side,
        )  # fmt: skip
    stages.tiling, stages.at_once = chosen.tiling, chosen.at_once


@dataclass(frozen=True)
class _Choice:
    """One way to make a volume."""

    tiling: Tiling | None
    """None makes it whole."""
    at_once: int = 1

    def voxels(self, size: int) -> int:
        """That a pass makes."""
        return self.at_once * (size if self.tiling is None else self.tiling.side) ** 3


def _choices(stages: Stages) -> list[_Choice]:
    """Ways to make a volume, the one that takes most memory first."""
    data, lift = stages.experiment.data, stages.mapper.lift
    if data.window is not None:
        return [_Choice(Tiling.of(data.size, data.window), at_once) for at_once in _AT_ONCE]
    if lift is None or not lift.CUTS or stages.mapper.consistency is not None:
        return [_Choice(None)]
    sides = range((data.size - 1) // _STEP * _STEP, 2 * _STEP - 1, -_STEP)
    return [_Choice(None), *(_Choice(Tiling.of(data.size, side)) for side in sides)]


def pass_bytes(stages: Stages, choice: _Choice) -> float:
    """What a pass of the mapper over a sample, or over windows of it, takes at most.

    Found on tensors without data. It grows with the voxels, so that of the smallest window tells that of any.
    """
    experiment = stages.experiment
    coarse, n = experiment.coarse, choice.at_once
    assert experiment.resolved is not None
    pixels = experiment.resolved.geometry["pixels"]
    mapper = copy.deepcopy(stages.mapper).to("meta")
    mapper.side = None if choice.tiling is None else choice.tiling.side
    with torch.device("meta"), torch.no_grad(), Trace() as trace:
        trace.leave_out([*mapper.parameters(), *mapper.buffers()])
        mapper(
            torch.empty(n, len(experiment.data.views), pixels, pixels),
            torch.zeros(n, 2, dtype=torch.int64, device="cpu"),  # what is drawn by them are numbers
            None if choice.tiling is None else torch.zeros(n, 3, dtype=torch.int64),
            None if coarse is None else torch.empty(n, 1, *(coarse.size,) * 3),
        )
    return trace.peak_bytes * _KERNELS


def _held(stages: Stages) -> int:
    """What is there beside a pass: the process or the weights, the volume in the making, and it as HU."""
    voxels = stages.experiment.data.size**3
    device = next(stages.mapper.parameters()).device
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device) + 4 * voxels
    resident = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return resident * os.sysconf("SC_PAGE_SIZE") + (4 + 2) * voxels
