"""The chain of rounds and the scrontab entry: one at a time, never broken, gone when all is done."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import pytest
from made_runs import MadeRoot

from launch import evaluator, evaluator_scrontab, slurm
from launch.evaluator_book import Book
from launch.evaluator_round import Outcome
from launch.executor import Call, Request
from launch.profiles import Profile
from xr2ct.cli import main
from xr2ct.errors import UserError, WorkFailed

CHAIN = Profile.model_validate({"executor": "slurm", "evaluator": {"every_min": 7}})


class Chain:
    """A Slurm that takes rounds, and rounds that find what a test wants."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.alive: set[str] = set()
        self.done: list[str] = []
        self.requests: list[Request] = []
        self.calls: list[Call] = []
        self.refusals = 0
        self.outcome = Outcome()
        self.during: Callable[[], None] = lambda: None

    def ask_alive(self, ids: Collection[str]) -> set[str]:
        return self.alive & set(ids)

    def submit_array(
        self, profile: Profile, request: Request, calls: Sequence[Call], folder: Path
    ) -> list[str]:
        if self.refusals:
            self.refusals -= 1
            raise UserError("Slurm refuses the job: limit")
        id = f"{len(self.requests) + 1}_0"
        self.done.append(f"submit {id}")
        self.requests.append(request)
        self.calls += calls
        self.alive.add(id)
        return [id]

    def cancel(self, ids: Collection[str]) -> None:
        self.done += [f"cancel {id}" for id in ids]
        self.alive -= set(ids)

    def round(self, root: Path, profile: Profile) -> Outcome:
        assert root == self.root and profile == CHAIN
        self.done.append("round")
        self.during()
        return self.outcome

    def run_job(self, id: str) -> None:
        """What the job does; it is over then."""
        os.environ["XR2CT_JOB"] = id
        evaluator.round_task(str(self.root))
        self.alive.discard(id)

    @property
    def next(self) -> str | None:
        return Book(self.root).read("chain").get("next")


@pytest.fixture
def chain(made: MadeRoot, monkeypatch: pytest.MonkeyPatch) -> Chain:
    made.run("tiny")
    chain = Chain(made.path.resolve())
    monkeypatch.setenv("XR2CT_JOB", "")
    monkeypatch.setattr(slurm, "alive", chain.ask_alive)
    monkeypatch.setattr(slurm, "cancel", chain.cancel)
    monkeypatch.setattr(slurm, "forbid_requeue", lambda ids: None)
    monkeypatch.setattr(evaluator, "submit_array", chain.submit_array)
    monkeypatch.setattr(evaluator, "evaluation_round", chain.round)
    monkeypatch.setattr(evaluator, "RETRIES_S", (0, 0, 0))
    return chain


def test_one_chain_a_run_root(chain: Chain) -> None:
    assert evaluator.start(CHAIN, chain.root) == "1_0"
    assert evaluator.start(CHAIN, chain.root) == "1_0"
    chain.alive.clear()
    assert evaluator.start(CHAIN, chain.root) == "2_0"
    assert chain.requests[0].begin is None
    assert {request.dependency for request in chain.requests} == {"singleton"}
    assert len({request.name for request in chain.requests}) == 1
    assert not chain.requests[0].container and chain.requests[0].requeue


def test_a_round_submits_its_successor_before_it_works(chain: Chain) -> None:
    evaluator.start(CHAIN, chain.root)
    chain.run_job("1_0")
    chain.run_job("2_0")
    assert chain.done == ["submit 1_0", "submit 2_0", "round", "submit 3_0", "round"]
    assert chain.requests[1].begin == "now+7minutes"
    assert evaluator.start(CHAIN, chain.root) == "3_0"


def test_requeued_it_submits_no_second_one(chain: Chain) -> None:
    evaluator.start(CHAIN, chain.root)
    chain.run_job("1_0")
    chain.run_job("1_0")
    assert chain.done == ["submit 1_0", "submit 2_0", "round", "round"]


def test_a_surplus_round_submits_none(chain: Chain) -> None:
    """Submitted by one that died before it wrote the id down, and was requeued."""
    evaluator.start(CHAIN, chain.root)
    chain.alive.add("9_0")
    chain.run_job("9_0")
    assert chain.done == ["submit 1_0", "round"]
    assert chain.next == "1_0"


def test_the_end(chain: Chain) -> None:
    evaluator.start(CHAIN, chain.root)
    chain.outcome.finished = True
    chain.run_job("1_0")
    assert chain.done == ["submit 1_0", "submit 2_0", "round", "cancel 2_0"]
    assert chain.next is None
    assert evaluator.start(CHAIN, chain.root) == "3_0"


def test_runs_submitted_during_the_last_round_are_not_forgotten(chain: Chain) -> None:
    evaluator.start(CHAIN, chain.root)
    chain.outcome.finished = True
    chain.during = lambda: None if len(chain.done) > 3 else evaluator.start(CHAIN, chain.root) and None
    chain.run_job("1_0")
    assert chain.next == "2_0" and "2_0" in chain.alive
    chain.during = lambda: None
    chain.run_job("2_0")
    assert chain.next is None


