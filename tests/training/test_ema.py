"""The moving average against its closed form."""

from __future__ import annotations

import torch

from xr2ct.training.ema import MovingAverage


def test_closed_form() -> None:
    """From 0 towards a constant 1, n updates reach 1 − decayⁿ."""
    average = MovingAverage({"w": torch.zeros(3)}, decay=0.9)
    for _ in range(20):
        average.update({"w": torch.ones(3)})
    torch.testing.assert_close(average.weights["w"], torch.full((3,), 1 - 0.9**20))


def test_integers_are_copied() -> None:
    average = MovingAverage({"count": torch.tensor(0)}, decay=0.9)
    average.update({"count": torch.tensor(7)})
    assert average.weights["count"] == 7


def test_shares_no_memory_with_the_network() -> None:
    weight = torch.zeros(2)
    average = MovingAverage({"w": weight}, decay=0.5)
    weight += 1
    assert average.weights["w"].tolist() == [0, 0]
