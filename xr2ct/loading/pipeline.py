"""What is done to a batch after it is read: one DALI graph, the same on the CPU and on a GPU.

Volumes are int16 from the disk through DALI to the device, and become numbers on the unit interval only as
they are handed out. Flips, rotation and contrast are DALI operators on the device.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
import torch
from nvidia.dali import fn, pipeline_def
from nvidia.dali.data_node import DataNode
from nvidia.dali.pipeline import Pipeline
from nvidia.dali.types import DALIDataType as DType
from nvidia.dali.types import to_numpy_type
from torch import Tensor

from xr2ct.config import Augmentation, Data
from xr2ct.loading.memory import Memory
from xr2ct.loading.order import Sample
from xr2ct.window import HuWindow

THREADS = min(4, len(os.sched_getaffinity(0)))
"""CPU threads of one loader: more than four outrun any disk."""


class BatchPipeline:
    """NumPy arrays in, torch tensors on `device` out, one batch under way at a time."""

    def __init__(
        self, data: Data, augmentation: Augmentation, *, max_batch: int, device: torch.device
    ) -> None:
        self._device = device
        device_id = None
        if device.type == "cuda":
            device_id = torch.cuda.current_device() if device.index is None else device.index
        self._pipeline: Pipeline = _graph(
            data,
            augmentation,
            device_id is not None,
            batch_size=max_batch,
            num_threads=THREADS,
            device_id=device_id,
            prefetch_queue_depth=1,
        )
        self._pipeline.build()
        self._drawn = _drawn(augmentation)
        self._unit = _Unit(data, device)
        self._memory = Memory()
        self._inputs: tuple[Sequence[np.ndarray], ...] = ()

    def submit(
        self, volumes: Sequence[np.ndarray], views: Sequence[np.ndarray], samples: Sequence[Sample]
    ) -> None:
        """Start on a batch: int16 HU (z, y, x) and scaled float32 (view, row, col) for each sample."""
        ct = [v[np.newaxis] for v in volumes]
        pictures = [v[..., np.newaxis] for v in views]
        # Nothing is copied, so the arrays must live until this batch is done: kept until the next one.
        self._inputs = (ct, pictures)
        self._pipeline.feed_input("ct", ct)
        self._pipeline.feed_input("views", pictures)
        for name, dtype in self._drawn.items():
            values = np.array([getattr(s, name) for s in samples], to_numpy_type(dtype))
            self._pipeline.feed_input(name, values)
        self._pipeline.schedule_run()

    def collect(self) -> tuple[Tensor, Tensor]:
        """Wait for the batch submitted: (b, 1, z, y, x) in [0, 1] and (b, view, row, col), both float32."""
        on_gpu = self._device.type == "cuda"
        stream = torch.cuda.current_stream(self._device) if on_gpu else None
        outputs = self._pipeline.share_outputs(cuda_stream=stream)
        hu, pictures = (torch.from_dlpack(output.as_tensor()) for output in outputs)
        # Out of DALI's memory into the batch's own, in the order of the stream.
        ct = self._unit(hu, self._empty(hu.shape))
        views = pictures.squeeze(-1).clone()
        del hu, pictures
        del outputs
        self._pipeline.release_outputs()
        return ct, views

    def _empty(self, shape: torch.Size) -> Tensor:
        """float32, to be written to whole. On a GPU torch itself keeps memory to use again."""
        if self._device.type == "cuda":
            return torch.empty(shape, device=self._device)
        return self._memory.tensor(shape)

    def close(self) -> None:
        """Wait for what is under way and free DALI's threads and memory."""
        del self._pipeline
        self._inputs = ()


def _drawn(augmentation: Augmentation) -> dict[str, DType]:
    """The augmentation parameters that the graph takes, as `Sample` names them, and their types."""
    drawn: dict[str, DType] = {}
    if augmentation.flip != "none":
        drawn["flip"] = DType.INT32
    if augmentation.rotation_deg * augmentation.rotation_probability > 0:
        drawn["angle_deg"] = DType.FLOAT
    if augmentation.contrast:
        drawn["contrast"] = DType.FLOAT
    return drawn


@pipeline_def(enable_conditionals=True)
def _graph(data: Data, augmentation: Augmentation, on_gpu: bool) -> tuple[DataNode, DataNode]:
    ct = fn.external_source(name="ct", layout="CDHW", dtype=DType.INT16, no_copy=True)
    views = fn.external_source(name="views", layout="FHWC", dtype=DType.FLOAT, no_copy=True)
    drawn = {
        name: fn.external_source(name=name, ndim=0, dtype=dtype)
        for name, dtype in _drawn(augmentation).items()
    }
    if on_gpu:
        ct, views = ct.gpu(), views.gpu()
    if "flip" in drawn:
        views = fn.flip(views, horizontal=drawn["flip"])
        if augmentation.flip == "patient":
            ct = fn.flip(ct, horizontal=drawn["flip"])
    if "angle_deg" in drawn:
        rotated = drawn["angle_deg"] != 0.0
        # A conditional of DALI's: only the samples that are rotated pay for it.
        if rotated:
            views = fn.rotate(views, angle=drawn["angle_deg"], keep_size=True, fill_value=0.0)
    if "contrast" in drawn:
        factor = drawn["contrast"].gpu() if on_gpu else drawn["contrast"]
        mean = fn.reductions.mean(views, axes=[1, 2, 3], keep_dims=True)
        views = (views - mean) * factor + mean
    return ct, views


class _Unit:
    """int16 HU to float32 on [0, 1], on one device.

    The steps are single float32 operations, each correctly rounded on any device, so all devices agree to
    the bit; and with the figure in float64 too, wherever the window's ends are whole or half HU: the
    difference is then exact, and a quotient of float32 numbers rounded twice is that rounded once.
    """

    def __init__(self, data: Data, device: torch.device) -> None:
        window = HuWindow(*data.hu_window)
        self._by_volume = data.scaling == "minmax"
        self._low = torch.tensor(window.low, dtype=torch.float32, device=device)
        # On a GPU a division by a Python number would be a product with its reciprocal.
        self._width = torch.tensor(window.width, dtype=torch.float32, device=device)

    def __call__(self, hu: Tensor, out: Tensor) -> Tensor:
        """Of (b, 1, z, y, x) int16 into `out`, in which it is worked out: four passes, no memory besides."""
        low, width = self._low, self._width
        if self._by_volume:
            low = hu.amin((1, 2, 3, 4), keepdim=True).float()
            # A volume of one value is 0.
            width = (hu.amax((1, 2, 3, 4), keepdim=True) - low).clamp_(min=1)
        return out.copy_(hu).sub_(low).div_(width).clamp_(0, 1)
