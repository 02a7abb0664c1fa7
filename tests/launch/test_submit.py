"""`xr2ct submit`: what is refused before anything is submitted, and what a submission leaves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from slurm_answers import WITH_ACCOUNTING, Answer

from launch import submit as launch_submit
from launch.submit import plan, resubmit, submit
from launch.submitted import read_submission
from xr2ct.cli import main
from xr2ct.config import dump, load_experiment
from xr2ct.errors import UserError, WorkFailed
from xr2ct.run import Run

TOLD = {
    "memory": [{"ranks": n, "micro_batch": 8 // n, "bytes_by_zero_stage": [10**9] * 4} for n in (1, 2, 4, 8)],
    "step_flops": 10**12,
    "checkpoint_bytes": {"weights": 10**6, "engines": 10**7},
}


class Site:
    """A folder with a configuration and a profile, on a machine whose sbatch answers."""

    def __init__(self, folder: Path, answer: Answer) -> None:
        self.folder, self.answer = folder, answer
        self.slurm("Submitted batch job 77\n")
        answer("srun", "")
        answer("sacctmgr", "")
        answer("sinfo", "debug* 1-00:00:00\nlong infinite\n")

    def slurm(self, sbatch: str, error: str = "", code: int = 0) -> None:
        self.answer("sbatch", sbatch, error, code)

    def config(self, **values: Any) -> Path:
        path = self.folder / "it's.yaml"
        path.write_text(yaml.safe_dump({"name": "tiny", "run_root": "runs", **values}))
        return path

    def cluster(self, **keys: Any) -> str:
        path = self.folder / "mine.yaml"
        path.write_text(yaml.safe_dump({"executor": "slurm", "tasks_per_node": 2} | keys))
        return str(path)

    def asked(self, command: str) -> list[str]:
        path = self.folder / "bin" / f"{command}.asked"
        return path.read_text().splitlines() if path.exists() else []


@pytest.fixture
def site(tmp_path: Path, answer: Answer, monkeypatch: pytest.MonkeyPatch) -> Site:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(launch_submit.start, "open_training_data", lambda _: (None, []))
    monkeypatch.setattr("launch.cost.summarise", lambda *_: TOLD)
    return Site(tmp_path, answer)


SWEEP = {"seed": [1, 2]}


def test_a_sweep_is_one_array_and_each_run_knows_its_job(site: Site) -> None:
    planned = plan(site.config(sweep=SWEEP), ["training.steps=2000"], site.cluster(partition="p"))
    submitted = submit(planned)
    assert len(site.asked("sbatch")) == 1
    assert [s.job for s in submitted] == ["77_0", "77_1"]
    for index, one in enumerate(submitted):
        told = json.loads((one.run / "slurm" / "job.json").read_text())
        assert told["job"] == f"77_{index}" and told["array"] == "77" and told["executor"] == "slurm"
        assert told["overrides"] == ["training.steps=2000", f"seed={index + 1}"]
        assert told["profile"]["partition"] == "p"
        assert Path(told["config"]).is_absolute() and Path(told["cluster"]).is_absolute()
        member = Path(told["submission"]) / "members" / str(index)
        assert (member / "log").resolve() == (one.run / "slurm").resolve()
        assert (member / "code" / "launch" / "submit.py").is_file()


def test_the_dry_run_prints_what_would_be_submitted_and_writes_nothing(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    config, cluster = site.config(sweep=SWEEP), site.cluster()
    before = {p.name for p in site.folder.iterdir()}
    assert main(["submit", str(config), "--cluster", cluster, "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert {p.name for p in site.folder.iterdir()} == before and not site.asked("sbatch")
    (one, _) = submit(plan(config, [], cluster))
    assert (one.submission / "submission.sh").read_text() == shown


def test_submit_prints_each_job_and_its_run_and_what_it_costs(
    site: Site, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("launch.evaluator.start", lambda *_: "78_0")
    assert main(["submit", str(site.config(sweep=SWEEP)), "--cluster", site.cluster(array_parallel=1)]) == 0
    told = capsys.readouterr()
    assert told.out.splitlines() == [
        "job 77_0: runs/tiny+seed=1",
        "job 77_1: runs/tiny+seed=2",
        f"evaluator 78_0: {site.folder}/runs",
    ]
    assert "2 runs, 1 at once, 2 ranks on CPUs each" in told.err
    assert "about 1.0 GB" in told.err


@pytest.mark.parametrize("error", ["invalid partition specified: x", "Unable to contact slurm controller"])
def test_a_submission_that_fails_leaves_nothing(site: Site, error: str) -> None:
    planned = plan(site.config(sweep=SWEEP), [], site.cluster())
    site.slurm("", f"sbatch: error: {error}\n", 1)
    with pytest.raises((UserError, WorkFailed), match=error):
        submit(planned)
    assert not [p for p in (site.folder / "runs").rglob("*") if p.is_file()]
    assert [p.name for p in (site.folder / "runs").iterdir()] == [".submissions"]


def test_jobs_that_cannot_be_noted_are_cancelled(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    planned = plan(site.config(sweep=SWEEP), [], site.cluster())

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(launch_submit, "write_atomically", full)
    with pytest.raises(OSError, match="No space"):
        submit(planned)
    assert site.asked("scancel") == ["77_0 77_1"]
    assert not list((site.folder / "runs").glob("tiny*"))


def test_what_a_run_had_before_a_failed_submission_stays(site: Site) -> None:
    kept = site.folder / "runs" / "tiny" / "metrics.jsonl"
    kept.parent.mkdir(parents=True)
    kept.touch()
    planned = plan(site.config(), [], site.cluster())
    site.slurm("", "sbatch: error: no\n", 1)
    with pytest.raises(UserError):
        submit(planned)
    assert [p.name for p in kept.parent.iterdir()] == ["metrics.jsonl"]


def test_a_run_that_a_job_trains_is_refused(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    config, cluster = site.config(sweep=SWEEP), site.cluster()
    submit(plan(config, [], cluster))
    monkeypatch.setattr("launch.submitted.slurm.alive", lambda ids: {"77_1"} & set(ids))
    with pytest.raises(UserError, match=r"tiny\+seed=2: job 77_1 trains it already"):
        plan(config, [], cluster)
    assert len(plan(config, ["seed=1"], cluster).members) == 1


def test_a_finished_run_is_left_alone(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    config = site.config()
    run = Run(site.folder / "runs" / "tiny")
    (run.checkpoint(5000)).mkdir(parents=True)
    (run.checkpoint(5000) / "COMPLETE").touch()
    run.config_file.write_text(dump(launch_submit.start.completed(load_experiment(config))))
    assert main(["submit", str(config), "--cluster", site.cluster()]) == 0
    assert capsys.readouterr().out == "finished: runs/tiny\n"
    assert not site.asked("sbatch")


@pytest.mark.parametrize(
    ("values", "keys", "told"),
    [
        ({"training": {"batch": 9}}, {}, "9 samples do not divide over 2 ranks"),
        ({"training": {"device": "cpu"}}, {"gpus_per_node": 2}, "training.device: cpu, and the profile asks"),
        ({"mapper": {"name": "swin-unetr", "feature_sze": 4}}, {}, "did you mean 'feature_size'"),
        ({"sweep": {"training.batch": [8, 9]}}, {}, "9 samples do not divide"),
        ({}, {"partiton": "x"}, "did you mean 'partition'"),
    ],
)  # fmt: skip
def test_a_wrong_request_is_refused_before_anything_is_written(
    site: Site, values: dict[str, Any], keys: dict[str, Any], told: str
) -> None:
    with pytest.raises(UserError, match=told):
        plan(site.config(**values), [], site.cluster(**keys))
    assert not (site.folder / "runs").exists()


def test_more_runs_than_the_user_may_submit_are_refused_with_the_number(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch_submit.slurm, "submission_room", lambda *_: 1)
    with pytest.raises(UserError, match=r"2 runs: more jobs than this user may submit now, which are 1 "):
        submit(plan(site.config(sweep=SWEEP), [], site.cluster()))
    assert not site.asked("sbatch")


def test_runs_are_submitted_again_from_anywhere_as_they_were_with_their_code(
    site: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config, cluster = site.config(sweep=SWEEP), site.cluster()
    runs = [one.run.resolve() for one in submit(plan(config, [], cluster))]
    mark = runs[0] / "code" / "as_submitted"
    mark.touch()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    planned = plan(config, ["name=other"], cluster)
    site.slurm("Submitted batch job 80\n")
    again = resubmit(runs, planned.profile, cluster, {runs[1]: "77_1"})
    assert [s.job for s in again] == ["80_0", "80_1"]
    assert mark.exists()
    told = read_submission(Run(runs[1]))
    assert told is not None and told.overrides == ("seed=2",)
    member = told.submission / "members" / "1"
    assert (member / "environment.sh").read_text() == "export XR2CT_TAKES_OVER=77_1\n"
    assert (member / "log").resolve() == runs[1] / "slurm"
    assert told.submission.parent == tmp_path / "runs" / ".submissions"


def test_the_limits_are_asked_of_a_slurm_with_accounting(site: Site) -> None:
    site.answer("scontrol", WITH_ACCOUNTING + "AccountingStorageEnforce = associations,limits,qos\n")
    site.answer("sacctmgr", "1||normal\n")
    with pytest.raises(UserError, match="more jobs than"):
        submit(plan(site.config(sweep=SWEEP), [], site.cluster()))


def test_a_time_that_the_partition_never_gives_is_refused(site: Site) -> None:
    with pytest.raises(UserError, match=r"1441 is more than partition .* gives, 1440 min"):
        submit(plan(site.config(), [], site.cluster(time_limit_min=1441)))
    site.answer("sinfo", "long infinite\n")
    submit(plan(site.config(), [], site.cluster(time_limit_min=9999, partition="long")))