def test_a_stopped_chain_does_not_go_on(chain: Chain) -> None:
    evaluator.start(CHAIN, chain.root)
    chain.during = lambda: evaluator.stop(chain.root) and None
    chain.run_job("1_0")
    assert chain.next is None and not chain.alive


def test_a_refused_successor_is_tried_again_after_the_round(chain: Chain) -> None:
    evaluator.start(CHAIN, chain.root)
    chain.refusals = 2
    chain.run_job("1_0")
    assert chain.done == ["submit 1_0", "round", "submit 2_0"]
    chain.refusals = 3
    with pytest.raises(WorkFailed, match="the evaluator ends here, its next round was refused: Slurm"):
        chain.run_job("2_0")


def test_a_round_that_fails_ends_nothing(chain: Chain) -> None:
    def fail() -> None:
        raise WorkFailed("squeue: no answer")

    evaluator.start(CHAIN, chain.root)
    chain.during = fail
    with pytest.raises(WorkFailed):
        chain.run_job("1_0")
    assert chain.next == "2_0" and "2_0" in chain.alive


def test_rounds_run_a_copy_of_the_newest_runs_code(chain: Chain) -> None:
    run = chain.root / "tiny"
    for package in ("launch", "xr2ct"):
        (run / "code" / package).mkdir(parents=True)
        (run / "code" / package / "__init__.py").write_text(f"# {package}")
    evaluator.start(CHAIN, chain.root, [run])
    code = chain.calls[0].code
    assert code is not None and code.is_relative_to(chain.root / ".evaluator" / "code")
    assert (code / "launch" / "__init__.py").read_text() == "# launch"
    chain.run_job("1_0")
    assert chain.calls[1].code == code


@pytest.mark.parametrize("schedule", ["off", "watch"])
def test_nothing_is_submitted_for_other_schedules(
    chain: Chain, schedule: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    profile = Profile.model_validate({"executor": "slurm", "evaluator": {"schedule": schedule}})
    assert evaluator.start(profile, chain.root) is None
    assert chain.done == []
    assert ("xr2ct evaluate --watch" in caplog.text) == (schedule == "watch")


SCRONTAB = """#!/bin/sh
table=$(dirname "$0")/table
case $1 in
    -l) if [ -f "$table" ]; then cat "$table"; else echo "no crontab for root" >&2; exit 1; fi ;;
    -) cat >"$table" ;;
esac
"""
BY_CLOCK = Profile.model_validate(
    {"executor": "slurm", "partition": "cpu", "evaluator": {"schedule": "scrontab", "every_min": 20}}
)


@pytest.fixture
def table(tmp_path: Path, chain: Chain, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "scrontab"
    folder.mkdir()
    (folder / "scrontab").write_text(SCRONTAB)
    (folder / "scrontab").chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")
    monkeypatch.setattr(slurm, "has_scrontab", lambda: True)
    return folder / "table"


def test_an_entry_comes_once_and_goes_when_all_is_done(
    chain: Chain, table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table.write_text("#SCRON --time=5\n0 4 * * * mine\n")
    for _ in range(2):
        assert evaluator.start(BY_CLOCK, chain.root) is None
    script = chain.root / ".evaluator" / "round.sh"
    lines = table.read_text().splitlines()
    assert lines[:2] == ["#SCRON --time=5", "0 4 * * * mine"]
    assert lines[2].startswith("#SCRON --job-name=xr2ct-rounds --time=60 --partition=cpu --output=")
    assert lines[3:] == [f"*/20 * * * * bash {script}"]
    assert "evaluate --round --cluster" in script.read_text()

    monkeypatch.setattr(evaluator, "evaluation_round", lambda *_: chain.outcome)
    evaluator.watch(BY_CLOCK, [chain.root], once=True)
    assert script.exists()
    chain.outcome.finished = True
    evaluator.watch(BY_CLOCK, [chain.root], once=True)
    assert table.read_text() == "#SCRON --time=5\n0 4 * * * mine\n"
    assert not script.exists()


def test_stop_takes_the_entry_away(chain: Chain, table: Path) -> None:
    evaluator.start(BY_CLOCK, chain.root)
    evaluator.stop(chain.root)
    assert table.read_text() == ""


def test_a_site_without_scrontab_is_told(chain: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slurm, "has_scrontab", lambda: False)
    with pytest.raises(UserError, match=r"evaluator\.schedule: scrontab, but this site has none"):
        evaluator_scrontab.install(chain.root, BY_CLOCK)


def test_a_path_that_scrontab_would_misread_is_refused(table: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="takes no path with spaces"):
        evaluator_scrontab.install(tmp_path / "my 100% runs", BY_CLOCK)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--watch"], "--cluster PROFILE goes with one of --watch and --round"),
        (["--cluster", "local"], "--cluster PROFILE goes with one of --watch and --round"),
        (["--cluster", "local", "--watch", "--round"], "goes with one of"),
        (["--cluster", "local", "--watch", "--step", "last"], "take neither --step"),
        (["--cluster", "locl", "--round"], "did you mean 'local'"),
    ],
)
def test_evaluating_by_jobs_is_asked_for_whole(
    words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", "runs/tiny", *words]) == 2
    assert told in capsys.readouterr().err
