"""A scoring task: what is its own scored, what is another's left alone, what fails noted, the others done."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from launch import score
from launch.evaluator_book import Book, Job, Work, claim, claims, failures, plain_of
from launch.score import score_task
from xr2ct.errors import WorkFailed
from xr2ct.evaluation.pending import PendingPair, pending
from xr2ct.evaluation.results import read_results
from xr2ct.evaluation.sweep import evaluate
from xr2ct.run import Run

MakeRun = Callable[..., Run]
Task = Callable[[Run], None]


@pytest.fixture
def stopping() -> threading.Event:
    return threading.Event()


@pytest.fixture
def task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stopping: threading.Event) -> Task:
    """task(run): score all that is pending of it, as job 7_0."""
    monkeypatch.setenv("XR2CT_JOB", "7_0")
    monkeypatch.setattr(score, "_stop_when_told", lambda: stopping)

    def run_task(run: Run) -> None:
        score_task(str(tmp_path), "array-0", [plain_of(Work(run.path, pair)) for pair in pending(run)])

    return run_task


def scored(run: Run) -> dict[tuple[str, str, str], object]:
    return {(r.source, r.cohort, r.split): r.mean("honest/psnr") for r in read_results(run)}


def test_scores_are_those_of_a_sweep_by_hand(make_run: MakeRun, task: Task, tmp_path: Path) -> None:
    ours, by_hand = make_run({0: 0.9, 500: 0.15}), make_run({0: 0.9, 500: 0.15})
    task(ours)
    evaluate(by_hand)
    assert str(scored(ours)) == str(scored(by_hand))
    assert pending(ours) == [] and claims(ours) == {} and failures(ours) == {}
    began, *did = Book(tmp_path).task_events("array-0")
    assert began == {"job": "7_0"}
    assert sum(event["scored"] for event in did) == (2 + 3) * (3 + 2 + 2)


def test_another_jobs_pair_is_left_alone(make_run: MakeRun, task: Task) -> None:
    run = make_run({0: 0.9})
    theirs = PendingPair("step-000000", "lctsc", "test")
    claim(run, theirs, Job("6_0", "n1"))
    task(run)
    assert pending(run) == [theirs]
    assert claims(run) == {theirs: Job("6_0", "n1")}


def test_a_damaged_checkpoint_fails_by_name_and_the_rest_is_done(make_run: MakeRun, task: Task) -> None:
    run = make_run({0: 0.9, 500: 0.15})
    (run.checkpoint(0) / "mapper.safetensors").write_bytes(b"torn")
    with pytest.raises(WorkFailed, match=r"mapper\.safetensors"):
        task(run)
    assert {pair.source for pair in pending(run)} == {"step-000000"}
    assert {pair.source for pair in failures(run)} == {"step-000000"}
    assert all("mapper.safetensors" in why for reasons in failures(run).values() for why in reasons)
    assert claims(run) == {}


def test_whatever_goes_wrong_is_an_attempt(
    make_run: MakeRun, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    def out_of_memory(*_: object) -> None:
        raise RuntimeError("CUDA out of memory\ntried to allocate")

    run = make_run({0: 0.9})
    monkeypatch.setattr(score, "score_and_commit", out_of_memory)
    with pytest.raises(WorkFailed, match="lctsc test: RuntimeError: CUDA out of memory"):
        task(run)
    assert len(failures(run)) == len(pending(run)) == 12 and claims(run) == {}


def test_told_to_stop_it_leaves_the_rest(make_run: MakeRun, task: Task, stopping: threading.Event) -> None:
    run = make_run({0: 0.9})
    stopping.set()
    task(run)
    assert len(pending(run)) == 12 and failures(run) == {} and claims(run) == {}


def test_a_gpu_job_without_a_gpu_fails(
    make_run: MakeRun, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XR2CT_REQUIRE_GPU", "1")
    monkeypatch.setattr(score.torch.cuda, "is_available", lambda: False)
    run = make_run({0: 0.9})
    text = run.config_file.read_text().replace("device: cpu", "device: auto")
    run.config_file.write_text(text)
    with pytest.raises(WorkFailed, match="no CUDA device in a job that asked for one"):
        task(run)
    assert read_results(run) == []
