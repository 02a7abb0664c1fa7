"""What Slurm's commands print, as 22.05.8 printed it and as later versions do, read into states."""

from __future__ import annotations

from pathlib import Path

import pytest
from slurm_answers import WITH_ACCOUNTING, WITHOUT_ACCOUNTING, Answer, queue_line

from launch import slurm
from xr2ct.errors import WorkFailed

RUNNING = queue_line("5_0", "RUNNING", "n[1-2]", "None", "1", "1:02:03", "1-00:00:05", "0")
WAITING = queue_line("5_3", "PENDING", "", "ReqNodeNotAvail, UnavailableNodes:n1", "0", "0:00", "5:00", "0")
ENDED = queue_line("5_1", "FAILED", "n1", "NonZeroExitCode", "3", "0:00", "10:00", "256")


def test_a_running_member_has_its_node_times_and_restarts(answer: Answer) -> None:
    answer("squeue", RUNNING + WAITING)

    state = slurm.job_states(["5_0"])["5_0"]

    assert (state.state, state.node, state.reason, state.restarts) == ("RUNNING", "n[1-2]", "", 1)
    assert (state.elapsed_s, state.left_s, state.exit, state.alive) == (3723.0, 86405.0, "", True)


def test_a_waiting_member_has_a_reason_with_spaces_and_no_time_left(answer: Answer) -> None:
    answer("squeue", RUNNING + WAITING)

    state = slurm.job_states(["5_3"])["5_3"]

    assert (state.reason, state.node, state.left_s) == ("ReqNodeNotAvail, UnavailableNodes:n1", "", None)


def test_an_array_as_a_whole_lives_as_long_as_one_of_its_members(answer: Answer) -> None:
    answer("squeue", ENDED + RUNNING)

    assert slurm.alive(["5", "5_1", "5_0", "6"]) == {"5", "5_0"}
    assert slurm.job_states(["5"])["5"].state == "RUNNING"


def test_what_ended_minutes_ago_is_told_with_its_exit_code(answer: Answer) -> None:
    answer("squeue", ENDED)

    state = slurm.job_states(["5_1"])["5_1"]

    assert (state.state, state.exit, state.restarts, state.alive) == ("FAILED", "1:0", 3, False)


@pytest.mark.parametrize(
    "state", ["PENDING", "RUNNING", "REQUEUED", "REQUEUE_HOLD", "SPECIAL_EXIT", "SUSPENDED", "COMPLETING",
              "CONFIGURING", "RESIZING", "SIGNALING", "STAGE_OUT", "STOPPED"]
)  # fmt: skip
def test_every_state_that_may_lead_back_to_running_lives(answer: Answer, state: str) -> None:
    answer("squeue", queue_line("5_0", state, "", "None", "0", "0:00", "5:00", "0"))

    assert slurm.alive(["5_0"]) == {"5_0"}


def test_attempts_in_accounting_are_restarts_and_the_last_one_counts(answer: Answer) -> None:
    answer(
        "sacct",
        "47_0|REQUEUED|n[1-2]|1|0:0|2026-11-22T22:26:35\n"
        "47_0|REQUEUED|n[1-2]|2|0:0|2026-11-22T22:26:36\n"
        "47_0|CANCELLED by 1000|n[1-2]|7|0:15|2026-11-22T22:26:52\n",
    )

    state = slurm.job_states(["47_0"])["47_0"]

    assert (state.state, state.restarts, state.elapsed_s, state.exit) == ("CANCELLED", 2, 7.0, "0:15")


def test_members_that_never_began_are_one_row_of_accounting(answer: Answer) -> None:
    answer("sacct", "9_[0-3,7,10-14:2%2]|CANCELLED by 0|None assigned|0|0:0|2026-11-22T22:26:35\n")

    states = slurm.job_states([f"9_{i}" for i in range(16)])

    assert sorted(states, key=lambda id: int(id[2:])) == [f"9_{i}" for i in (0, 1, 2, 3, 7, 10, 12, 14)]
    assert states["9_7"].node == ""


def test_a_job_that_only_accounting_believes_to_run_is_lost(answer: Answer) -> None:
    answer("sacct", "7_0|RUNNING|n1|500|0:0|2026-11-22T22:26:35\n")

    state = slurm.job_states(["7_0"])["7_0"]

    assert (state.state, state.alive) == ("LOST", False)
    assert "RUNNING" in state.reason
    assert slurm.alive(["7_0"]) == set()


