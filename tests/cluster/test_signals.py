"""Told to stop in every way that a cluster has, or a rank killed: the member comes back and loses nothing."""

from __future__ import annotations

import os
import signal

import pytest
from trials import Trials, Undisturbed, assert_same_run

WAYS = ("USR1 to the host script", "USR2 to the ranks", "TERM to all", "SIGKILL to one rank")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_each_signal_and_a_killed_rank(trials: Trials, undisturbed: Undisturbed) -> None:
    """Four members of one array, at once: each is requeued by itself, and ends as if nothing had happened."""
    bed = trials.bed
    config = trials.config("stopped", sweep={"mapper.sleep_s": [0.5, 0.51, 0.52, 0.53]})
    members = trials.submit(config, trials.profile())
    assert [m.job.split("_")[1] for m in members] == ["0", "1", "2", "3"]
    host, ranks, everything, killed = members
    for member in members:
        member.wait_step(4)
    bed.run("scancel", "--batch", "--signal=USR1", host.job)
    bed.run("scancel", "--signal=USR2", ranks.job)
    bed.run("scancel", "--full", "--signal=TERM", everything.job)
    os.kill(bed.rank_process(killed.job, 1), signal.SIGKILL)
    for member in members:
        bed.wait_restart(member.job)
    trials.finish(*members)
    for member, way in zip(members, WAYS, strict=True):
        assert_same_run(member.run, undisturbed.run())
        assert [stop["requeued"] for stop in member.stops()] == [True, False], way
        assert bed.restarts(member.job) == 1, way
    # Who is asked saves at the step it is at; who is killed goes back to its last checkpoint.
    for member in (host, ranks, everything):
        assert set(member.run.steps()) - set(undisturbed.run().steps()), member.said()
    assert killed.run.steps() == undisturbed.run().steps()
