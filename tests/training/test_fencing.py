"""Of two starts of training in one run, only the later one writes."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import pytest
from lock_holder import start_holder
from tiny import losses

from xr2ct.errors import SUPERSEDED, Superseded, WorkFailed
from xr2ct.run import Run
from xr2ct.training import checkpoints, fence
from xr2ct.training.fence import Fence
from xr2ct.training.metrics_log import MetricsLog

Trainer = Any


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path / "a run")


@pytest.fixture
def job(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """job("7_1", restart): what the host script says of the attempt at work."""

    def become(name: str | None, restart: int = 0, **others: str) -> None:
        for key, value in {"XR2CT_JOB": name, "XR2CT_RESTART": str(restart), **others}.items():
            if value is None:
                monkeypatch.delenv(key, raising=False)
            else:
                monkeypatch.setenv(key, value)

    become(None)
    return become


@contextmanager
def taken(run: Run) -> Iterator[Fence]:
    """A number whose process lives on, though it has let go of what keeps a second command out."""
    with fence.held(run) as held:
        pass
    yield held


def write(run: Run, step: int, number: Fence) -> Path:
    (checkpoints.begin(run, step, number) / "mapper.safetensors").write_bytes(b"weights")
    return checkpoints.commit(run, step, number, time.monotonic())


def test_each_start_has_the_next_number(run: Run, job: Callable[..., None]) -> None:
    job("7_1", 2)
    with fence.held(run) as first:
        assert first.number == 1
        first.check()
        about = json.loads(run.incarnation(1).read_text())
        assert about == about | {"job": "7_1", "restart": 2, "pid": os.getpid()}
    with fence.held(run) as second:
        assert second.number == fence.highest(run) == 2
        with pytest.raises(Superseded, match=r"by incarnation 2 \(job 7_1, restart 2, on .*\); this one, 1,"):
            first.check()


def test_a_second_command_is_kept_out(run: Run, job: Callable[..., None]) -> None:
    with start_holder(run, {"XR2CT_JOB": "7_1", "XR2CT_RESTART": "1"}) as holder:
        told = r"being trained by another process \(job 7_1, restart 1, on .*\)"
        for name, restart in ((None, 0), ("8_1", 5), ("7_1", 1), ("7_2", 2)):
            job(name, restart)
            with pytest.raises(WorkFailed, match=told), fence.held(run):
                pass
        assert fence.highest(run) == 1
        assert fence.in_use(run)
        holder.kill()
        holder.join()
        assert not fence.in_use(run)
        with fence.held(run) as second:
            assert second.number == 2


@pytest.mark.parametrize(
    ("name", "restart", "others"),
    [("7_1", 2, {}), ("9_1", 0, {"XR2CT_TAKES_OVER": "7_1"})],
    ids=["requeued", "resubmitted"],
)
def test_what_replaces_a_job_takes_over_from_its_survivor(
    run: Run, job: Callable[..., None], name: str, restart: int, others: dict[str, str]
) -> None:
    with start_holder(run, {"XR2CT_JOB": "7_1", "XR2CT_RESTART": "1"}):
        job(name, restart, **others)
        with fence.held(run) as successor:
            assert successor.number == 2
            job("10_1")
            with pytest.raises(WorkFailed, match=rf"by another process \(job {name}"), fence.held(run):
                pass


def test_a_survivor_commits_nothing(run: Run) -> None:
    with taken(run) as survivor, taken(run) as successor:
        (checkpoints.begin(run, 5, survivor) / "mapper.safetensors").write_bytes(b"survivor's")
        (checkpoints.begin(run, 5, successor) / "mapper.safetensors").write_bytes(b"successor's")
        with pytest.raises(Superseded):
            checkpoints.commit(run, 5, survivor, 0.0)
        checkpoints.commit(run, 5, successor, 0.0)
        with pytest.raises(Superseded):
            survivor.write(run.config_file, "survivor's")
        with pytest.raises(Superseded):
            checkpoints.keep_newest_engines(run, 1, survivor)
        with pytest.raises(Superseded):
            MetricsLog(run, 0, survivor)
    assert (run.checkpoint(5) / "mapper.safetensors").read_bytes() == b"successor's"
    assert not run.config_file.exists()
    assert not run.metrics_file.exists()


class Paused(Fence):
    """A survivor that is held up between its last look and its rename, while `meanwhile` happens."""

    meanwhile: Callable[[], None]

    def check(self) -> None:
        super().check()
        if hasattr(self, "meanwhile"):
            meanwhile = self.meanwhile
            del self.meanwhile
            meanwhile()


@pytest.mark.parametrize("what", ["checkpoint", "metrics", "config"])
def test_held_up_between_the_look_and_the_rename(run: Run, what: str) -> None:
    """The moment that a look alone cannot cover."""
    with taken(run) as first:
        survivor = Paused(run, first.number)
        MetricsLog(run, 0, survivor).close()
        successors: list[Fence] = []

        def take_over() -> None:
            with taken(run) as successor:
                successors.append(successor)
                checkpoints.remove_leftovers(run, successor)
                log = MetricsLog(run, 0, successor)
                log.write({"step": 1})
                log.close()
                write(run, 5, successor)
                successor.write(run.config_file, "successor's")

        if what == "checkpoint":
            (checkpoints.begin(run, 5, survivor) / "mapper.safetensors").write_bytes(b"survivor's")
        survivor.meanwhile = take_over
        with pytest.raises(Superseded):
            if what == "checkpoint":
                checkpoints.commit(run, 5, survivor, 0.0)
            elif what == "metrics":
                MetricsLog(run, 0, survivor)
            else:
                survivor.write(run.config_file, "survivor's")
    assert [s.number for s in successors] == [2]
    assert (run.checkpoint(5) / "mapper.safetensors").read_bytes() == b"weights"
    assert list(run.metrics()) == [{"step": 1}]
    assert run.config_file.read_text() == "successor's"
    assert not list(run.path.rglob(".partial-*"))


def test_a_survivor_s_metrics_have_no_name_any_more(run: Run) -> None:
    with taken(run) as survivor:
        early = MetricsLog(run, 0, survivor)
        early.write({"step": 1})
        early.write({"step": 2})
        with taken(run) as successor:
            late = MetricsLog(run, 1, successor)
            early.write({"step": 3})
            late.write({"step": 2, "again": 1})
            early.write({"step": 4})
            early.sync()
    assert list(run.metrics()) == [{"step": 1}, {"step": 2, "again": 1}]


def test_only_what_is_earlier_is_removed(run: Run) -> None:
    for number in (1, 2, 3):
        checkpoints.begin(run, number, Fence(run, number))
        run.path.joinpath(f".partial-{number:06d}-metrics.jsonl").touch()
    (run.path / "checkpoints" / "step-000009").mkdir()  # copied by somebody, and not to its end
    checkpoints.remove_leftovers(run, Fence(run, 2))
    left = sorted(p.name for p in run.path.rglob("*") if p.name.startswith((".", "step")))
    assert left == [
        ".damaged-step-000009",
        ".partial-000002-metrics.jsonl",
        ".partial-000002-step-000002",
        ".partial-000003-metrics.jsonl",
        ".partial-000003-step-000003",
    ]


def lines(run: Run) -> int:
    return run.metrics_file.read_bytes().count(b"\n") if run.metrics_file.exists() else 0


def start_attempt(trainer: Trainer, config: Path, restart: int) -> list[ForkServerProcess]:
    """Two ranks of one job's first start or of a later one."""
    environment = {"XR2CT_JOB": "7_1", "XR2CT_RESTART": str(restart)}
    return trainer.start(config, ranks=2, said=f"restart-{restart}", **environment)


