"""Told to stop in every way that a cluster has, or a rank killed: the member comes back and loses nothing."""

from __future__ import annotations

import os
import signal

import pytest
from bed import Bed
from trials import Member, Trials, Undisturbed, assert_same_run

# scancel's options. --batch: to the host script alone; neither: to the ranks alone; --full: to all, srun too.
KILLED = ("--full", "--signal=TERM")  # srun answers SIGTERM by killing its tasks
FIRST = (("--batch", "--signal=USR1"), ("--signal=USR2",), ("--signal=TERM",), None)

SECOND = (
    ("--batch", "--signal=TERM"),
    ("--batch", "--signal=USR2"),
    ("--signal=USR1",),
    ("--full", "--signal=TERM"),
)


def strike(bed: Bed, member: Member, signalled: tuple[str, ...] | None) -> None:
    if signalled is None:
        os.kill(bed.rank_process(member.job, 1), signal.SIGKILL)
    else:
        bed.run("scancel", *signalled, member.job)


@pytest.mark.slow
def test_each_signal_and_a_killed_rank(trials: Trials, undisturbed: Undisturbed) -> None:
    """Four members of one array: each is requeued by itself, twice, and ends as if nothing had been."""
    bed = trials.bed
    config = trials.config("stopped", sweep={"mapper.sleep_s": [2.0, 2.1, 2.2, 2.3]})
    members = trials.submit(config, trials.profile())
    assert [m.job.split("_")[1] for m in members] == ["0", "1", "2", "3"]
    for restart, (step, signals) in enumerate(((3, FIRST), (7, SECOND)), start=1):
        for member, signalled in zip(members, signals, strict=True):
            member.wait_step(step)
            strike(bed, member, signalled)
        for member in members:
            bed.wait_restart(member.job, restart)
    trials.finish(*members)
    for member in members:
        assert_same_run(member.run, undisturbed.run())
        assert bed.restarts(member.job) == 2
        assert [stop["requeued"] for stop in member.stops()] == [True, True, False]
    # Who is asked saves at the step it is at; who is killed goes back to its last checkpoint.
    asked, killed = members[:3], members[3]
    for member in asked:
        assert [stop["why"] for stop in member.stops()] == ["stopped", "stopped", "done"], member.said()
    assert killed.stops()[0]["why"] == "killed", killed.said()
