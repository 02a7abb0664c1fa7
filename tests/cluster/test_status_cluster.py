"""status, logs, cancel and resubmit on a real Slurm, with accounting and without."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest
from bed import Bed, wait_until
from trials import Trials


def rows(trials: Trials) -> list[dict[str, Any]]:
    """`xr2ct status --json`."""
    return list(json.loads(trials.bed.xr2ct("status", trials.run_root, "--json").stdout))


def status_of(trials: Trials, *states: str) -> list[dict[str, Any]] | None:
    """All runs, once they are in these states."""
    told = rows(trials)
    return told if [row["state"] for row in told] == list(states) else None


@pytest.mark.slow
def test_seen_cancelled_and_submitted_again(trials: Trials) -> None:
    """Two members, one at a time: told of, logged, cancelled together, and only they submitted again."""
    bed = trials.bed
    config = trials.config("watched", sweep={"mapper.sleep_s": [2.0, 2.01]})
    members = trials.submit(config, trials.profile(array_parallel=1))
    first, second = members
    first.wait_step(4)

    told = wait_until(
        "one runs, one waits for it", lambda: status_of(trials, "RUNNING", "PENDING"), 60.0, every_s=1.0
    )
    assert [row["job"] for row in told] == [first.job, second.job]
    assert told[0]["node"] in ("n1", "n2") and told[0]["steps"] == 12 and told[0]["step"] >= 4
    assert 1.9 < told[0]["seconds_per_step"] < 30 and told[0]["limit_left_s"] > 600
    assert told[0]["checkpoint_step"] >= 3 and told[0]["training_left_s"] > 0
    # 2 splits of a cohort with its truth and two priors beside the checkpoints; nobody scores anything here.
    assert told[0]["to_score"] >= 2 and told[0]["being_scored"] == 0
    assert told[1]["reason"] == "JobArrayTaskLimit" and told[1]["step"] == 0

    said = bed.xr2ct("logs", first.run.path, "--rank", "1").stdout
    assert "launch" in said or "rank 1 of 2" in said
    assert "attempt 0" in bed.xr2ct("logs", first.run.path, "--host").stdout

    cancelled = bed.xr2ct("cancel", trials.run_root).stdout
    assert f"job {first.job} cancelled" in cancelled and f"job {second.job} cancelled" in cancelled
    for member in members:
        assert bed.wait_ended(member.job) == "CANCELLED"
    wait_until("status says so", lambda: status_of(trials, "CANCELLED", "CANCELLED"), 60.0, every_s=1.0)
    # The ranks saved and stopped, and nobody brought the member back.
    assert bed.restarts(first.job) == 0

    submitted = bed.xr2ct("resubmit", trials.run_root).stdout
    again = [member.again() for member in members]
    arrays = {member.job.partition("_")[0] for member in again}
    assert len(arrays) == 1 and not arrays & {first.job.partition("_")[0]}
    assert all(f"job {member.job}: {member.run.path}" in submitted for member in again)
    left = bed.xr2ct("resubmit", again[0].run.path).stdout
    assert f"left alone, its job {again[0].job} lives" in left

    trials.finish(*again)
    told = rows(trials)
    assert [row["state"] for row in told] == ["done", "done"]
    assert [record["step"] for record in first.run.metrics()] == list(range(1, 13))
    assert "left alone, it is done" in bed.xr2ct("resubmit", first.run.path).stdout
    assert "nothing to cancel, it is done" in bed.xr2ct("cancel", first.run.path).stdout


@pytest.mark.slow
def test_a_run_that_fails_says_why(trials: Trials) -> None:
    (member,) = trials.submit(trials.config("fails", mapper={"explode_at": 5}), trials.profile())
    trials.bed.wait_ended(member.job)

    (told,) = rows(trials)

    assert told["state"] == "FAILED"
    assert "work failed; " in told["reason"] and ": step " in told["reason"]


ASK = """
import json, sys
from launch.slurm import alive, has_accounting, job_states
states = {id: job.state for id, job in job_states(sys.argv[1:]).items()}
print(json.dumps([has_accounting(), states, sorted(alive(sys.argv[1:]))]))
"""


def test_states_come_from_squeue_where_there_is_no_accounting(bare_bed: Bed) -> None:
    array = bare_bed.run(
        "sbatch", "--parsable", "--array=0-2%1", "--mem=50M", "--output=/dev/null", "--wrap",
        '[ "$SLURM_ARRAY_TASK_ID" = 0 ] || sleep 300',
    ).stdout.strip()  # fmt: skip
    ids = [f"{array}_{i}" for i in range(3)]
    bare_bed.wait_state(ids[1], "RUNNING")

    said = json.loads(bare_bed.run(sys.executable, "-c", ASK, *ids, "999_0").stdout)

    assert said == [False, dict(zip(ids, ("COMPLETED", "RUNNING", "PENDING"), strict=True)), ids[1:]]
