"""Rounds: what is queued once, retried, given up, found after a crash. Slurm's answers alone are made up."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Collection, Sequence
from pathlib import Path

import pytest
from made_runs import MadeRoot

from launch import evaluator_book, evaluator_round, slurm, submitted
from launch.evaluator import reset_attempts, state, stop
from launch.evaluator_book import Array, Book, Job, Work, claim, claims, failures, note_failure, release
from launch.evaluator_round import Outcome, evaluation_round
from launch.executor import Call, Request
from launch.profiles import Profile
from launch.slurm import JobState
from xr2ct.errors import UserError, WorkFailed
from xr2ct.evaluation.pending import PendingPair
from xr2ct.run import Run

TRAINING = "5_0"
VAL = PendingPair("step-000050", "lidc-idri", "val", 30)
TEST = PendingPair("step-000050", "lctsc", "test", 10)


class Site:
    """Slurm, as far as the evaluator asks it; what of a run is scored is said by the test too."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.states: dict[str, str] = {}
        self.lacking: dict[str, list[PendingPair]] = {}
        self.submitted: list[tuple[Request, Sequence[Call]]] = []
        self.refuse_above = 1000
        self.names: dict[str, str] = {}
        self.cancelled: list[str] = []
        self.profile = Profile.model_validate(
            {"executor": "slurm", "evaluator": {"task_min": 1, "every_min": 1}}
        )

    def job_states(self, ids: Collection[str]) -> dict[str, JobState]:
        return {
            id: JobState(id, self.states[id], "", "", 0, None, None, "") for id in ids if id in self.states
        }

    def alive(self, ids: Collection[str]) -> set[str]:
        return {id for id, job in self.job_states(ids).items() if job.alive}

    def submit_array(
        self, profile: Profile, request: Request, calls: Sequence[Call], folder: Path
    ) -> list[str]:
        if len(calls) > self.refuse_above:
            raise UserError("Slurm refuses the job: Job violates accounting/QOS policy")
        number = 100 + len(self.submitted)
        self.submitted.append((request, calls))
        ids = [f"{number}_{index}" for index in range(len(calls))]
        self.states |= dict.fromkeys(ids, "PENDING")
        self.names[request.name] = str(number)
        return ids

    def round(self) -> Outcome:
        return evaluation_round(self.root, self.profile)

    def pairs(self, number: int = -1) -> list[list[str]]:
        """What the tasks of a submission are to score."""
        return [pair for call in self.submitted[number][1] for pair in call.arguments[2]]

    def begin(self, job: str) -> str:
        """A task writes its first line, as it does when it starts; returns its name."""
        self.states[job] = "RUNNING"
        (array,) = (a for a in Book(self.root).arrays() if job in a.ids)
        name = array.task_name(list(array.ids).index(job))
        file = Book(self.root).task_file(name)
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps({"job": job}) + "\n")
        return name


@pytest.fixture
def site(made: MadeRoot, monkeypatch: pytest.MonkeyPatch) -> Site:
    site = Site(made.path)
    for name in ("job_states", "alive"):
        monkeypatch.setattr(slurm, name, getattr(site, name))
    monkeypatch.setattr(slurm, "array_named", lambda name: site.names.get(name))
    monkeypatch.setattr(slurm, "submission_room", lambda *_: 1000)
    monkeypatch.setattr(slurm, "max_array_size", lambda: 1000)
    monkeypatch.setattr(slurm, "forbid_requeue", lambda ids: None)
    monkeypatch.setattr(slurm, "cancel", site.cancelled.extend)
    monkeypatch.setattr(evaluator_round, "submit_array", site.submit_array)
    monkeypatch.setattr(evaluator_round, "pending", lambda run, *_: site.lacking.get(run.path.name, []))
    monkeypatch.setattr(evaluator_round, "finish", lambda *_, **__: True)
    monkeypatch.setenv("SLURM_CONF", "/nowhere")
    return site


@pytest.fixture
def run(made: MadeRoot, site: Site) -> Run:
    """Trained to its end, one checkpoint on two splits to score."""
    site.lacking["tiny"] = [VAL, TEST]
    site.states[TRAINING] = "COMPLETED"
    return made.run("tiny", [50], of=50, job=TRAINING)


