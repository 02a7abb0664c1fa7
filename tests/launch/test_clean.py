"""`du` and `clean`: what a run takes, and that nothing needed goes."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from made_runs import MadeRoot, say
from slurm_answers import Answer, queued

import launch.usage
from launch.usage import clean, usage
from xr2ct.cli import main
from xr2ct.errors import UserError, WorkFailed
from xr2ct.evaluation.pending import PendingPair
from xr2ct.run import Run
from xr2ct.training import fence

Unscored = Callable[..., None]


@pytest.fixture
def unscored(monkeypatch: pytest.MonkeyPatch) -> Unscored:
    """unscored(*steps, missing=…): what the evaluator has yet to see of every run, and stores not there."""

    def say_so(*steps: int, missing: str | None = None) -> None:
        def find_pairs(experiment: object, cohorts: object, told: dict[str, str], stores: object) -> None:
            told |= {missing: "not there"} if missing else {}

        pairs = [PendingPair(f"step-{step:06d}", "lidc-idri", "val") for step in steps]
        monkeypatch.setattr(launch.usage, "find_pairs", find_pairs)
        monkeypatch.setattr(launch.usage, "pending", lambda run, stores: pairs)

    say_so()
    return say_so


def names(run: Run, pattern: str) -> list[str]:
    return sorted(str(p.relative_to(run.path)) for p in run.path.glob(pattern))


def test_usage_is_by_part_and_counts_a_file_with_two_names_once(made: MadeRoot) -> None:
    run = made.run("a", steps=[10])
    os.link(run.checkpoint(10) / "mapper.safetensors", run.checkpoint(10) / "mapper-ema.safetensors")
    (run.path / "code").mkdir()
    (run.path / "code" / "x.py").write_bytes(bytes(10_000))
    partial = run.path / "checkpoints" / ".partial-000002-step-000020"
    partial.mkdir()
    (partial / "mapper.safetensors").write_bytes(bytes(200_000))

    parts = usage(run)

    assert 100_000 <= parts["engines"] < 120_000
    assert 50_000 <= parts["weights"] < 80_000
    assert 200_000 <= parts["leftovers"] < 220_000
    assert parts["code"] >= 10_000 and parts["evaluations"] == 0


def test_du_prints_bytes_as_json(made: MadeRoot, capsys: pytest.CaptureFixture[str]) -> None:
    run = made.run("a", steps=[10])

    assert main(["du", str(made.path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {str(run.path): usage(run)}


def test_engines_of_all_but_the_newest_two_go(made: MadeRoot, answer: Answer) -> None:
    run = made.run("a", steps=[10, 20, 30, 40])

    gone, left = clean([run.path])

    assert names(run, "checkpoints/*/engines") == [f"checkpoints/step-0000{s}/engines" for s in (30, 40)]
    assert run.steps() == [10, 20, 30, 40]
    assert [item.path.parent.name for item in gone] == ["step-000010", "step-000020"]
    assert left == []


def test_what_killed_starts_left_goes_and_logs_stay(made: MadeRoot, answer: Answer) -> None:
    run = made.run("a", steps=[10])
    for name in (".partial-000001-step-000020", ".removed-step-000005", ".damaged-step-000007"):
        (run.path / "checkpoints" / name).mkdir()
    (run.path / ".partial-000001-metrics.jsonl").write_text("x")
    (run.path / f".config.yaml.{'0' * 32}").write_text("x")
    say(run, "rendezvous-5_0-0", "n1:1234")
    say(run, "heartbeats/rank-0", "10 3")
    say(run, "5_0-rank-0.out", "kept")

    clean([run.path])

    assert names(run, "checkpoints/*") == ["checkpoints/step-000010"]
    assert names(run, ".*") == [".lock"]
    assert names(run, "slurm/*") == ["slurm/5_0-rank-0.out", "slurm/job.json"]


def test_a_dry_run_lists_the_same_and_changes_nothing(
    made: MadeRoot, answer: Answer, unscored: Unscored
) -> None:
    run = made.run("a", steps=[10, 20, 30, 40])
    before = names(run, "**/*")

    listed, _ = clean([run.path], weights=True, dry_run=True)

    assert names(run, "**/*") == before
    gone, _ = clean([run.path], weights=True)
    assert [item.path for item in listed] == [item.path for item in gone]


def test_weights_go_only_once_scored_and_neither_best_nor_last(
    made: MadeRoot, answer: Answer, unscored: Unscored
) -> None:
    run = made.run("a", steps=[10, 20, 30, 40, 50])
    run.best.symlink_to("checkpoints/step-000020")
    unscored(30)

    clean([run.path], weights=True)

    assert run.steps() == [20, 30, 40, 50]


def test_a_store_that_is_not_there_yet_keeps_every_checkpoint(
    made: MadeRoot, answer: Answer, unscored: Unscored
) -> None:
    run = made.run("a", steps=[10, 20, 30, 40])
    unscored(missing="lctsc")

    _, left = clean([run.path], weights=True)

    assert run.steps() == [10, 20, 30, 40]
    assert "lctsc cannot be scored on yet" in left[0]


def test_of_a_run_whose_job_lives_only_scored_checkpoints_go(
    made: MadeRoot, answer: Answer, unscored: Unscored
) -> None:
    run = made.run("a", steps=[10, 20, 30, 40])
    partial = run.path / "checkpoints" / ".partial-000001-step-000050"
    partial.mkdir()
    answer("squeue", queued("5_0", "RUNNING"))

    gone, left = clean([run.path])
    assert gone == [] and "its job lives" in left[0]

    clean([run.path], weights=True)
    assert run.steps() == [30, 40] and partial.is_dir()


def test_a_run_that_another_process_trains_is_left_alone(made: MadeRoot, answer: Answer) -> None:
    run = made.run("a", steps=[10, 20, 30], job=None)
    with fence.held(run):
        # Within one process a lock keeps out as well as from another.
        gone, left = clean([run.path])

    assert gone == [] and "being trained by another process" in left[0]
    assert (run.checkpoint(10) / "engines").is_dir()


def test_nothing_goes_where_slurm_does_not_answer(made: MadeRoot, answer: Answer) -> None:
    run = made.run("a", steps=[10, 20, 30])
    answer("squeue", "", "slurm_load_jobs error: Unable to contact slurm controller\n", 1)

    with pytest.raises(WorkFailed, match="Unable to contact"):
        clean([run.path])
    assert (run.checkpoint(10) / "engines").is_dir()


def test_submissions_go_when_their_jobs_have_ended(made: MadeRoot, answer: Answer) -> None:
    made.run("a", steps=[10])
    root = made.path / ".submissions"
    for name, jobs in {
        "s1": ["5_0"],
        "ended": ["4_0", "4_1"],
        "half": ["6_0"],
        "waits": [],
        "runs": ["7_0"],
    }.items():
        for member in range(2 if name in ("ended", "half") else 1):
            (root / name / "members" / str(member)).mkdir(parents=True)
        for job in jobs:
            (root / name / f"{job}_submitted.pkl").touch()
    answer("squeue", queued("7_0", "RUNNING"))

    clean([made.path])

    assert sorted(p.name for p in root.iterdir()) == ["half", "runs", "s1", "waits"]


def test_a_path_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        clean([tmp_path / "none"])
