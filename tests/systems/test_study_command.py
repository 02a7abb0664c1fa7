"""`xr2ct study`: from a configuration to its report, with a member that fails."""

from __future__ import annotations

import csv
import json
import signal
from pathlib import Path

import pytest
import yaml

from xr2ct import cli
from xr2ct.errors import Stopped
from xr2ct.run import Run
from xr2ct.study import run_study
from xr2ct.training.stopping import listening


def configuration(folder: Path, stores: Path) -> Path:
    """Two members of a tiny regression; the weights of the second are infinite after its first step."""
    values = {
        "name": "tiny",
        "run_root": str(folder / "runs"),
        "exhibits": ["leave-one-out", "training-time"],
        "data": {"stores": str(stores), "size": 16},
        "mapper": {"name": "unet", "channels": [4, 8], "num_res_units": 0},
        "method": {"name": "regression", "mapper_updates": 1},
        "training": {
            "steps": 20,
            "warmup_steps": 0,
            "batch": 2,
            "precision": "fp32",
            "checkpoint_every": 20,
            "threads": 1,
            "device": "cpu",
        },
        "evaluation": {"cohorts": ["lidc-idri"]},
        "tracking": {"enabled": False},
        "sweep": {"optimizer.lr_per_sample": [1e-3, 1e38]},
    }
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path


@pytest.mark.slow
def test_equal_time_for_each_and_a_report_on_what_could_be_done(
    tmp_path: Path, chests: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config, out = configuration(tmp_path, chests), tmp_path / "out"
    assert cli.main(["study", str(config), "--out", str(out), "--minutes", "0.05"]) == 1
    said = capfd.readouterr().err
    assert "1 of 2 members failed" in said
    assert "lr_per_sample=1e_38: its trial ended with exit code 1: " in said

    (path,) = (tmp_path / "runs").glob("tiny+*")
    run = Run(path)
    training = run.experiment().training
    (pace,) = json.loads((out / "paces.json").read_text()).values()
    assert training.steps == max(1, round(3 / pace["seconds"]))
    assert [record["step"] for record in run.metrics()] == list(range(1, training.steps + 1))
    assert run.steps() == [0, training.steps] and run.best_step() in (0, training.steps)
    with (out / "leave-one-out.csv").open() as file:
        assert [row["left_out"] for row in csv.DictReader(file)] == ["90.0", "0.0"]
    with (out / "training-time.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert int(row["steps"]) == training.steps
    assert "lr_per_sample=1e_38" in (out / "index.html").read_text()
    assert not (out / ".trial").exists()


def test_asked_to_stop_it_says_how_to_go_on(tmp_path: Path, chests: Path) -> None:
    config, out = configuration(tmp_path, chests), tmp_path / "out"
    with listening() as listener:
        listener.heard = signal.SIGTERM
        with pytest.raises(Stopped, match="as SIGTERM asked; the same command goes on"):
            run_study(config, [], out)
        listener.heard = 0
    assert not (tmp_path / "runs").exists()


def test_what_is_wrong_is_said_before_anything_is_trained(
    tmp_path: Path, chests: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, out = configuration(tmp_path, chests), tmp_path / "out"
    for override, told in (
        ("exhibits=[leave-one-in]", "unknown name 'leave-one-in'"),
        ("data.views=[33]", "no view at 33°"),
        ("data.stores=nowhere", "nowhere"),
        ("method.losses=l1", "unknown key 'losses'"),
    ):
        assert cli.main(["study", str(config), override, "--out", str(out)]) == 2
        assert told in capsys.readouterr().err
    assert cli.main(["study", str(config), "--out", str(out), "--minutes", "-1"]) == 2
    assert "argument --minutes: expected a number above 0" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists() and not out.exists()
