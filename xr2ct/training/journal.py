"""What is told of each outer step: to the run's metrics first, then to the screen and to MLflow."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack, closing
from types import TracebackType

from xr2ct.run import Run
from xr2ct.tracking import Tracker
from xr2ct.training.agreement import from_rank_0
from xr2ct.training.forecast import Forecast
from xr2ct.training.lead_time import LeadTime
from xr2ct.training.memory import PeakMemory
from xr2ct.training.metrics_log import MetricsLog
from xr2ct.training.progress import Progress
from xr2ct.training.state import TrainingState, save


class Journal:
    """A context on every rank; rank 0 alone writes."""

    def __init__(self, run: Run, state: TrainingState, memory: PeakMemory) -> None:
        """memory: what training has taken since before the networks were built."""
        self._run = run
        self._state = state
        self._memory = memory
        self._held = ExitStack()
        self._metrics: MetricsLog | None = None
        self._lead_time = LeadTime()

    def __enter__(self) -> Journal:
        experiment, step = self._state.experiment, self._state.step
        from_rank_0(self._state.ranks, self._open_metrics)
        if self._state.ranks.rank == 0:
            self._progress = self._held.enter_context(closing(Progress(step, experiment.training.steps)))
            self._forecast = self._held.enter_context(closing(Forecast(self._run, self._state, self._memory)))
            if experiment.tracking.enabled:
                self._held.enter_context(Tracker(self._run, experiment))
        return self

    def _open_metrics(self) -> None:
        metrics = MetricsLog(self._run, self._state.step, self._state.fence)
        self._metrics = self._held.enter_context(closing(metrics))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._held.__exit__(kind, error, trace)

    def write(self, losses: Mapping[str, float], lr: float, seconds: float) -> None:
        """Tell of the outer step just done, which ran at this learning rate."""
        if self._metrics is None:
            return
        state, training = self._state, self._state.experiment.training
        record = {
            "step": state.step,
            "seconds": seconds,
            "samples": state.method.batches_per_step * training.batch,
            "memory_bytes": self._forecast.step(seconds),
            **losses,
            **{f"lr/{name}": lr for name in state.engines},
        }
        assert state.experiment.resolved is not None
        if state.experiment.resolved.precision == "fp16":
            record |= {f"skipped/{name}": engine.skipped_steps for name, engine in state.engines.items()}
        self._metrics.write(record)
        self._lead_time.step(seconds)
        self._progress.update(record)

    def save(self) -> None:
        """Write a checkpoint, unless this step has one; what was told reaches the disk before it. Collective.

        Raises as `state.save` does.
        """
        if self._state.saved == self._state.step:
            return
        if self._metrics is not None:
            self._metrics.sync()
            self._forecast.report()
        seconds = save(self._run, self._state)
        if self._metrics is not None:
            self._lead_time.checkpoint(seconds)
