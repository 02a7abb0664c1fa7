"""What is done to a batch after it is read: one DALI graph, the same on the CPU and on a GPU.

Volumes are int16 from the disk through DALI to the device, and become numbers on the unit interval only as
they are handed out. Flips, rotation and contrast are DALI operators on the device.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

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
    """NumPy arrays in, torch tensors on `device` out, one batch under way at a time.

    `volumes` names what is turned with the patient and comes out on the unit interval.
    """

    def __init__(
        self,
        data: Data,
        augmentation: Augmentation,
        *,
        max_batch: int,
        device: torch.device,
        volumes: Sequence[str] = ("ct",),
    ) -> None:
        self._device = device
        device_id = None
        if device.type == "cuda":
            device_id = torch.cuda.current_device() if device.index is None else device.index
        self._pipeline: Pipeline = _graph(
            volumes,
            augmentation,
            device_id is not None,
            batch_size=max_batch,
            num_threads=THREADS,
            device_id=device_id,
            prefetch_queue_depth=1,
        )
        self._pipeline.build()
        self._drawn = _drawn(augmentation)
        self._volumes = tuple(volumes)
        self._unit = _Unit(data, device)
        self._memory = Memory()
        self._inputs: Mapping[str, Sequence[np.ndarray]] = {}

    def submit(
        self,
        volumes: Mapping[str, Sequence[np.ndarray]],
        views: Sequence[np.ndarray],
        samples: Sequence[Sample],
    ) -> None:
        """Start on a batch: each sample's int16 HU (z, y, x) by name, its scaled float32 (view, row, col)."""
        inputs = {name: [v[np.newaxis] for v in volumes[name]] for name in self._volumes}
        inputs["views"] = [v[..., np.newaxis] for v in views]
        # Nothing is copied, so the arrays must live until this batch is done: kept until the next one.
        self._inputs = inputs
        for name, arrays in inputs.items():
            self._pipeline.feed_input(name, arrays)
        for name, dtype in self._drawn.items():
            values = np.array([getattr(s, name) for s in samples], to_numpy_type(dtype))
            self._pipeline.feed_input(name, values)
        self._pipeline.schedule_run()

    def collect(self) -> tuple[dict[str, Tensor], Tensor]:
        """Wait for the batch submitted: float32 (b, 1, z, y, x) on [0, 1] by name, (b, view, row, col)."""
        on_gpu = self._device.type == "cuda"
        stream = torch.cuda.current_stream(self._device) if on_gpu else None
        outputs = self._pipeline.share_outputs(cuda_stream=stream)
        pictures, *hu = (torch.from_dlpack(output.as_tensor()) for output in outputs)
        # Out of DALI's memory into the batch's own, in the order of the stream.
        units = (self._unit(h, self._empty(h.shape)) for h in hu)
        volumes = dict(zip(self._volumes, units, strict=True))
        views = pictures.squeeze(-1).clone()
        del hu, pictures
        del outputs
        self._pipeline.release_outputs()
        return volumes, views

    def _empty(self, shape: torch.Size) -> Tensor:
        """float32, to be written to whole. On a GPU torch itself keeps memory to use again."""
        if self._device.type == "cuda":
            return torch.empty(shape, device=self._device)
        return self._memory.tensor(shape)

    def close(self) -> None:
        """Wait for what is under way and free DALI's threads and memory."""
        del self._pipeline
        self._inputs = {}


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
def _graph(names: Sequence[str], augmentation: Augmentation, on_gpu: bool) -> tuple[DataNode, ...]:
    """The views, then the volumes."""
    volumes = [
        fn.external_source(name=name, layout="CDHW", dtype=DType.INT16, no_copy=True) for name in names
    ]
    views = fn.external_source(name="views", layout="FHWC", dtype=DType.FLOAT, no_copy=True)
    drawn = {
        name: fn.external_source(name=name, ndim=0, dtype=dtype)
        for name, dtype in _drawn(augmentation).items()
    }
    if on_gpu:
        volumes, views = [v.gpu() for v in volumes], views.gpu()
    if "flip" in drawn:
        views = fn.flip(views, horizontal=drawn["flip"])
        if augmentation.flip == "patient":
            volumes = [fn.flip(v, horizontal=drawn["flip"]) for v in volumes]
    if "angle_deg" in drawn:
        rotated = drawn["angle_deg"] != 0.0
        # A conditional of DALI's: only the samples that are rotated pay for it.
        if rotated:
            views = fn.rotate(views, angle=drawn["angle_deg"], keep_size=True, fill_value=0.0)
    if "contrast" in drawn:
        factor = drawn["contrast"].gpu() if on_gpu else drawn["contrast"]
        mean = fn.reductions.mean(views, axes=[1, 2, 3], keep_dims=True)
        views = (views - mean) * factor + mean
    return views, *volumes


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
