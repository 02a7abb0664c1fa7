"""A rank that no longer moves is found, its stacks are kept, and the job comes back."""

from __future__ import annotations

import os
import signal

import pytest
from trials import Trials, Undisturbed, assert_same_run


@pytest.mark.slow
def test_a_stopped_rank_is_found_and_the_job_requeued(trials: Trials, undisturbed: Undisturbed) -> None:
    bed = trials.bed
    config = trials.config("hung", mapper={"sleep_s": 0.5})
    (member,) = trials.submit(config, trials.profile(hung_s=40))
    member.wait_step(4)
    os.kill(bed.rank_process(member.job, 1), signal.SIGSTOP)
    bed.wait_restart(member.job)
    trials.finish(member)
    first, last = member.stops()
    assert (first["why"], first["requeued"], last["why"]) == ("hung", True, "done")
    (stacks,) = [p for p in member.slurm.glob("stacks-*-0-rank-0.txt") if p.stat().st_size]
    # The rank that waits in vain shows where; the log names the one it waits for.
    assert "methods" in stacks.read_text(encoding="utf-8")
    assert "rank 1" in member.said(rank=0)
    assert_same_run(member.run, undisturbed.run())
