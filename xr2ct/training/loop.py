"""Training: load, let the method take its step, save, next. Started again, a run goes on where it was.

    xr2ct train CONFIG [key=value ...]

Killed at any moment and started again with the same command, a run goes on from its newest whole
checkpoint; in fp32 on the CPU, with the same ranks and threads, its losses are then those of a run never
killed, to the bit. Asked to end by SIGTERM, SIGUSR1 or SIGUSR2, it ends its step, saves, and exits with 75.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing

import torch

from xr2ct.config import Experiment, run_path
from xr2ct.errors import Stopped, WorkFailed
from xr2ct.loading.loader import Loader
from xr2ct.loading.order import check_batch
from xr2ct.methods.base import Batch
from xr2ct.run import Run, step_name
from xr2ct.store import Case, Store
from xr2ct.training import familiar, stage_before, start
from xr2ct.training.agreement import from_rank_0, threads_per_rank, together
from xr2ct.training.build import build
from xr2ct.training.journal import Journal
from xr2ct.training.memory import PeakMemory
from xr2ct.training.schedule import learning_rate
from xr2ct.training.stage_before import CoarseVolumes
from xr2ct.training.staging import on_this_node
from xr2ct.training.state import TrainingState, broken_weights, restore, save
from xr2ct.training.stopping import Listener, asked, listening, stop_early
from xr2ct.training.watchdog import alive, watching

log = logging.getLogger(__name__)


def train(experiment: Experiment, overrides: Sequence[str] = ()) -> Run:
    """Train `experiment` to its last step, from wherever its run is; called in every rank.

    Raises `UserError` for data that is not there and for a run that was started with other values, before
    anything heavy; `WorkFailed` where a loss is no longer finite, or nothing can be saved or resumed from;
    `Stopped` once saved, where a signal asked for it; `Superseded` where the run is another's by now.
    """
    run = Run(run_path(experiment, overrides))
    with watching(), listening() as listener:
        experiment = start.completed(experiment)
        store, cases = start.open_training_data(experiment)
        start.refuse_other_values(run, experiment)
        with together(experiment.training.device) as ranks, start.held_by_one(run, ranks) as fence:
            check_batch(experiment.training.batch, ranks.world_size, experiment.training.accumulation)
            torch.set_num_threads(experiment.training.threads or threads_per_rank(ranks))
            resumed = from_rank_0(ranks, lambda: start.checkpoint_to_resume(run, fence))
            from_rank_0(ranks, lambda: stage_before.bring(run, experiment, store, fence))
            near = on_this_node(store, cases, experiment.data, ranks, listener, experiment.context_side)
            stop_early(run, listener, ranks, fence)
            coarse = stage_before.make_volumes(run, experiment, near, cases, ranks, fence, listener)
            from_rank_0(ranks, lambda: familiar.bring(run, experiment, near, cases, fence))
            memory = PeakMemory(ranks.device)
            state = build(run, experiment, store, ranks, fence)
            stop_early(run, listener, ranks, fence)
            if resumed is not None:
                restore(run.checkpoint(resumed), state)
                log.info("%s: going on from step %d of %d", run.path, state.step, experiment.training.steps)
            with closing(GlobalBatches(near, cases, state, coarse)) as batches:
                if resumed is None:
                    state.method.prepare(batches)
                    save(run, state)
                go_on(run, state, batches, listener, memory)
    return run


def go_on(
    run: Run, state: TrainingState, batches: Iterator[Batch], listener: Listener, memory: PeakMemory
) -> None:
    """From the outer step that `state` is at to the last; `Stopped`, once saved, where asked to stop."""
    training = state.experiment.training
    with Journal(run, state, memory) as journal:
        while state.step < training.steps:
            if signal := asked(listener, state.ranks, state.fence):
                journal.save()
                raise Stopped(
                    f"{run.path}: stopped at step {state.step} of {training.steps} as {signal} asked; saved"
                )
            alive(state.step)
            began = time.perf_counter()
            lr = learning_rate(state.step, state.experiment)
            for engine in state.engines.values():
                engine.set_lr(lr)
            losses = state.method.step(state.engines, batches)
            state.step += 1
            refuse_non_finite(losses, run, state)
            if state.step % training.ema.every == 0:
                state.update_average()
            journal.write(losses, lr, time.perf_counter() - began)
            if state.step % training.checkpoint_every == 0 or state.step == training.steps:
                journal.save()


def refuse_non_finite(losses: Mapping[str, float], run: Run, state: TrainingState) -> None:
    """`WorkFailed` with the step and the cause; losses are the same on every rank, so all of them stop."""
    bad = [f"{name} is {value}" for name, value in losses.items() if not math.isfinite(value)]
    if not bad:
        return
    assert state.experiment.resolved is not None
    broken = broken_weights(state.consolidated_weights())
    cause = (
        f"weights of {', '.join(broken)} are no longer finite" if broken else "all weights are still finite"
    )
    raise WorkFailed(
        f"{run.path}: step {state.step}: {', then '.join(bad)}; {cause}, "
        f"in {state.experiment.resolved.precision}\nthe last good checkpoint is {step_name(run.steps()[-1])}"
    )


class GlobalBatches(Iterator[Batch]):
    """This rank's share of each global batch from the state's place on, counted there as they are drawn."""

    def __init__(
        self, store: Store, cases: Sequence[Case], state: TrainingState, coarse: CoarseVolumes | None = None
    ) -> None:
        experiment, ranks = state.experiment, state.ranks
        self._state = state
        self._loader = Loader(
            store,
            cases,
            experiment.data,
            experiment.augmentation,
            batch=experiment.training.batch,
            accumulation=experiment.training.accumulation,
            rank=ranks.rank,
            world_size=ranks.world_size,
            seed=experiment.seed,
            device=ranks.device,
            first_batch=state.batches_drawn,
            window_step=experiment.window_step,
            context_side=experiment.context_side,
            coarse=coarse,
        )
        self._batches = iter(self._loader)

    def __next__(self) -> Batch:
        alive()
        batch = next(self._batches)
        self._state.batches_drawn += 1
        return batch

    def close(self) -> None:
        self._loader.close()
