"""The number of ranks changes between restarts: the global batch and the order of the data stay."""

from __future__ import annotations

import pytest
from tiny import STEPS, losses
from trials import Trials, Undisturbed, assert_whole


@pytest.mark.slow
def test_two_ranks_then_one_then_four(trials: Trials, without_dropout: Undisturbed) -> None:
    """Two runs at once, with ZeRO 0 and 1, moved between clusters by `resubmit`."""
    bed = trials.bed
    config = trials.config(
        "elastic", sweep={"training.zero_stage": [0, 1]}, mapper={"dropout": 0.0, "sleep_s": 2.0}
    )
    members = trials.submit(config, trials.profile())
    for ranks, step in ((1, 3), (4, 7)):
        for member in members:
            member.wait_step(step)
        bed.run("scancel", *[member.job for member in members])
        for member in members:
            assert bed.wait_ended(member.job) == "CANCELLED"
            assert member.step() < STEPS, "too fast to be moved"
        profile = trials.profile(f"ranks-{ranks}", tasks_per_node=ranks)
        bed.xr2ct("resubmit", *[member.run.path for member in members], "--cluster", profile)
        members = [member.again() for member in members]
    trials.finish(*members)
    wanted = losses(without_dropout.run())
    for member in members:
        assert all(f"rank 0 of {ranks} on cpu" in member.said(rank=0) for ranks in (2, 1, 4))
        assert_whole(member.run)
        found = losses(member.run)
        assert [record["step"] for record in found] == [record["step"] for record in wanted]
        for one, other in zip(found, wanted, strict=True):
            assert one == pytest.approx(other, rel=1e-3, abs=1e-4)