def test_a_forgotten_job_is_absent_where_there_is_no_accounting(answer: Answer) -> None:
    answer("scontrol", WITHOUT_ACCOUNTING)
    answer("sacct", "", "Slurm accounting storage is disabled\n", 1)
    answer("squeue", "", "slurm_load_jobs error: Invalid job id specified\n", 1)

    assert slurm.job_states(["5_0"]) == {}
    assert slurm.alive(["5_0"]) == set()


def test_no_answer_is_never_taken_for_gone(answer: Answer) -> None:
    answer("squeue", "", "slurm_load_jobs error: Unable to contact slurm controller (connect failure)\n", 1)

    with pytest.raises(WorkFailed, match="Unable to contact slurm controller"):
        slurm.alive(["5_0"])


def test_slurmdbd_away_matters_only_for_what_slurmctld_has_forgotten(answer: Answer) -> None:
    answer("squeue", RUNNING)
    answer("sacct", "", "sacct: error: Problem talking to the database: Connection refused\n", 1)

    assert slurm.job_states(["5_0"])["5_0"].state == "RUNNING"
    with pytest.raises(WorkFailed, match="Problem talking to the database"):
        slurm.job_states(["5_0", "5_9"])
    assert slurm.alive(["5_0", "5_9"]) == {"5_0"}


def test_a_users_own_formats_change_no_question(
    answer: Answer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bin" / "squeue").write_text('#!/bin/sh\n[ -z "$SQUEUE_STATES$SACCT_FORMAT" ] || exit 9\n')
    monkeypatch.setenv("SQUEUE_STATES", "RUNNING")
    monkeypatch.setenv("SACCT_FORMAT", "JobID")

    assert slurm.alive(["5_0"]) == set()


def test_without_slurm_the_missing_command_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(WorkFailed, match="squeue is not on PATH"):
        slurm.alive(["5_0"])


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0:07", 7),
        ("1:02:03", 3723),
        ("2-00:00:01", 172801),
        ("UNLIMITED", None),
        ("NOT_SET", None),
        ("INVALID", None),
    ],
)
def test_times_as_squeue_writes_them(answer: Answer, text: str, seconds: float | None) -> None:
    answer("squeue", queue_line("5_0", "RUNNING", "n1", "None", "0", "0:00", text, "0"))

    assert slurm.job_states(["5_0"])["5_0"].left_s == seconds


@pytest.mark.parametrize(("qos", "room"), [(None, 5), ("few", 2), ("many", 97)])
def test_room_for_submissions_is_the_lowest_limit_less_what_is_queued(
    answer: Answer, tmp_path: Path, qos: str | None, room: int
) -> None:
    """Of the account and the QoS that the jobs would be of, not of any that the user could use."""
    answer(
        "scontrol",
        WITH_ACCOUNTING + "MaxJobCount = 100\nAccountingStorageEnforce = associations,limits,qos\n",
    )
    answer("squeue", "lab|normal\nlab|normal\nother|few\n")
    answer("sacctmgr", "")
    script = """#!/bin/sh
case "$*" in
    *"show user"*) echo lab ;;
    *"account=lab"*) echo "||normal" ;;
    *"qos normal"*) echo "7|" ;;
    *"qos few"*) echo "4|3" ;;
    *) echo "|" ;;
esac
"""
    (tmp_path / "bin" / "sacctmgr").write_text(script)

    assert slurm.submission_room(qos=qos) == room


def test_room_is_slurmctlds_where_no_limit_is_enforced(answer: Answer) -> None:
    answer("scontrol", WITH_ACCOUNTING + "MaxJobCount = 100\nAccountingStorageEnforce = none\n")
    answer("squeue", "lab|normal\n")

    assert slurm.submission_room() == 99


def test_scrontab_needs_both_the_site_and_the_command(answer: Answer) -> None:
    answer("scontrol", "ScronParameters = enable\n")
    assert not slurm.has_scrontab()

    answer("scrontab", "")
    assert slurm.has_scrontab()

    answer("scontrol", "ScronParameters = (null)\n")
    assert not slurm.has_scrontab()