def test_what_is_queued_is_not_queued_again_and_the_end_is_seen(site: Site, run: Run) -> None:
    first = site.round()
    assert [pair[1:] for pair in site.pairs()] == [
        ["step-000050", "lidc-idri", "val"],
        ["step-000050", "lctsc", "test"],
    ]
    assert (first.submitted, first.to_score, first.finished) == (["100_0"], 2, False)
    again = site.round()
    assert (again.submitted, again.at_work, again.finished) == ([], 2, False)
    site.begin("100_0")
    site.states["100_0"] = "COMPLETED"
    site.lacking["tiny"] = []
    assert site.round().finished
    assert not list(Book(site.root).arrays())
    assert not list((site.root / ".evaluator" / "tasks").iterdir())


def test_training_that_goes_on_is_waited_for(site: Site, run: Run) -> None:
    site.lacking["tiny"] = []
    site.states[TRAINING] = "PENDING"
    assert not site.round().finished
    site.states[TRAINING] = "FAILED"
    assert site.round().finished


def test_little_to_do_waits_for_more_but_not_for_long(site: Site, run: Run) -> None:
    site.profile = Profile.model_validate({"executor": "slurm", "evaluator": {"task_min": 15}})
    site.states[TRAINING] = "RUNNING"
    assert site.round().submitted == []
    old = time.time() - 16 * 60
    os.utime(run.checkpoint(50) / "COMPLETE", (old, old))
    assert site.round().submitted == ["100_0"]


def test_little_to_do_at_the_end_is_done(site: Site, run: Run) -> None:
    site.profile = Profile.model_validate({"executor": "slurm", "evaluator": {"task_min": 15}})
    assert site.round().submitted == ["100_0"]


def kill_in_the_middle(site: Site, run: Run, job: str, how: str = "FAILED") -> None:
    """While it scores the validation split."""
    site.begin(job)
    assert claim(run, VAL, Job(job, "n1"))
    site.states[job] = how


def test_a_claim_goes_only_when_its_job_is_gone(site: Site, run: Run) -> None:
    site.round()
    site.begin("100_0")
    assert claim(run, VAL, Job("100_0", "n1"))
    assert not claim(run, VAL, Job("101_0", "n2"))
    assert claim(run, VAL, Job("100_0", "n2")), "requeued, it goes on with its own"
    for living in ("RUNNING", "COMPLETING", "REQUEUED", "SUSPENDED", "PENDING"):
        site.states["100_0"] = living
        assert site.round().submitted == []
        assert claims(run) == {VAL: Job("100_0", "n1")}
    site.states["100_0"] = "OUT_OF_MEMORY"
    assert site.round().submitted == ["101_0"]
    assert claims(run) == {}
    assert list(failures(run)) == [VAL], "the split that it had not begun is not blamed"
    assert "100_0 ended, OUT_OF_MEMORY while it was scored; see" in failures(run)[VAL][0]


@pytest.mark.parametrize("how", ["PREEMPTED", "NODE_FAIL", "CANCELLED", "BOOT_FAIL"])
def test_an_end_that_is_not_the_pairs_fault_is_not_counted(site: Site, run: Run, how: str) -> None:
    site.round()
    kill_in_the_middle(site, run, "100_0", how)
    assert site.round().submitted == ["101_0"]
    site.states["101_0"] = how
    assert site.round().submitted == ["102_0"]
    assert failures(run) == {}


def test_three_failures_and_it_is_left_alone_until_resubmitted(site: Site, run: Run) -> None:
    for attempt in range(3):
        assert site.round().submitted == [f"10{attempt}_0"]
        kill_in_the_middle(site, run, f"10{attempt}_0")
    site.lacking["tiny"] = [VAL]
    last = site.round()
    assert (last.submitted, last.to_score, last.failed, last.finished) == ([], 0, 1, True)
    assert any("given up: step-000050 on lidc-idri val" in line for line in last.told)
    assert state(site.root) == {run.path.resolve(): {"pending": 0, "claimed": 0, "failed": 1}}
    assert reset_attempts(run) == 1
    assert state(site.root) == {run.path.resolve(): {"pending": 1, "claimed": 0, "failed": 0}}
    assert site.round().submitted == ["103_0"]


def test_a_task_that_never_begins_counts_too(site: Site, run: Run) -> None:
    """A container that cannot be started would be submitted for ever."""
    for attempt in range(3):
        assert site.round().submitted == [f"10{attempt}_0"]
        site.states[f"10{attempt}_0"] = "FAILED"
    assert site.round().failed == 2


