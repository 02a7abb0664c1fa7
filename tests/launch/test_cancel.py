"""`cancel` and `resubmit`: which jobs are ended, and which runs are submitted again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from made_runs import MadeRoot
from slurm_answers import Answer, queued

import launch.resubmit
from launch.cancel import cancel
from launch.resubmit import resubmit
from launch.submitted import Submitted, read_submission
from xr2ct.errors import WorkFailed
from xr2ct.run import Run

Asked = list[tuple[list[str], str, dict[str, str], bool]]


@pytest.fixture
def resubmitted(monkeypatch: pytest.MonkeyPatch) -> Asked:
    """Each array that `resubmit` asks for: names of its runs, the cluster, whose jobs they take over, and
    whether their code is to be today's."""
    asked: Asked = []

    def submit(
        runs: list[Path], profile: object, cluster: str, takes_over: dict[Path, str], refresh_code: bool
    ) -> list[Submitted]:
        jobs = {path.name: job for path, job in takes_over.items()}
        asked.append(([run.name for run in runs], cluster, jobs, refresh_code))
        return [told for run in runs if (told := read_submission(Run(run)))]

    def nothing(*arguments: Any) -> None:
        return None

    monkeypatch.setattr(launch.resubmit.submit, "resubmit", submit)
    monkeypatch.setattr(launch.resubmit, "load_profile", nothing)
    monkeypatch.setattr(launch.resubmit.evaluator, "start", nothing)
    monkeypatch.setattr(launch.resubmit.evaluator, "reset_attempts", lambda run: 0)
    return asked


def test_waiting_and_running_members_are_cancelled_and_the_rest_told_of(
    made: MadeRoot, answer: Answer, tmp_path: Path
) -> None:
    made.run("done", steps=[100], job="5_0")
    made.run("runs", steps=[10], job="5_1")
    made.run("waits", job="5_2")
    made.run("ended", steps=[10], job="4_0")
    answer("squeue", queued("5_1", "RUNNING") + queued("5_2", "PENDING", ""))

    told = cancel([made.path])

    assert (tmp_path / "bin" / "scancel.asked").read_text() == "5_1 5_2\n"
    assert [line.removeprefix(f"{made.path}/") for line in told] == [
        "done: nothing to cancel, it is done",
        "ended: nothing to cancel, its job has ended",
        "runs: job 5_1 cancelled",
        "waits: job 5_2 cancelled",
    ]


def test_the_evaluator_goes_on_for_another_run_of_the_root(made: MadeRoot, answer: Answer) -> None:
    one = made.run("one", job="5_0")
    made.run("two", job="5_1")
    answer("squeue", queued("5_0", "RUNNING") + queued("5_1", "RUNNING"))

    assert cancel([one.path])[-1] == f"{made.path}: its evaluator goes on for 1 other run"


def test_only_what_ended_before_its_last_step_is_submitted_again(
    made: MadeRoot, answer: Answer, resubmitted: Asked
) -> None:
    made.run("done", steps=[100], job="5_0")
    made.run("runs", steps=[10], job="5_1")
    made.run("failed", steps=[10], job="5_2")
    made.run("cancelled", job="5_3")
    made.run("by-hand", steps=[10], job=None)
    answer("squeue", queued("5_1", "RUNNING") + queued("5_2", "FAILED"))

    told = resubmit([made.path])

    jobs = {"cancelled": "5_3", "failed": "5_2"}
    assert resubmitted == [(["cancelled", "failed"], "devcluster", jobs, False)]
    left = [line.removeprefix(f"{made.path}/") for line in told if "left alone" in line]
    assert left == [
        "by-hand: left alone, no job was ever submitted for it (`xr2ct submit` does)",
        "done: left alone, it is done",
        "runs: left alone, its job 5_1 lives",
    ]


def test_runs_of_two_clusters_are_one_array_on_the_cluster_named(
    made: MadeRoot, answer: Answer, resubmitted: Asked
) -> None:
    made.submitted(made.run("a"), "5_0", cluster="one")
    made.submitted(made.run("b"), "6_0", cluster="two")

    resubmit([made.path], "three", refresh_code=True)
    assert resubmitted == [(["a", "b"], "three", {"a": "5_0", "b": "6_0"}, True)]

    resubmitted.clear()
    resubmit([made.path])
    assert [(names, cluster) for names, cluster, *_ in resubmitted] == [(["a"], "one"), (["b"], "two")]


def test_nothing_is_submitted_twice_where_slurm_does_not_answer(
    made: MadeRoot, answer: Answer, resubmitted: Asked
) -> None:
    made.run("a")
    answer("squeue", "", "slurm_load_jobs error: Unable to contact slurm controller\n", 1)

    with pytest.raises(WorkFailed, match="Unable to contact"):
        resubmit([made.path])
    assert resubmitted == []
