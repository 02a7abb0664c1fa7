"""Whether a model makes here what it made where its file was written: asked at its first use on a machine.

A file of `xr2ct export` holds the X-rays of a synthetic chest and the volume that the mapper made of them,
averaged down. Other hardware, another torch and a damaged file all show in it. What has passed is noted by
the file's digest, the device and the versions, in `$XDG_CACHE_HOME/xr2ct/self-test/`.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from xr2ct import __version__
from xr2ct.errors import WorkFailed
from xr2ct.exchange.model_file import Model, SelfTest
from xr2ct.run import write_atomically
from xr2ct.stages import Stages
from xr2ct.window import HuWindow
from xr2ct.windows import Tiling

log = logging.getLogger(__name__)

SIDE = 16
"""Blocks along a side of the volume, of which means are kept."""
TOLERANCE_HU = 10.0
"""How far the mean of a block may be from what is kept: tens of times what the order of sums makes of it."""


def make_self_test(stages: Stages, line_integrals: np.ndarray) -> SelfTest:
    """Of X-rays (view, row, col), which lose the digits that half precision has no room for."""
    views = torch.from_numpy(line_integrals.astype(np.float16)).float()
    return SelfTest(views, _blocks(stages, views))


def self_test(stages: Stages) -> str:
    """``passed``, or why it was not asked: ``none`` (of a checkpoint's folder), ``not comparable`` (cut into
    windows that the mapper has not learnt from).

    A model that has passed here before is not run again. Raises `WorkFailed` where the volume is another
    than the file says.
    """
    model = stages.model
    if model is None:
        return "none"
    if _is_cut(stages):
        log.info("%s: the self-test is of whole volumes, and waits for one", model.path)
        return "not comparable"
    marker = _marker(model, next(stages.mapper.parameters()).device)
    if marker.is_file():
        return "passed"
    kept = model.self_test
    off = _off_hu(_blocks(stages, kept.views), kept.volume, stages)
    if not off <= TOLERANCE_HU:  # NaN is not either
        raise WorkFailed(
            f"{model.path}: its self-test failed: the volume of its own X-rays is off by {off:.1f} HU, "
            f"expected at most {TOLERANCE_HU:g}; this device, torch {torch.__version__} or the file is wrong"
        )
    log.info("%s: self-test passed, off by %.2f HU at most", model.path, off)
    try:
        write_atomically(marker, json.dumps({"off_hu": off}) + "\n")
    except OSError as error:
        log.debug("%s: %s; the self-test will run again", marker, error)
    return "passed"


def _blocks(stages: Stages, views: Tensor) -> Tensor:
    """(n, n, n) means over blocks of the volume made of line integrals (view, row, col), on the CPU."""
    device = next(stages.mapper.parameters()).device
    volume = stages(stages.scale(views.to(device)), torch.zeros(1, 2, dtype=torch.int64, device=device))
    size = volume.shape[-1]
    block = next(b for b in range(max(1, size // SIDE), size + 1) if size % b == 0)
    means: Tensor = F.avg_pool3d(volume.clamp(0, 1), block)[0, 0]
    return means.float().cpu()


def _off_hu(made: Tensor, kept: Tensor, stages: Stages) -> float:
    if made.shape != kept.shape:
        return float("nan")
    window = HuWindow(*stages.experiment.data.hu_window)
    return float((made - kept).abs().max()) * window.width


def _is_cut(stages: Stages) -> bool:
    """Whether a limit on memory had it cut otherwise than it was learnt."""
    data = stages.experiment.data
    learnt = None if data.window is None else Tiling.of(data.size, data.window)
    return stages.tiling != learnt or (stages.before is not None and _is_cut(stages.before.stages))


def _marker(model: Model, device: torch.device) -> Path:
    """Of this file on this machine's device with these versions."""
    home = os.environ.get("XDG_CACHE_HOME")
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    told = (model.sha256, platform.node(), device.type, name, torch.__version__, __version__)
    folder = (Path(home) if home else Path.home() / ".cache") / "xr2ct" / "self-test"
    return folder / f"{hashlib.sha256(json.dumps(told).encode()).hexdigest()[:32]}.json"
