"""Nodes that die: with their tasks, and without them, so that a survivor trains beside its successor."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from bed import Bed, alive, wait_until
from trials import Trials, Undisturbed, assert_same_run


@pytest.mark.slow
def test_slurmd_dies_with_and_without_its_tasks(
    broken_bed: Bed, tmp_path: Path, stores: Path, undisturbed: Undisturbed
) -> None:
    bed = broken_bed
    trials = Trials(bed, tmp_path, stores)
    two_nodes = trials.profile("two-nodes", nodes=2, tasks_per_node=1, sbatch={"exclude": "n2"})
    one_node = trials.profile("one-node", sbatch={"exclude": "n1"})
    (cut_off,) = trials.submit(trials.config("cut-off", mapper={"sleep_s": 2.0}), one_node)
    (dead,) = trials.submit(trials.config("dead", mapper={"sleep_s": 0.5}), two_nodes)
    for member in (dead, cut_off):
        bed.wait_state(member.job, "RUNNING")
    assert (bed.fields(dead.job)["NodeList"], bed.fields(cut_off.job)["NodeList"]) == ("n[1,3]", "n2")
    cut_off.wait_step(4)
    survivors = [bed.rank_process(cut_off.job, rank) for rank in (0, 1)]
    tell(survivors, signal.SIGSTOP)  # stalled, or they would be done before Slurm has noticed
    bed.node("n2", "kill")
    dead.wait_step(4)
    bed.node("n1", "kill", "--tasks")
    bed.wait_state(dead.job, "PENDING")
    bed.node("n1", "start")
    wait_until("the successor has its number", lambda: len(list(cut_off.run.incarnations.iterdir())) == 2)
    assert all(map(alive, survivors)), cut_off.said()
    tell(survivors, signal.SIGCONT)
    wait_until("the survivors have noticed", lambda: not any(map(alive, survivors)))
    trials.finish(dead, cut_off)
    for member in (dead, cut_off):
        # More often where what slurmctld had to tell the dead node reaches the one that is back.
        assert bed.restarts(member.job) >= 1
        assert_same_run(member.run, undisturbed.run())
    assert "taken over by incarnation 2" in cut_off.said(), cut_off.said()


def tell(processes: list[int], number: signal.Signals) -> None:
    for process in processes:
        os.kill(process, number)
