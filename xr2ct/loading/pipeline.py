"""What is done to a batch after it is read: one DALI graph, the same on the CPU and on a GPU.

int16 volumes go over the bus; HU window, flips, rotation and contrast are DALI operators on the device.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
import torch
from nvidia.dali import fn, math, pipeline_def
from nvidia.dali.data_node import DataNode
from nvidia.dali.pipeline import Pipeline
from nvidia.dali.types import DALIDataType as DType
from nvidia.dali.types import to_numpy_type
from torch import Tensor

from xr2ct.config import Augmentation, Data
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
        ct, views = (torch.from_dlpack(output.as_tensor()) for output in outputs)
        # The volumes were computed into memory of this batch alone, which the tensor keeps: a copy on the CPU
        # would halve the rate. The views may still be the arrays that came in. On a GPU a copy costs nothing
        # and gives DALI's pool its memory back in the order of the stream.
        ct, views = ct.clone() if on_gpu else ct, views.squeeze(-1).clone()
        del outputs
        self._pipeline.release_outputs()
        return ct, views

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
    return _windowed(ct, data) if data.scaling == "window" else _minmax(ct), views


def _windowed(ct: DataNode, data: Data) -> DataNode:
    """HU window → [0, 1] by a table of all 65,536 int16 values.

    A third of the arithmetic's time on the CPU, and the same to the bit on every device.
    """
    hu = np.arange(2**16, dtype=np.uint16).view(np.int16)
    unit = HuWindow(*data.hu_window).to_unit(hu.astype(np.float64))
    bits = fn.reinterpret(ct, dtype=DType.UINT16)
    return fn.lookup_table(bits, keys=list(range(2**16)), values=unit.tolist(), dtype=DType.FLOAT)


def _minmax(ct: DataNode) -> DataNode:
    """Each volume's own range → [0, 1]; a volume of one value is 0."""
    low = fn.cast(fn.reductions.min(ct, keep_dims=True), dtype=DType.FLOAT)
    high = fn.cast(fn.reductions.max(ct, keep_dims=True), dtype=DType.FLOAT)
    return (ct - low) / math.max(high - low, 1.0)
