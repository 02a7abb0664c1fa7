"""The learning rate over outer steps, the same for every network."""

from __future__ import annotations

from xr2ct.config import Experiment


def factor(index: int, warmup_steps: int, steps: int, decay_after: int | None = None) -> float:
    """Factor on the peak rate in the outer step with this index, counted from 0.

    0 at index 0, rising to 1 at `warmup_steps`, staying there until `decay_after` (`warmup_steps` where
    unset), then linearly to 0 at `steps` + 1. As under
    `torch.optim.lr_scheduler.LambdaLR`, the first outer step runs at the factor of index 0: with a warm-up it
    moves no weight and only fills Adam's moments. The last runs at the factor of index `steps` − 1.
    """
    if index < warmup_steps:
        return index / warmup_steps
    fall = warmup_steps if decay_after is None else decay_after
    return min(1.0, (steps + 1 - index) / (steps + 1 - fall))


def learning_rate(index: int, experiment: Experiment) -> float:
    """The rate of outer step `index`; its peak is `lr_per_sample` × the global batch."""
    training = experiment.training
    peak = experiment.optimizer.lr_per_sample * training.batch
    return peak * factor(index, training.warmup_steps, training.steps, training.decay_after)
