"""`status`: what is told of a run from its files and from what Slurm says of its job."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from made_runs import MadeRoot, say, stop
from slurm_answers import WITHOUT_ACCOUNTING, Answer, queued

from launch.status import format_status, read_status
from xr2ct.cli import main
from xr2ct.errors import UserError
from xr2ct.run import write_atomically


def test_a_running_run_has_its_rate_and_what_is_left(made: MadeRoot, answer: Answer) -> None:
    made.run("a", steps=[10, 40])
    answer("squeue", queued("5_0", "RUNNING", "n[1-2]", left="1:00:00"))

    ((status,), trouble) = read_status([made.path])

    assert trouble == ""
    assert (status.job, status.state, status.node, status.step, status.steps) == (
        "5_0",
        "RUNNING",
        "n[1-2]",
        40,
        100,
    )
    assert (status.seconds_per_step, status.samples_per_second) == (2.0, 4.0)
    assert (status.limit_left_s, status.training_left_s) == (3600.0, 120.0)
    assert (status.checkpoint_step, status.restarts, status.best_psnr_db) == (40, 0, None)
    assert status.checkpoint_age_s is not None and status.checkpoint_age_s >= 0


def test_why_a_job_waits_is_slurms_reason(made: MadeRoot, answer: Answer) -> None:
    made.run("a", job="5_3")
    answer("squeue", queued("5_3", "PENDING", "", "Resources"))

    (rows, _) = read_status([made.path])

    assert (rows[0].state, rows[0].reason, rows[0].training_left_s) == ("PENDING", "Resources", None)
    assert "a: PENDING: Resources" in format_status(rows)


def test_a_run_that_waits_for_its_first_start_has_no_configuration_yet(
    made: MadeRoot, answer: Answer
) -> None:
    run = made.run("a")
    run.config_file.unlink()
    run.metrics_file.unlink()
    answer("squeue", queued("5_0", "PENDING", "", "Priority"))

    ((status,), _) = read_status([made.path])

    assert (status.state, status.step, status.steps) == ("PENDING", 0, None)


def test_done_is_the_last_steps_checkpoint_whatever_became_of_the_job(made: MadeRoot, answer: Answer) -> None:
    made.run("a", steps=[100])

    ((status,), _) = read_status([made.path])

    assert (status.state, status.reason) == ("done", "")


def test_why_a_pair_is_not_scored_stands_below(made: MadeRoot, answer: Answer) -> None:
    made.run("a")
    answer("squeue", queued("5_0", "RUNNING", "n1"))
    ((status,), _) = read_status([made.path])

    told = format_status([replace(status, to_score=3, given_up=1, given_up_why=("lctsc test: damaged",))])

    assert "3, 1 failed" in told and "a: not scored: lctsc test: damaged" in told


def test_why_it_failed_is_what_the_failing_rank_said(made: MadeRoot, answer: Answer) -> None:
    run = made.run("a", steps=[10])
    answer("sacct", "5_0|FAILED|n1|9|1:0|2026-11-22T22:26:35\n")
    stop(run, why="work failed", exit=1, requeued=False)
    say(run, "5_0-rank-0.out", "12:00 launch.job: rank 1 is gone: loss is nan; see its log")
    say(
        run,
        "5_0-rank-1.out",
        "12:00 launch.job: a: step 11: loss/mapper is nan",
        "the last good is step-000010",
    )
    say(run, "5_0-rank-1.out", "srun: error: n1: task 1: Exited with exit code 1")

    ((status,), _) = read_status([made.path])

    assert status.state == "FAILED"
    assert status.reason == "work failed; a: step 11: loss/mapper is nan the last good is step-000010"


def test_restarts_are_known_without_accounting_from_what_the_host_script_noted(
    made: MadeRoot, answer: Answer
) -> None:
    run = made.run("a", steps=[10])
    answer("scontrol", WITHOUT_ACCOUNTING)
    answer("squeue", "", "slurm_load_jobs error: Invalid job id specified\n", 1)
    stop(run, restart=0)
    stop(run, restart=1)
    stop(run, restart=2, why="work failed", exit=1, requeued=False)
    stop(run, job="4_0", restart=9)

    ((status,), _) = read_status([made.path])

    assert (status.state, status.restarts) == ("gone", 2)


def test_without_an_answer_the_files_are_told_and_the_command_fails(
    made: MadeRoot, answer: Answer, capsys: pytest.CaptureFixture[str]
) -> None:
    made.run("a", steps=[10])
    answer("squeue", "", "slurm_load_jobs error: Unable to contact slurm controller\n", 1)

    code = main(["status", str(made.path)])

    said = capsys.readouterr()
    assert code == 1
    assert "10 of 100" in said.out and "unknown" in said.out
    assert "Unable to contact slurm controller" in said.err


def test_slurmdbd_away_costs_only_what_slurmctld_has_forgotten(made: MadeRoot, answer: Answer) -> None:
    made.run("a", job="5_0")
    made.run("b", job="4_0")
    answer("squeue", queued("5_0", "RUNNING"))
    answer("sacct", "", "sacct: error: Problem talking to the database\n", 1)

    (rows, trouble) = read_status([made.path])

    assert [row.state for row in rows] == ["RUNNING", "unknown"]
    assert "Problem talking to the database" in trouble


def test_json_has_every_run_in_the_order_of_a_sweeps_values(
    made: MadeRoot, answer: Answer, capsys: pytest.CaptureFixture[str]
) -> None:
    for views in (10, 2, 1):
        made.run(f"t+views={views}", job=f"5_{views}")
    answer("squeue", "".join(queued(f"5_{i}", "RUNNING") for i in (10, 2, 1)))

    assert main(["status", str(made.path), "--json"]) == 0

    rows = json.loads(capsys.readouterr().out)
    assert [Path(row["run"]).name for row in rows] == ["t+views=1", "t+views=2", "t+views=10"]
    assert rows[0]["training_left_s"] is None and rows[0]["restarts"] == 0


def test_a_local_job_is_a_process_of_this_machine(made: MadeRoot) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    lives = subprocess.Popen(["sh", "-c", "read line # job.sh"], stdin=subprocess.PIPE)
    try:
        made.submitted(made.run("ends"), str(ended.pid), host=socket.gethostname())
        made.submitted(made.run("lives"), str(lives.pid), host=socket.gethostname())
        made.submitted(made.run("elsewhere"), str(os.getpid()), host="another")
        made.submitted(made.run("other"), str(os.getpid()), host=socket.gethostname())

        (rows, _) = read_status([made.path])
    finally:
        lives.communicate()

    assert {Path(row.run).name: row.state for row in rows} == {
        "ends": "FAILED", "lives": "RUNNING", "elsewhere": "UNKNOWN", "other": "FAILED",
    }  # fmt: skip


def test_a_torn_last_line_is_left_out(made: MadeRoot, answer: Answer) -> None:
    run = made.run("a", steps=[10])
    with run.metrics_file.open("a") as file:
        file.write('{"step": 11, "sec')

    ((status,), _) = read_status([made.path])

    assert status.step == 10


def test_a_job_file_that_cannot_be_read_is_named(made: MadeRoot, capsys: pytest.CaptureFixture[str]) -> None:
    run = made.run("a")
    write_atomically(run.path / "slurm" / "job.json", "{}")

    assert main(["status", str(made.path)]) == 1
    assert "job.json: cannot be read (KeyError" in capsys.readouterr().err


def test_a_folder_without_runs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="neither a run nor a folder with runs"):
        read_status([tmp_path])
    with pytest.raises(UserError, match="no such folder"):
        read_status([tmp_path / "none"])
