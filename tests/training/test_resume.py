"""Real runs: killed at many moments and started again, damaged, broken, moved to other ranks."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from multiprocessing.context import ForkServerProcess
from typing import Any

import pytest
from tiny import losses

from xr2ct.run import Run
from xr2ct.store import Store

# The fixture `trainer` is conftest's Trainer.
Trainer = Any


def lines(run: Run) -> int:
    return run.metrics_file.read_bytes().count(b"\n") if run.metrics_file.exists() else 0


def writing(run: Run) -> bool:
    """A checkpoint after the first is half written at this moment."""
    partial = [p.name for p in (run.path / "checkpoints").glob(".partial-*")]
    return any(not name.endswith("-step-000000") for name in partial)


def kill_when(attempt: list[ForkServerProcess], reached: Callable[[], bool], delay_s: float) -> bool:
    """SIGKILL to every rank so long after a condition is met; whether they were still at work."""
    deadline = time.monotonic() + 120
    while not reached():
        assert time.monotonic() < deadline, "never came so far"
        if attempt[0].exitcode is not None:
            return False
        time.sleep(0.0005)
    time.sleep(delay_s)
    for process in attempt:
        os.kill(process.pid or 0, signal.SIGKILL)
    for process in attempt:
        process.join()
    return attempt[0].exitcode == -signal.SIGKILL


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 2])
def test_killed_anywhere_ends_as_one_never_killed(trainer: Trainer, ranks: int) -> None:
    whole, killed = trainer.run("whole"), trainer.run("killed")
    trainer.finish(trainer.config("whole"), ranks=ranks)
    config = trainer.config("killed")
    chance = random.Random(ranks)
    kills = halves = 0
    # While it sets up; in a step; in a checkpoint's writing, wherever in it; and again with little left.
    moments: list[tuple[Callable[[], bool], float]] = [
        (lambda: killed.path.exists(), chance.uniform(0, 1.0)),
        (lambda: lines(killed) >= 2, chance.uniform(0, 0.2)),
        (lambda: writing(killed), 0.0),
        (lambda: writing(killed), chance.uniform(0, 0.05)),
        (lambda: lines(killed) >= 7, chance.uniform(0, 0.2)),
        (lambda: writing(killed), chance.uniform(0, 0.02)),
    ]
    for reached, delay_s in moments:
        kills += kill_when(trainer.start(config, ranks=ranks), reached, delay_s)
        halves += writing(killed)
    assert kills >= 5
    assert halves >= 1
    trainer.finish(config, ranks=ranks)
    assert losses(killed) == losses(whole)
    assert [r["step"] for r in killed.metrics()] == list(range(1, 13))
    assert killed.steps() == whole.steps() == [0, 3, 6, 9, 12]
    for name in ("mapper", "mapper-ema", "features"):
        files = [run.checkpoint(12) / f"{name}.safetensors" for run in (killed, whole)]
        assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.slow
def test_split_masters_resume_to_the_bit(trainer: Trainer) -> None:
    """ZeRO 3 in bf16: masters and moments in parts on two ranks, the average whole on one."""
    training = {"steps": 6, "checkpoint_every": 2, "zero_stage": 3, "precision": "bf16"}
    whole, killed = trainer.run("whole"), trainer.run("killed")
    trainer.finish(trainer.config("whole", training=training), ranks=2)
    config = trainer.config("killed", training=training)
    assert kill_when(trainer.start(config, ranks=2), lambda: lines(killed) >= 3, 0.0)
    trainer.finish(config, ranks=2)
    assert losses(killed) == losses(whole)
    for name in ("mapper", "mapper-ema"):
        files = [run.checkpoint(6) / f"{name}.safetensors" for run in (killed, whole)]
        assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.slow
def test_precision_is_chosen_once(trainer: Trainer) -> None:
    training = {"steps": 2, "warmup_steps": 0, "precision": "auto"}
    config, run = trainer.config(training=training), trainer.run()
    trainer.finish(config, ranks=2)
    resolved = run.experiment().resolved
    assert resolved is not None
    assert resolved.precision == "fp32"
    assert run.experiment().training.precision == "auto"
    trainer.finish(config, ranks=2)
    assert run.experiment().resolved == resolved


@pytest.mark.slow
def test_the_real_mapper_resumes_to_the_bit(trainer: Trainer, make_store: Callable[..., Store]) -> None:
    sections = {
        "data": {"stores": str(make_store(64).path.parent), "size": 64},
        "mapper": {"name": "swin-unetr", "feature_size": 12, "depths": [1, 1, 1, 1], "window_size": 4},
        "training": {"steps": 2, "warmup_steps": 0, "batch": 1, "checkpoint_every": 1},
    }
    whole, killed = trainer.run("whole"), trainer.run("killed")
    trainer.finish(trainer.config("whole", **sections))
    config = trainer.config("killed", **sections)
    assert kill_when(trainer.start(config), lambda: killed.steps() == [0, 1], 0.5)
    assert "going on from step 1 of 2" in trainer.finish(config)
    assert losses(killed) == losses(whole)
    files = [run.checkpoint(2) / "mapper.safetensors" for run in (killed, whole)]
    assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.slow
def test_one_rank_lost_ends_the_others(trainer: Trainer) -> None:
    config, run = trainer.config(), trainer.run()
    attempt = trainer.start(config, ranks=2)
    while lines(run) < 4:
        time.sleep(0.001)
    os.kill(attempt[1].pid or 0, signal.SIGKILL)
    attempt[0].join(60)
    assert attempt[0].exitcode == 1
    assert "rank 1 is gone; see its log" in trainer.said(0)
    assert "Traceback" not in trainer.said(0)
    trainer.finish(config, ranks=2)
    assert [r["step"] for r in run.metrics()] == list(range(1, 13))


@pytest.mark.slow
def test_other_ranks_go_on_alike(trainer: Trainer) -> None:
    """Two ranks take up what one began."""
    config, run = trainer.config(), trainer.run()
    kill_when(trainer.start(config), lambda: lines(run) >= 7, 0.0)
    said = trainer.finish(config, ranks=2)
    assert "started on 1 ranks, now 2" in said
    assert "going on from step 6 of 12" in said
    assert [r["step"] for r in run.metrics()] == list(range(1, 13))
    first, *_, last = run.metrics()
    assert last["loss/mapper"] < first["loss/mapper"]


@pytest.mark.slow
def test_damaged_changed_and_broken(trainer: Trainer) -> None:
    """One run through a damaged checkpoint, other values, and a loss that is no longer finite."""
    config, run = trainer.config(), trainer.run()
    trainer.finish(config)
    before = losses(run)

    state = run.checkpoint(12) / "engines" / "potential" / "state" / "mp_rank_00_model_states.pt"
    content = bytearray(state.read_bytes())
    content[len(content) // 2] ^= 1
    state.write_bytes(content)
    said = trainer.finish(config)
    assert "going on from step 9, since newer ones cannot be used" in said
    assert f"step-000012: {state.relative_to(run.checkpoint(12))}: differs from what was written" in said
    assert losses(run) == before
    assert run.steps() == [0, 3, 6, 9, 12]

    said = trainer.finish(trainer.config(optimizer={"lr_per_sample": 2e-3}), expect=2)
    assert "optimizer.lr_per_sample: 0.001 → 0.002" in said
    assert "Traceback" not in said
    trainer.finish(trainer.config(training={"keep_engines": 1}))
    assert run.experiment().training.keep_engines == 1


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 2])
def test_a_loss_no_longer_finite_stops_every_rank(trainer: Trainer, ranks: int) -> None:
    config, run = trainer.config(mapper={"name": "tiny-conv", "explode_at": 5}), trainer.run()
    said = trainer.finish(config, ranks=ranks, expect=1)
    assert "step 5: loss/mapper is" in said
    assert "the last good checkpoint is step-000003" in said
    assert "Traceback" not in said
    assert run.steps() == [0, 3]
    assert [r["step"] for r in run.metrics()] == [1, 2, 3, 4]
