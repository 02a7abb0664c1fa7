"""`logs`: which file is read, from where, and until when."""

from __future__ import annotations

import threading
import time

import pytest
from made_runs import MadeRoot, say
from slurm_answers import Answer, queued

from launch.logs import read_log
from xr2ct.cli import main
from xr2ct.errors import UserError


def test_the_last_lines_of_rank_0_are_the_default(made: MadeRoot, capsys: pytest.CaptureFixture[str]) -> None:
    run = made.run("a")
    say(run, "5_0-rank-0.out", *(f"line {i}" for i in range(100)))
    say(run, "4_0-rank-0.out", "of an earlier job")

    assert main(["logs", str(run.path), "--lines", "2"]) == 0
    assert capsys.readouterr().out == "line 98\nline 99\n"


def test_the_host_script_has_a_log_of_its_own(made: MadeRoot) -> None:
    run = made.run("a")
    say(run, "host-5_0.out", "attempt 0 on n1, 2 tasks")

    assert list(read_log(run, None, 10, follow=False)) == ["attempt 0 on n1, 2 tasks"]


def test_an_unfinished_line_is_shown_and_odd_bytes_do_no_harm(made: MadeRoot) -> None:
    run = made.run("a")
    say(run, "5_0-rank-0.out", "whole")
    with (run.path / "slurm" / "5_0-rank-0.out").open("ab") as file:
        file.write(b"\xff torn")

    assert list(read_log(run, 0, 10, follow=False)) == ["whole", "\ufffd torn"]


def test_following_ends_with_the_job_and_misses_nothing(made: MadeRoot, answer: Answer) -> None:
    run = made.run("a")
    say(run, "5_0-rank-0.out", "early")
    answer("squeue", queued("5_0", "RUNNING"))
    seen: list[str] = []

    def follow() -> None:
        seen.extend(read_log(run, 0, 10, follow=True, ask_every_s=0.2))

    reader = threading.Thread(target=follow)
    reader.start()
    time.sleep(0.5)
    say(run, "5_0-rank-0.out", "late")
    with (run.path / "slurm" / "5_0-rank-0.out").open("a") as file:
        file.write("torn")
    answer("squeue", queued("5_0", "COMPLETED"))
    reader.join(timeout=30)

    assert not reader.is_alive()
    assert seen == ["early", "late", "torn"]


def test_a_rank_that_is_not_there_is_refused_with_those_that_are(made: MadeRoot) -> None:
    with pytest.raises(UserError, match="no rank 7; job 5_0 has ranks 0 to 1"):
        list(read_log(made.run("a"), 7, 10, follow=False))


def test_a_job_that_has_said_nothing_yet_is_told_so(
    made: MadeRoot, answer: Answer, caplog: pytest.LogCaptureFixture
) -> None:
    run = made.run("a")
    answer("squeue", queued("5_0", "PENDING", "", "Resources"))

    assert main(["logs", str(run.path)]) == 0
    assert "job 5_0: PENDING (Resources), nothing logged yet" in caplog.text


def test_a_run_without_a_job_is_refused(made: MadeRoot) -> None:
    with pytest.raises(UserError, match="no job was submitted for it"):
        list(read_log(made.run("a", job=None), 0, 10, follow=False))
