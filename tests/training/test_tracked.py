"""Training with MLflow beside it."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import pytest
from tiny import losses

from xr2ct.tracking import sync
from xr2ct.tracking.notes import read_notes


@pytest.mark.slow
def test_killed_and_resumed_it_is_one_run_without_duplicates(trainer: Any) -> None:
    from mlflow import MlflowClient

    training = {"steps": 40, "warmup_steps": 2, "batch": 2, "precision": "fp32", "checkpoint_every": 10}
    training |= {"threads": 1, "device": "cpu"}
    config, run = trainer.config(tracking={"enabled": True}, training=training), trainer.run()
    # A new database takes longer to set up than these steps.
    MlflowClient(f"sqlite:///{config.parent}/runs/mlflow.db").search_experiments()
    attempt = trainer.start(config, ranks=2)

    def tracked_steps() -> list[int]:
        notes = read_notes(run)
        there = MlflowClient(notes["uri"]).get_metric_history(notes["run_id"], "loss/mapper")
        return [m.step for m in there]

    while not read_notes(run).get("run_id"):
        assert attempt[0].exitcode is None
        time.sleep(0.01)
    for process in attempt:
        os.kill(process.pid, signal.SIGKILL)
        process.join()
    first = read_notes(run)
    trainer.finish(config, ranks=2)
    sync(run)
    assert sorted(tracked_steps()) == list(range(1, 41))
    assert read_notes(run)["run_id"] == first["run_id"]
    assert sync(run).metrics == 0


@pytest.mark.slow
def test_a_tracker_that_is_not_there_changes_nothing(trainer: Any) -> None:
    trainer.finish(trainer.config("alone"))
    said = trainer.finish(trainer.config("away", tracking={"enabled": True, "uri": "http://127.0.0.1:9"}))
    assert "training goes on, and `xr2ct track sync" in said
    told = [losses(trainer.run(name)) for name in ("alone", "away")]
    assert told[0] == told[1]
