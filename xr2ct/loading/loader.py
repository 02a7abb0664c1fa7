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

from xr2ct.config import Augmentation, Data
from xr2ct.loading.order import Order, Sample, check_batch
from xr2ct.loading.pipeline import THREADS, BatchPipeline
from xr2ct.loading.source import Source
from xr2ct.methods.base import Batch
from xr2ct.store import Case, Store

READ_AHEAD = 2
"""Batches being read while another is in DALI and a fourth with the caller."""

NO_AUGMENTATION = Augmentation(contrast=None, rotation_probability=0.0, flip="none")

_Arrays = tuple[np.ndarray, np.ndarray]


class Loader:
    """This rank's share of an endless sequence of global batches, from global batch `first_batch` on.

    To be closed when done with. A batch does not depend on where the sequence was taken up, nor do all ranks'
    shares of it together on the number of ranks.

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
    ) -> None:
        check_batch(batch, world_size, accumulation)
        order = Order(len(cases), seed, augmentation)
        shares = (order.share(step, batch, rank, world_size) for step in count(first_batch))
        self._stream = _Stream(store, cases, data, augmentation, shares, batch // world_size, device)

    def __iter__(self) -> Iterator[Batch]:
        """The batches; asked for again, they go on where they stopped."""
        return self._stream

    def close(self) -> None:
        """Stop the threads and free the pipeline; batches already handed out stay good."""
        self._stream.close()


def sequential(
    store: Store, cases: Sequence[Case], data: Data, *, batch: int, device: torch.device
) -> Iterator[Batch]:
    """Each case once, in order, as it is; the last batch may be short. Positions count the cases.

    Raises `UserError` where the store lacks what `data` asks for, before the first batch.
    """
    samples = [Sample(position, position) for position in range(len(cases))]
    groups = (samples[i : i + batch] for i in range(0, len(samples), batch))
    return _Stream(store, cases, data, NO_AUGMENTATION, groups, batch, device)


class _Stream(Iterator[Batch]):
    """Groups of samples, each read, passed through DALI and handed out in turn."""

    def __init__(
        self,
        store: Store,
        cases: Sequence[Case],
        data: Data,
        augmentation: Augmentation,
        groups: Iterator[list[Sample]],
        max_batch: int,
        device: torch.device,
    ) -> None:
        self._source = Source(store, cases, data, augmentation)
        self._cases = cases
        self._groups = groups
        self._pipeline: BatchPipeline | None = BatchPipeline(
            data, augmentation, max_batch=max_batch, device=device
        )
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
            ct, views = pipeline.collect()
            self._submitted = None
            self._read_ahead()
            if self._reading and all(f.done() and not f.exception() for f in self._reading[0][1]):
                self._submit(pipeline)
        except BaseException:
            self.close()
            raise
        cases = tuple(self._cases[s.case].id for s in samples)
        return Batch(ct, views, tuple(s.position for s in samples), cases)

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)
        self._reading.clear()
        if self._pipeline is not None:
            self._pipeline.close()
        self._pipeline = None

    def _read_ahead(self) -> None:
        while len(self._reading) < READ_AHEAD and (samples := next(self._groups, None)):
            self._reading.append((samples, [self._pool.submit(self._source.read, s) for s in samples]))

    def _submit(self, pipeline: BatchPipeline) -> None:
        """Feed the next group to DALI, waiting until it is read; the reader's error comes out as itself."""
        if self._reading:
            samples, futures = self._reading.popleft()
            volumes, views = zip(*(f.result() for f in futures), strict=True)
            pipeline.submit(volumes, views, samples)
            self._submitted = samples