def wait_for(reached: Callable[[], bool], attempt: list[ForkServerProcess]) -> None:
    while not reached():
        assert attempt[0].exitcode is None
        time.sleep(0.001)


@pytest.mark.slow
def test_a_survivor_ends_when_its_job_is_requeued(trainer: Trainer) -> None:
    """Two attempts of one job at work at the same time, as when a node is given up that is alive."""
    whole, run = trainer.run("whole"), trainer.run()
    trainer.finish(trainer.config("whole"), ranks=2)
    config = trainer.config()
    survivor = start_attempt(trainer, config, 0)
    wait_for(lambda: lines(run) >= 4, survivor)
    # Held up until its successor is there: it would be through with its few steps before.
    for process in survivor:
        os.kill(process.pid, signal.SIGSTOP)
    successor = start_attempt(trainer, config, 1)
    wait_for(lambda: fence.highest(run) == 2, successor)
    for process in survivor:
        os.kill(process.pid, signal.SIGCONT)
    for process in (*survivor, *successor):
        process.join(300)
    assert [p.exitcode for p in survivor] == [SUPERSEDED] * 2
    assert [p.exitcode for p in successor] == [0, 0]
    assert "taken over by incarnation 2 (job 7_1, restart 1, on " in trainer.said(0, "restart-0")
    assert "Traceback" not in trainer.said(0, "restart-0")
    found, expected = (losses(x) for x in (run, whole))
    assert found == expected
    assert run.steps() == whole.steps()
    assert not list(run.path.rglob(".partial-*"))
