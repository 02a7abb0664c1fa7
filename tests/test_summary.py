"""Counts of operations and memory against figures measured on the networks, and against arithmetic."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from xr2ct.config import Experiment
from xr2ct.errors import UserError
from xr2ct.summary import GIB, format_summary, summarise

SMALL = {"name": "swin-unetr", "feature_size": 12, "depths": (1, 1, 1, 1), "num_heads": (1, 1, 2, 2)}


def _paper(size: int, **mapper: Any) -> dict[str, Any]:
    return summarise(
        Experiment(
            name="paper",
            data={"size": size},
            mapper={"name": "swin-unetr", **mapper},
            training={"precision": "bf16"},
        )
    )


def test_the_papers_networks_at_128() -> None:
    told = _paper(128)
    mapper, potential, features = (told["networks"][n] for n in ("mapper", "potential", "features"))
    assert mapper["flops"] / 1e12 == pytest.approx(1.531, abs=5e-4)
    assert mapper["saved_bytes"] / GIB == pytest.approx(7.6, abs=0.05)
    assert (potential["trained"], features["trained"]) == (True, False)
    text = format_summary(told)
    for count in ("62.19 M", "69.64 M", "0.69 M", "GPU-hours: not measured"):
        assert count in text


def test_activation_checkpointing_saves_memory_and_no_operations() -> None:
    mapper = _paper(128, use_checkpoint=True)["networks"]["mapper"]
    assert mapper["saved_bytes"] / GIB == pytest.approx(3.3, abs=0.05)
    assert mapper["flops"] / 1e12 == pytest.approx(1.531, abs=5e-4)


@pytest.mark.parametrize(("precision", "shared"), [("fp32", (8, 4, 4)), ("bf16", (12, 2, 2))])
def test_zero_stages_share_what_they_say(precision: str, shared: tuple[int, int, int]) -> None:
    told = summarise(
        Experiment(
            name="small",
            mapper=SMALL,
            method={"name": "neural-ot", "potential": {"base_channels": 4}},
            training={"precision": precision, "batch": 8, "accumulation": 2},
        )
    )
    assert [(row["ranks"], row["micro_batch"]) for row in told["memory"]] == [(1, 4), (2, 2), (4, 1)]
    parameters = sum(n["parameters"] for n in told["networks"].values() if n["trained"])
    saved = sum(n["saved_bytes"] for n in told["networks"].values())
    for row in told["memory"]:
        state = [size - saved * row["micro_batch"] for size in row["bytes_by_zero_stage"]]
        assert state[0] == 16 * parameters
        given_away = [a - b for a, b in pairwise(state)]
        expected = [n * parameters * (1 - 1 / row["ranks"]) for n in shared]
        assert given_away == pytest.approx(expected, abs=1)


def test_what_cannot_be_built_is_refused() -> None:
    with pytest.raises(UserError, match=r"data\.size 48"):
        summarise(Experiment(name="odd", data={"size": 48}))
