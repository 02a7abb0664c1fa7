"""What a run says of its own cost, beside what was predicted of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from trainer import Trainer

from xr2ct.config import load_experiment
from xr2ct.run import Run
from xr2ct.training import forecast
from xr2ct.training.loop import train


def test_a_run_measures_and_finds_its_prediction(
    trainer: Trainer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(forecast, "_WORTH_S", 0.0)
    taken = forecast.Forecast._take

    def patient(self: forecast.Forecast) -> None:
        if self._work is not None:
            self._work.wait(60)
        taken(self)

    monkeypatch.setattr(forecast.Forecast, "_take", patient)
    with caplog.at_level("INFO"):
        run = train(load_experiment(trainer.config(mapper={"name": "unet", "channels": [4, 8]})))
    told = run.cost()
    assert told is not None
    assert (told["device"], told["ranks"]) == ("this CPU", 1)
    for key in ("memory_bytes", "step_seconds"):
        measured, predicted = told["measured"][key], told["predicted"][key]
        assert told["off_percent"][key] == pytest.approx(100 * (predicted / measured - 1))
    assert 0 < told["predicted"]["memory_bytes"] < 1e9
    assert [r["memory_bytes"] for r in run.metrics()] == sorted(r["memory_bytes"] for r in run.metrics())
    assert "memory a rank" in caplog.text and "predicted" in caplog.text


def test_without_a_prediction_the_measure_alone_is_written(trainer: Trainer) -> None:
    trainer.finish(trainer.config())
    told = trainer.run().cost()
    assert told is not None and told["measured"]["step_seconds"] > 0
    assert told["predicted"] is None and told["off_percent"] is None


def test_a_torn_file_says_nothing(tmp_path: Path) -> None:
    (tmp_path / "cost.json").write_text('{"device"')
    assert Run(tmp_path).cost() is None
    assert Run(tmp_path / "none").cost() is None


GIVEN_BACK = """
import torch
from xr2ct.training.memory import PeakMemory
memory = PeakMemory(torch.device("cpu"))
before = memory.peak_bytes()
torch.ones(25_000_000)
print(memory.peak_bytes() - before)
"""


def test_memory_that_was_given_back_still_counts() -> None:
    """In a process of its own: one that has run other tests gives back memory of theirs meanwhile."""
    command = [sys.executable, "-c", GIVEN_BACK]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert 90e6 < int(out) < 200e6
