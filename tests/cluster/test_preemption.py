"""Preempted by a partition of higher priority; and time limits shorter than the run."""

from __future__ import annotations

import pytest
from trials import Trials, Undisturbed, assert_same_run


@pytest.mark.slow
def test_preempted_by_a_higher_partition(trials: Trials, undisturbed: Undisturbed) -> None:
    """Slurm itself requeues: SIGTERM, a checkpoint within the grace, and one restart, not two."""
    bed = trials.bed
    config = trials.config("preempted", mapper={"sleep_s": 0.5})
    profile = trials.profile(partition="low", sbatch={"nodelist": "n1"})
    (member,) = trials.submit(config, profile)
    member.wait_step(4)
    higher = ("--partition=high", "--nodelist=n1", "--exclusive", "--output=/dev/null", "--wrap", "sleep 5")
    winner = bed.run("sbatch", "--parsable", *higher).stdout.strip()
    bed.wait_state(winner, "RUNNING", "COMPLETED", timeout_s=60)
    assert bed.state(member.job) != "RUNNING"
    saved = member.run.steps()[-1]
    assert saved >= 4 and saved == member.step(), member.said()
    bed.wait_restart(member.job)
    trials.finish(member)
    assert bed.restarts(member.job) == 1
    assert_same_run(member.run, undisturbed.run())


@pytest.mark.slow
def test_time_limit_far_shorter_than_the_run(trials: Trials, undisturbed: Undisturbed) -> None:
    """Two minutes: told by Slurm's warning, saved, requeued, more than once, until all steps are done."""
    bed = trials.bed
    # Twelve steps of 20 seconds, and 80 seconds a round: at most four a round, however fast the machine.
    config = trials.config("limited", mapper={"sleep_s": 10.0})
    (member,) = trials.submit(config, trials.profile(time_limit_min=2, signal_lead_s=40))
    trials.finish(member, timeout_s=1200)
    stops = member.stops()
    assert bed.restarts(member.job) == len(stops) - 1 >= 2
    assert [s["why"] for s in stops] == ["stopped"] * (len(stops) - 1) + ["done"]
    assert_same_run(member.run, undisturbed.run())
