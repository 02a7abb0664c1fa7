"""The number of ranks changes between restarts: the global batch and the order of the data stay."""

from __future__ import annotations

import pytest
from trials import Trials, Undisturbed, assert_whole, losses


@pytest.mark.slow
@pytest.mark.parametrize("zero_stage", [0, 1])
def test_two_ranks_then_one_then_four(trials: Trials, undisturbed: Undisturbed, zero_stage: int) -> None:
    bed = trials.bed
    training = {"zero_stage": zero_stage}
    config = trials.config("elastic", mapper={"sleep_s": 0.5}, training=training)
    (member,) = trials.submit(config, trials.profile())
    for ranks, step in ((1, 4), (4, 8)):
        member.wait_step(step)
        bed.xr2ct("cancel", member.run.path)
        assert bed.wait_ended(member.job) == "CANCELLED"
        bed.xr2ct("resubmit", member.run.path, "--cluster", trials.profile(tasks_per_node=ranks))
        member = member.again()
    trials.finish(member)
    assert_whole(member.run)
    found, wanted = losses(member.run), losses(undisturbed.run())
    assert [record["step"] for record in found] == [record["step"] for record in wanted]
    for one, other in zip(found, wanted, strict=True):
        assert one == pytest.approx(other, rel=1e-4, abs=1e-5)
