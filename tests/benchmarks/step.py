"""Outer and inner steps of the paper's recipe with real engines: on real batches, and on a GPU.

The figures of a GPU are of bf16, as `training.precision: auto` chooses there; weights and batches are noise,
which changes no operation.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import Any

import torch

from tests.benchmarks.harness import Measured, Row, interleaved, seconds_of
from tests.made_method import SMALL, Made, experiment
from xr2ct.config import Augmentation
from xr2ct.loading.loader import Loader
from xr2ct.methods.base import Batch
from xr2ct.summary.tracing import Trace
from xr2ct.training.agreement import together

PAPERS_VOLUMES_PER_S = 4.4
"""440,000 samples in 28 h on a TITAN RTX."""


@contextmanager
def paper(
    size: int, device: Any = "cuda", sections: Mapping[str, Any] | None = None, batch: int = 8
) -> Iterator[Made]:
    """Feature size 48, ten updates of the mapper to one of the potential, unless `sections` say otherwise."""
    precision: Any = "bf16" if device == "cuda" else "fp32"
    with together(device) as ranks:
        yield Made.of(experiment(sections or {}, size, batch=batch, precision=precision), ranks, precision)


def real_batches(
    device: Any = "cpu", sections: Mapping[str, Any] = SMALL, steps: int = 1, rounds: int = 5, batch: int = 2
) -> Measured:
    """Some outer steps on batches as they come from a store, augmented; and on one that stays on the device.

    The store lies in the page cache, as it does from a run's second epoch on.
    """
    from tests.synthetic_store import write_store

    with ExitStack() as held:
        folder = held.enter_context(tempfile.TemporaryDirectory())
        store = write_store(Path(folder), ["train"] * 8, 64, (0.0, 90.0, 270.0), 256)
        made = held.enter_context(paper(64, device, sections, batch))
        told, ranks = made.experiment, made.ranks
        loader = Loader(
            store, store.cases, told.data, Augmentation(), batch=batch, accumulation=1, rank=0, world_size=1,
            seed=0, device=ranks.device,
        )  # fmt: skip
        real = iter(held.enter_context(closing(loader)))
        kept = repeat(next(real))

        def take(batches: Iterator[Batch]) -> None:
            for _ in range(steps):
                made.step(batches)

        return interleaved(lambda: take(real), lambda: take(kept), rounds, batch=batch, steps=steps)


def matrix_units(
    device: Any = "cuda", size: int = 128, rounds: int = 5, side: int = 8192, **made: Any
) -> Measured:
    """Operations a second of an inner step, and of one large product in bf16.

    Those of the step are counted as they go by; what is computed again on the way back counts too.
    """
    a, b = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    with paper(size, device, **made) as whole:
        batch = next(whole.batches())
        with Trace() as trace:
            whole.inner_step(batch)
        took = interleaved(lambda: whole.inner_step(batch), lambda: a @ b, rounds, warmup=3)
    return Measured(
        [trace.flops / seconds / 1e12 for seconds in took.ours],
        [2 * side**3 / seconds / 1e12 for seconds in took.peer],
        unit="TFLOP/s",
        detail={"flops": trace.flops, "size": size, "batch": len(batch.positions)},
    )


def volumes_per_s(device: Any = "cuda", size: int = 64, rounds: int = 3, **made: Any) -> Measured:
    """Volumes learnt from a second in outer steps of the paper's recipe."""
    with paper(size, device, **made) as whole:
        kept = repeat(next(whole.batches()))
        volumes = whole.method.batches_per_step * whole.experiment.training.batch
        whole.step(kept)
        rates = [volumes / seconds_of(lambda: whole.step(kept)) for _ in range(rounds)]
    return Measured(rates, [PAPERS_VOLUMES_PER_S] * rounds, unit="volumes/s", detail={"size": size})


ROWS: tuple[Row, ...] = (
    *(
        Row(
            name=f"real-batches{suffix}",
            what=f"training on real batches, 64³, {network}",
            peer="on one batch kept on the device",
            ratio="peer/ours",
            goal=0.98,
            measure=measure,
            device=device,
        )
        for suffix, network, device, measure in (
            ("", "small Swin UNETR", "cpu", real_batches),
            ("-cuda", "the paper's recipe", "cuda", partial(real_batches, "cuda", {}, steps=5, batch=8)),
        )
    ),
    Row(
        name="matrix-unit-use-cuda",
        what="inner step at 128³, feature size 48, batch 8, bf16",
        peer="8192³ product in bf16",
        ratio="ours/peer",
        goal=0.40,
        at_least=True,
        measure=matrix_units,
        device="cuda",
    ),
    Row(
        name="paper-recipe-cuda",
        what="paper's recipe, 64³, batch 8, feature size 48",
        peer="the paper's 4.4 volumes a second on a TITAN RTX",
        ratio="ours/peer",
        goal=290 / PAPERS_VOLUMES_PER_S,
        at_least=True,
        measure=volumes_per_s,
        device="cuda",
    ),
)
