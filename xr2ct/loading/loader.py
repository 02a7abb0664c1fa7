"""Batches from a store: reader threads ahead of one DALI pipeline, in a fixed order.

The threads read whole chunks (file reads and NumPy let go of the interpreter's lock) while DALI works on the
batch before. The caller's thread feeds it, so an error in reading reaches the caller as itself, at the batch
that it belongs to.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import count

import numpy as np
import torch
from torch import Tensor

from xr2ct.config import Augmentation, Data
from xr2ct.loading.order import Order, Places, Sample, check_batch
from xr2ct.loading.pipeline import THREADS, BatchPipeline
from xr2ct.loading.source import CoarseReader, Source
from xr2ct.methods.base import Batch
from xr2ct.store import Case, Store

READ_AHEAD = 2
"""Batches being read while another is in DALI and a fourth with the caller."""

NO_AUGMENTATION = Augmentation(contrast=None, rotation_probability=0.0, flip="none")

_Arrays = tuple[dict[str, np.ndarray], np.ndarray]


class Loader:
    """This rank's share of an endless sequence of global batches, from global batch `first_batch` on.

    To be closed when done with. A batch does not depend on where the sequence was taken up, nor do all ranks'
    shares of it together on the number of ranks.

    Where `data.window` is set, volumes are sub-volumes of that side, each beginning at a multiple of
    `window_step` voxels, with their `origins`. With `context_side` the store's volume of that size comes
    along as `context`, and with `coarse` what that reader has as `coarse`: whole chests, flipped where the
    patient is.

    Raises `UserError` where ranks and accumulation do not divide the batch, where there is no case, and where
    the store lacks what `data` and `augmentation` ask for.
    """

    def __init__(
        self,
        store: Store,
        cases: Sequence[Case],
        data: Data,
        augmentation: Augmentation,
        *,
        batch: int,
        accumulation: int,
        rank: int,
        world_size: int,
        seed: int,
        device: torch.device,
        first_batch: int = 0,
        window_step: int = 1,
        context_side: int | None = None,
        coarse: CoarseReader | None = None,
    ) -> None:
        check_batch(batch, world_size, accumulation)
        places = Places(data.size, data.window, window_step) if data.window else None
        order = Order(len(cases), seed, augmentation, places)
        shares = (order.share(step, batch, rank, world_size) for step in count(first_batch))
        source = Source(store, cases, data, augmentation, context_side=context_side, coarse=coarse)
        pipeline = BatchPipeline(
            data, augmentation, max_batch=batch // world_size, device=device, volumes=source.volumes
        )
        self._stream = _Stream(source, cases, shares, pipeline, device)

    def __iter__(self) -> Iterator[Batch]:
        """The batches; asked for again, they go on where they stopped."""
        return self._stream

    def close(self) -> None:
        """Stop the threads and free the pipeline; batches already handed out stay good."""
        self._stream.close()


def sequential(
    store: Store, cases: Sequence[Case], data: Data, *, batch: int, device: torch.device
) -> Iterator[Batch]:
    """Each case once, in order, as it is and whole; the last batch may be short. Positions count the cases.

    Raises `UserError` where the store lacks what `data` asks for, before the first batch.
    """
    samples = [Sample(position, position) for position in range(len(cases))]
    groups = (samples[i : i + batch] for i in range(0, len(samples), batch))
    source = Source(store, cases, data, NO_AUGMENTATION)
    return _Stream(
        source, cases, groups, BatchPipeline(data, NO_AUGMENTATION, max_batch=batch, device=device), device
    )


class _Stream(Iterator[Batch]):
    """Groups of samples, each read, passed through DALI and handed out in turn."""

    def __init__(
        self,
        source: Source,
        cases: Sequence[Case],
        groups: Iterator[list[Sample]],
        pipeline: BatchPipeline,
        device: torch.device,
    ) -> None:
        self._source, self._cases, self._device = source, cases, device
        self._groups = groups
        self._pipeline: BatchPipeline | None = pipeline
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="xr2ct-read")
        self._reading: deque[tuple[list[Sample], list[Future[_Arrays]]]] = deque()
        self._submitted: list[Sample] | None = None

    def __next__(self) -> Batch:
        pipeline = self._pipeline
        if pipeline is None:
            raise StopIteration
        try:
            self._read_ahead()
            if self._submitted is None:
                self._submit(pipeline)
            samples = self._submitted
            if samples is None:
                raise StopIteration
            volumes, views = pipeline.collect()
            self._submitted = None
            self._read_ahead()
            if self._reading and all(f.done() and not f.exception() for f in self._reading[0][1]):
                self._submit(pipeline)
        except BaseException:
            self.close()
            raise
        return Batch(
            volumes["ct"],
            views,
            tuple(s.position for s in samples),
            tuple(self._cases[s.case].id for s in samples),
            self._origins(samples),
            volumes.get("coarse"),
            volumes.get("context"),
        )

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)
        self._reading.clear()
        if self._pipeline is not None:
            self._pipeline.close()
        self._pipeline = None

    def _origins(self, samples: list[Sample]) -> Tensor | None:
        origins = [s.origin for s in samples if s.origin is not None]
        return torch.tensor(origins, dtype=torch.int64, device=self._device) if origins else None

    def _read_ahead(self) -> None:
        while len(self._reading) < READ_AHEAD and (samples := next(self._groups, None)):
            self._reading.append((samples, [self._pool.submit(self._source.read, s) for s in samples]))

    def _submit(self, pipeline: BatchPipeline) -> None:
        """Feed the next group to DALI, waiting until it is read; the reader's error comes out as itself."""
        if self._reading:
            samples, futures = self._reading.popleft()
            read, views = zip(*(f.result() for f in futures), strict=True)
            pipeline.submit({name: [r[name] for r in read] for name in read[0]}, views, samples)
            self._submitted = samples
