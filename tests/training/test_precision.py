"""`auto` keeps the precision that takes less time, and leaves the mapper as it was."""

from __future__ import annotations

import copy
import time

import pytest
import torch
from torch import Tensor, nn

from xr2ct.training.precision import candidates, faster_precision

BOTH = candidates(torch.device("cuda"))


class SlowIn(nn.Module):
    """Takes its time in one precision."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.dtype = dtype

    def forward(self, views: Tensor) -> Tensor:
        if self.layer.weight.dtype == self.dtype:
            until = time.process_time() + 0.05
            while time.process_time() < until:
                pass
        return self.layer(views.to(self.layer.weight.dtype))


@pytest.mark.parametrize(("slow", "chosen"), [(torch.bfloat16, "fp32"), (torch.float32, "bf16")])
def test_the_faster_one(slow: torch.dtype, chosen: str) -> None:
    mapper = SlowIn(slow)
    before = copy.deepcopy(mapper.state_dict())
    assert faster_precision(mapper, torch.rand(2, 1, 4, 4), among=BOTH) == chosen
    torch.testing.assert_close(mapper.state_dict(), before)
    assert all(p.grad is None for p in mapper.parameters())


def test_what_does_not_fit_is_slower() -> None:
    class TooLarge(SlowIn):
        def forward(self, views: Tensor) -> Tensor:
            if self.layer.weight.dtype == self.dtype:
                raise torch.OutOfMemoryError
            return super().forward(views)

    assert faster_precision(TooLarge(torch.float32), torch.rand(2, 1, 4, 4), among=BOTH) == "bf16"


def test_a_cpu_trains_in_fp32() -> None:
    assert candidates(torch.device("cpu")) == ("fp32",)
