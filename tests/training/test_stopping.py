"""Asked to stop by a signal: one checkpoint, all ranks alike, and losses as if nobody had asked."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from multiprocessing.context import ForkServerProcess
from typing import Any

import pytest
import torch
from tiny import losses

from xr2ct.errors import STOPPED, Superseded
from xr2ct.run import Run
from xr2ct.training.distributed import Ranks
from xr2ct.training.fence import Fence
from xr2ct.training.lead_time import LeadTime
from xr2ct.training.stopping import SIGNALS, asked, listening

ONE = Ranks(0, 1, 0, torch.device("cpu"))
Trainer = Any


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_signal_is_remembered(number: signal.Signals, tmp_path: Any) -> None:
    run = Run(tmp_path)
    with listening() as listener:
        assert asked(listener, ONE, Fence(run, 1)) is None
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), signal.SIGTERM)
        assert asked(listener, ONE, Fence(run, 1)) == number.name
    os.kill(os.getpid(), number)  # it ends already: what asks again must not cut that short


def test_handlers_are_put_back_where_nobody_asked() -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    with listening() as outer, listening() as inner:
        assert inner is outer
        assert signal.getsignal(signal.SIGTERM) is outer
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_being_superseded_counts_for_more(tmp_path: Any) -> None:
    run = Run(tmp_path)
    run.incarnations.mkdir()
    run.incarnation(2).write_text('{"job": "7_1", "restart": 3, "host": "n2"}')
    with listening() as listener:
        os.kill(os.getpid(), signal.SIGUSR1)
        with pytest.raises(Superseded, match=r"by incarnation 2 \(job 7_1, restart 3, on n2\); this one, 1,"):
            asked(listener, ONE, Fence(run, 1))


def test_a_lead_too_short_is_said_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("XR2CT_LEAD_S", "30")
    lead = LeadTime()
    lead.step(12.0)
    lead.checkpoint(17.0)
    assert not caplog.text
    lead.step(16.0)
    lead.checkpoint(15.0)
    lead.checkpoint(40.0)
    assert len(caplog.records) == 1
    assert "a step takes up to 16.0 s and a checkpoint 17.0 s" in caplog.text
    assert "set signal_lead_s: 50 in" in caplog.text


def signal_when(
    attempt: list[ForkServerProcess], reached: Callable[[], bool], number: int, ranks: list[int]
) -> list[int | None]:
    """The exit codes, once some ranks were sent a signal when a condition was met."""
    deadline = time.monotonic() + 120
    while not reached():
        assert time.monotonic() < deadline, "never came so far"
        assert attempt[0].exitcode is None, "ended before"
        time.sleep(0.001)
    for rank in ranks:
        os.kill(attempt[rank].pid or 0, number)
    for process in attempt:
        process.join(120)
    return [process.exitcode for process in attempt]


def lines(run: Run) -> int:
    return run.metrics_file.read_bytes().count(b"\n") if run.metrics_file.exists() else 0


def writing(run: Run) -> bool:
    return any(not p.name.endswith("-000000") for p in (run.path / "checkpoints").glob(".partial-*"))


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 2])
def test_stopped_anywhere_ends_as_one_never_stopped(trainer: Trainer, ranks: int) -> None:
    whole, stopped = trainer.run("whole"), trainer.run("stopped")
    trainer.finish(trainer.config("whole"), ranks=ranks)
    config = trainer.config("stopped")
    last = [ranks - 1]  # one rank alone is told, and all of them stop
    moments: list[tuple[Callable[[], bool], int, list[int]]] = [
        (lambda: stopped.incarnation(1).exists(), signal.SIGUSR1, last),
        (lambda: lines(stopped) >= 1, signal.SIGTERM, list(range(ranks))),
        (lambda: writing(stopped), signal.SIGUSR2, last),
        (lambda: lines(stopped) >= 7, signal.SIGUSR1, last),
    ]
    for reached, number, told in moments:
        codes = signal_when(trainer.start(config, ranks=ranks), reached, number, told)
        assert codes == [STOPPED] * ranks
        step = max(stopped.steps(), default=0)
        said, name = trainer.said(), signal.Signals(number).name
        where = (
            f"at step {step} of 12 as {name} asked; saved" if step else f"before its first step as {name} "
        )
        assert f"stopped {where}" in said
        assert "Traceback" not in said
        assert [r["step"] for r in stopped.metrics()] == list(range(1, step + 1))
    trainer.finish(config, ranks=ranks)
    assert losses(stopped) == losses(whole)
    assert set(stopped.steps()) >= set(whole.steps())
    for name in ("mapper", "mapper-ema", "features"):
        files = [run.checkpoint(12) / f"{name}.safetensors" for run in (stopped, whole)]
        assert files[0].read_bytes() == files[1].read_bytes()
