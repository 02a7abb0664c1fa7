"""The learning rate against torch's own LambdaLR, and against the figures of the recipe."""

from __future__ import annotations

import pytest
import torch

from xr2ct.config import Experiment
from xr2ct.training.schedule import factor, learning_rate


def test_recipe() -> None:
    assert factor(0, 1500, 5000) == 0
    assert factor(750, 1500, 5000) == 0.5
    assert factor(1500, 1500, 5000) == 1
    assert factor(4999, 1500, 5000) == pytest.approx(2 / 3501)
    assert factor(5001, 1500, 5000) == 0


def test_peak_is_per_sample_times_batch() -> None:
    paper = Experiment(name="paper")
    assert learning_rate(1500, paper) == pytest.approx(8e-5)


def test_without_warmup_starts_at_the_peak() -> None:
    assert factor(0, 0, 10) == 1


@pytest.mark.parametrize("warmup", [0, 1, 4])
def test_as_torch_applies_it(warmup: int) -> None:
    """LambdaLR's rate while step i (from 0) runs is the factor of i."""
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.AdamW([weight], lr=2.0)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda i: factor(i, warmup, 9))
    experiment = Experiment(
        name="x",
        optimizer={"lr_per_sample": 0.25},
        training={"steps": 9, "warmup_steps": warmup, "batch": 8},
    )
    for index in range(9):
        assert optimizer.param_groups[0]["lr"] == pytest.approx(learning_rate(index, experiment))
        optimizer.step()
        scheduler.step()
