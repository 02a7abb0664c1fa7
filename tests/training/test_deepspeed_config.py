"""What passes through to DeepSpeed, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from xr2ct.config import Experiment
from xr2ct.errors import UserError
from xr2ct.training.deepspeed_config import deepspeed_config


def _experiment(deepspeed: dict[str, Any] | None = None, **training: Any) -> Experiment:
    return Experiment(name="test", training=training, deepspeed=deepspeed or {})


def test_batch_is_shared_over_ranks_and_accumulation() -> None:
    config = deepspeed_config(_experiment(batch=16, accumulation=2), "fp32", world_size=4)
    assert config["train_batch_size"] == 16
    assert config["train_micro_batch_size_per_gpu"] == 2
    assert config["gradient_accumulation_steps"] == 2


def test_gradients_are_not_clipped_unless_told() -> None:
    assert deepspeed_config(_experiment(), "bf16", 1)["gradient_clipping"] == 0.0


def test_own_keys_pass_through_beside_ours() -> None:
    told = {"zero_optimization": {"overlap_comm": True}, "fp16": {"initial_scale_power": 12}}
    config = deepspeed_config(_experiment(told, zero_stage=2), "fp16", 1)
    assert config["zero_optimization"] == {"stage": 2, "overlap_comm": True}
    assert config["fp16"] == {"enabled": True, "initial_scale_power": 12}


@pytest.mark.parametrize(
    ("told", "ours"),
    [
        ({"train_batch_size": 8}, "training.batch"),
        ({"zero_optimization": {"stage": 2}}, "training.zero_stage"),
        ({"bf16": {"enabled": True}}, "training.precision"),
        ({"gradient_clipping": 1.0}, "optimizer.gradient_clipping"),
    ],
)
def test_keys_that_follow_from_ours_are_refused(told: dict[str, Any], ours: str) -> None:
    with pytest.raises(UserError, match=f"follows from {ours}"):
        deepspeed_config(_experiment(told), "fp32", 1)


def test_unknown_key_is_refused_with_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean 'zero_optimization'"):
        deepspeed_config(_experiment({"zero_optimisation": {}}), "fp32", 1)


def test_indivisible_batch_is_refused_with_the_nearest() -> None:
    with pytest.raises(UserError, match=r"8 cannot be divided by 3 ranks × 1 .* 9"):
        deepspeed_config(_experiment(batch=8), "fp32", world_size=3)
