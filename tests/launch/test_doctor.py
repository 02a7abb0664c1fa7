"""`doctor`: what each check makes of what it finds, and how ranks' outcomes become one."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from slurm_answers import Answer

from launch import check_files, doctor
from launch.check import Failed, Rank, Skipped, run_check
from launch.checks import CHECKS
from launch.profiles import Profile
from xr2ct.cli import main


@pytest.fixture
def rank(tmp_path: Path) -> Rank:
    """The only rank of a job on a machine without a GPU."""
    return Rank(Profile(executor="slurm"), tmp_path, 0, 1, "n1")


def last(rank: Rank) -> dict[str, Any]:
    lines = (rank.folder / f"rank-{rank.rank}.jsonl").read_text().splitlines()
    return dict(json.loads(lines[-1]))


def of_profile(rank: Rank, **keys: Any) -> Rank:
    return Rank(Profile(executor="slurm", **keys), rank.folder, rank.rank, rank.world_size, rank.node)


def fails(told: str) -> Callable[[Rank], str]:
    def check(rank: Rank) -> str:
        raise Failed(told)

    return check


def test_an_outcome_begins_before_the_check_and_ends_with_it(rank: Rank) -> None:
    def check(rank: Rank) -> str:
        assert last(rank)["outcome"] == "BEGUN"
        return "fine"

    run_check(rank, "scratch", check)

    assert last(rank) == {"check": "scratch", "outcome": "OK", "told": "fine", "rank": 0, "node": "n1"}


@pytest.mark.parametrize(
    ("error", "outcome", "told"),
    [
        (Failed("no"), "FAILED", "no"),
        (Skipped("not here"), "SKIPPED", "not here"),
        (ImportError("No module named x"), "FAILED", "ImportError: No module named x"),
    ],
)
def test_whatever_a_check_raises_is_its_outcome(
    rank: Rank, error: Exception, outcome: str, told: str
) -> None:
    def check(rank: Rank) -> str:
        raise error

    run_check(rank, "packages", check)

    assert (last(rank)["outcome"], last(rank)["told"]) == (outcome, told)


def test_a_check_without_end_is_ended_with_its_process(rank: Rank) -> None:
    child = os.fork()
    if child == 0:
        run_check(rank, "rendezvous", lambda rank: os.read(os.pipe()[0], 1).decode(), limit_s=0.2)
        os._exit(0)
    _, status = os.waitpid(child, 0)

    assert os.waitstatus_to_exitcode(status) == 1
    assert (last(rank)["outcome"], last(rank)["told"]) == ("FAILED", "no end after 0 s")


def test_scratch_that_cannot_be_written_is_named(rank: Rank) -> None:
    with pytest.raises(Failed, match="/proc/none: No such file or directory"):
        CHECKS["scratch"](of_profile(rank, scratch="/proc/none"))


def test_scratch_may_name_a_variable(rank: Rank, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHERE", str(tmp_path))

    assert str(tmp_path / "x") in CHECKS["scratch"](of_profile(rank, scratch="$WHERE/x"))


def test_locks_hold_here_and_leave_nothing_behind(rank: Rank, tmp_path: Path) -> None:
    CHECKS["scratch locks"](of_profile(rank, scratch=str(tmp_path / "s")))
    CHECKS["run root"](rank)

    assert list((tmp_path / "s").iterdir()) == []
    assert [p.name for p in tmp_path.iterdir()] == ["s"]


def test_a_file_system_whose_locks_keep_nobody_out_fails(
    rank: Rank, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check_files, "_CONTENDER", "import sys; sys.exit(3)")

    with pytest.raises(Failed, match="two processes could hold the same lock"):
        CHECKS["scratch locks"](of_profile(rank, scratch=str(tmp_path)))


def test_a_gpu_that_is_asked_for_and_not_there_fails(rank: Rank) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    with pytest.raises(Failed, match=r"torch is built for the CPU|no CUDA device"):
        CHECKS["gpu"](of_profile(rank, gpus_per_node=1))
    with pytest.raises(Skipped, match="asks for no GPU"):
        CHECKS["gpu"](rank)


def test_dali_runs_on_the_cpu(rank: Rank) -> None:
    assert "on the CPU" in CHECKS["dali"](rank)


def test_an_mlflow_server_that_does_not_answer_fails(rank: Rank, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with pytest.raises(Failed, match="refused"):
        CHECKS["mlflow"](rank)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///x.db")
    with pytest.raises(Skipped):
        CHECKS["mlflow"](rank)


def test_a_local_disk_is_checked_only_where_the_profile_names_one(rank: Rank) -> None:
    with pytest.raises(Skipped):
        CHECKS["local disk"](rank)
    with pytest.raises(Failed, match="/proc/none"):
        CHECKS["local disk"](of_profile(rank, local_disk="/proc/none"))


def two_ranks(tmp_path: Path, *outcomes: tuple[int, str, str]) -> doctor._Job:
    job = doctor._Job(Profile(executor="slurm"), tmp_path, ranks=2)
    job.lines = [
        {"check": "scratch", "outcome": outcome, "told": told, "rank": rank, "node": f"n{rank + 1}"}
        for rank, outcome, told in outcomes
    ]
    return job


def test_one_rank_that_fails_fails_the_check_with_the_key_that_mends_it(tmp_path: Path) -> None:
    job = two_ranks(tmp_path, (0, "OK", "fine"), (1, "FAILED", "no room"))

    outcome = doctor._over_ranks(job, "scratch", job.lines)

    assert (outcome.outcome, outcome.told) == ("FAILED", "rank 1 on n2: no room")
    assert outcome.key is not None and outcome.key.startswith("scratch")


def test_a_rank_that_ends_within_a_check_fails_it_with_its_last_words(tmp_path: Path) -> None:
    (tmp_path / "5_0-rank-1.out").write_text("...\nSegmentation fault\n")
    job = two_ranks(tmp_path, (0, "OK", "fine"), (1, "BEGUN", ""))

    outcome = doctor._over_ranks(job, "scratch", job.lines)

    assert (outcome.outcome, outcome.told) == ("FAILED", "rank 1 on n2 ended in it: Segmentation fault")


def test_the_rank_that_could_not_begin_is_heard_before_the_one_that_was_cancelled_for_it(
    tmp_path: Path,
) -> None:
    (tmp_path / "5_0-rank-0.out").write_text(
        "slurmstepd-n1: error: *** STEP 5.0 ON n1 CANCELLED AT 2026-11-23T01:30:53 ***\n"
    )
    (tmp_path / "5_0-rank-1.out").write_text(
        "slurmstepd-n2: error: execve(): /opt/none/bin/python: No such file\n"
    )

    assert "/opt/none/bin/python" in doctor._last_words(
        doctor._Job(Profile(executor="slurm"), tmp_path, ranks=2)
    )


def test_a_rank_that_never_came_to_a_check_fails_it(tmp_path: Path) -> None:
    job = two_ranks(tmp_path, (0, "OK", "fine"))

    assert doctor._over_ranks(job, "scratch", job.lines).told.startswith("rank 1 did not come to it")


def test_every_check_has_a_key_that_mends_it() -> None:
    assert {*CHECKS, "job", "python", "requeue", "submit from"} == doctor._KEYS.keys()


def test_a_partition_that_is_not_there_is_refused_before_anything_runs(
    tmp_path: Path, answer: Answer, capsys: pytest.CaptureFixture[str]
) -> None:
    profile = tmp_path / "p.yaml"
    profile.write_text("executor: slurm\npartition: nowhere\n")
    answer("sinfo", "nowhere 0\n")
    answer("sbatch", "", "sbatch: error: invalid partition specified: nowhere\n", 1)

    code = main(["doctor", "--cluster", str(profile), "--run-root", str(tmp_path / "runs")])

    assert code == 2
    assert "partition: nowhere" in capsys.readouterr().err
    assert not list((tmp_path / "runs" / ".doctor").glob("*"))