def test_a_pair_scored_by_a_job_that_was_killed_after_it_is_no_failure(site: Site, run: Run) -> None:
    site.round()
    kill_in_the_middle(site, run, "100_0")
    site.lacking["tiny"] = [TEST]
    site.round()
    assert failures(run) == {} and claims(run) == {}


def test_killed_between_submitting_and_writing_it_down(site: Site, run: Run) -> None:
    """The array is found by its name, and nothing is submitted twice."""
    site.round()
    book = Book(site.root)
    (array,) = book.arrays()
    book.write_array(Array(array.name, array.tasks, (), array.host, array.submission, "slurm"))
    assert site.round().submitted == []
    site.names.clear()
    assert site.round().submitted == [], "it may be about to be submitted this very moment"
    file = site.root / ".evaluator" / "arrays" / f"{array.name}.json"
    os.utime(file, (0, 0))
    assert site.round().submitted == ["101_0"], "it never was"


def test_a_refusal_is_tried_with_less_and_told(site: Site, made: MadeRoot, run: Run) -> None:
    site.lacking["tiny"] = [PendingPair(f"step-{s:06d}", "lctsc", "test", 100) for s in range(8)]
    site.refuse_above = 3
    assert len(site.round().submitted) == 2
    site.refuse_above = 0
    told = site.round()
    assert told.submitted == [] and "nothing submitted: Slurm refuses the job" in str(told)
    assert len(list(Book(site.root).arrays())) == 1


def test_no_room_is_told(site: Site, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slurm, "submission_room", lambda *_: 0)
    told = site.round()
    assert told.submitted == [] and "takes no more jobs" in str(told)


def test_silence_is_not_an_end(site: Site, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    site.round()
    site.begin("100_0")
    claim(run, VAL, Job("100_0", "n1"))

    def nobody(ids: Collection[str]) -> dict[str, JobState]:
        raise WorkFailed("squeue: no answer")

    monkeypatch.setattr(slurm, "job_states", nobody)
    monkeypatch.setattr(submitted.slurm, "alive", nobody)
    with pytest.raises(WorkFailed, match="no answer"):
        site.round()
    assert claims(run) == {VAL: Job("100_0", "n1")} and failures(run) == {}


def test_a_second_evaluator_waits_its_turn(site: Site, run: Run) -> None:
    first, second = (evaluator_round.in_turn(Book(site.root), wait_s=0.2) for _ in range(2))
    with first, pytest.raises(WorkFailed, match="another evaluator"), second:
        pass


def test_rates_are_measured_and_used(site: Site, run: Run) -> None:
    site.round()
    name = site.begin("100_0")
    with Book(site.root).task_file(name).open("a") as file:
        file.write(json.dumps({"run": str(run.path), "seconds": 400.0, "scored": 40}) + "\n")
    site.states["100_0"] = "COMPLETED"
    site.lacking["tiny"] = [PendingPair(f"step-{s:06d}", "lctsc", "test", 6) for s in range(4)]
    assert len(site.round().submitted) == 4, "ten seconds a patient: a minute each"
    assert Book(site.root).read("rates") == {str(run.path): 10.0}


def test_only_submitted_runs_of_the_root_itself(site: Site, made: MadeRoot, run: Run) -> None:
    made.run("by-hand", [50], of=50, job=None)
    MadeRoot(site.root / "deeper").run("other", [50], of=50)
    assert [r.path.name for r in evaluator_round.served(site.root)] == ["tiny"]
    named = evaluator_round.served(site.root, [site.root / "by-hand"])
    assert [r.path.name for r in named] == ["by-hand"]


def test_stop_cancels_what_lives(site: Site, run: Run) -> None:
    site.round()
    Book(site.root).write("chain", {"next": "90_0"})
    site.states["90_0"] = "PENDING"
    assert stop(site.root) == ["100_0", "90_0"]
    assert sorted(site.cancelled) == ["100_0", "90_0"]
    assert stop(site.root / "elsewhere") == []


def test_a_failure_counts_once_a_job_and_goes_with_its_run(run: Run) -> None:
    for _ in range(3):
        note_failure(run, VAL, "7_0", "because")
    assert failures(run) == {VAL: ["because"]}
    release(run, VAL, "7_0")
    assert evaluator_book.given_up(run) == {}
    assert Work(run.path, VAL) == Work(run.path, PendingPair(VAL.source, VAL.cohort, VAL.split))
