"""What the X-rays learnt from look like, described once, so that a reconstruction can tell how far one is.

    RUN/xrays.safetensors        `reconstruction.familiar.Familiar`

They are taken as training sees them, with its randomised detector and pose, but neither flipped nor rotated:
a mirrored picture is a mistake in how it was read, not a patient.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
from safetensors.numpy import save

from xr2ct.config import Experiment
from xr2ct.errors import WorkFailed
from xr2ct.loading.machine import Machine
from xr2ct.reconstruction.familiar import FILE, LEAST_CASES, Familiar
from xr2ct.run import Run
from xr2ct.seeds import derive_seed, generator
from xr2ct.store import Case, Store
from xr2ct.training.fence import Fence
from xr2ct.training.watchdog import alive

log = logging.getLogger(__name__)

MOST_CASES = 400
"""So many are described: the share that is nearer is told to a quarter of a percent."""


def bring(run: Run, experiment: Experiment, store: Store, cases: Sequence[Case], fence: Fence) -> None:
    """RUN/xrays.safetensors, unless it is there or the cases are too few; rank 0's.

    Raises `StoreError` for a damaged chunk, `Superseded`, and `WorkFailed` where it cannot be written.
    """
    file = run.path / FILE
    if file.is_file():
        return
    if len(cases) < LEAST_CASES:
        log.info("%s: %d training cases are too few to tell what is far from them", run.path, len(cases))
        return
    described = describe(experiment, store, cases)
    try:
        fence.partial(file).write_bytes(save(described.arrays()))
        fence.commit(file)
    except OSError as error:
        raise WorkFailed(f"{file}: cannot be written: {error}") from error


def describe(experiment: Experiment, store: Store, cases: Sequence[Case]) -> Familiar:
    """The X-rays that an experiment learns from, of `MOST_CASES` cases at most; `LEAST_CASES` are needed."""
    data, seed = experiment.data, experiment.seed
    machine = Machine(experiment.augmentation, store.geometries[data.geometry], store.cube_mm)
    side = experiment.augmentation.pose.reproject or data.size
    chosen = np.sort(generator(seed, "familiar").permutation(len(cases))[:MOST_CASES])

    def line_integrals() -> Iterator[np.ndarray]:
        for case in (cases[i] for i in chosen):
            alive()
            yield machine.take(
                store.xray(case, data.geometry, data.views),
                data.views,
                partial(store.volume, case, side),
                derive_seed(seed, "familiar", case.id),
            )

    return Familiar.of(data.views, line_integrals(), data.xray_scale)
