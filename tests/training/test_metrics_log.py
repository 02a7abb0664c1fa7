"""metrics.jsonl: cut back on resume, never a duplicate step, nothing that is not JSON."""

from __future__ import annotations

from pathlib import Path

import pytest

from xr2ct.run import Run
from xr2ct.training.fence import Fence
from xr2ct.training.metrics_log import MetricsLog


def test_steps_after_the_checkpoint_are_cut_off(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.metrics_file.write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n{"st')
    log = MetricsLog(run, 2, Fence(run, 1))
    log.write({"step": 3, "loss/x": 0.1})
    log.close()
    assert run.metrics_file.read_text() == '{"step": 1}\n{"step": 2}\n{"step": 3, "loss/x": 0.1}\n'


def test_each_step_is_there_at_once(tmp_path: Path) -> None:
    run = Run(tmp_path)
    log = MetricsLog(run, 0, Fence(run, 1))
    log.write({"step": 1, "loss/x": 1 / 3})
    assert list(run.metrics()) == [{"step": 1, "loss/x": 1 / 3}]
    log.close()


def test_what_is_not_finite_is_not_json(tmp_path: Path) -> None:
    log = MetricsLog(Run(tmp_path), 0, Fence(Run(tmp_path), 1))
    with pytest.raises(ValueError, match="JSON compliant"):
        log.write({"step": 1, "loss/x": float("nan")})
    log.close()
